"""One door to both trainers: start a run of any model, or go on with one from its record."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError, RollmarkError, TrainingError
from core.files import remove_unfinished
from models import get_spec
from training.balance import UNRECORDED
from training.datasets import Dataset
from training.learned import training_data
from training.runs import RunFolder
from training.watched import EnoughTrained, Watch, WatchedRun, conclude

if TYPE_CHECKING:
    from core.records import RunRecord
    from models._spec import ModelSpec
    from training.splits import Protocol

WAIT_S = 10.0  # image loaders of a process that was killed live a few seconds longer
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def start_run(
    spec: ModelSpec,
    dataset: Dataset,
    *,
    runs_root: Path,
    run_id: str | None = None,
    protocol: Protocol,
    scale: str | None = None,
    epochs: int | None = None,
    image_size: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    device: str,
    initial_weights: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    workers: int = 2,
    go_on: bool = False,
    watch: Watch | None = None,
    teachers: Sequence[Path] = (),
) -> RunRecord:
    """Train a model in a new run folder; whatever is None is as the spec has it.

    With `go_on` the folder `run_id` may hold this very run already: it is gone on with from its
    checkpoint, or returned if it is finished. `watch` sees the record after every epoch and may end
    the run, whose best epoch is then released.

    Raises:
        RollmarkError: as `train_detector` and `train_network` do, also if the folder holds a run
            that was begun with other choices.
    """
    scale = scale or spec.default_scale
    if scale not in spec.scales:
        raise ConfigError(f"Unknown scale {scale!r}. {spec.name} has: {', '.join(spec.scales)}.")
    if run_id is None:
        run = RunFolder.create(runs_root, model=spec.name, scale=scale, seed=seed)
    else:
        run = _named(run_id, runs_root)
    if watch is not None:
        run = WatchedRun(run.root, watch)
    # Who asks to go on sees to it that nobody else does: rows are locked, retrainings leased.
    with _alone(run, insist=not go_on):
        try:
            return _train(
                spec,
                dataset,
                protocol=protocol,
                scale=scale,
                epochs=epochs or spec.recipe.epochs,
                image_size=image_size or spec.image_size,
                batch=batch or spec.recipe.batch,
                seed=seed,
                device=device,
                initial_weights=initial_weights,
                run=run,
                resume=go_on and run.has_record(),
                overrides=dict(overrides or {}),
                workers=workers,
                teachers=teachers,
            )
        except EnoughTrained:
            return conclude(run)
        except RollmarkError:
            with suppress(OSError):  # a folder in which nothing was begun is not worth keeping
                run.root.rmdir()
            raise


def resume_run(
    run: RunFolder,
    *,
    data_root: Path,
    device: str,
    initial_weights: Path | None = None,
    workers: int = 2,
    teachers: Sequence[Path] = (),
) -> RunRecord:
    """Go on with a run as it was begun, from its last checkpoint.

    Args:
        run: its folder.
        data_root: folder of the prepared data sets.
        device: where to go on.
        initial_weights: only for a run that was killed before its first checkpoint.
        workers: as for `start_run`.
        teachers: the releases that the run learns from, if any.

    Raises:
        TrainingError: if the folder is no run, another process trains it, or its first weights or
            teachers are needed again.
        RollmarkError: as `start_run`.
    """
    record = run.load_record()
    spec = get_spec(record.model)
    if not run.last.is_file() and initial_weights is None and "random" not in record.initialisation:
        raise TrainingError(
            f"Run {run.id} began from {record.initialisation} and was stopped before its first "
            "checkpoint: give those weights again."
        )
    taught_by = record.recipe.get("teachers", [])
    if len(taught_by) != len(teachers):
        raise TrainingError(
            f"Run {run.id} learns from {', '.join(taught_by) or 'labels alone'}: give the same "
            "teachers again."
        )
    with _alone(run, insist=True):
        return _train(
            spec,
            training_data(record, data_root),
            device=device,
            initial_weights=initial_weights,
            run=run,
            resume=True,
            workers=workers,
            teachers=teachers,
            **begun_as(record),
        )


def begun_as(record: RunRecord) -> dict[str, Any]:
    """What to call `start_run` with so that a run goes on as it was begun, whatever is usual today.

    Options that are younger than the run are as they were before there was a choice.
    """
    spec, batch = get_spec(record.model), int(record.recipe["batch"])
    usual = recipe_of(spec, epochs=record.epochs_planned, batch=batch)
    begun = {k: v for k, v in UNRECORDED.items() if k in usual} | record.recipe
    derived = {"teachers", "close_mosaic"} if begun.get("in_place") else {"teachers"}
    return {
        "protocol": record.protocol,
        "scale": record.scale,
        "epochs": record.epochs_planned,
        "image_size": record.image_size,
        "batch": batch,
        "seed": record.seed,
        "overrides": {
            name: value
            for name, value in begun.items()
            if name not in derived and (name not in usual or usual[name] != value)
        },
    }


def recipe_of(
    spec: ModelSpec, *, epochs: int, batch: int, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The recipe that a run of these epochs, batch and overrides records.

    Raises:
        TrainingError: if an override is unknown or its value cannot be.
    """
    if spec.task == "detect":
        from training.detector_recipe import make_recipe

        return make_recipe(spec, epochs=epochs, batch=batch, overrides=overrides)
    from training.plan import make_plan

    return make_plan(spec, epochs=epochs, batch=batch, overrides=overrides or {}).as_recipe()


def find_run(name: str, runs_root: Path) -> RunFolder:
    """The run that a name or a path means.

    Raises:
        TrainingError: if there is none.
    """
    for root in (runs_root / name, Path(name)):
        if root.is_dir():
            return RunFolder(root.resolve())
    raise TrainingError(f"No run {name!r} in {runs_root}: give the name or folder of a run.")


def _named(run_id: str, runs_root: Path) -> RunFolder:
    if not RUN_NAME.fullmatch(run_id):
        raise ConfigError(
            f"Run name {run_id!r} cannot be: use letters, digits, dots, hyphens and underscores."
        )
    root = runs_root / run_id
    root.mkdir(parents=True, exist_ok=True)
    return RunFolder(root)


@contextmanager
def _alone(run: RunFolder, *, insist: bool) -> Iterator[None]:
    """Keep other processes from training in the run's folder; the lock dies with this one.

    Raises:
        TrainingError: if another one does, and `insist`.
    """
    folder = os.open(run.root, os.O_RDONLY)
    try:
        if not _lock(folder, wait_s=WAIT_S if insist else 0.0) and insist:
            raise TrainingError(
                f"Run {run.id} is being trained by another process: let it end, or stop it first."
            )
        yield
    finally:
        os.close(folder)


def _lock(folder: int, *, wait_s: float) -> bool:
    """Whether the open folder is ours now; where folders cannot be locked, it is."""
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.2)
        except OSError:
            return True
        else:
            return True


def _train(
    spec: ModelSpec, dataset: Dataset, *, teachers: Sequence[Path], **arguments: Any
) -> RunRecord:
    remove_unfinished(arguments["run"].root, "*")  # each may be as large as a checkpoint
    if spec.task == "detect":
        from training.yolo_trainer import train_detector

        return train_detector(spec, dataset, teachers=teachers, **arguments)
    if teachers:
        raise TrainingError(f"{spec.name} is made to {spec.task}: only detectors have teachers.")
    from training.torch_trainer import train_network

    return train_network(spec, dataset, **arguments)
