"""Measures of doubt, each against numbers worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from active_learning import uncertainty as measure
from active_learning.uncertainty import Overlap

probabilities = arrays(np.float64, st.integers(0, 12), elements=st.floats(0, 1))
simplex = arrays(np.float64, st.integers(2, 8), elements=st.floats(0.01, 1)).map(
    lambda row: row / row.sum()
)


# --- whole images ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "least_confidence", "margin", "entropy"),
    [
        # (1 - 1) · 4/3; 1 - (1 - 0); no entropy
        pytest.param([1, 0, 0, 0], 0.0, 0.0, 0.0, id="certain"),
        # (1 - 1/4) · 4/3 = 1; a tie; log 4 / log 4
        pytest.param([0.25] * 4, 1.0, 1.0, 1.0, id="uniform"),
        # 0.5 · 4/3 = 2/3; a tie; log 2 / log 4 = 1/2
        pytest.param([0.5, 0.5, 0, 0], 2 / 3, 1.0, 0.5, id="two left"),
        # 0.25 · 2/1 = 0.5; 1 - (0.75 - 0.25); H(0.75) = 0.8113 bits
        pytest.param([0.75, 0.25], 0.5, 0.5, 0.8113, id="two classes"),
        pytest.param([1.0], 0.0, 0.0, 0.0, id="one class"),
    ],
)
def test_doubts_about_a_whole_image_are_the_worked_numbers(row, least_confidence, margin, entropy):
    assert measure.least_confidence(row) == pytest.approx(least_confidence)
    assert measure.margin(row) == pytest.approx(margin)
    assert measure.entropy(row) == pytest.approx(entropy, abs=1e-4)


def test_doubts_of_several_images_come_one_each():
    rows = [[1.0, 0.0], [0.5, 0.5]]
    for function in (measure.least_confidence, measure.margin, measure.entropy):
        assert function(rows).tolist() == [0.0, 1.0]
        assert function([[1.0], [1.0]]).tolist() == [0.0, 0.0]  # of one class alone


@given(simplex)
def test_margin_is_never_below_least_confidence(row):
    assert 0 <= measure.least_confidence(row) <= measure.margin(row) + 1e-9 <= 1 + 1e-9
    assert 0 <= measure.entropy(row) <= 1


# --- boxes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        pytest.param([], 0.0, id="no box"),
        pytest.param([0.5], 1.0, id="a tossed coin"),
        pytest.param([0.9], 0.2, id="1 - |2 · 0.9 - 1|"),
        pytest.param([0.1], 0.2, id="as open from below"),
        # (0.81 · 0.2 + 0.25 · 1) / (0.81 + 0.25) = 0.412 / 1.06
        pytest.param([0.9, 0.5], 0.38868, id="beside a sure one"),
        pytest.param([0.0, 0.0], 0.0, id="boxes that cannot be"),
    ],
)
def test_box_ambiguity_is_the_worked_number(p, expected):
    assert measure.box_ambiguity(p) == pytest.approx(expected, abs=1e-5)


def test_a_crowd_of_faint_boxes_hardly_hides_the_open_one():
    # 0.25 · 1 + 40 · 0.0025 · 0.1 = 0.26 over 0.25 + 40 · 0.0025 = 0.35; an unweighted mean: 0.12.
    assert measure.box_ambiguity([0.5, *[0.05] * 40]) == pytest.approx(0.26 / 0.35)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        pytest.param([], 0.0, id="no box"),
        pytest.param([0.2, 0.2, 0.15], 0.456, id="1 - 0.8 · 0.8 · 0.85"),
        pytest.param([0.4], 0.4, id="one alone"),
        pytest.param([0.5, 0.15, 0.15], 0.0, id="a likely box decides"),
    ],
)
def test_faint_boxes_add_up_unless_one_is_likely(p, expected):
    assert measure.escape_ambiguity(p) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("p", "span", "expected"),
    [
        pytest.param([], (0, 0), 0.0, id="no box"),
        pytest.param([0.9, 0.1], (1, 1), 0.0, id="nothing open"),
        pytest.param([0.5], (0, 1), 0.5, id="1 / 2"),
        pytest.param([0.9, 0.8, 0.75, 0.25], (3, 4), 0.2, id="1 / 5, limits count as inside"),
        pytest.param([0.5] * 4, (0, 4), 0.8, id="4 / 5"),
    ],
)
def test_the_count_is_open_by_the_boxes_between_sure_and_not_sure(p, span, expected):
    assert measure.count_range(p) == span
    assert measure.count_ambiguity(p) == pytest.approx(expected)


def test_overlap_needs_two_serious_boxes_of_different_classes():
    # 10 x 10 and 10 x 10 shifted by 5: IoU 50 / 150 = 1/3. Twice the smaller probability: 0.8.
    boxes = [[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 10, 10]]
    found = measure.strongest_overlap(boxes[:2], [0.4, 0.6], [0, 1])
    assert found == Overlap(1, 0, iou=pytest.approx(1 / 3), ambiguity=pytest.approx(0.8 / 3))
    # The third box lies on the first, but is of its class.
    assert measure.strongest_overlap(boxes, [0.4, 0.6, 0.4], [0, 1, 0]) == found
    assert measure.strongest_overlap([boxes[0], boxes[2]], [0.4, 0.4], [0, 0]) is None


def test_overlap_of_two_sure_boxes_is_their_iou_and_no_more():
    found = measure.strongest_overlap([[0, 0, 10, 10], [0, 0, 10, 5]], [0.9, 0.9], [0, 1])
    assert found is not None
    assert found.ambiguity == pytest.approx(0.5)


@pytest.mark.parametrize(
    "boxes", [[], [[0, 0, 9, 9]], [[0, 0, 9, 9], [20, 0, 29, 9]]], ids=["none", "one", "apart"]
)
def test_boxes_that_do_not_touch_have_no_overlap(boxes):
    n = len(boxes)
    found = measure.strongest_overlap(np.reshape(boxes, (-1, 4)), [0.5] * n, np.arange(n))
    assert found is None


@pytest.mark.parametrize(
    ("boxes", "p", "ids", "expected"),
    [
        pytest.param([], [], [], 0.0, id="no box"),
        pytest.param([[0, 0, 9, 9]], [0.4], [0], 0.8, id="one open box: 1 - |2 · 0.4 - 1|"),
        # Alone each counts 0.4 or less; together 1 - 0.8 · 0.8 · 0.85.
        pytest.param(
            [[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]],
            [0.2, 0.2, 0.15],
            [0, 0, 0],
            0.456,
            id="many faint ones",
        ),
        # 1 - |2 · 0.74 - 1| = 0.52 each, but between none and four of them: 4 / 5.
        pytest.param(
            [[20 * k, 0, 20 * k + 9, 9] for k in range(4)], [0.74] * 4, [0] * 4, 0.8, id="count"
        ),
        pytest.param([[0, 0, 10, 10], [0, 0, 10, 5]], [0.9, 0.9], [0, 1], 0.5, id="two classes"),
    ],
)
def test_the_largest_of_four_doubts_is_that_of_the_image(boxes, p, ids, expected):
    found = measure.boxes_uncertainty(np.reshape(boxes, (-1, 4)), p, ids)
    assert found == pytest.approx(expected)


def test_rows_are_scaled_to_length_one_and_rows_of_zeros_stay():
    rows = [[3.0, 4.0], [0.0, 0.0], [0.0, 0.5]]
    assert measure.unit_rows(rows).tolist() == [[0.6, 0.8], [0.0, 0.0], [0.0, 1.0]]


@given(probabilities)
def test_doubts_about_boxes_stay_between_0_and_1(p):
    assert 0 <= measure.box_ambiguity(p) <= 1
    assert 0 <= measure.count_ambiguity(p) < 1


# --- masks -------------------------------------------------------------------------------------


def test_binary_entropy_is_one_bit_where_it_is_open_and_none_where_it_is_sure():
    # H(0.75) = 2 - 0.75 log2 3 = 0.8113; below 0.5 more than two classes compete: fully open.
    found = measure.binary_entropy([1.0, 0.75, 0.5, 0.34])
    assert found == pytest.approx([0, 0.8113, 1, 1], abs=1e-4)


def half_marked() -> np.ndarray:
    """100 x 100 px, the right half class 1; the band is columns 48 to 51 (2 % = 2 px a side)."""
    class_map = np.zeros((100, 100), np.uint8)
    class_map[:, 50:] = 1
    return class_map


def test_boundary_entropy_reads_the_band_beside_the_outline_and_nothing_else():
    scores = np.ones((100, 100))
    scores[:, [48, 49, 50, 51]] = [0.75, 0.5, 0.5, 0.75]
    # (0.8113 + 1 + 1 + 0.8113) / 4
    assert measure.boundary_entropy(half_marked(), scores) == pytest.approx(0.90564, abs=1e-5)
    assert measure.interior_entropy(half_marked(), scores) == 0.0


def test_the_band_of_a_larger_image_is_wider():
    class_map = np.zeros((400, 500), np.uint8)
    class_map[:, 250:] = 1
    scores = np.ones((400, 500))
    scores[:, 242:258] = 0.5  # 2 % of 400 px: 8 to either side
    assert measure.boundary_entropy(class_map, scores) == 1.0
    assert measure.interior_entropy(class_map, scores) == 0.0


def test_interior_entropy_finds_the_patch_that_was_almost_marked():
    scores = np.ones((100, 100))
    scores[10:18, 10:20] = 0.5  # 80 px; the least sure 1 % of 9600 px away from the outline are 96
    assert measure.interior_entropy(half_marked(), scores) == pytest.approx(80 / 96)
    assert measure.boundary_entropy(half_marked(), scores) == 0.0


def test_an_image_of_one_class_has_no_boundary():
    assert measure.boundary_entropy(np.zeros((9, 9), np.uint8), np.full((9, 9), 0.5)) == 0.0


def test_a_checkerboard_has_no_interior():
    class_map = (np.indices((8, 8)).sum(0) % 2).astype(np.uint8)
    assert measure.interior_entropy(class_map, np.full((8, 8), 0.5)) == 0.0
    assert measure.boundary_entropy(class_map, np.full((8, 8), 0.5)) == 1.0


def test_a_large_mask_is_as_doubtful_as_the_same_mask_in_small():
    class_map, scores = half_marked(), np.full((100, 100), 0.75)
    large_map = np.kron(class_map, np.ones((20, 20), np.uint8))
    large = np.kron(scores, np.ones((20, 20)))
    assert measure.boundary_entropy(large_map, large) == pytest.approx(0.8113, abs=1e-4)
    assert measure.interior_entropy(large_map, large) == pytest.approx(0.8113, abs=1e-4)
