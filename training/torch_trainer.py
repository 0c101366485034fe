"""Training a segmenter or a classifier with one plain loop: no framework, no loading processes.

Images lie in memory, views are made on the device. Everything random in an epoch follows from the
run's seed and the epoch's number, and every epoch ends with a checkpoint that replaces the last one
whole: a run killed at any moment goes on as if nothing had happened, on a CPU bit for bit.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import torch

from core.cpus import memory_granted_mb
from core.errors import TrainingError
from core.records import RunRecord
from training import runs
from training._beginning import check_begin, first_record
from training._depthwise import quicken
from training._torch_loop import Loop
from training._torch_parts import has_bf16, layout
from training.batches import load_split, needed_mb
from training.initial import Origin, initialise
from training.plan import make_plan
from training.progress import run_log
from training.release import release_best
from training.synthesis import training_set

if TYPE_CHECKING:
    from models._spec import ModelSpec
    from training.datasets import Dataset
    from training.splits import Protocol

logger = logging.getLogger(__name__)


def train_network(
    spec: ModelSpec,
    dataset: Dataset,
    *,
    protocol: Protocol,
    scale: str,
    epochs: int,
    image_size: int,
    batch: int,
    seed: int,
    device: str,
    initial_weights: Path | None,
    run: runs.RunFolder,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    workers: int = 2,
) -> RunRecord:
    """Train on the train split, keep the best epoch on val, write the release; test is not read.

    The best epoch has the highest mIoU or accuracy; ties go to the lower loss.

    Args:
        spec: a segmenter or a classifier.
        dataset: a prepared data set of the same task.
        protocol: which of its splits.
        scale: one of `spec.scales`.
        epochs: most epochs to train.
        image_size: px, side of the network's input.
        batch: images a step.
        seed: of first weights, order, views and dropout.
        device: "cpu" or "cuda:N".
        initial_weights: a release folder to start from, or None for random weights.
        run: an empty run folder, or one to go on with.
        resume: go on from last.pt; a finished run is returned as it is.
        overrides: values over the recipe, see `training.plan.make_plan`.
        workers: threads that decode images.

    Raises:
        ConfigError: if there is no such scale.
        TrainingError: if the run cannot start or be resumed, its images do not fit into memory, or
            its loss diverges.
        WeightsError: if the initial weights do not fit.
        DatasetError: if a truth is not fit for the task.
    """
    plan = make_plan(spec, epochs=epochs, batch=batch, overrides=overrides or {})
    asked = {
        "model": spec.name,
        "scale": scale,
        "protocol": protocol,
        "dataset_id": dataset.id,
        "image_size": image_size,
        "epochs_planned": epochs,
        "seed": seed,
        "recipe": plan.as_recipe(),
    }
    check_begin(spec, dataset, run=run, resume=resume, asked=asked)
    begun = run.has_record()
    if begun and run.load_record().finished_at is not None:
        return run.load_record()
    images = len(dataset.split(protocol, "train"))
    if not begun and min(images, batch) < 2:
        raise TrainingError(
            f"{spec.name} would learn from batches of 1 image ({images} to train on, batch "
            f"{batch}), which have no statistics: it needs 2 at least."
        )
    _check_memory(spec, dataset, protocol=protocol, image_size=image_size)
    torch.manual_seed(seed)
    network = spec.build(len(dataset.labels), scale)
    origin = (
        Origin("its checkpoint")
        if begun
        else initialise(network, initial_weights, scale=scale, labels=dataset.labels)
    )
    place = torch.device(device)
    precision = "bf16 autocast" if has_bf16(place) else "fp32"
    record = (
        None
        if begun
        else first_record(
            run, dataset, network, origin, asked=asked, device=device, precision=precision
        )
    )
    data = training_set(dataset, plan.as_recipe(), protocol=protocol, seed=seed, run=run)
    train, val = (
        load_split(
            data.split(protocol, part),
            task=spec.task,
            labels=dataset.labels,
            image_size=image_size,
            device=place,
            workers=workers,
            exact=part == "val",
        )
        for part in ("train", "val")
    )
    shutil.rmtree(run.scratch, ignore_errors=True)  # all images are in memory
    if place.type == "cpu":
        quicken(network)
    loop = Loop(
        spec=spec,
        network=network.to(place, memory_format=layout(place)),  # type: ignore[call-overload]
        plan=plan,
        train=train,
        val=val,
        classes=len(dataset.labels) + (spec.task == "segment"),
        image_size=image_size,
        seed=seed,
        run=run,
        epoch_images=images,
    )
    with run_log(run.log) as console:
        logger.info("run %s starts from %s", run.id, origin.words)
        if record is None:
            loop.restore()
        else:  # the checkpoint first: whatever has a record can be resumed
            loop.checkpoint()
            run.save_record(record)
        loop.fit(console)
        return release_best(run, spec)


def _check_memory(
    spec: ModelSpec, dataset: Dataset, *, protocol: Protocol, image_size: int
) -> None:
    """Refuse more images than there is memory for: the process would be killed without a word."""
    parts = {part: dataset.split(protocol, part) for part in ("train", "val")}
    needed = sum(
        needed_mb(samples, task=spec.task, image_size=image_size, exact=part == "val")
        for part, samples in parts.items()
    )
    free = _memory_free_mb()
    if needed > free:
        raise TrainingError(
            f"{spec.name} learns from images in memory, and the {sum(map(len, parts.values()))} of "
            f"{dataset.name} would take {needed / 1000:.1f} GB or more, of which {free / 1000:.1f} "
            "are free: take fewer or smaller ones, or a machine with more."
        )


def _memory_free_mb() -> float:
    """Memory in megabytes that may still be taken: what the machine has left, and is granted."""
    left_mb, granted_mb = psutil.virtual_memory().available / 1e6, memory_granted_mb()
    return float(left_mb) if granted_mb is None else float(min(left_mb, granted_mb))
