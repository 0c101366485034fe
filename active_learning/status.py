"""How the loop stands, from our own side alone: it answers when Label Studio does not."""

from __future__ import annotations

from typing import Any

from active_learning.desk import Desk
from active_learning.versions import Versions
from core.errors import InputError, TrainingError
from core.records import DatasetVersion, RunRecord
from core.settings import RetrainingSettings, Settings
from hub.registry import resolve_all


def read_status(settings: Settings, desk: Desk) -> dict[str, Any]:
    """What `python -m active_learning status --json` prints.

    Args:
        settings: of this installation.
        desk: of its labelling project.

    Raises:
        LedgerError: if the ledger cannot be read.
    """
    versions = Versions(
        desk.ledger,
        desk.queue.images,
        settings.paths.datasets,
        project=desk.queue.project,
        who=desk.queue.who,
    )
    datasets = sorted({release.config.dataset for release in resolve_all(settings.paths)})
    heads = [head for name in datasets if (head := versions.head(name)) is not None]
    newest = max(heads, key=lambda head: head.created_at, default=None)
    last_run = _last_run(settings)
    return {
        "queue": desk.queue.counts(),
        "oldest_s": {state: round(age) for state, age in desk.queue.ages_s().items()},
        "annotations": {"applied": desk.inbox.counts()["annotated"]},
        "dataset": _dataset(newest),
        "last_run": last_run.id if last_run else None,
        "due": _due(max(map(versions.new_answers, datasets), default=0), settings.retraining),
    }


def _dataset(version: DatasetVersion | None) -> dict[str, Any]:
    if version is None:  # nothing was reviewed yet: the public sets are as they were
        return {"id": None, "counts": {}}
    return {"id": version.id, "counts": version.counts}


def _last_run(settings: Settings) -> RunRecord | None:
    """The run that was started last and whose record can be read."""
    from training.runs import list_runs

    records = []
    for run in list_runs(settings.paths.runs):
        try:
            records.append(run.load_record())
        except (TrainingError, InputError):
            continue  # a run that is being made, or a folder that is none
    return max(records, key=lambda record: record.started_at, default=None)


def _due(new: int, settings: RetrainingSettings) -> dict[str, Any]:
    wanted = settings.min_new_annotations
    now = new >= wanted
    return {"now": now, "why": f"{new} of {wanted} newly reviewed images"}
