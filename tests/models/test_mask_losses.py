"""The segmenter's loss, term by term, worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models._mask_losses import SegmentationLoss, border_f1

ONLY_CE = {"ce": 1.0, "focal": 0.0, "dice": 0.0}
ONLY_FOCAL = {"ce": 0.0, "focal": 1.0, "dice": 0.0}
ONLY_DICE = {"ce": 0.0, "focal": 0.0, "dice": 1.0}
ONLY_BORDER = {"ce": 0.0, "focal": 0.0, "dice": 0.0, "border": 1.0}


def two_pixels() -> tuple[Tensor, Tensor]:
    """Probabilities (.8, .2) and (.3, .7) of the classes 0 and 1, which are the true ones."""
    p = torch.tensor([[0.8, 0.2], [0.3, 0.7]])
    return p.log().T.reshape(1, 2, 1, 2), torch.tensor([[[0, 1]]])


# CE = -(ln .8 + ln .7)/2; focal = .5·(.04·.223144 + .09·.356675)/2; Dice: TP .8 and .7, sums of the
# two areas 2.1 and 1.9, so 1 - (1.6/2.1 + 1.4/1.9)/2.
@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        pytest.param(ONLY_CE, 0.289909, id="cross-entropy"),
        pytest.param(ONLY_FOCAL, 0.0102566, id="focal"),
        pytest.param(ONLY_DICE, 0.2506266, id="dice"),
        pytest.param({}, 0.550792, id="the sum of the three, by default"),
        pytest.param({"ce": 2.0, "focal": 10.0, "dice": 0.0}, 0.682384, id="weighted"),
    ],
)
def test_loss_of_two_pixels_worked_by_hand(weights: dict[str, float], expected: float) -> None:
    loss = SegmentationLoss(**weights)(*two_pixels())
    assert float(loss) == pytest.approx(expected, abs=2e-6)


def test_focal_with_gamma_0_and_alpha_1_is_cross_entropy() -> None:
    logits, target = torch.randn(2, 4, 5, 6), torch.randint(4, (2, 5, 6))
    focal = SegmentationLoss(**ONLY_FOCAL, alpha=1.0, gamma=0.0)(logits, target)
    torch.testing.assert_close(focal, F.cross_entropy(logits, target))


def test_dice_of_a_perfect_prediction_is_zero_even_where_a_class_is_absent() -> None:
    target = torch.tensor([[[0, 1, 1], [2, 2, 0]]])
    logits = 200.0 * F.one_hot(target, 4).movedim(3, 1).float()
    assert float(SegmentationLoss(**ONLY_DICE)(logits, target)) == pytest.approx(0.0, abs=1e-6)


def test_ignored_pixels_change_neither_the_loss_nor_any_gradient() -> None:
    logits, target = two_pixels()
    wide = torch.cat((logits, torch.tensor([3.0, -4.0]).reshape(1, 2, 1, 1)), 3).requires_grad_()
    loss = SegmentationLoss()(wide, torch.tensor([[[0, 1, 9]]]), 9)
    loss.backward()
    torch.testing.assert_close(loss, SegmentationLoss()(logits, target))
    assert wide.grad is not None
    assert not wide.grad[..., 2].any()


def test_a_batch_without_a_single_valid_pixel_costs_nothing() -> None:
    logits = torch.randn(1, 4, 3, 3, requires_grad=True)
    loss = SegmentationLoss()(logits, torch.full((1, 3, 3), 255))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def halves(column: int, *, inside: float = 1.0, outside: float = 0.0) -> Tensor:
    """(1, 2, 3, 8): class 1 has probability `inside` from a column on, `outside` before it."""
    p = torch.full((3, 8), outside)
    p[:, column:] = inside
    return torch.stack((1 - p, p))[None]


VALID = torch.ones(1, 3, 8, dtype=torch.bool)


# The inner border of class 1 is its first column; at the picture's edge there is none. One px of
# tolerance reaches the columns 2 to 4 of a border in column 3.
@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(halves(3), 1.0, id="the same border"),
        pytest.param(halves(4), 1.0, id="one px beside it"),
        pytest.param(halves(5), 0.0, id="two px beside it"),
        # The said border is .9 - .2 = .7 in column 3: precision 1, recall .7, 2 · .7 / 1.7.
        pytest.param(halves(3, inside=0.8, outside=0.1), 0.8235294, id="unsure"),
        pytest.param(halves(8), 0.0, id="nothing said"),
    ],
)
def test_borders_meet_within_the_tolerance(said: Tensor, expected: float) -> None:
    f1 = border_f1(said, halves(3) > 0.5, VALID, tolerance=1)
    assert float(f1) == pytest.approx(expected, abs=1e-4)


def test_borders_at_ignored_pixels_do_not_count() -> None:
    valid = VALID.clone()
    valid[..., 5:] = False
    both = halves(3).clone()
    both[0, 1, :, 6], both[0, 0, :, 6] = 0.0, 1.0  # a gap with borders of its own
    assert float(border_f1(both, halves(3) > 0.5, valid, tolerance=0)) == pytest.approx(1.0)
    assert float(border_f1(both, halves(3) > 0.5, VALID, tolerance=0)) < 0.7


def test_a_class_that_is_neither_there_nor_said_costs_nothing() -> None:
    absent = torch.cat((halves(3), torch.zeros(1, 1, 3, 8)), 1)
    assert float(border_f1(absent, absent > 0.5, VALID)) == pytest.approx(1.0)


def test_a_missed_scratch_costs_as_much_as_a_missed_patch_with_as_long_a_border() -> None:
    """By area the scratch is a twentieth of what the patch is, and Dice hardly sees it."""
    truth = torch.zeros(1, 40, 40, dtype=torch.long)
    truth[0, 2:22, 2:22] = 1  # a patch: 400 px, 76 of them border
    truth[0, 30, 2:22] = 1  # a scratch: 20 px, all border
    said = truth.clone()
    said[0, 30] = 0
    logits = 200.0 * F.one_hot(said, 2).movedim(3, 1).float()
    # Recall 76/96, precision 1; Dice of class 1: 800/820, of the background 2360/2380.
    assert float(SegmentationLoss(**ONLY_BORDER)(logits, truth)) == pytest.approx(
        1 - 2 * 76 / (76 + 96), abs=1e-4
    )
    assert float(SegmentationLoss(**ONLY_DICE)(logits, truth)) == pytest.approx(
        1 - (800 / 820 + 2360 / 2380) / 2, abs=1e-4
    )


def test_the_border_term_pulls_a_faint_scratch_up() -> None:
    truth = torch.zeros(1, 9, 9, dtype=torch.long)
    truth[0, 4] = 1
    logits = torch.zeros(1, 2, 9, 9, requires_grad=True)
    with torch.no_grad():
        logits[0, 1, 4] = 0.5
    SegmentationLoss(**ONLY_BORDER)(logits, truth).backward()
    assert logits.grad is not None
    assert (logits.grad[0, 1, 4] < 0).all()  # a step downhill makes it surer
