"""From which score on a release shows findings: tallies and thresholds worked by hand."""

import numpy as np
import pytest

from active_learning.operating import TOLD, Tally, add_mask, best_threshold, curve, tally_boxes
from core.types import Provenance, Segmentation
from tests.training.scenes import scene

LABELS = ("crazing", "scratches")


def test_a_box_counts_for_where_it_lies_not_for_how_well_it_fits():
    # One long label that was found in two pieces, IoU 0.4 each: both right, the defect found.
    pieces = scene([(0, 0, 0, 100, 10)], [(0, 0.6, 0, 0, 40, 10), (0, 0.3, 60, 0, 100, 10)])
    tally = tally_boxes([pieces], LABELS)["crazing"]
    assert tally.right == [True, True]
    assert tally.found_from == [0.6]  # by the surer one


def test_a_tenth_is_enough_and_less_is_not():
    # Of a box of 100 px² 10 lie on the label, of the next 9.
    on, off = (0, 0.9, 90, 0, 190, 1), (0, 0.8, 91, 0, 191, 1)
    tally = tally_boxes([scene([(0, 0, 0, 100, 1)], [on, off])], LABELS)["crazing"]
    assert tally.right == [True, False]
    assert tally.found_from == [0.9]
    # A defect of which a box covers 9 in 100 is not found, though the box lies on it altogether.
    inside = tally_boxes([scene([(0, 0, 0, 100, 1)], [(0, 0.8, 0, 0, 9, 1)])], LABELS)["crazing"]
    assert inside.right == [True]
    assert inside.found_from == [-1.0]


def test_a_box_of_another_class_finds_nothing_and_is_wrong():
    tallies = tally_boxes([scene([(0, 0, 0, 10, 10)], [(1, 0.9, 0, 0, 10, 10)])], LABELS)
    assert tallies["crazing"].found_from == [-1.0]
    assert tallies["scratches"].right == [False]


def test_a_box_without_an_area_lies_on_nothing():
    tally = tally_boxes([scene([(0, 0, 0, 10, 10)], [(0, 0.9, 5, 5, 5, 9)])], LABELS)["crazing"]
    assert tally.right == [False]


def test_images_without_labels_or_findings_are_counted_too():
    seen = [scene([], [(0, 0.7, 0, 0, 9, 9)]), scene([(0, 0, 0, 9, 9)], []), scene([], [])]
    tally = tally_boxes(seen, LABELS)["crazing"]
    assert (tally.scores, tally.right, tally.found_from) == ([0.7], [False], [-1.0])


def masks(truth, said, scores):
    said, scores = np.array(said, np.uint8), np.array(scores, np.float32)
    source = Provenance("sme_deeplabv3plus", "r", "0" * 64, said.shape[1], said.shape[0], 0.0)
    answer = Segmentation(said, scores, LABELS, source)
    tallies = {label: Tally() for label in LABELS}
    add_mask(tallies, np.array(truth, np.uint8), answer, {})
    return tallies


def test_regions_are_scored_by_their_mean_and_may_find_a_defect_together():
    # A label of 20 px; two regions cover one px of it each, a tenth together. A third lies off it.
    truth = [[1] * 20, [0] * 20, [0] * 20]
    said = [[1] + [0] * 8 + [1] + [0] * 10, [0] * 20, [1] * 4 + [0] * 16]
    scores = np.full((3, 20), 0.99)
    scores[0, 0], scores[0, 9], scores[2, :4] = 0.8, 0.6, (0.2, 0.4, 0.4, 0.2)
    tally = masks(truth, said, scores)["crazing"]
    assert tally.scores == pytest.approx([0.8, 0.6, 0.3])
    assert tally.right == [True, True, False]
    assert tally.found_from == pytest.approx([0.6])  # not before the second is shown


def test_a_region_may_lie_on_two_defects_of_a_tenth_of_it_together():
    # 20 px found; of each of two labels it covers one.
    truth = [[1] + [0] * 18 + [1]]
    tally = masks(truth, [[1] * 20], np.full((1, 20), 0.9))["crazing"]
    assert tally.right == [True]
    assert tally.found_from == pytest.approx([0.9, 0.9])
    assert masks([[1] + [0] * 19], [[1] * 20], np.full((1, 20), 0.9))["crazing"].right == [False]


def test_regions_that_touch_at_a_corner_are_one():
    tally = masks(np.zeros((2, 2)), [[2, 0], [0, 2]], [[0.6, 1], [1, 0.8]])["scratches"]
    assert tally.scores == pytest.approx([0.7])
    assert tally.right == [False]
    assert tally.found_from == []


def test_the_curve_counts_at_every_threshold():
    tally = Tally(scores=[0.9, 0.5, 0.12], right=[True, True, False], found_from=[0.9, 0.5, -1.0])
    told = curve({"crazing": tally, "scratches": Tally()}, n=7, own=0.12)
    at = dict(zip(told.thresholds, range(20), strict=True))
    assert (told.n, told.defects) == (7, {"crazing": 3, "scratches": 0})
    for threshold, found, findings, wrong in ((0.12, 2, 3, 1), (0.15, 2, 2, 0), (0.5, 2, 2, 0)):
        k = at[threshold]
        assert told.found["crazing"][k] == found
        assert told.findings["crazing"][k] == findings
        assert told.wrong["crazing"][k] == wrong
    assert told.found["crazing"][at[0.55]] == 1
    assert curve({}, n=1, own=0.5).thresholds == TOLD  # told already
    assert told.findings["scratches"] == (0,) * 20


def test_the_threshold_leaves_out_what_is_wrong_and_keeps_what_is_found():
    # Ten defects from 0.30 on; twenty findings on nothing up to 0.2. From 0.21 on F1 is 1.
    tally = Tally([0.3] * 10 + [0.2] * 20, [True] * 10 + [False] * 20, [0.3] * 10)
    assert best_threshold({"crazing": tally}) == 0.3  # the highest that is as good


def test_every_class_has_an_equal_say_and_one_without_labels_none():
    # Crazing needs 0.1, scratches would like 0.5: in counts scratches outweigh it ten to one.
    crazing = Tally([0.1], [True], [0.1])
    scratches = Tally([0.6] * 10 + [0.4] * 5, [True] * 10 + [False] * 5, [0.6] * 10)
    unlabelled = Tally([0.9], [False], [])
    tallies = {"scratches": scratches, "crazing": crazing, "patches": unlabelled}
    # At 0.1: (1 + 0.8) / 2 = 0.9; from 0.41 on: (0 + 1) / 2.
    assert best_threshold(tallies) == 0.1


def test_a_little_may_be_given_up_for_fewer_boxes():
    # 400 defects; from 0.2 on one is missed: F1 is 2 x 0.9975 / 1.9975 = 0.9987.
    tally = {"crazing": Tally([0.2] * 399 + [0.1], [True] * 400, [0.2] * 399 + [0.1])}
    assert best_threshold(tally) == 0.1
    assert best_threshold(tally, give_up=0.0013) == 0.2
    assert best_threshold(tally, give_up=0.0012) == 0.1


def test_without_a_labelled_defect_there_is_nothing_to_choose_by():
    assert best_threshold({"crazing": Tally([0.9], [False], [])}) is None
