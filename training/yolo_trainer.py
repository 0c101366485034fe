"""Training a detector: export the splits, build and initialise, train or resume, release.

`train_detector` is the only entrance. The loop itself is in `_ultralytics_trainer`.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from core.errors import TrainingError
from core.geometry import letterbox
from core.images import KEPT, decode
from core.records import RunRecord
from core.scratch import temporary_files_in_scratch
from models._coco import load_coco_npz
from models._pictures import to_tensor
from models._runtime import cpu_has_bf16
from models._spec import ModelSpec
from models._ultralytics import DetectionNetwork
from training._beginning import check_begin, first_record
from training._ultralytics_trainer import METRICS, SteelTrainer
from training.balance import detector_spec
from training.detector_recipe import FIXED, OURS, check_freeze, make_recipe
from training.distillation import load_teachers
from training.export import to_yolo_folder
from training.initial import Origin, initialise
from training.progress import TrainingProgress, run_log
from training.release import release_best
from training.runs import RunFolder, load_checkpoint
from training.synthesis import training_set

if TYPE_CHECKING:
    from training.datasets import Dataset
    from training.splits import Protocol

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES = 64  # to settle BatchNorm when starting from folded COCO weights


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
    teachers: Sequence[Path] = (),
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
        initial_weights: a release of the same model (folder or weights file), a .npz of folded
            COCO arrays, or None for random weights.
        run: an empty run folder, or one to go on with.
        resume: go on from last.pt; a finished run is returned as it is.
        overrides: ultralytics' training arguments that take precedence over the recipe, and
            `loss` of `training.detector_recipe`, `balance` and `balance_strength` of
            `training.balance`.
        workers: processes that load images; 0 loads them in this one.
        teachers: releases to learn from beside the labels, see `training.distillation`.

    Raises:
        ConfigError: if there is no such scale, or the image size is no multiple of 32 px.
        TrainingError: if the run cannot start or be resumed, a teacher does not fit, or the loss
            diverges.
        WeightsError: if the initial weights do not fit.
    """
    if spec.task != "detect":
        raise TrainingError(f"{spec.name} is made to {spec.task}: it is not trained as a detector.")
    taught_by = load_teachers(teachers, dataset, protocol=protocol, device=device)
    recipe = make_recipe(
        spec,
        epochs=epochs,
        batch=batch,
        overrides=overrides,
        teachers=[teacher.words for teacher in taught_by],
    )
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
    check_begin(spec, dataset, run=run, resume=resume, asked=asked)
    if run.has_record() and run.load_record().finished_at is not None:
        return run.load_record()
    checkpoint = load_checkpoint(run.last) if run.last.is_file() else None
    torch.manual_seed(seed)
    network: DetectionNetwork = spec.build(len(dataset.labels), scale)  # type: ignore[assignment]
    check_freeze(recipe.get("freeze"), len(network.model))
    scratch = run.scratch
    with run_log(run.log, also=("ultralytics",)) as console:
        if checkpoint is None:
            origin = _initialise(
                network,
                initial_weights,
                spec,
                dataset,
                protocol=protocol,
                image_size=image_size,
                scale=scale,
            )
            run.save_record(
                first_record(
                    run,
                    dataset,
                    network,
                    origin,
                    asked=asked,
                    device=device,
                    precision=_precision(device),
                )
            )
            logger.info("run %s starts from %s", run.id, origin.words)
        else:
            run.truncate_metrics(checkpoint["epochs"])
        before_s = run.load_record().wall_time_s
        started = time.monotonic()

        def keep_record(done: int) -> None:
            kept = _read_best(run)
            wall_time_s = before_s + time.monotonic() - started
            run.update_record(epochs=done, wall_time_s=wall_time_s, **kept)

        if checkpoint is not None and run.load_record().epochs < checkpoint["epochs"]:
            keep_record(checkpoint["epochs"])  # killed between the checkpoint and its report
        if checkpoint is None or not _is_done(checkpoint, epochs):
            shutil.rmtree(scratch, ignore_errors=True)  # of a run that was killed
            data = training_set(dataset, recipe, protocol=protocol, seed=seed, run=run)
            to_yolo_folder(data, protocol, scratch, splits=("train", "val"))
            splits = {split: scratch / "images" / split for split in ("train", "val")}
            arguments = {k: v for k, v in recipe.items() if k not in OURS} | FIXED
            arguments |= {"imgsz": image_size, "seed": seed, "device": device, "model": spec.name}
            arguments |= {"save_dir": str(scratch), "deterministic": device == "cpu"}
            trainer = SteelTrainer(
                network,
                spec=detector_spec(
                    spec,
                    recipe["balance"],
                    recipe["balance_strength"],
                    epoch_images=len(dataset.split(protocol, "train")),
                    loss=recipe["loss"],
                ),
                run=run,
                splits=splits,
                labels=dataset.labels,
                arguments=arguments,
                seed=seed,
                workers=workers,
                checkpoint=checkpoint,
                progress=partial(TrainingProgress, console=console),
                on_epoch=keep_record,
                in_place=recipe["in_place"] > 0,
                teachers=taught_by,
                teaching=recipe.get("teaching", 0.0),
            )
            with temporary_files_in_scratch():
                trainer.train()
        record = release_best(run, spec)
    shutil.rmtree(scratch, ignore_errors=True)
    return record


# ------------------------------------------------------------------------------------- before


def _initialise(
    network: DetectionNetwork,
    source: Path | None,
    spec: ModelSpec,
    dataset: Dataset,
    *,
    protocol: Protocol,
    image_size: int,
    scale: str,
) -> Origin:
    """Give the network its first weights: of a release, of COCO arrays, or its random ones.

    Raises:
        WeightsError: if nothing in the source fits.
    """
    if source is None or source.suffix != ".npz":
        return initialise(
            network, source, scale=scale, labels=dataset.labels, stock_layers=spec.coco_layers
        )
    samples = dataset.split(protocol, "train")
    chosen = np.linspace(0, len(samples) - 1, min(CALIBRATION_IMAGES, len(samples))).astype(int)
    images = to_tensor(
        [letterbox(decode(samples[i].path, limits=KEPT).pixels, image_size)[0] for i in chosen]
    )
    lent = load_coco_npz(network, source, images, layers=spec.coco_layers)
    widened = ", widened" if lent.is_widened else ""
    return Origin(f"COCO ({source.name}), {len(lent.names)} arrays{widened}")


def _precision(device: str) -> str:
    if device != "cpu":
        return "fp16 autocast"
    return "bf16 autocast" if cpu_has_bf16() else "fp32"


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
