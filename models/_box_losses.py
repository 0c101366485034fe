"""Box regression losses that the detectors share, on one geometry of a box pair.

Every loss takes predicted and target boxes (n, 4) xyxy in one unit and gives (n,). All of them are
scale-invariant, so it does not matter that the trainer hands over boxes in units of the stride.
Each is computed in float32, whatever the precision of the network. `PluggableBboxLoss` puts one of
them into ultralytics' detection loss in the place of CIoU.

EIoU and Focal-EIoU: Zhang et al., "Focal and Efficient IOU Loss for Accurate Bounding Box
Regression", arXiv 2101.08158.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from ultralytics.utils.loss import BboxLoss

EPS = 1e-7  # in every denominator; boxes of zero size must not divide by zero

BoxLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


class BoxGeometry(NamedTuple):
    """What the losses read off n pairs of boxes; every field is (n,) float32."""

    iou: Tensor
    centre_distance2: Tensor  # squared
    enclosing_width: Tensor  # of the smallest box around both
    enclosing_height: Tensor
    width_difference: Tensor  # predicted minus target
    height_difference: Tensor


def box_geometry(pred: Tensor, target: Tensor) -> BoxGeometry:
    """Overlap, centre distance, enclosing box and size difference of each pair.

    Args:
        pred: (n, 4) xyxy, any float type.
        target: (n, 4) xyxy, same unit.
    """
    pred, target = pred.float(), target.float()
    pred_size = pred[:, 2:] - pred[:, :2]
    target_size = target[:, 2:] - target[:, :2]
    overlap = torch.minimum(pred[:, 2:], target[:, 2:]) - torch.maximum(pred[:, :2], target[:, :2])
    intersection = overlap.clamp(min=0).prod(1)
    union = pred_size.prod(1) + target_size.prod(1) - intersection
    enclosing = torch.maximum(pred[:, 2:], target[:, 2:]) - torch.minimum(
        pred[:, :2], target[:, :2]
    )
    centre_offset = (pred[:, :2] + pred[:, 2:] - target[:, :2] - target[:, 2:]) / 2
    size_difference = pred_size - target_size
    return BoxGeometry(
        iou=intersection / (union + EPS),
        centre_distance2=centre_offset.square().sum(1),
        enclosing_width=enclosing[:, 0],
        enclosing_height=enclosing[:, 1],
        width_difference=size_difference[:, 0],
        height_difference=size_difference[:, 1],
    )


def iou(pred: Tensor, target: Tensor) -> Tensor:
    """Plain intersection over union of each pair, (n,) in [0, 1]."""
    return box_geometry(pred, target).iou


def focal_eiou_loss(
    pred: Tensor, target: Tensor, *, gamma: float = 0.5, floor: float = 0.0
) -> Tensor:
    """IoU^γ · EIoU, which trusts well-placed boxes more; γ = 0 is EIoU.

    The factor carries no gradient. With one, √u·(1 − u + c) rises with u below u = (1 + c) / 3 and
    descent would push small overlaps apart.

    Args:
        pred: (n, 4) xyxy.
        target: (n, 4) xyxy, same unit.
        gamma: γ, at least 0.
        floor: least value of the factor; above 0, boxes without any overlap still learn.
    """
    geometry = box_geometry(pred, target)
    factor = geometry.iou.detach().pow(gamma).clamp(min=floor)
    return factor * _eiou(geometry)


def _eiou(g: BoxGeometry) -> Tensor:
    """1 − IoU plus normalised centre, width and height errors."""
    width2, height2 = g.enclosing_width.square(), g.enclosing_height.square()
    return (
        1
        - g.iou
        + g.centre_distance2 / (width2 + height2 + EPS)
        + g.width_difference.square() / (width2 + EPS)
        + g.height_difference.square() / (height2 + EPS)
    )


class PluggableBboxLoss(BboxLoss):  # type: ignore[misc]  # ultralytics is untyped
    """Ultralytics' box loss with its CIoU term exchanged; weights, reduction and DFL stay stock.

    Args:
        regression: (pred (n, 4), target (n, 4)) -> (n,), in units of the stride; if it is a module,
            it becomes a child of this one.
        reg_max: bins of the distribution that each side of a box is predicted as.
    """

    def __init__(self, regression: BoxLoss, *, reg_max: int = 16) -> None:
        super().__init__(reg_max)
        self.regression = regression

    def forward(
        self,
        pred_dist: Tensor,
        pred_bboxes: Tensor,
        anchor_points: Tensor,
        target_bboxes: Tensor,
        target_scores: Tensor,
        target_scores_sum: Tensor,
        fg_mask: Tensor,
        imgsz: Tensor,
        stride: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The exchanged box term and stock DFL, both weighted and averaged over the positives.

        Args:
            pred_dist: (N, A, 4·reg_max) logits.
            pred_bboxes: (N, A, 4) xyxy, stride units.
            anchor_points: (A, 2) centres, stride units.
            target_bboxes: (N, A, 4) xyxy, stride units.
            target_scores: (N, A, C) alignment targets; their sum over classes weighs each anchor.
            target_scores_sum: (), at least 1.
            fg_mask: (N, A) bool, true at positives.
            imgsz: (2,) height and width, px.
            stride: (A, 1) px.
        """
        _, loss_dfl = super().forward(
            pred_dist,
            pred_bboxes,
            anchor_points,
            target_bboxes,
            target_scores,
            target_scores_sum,
            fg_mask,
            imgsz,
            stride,
        )
        weight = target_scores[fg_mask].sum(-1)
        loss_box = (self.regression(pred_bboxes[fg_mask], target_bboxes[fg_mask]) * weight).sum()
        return loss_box / target_scores_sum, loss_dfl
