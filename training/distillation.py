"""Learning from other detectors as well as from labels: soft answers of a frozen committee.

Boxes drawn by hand are noisy where a defect has no edge, such as crazing: two people divide the
same patch differently. What several trained networks find there on average is a steadier lesson,
and one about each augmented view (Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural
Network", 2015). Teachers answer at the same anchors as the learner, so nothing has to be matched:
every detector here ends in the levels and distance bins of YOLO11.

    L = (1 - α) L_labels + α L_teachers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F

from core.errors import TrainingError
from models import get_spec
from models._release import load_network, read_release
from models._runtime import prepare
from models._ultralytics import DetectionNetwork  # before ultralytics: it sets its environment

# isort: split
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import dist2bbox, make_anchors

from training.initial import release_folder

if TYPE_CHECKING:
    from training.datasets import Dataset


@dataclass(frozen=True, slots=True)
class Teacher:
    """A released detector, frozen and fused: it answers as the training loss wants it."""

    words: str  # "grace 70162356da42": what a record says of it
    network: DetectionNetwork

    @torch.no_grad()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities (N, A, C) and logits of the side distances (N, A, 4, bins) at each anchor.

        Args:
            images: (N, 3, H, W) in [0, 1].
        """
        raw = self.network(images)
        scores, distances = raw["scores"].permute(0, 2, 1), raw["boxes"].permute(0, 2, 1)
        return scores.float().sigmoid(), distances.float().unflatten(2, (4, -1))


def load_teachers(
    folders: Sequence[Path], dataset: Dataset, *, protocol: str, device: str
) -> tuple[Teacher, ...]:
    """The released detectors in `folders`, ready to be asked.

    Args:
        folders: release folders, or weights files in them.
        dataset: to be trained on; its class names are the teachers'.
        protocol: which of its splits. A teacher for whom others were the test images would tell
            the learner of this run's.
        device: where the teachers answer.

    Raises:
        TrainingError: if one is no detector, knows other classes or another order of them, or was
            kept from other test images.
        WeightsNotFoundError: if there is no release.
        WeightsError: if one is damaged.
    """
    teachers = []
    for folder in map(release_folder, folders):
        config = read_release(folder)
        if config.task != "detect":
            raise TrainingError(f"{config.name} is made to {config.task}: it teaches no detector.")
        if tuple(config.labels) != dataset.labels:
            raise TrainingError(
                f"{config.name} {config.revision} knows {', '.join(config.labels)}: a teacher must "
                f"know {', '.join(dataset.labels)}, in this order."
            )
        if config.run.test_id != dataset.test_id(protocol, "test"):
            raise TrainingError(
                f"{config.name} {config.revision} was kept from other test images than those of "
                f"{dataset.name} {protocol}: it may have learned from the ones of this run."
            )
        network: DetectionNetwork = load_network(folder, config)  # type: ignore[assignment]
        prepare(network, get_spec(config.name).fold)
        network.model[-1].training = True  # raw answers, while every BatchNorm stays as it was
        teachers.append(Teacher(f"{config.name} {config.revision}", network.to(device)))
    return tuple(teachers)


class SoftLoss:
    """The loss against what teachers find, mixed into the loss against labels.

    Args:
        teachers: at least one.
        share: α in (0, 1).
        gains: weights of the three terms, as the labels' loss has them: "box", "cls", "dfl".
    """

    def __init__(
        self, teachers: Sequence[Teacher], *, share: float, gains: Mapping[str, float]
    ) -> None:
        self._teachers, self._share = tuple(teachers), share
        self._gains = tuple(float(gains[name]) for name in ("box", "cls", "dfl"))

    def __call__(
        self, predictions: Mapping[str, Any], batch: Mapping[str, Any], stride: Tensor, loss: Tensor
    ) -> Tensor:
        """(1 - α) `loss` + α L_teachers.

        Args:
            predictions: of the learner: "boxes" (N, 4·bins, A), "scores" (N, C, A), "feats".
            batch: "img" (N, 3, H, W) in [0, 1].
            stride: of each level, px.
            loss: (3,) of box, class and distance against the labels, times N.
        """
        logits = predictions["scores"].permute(0, 2, 1)
        distances = predictions["boxes"].permute(0, 2, 1).unflatten(2, (4, -1))
        anchors, _ = make_anchors(predictions["feats"], stride, 0.5)
        soft, bins = average(
            [teacher(batch["img"].float()) for teacher in self._teachers], like=distances
        )
        terms = soft_losses(logits.float(), distances.float(), soft, bins, anchors.float())
        return (1 - self._share) * loss + self._share * len(logits) * terms * terms.new_tensor(
            self._gains
        )


def average(answers: Sequence[tuple[Tensor, Tensor]], *, like: Tensor) -> tuple[Tensor, Tensor]:
    """What teachers say on average.

    Probabilities are averaged as they are. Distributions of the distances are weighed by how sure
    each teacher is at the anchor: one that sees nothing there knows no edges.

    Args:
        answers: of each teacher, probabilities (N, A, C) and logits (N, A, 4, bins).
        like: (N, A, 4, bins) of the learner.

    Returns:
        Probabilities (N, A, C) and distributions (N, A, 4, bins).

    Raises:
        TrainingError: if a teacher has other anchors or bins than the learner.
    """
    for _, logits in answers:
        if logits.shape != like.shape:
            raise TrainingError(
                f"A teacher answers in the shape {tuple(logits.shape)}, the network to be trained "
                f"in {tuple(like.shape)}: teachers need the same levels and distance bins."
            )
    probabilities = torch.stack([p for p, _ in answers])
    sure = probabilities.amax(-1, keepdim=True)[..., None]  # (T, N, A, 1, 1)
    weights = sure / sure.sum(0).clamp(min=1e-9)
    distributions = torch.stack([logits.softmax(-1) for _, logits in answers])
    return probabilities.mean(0), (weights * distributions).sum(0)


def soft_losses(
    logits: Tensor, distances: Tensor, soft: Tensor, bins: Tensor, anchors: Tensor
) -> Tensor:
    """Box, class and distance losses of a learner against soft answers, without gains.

    With the teachers' p̂ and q̂, the learner's p and q, and w = (max_c p̂)² at each anchor, squared so
    that thousands of anchors that see next to nothing do not outweigh the few that see a defect:

        L_cls = Σ BCE(p, p̂) / max(Σ p̂, 1),
        L_box = Σ w (1 - CIoU(b, b̂)) / max(Σ w, 1),
        L_dfl = Σ w · mean over the four sides of KL(q̂ ‖ q) / max(Σ w, 1).

    Args:
        logits: (N, A, C) of classes.
        distances: (N, A, 4, bins) logits of the distances to the four sides, in strides.
        soft: (N, A, C) p̂.
        bins: (N, A, 4, bins) q̂.
        anchors: (A, 2) centres in strides.

    Returns:
        (3,) box, class, distance.
    """
    classes = F.binary_cross_entropy_with_logits(logits, soft, reduction="sum")
    weight = soft.amax(-1).square()
    total = weight.sum().clamp(min=1)
    own = distances.log_softmax(-1)
    apart = F.kl_div(own, bins, reduction="none").sum(-1).mean(-1)
    centres = torch.arange(bins.shape[-1], device=bins.device, dtype=bins.dtype)
    ours, theirs = (dist2bbox(d @ centres, anchors, xywh=False) for d in (own.exp(), bins))
    overlap = bbox_iou(ours, theirs, xywh=False, CIoU=True).squeeze(-1)
    return torch.stack(
        (
            (weight * (1 - overlap)).sum() / total,
            classes / soft.sum().clamp(min=1),
            (weight * apart).sum() / total,
        )
    )
