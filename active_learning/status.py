"""How the loop stands, from our own side alone: it answers when Label Studio does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from active_learning.desk import Desk
from active_learning.outlook import Outlook, outlooks, versions_of
from core.errors import InputError, TrainingError
from core.records import DatasetVersion, RunRecord
from core.settings import Settings
from hub.registry import resolve_all

# The states of the queue, in the words of the page Review.
_PLACES: Final = {
    "waiting to be sent": ("pending", "sending", "unknown"),
    "sent to Label Studio": ("sent", "verified"),
    "set aside": ("parked",),
}


def read_status(settings: Settings, desk: Desk) -> dict[str, Any]:
    """What `python -m active_learning status --json` prints.

    Args:
        settings: of this installation.
        desk: of its labelling project.

    Raises:
        LedgerError: if the ledger cannot be read.
    """
    versions = versions_of(settings, desk)
    datasets = sorted({release.config.dataset for release in resolve_all(settings.paths)})
    heads = [head for name in datasets if (head := versions.head(name)) is not None]
    newest = max(heads, key=lambda head: head.created_at, default=None)
    newest_run = last_run(settings)
    return {
        "queue": desk.queue.counts(),
        "oldest_s": {state: round(age) for state, age in desk.queue.ages_s().items()},
        "annotations": {"applied": desk.inbox.counts()["annotated"]},
        "dataset": _dataset(newest),
        "versions": [head.folder for head in heads],
        "last_run": newest_run.id if newest_run else None,
        "due": _due(outlooks(settings, desk)),
    }


def in_words(status: Mapping[str, Any]) -> list[str]:
    """What `read_status` read, in lines for a person."""
    queue, due = status["queue"], status["due"]
    places = {place: sum(queue[state] for state in at) for place, at in _PLACES.items()}
    versions = ", ".join(status["versions"])
    return [
        "queue     " + ", ".join(f"{n} {place}" for place, n in places.items()),
        f"reviewed  {status['annotations']['applied']}",
        f"data set  {versions or 'as prepared, no answer in it yet'}",
        f"last run  {status['last_run'] or 'none'}",
        f"{'due' if due['now'] else 'not due'}: {due['why']}",
    ]


def last_run(settings: Settings) -> RunRecord | None:
    """The run that was started last and whose record can be read."""
    from training.runs import list_runs

    records = []
    for run in list_runs(settings.paths.runs):
        try:
            records.append(run.load_record())
        except (TrainingError, InputError):
            continue  # a run that is being made, or a folder that is none
    return max(records, key=lambda record: record.started_at, default=None)


def _dataset(version: DatasetVersion | None) -> dict[str, Any]:
    if version is None:  # nothing was reviewed yet: the public sets are as they were
        return {"id": None, "counts": {}}
    return {"id": version.id, "counts": version.counts}


def _due(views: Sequence[Outlook]) -> dict[str, Any]:
    """Whether any model is due, and why; where none is, why each is not."""
    due = [view for view in views if view.due.now]
    told = due or views
    whys = {view.due.why for view in told}
    if len(whys) == 1:
        return {"now": bool(due), "why": whys.pop()}
    why = " ".join(f"{view.model}: {view.due.why}" for view in told)
    return {"now": bool(due), "why": why or "No model is served."}
