"""Training a detector: export the splits, build and initialise, train or resume, release.

`train_detector` is the only entrance. The loop itself is in `_ultralytics_trainer`.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import ConfigError, TrainingError, WeightsError
from core.geometry import letterbox
from core.images import decode
from core.records import RunRecord
from models._release import load_weights, read_release
from models._runtime import cpu_has_bf16
from models._spec import ModelSpec
from models._ultralytics import DetectionNetwork, load_coco_npz
from training._ultralytics_trainer import METRICS, SteelTrainer
from training.export import to_yolo_folder
from training.progress import TrainingProgress, run_log
from training.runs import (
    RunFolder,
    count_parameters,
    describe_machine,
    git_commit,
    load_checkpoint,
    measure_gflops,
    write_release,
)

if TYPE_CHECKING:
    from training.datasets import Dataset

logger = logging.getLogger(__name__)

Protocol = Literal["paper", "leak-free"]

# What recipes rarely state, chosen for rolled steel: no up or down, no left or right, no colour.
STEEL = {
    "fliplr": 0.5,
    "flipud": 0.5,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "mosaic": 1.0,
    "nbs": 64,  # images per optimiser step; smaller batches are accumulated
}
CLOSE_MOSAIC = 0.2  # of the epochs, at the end
# A paper's learning rate is tuned to its number of epochs. Runs shorter than half of that use
# this schedule, the same for every detector, so that they can be compared.
SHORT_SCHEDULE = {
    "optimizer": "SGD",
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 5e-4,
    "warmup_epochs": 1.0,
    "cos_lr": True,
    "nbs": 16,
}
SHORT = 0.5  # of the recipe's epochs
# How the run is carried out, not what is learnt: not for overriding.
FIXED = {
    "mode": "train",
    "task": "detect",
    "val": True,
    "save": True,
    "plots": False,
    "verbose": False,
    "exist_ok": True,
    "amp": False,
    "cache": "ram",
    "pretrained": False,
    "channels_last": True,
}
CALIBRATION_IMAGES = 64  # to settle BatchNorm when starting from folded COCO weights


def make_recipe(
    spec: ModelSpec, *, epochs: int, batch: int, overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Ultralytics' training arguments: steel's defaults, then the paper's, then `overrides`.

    The key "schedule" is ours and says which learning-rate schedule was taken: "paper" or "short".

    Raises:
        TrainingError: if an override is not a training argument, or decides what is fixed.
    """
    paper = spec.recipe
    short = epochs < SHORT * paper.epochs
    recipe: dict[str, Any] = {
        **STEEL,
        "optimizer": paper.optimizer,
        "lr0": paper.lr0,
        "lrf": paper.lrf,
        "momentum": paper.momentum,
        "weight_decay": paper.weight_decay,
        "warmup_epochs": paper.warmup_epochs,
        "cos_lr": paper.cosine,
        "patience": paper.patience or epochs,
        "close_mosaic": round(CLOSE_MOSAIC * epochs),
        **paper.extra,
        **(SHORT_SCHEDULE if short else {}),
        "schedule": "short" if short else "paper",
        "epochs": epochs,
        "batch": batch,
    }
    taken = {"epochs", "batch", "imgsz", "seed", "device", "workers", "schedule", *FIXED}
    for name in overrides or {}:
        if name in taken or not _is_argument(name):
            raise TrainingError(
                f"Cannot override {name!r}: it must be one of ultralytics' training arguments "
                f"that the run does not decide itself, such as lr0, optimizer, mosaic or degrees."
            )
    return {**recipe, **(overrides or {})}


def train_detector(
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
    run: RunFolder,
    resume: bool = False,
    overrides: Mapping[str, Any] | None = None,
    workers: int = 0,
    validate_every: int = 1,
) -> RunRecord:
    """Train on the train split, choose the best epoch on val, write the release; test is not read.

    Args:
        spec: a detector.
        dataset: a prepared data set.
        protocol: which of its splits.
        scale: one of `spec.scales`.
        epochs: to train, from the first.
        image_size: px, side of the square the images are letterboxed to.
        batch: images.
        seed: of weights, sampling and augmentation.
        device: "cpu" or "cuda:N".
        initial_weights: a release folder, a .safetensors file, a .npz of folded COCO arrays, or
            None for random weights.
        run: an empty run folder, or one to go on with.
        resume: go on from last.pt; a finished run is returned as it is.
        overrides: ultralytics' training arguments that take precedence over the recipe.
        workers: processes that load images; 0 loads them in this one.
        validate_every: epochs between two validations; the last epoch is always validated.

    Raises:
        TrainingError: if the run cannot start or be resumed, or its loss diverges.
        WeightsError: if the initial weights do not fit.
        DatasetError: if a split is empty.
    """
    recipe = make_recipe(spec, epochs=epochs, batch=batch, overrides=overrides)
    asked = {
        "model": spec.name,
        "scale": scale,
        "protocol": protocol,
        "dataset_id": dataset.id,
        "image_size": image_size,
        "epochs_planned": epochs,
        "seed": seed,
        "recipe": recipe,
    }
    _check(spec, dataset, scale=scale, run=run, resume=resume, asked=asked)
    if run.has_record() and run.load_record().finished_at is not None:
        return run.load_record()
    checkpoint = load_checkpoint(run.last) if run.last.is_file() else None
    torch.manual_seed(seed)
    network: DetectionNetwork = spec.build(len(dataset.labels), scale)  # type: ignore[assignment]
    scratch = run.root / "scratch"
    with run_log(run.log, also=("ultralytics",)) as console:
        if checkpoint is None:
            origin = _initialise(
                network, initial_weights, spec, dataset, protocol=protocol, image_size=image_size
            )
            run.save_record(_first_record(run, spec, dataset, network, origin, asked, device))
            logger.info("run %s starts from %s", run.id, origin.words)
        else:
            run.truncate_metrics(checkpoint["epochs"])
        before_s = run.load_record().wall_time_s
        started = time.monotonic()

        def keep_record(done: int) -> None:
            kept = _read_best(run)
            wall_time_s = before_s + time.monotonic() - started
            run.update_record(epochs=done, wall_time_s=wall_time_s, **kept)

        if checkpoint is None or not _is_done(checkpoint, epochs):
            shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
            to_yolo_folder(dataset, protocol, scratch, splits=("train", "val"))
            splits = {split: scratch / "images" / split for split in ("train", "val")}
            arguments = {k: v for k, v in recipe.items() if k != "schedule"} | FIXED
            arguments |= {"imgsz": image_size, "seed": seed, "device": device, "model": spec.name}
            arguments |= {"save_dir": str(scratch), "deterministic": device == "cpu"}
            SteelTrainer(
                network,
                spec=spec,
                run=run,
                splits=splits,
                labels=dataset.labels,
                arguments=arguments,
                seed=seed,
                workers=workers,
                validate_every=validate_every,
                checkpoint=checkpoint,
                progress=partial(TrainingProgress, console=console),
                on_epoch=keep_record,
            ).train()
        record = _finish(run, spec, len(dataset.labels), scale)
    shutil.rmtree(scratch, ignore_errors=True)
    return record


# ------------------------------------------------------------------------------------- before


def _is_argument(name: str) -> bool:
    from ultralytics.utils import DEFAULT_CFG_DICT

    return name in DEFAULT_CFG_DICT


def _check(
    spec: ModelSpec,
    dataset: Dataset,
    *,
    scale: str,
    run: RunFolder,
    resume: bool,
    asked: Mapping[str, Any],
) -> None:
    if spec.task != "detect":
        raise TrainingError(f"{spec.name} is made to {spec.task}: it is not trained as a detector.")
    if dataset.task != "detect":
        raise TrainingError(
            f"{dataset.name} is a data set to {dataset.task}: a detector needs boxes."
        )
    if scale not in spec.scales:
        raise ConfigError(f"Unknown scale {scale!r}. {spec.name} has: {', '.join(spec.scales)}.")
    if not run.has_record():
        return  # also a run that was killed before it began
    if not resume:
        raise TrainingError(f"{run.root} already holds a run: resume it or take a new folder.")
    begun = run.load_record().model_dump()
    for name, value in asked.items():
        if begun[name] != value:
            raise TrainingError(
                f"Run {run.id} was begun with {name} {begun[name]!r}, now {value!r} is asked for: "
                "resume it with what it was begun with."
            )


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where first weights came from; `revision` if they are those of a release."""

    words: str
    revision: str | None = None


def _initialise(
    network: DetectionNetwork,
    source: Path | None,
    spec: ModelSpec,
    dataset: Dataset,
    *,
    protocol: Protocol,
    image_size: int,
) -> _Origin:
    """Give the network its first weights.

    Raises:
        WeightsError: if nothing in the source fits.
    """
    if source is None:
        return _Origin("random weights")
    if source.is_dir():
        config = read_release(source)
        if (config.name, config.labels) == (spec.name, dataset.labels):
            load_weights(network, source, config)
            return _Origin(f"release {config.revision} of {config.name}", config.revision)
        taken = _load_fitting(network, source / config.weights_file)
        return _Origin(f"{taken} of release {config.revision} of {config.name}")
    if source.suffix == ".npz":
        samples = dataset.split(protocol, "train")
        chosen = np.linspace(0, len(samples) - 1, min(CALIBRATION_IMAGES, len(samples))).astype(int)
        images = _as_batch([samples[i].path for i in chosen], image_size)
        layers = getattr(importlib.import_module(spec.build.__module__), "COCO_LAYERS", None)
        names = load_coco_npz(network, source, images, layers=layers)
        return _Origin(f"COCO ({source.name}), {len(names)} arrays")
    return _Origin(f"{_load_fitting(network, source)} of {source.name}")


def _as_batch(paths: list[Path], image_size: int) -> Tensor:
    """(N, 3, S, S) in [0, 1]."""
    pixels = np.stack([letterbox(decode(path).pixels, image_size)[0] for path in paths])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _load_fitting(network: nn.Module, path: Path) -> str:
    """Take over the tensors whose name and shape fit; says how many."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        state = load_file(path)
    except (OSError, SafetensorError) as exc:
        raise WeightsError(f"{path} is not a readable safetensors file.") from exc
    own = network.state_dict()
    fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
    if not fitting:
        raise WeightsError(f"No tensor in {path} fits this network.")
    network.load_state_dict(fitting, strict=False)
    return f"{len(fitting)} of {len(own)} tensors"


def _first_record(
    run: RunFolder,
    spec: ModelSpec,
    dataset: Dataset,
    network: nn.Module,
    origin: _Origin,
    asked: Mapping[str, Any],
    device: str,
) -> RunRecord:
    if device != "cpu":
        precision = "fp16 autocast"
    else:
        precision = "bf16 autocast" if cpu_has_bf16() else "fp32"
    return RunRecord(
        **asked,
        id=run.id,
        dataset=dataset.name,
        test_id=dataset.test_id(asked["protocol"], "test"),
        labels=dataset.labels,
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


# -------------------------------------------------------------------------------------- after


def _is_done(checkpoint: Mapping[str, Any], epochs: int) -> bool:
    return bool(checkpoint["epochs"] >= epochs or checkpoint["stopped"])


def _read_best(run: RunFolder) -> dict[str, Any]:
    """Epoch and metrics of the weights in best.safetensors, as fields of the record."""
    from safetensors import safe_open

    if not run.best.is_file():
        return {}
    with safe_open(run.best, framework="pt") as file:
        stored = file.metadata()
    validation = {name: float(stored[name]) for name in METRICS.values()}
    return {"best_epoch": int(stored["epoch"]), "validation": validation}


def _finish(run: RunFolder, spec: ModelSpec, n_classes: int, scale: str) -> RunRecord:
    """Write the release of the best weights; doing it twice gives the same."""
    from safetensors.torch import load_file

    network = spec.build(n_classes, scale)
    network.load_state_dict(load_file(run.best))
    record = run.load_record().model_copy(update={"finished_at": datetime.now(UTC)})
    release = write_release(run.release, network, record=record, title=spec.title, task=spec.task)
    run.save_record(release.run)
    logger.info("run %s kept epoch %s: %s", run.id, record.best_epoch, record.validation)
    return release.run
