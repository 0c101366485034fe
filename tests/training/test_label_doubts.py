"""What of an image's labels is doubted, and how strongly: by hand, one image at a time."""

from __future__ import annotations

import numpy as np
import pytest

from training.label_doubts import (
    Doubt,
    Found,
    box_doubts,
    class_doubts,
    closest,
    mask_doubts,
    quality,
    touched,
)

NAMES = ("crazing", "patches", "scratches")
SEEN = (0.9, 0.8, 0.7)  # share of each class's labels that is usually seen
SQUARE = (0, 0, 100, 100)


def found(*rows: tuple[str, float, tuple[float, float, float, float]]) -> Found:
    """Rows of class, score, box."""
    return Found(
        np.array([box for _, _, box in rows], np.float64).reshape(-1, 4),
        np.array([score for _, score, _ in rows], np.float64),
        np.array([NAMES.index(label) for label, _, _ in rows], np.int64),
    )


def doubts(labelled: Found, claimed: Found, sure: Found | None = None) -> tuple[Doubt, ...]:
    return box_doubts(
        labelled, claimed, found() if sure is None else sure, NAMES, usually_seen=SEEN
    )


LABEL = found(("crazing", 1.0, SQUARE))


def test_a_label_that_is_found_in_its_place_is_not_doubted():
    # 60 of 100 columns: IoU 0.6.
    assert doubts(LABEL, found(("crazing", 0.2, (0, 0, 60, 100)))) == ()


def test_a_label_that_is_found_elsewhere_is_badly_placed():
    # 5,000 px common, 15,000 px together: IoU 1/3, strength 0.6 · 2/3.
    (doubt,) = doubts(LABEL, found(("crazing", 0.6, (50, 0, 150, 100))))
    assert (doubt.kind, doubt.label, doubt.found) == ("badly placed", "crazing", "crazing")
    assert (doubt.score, doubt.overlap, doubt.strength) == pytest.approx((0.6, 1 / 3, 0.4))
    assert doubt.box == (0, 0, 100, 100)


def test_a_finding_within_a_label_means_that_label_however_small_it_is():
    # 400 of 10,000 px: IoU 0.04 alone would call the label not seen and the finding overlooked.
    within = found(("crazing", 0.5, (10, 10, 30, 30)))
    (doubt,) = doubts(LABEL, within, within)
    assert (doubt.kind, doubt.overlap) == ("badly placed", pytest.approx(0.04))
    assert touched(LABEL, within).tolist() == [True]


def test_a_label_that_nobody_finds_is_the_more_doubtful_the_more_its_class_is_seen():
    both = found(("crazing", 1.0, SQUARE), ("scratches", 1.0, (150, 0, 160, 100)))
    far = found(("crazing", 0.9, (120, 120, 140, 140)))
    assert [(d.kind, d.label, d.strength) for d in doubts(both, far)] == [
        ("not seen", "crazing", 0.9),
        ("not seen", "scratches", 0.7),
    ]


def test_a_label_is_swapped_where_another_class_is_surely_found():
    other = found(("patches", 0.5, (0, 0, 80, 100)))  # IoU 0.8
    (doubt,) = doubts(LABEL, other, other)
    assert (doubt.kind, doubt.label, doubt.found) == ("swapped", "crazing", "patches")
    assert doubt.strength == pytest.approx(0.4)


def test_another_class_of_which_nobody_is_sure_swaps_nothing():
    (doubt,) = doubts(LABEL, found(("patches", 0.5, (0, 0, 80, 100))))
    assert doubt.kind == "not seen"


def test_a_label_that_is_found_is_not_swapped_by_what_else_is_found_there():
    sure = found(("patches", 0.9, SQUARE))
    assert doubts(LABEL, found(("crazing", 0.3, SQUARE), ("patches", 0.9, SQUARE)), sure) == ()


def test_what_is_surely_found_and_touches_no_label_was_overlooked_once():
    sure = found(
        ("patches", 0.7, (150, 150, 200, 200)),
        ("crazing", 0.6, (150, 150, 190, 200)),  # the same place: told with the surer one
        ("crazing", 0.5, (0, 0, 60, 100)),  # on the label
    )
    (doubt,) = doubts(LABEL, sure, sure)
    assert (doubt.kind, doubt.label, doubt.found) == ("overlooked", "", "patches")
    assert (doubt.subject, doubt.strength) == ("patches", 0.7)
    assert doubt.box == (150, 150, 200, 200)


def test_an_image_without_labels_and_findings_is_without_doubt():
    assert doubts(found(), found(), found()) == ()
    assert quality(()) == 1.0


def test_quality_falls_with_every_doubt():
    far = found(("patches", 0.7, (150, 150, 200, 200)))
    told = doubts(LABEL, found(("crazing", 0.6, (50, 0, 150, 100))), far)
    assert [d.kind for d in told] == ["overlooked", "badly placed"]  # 0.7 before 0.4
    assert quality(told) == pytest.approx(0.3 * 0.6)


def test_only_findings_of_a_labels_own_class_come_close_to_it():
    labelled = found(("crazing", 1.0, SQUARE), ("patches", 1.0, SQUARE))
    assert closest(labelled, found(("crazing", 0.9, (0, 0, 60, 100)))) == pytest.approx([0.6, 0])
    assert closest(labelled, found()).tolist() == [0, 0]


def test_a_class_is_as_good_as_its_probability_and_doubted_where_another_is_likelier():
    p = np.array([0.2, 0.7, 0.1])
    value, (doubt,) = class_doubts(0, p, NAMES)
    assert (value, doubt.kind, doubt.label, doubt.found) == (0.2, "swapped", "crazing", "patches")
    assert (doubt.score, doubt.strength, doubt.box) == (0.7, pytest.approx(0.8), None)
    assert class_doubts(1, p, NAMES) == (0.7, ())


def masks(score: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """100 px of crazing labelled, 100 px of patches found elsewhere, all with one score."""
    labelled, class_map = np.zeros((2, 40, 40), np.uint8)
    labelled[5:15, 5:15] = 1
    class_map[5:15, 25:35] = 2
    return labelled, class_map, np.full((40, 40), score)


def test_regions_that_a_segmenter_surely_contradicts_are_doubted():
    value, told = mask_doubts(*masks(0.95), NAMES)
    assert value == 0.0  # all of the 200 px that are a defect by either
    assert sorted((d.kind, d.label, d.found, d.box, d.strength) for d in told) == [
        ("not seen", "crazing", "", (5, 5, 15, 15), 0.5),
        ("overlooked", "", "patches", (25, 5, 35, 15), 0.5),
    ]


def test_a_segmenter_that_leaves_the_label_some_chance_doubts_nothing():
    assert mask_doubts(*masks(0.85), NAMES) == (1.0, ())


def test_one_class_labelled_and_another_surely_found_is_swapped():
    labelled, _, scores = masks(0.95)
    _, (doubt,) = mask_doubts(labelled, labelled * 3, scores, NAMES)
    assert (doubt.kind, doubt.label, doubt.found) == ("swapped", "crazing", "scratches")


def test_a_narrow_rim_around_a_mask_is_how_its_outline_was_drawn():
    labelled, _, scores = masks(0.95)
    class_map = labelled.copy()
    class_map[5:15, 11:15] = 0  # four columns
    assert mask_doubts(labelled, class_map, scores, NAMES) == (1.0, ())
