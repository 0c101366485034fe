"""The training loop itself: epochs, validation, and what of them is on disk at every moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import TrainingError
from models._pictures import normalise
from models._runtime import is_safe_in_bf16
from training import augment, plots, runs
from training._balanced_losses import balancing, shifted
from training._torch_parts import (
    autocast,
    averaged,
    enlarge,
    has_bf16,
    layout,
    make_optimizer,
    save_weights,
)
from training.batches import Split
from training.metrics import classification_scores, confusion, segmentation_scores
from training.plan import PAPER, Plan
from training.progress import TrainingProgress

if TYPE_CHECKING:
    from rich.console import Console

    from models._spec import ModelSpec

logger = logging.getLogger(__name__)

TARGETS = {"segment": "mIoU", "classify": "accuracy"}  # what the best epoch is best at
CURVES_EVERY_S = 30.0  # drawing them takes as long as a small epoch
_NOT_VALIDATION = frozenset({"epoch", "train_loss", "learning_rate", "seconds"})


@dataclass(slots=True)
class _Best:
    """The epoch that is kept so far; ties in the metric go to the lower loss."""

    epoch: int = 0
    score: float = -1.0
    loss: float = float("inf")

    def beaten_by(self, score: float, loss: float) -> bool:
        return (score, -loss) > (self.score, -self.loss)


class Loop:
    """The state of a run between two checkpoints, and what is done with it."""

    def __init__(
        self,
        *,
        spec: ModelSpec,
        network: nn.Module,
        plan: Plan,
        train: Split,
        val: Split,
        classes: int,
        image_size: int,
        seed: int,
        run: runs.RunFolder,
        epoch_images: int,
    ) -> None:
        self.spec, self.network, self.plan, self.run = spec, network, plan, run
        self.train, self.val = train, val
        self.classes, self.image_size, self.seed = classes, image_size, seed
        self.device = next(network.parameters()).device
        # Validation is judged by the model's own loss whatever it is trained with, so that runs
        # which differ in balance or loss are comparable.
        self.judge: Callable[[Tensor, Tensor], Tensor] = (
            spec.criterion(network) if spec.criterion else nn.CrossEntropyLoss()
        )
        taught = spec if plan.loss == PAPER else replace(spec, criterion=spec.losses[plan.loss])
        self.balancing = balancing(
            taught,
            plan,
            train,
            classes=classes,
            seed=seed,
            network=network,
            epoch_images=epoch_images,
        )
        self.sampler = self.balancing.sampler
        self.optimizer = make_optimizer(network, plan)
        self.average = averaged(network, plan.ema) if plan.ema else None
        # A batch of one image has no statistics: rather one more image in some of the others.
        most = max(1, epoch_images // min(plan.batch, 2))
        self.steps = min(-(-epoch_images // plan.batch), most)
        self.epoch = 0  # epochs done
        self.best = _Best()
        self.seconds = 0.0
        self._drawn = time.monotonic()

    def fit(self, console: Console) -> None:
        """Train until the last epoch, or until patience ends."""
        progress = TrainingProgress(
            epochs=self.plan.epochs, batches=self.steps, done=self.epoch, console=console
        )
        try:
            while self.epoch < self.plan.epochs and not self._is_stuck():
                started = time.monotonic()
                loss = self._train_epoch(progress)
                scores = self._validate()
                self.seconds += time.monotonic() - started
                self._conclude({"train_loss": loss, **scores})
        finally:
            progress.close()

    def checkpoint(self) -> None:
        """Replace last.pt; it holds tensors and primitives only."""
        best = self.best
        state = {
            "epochs": self.epoch,
            "seconds": self.seconds,
            "best": {"epoch": best.epoch, "score": best.score, "loss": best.loss},
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "sampler": None if self.sampler is None else self.sampler.state_dict(),
        }
        runs.save_checkpoint(self.run.last, state)

    def restore(self) -> None:
        """Take up last.pt."""
        state = runs.load_checkpoint(self.run.last)
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if self.sampler is not None:
            self.sampler.load_state_dict(state["sampler"])
        self.epoch, self.seconds = state["epochs"], state["seconds"]
        self.best = _Best(**state["best"])
        self.run.truncate_metrics(self.epoch)
        if self.run.load_record().epochs < self.epoch:  # killed between the checkpoint and this
            self._report()
        logger.info("resume %s after epoch %d", self.run.id, self.epoch)

    def _is_stuck(self) -> bool:
        patience = self.plan.patience
        return patience is not None and self.epoch - self.best.epoch >= patience

    def _train_epoch(self, progress: TrainingProgress) -> float:
        """One pass over the training split; the mean loss of an image."""
        epoch = self.epoch + 1
        if self.spec.on_epoch is not None:
            self.spec.on_epoch(self.network, epoch - 1)
        generator = torch.Generator().manual_seed((self.seed << 20) + epoch)
        torch.manual_seed((self.seed << 20) + epoch)  # dropout
        order = torch.randperm(len(self.train), generator=generator)
        if self.sampler is not None:
            order = torch.tensor(list(self.sampler))
        # A view for each place of the order: an image that comes twice is seen in two ways.
        views = augment.draw(self.plan.augmentation(epoch - 1), len(order), generator)
        size = self.plan.view_px or self.image_size
        self.network.train()
        total = 0.0
        # Batches of nearly equal size: a last one of a single image would break batch statistics.
        for step, places in enumerate(torch.arange(len(order)).tensor_split(self.steps)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.plan.learning_rate(epoch - 1 + step / self.steps)
            rows = order[places].tolist()
            pixels, target = self.train.views(rows, views[places], size=size)
            loss = self.balancing.criterion(self._forward(pixels), target)
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip_norm)
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.network)
            if self.sampler is not None:
                self.sampler.on_batch_end()
            value = float(loss.detach())
            total += value * len(rows)
            progress.step(epoch=epoch - 1, batch=step, loss=value)
        if self.sampler is not None:
            self.sampler.on_epoch_end(epoch - 1)
        mean = total / len(order)
        if not np.isfinite(mean):
            raise TrainingError(
                f"The loss of run {self.run.id} is {mean} in epoch {epoch}: "
                f"try a learning rate below {self.plan.lr0:g}."
            )
        return mean

    def _kept(self) -> nn.Module:
        """The network whose weights are judged and kept."""
        return self.network if self.average is None else self.average.module

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        """Loss and metrics on the validation split, as a predictor would earn them."""
        matrix = np.zeros((self.classes, self.classes), dtype=np.int64)
        total = 0.0
        with shifted(self._kept().eval(), self.balancing.shift) as network:
            for pixels, targets in self.val.plain(self.plan.batch):
                logits = self._forward(pixels, network)
                for row, target in zip(logits, targets, strict=True):
                    answer, truth = row[None], target[None]
                    if self.spec.task == "segment":
                        answer = enlarge(answer, target)
                    total += float(self.judge(answer, truth.long()))
                    matrix += confusion(
                        truth.cpu().numpy(), answer.argmax(1).cpu().numpy(), self.classes
                    )
        metrics = segmentation_scores if self.spec.task == "segment" else classification_scores
        # Pictures without any defect have no score of defects; a number keeps the columns whole.
        scores = {name: float(np.nan_to_num(value)) for name, value in metrics(matrix).items()}
        return {"val_loss": total / len(self.val), **scores}

    def _forward(self, pixels: Tensor, network: nn.Module | None = None) -> Tensor:
        """Logits in fp32; a classifier's input is normalised here."""
        if self.spec.task == "classify":
            pixels = normalise(pixels)
        pixels = pixels.contiguous(memory_format=layout(self.device))
        # As the predictor does, or validation would not be what it earns.
        is_safe = self.device.type != "cpu" or is_safe_in_bf16(pixels)
        with autocast(self.device, enabled=has_bf16(self.device) and is_safe):
            logits: Tensor = (network or self.network)(pixels)
        return logits.float()

    def _conclude(self, row: Mapping[str, float]) -> None:
        """Put an epoch on disk: best weights and metrics first, the checkpoint, then its report.

        Killed before the checkpoint, the epoch is repeated and writes the same; killed after it,
        the record lags behind until the run is resumed, the plot until the next epoch.
        """
        epoch = self.epoch + 1
        score, loss = row[TARGETS[self.spec.task]], row["val_loss"]
        if self.best.beaten_by(score, loss):
            self.best = _Best(epoch, score, loss)
            with shifted(self._kept(), self.balancing.shift) as network:
                save_weights(self.run.best, network)
        rate = self.optimizer.param_groups[0]["lr"]
        self.run.append_metrics(epoch, {**row, "learning_rate": rate, "seconds": self.seconds})
        self.epoch = epoch
        self.checkpoint()
        self._report()
        if time.monotonic() - self._drawn > CURVES_EVERY_S:
            plots.draw_curves(self.run, title=f"{self.spec.title}, {self.run.id}")
            self._drawn = time.monotonic()
        logger.info("epoch %d: %s", epoch, ", ".join(f"{k} {v:.4f}" for k, v in row.items()))

    def _report(self) -> None:
        """Bring the run's record up to the checkpoint."""
        kept = next(r for r in self.run.metrics() if r["epoch"] == self.best.epoch)
        self.run.update_record(
            epochs=self.epoch,
            wall_time_s=self.seconds,
            best_epoch=self.best.epoch,
            validation={k: v for k, v in kept.items() if k not in _NOT_VALIDATION},
        )
