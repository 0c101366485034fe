"""The IAJ loss of DA-YOLO: targets and terms worked by hand, and its place in training."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.utils.loss import v8DetectionLoss

from core.errors import ConfigError
from models._iaj_loss import IAJLoss, ia_bce, iou_aware_targets
from models._ultralytics import DetectionNetwork
from models.da_yolo import build


@pytest.fixture(scope="module")
def network() -> DetectionNetwork:
    torch.manual_seed(0)
    built = build(6, "n")
    built.args = get_cfg()
    return built


def batch() -> dict[str, Tensor]:
    """Two images of 64 px with one and two boxes."""
    return {
        "img": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2)),
        "batch_idx": torch.tensor([0.0, 1.0, 1.0]),
        "cls": torch.tensor([1.0, 2.0, 5.0]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.6, 0.5], [0.3, 0.3, 0.4, 0.4], [0.7, 0.6, 0.3, 0.5]]),
    }


# t = .6^.25·.8^.75 = .744484; rank 0: −t ln .6 − (1 − t) ln .4 = .614428.
# Rank 1, τ 1.5: t̃ = t·e^(−2/3) = .382231 and the loss .761309. t = .2^.25·.5^.75 = .397635.
@pytest.mark.parametrize(
    ("probability", "overlap", "rank", "target", "loss"),
    [
        pytest.param(0.6, 0.8, 0, 0.744484, 0.614428, id="good, first"),
        pytest.param(0.6, 0.8, 1, 0.382231, 0.761309, id="good, second"),
        pytest.param(0.2, 0.5, 0, 0.397635, 0.774383, id="poor, first"),
    ],
)
def test_a_positive_has_its_hand_worked_target_and_loss(
    probability: float, overlap: float, rank: int, target: float, loss: float
) -> None:
    better = [1.0] * rank  # positives of the same object that overlap it more
    probabilities = torch.tensor([*better, probability])
    targets = iou_aware_targets(
        probabilities, torch.tensor([*better, overlap]), torch.zeros(rank + 1, dtype=torch.long)
    )[-1:]
    assert targets.item() == pytest.approx(target, abs=1e-6)
    zero = torch.zeros(1, dtype=torch.long)
    cost = ia_bce(probabilities[-1:].logit().view(1, 1, 1), (zero, zero, zero), targets)
    assert cost.item() == pytest.approx(loss, abs=1e-6)


def test_a_negative_of_probability_0_3_costs_0_0321() -> None:
    # .3²·(−ln .7) = .09·.356675
    none = torch.zeros(0, dtype=torch.long)
    cost = ia_bce(torch.tensor(0.3).logit().view(1, 1, 1), (none, none, none), torch.zeros(0))
    assert cost.item() == pytest.approx(0.032101, abs=1e-6)


def test_ranks_are_counted_within_each_object() -> None:
    ious = torch.tensor([0.5, 0.9, 0.7, 0.6])
    objects = torch.tensor([3, 3, 8, 3])
    ones = torch.ones(4)
    targets = iou_aware_targets(ones, ious, objects, alpha=1.0, tau=1.0)
    # α = 1 makes t = p = 1; ranks of object 3: .9, .6, .5 -> 0, 1, 2; object 8 has one positive
    torch.testing.assert_close(targets, torch.tensor([-2.0, 0.0, 0.0, -1.0]).exp())


def test_ranking_by_quality_and_by_iou_may_differ() -> None:
    # t = .9^.25·.5^.75 = .579 beats .1^.25·.8^.75 = .476, although .5 < .8
    probabilities, ious = torch.tensor([0.9, 0.1]), torch.tensor([0.5, 0.8])
    one_object = torch.zeros(2, dtype=torch.long)
    by_iou = iou_aware_targets(probabilities, ious, one_object)
    by_quality = iou_aware_targets(probabilities, ious, one_object, rank_by="quality")
    fall = torch.tensor(-1 / 1.5).exp()
    torch.testing.assert_close(by_iou[0] / by_quality[0], fall)
    torch.testing.assert_close(by_quality[1] / by_iou[1], fall)


def test_an_infinite_tau_switches_ranking_off_and_a_lost_positive_keeps_one_percent() -> None:
    probabilities, ious = torch.tensor([0.6, 0.6, 0.5]), torch.tensor([0.8, 0.8, 0.0])
    targets = iou_aware_targets(
        probabilities, ious, torch.zeros(3, dtype=torch.long), tau=float("inf")
    )
    torch.testing.assert_close(targets, torch.tensor([0.744484, 0.744484, 0.01]))


def test_ia_bce_stays_finite_at_extreme_half_precision_logits() -> None:
    logits = torch.tensor([[[-60000.0], [60000.0]]]).half().requires_grad_()
    zero = torch.zeros(1, dtype=torch.long)
    loss = ia_bce(logits, (zero, zero, zero), torch.tensor([0.5]))
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def answers(n_images: int = 2) -> dict[str, Any]:
    """Raw head outputs for 64 px and three classes."""
    generator = torch.Generator().manual_seed(0)
    return {
        "boxes": torch.randn(n_images, 64, 84, generator=generator).requires_grad_(),
        "scores": torch.randn(n_images, 6, 84, generator=generator).requires_grad_(),
        "feats": [torch.zeros(n_images, 1, s, s) for s in (8, 4, 2)],
    }


def test_the_loss_has_the_three_items_of_the_stock_one_and_its_dfl(
    network: DetectionNetwork,
) -> None:
    preds = answers()
    ours, items = IAJLoss(network)(preds, batch())
    stock, stock_items = v8DetectionLoss(network)(preds, batch())
    assert list(items) == list(stock_items) == ["box_loss", "cls_loss", "dfl_loss"]
    torch.testing.assert_close(ours[2], stock[2])
    assert not torch.isclose(ours[0], stock[0])
    assert not torch.isclose(ours[1], stock[1])
    torch.testing.assert_close(ours.detach(), 2 * torch.stack(list(items.values())))


def test_the_classification_term_is_ia_bce_over_the_sum_of_its_targets(
    network: DetectionNetwork,
) -> None:
    preds = answers()
    criterion = IAJLoss(network, tau=math.inf, alpha=0.0)  # t̃ = max(IoU, .01)
    assignment, loss, _ = criterion.get_assigned_targets_and_loss(preds, batch())
    is_positive, object_index, target_boxes, anchors, strides = assignment
    labels = torch.tensor([[1, 0], [2, 5]])  # of each image's first and second object
    boxes = criterion.bbox_decode(anchors, preds["boxes"].mT) * strides
    expected = torch.zeros(())
    targets = torch.zeros(())
    for image, anchor in is_positive.nonzero():
        (x1, y1, x2, y2), (u1, v1, u2, v2) = boxes[image, anchor], target_boxes[image, anchor]
        overlap = (min(x2, u2) - max(x1, u1)).clamp(min=0) * (min(y2, v2) - max(y1, v1)).clamp(
            min=0
        )
        union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - overlap
        t = (overlap / union).detach().clamp(min=0.01)
        label = labels[image, object_index[image, anchor]]
        p = preds["scores"][image, label, anchor].sigmoid()
        expected = expected - t * p.log() - (1 - t) * (1 - p).log() + p**2 * (1 - p).log()
        targets = targets + t
    p = preds["scores"].sigmoid()
    expected = expected - (p**2 * (1 - p).log()).sum()
    torch.testing.assert_close(loss[1], 0.5 * expected / targets.clamp(min=1))


def test_two_copies_of_an_image_have_the_classification_loss_of_one(
    network: DetectionNetwork,
) -> None:
    # The sum is divided by that of the targets, so it stays, if ranks do not run on across images.
    one = answers(1)
    two = {k: v.repeat(2, 1, 1) for k, v in one.items() if k != "feats"}
    two["feats"] = [f.repeat(2, 1, 1, 1) for f in one["feats"]]
    truth = {
        "batch_idx": torch.zeros(2),
        "cls": torch.tensor([2.0, 5.0]),
        "bboxes": batch()["bboxes"][1:],
    }
    twice = {k: torch.cat((v, v)) for k, v in truth.items()}
    twice["batch_idx"][2:] = 1
    criterion = IAJLoss(network, alpha=1.0, tau=5.0)  # targets that sum to more than 1
    _, items = criterion(one, truth)
    _, items_of_two = criterion(two, twice)
    torch.testing.assert_close(items_of_two["cls_loss"], items["cls_loss"])


def test_images_without_objects_cost_classification_only(network: DetectionNetwork) -> None:
    nothing = {"batch_idx": torch.zeros(0), "cls": torch.zeros(0), "bboxes": torch.zeros(0, 4)}
    preds = answers()
    loss, _ = IAJLoss(network)(preds, nothing)
    p = preds["scores"].sigmoid()
    # Σ −p² ln(1 − p), over max(0, 1), times gain ½ and two images
    torch.testing.assert_close(loss[1], -(p**2 * (1 - p).log()).sum())
    assert loss[0].item() == loss[2].item() == 0.0
    loss.sum().backward()
    assert torch.isfinite(preds["scores"].grad).all()


def test_class_weights_multiply_the_classification_loss(network: DetectionNetwork) -> None:
    preds = answers()
    criterion = IAJLoss(network)
    plain, _ = criterion(preds, batch())
    criterion.class_weights = torch.full((1, 1, 6), 3.0)
    weighted, _ = criterion(preds, batch())
    torch.testing.assert_close(weighted[1], 3 * plain[1])


def test_constants_out_of_range_are_refused(network: DetectionNetwork) -> None:
    with pytest.raises(ConfigError, match="Unknown rank_by 'score'"):
        IAJLoss(network, rank_by="score")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"tau > 0, got 0\.25 and 0\."):
        IAJLoss(network, tau=0)


def test_a_few_steps_on_one_batch_lower_the_loss() -> None:
    torch.manual_seed(0)
    network = build(6, "n").train()
    network.args = get_cfg()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.002, momentum=0.9)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss, _ = network.loss(batch())
        loss.sum().backward()
        losses.append(loss.sum().item())
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0], losses
