"""How a run begins, the same for both trainers: what is asked for, whether it may, what is noted.

A run that was begun is only gone on with as it was begun.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from core.errors import ConfigError, TrainingError
from core.records import RunRecord
from training.balance import UNRECORDED
from training.runs import (
    RunFolder,
    count_parameters,
    describe_machine,
    git_commit,
    measure_gflops,
)

if TYPE_CHECKING:
    from torch import nn

    from models._spec import ModelSpec
    from training.datasets import Dataset, Sample
    from training.initial import Origin

DETECTOR_STRIDE_PX: Final = 32  # of the deepest maps, which the neck joins with finer ones


def check_begin(
    spec: ModelSpec, dataset: Dataset, *, run: RunFolder, resume: bool, asked: Mapping[str, Any]
) -> None:
    """Refuse a run that cannot be, and one that was begun as another.

    Args:
        spec: of the model.
        dataset: to train on.
        run: an empty folder, or one of a run that was begun.
        resume: whether the caller means to go on with it.
        asked: fields of the run's record that the caller decides.

    Raises:
        ConfigError: if there is no such scale, or a detector cannot look at pictures of that size.
        TrainingError: if the data set is for another task, has no class or lacks training or
            validation images, the folder holds a run that is not to be resumed, or that was begun
            with other choices.
    """
    if dataset.task != spec.task:
        raise TrainingError(
            f"{dataset.name} is a data set to {dataset.task}: {spec.name} needs one to {spec.task}."
        )
    if not dataset.labels:
        raise TrainingError(
            f"No picture of {dataset.name} shows a defect: what none shows cannot be learned."
        )
    if asked["scale"] not in spec.scales:
        raise ConfigError(
            f"Unknown scale {asked['scale']!r}. {spec.name} has: {', '.join(spec.scales)}."
        )
    size = asked["image_size"]
    if spec.task == "detect" and size % DETECTOR_STRIDE_PX:
        raise ConfigError(
            f"Image size is {size} px: {spec.name} needs a multiple of {DETECTOR_STRIDE_PX}."
        )
    for part in ("train", "val"):
        if not dataset.split(asked["protocol"], part):
            raise TrainingError(
                f"{dataset.name} has no {part} images under protocol {asked['protocol']}."
            )
    if not run.has_record():
        return  # also a run that was killed before it began
    if not resume:
        raise TrainingError(f"{run.root} already holds a run: resume it or take a new folder.")
    begun = run.load_record().model_dump()
    younger = {k: v for k, v in UNRECORDED.items() if k in asked["recipe"]}
    begun["recipe"] = younger | begun["recipe"]
    for name, value in asked.items():
        if begun[name] != value:
            raise TrainingError(
                f"Run {run.id} was begun with {name} {begun[name]!r}, now {value!r} is asked for: "
                "resume it with what it was begun with."
            )


def first_record(
    run: RunFolder,
    dataset: Dataset,
    network: nn.Module,
    origin: Origin,
    *,
    asked: Mapping[str, Any],
    device: str,
    precision: str,
) -> RunRecord:
    """What a run is before its first epoch."""
    return RunRecord(
        **asked,
        id=run.id,
        dataset=dataset.name,
        test_id=dataset.test_id(asked["protocol"], "test"),
        labels=dataset.labels,
        picture_px=_median_side(dataset.split(asked["protocol"], "train")),
        epochs=0,
        initialisation=origin.words,
        parent_revision=origin.revision,
        parameters=count_parameters(network),
        gflops=round(measure_gflops(network, asked["image_size"]), 4),
        machine=describe_machine(device),
        precision=precision,
        git_commit=git_commit(),
        started_at=datetime.now(UTC),
    )


def _median_side(samples: Sequence[Sample]) -> int:
    """Long side of the samples in px: at this scale the network gets to know steel."""
    return round(median(max(sample.width, sample.height) for sample in samples))
