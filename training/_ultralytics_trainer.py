"""Ultralytics' training loop, made resumable, quiet and answerable to a `ModelSpec`.

What differs from `DetectionTrainer`: the network comes built and initialised; the paper's criterion
and sampler take part; checkpoints hold tensors and primitives only and replace each other
atomically; every epoch starts from a seed of its own and a fresh loader, so an epoch depends on
nothing but its checkpoint and its number, and a resumed run repeats the uninterrupted one; images
are validated letterboxed to the square they will be inspected at; integrations never run.
"""

from __future__ import annotations

import io
import logging
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.errors import TrainingError
from models._runtime import cpu_has_bf16
from models._spec import ModelSpec

# isort: split
from models._ultralytics import DetectionNetwork  # first: it sets ultralytics' environment

# isort: split
from ultralytics.data.build import InfiniteDataLoader, build_yolo_dataset
from ultralytics.models.yolo.detect import DetectionTrainer, DetectionValidator

from core.files import write_atomically
from training import plots
from training._depthwise import quicken
from training._loaders import draw_mosaics_from_all, drawing_by, end, fits_in_memory
from training._network_state import modules_of, network_state
from training.detector_recipe import ema_decay, fitness
from training.distillation import SoftLoss, Teacher
from training.progress import TrainingProgress
from training.runs import RunFolder, save_checkpoint

logger = logging.getLogger(__name__)

# ultralytics' names of the validation metrics → ours
METRICS = {
    "metrics/mAP50(B)": "mAP50",
    "metrics/mAP50-95(B)": "mAP50_95",
    "metrics/precision(B)": "precision",
    "metrics/recall(B)": "recall",
}
CURVES_EVERY = 5  # epochs


class SteelTrainer(DetectionTrainer):  # type: ignore[misc]
    """Trains one detector on one exported data set.

    Args:
        network: built and initialised; owned by the trainer from here on.
        spec: what the paper asks of the trainer.
        run: where checkpoint, weights, metrics and curves go.
        splits: folders of "train" and "val" images in YOLO layout.
        labels: class names in the order of the class ids.
        arguments: ultralytics' training arguments.
        seed: of everything random.
        workers: processes that load images; 0 loads them in this one.
        checkpoint: what `save_model` stored, to go on from.
        on_epoch: called after each checkpoint with the epochs done, from 1.
        in_place: with the end of mosaics, leave pictures where they are, too.
        teachers: to learn from beside the labels.
        teaching: their share of the loss.
    """

    def __init__(
        self,
        network: DetectionNetwork,
        *,
        spec: ModelSpec,
        run: RunFolder,
        splits: Mapping[str, Path],
        labels: tuple[str, ...],
        arguments: Mapping[str, Any],
        seed: int,
        workers: int,
        checkpoint: Mapping[str, Any] | None,
        progress: Callable[..., TrainingProgress],
        on_epoch: Callable[[int], None],
        in_place: bool = False,
        teachers: Sequence[Teacher] = (),
        teaching: float = 0.0,
    ) -> None:
        self._spec, self._run, self._seed = spec, run, seed
        self._splits, self._labels = splits, labels
        self._checkpoint, self._on_epoch = checkpoint, on_epoch
        self._teachers, self._teaching = teachers, teaching
        self._new_progress, self._in_place = progress, in_place
        self._progress: TrainingProgress | None = None
        self._sampler: Any = None
        self._attached: Any = None
        self._batch, self._accumulate = 0, 1
        self._epoch_started = self._images_per_s = 0.0
        self.best_fitness: float | None = None
        self.start_epoch, self.accumulate = 0, 1
        threads = torch.get_num_threads()
        super().__init__(overrides=dict(arguments))
        torch.set_num_threads(threads)  # ultralytics takes all cores but one, whoever else runs
        # Deterministic kernels suffice; filling every new tensor with NaN first only costs time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        self.args.workers = workers  # ultralytics sets 0 on a CPU
        network.criterion_factory = spec.criterion
        if self.device.type == "cpu" and cpu_has_bf16():
            network.autocast_dtype = torch.bfloat16
            quicken(network)
        self.model = network

    # ------------------------------------------------------------------------------- set-up

    def get_dataset(self) -> dict[str, Any]:
        """The splits as ultralytics names them; no test split, so it cannot be looked at."""
        names = dict(enumerate(self._labels))
        paths = {split: str(path) for split, path in self._splits.items()}
        return {**paths, "names": names, "nc": len(names), "channels": 3, "path": self.save_dir}

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Images letterboxed to the square, in validation too: so are they inspected later."""
        stride = max(int(self.model.stride.max()), 32)
        arguments = copy(self.args)
        if not fits_in_memory(Path(img_path), arguments.imgsz):
            arguments.cache = None
        with redirect_stdout(io.StringIO()):  # a bar that no setting of ultralytics switches off
            dataset = build_yolo_dataset(
                arguments, img_path, batch, self.data, mode=mode, rect=False, stride=stride
            )
        draw_mosaics_from_all(dataset, arguments)
        return dataset

    def get_dataloader(
        self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
    ) -> InfiniteDataLoader:
        """Ultralytics' loader, drawing by the paper's sampler in training if there is one."""
        stock = super().get_dataloader(dataset_path, batch_size, rank, mode)
        if mode != "train" or self._spec.sampler is None:
            return stock
        labels = [label["cls"].ravel().astype(int).tolist() for label in stock.dataset.labels]
        self._sampler = self._spec.sampler(labels, len(self._labels), self._seed)
        return drawing_by(self._sampler, stock)

    def _close_dataloader_mosaic(self) -> None:
        """Put no more pictures together; zoom and shift them no more either, if asked to."""
        if self._in_place:
            self.args.scale = self.args.translate = 0.0
        super()._close_dataloader_mosaic()

    def get_validator(self) -> DetectionValidator:
        """Ultralytics' validator of the val split."""
        return DetectionValidator(self.test_loader, save_dir=self.save_dir, args=copy(self.args))

    def _setup_train(self) -> None:
        if self.device.type == "cpu":
            self.model = self.model.to(memory_format=torch.channels_last)
        super()._setup_train()
        if self.device.type == "cuda":
            # Asking ultralytics for AMP makes it download a network to try it on.
            self.amp, self.scaler = True, torch.amp.grad_scaler.GradScaler("cuda")
        steps = self.epochs * math.ceil(len(self.train_loader) / self._accumulate)
        self.ema.decay = ema_decay(steps)
        # Made after the averaged copy: the copy must not share what listens to the loss.
        self.model.criterion = self.model.init_criterion()
        if self._teachers:
            gains = {name: getattr(self.args, name) for name in ("box", "cls", "dfl")}
            self.model.soft_loss = SoftLoss(self._teachers, share=self._teaching, gains=gains)
        if self._checkpoint is not None:
            self._restore(self._checkpoint)
            self._checkpoint = None
        self._progress = self._new_progress(
            epochs=self.epochs, batches=len(self.train_loader), done=self.start_epoch
        )

    def _build_train_pipeline(self) -> None:
        super()._build_train_pipeline()
        # Ultralytics carries gradients over the epoch's end, where a checkpoint would lose them:
        # it is told to step after every batch, and `optimizer_step` decides whether to.
        self._accumulate, self.accumulate = self.accumulate, 1

    def optimizer_step(self) -> None:
        """Step after every nbs / batch batches, and after the last of the epoch."""
        done = self._batch + 1
        if done % self._accumulate == 0 or done == len(self.train_loader):
            super().optimizer_step()

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """To the device, [0, 1], channels last."""
        batch = super().preprocess_batch(batch)
        batch["img"] = batch["img"].to(memory_format=torch.channels_last)
        return batch

    # -------------------------------------------------------------------------- during the run

    def run_callbacks(self, event: str) -> None:
        """Our own hooks only; the loggers and trackers ultralytics finds installed do not run."""
        hook = {
            "on_train_epoch_start": self._start_epoch,
            "on_train_batch_end": self._end_batch,
            "on_train_epoch_end": self._end_epoch,
            "teardown": self._teardown,
        }.get(event)
        if hook is not None:
            hook()

    def _start_epoch(self) -> None:
        seed = int(np.random.SeedSequence((self._seed, self.epoch)).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        # Workers prefetch across the epoch's end, with old seeds and old sampling weights.
        self.train_loader.reset()
        self.train_loader.generator.manual_seed(seed)
        if self._sampler is not None and self._attached is not self._sampler:
            self._sampler.attach(self.model.criterion)
            self._attached = self._sampler
        if self._spec.on_epoch is not None:
            for network in (self.model, self.ema.ema):
                self._spec.on_epoch(network, self.epoch)
        self._batch, self._epoch_started = 0, time.perf_counter()

    def _end_batch(self) -> None:
        if self._sampler is not None:
            self._sampler.on_batch_end()
        if self._progress is not None:
            loss = sum(float(value) for value in self.tloss.values())
            self._progress.step(epoch=self.epoch, batch=self._batch, loss=loss)
        self._batch += 1

    def _end_epoch(self) -> None:
        seconds = time.perf_counter() - self._epoch_started
        self._images_per_s = len(self.train_loader.sampler) / seconds
        if self._sampler is not None:
            self._sampler.on_epoch_end(self.epoch)

    def _teardown(self) -> None:
        for name in ("train_loader", "test_loader"):  # not there if the set-up failed
            if (loader := getattr(self, name, None)) is not None:
                end(loader)
        if self._progress is not None:
            self._progress.close()

    def validate(self) -> tuple[dict[str, float], float]:
        """Measure the averaged network on the val split."""
        measured = self.validator(self)
        named = {ours: float(measured[theirs]) for theirs, ours in METRICS.items()}
        losses = {
            k.removesuffix("_loss").replace("/", "_"): float(v)
            for k, v in measured.items()
            if k.startswith("val/")
        }
        score = fitness(named)
        if self.best_fitness is None or score > self.best_fitness:
            self.best_fitness = score
        return {**losses, **named}, score

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Append the epoch to metrics.csv and say it in the log."""
        losses = {
            f"train_{name.removesuffix('_loss')}": float(value)
            for name, value in self.tloss.items()
        }
        measured = {**losses, **self.metrics}
        rate = {"lr": self.optimizer.param_groups[0]["lr"], "images_per_s": self._images_per_s}
        self._run.append_metrics(self.epoch + 1, {**measured, **rate})
        told = " ".join(f"{name} {value:.4f}" for name, value in measured.items())
        logger.info(
            "epoch %d/%d %s, %.1f images/s", self.epoch + 1, self.epochs, told, self._images_per_s
        )
        if (self.epoch + 1) % CURVES_EVERY == 0:
            plots.draw_curves(self._run, title=f"{self._spec.title}, {self._run.id}")

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Ultralytics asks here whether to repeat the epoch; a diverged run ends instead."""
        losses = {f"train_{name}": float(value) for name, value in self.tloss.items()}
        losses |= {name: v for name, v in self.metrics.items() if name.startswith("val_")}
        for name, value in losses.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"{name} of epoch {epoch + 1} is {value}: the run has diverged; what was sound "
                    f"is in {self._run.root}; train again with a smaller lr0 than {self.args.lr0}."
                )
        return False

    # ------------------------------------------------------------------------------ checkpoints

    def save_model(self) -> bool:
        """Write best.safetensors if this epoch is the best, then last.pt.

        In this order: a run killed in between repeats the epoch and writes the same weights again.
        """
        if self.best_fitness == self.fitness:
            self._save_best()
        criterion = modules_of(self.model.criterion)
        save_checkpoint(
            self._run.last,
            {
                "epochs": self.epoch + 1,
                "stopped": bool(self.stop),
                "best_fitness": self.best_fitness,
                "stopper": {k: getattr(self.stopper, k) for k in ("best_fitness", "best_epoch")},
                "model": network_state(self.model),
                "ema": network_state(self.ema.ema),
                "ema_updates": self.ema.updates,
                "criterion": {name: dict(m.state_dict()) for name, m in criterion.items()},
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "sampler": None if self._sampler is None else self._sampler.state_dict(),
            },
        )
        self._on_epoch(self.epoch + 1)
        return True

    def _save_best(self) -> None:
        """The averaged weights with, in the same file, the epoch and what it measured."""
        from safetensors.torch import save

        metadata = {"format": "pt", "epoch": str(self.epoch + 1)}
        metadata |= {name: repr(self.metrics[name]) for name in METRICS.values()}
        state = {k: v.cpu().contiguous() for k, v in network_state(self.ema.ema).items()}
        write_atomically(self._run.best, save(state, metadata=metadata))

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"], strict=False)  # its loss is restored below
        self.ema.ema.load_state_dict(state["ema"])
        self.ema.updates = state["ema_updates"]
        for name, module in modules_of(self.model.criterion).items():
            module.load_state_dict(state["criterion"].get(name, {}))
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self._sampler is not None:
            self._sampler.load_state_dict(state["sampler"])
        self.best_fitness = state["best_fitness"]
        self.stopper.__dict__.update(state["stopper"])
        self.start_epoch = state["epochs"]
        self.scheduler.last_epoch = self.start_epoch - 1
        logger.info("resumed %s after epoch %d of %d", self._run.id, self.start_epoch, self.epochs)

    def final_eval(self) -> None:
        """Nothing: the release is written, and measured, by the same code for every model."""
