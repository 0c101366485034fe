"""IAJ loss of DA-YOLO: IoU-aware classification (IA-BCE), Focal-EIoU boxes, and stock DFL.

Source: Liu, Li, Chen, "DA-YOLO", doi 10.1177/16878132261442325; its equations are not in the
available text, so IA-BCE follows Cai et al., "Align-DETR", arXiv 2304.07527, which the text
describes. Everything around the two exchanged terms (assigner, decoding, DFL, gains) is
ultralytics' `v8DetectionLoss`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics.utils.loss import v8DetectionLoss
from ultralytics.utils.tal import make_anchors

from core.errors import ConfigError
from models._box_losses import PluggableBboxLoss, focal_eiou_loss, iou

RankBy: TypeAlias = Literal["iou", "quality"]

MIN_QUALITY = 0.01  # a positive keeps a target above zero however poor it is; arXiv 2304.07527


def iou_aware_targets(
    probabilities: Tensor,
    ious: Tensor,
    objects: Tensor,
    *,
    alpha: float = 0.25,
    tau: float = 1.5,
    rank_by: RankBy = "iou",
) -> Tensor:
    """Soft classification target t̃ = exp(−r/τ)·max(p^α·u^(1−α), 0.01) of each positive.

    Args:
        probabilities: (P,) p, the predicted probability of the object's class.
        ious: (P,) u, plain IoU of the predicted box with the object's.
        objects: (P,) number of the object each positive belongs to.
        alpha: weight of the probability against the IoU, in [0, 1].
        tau: how fast the target falls with the rank r among the positives of one object;
            `math.inf` gives all of them the same weight.
        rank_by: "iou" ranks by u (DA-YOLO's text), "quality" by t (Align-DETR).

    Returns:
        (P,) in (0, 1], without gradient.
    """
    probabilities, ious = probabilities.detach().float(), ious.detach().float()
    quality = (probabilities.pow(alpha) * ious.pow(1 - alpha)).clamp(min=MIN_QUALITY)
    ranks = _ranks_within(objects, ious if rank_by == "iou" else quality)
    return quality * torch.exp(-ranks / tau)


def _ranks_within(groups: Tensor, values: Tensor) -> Tensor:
    """0-based rank of each value among those of its group, largest first; ties keep their order."""
    order = values.argsort(descending=True, stable=True)
    order = order[groups[order].argsort(stable=True)]
    ordered = groups[order].contiguous()
    first = torch.searchsorted(ordered, ordered)  # where each group begins
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order), device=order.device) - first
    return ranks


def ia_bce(
    logits: Tensor, positives: tuple[Tensor, Tensor, Tensor], targets: Tensor, *, gamma: float = 2.0
) -> Tensor:
    """IA-BCE of every anchor and class, not yet summed.

    A positive pair costs −t̃ log p − (1 − t̃) log(1 − p), every other one −p^γ log(1 − p).

    Args:
        logits: (N, A, C), any float type; the loss is computed in float32.
        positives: image, anchor and class index of each positive pair, (P,) each.
        targets: (P,) t̃ from `iou_aware_targets`.
        gamma: γ, how little easy negatives count.

    Returns:
        (N, A, C) float32.
    """
    logits = logits.float()
    negative = logits.sigmoid().pow(gamma) * F.softplus(logits)  # softplus(z) = −log(1 − p)
    z = logits[positives]
    positive = targets * F.softplus(-z) + (1 - targets) * F.softplus(z)
    return negative.index_put(positives, positive)


class IAJLoss(v8DetectionLoss):  # type: ignore[misc]  # ultralytics is untyped
    """g_cls·IA-BCE + g_box·Focal-EIoU + g_dfl·DFL, with the gains of the training arguments.

    The classification sum is divided by max(Σ t̃, 1), which mirrors the stock normalisation.
    Defaults are the constants of the sources; the paper's own are lost.

    Args:
        network: an ultralytics detection network that carries its training arguments.
        alpha: IA-BCE's α.
        tau: IA-BCE's τ. With ten positives an object, τ = 1.5 leaves about two of them a high
            target (Σ exp(−r/τ) = 2.05); τ = `math.inf` switches the ranking off.
        gamma: IA-BCE's γ.
        rank_by: what positives of one object are ranked by.
        box_gamma: Focal-EIoU's γ; 0 is EIoU.
        box_floor: least value of Focal-EIoU's factor.

    Raises:
        ConfigError: if a constant is out of its range.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        alpha: float = 0.25,
        tau: float = 1.5,
        gamma: float = 2.0,
        rank_by: RankBy = "iou",
        box_gamma: float = 0.5,
        box_floor: float = 0.0,
    ) -> None:
        if rank_by not in get_args(RankBy):
            raise ConfigError(f"Unknown rank_by {rank_by!r}. Use iou or quality.")
        if not 0 <= alpha <= 1 or tau <= 0:
            raise ConfigError(f"IA-BCE needs 0 <= alpha <= 1 and tau > 0, got {alpha} and {tau}.")
        super().__init__(network)
        self.targets_of = partial(iou_aware_targets, alpha=alpha, tau=tau, rank_by=rank_by)
        self.gamma = gamma
        regression = partial(focal_eiou_loss, gamma=box_gamma, floor=box_floor)
        self.bbox_loss = PluggableBboxLoss(regression, reg_max=self.reg_max).to(self.device)

    def get_assigned_targets_and_loss(
        self, preds: dict[str, Any], batch: dict[str, Any], **assign_kwargs: Any
    ) -> tuple[tuple[Tensor, ...], Tensor, dict[str, Tensor]]:
        """Losses of one batch; the stock method with its classification term exchanged.

        It is overridden whole because IA-BCE needs what the stock one keeps to itself: which
        object each anchor was assigned to, and the decoded boxes.

        Args:
            preds: "boxes" (N, 4·reg_max, A), "scores" (N, C, A), "feats".
            batch: "batch_idx" (M,), "cls" (M,), "bboxes" (M, 4) xywh in fractions of the image.
            assign_kwargs: passed to the assigner.

        Returns:
            (fg_mask, target_gt_idx, target_bboxes, anchor_points, stride), the scaled
            (box, cls, dfl), and the same by name, detached.
        """
        distances = preds["boxes"].permute(0, 2, 1).contiguous()
        logits = preds["scores"].permute(0, 2, 1).contiguous()
        anchors, strides = make_anchors(preds["feats"], self.stride, 0.5)
        height, width = preds["feats"][0].shape[2:]
        image_size = self.stride[0] * torch.tensor(
            [height, width], device=self.device, dtype=logits.dtype
        )
        rows = torch.cat(
            (batch["batch_idx"].view(-1, 1), batch["cls"].view(-1, 1), batch["bboxes"]), 1
        )
        truth = self.preprocess(
            rows.to(self.device), len(logits), scale_tensor=image_size[[1, 0, 1, 0]]
        )
        labels, truth_boxes = truth.split((1, 4), 2)
        boxes = self.bbox_decode(anchors, distances)  # (N, A, 4) xyxy, stride units

        assigned_labels, target_boxes, alignment, is_positive, object_index = self.assigner(
            logits.detach().sigmoid(),
            (boxes.detach() * strides).type(truth_boxes.dtype),
            anchors * strides,
            labels,
            truth_boxes,
            truth_boxes.sum(2, keepdim=True).gt_(0.0),
            **assign_kwargs,
        )
        targets_in_strides = target_boxes / strides

        image, anchor = is_positive.nonzero(as_tuple=True)
        positives = (image, anchor, assigned_labels[image, anchor].long())
        targets = self.targets_of(
            logits[positives].float().sigmoid(),
            iou(boxes[image, anchor], targets_in_strides[image, anchor]),
            image * truth_boxes.shape[1] + object_index[image, anchor].long(),
        )
        classification = ia_bce(logits, positives, targets, gamma=self.gamma)
        if self.class_weights is not None:
            classification = classification * self.class_weights

        loss_box, loss_dfl = self.bbox_loss(
            distances,
            boxes,
            anchors,
            targets_in_strides,
            alignment,
            alignment.sum().clamp(min=1),
            is_positive,
            image_size,
            strides,
        )
        loss = torch.stack(
            (
                loss_box * self.hyp.box,
                classification.sum() / targets.sum().clamp(min=1) * self.hyp.cls,
                loss_dfl * self.hyp.dfl,
            )
        )
        assignment = (is_positive, object_index, target_boxes, anchors, strides)
        return assignment, loss, dict(zip(self.loss_names, loss.detach(), strict=True))
