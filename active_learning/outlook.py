"""How each model stands between two runs: what is new for it, and whether it is due.

This reads; it is what `status`, the watcher and the Training page show, and it needs neither Label
Studio nor a network.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from active_learning.desk import Desk
from active_learning.drift import Drift, compare, read_reference
from active_learning.growth import unfit_for
from active_learning.incoming import Incoming
from active_learning.labelling import labels_given
from active_learning.retraining import RetrainingRun, RetrainingRuns
from active_learning.schedule import Due, State, is_due
from active_learning.versions import ACCEPTANCE, Versions
from core.errors import DatasetError
from core.records import Annotation, ReleaseConfig
from core.settings import Settings
from core.types import Task
from hub.registry import Release, resolve_all
from training.datasets import SAMPLES_FILE, open_dataset

_IMAGES: Final = "images"  # the key of a version's counts that is no class


@dataclass(frozen=True, slots=True)
class Outlook:
    """One served model between two runs."""

    model: str
    title: str
    dataset: str
    revision: str
    due: Due
    new_reviews: int  # that this model can learn from
    new_labels: dict[str, int]
    training_labels: dict[str, int]  # before the new ones; empty where masks were not counted
    drift: Drift | None
    open_run: RetrainingRun | None


def versions_of(settings: Settings, desk: Desk) -> Versions:
    """The data set versions that grow from what people answered, in whichever project."""
    return Versions(
        desk.ledger,
        desk.queue.images,
        settings.paths.datasets,
        who=desk.queue.who,
    )


def outlooks(settings: Settings, desk: Desk) -> tuple[Outlook, ...]:
    """Every served model, in the order of their names.

    Raises:
        LedgerError: if the ledger cannot be read.
    """
    return tuple(outlook(settings, desk, release) for release in resolve_all(settings.paths))


def outlook(settings: Settings, desk: Desk, release: Release) -> Outlook:
    """One model.

    Raises:
        LedgerError: if the ledger cannot be read.
        WeightsError: if the release's drift reference is damaged.
    """
    config = release.config
    runs = RetrainingRuns(desk.ledger, who=desk.queue.who)
    latest = runs.newest(model=config.name)
    last = latest[0] if latest else None
    versions = versions_of(settings, desk)
    used = next((v for run in latest if (v := _learned_by(run, config))), config.run.dataset_id)
    tested = _tested(settings.paths.datasets, config.dataset)
    new = tuple(
        said
        for said in versions.answers_since(config.dataset, used)
        if said.image_sha256 not in tested and _can_learn(config, said)
    )
    new_labels = count_labels(new, config.task)
    training_labels, missing = _training_labels(settings, versions, config)
    drift = _drift(settings, desk, config)
    state = State(
        now=desk.ledger.clock.now(),
        new_reviews=len(new),
        new_labels=new_labels,
        training_labels=training_labels,
        last_started=last.created_at if last else None,
        drift=drift,
    )
    open_run = last if last and last.is_open else None
    return Outlook(
        model=config.name,
        title=config.title,
        dataset=config.dataset,
        revision=config.revision,
        due=_due(state, settings, open_run, missing),
        new_reviews=len(new),
        new_labels=new_labels,
        training_labels=training_labels,
        drift=drift,
        open_run=open_run,
    )


def _learned_by(run: RetrainingRun, config: ReleaseConfig) -> str | None:
    """The version whose answers a run has made a candidate of, or is about to.

    One that was given up before has taught nobody. A model that is served from another set by now
    has runs that tell nothing about this one.
    """
    has_learned = run.is_open or run.candidate is not None
    return run.version if has_learned and run.dataset == config.dataset else None


def count_labels(annotations: tuple[Annotation, ...], task: Task) -> dict[str, int]:
    """What annotations name, by class: boxes, classes of masks, or classes of images."""
    return dict(Counter(label for said in annotations for label in labels_given(said, task)))


def _can_learn(config: ReleaseConfig, said: Annotation) -> bool:
    return not unfit_for(said, task=config.task, labels=config.labels, dataset=config.dataset)


def _due(state: State, settings: Settings, open_run: RetrainingRun | None, missing: str) -> Due:
    if open_run is not None and open_run.state == "parked":
        return Due(False, f"run {open_run.id} is parked: {' '.join(open_run.reasons)}")
    if open_run is not None:
        return Due(True, f"run {open_run.id} is in phase {open_run.phase} and goes on.")
    due = is_due(state, settings.retraining)
    return Due(False, missing) if due.now and missing else due


def _training_labels(
    settings: Settings, versions: Versions, config: ReleaseConfig
) -> tuple[dict[str, int], str]:
    """Labels of the newest training split by class; and why there are none, "" if there are."""
    head = versions.head(config.dataset)
    try:
        counts = (
            head.counts["train"] if head else _public(settings.paths.datasets, config.dataset)[0]
        )
    except DatasetError as exc:
        return {}, str(exc)
    return {label: n for label, n in counts.items() if label != _IMAGES}, ""


def _tested(root: Path, name: str) -> frozenset[str]:
    """Images, by hash, of a public set's test splits, of which no version learns."""
    try:
        return _public(root, name)[1]
    except DatasetError:  # told by `_training_labels`
        return frozenset()


def _public(root: Path, name: str) -> tuple[dict[str, int], frozenset[str]]:
    index = root / name / SAMPLES_FILE
    stamp = index.stat().st_mtime_ns if index.is_file() else 0
    return _read(root, name, stamp)


@lru_cache(maxsize=16)
def _read(root: Path, name: str, stamp: int) -> tuple[dict[str, int], frozenset[str]]:
    """Counts and test images of a public set as it was at `stamp`; asked for every minute."""
    dataset = open_dataset(name, root)
    tested = (s.sha256 for s in dataset.samples if "test" in s.splits.values())
    return dataset.counts(ACCEPTANCE)["train"], frozenset(tested)


def _drift(settings: Settings, desk: Desk, config: ReleaseConfig) -> Drift | None:
    reference = read_reference(config)
    if reference is None:
        return None
    incoming = Incoming(desk.ledger, window=settings.retraining.drift_window)
    return compare(reference, incoming.latest(config.name, config.revision))
