"""The box losses against pairs worked by hand, and their place in ultralytics' loss."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import Tensor
from ultralytics.utils.loss import BboxLoss
from ultralytics.utils.metrics import bbox_iou

from models._box_losses import (
    PluggableBboxLoss,
    box_geometry,
    focal_eiou_loss,
    iou,
)

eiou_loss = partial(focal_eiou_loss, gamma=0)


def boxes(*coordinates: float) -> Tensor:
    return torch.tensor([coordinates], dtype=torch.float32)


# Offset: intersection 2·3 = 6, union 16 + 12 − 6 = 22; enclosing 6×4; centres (2, 2) and (4, 2.5);
# EIoU = 1 − 6/22 + 4.25/52 + 0/36 + 1/16 = .871503. Focal: √(6/22)·.871503 = .455128.
# Shifted: IoU 18/22, enclosing 11×2, EIoU = 4/22 + 1/125 = .189818; times √(18/22) = .171697.
# Disjoint: enclosing 5×5, EIoU = 1 + 18/50 = 1.36, and √0 = 0 of it.
PAIRS = [
    pytest.param(boxes(0, 0, 4, 4), boxes(2, 1, 6, 4), 0.272727, 0.871503, 0.455128, id="offset"),
    pytest.param(
        boxes(0, 0, 10, 2), boxes(1, 0, 11, 2), 0.818182, 0.189818, 0.171697, id="shifted"
    ),
    pytest.param(boxes(0, 0, 2, 2), boxes(3, 3, 5, 5), 0.0, 1.36, 0.0, id="disjoint"),
    pytest.param(boxes(1, 2, 3, 5), boxes(1, 2, 3, 5), 1.0, 0.0, 0.0, id="identical"),
]


@pytest.mark.parametrize("unit", [1, 8])
@pytest.mark.parametrize(("pred", "target", "overlap", "eiou", "focal"), PAIRS)
def test_each_loss_has_its_hand_worked_value_in_every_unit(
    pred: Tensor, target: Tensor, overlap: float, eiou: float, focal: float, unit: int
) -> None:
    pred, target = unit * pred, unit * target
    assert iou(pred, target).item() == pytest.approx(overlap, abs=1e-6)
    assert eiou_loss(pred, target).item() == pytest.approx(eiou, abs=1e-6)
    assert focal_eiou_loss(pred, target).item() == pytest.approx(focal, abs=1e-6)


def test_geometry_agrees_with_the_diou_and_ciou_of_ultralytics() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 50, 2, 2, generator=generator) * 20
    pred, target = torch.cat((corners.amin(2), corners.amax(2)), 2)
    g = box_geometry(pred, target)
    diagonal2 = g.enclosing_width.square() + g.enclosing_height.square()
    ours = g.iou - g.centre_distance2 / diagonal2
    theirs = bbox_iou(pred, target, xywh=False, DIoU=True).squeeze(1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_focal_factor_carries_no_gradient() -> None:
    # With one, descent would push a small overlap apart; without, it is √IoU times EIoU's.
    pred, target = boxes(0, 0, 4, 4).requires_grad_(), boxes(2, 1, 6, 4)
    (focal,) = torch.autograd.grad(focal_eiou_loss(pred, target).sum(), pred)
    (plain,) = torch.autograd.grad(eiou_loss(pred, target).sum(), pred)
    torch.testing.assert_close(focal, plain * (6 / 22) ** 0.5)


def test_a_floor_lets_boxes_without_overlap_learn() -> None:
    pred, target = boxes(0, 0, 2, 2).requires_grad_(), boxes(3, 3, 5, 5)
    (stuck,) = torch.autograd.grad(focal_eiou_loss(pred, target).sum(), pred)
    assert not stuck.any()
    loss = focal_eiou_loss(pred, target, floor=0.05)
    assert loss.item() == pytest.approx(0.05 * 1.36)
    (moving,) = torch.autograd.grad(loss.sum(), pred)
    assert moving.any()


def test_boxes_of_no_size_give_finite_losses_and_gradients() -> None:
    pred, target = boxes(1, 1, 1, 1).requires_grad_(), boxes(1, 1, 1, 1)
    loss = focal_eiou_loss(pred, target)
    loss.sum().backward()
    assert pred.grad is not None
    assert torch.isfinite(loss).all()
    assert torch.isfinite(pred.grad).all()


def test_half_precision_boxes_are_compared_in_float32() -> None:
    pred, target = boxes(0, 0, 400, 400).half(), boxes(200, 100, 600, 400).half()
    # 400·400 does not fit float16, whose largest number is 65 504
    assert eiou_loss(pred, target).item() == pytest.approx(0.871503, abs=1e-6)


def assigned(n_positive: int) -> dict[str, Tensor]:
    """Arguments of a box loss for one image with 6 anchors, the first n of them positive."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.rand(6, 2, generator=generator) * 8
    sizes = torch.rand(2, 6, 2, generator=generator) * 4 + 1
    pred, target = (torch.cat((centres - s, centres + s), 1)[None] for s in sizes)
    foreground = torch.zeros(1, 6, dtype=torch.bool)
    foreground[0, :n_positive] = True
    scores = torch.rand(1, 6, 3, generator=generator) * foreground[..., None]
    return {
        "pred_dist": torch.randn(1, 6, 64, generator=generator).requires_grad_(),
        "pred_bboxes": pred.requires_grad_(),
        "anchor_points": centres,
        "target_bboxes": target,
        "target_scores": scores,
        "target_scores_sum": scores.sum().clamp(min=1),
        "fg_mask": foreground,
        "imgsz": torch.tensor([64.0, 64.0]),
        "stride": torch.full((6, 1), 8.0),
    }


def test_plugging_in_ciou_gives_the_stock_loss() -> None:
    def ciou_loss(pred: Tensor, target: Tensor) -> Tensor:
        loss: Tensor = 1 - bbox_iou(pred, target, xywh=False, CIoU=True).squeeze(1)
        return loss

    arguments = assigned(4)
    for ours, stock in zip(
        PluggableBboxLoss(ciou_loss)(**arguments), BboxLoss()(**arguments), strict=True
    ):
        torch.testing.assert_close(ours, stock)


def test_a_plugged_in_loss_is_weighed_by_the_alignment_and_leaves_dfl_alone() -> None:
    arguments = assigned(4)
    loss = partial(torch.full, fill_value=2.0)
    box, dfl = PluggableBboxLoss(lambda pred, target: loss((len(pred),)))(**arguments)
    # Σ 2·weight / Σ weight = 2, as the scores of the positives sum to more than 1
    assert box.item() == pytest.approx(2.0)
    torch.testing.assert_close(dfl, BboxLoss()(**arguments)[1])


def test_an_image_without_positives_costs_nothing_and_still_has_a_gradient() -> None:
    arguments = assigned(0)
    box, dfl = PluggableBboxLoss(focal_eiou_loss)(**arguments)
    (box + dfl).backward()
    assert box.item() == dfl.item() == 0.0


def test_ultralytics_installs_nothing_whichever_file_of_the_zoo_imports_it_first() -> None:
    code = (
        "import models._box_losses\n"
        "from ultralytics.utils import AUTOINSTALL, ONLINE\n"
        "assert not AUTOINSTALL and not ONLINE"
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("YOLO_")}
    subprocess.run([sys.executable, "-c", code], env=clean, check=True, timeout=600)
