"""DS-CBSM++: GRACE's class sampling by inverse frequency, confidence and gradient; eqs. (6)-(10).

The equations come first, as pure functions; then the module that listens to the class loss; then
the sampler that a trainer hands to its data loader. Paper and open choices: `models/grace.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.errors import DatasetError, TrainingError

logger = logging.getLogger(__name__)

Vector: TypeAlias = NDArray[np.float64]
GradientKind: TypeAlias = Literal["loss", "grad"]

ALPHA, BETA = 0.22, 0.14  # eq. (7)
W_MIN, W_MAX = 0.85, 1.35  # eq. (8)
GAMMA_MAX, RAMP_EPOCHS = 0.60, 30  # eq. (9)
EPSILON = 1e-6  # eq. (6)
MIN_CONFIDENCE = 0.01  # scores below do not count towards a class's confidence
UPDATE_EVERY = 20  # mini-batches between two updates of the moving averages
DECAY = 0.9  # of the moving averages


def _norm(v: Vector) -> Vector:
    mean_one: Vector = v / v.mean()
    return mean_one


def base_weights(frequencies: Vector) -> Vector:
    """Inverse instance frequency of each class, mean 1; eq. (6).

    Args:
        frequencies: (C,), positive, summing to 1.
    """
    return _norm(1.0 / (frequencies + EPSILON))


def hardness(gradient: Vector, confidence: Vector) -> Vector:
    """Δ of each class from its gradient surrogate (≥ 0) and mean confidence in [0, 1]; eq. (7)."""
    delta: Vector = ALPHA * np.log1p(gradient) + BETA * (1.0 - confidence)
    return delta


def dynamic_weights(base: Vector, delta: Vector) -> Vector:
    """Base weights tilted by hardness, normalised to mean 1, then clipped; eq. (8)."""
    return np.clip(_norm(base * np.exp(delta)), W_MIN, W_MAX)


def blend_factor(epoch: int) -> float:
    """γ of an epoch counted from 0: share of the dynamic weights; eq. (9)."""
    return GAMMA_MAX * min(1.0, epoch / RAMP_EPOCHS)


def class_weights(base: Vector, gradient: Vector, confidence: Vector, epoch: int) -> Vector:
    """Sampling weight of each class in an epoch counted from 0; eq. (10)."""
    gamma = blend_factor(epoch)
    return (1.0 - gamma) * base + gamma * dynamic_weights(base, hardness(gradient, confidence))


class StatisticsRecorder(nn.Module):
    """Stands in for `v8DetectionLoss.bce`, returns the same loss, and sums statistics per class.

    Counted are foreground anchors (some target score > 0), each for its best target class, and only
    when the scores carry a gradient: a validator's loss is computed without one.

    Args:
        bce: (N, A, C) logits, (N, A, C) targets -> (N, A, C) loss.
        n_classes: C.
        gradient: "loss" sums the loss of the class's logit, the paper's surrogate; "grad" sums
            |σ(z) − t|, the true |∂BCE/∂z|.
    """

    def __init__(self, bce: nn.Module, n_classes: int, *, gradient: GradientKind = "loss") -> None:
        super().__init__()
        self.bce, self.gradient = bce, gradient
        # rows: anchors, Σ gradient, anchors with score ≥ MIN_CONFIDENCE, Σ of their scores
        self.sums = torch.zeros(4, n_classes)

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        """The loss, unchanged."""
        loss: Tensor = self.bce(scores, targets)
        if scores.requires_grad:
            self._record(scores.detach().float(), targets.float(), loss.detach().float())
        return loss

    @torch.no_grad()
    def _record(self, scores: Tensor, targets: Tensor, loss: Tensor) -> None:
        # Masked sums instead of indexing: indexing by a mask would make a GPU wait for the CPU.
        classes = torch.arange(scores.shape[-1], device=scores.device)
        own = (targets.argmax(-1, keepdim=True) == classes) & (targets.sum(-1, keepdim=True) > 0)
        probability = scores.sigmoid()
        surprise = loss if self.gradient == "loss" else (probability - targets).abs()
        sure = own & (probability >= MIN_CONFIDENCE)
        terms = (own, own * surprise, sure, sure * probability)
        self.sums = self.sums.to(scores.device) + torch.stack([t.sum((0, 1)) for t in terms])

    def take(self) -> Tensor:
        """The (4, C) sums since the last call, which starts them anew."""
        sums, self.sums = self.sums, torch.zeros_like(self.sums)
        return sums


class ConfidenceGradientSampler:
    """DS-CBSM++ as a torch sampler: draws images with replacement, by the weights of their classes.

    The protocol a trainer follows, for this sampler or another one a spec names:

    1. `sampler = spec.sampler(labels_per_image, n_classes, seed)`; hand it to the data loader.
    2. `sampler.attach(criterion)` once the loss exists; again after a resume; harmless twice.
    3. `sampler.on_batch_end()` after every training batch.
    4. `sampler.on_epoch_end(epoch)` after every epoch, then restart the loader: workers prefetch
       across the epoch's end, so indices drawn with old weights would otherwise be used first.
    5. `sampler.state_dict()` into the checkpoint (tensors and primitives only) after step 4, and
       `sampler.load_state_dict(state)` on resume.

    Indices depend only on seed, epoch, weights and how often the epoch was iterated, so a resumed
    run draws what the uninterrupted one would have drawn.

    Args:
        labels_per_image: class ids of the boxes of each training image.
        n_classes: C.
        seed: of the draws.
        gradient: see `StatisticsRecorder`.
        reduction: how the weights of an image's boxes become the weight of the image.

    Raises:
        DatasetError: if no image has a box, or a class id is not below `n_classes`.
    """

    def __init__(
        self,
        labels_per_image: Sequence[Sequence[int]],
        n_classes: int,
        seed: int,
        *,
        gradient: GradientKind = "loss",
        reduction: Literal["mean", "max", "sum"] = "mean",
    ) -> None:
        self._labels = [np.asarray(labels, dtype=np.int64) for labels in labels_per_image]
        boxes = np.concatenate(self._labels) if self._labels else np.empty(0, np.int64)
        if not len(boxes):
            raise DatasetError(
                "Class sampling needs labelled boxes, but no training image has one."
            )
        if boxes.min() < 0 or boxes.max() >= n_classes:
            raise DatasetError(
                f"Class ids span [{boxes.min()}, {boxes.max()}], but must lie in [0, {n_classes})."
            )
        counts = np.bincount(boxes, minlength=n_classes)
        self._present = counts > 0  # a class without boxes takes no part in any mean
        self._base = base_weights(counts[self._present] / len(boxes))
        self._gradient = np.zeros(n_classes)  # together with confidence 1: Δ = 0, neutral
        self._confidence = np.ones(n_classes)
        self._kind, self._reduction = gradient, reduction
        self._seed, self._epoch, self._iterations, self._batches = seed, 0, 0, 0
        self._recorder: StatisticsRecorder | None = None
        self._pending = torch.zeros(4, n_classes)  # sums of a resumed run, for the recorder

    @property
    def class_weights(self) -> Vector:
        """(C,) weights of the current epoch, eq. (10); 1 for a class without boxes."""
        w = np.ones(len(self._present))
        own = self._present
        w[own] = class_weights(self._base, self._gradient[own], self._confidence[own], self._epoch)
        return w

    @property
    def weights(self) -> Vector:
        """One weight per image, not normalised; an image without boxes gets the least of all."""
        w = self.class_weights
        least = float(w[self._present].min())
        reduce = getattr(np, self._reduction)
        return np.array([reduce(w[labels]) if len(labels) else least for labels in self._labels])

    def __len__(self) -> int:
        return len(self._labels)

    def __iter__(self) -> Iterator[int]:
        # One independent stream per iteration, without a generator state to be saved.
        stream = np.random.SeedSequence((self._seed, self._epoch, self._iterations))
        self._iterations += 1
        generator = torch.Generator().manual_seed(int(stream.generate_state(1, np.uint64)[0]))
        weights = torch.from_numpy(self.weights)
        drawn = torch.multinomial(weights, len(self), replacement=True, generator=generator)
        yield from drawn.tolist()

    def attach(self, criterion: Any) -> None:
        """Listen to the class loss of an ultralytics `v8DetectionLoss`; the loss stays as it is."""
        if isinstance(criterion.bce, StatisticsRecorder):
            self._recorder = criterion.bce
            return
        self._recorder = StatisticsRecorder(criterion.bce, len(self._present), gradient=self._kind)
        self._recorder.sums, self._pending = self._pending, torch.zeros_like(self._pending)
        criterion.bce = self._recorder

    def on_batch_end(self) -> None:
        """Count a batch; every 20th updates the moving averages.

        Raises:
            TrainingError: if `attach` was not called.
        """
        if self._recorder is None:
            raise TrainingError("The sampler hears no loss: attach(criterion) before training.")
        self._batches += 1
        if self._batches % UPDATE_EVERY == 0:
            self.update(self._recorder.take().double().cpu().numpy())

    def update(self, sums: NDArray[np.float64]) -> None:
        """Move the averages towards the statistics of `StatisticsRecorder.take`, (4, C).

        A class that no anchor spoke for keeps its averages.
        """
        anchors, gradient, sure, confidence = sums
        for average, total, count in (
            (self._gradient, gradient, anchors),
            (self._confidence, confidence, sure),
        ):
            heard = count > 0
            average[heard] = DECAY * average[heard] + (1 - DECAY) * total[heard] / count[heard]
        logger.debug("foreground anchors %s, of them sure %s", anchors, sure)

    def on_epoch_end(self, epoch: int) -> None:
        """Move to the weights of the epoch after `epoch`."""
        self._epoch, self._iterations = epoch + 1, 0
        logger.debug("class weights of epoch %d: %s", self._epoch, self.class_weights.round(3))

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs, of tensors and primitives."""
        return {
            "gradient": torch.from_numpy(self._gradient.copy()),
            "confidence": torch.from_numpy(self._confidence.copy()),
            "epoch": self._epoch,
            "batches": self._batches,
            "sums": self._pending if self._recorder is None else self._recorder.sums.cpu(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`.

        Raises:
            TrainingError: if the state is of another number of classes.
        """
        n = len(state["gradient"])
        if n != len(self._present):
            raise TrainingError(
                f"The saved sampler knows {n} classes, this data set has {len(self._present)}."
            )
        self._gradient = state["gradient"].numpy().copy()
        self._confidence = state["confidence"].numpy().copy()
        self._epoch, self._batches, self._iterations = state["epoch"], state["batches"], 0
        self._pending = state["sums"].cpu()
        if self._recorder is not None:
            self._recorder.sums = self._pending.clone()
