"""Weighted boxes fusion, worked by hand."""

import numpy as np
import pytest

from models._boxes import MAX_DETECTIONS
from models._fusion import fuse


def _opinion(*rows):
    """Rows of x1, y1, x2, y2, score, class."""
    table = np.array(rows, np.float32).reshape(-1, 6)
    return table[:, :4], table[:, 4], table[:, 5].astype(np.int64)


def test_two_overlapping_boxes_meet_at_their_mean_weighed_by_score():
    # IoU of 0..10 and 2..12 wide is 8 / 12 = 0.67. Mean: x1 = (0.9·0 + 0.3·2) / 1.2 = 0.5,
    # x2 = (0.9·10 + 0.3·12) / 1.2 = 10.5. Score: (0.9 + 0.3) / 2 = 0.6.
    boxes, scores, ids = fuse(
        [_opinion((0, 0, 10, 10, 0.9, 2)), _opinion((2, 0, 12, 10, 0.3, 2))],
        [1, 1],
        iou_threshold=0.5,
    )
    np.testing.assert_allclose(boxes, [[0.5, 0, 10.5, 10]])
    assert scores.tolist() == pytest.approx([0.6])
    assert ids.tolist() == [2]


def test_an_opinion_counts_by_its_weight_in_place_and_in_score():
    # Weights 3 and 1: w·s = 0.6 and 0.2. x1 = (0.6·0 + 0.2·2) / 0.8 = 0.5; score (3·0.8 + 1·0.8)/4.
    boxes, scores, _ = fuse(
        [_opinion((0, 0, 10, 10, 0.8, 0)), _opinion((2, 0, 12, 10, 0.8, 0))],
        [3, 1],
        iou_threshold=0.5,
    )
    np.testing.assert_allclose(boxes, [[0.5, 0, 10.5, 10]], rtol=1e-6)
    assert scores.tolist() == pytest.approx([0.8])


def test_what_one_of_three_sees_alone_has_a_third_of_its_score():
    _, scores, _ = fuse(
        [_opinion((0, 0, 10, 10, 0.9, 0)), _opinion(), _opinion()], [1, 1, 1], iou_threshold=0.5
    )
    assert scores.tolist() == pytest.approx([0.3])


def test_an_opinion_speaks_once_for_a_finding_however_many_boxes_it_has_there():
    # Both boxes of the first shape the place: (0.8·0 + 0.4·1) / 1.2 = 1/3; only 0.8 counts.
    boxes, scores, _ = fuse(
        [_opinion((0, 0, 9, 9, 0.8, 0), (1, 0, 10, 9, 0.4, 0)), _opinion()],
        [1, 1],
        iou_threshold=0.5,
    )
    np.testing.assert_allclose(boxes[0, 0], 1 / 3, rtol=1e-6)
    assert scores.tolist() == pytest.approx([0.4])


def test_a_box_joins_the_finding_as_it_stands_and_not_as_it_began():
    # 0..10 and 3..13 share 7 / 13 = 0.54: fused at 1.5..11.5. Then 5..15: with the fused box
    # 6.5 / 13.5 = 0.48 joins at 0.45, with the first one it would have been 5 / 15 = 0.33.
    boxes, scores, _ = fuse(
        [
            _opinion((0, 0, 10, 10, 0.6, 0)),
            _opinion((3, 0, 13, 10, 0.6, 0)),
            _opinion((5, 0, 15, 10, 0.3, 0)),
        ],
        [1, 1, 1],
        iou_threshold=0.45,
    )
    # x1 = (0.6·0 + 0.6·3 + 0.3·5) / 1.5 = 2.2
    np.testing.assert_allclose(boxes, [[2.2, 0, 12.2, 10]], rtol=1e-6)
    assert scores.tolist() == pytest.approx([0.5])


def test_the_surest_box_begins_a_finding_in_whatever_order_they_are_given():
    # From 0.9 down: 8..18 joins 4..14 (6 / 14 = 0.43 > 0.4), fused at (0.9·4 + 0.5·8) / 1.4 = 5.43.
    # 0..10 overlapped the first by 0.43, but the fused one by 4.57 / 15.43 = 0.30 only.
    boxes, scores, _ = fuse(
        [
            _opinion((0, 0, 10, 20, 0.2, 0)),
            _opinion((4, 0, 14, 20, 0.9, 0)),
            _opinion((8, 0, 18, 20, 0.5, 0)),
        ],
        [1, 1, 1],
        iou_threshold=0.4,
    )
    np.testing.assert_allclose(boxes[:, 0], [7.6 / 1.4, 0], rtol=1e-6)
    assert scores.tolist() == pytest.approx([1.4 / 3, 0.2 / 3])


def test_of_two_findings_a_box_joins_the_one_that_it_overlaps_most():
    # 5..15 overlaps 0..10 by 5 / 15 = 0.33 and 6..16 by 9 / 11 = 0.82.
    first = _opinion((0, 0, 10, 20, 0.9, 0), (6, 0, 16, 20, 0.8, 0))
    boxes, scores, _ = fuse([first, _opinion((5, 0, 15, 20, 0.6, 0))], [1, 1], iou_threshold=0.3)
    np.testing.assert_allclose(boxes[:, 0], [(0.8 * 6 + 0.6 * 5) / 1.4, 0], rtol=1e-6)
    assert scores.tolist() == pytest.approx([0.7, 0.45])


def test_boxes_that_overlap_by_the_threshold_and_no_more_stay_two():
    both = _opinion((0, 0, 12, 20, 0.9, 0), (4, 0, 16, 20, 0.8, 0))  # 8 / 16
    assert len(fuse([both], [1], iou_threshold=0.5)[0]) == 2


def test_boxes_without_area_overlap_nothing():
    both = _opinion((3, 3, 3, 3, 0.9, 0), (3, 3, 3, 3, 0.8, 0))
    assert fuse([both], [1], iou_threshold=0.5)[1].tolist() == pytest.approx([0.9, 0.8])


def test_only_as_many_findings_are_told_as_a_detector_may_have():
    apart = [(20 * k, 0, 20 * k + 10, 10, 0.9 - k / 1000, 0) for k in range(MAX_DETECTIONS + 1)]
    boxes, scores, ids = fuse([_opinion(*apart)], [1], iou_threshold=0.5)
    assert len(boxes) == len(scores) == len(ids) == MAX_DETECTIONS
    assert boxes[-1, 0] == 20 * (MAX_DETECTIONS - 1)  # the least sure one is left out


def test_boxes_apart_and_boxes_of_two_classes_stay_and_come_best_first():
    opinion = _opinion((0, 0, 10, 10, 0.2, 0), (50, 0, 60, 10, 0.9, 0), (0, 0, 10, 10, 0.5, 1))
    boxes, scores, ids = fuse([opinion], [2.5], iou_threshold=0.5)
    assert scores.tolist() == pytest.approx([0.9, 0.5, 0.2])
    assert ids.tolist() == [0, 1, 0]
    assert boxes[:, 0].tolist() == [50, 0, 0]


def test_a_single_opinion_that_agrees_with_itself_is_returned_as_it_is():
    opinion = _opinion((1, 2, 30, 40, 0.7, 3))
    boxes, scores, ids = fuse([opinion, opinion], [1, 2], iou_threshold=0.6)
    np.testing.assert_allclose(boxes, opinion[0])
    np.testing.assert_allclose(scores, opinion[1])
    assert ids.tolist() == [3]


def test_an_opinion_of_weight_0_is_not_heard():
    one, other = _opinion((0, 0, 10, 10, 0.7, 0)), _opinion((50, 0, 60, 10, 0.9, 0))
    boxes, scores, _ = fuse([one, other], [1, 0], iou_threshold=0.5)
    assert boxes.tolist() == [[0, 0, 10, 10]]
    assert scores.tolist() == pytest.approx([0.7])


def test_no_boxes_no_findings():
    boxes, scores, ids = fuse([_opinion(), _opinion()], [1, 1], iou_threshold=0.5)
    assert (boxes.shape, len(scores), len(ids)) == ((0, 4), 0, 0)
