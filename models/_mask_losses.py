"""What a segmenter is trained to lessen: cross-entropy, focal, Dice, and how well borders meet."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EPSILON: Final = 1e-5  # the Dice of a class that is neither there nor said is 1
TOLERANCE: Final = 2  # px by which two borders may miss each other


class SegmentationLoss(nn.Module):
    """λ_ce·CE + λ_f·focal + λ_d·(1 − Dice) + λ_b·(1 − border F1), over the pixels not ignored.

    CE and focal are means over the pixels; focal is mean(α (1 − p)^γ (−log p)), p the true class's
    probability. Dice is over the whole batch, per class with β = 1, then the mean over all classes
    including the background. Border F1 is `border_f1`; it is not part of the paper.

    Attributes:
        weight: (C,) of each class in CE and focal, whose means it then weighs, as in torch's
            `CrossEntropyLoss`; None weighs all pixels alike.
    """

    weight: Tensor | None = None

    def __init__(
        self,
        *,
        ce: float = 1.0,
        focal: float = 1.0,
        dice: float = 1.0,
        border: float = 0.0,
        alpha: float = 0.5,
        gamma: float = 2.0,
    ) -> None:
        super().__init__()
        self.weights = (ce, focal, dice, border)
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, target: Tensor, ignore_index: int = 255) -> Tensor:
        """The weighted sum, a scalar in float32; 0 if every pixel is ignored.

        Args:
            logits: (N, C, H, W).
            target: (N, H, W), class ids 0 … C − 1 or `ignore_index`.
            ignore_index: the id of pixels that do not count.
        """
        log_p = logits.float().log_softmax(1)
        ce_map = F.nll_loss(log_p, target, ignore_index=ignore_index, reduction="none")
        valid = target != ignore_index
        focal_map = self.alpha * (1.0 - torch.exp(-ce_map)).pow(self.gamma) * ce_map
        share = valid.to(ce_map.dtype)
        if self.weight is not None:
            share = share * self.weight[target.where(valid, 0)]
        n = share.sum().clamp(min=1)
        ce, focal, dice, border = self.weights
        total = ce * (share * ce_map).sum() / n + focal * (share * focal_map).sum() / n
        p, truth = log_p.exp(), _one_hot(target, valid, logits.shape[1])
        total = total + dice * (1.0 - _dice(p, truth, valid))
        if border:
            total = total + border * (1.0 - border_f1(p, truth, valid))
        return total


def _one_hot(target: Tensor, valid: Tensor, classes: int) -> Tensor:
    ids = torch.arange(classes, device=target.device).view(1, -1, 1, 1)
    return (target[:, None] == ids) & valid[:, None]  # (N, C, H, W)


def _dice(p: Tensor, truth: Tensor, valid: Tensor) -> Tensor:
    hit = (p * truth).sum((0, 2, 3))
    said = (p * valid[:, None]).sum((0, 2, 3))  # TP + FP
    true = truth.sum((0, 2, 3))  # TP + FN
    # With β = 1 the F-score's 2 TP + FN + FP is the sum of the two areas.
    return ((2.0 * hit + EPSILON) / (said + true + EPSILON)).mean()


def border_f1(p: Tensor, truth: Tensor, valid: Tensor, *, tolerance: int = TOLERANCE) -> Tensor:
    """How well the borders of what is said meet those of what is there, in [0, 1], differentiable.

    Bokhovkin and Burnaev, "Boundary Loss for Remote Sensing Imagery Semantic Segmentation", 2019:
    b(x) = max₃ₓ₃(1 − x) − (1 − x) is the inner border of a map, precision the share of the said
    border within `tolerance` of the true one, recall that of the true one within it of the said
    one. A scratch is hardly more than border: here it weighs what its length is, not its area.

    Args:
        p: probabilities (N, C, H, W), class 0 the background.
        truth: (N, C, H, W), bool.
        valid: (N, H, W), bool; borders at other pixels do not count.
        tolerance: px.

    Returns:
        The mean over the defects' classes of 2PR / (P + R) of the whole batch, a scalar.
    """
    said = _border(p) * valid[:, None]
    true = _border(truth.to(p.dtype)) * valid[:, None]
    precision = _share(said, _widened(true, tolerance))
    recall = _share(true, _widened(said, tolerance))
    f1 = 2.0 * precision * recall / (precision + recall).clamp(min=EPSILON)
    return f1[1:].mean()


def _border(x: Tensor) -> Tensor:
    outside = 1.0 - x
    return F.max_pool2d(outside, 3, stride=1, padding=1) - outside


def _widened(border: Tensor, by: int) -> Tensor:
    return F.max_pool2d(border, 2 * by + 1, stride=1, padding=by)


def _share(border: Tensor, near: Tensor) -> Tensor:
    """Of each class's border (N, C, H, W), how much lies where `near` is; (C,), 1 without any."""
    whole = border.sum((0, 2, 3))
    return ((border * near).sum((0, 2, 3)) + EPSILON) / (whole + EPSILON)
