"""What average precision is lost to: every kind of error worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.scenes import scene
from training.detection_errors import KINDS, find_errors, image_f1

NONE = np.zeros((0, 1), dtype=np.int64)

# Classes 0 to 3 have truth, class 4 has none.
EVERY_KIND = scene(
    truth=[
        (0, 0, 0, 10, 10),
        (0, 50, 50, 60, 60),
        (0, 0, 50, 10, 60),
        (1, 20, 0, 30, 10),
        (1, 70, 0, 80, 10),
        (2, 90, 0, 100, 10),
        (2, 90, 90, 100, 100),
        (3, 30, 30, 40, 40),
    ],
    found=[
        (0, 0.9, 0, 0, 10, 10),  # right
        (0, 0.8, 0, 0, 10, 9),  # twice: IoU 0.9 with what is found already
        (0, 0.7, 50, 50, 60, 54),  # place: IoU 0.4
        (0, 0.6, 20, 0, 30, 10),  # class: a truth of class 1
        (0, 0.5, 20, 0, 30, 3),  # class and place: IoU 0.3 with it
        (0, 0.4, 80, 80, 90, 90),  # background: meets the corner of a truth only
        (0, 0.3, 0, 50, 10, 60),  # right
        (2, 0.9, 90, 0, 100, 10),  # right
    ],
)


def test_each_kind_of_error_costs_what_mending_it_alone_would_gain() -> None:
    errors = find_errors([EVERY_KIND], 5, NONE)
    # Of 101 recalls, 34 are up to 1/3, 33 more up to 2/3, 34 more up to 1; 51 are up to 1/2.
    # Class 0: three truths, right at ranks 1 and 7. Classes 1 to 3: 0 of 2, 1 of 2, 0 of 1.
    assert errors.ap50[:, 0] == pytest.approx(
        [(34 + 33 * 2 / 7) / 101, 0, 51 / 101, 0, np.nan], nan_ok=True
    )
    sixth = 33 * (2 / 6 - 2 / 7) / 101  # one wrong detection less before rank 7
    expected = {
        # Ranks 1, 3 and 7 are right then: precision 1, 2/3, 3/7.
        "place": [(33 * 2 / 3 + 34 * 3 / 7 - 33 * 2 / 7) / 101, 0, 0, 0],
        "class": [sixth, 51 / 101, 0, 0],  # and class 1 has one of its two truths
        "class and place": [sixth, 0, 0, 0],
        "twice": [sixth, 0, 0, 0],
        "background": [sixth, 0, 0, 0],
        # One truth of class 1 was meant, the other need not be found; class 3 has none left.
        "missed": [0, 0, 50 / 101, 1],
    }
    assert tuple(errors.gained) == KINDS == tuple(expected)
    for kind, gains in expected.items():
        assert errors.gained[kind][:4, 0] == pytest.approx(gains), kind
        assert np.isnan(errors.gained[kind][4, 0]), kind


def test_a_truth_that_is_found_is_not_given_to_a_misplaced_box_as_well() -> None:
    found = [(0, 0.9, 0, 0, 10, 4), (0, 0.5, 0, 0, 10, 10)]  # IoU 0.4, then right
    errors = find_errors([scene([(0, 0, 0, 10, 10)], found)], 1, NONE)
    assert errors.ap50[0, 0] == pytest.approx(1 / 2)
    assert errors.gained["place"][0, 0] == pytest.approx(1 / 2)  # the misplaced box is gone


def test_of_two_boxes_that_mean_one_truth_the_surer_is_mended_and_the_other_goes() -> None:
    truth = [(0, 0, 0, 10, 10), (0, 50, 0, 60, 10)]
    found = [
        *[(0, 0.7, 0, 0, 10, 3), (0, 0.8, 0, 0, 10, 4)],
        *[(0, 0.75, 80, 0, 90, 10), (0, 0.6, 50, 0, 60, 10)],
    ]
    errors = find_errors([scene(truth, found)], 1, NONE)
    assert errors.ap50[0, 0] == pytest.approx(51 / 4 / 101)  # right at rank 4 of 4, one of two
    # Mended: right at 0.8, background at 0.75, right at 0.6: precision 1, then 2/3.
    mended = (51 + 50 * 2 / 3) / 101
    assert errors.gained["place"][0, 0] == pytest.approx(mended - 51 / 4 / 101)


def test_of_two_classes_that_mean_one_truth_the_surer_box_is_renamed() -> None:
    found = [(0, 0.5, 0, 0, 10, 10), (2, 0.8, 0, 0, 10, 10), (1, 0.6, 50, 0, 60, 10)]
    errors = find_errors([scene([(1, 0, 0, 10, 10)], found)], 3, NONE)
    assert errors.gained["class"][1, 0] == pytest.approx(1)  # right at 0.8, before the wrong 0.6


def test_a_box_near_a_truth_of_its_class_is_misplaced_even_on_one_of_another_class() -> None:
    truth = [(0, 0, 0, 10, 2), (1, 0, 0, 10, 10)]
    errors = find_errors([scene(truth, [(0, 0.9, 0, 0, 10, 10)])], 2, NONE)  # IoU 0.2 and 1
    assert errors.gained["place"][:, 0] == pytest.approx([1, 0])
    assert errors.gained["class"][:, 0] == pytest.approx([0, 0])


@pytest.mark.parametrize(
    ("height", "kind"), [(0.9, "background"), (1, "place"), (4.9, "place"), (5, "right")]
)
def test_the_bounds_are_a_tenth_and_a_half(height: float, kind: str) -> None:
    found = [(0, 0.9, 0, 0, 10, height), (0, 0.5, 30, 0, 40, 10)]
    truth = [(0, 0, 0, 10, 10), (0, 30, 0, 40, 10)]
    errors = find_errors([scene(truth, found)], 1, NONE)
    gained = {name: gain[0, 0] for name, gain in errors.gained.items() if gain[0, 0] > 1e-9}
    if kind == "right":
        assert gained == {}
    else:
        assert kind in gained


@pytest.mark.parametrize(
    ("beside", "height", "kind"),
    [
        ("another class", 0.9, "background"),
        ("another class", 1, "class and place"),
        ("another class", 4.9, "class and place"),
        ("another class", 5, "class"),
        ("what is found", 4.9, "place"),
        ("what is found", 5, "twice"),
    ],
)
def test_a_second_box_is_one_kind_of_error_from_its_bound_on(
    beside: str, height: float, kind: str
) -> None:
    # The second box is as wide as what it lies on: its IoU is a tenth of its height.
    x = {"what is found": 0, "another class": 30}[beside]
    truth = [(0, 0, 0, 10, 10), (1, 30, 0, 40, 10), (0, 60, 0, 70, 10)]
    found = [(0, 0.9, 0, 0, 10, 10), (0, 0.8, x, 0, x + 10, height), (0, 0.5, 60, 0, 70, 10)]
    errors = find_errors([scene(truth, found)], 2, NONE)
    assert [name for name, gain in errors.gained.items() if gain[0, 0] > 1e-9] == [kind]
    # The truth of the other class is missed, unless the second box means it.
    assert errors.gained["missed"][1, 0] == (0 if kind == "class" else 1)


@pytest.mark.parametrize(("wrong", "ap50"), [(99, 1 / 100), (100, 0)])
def test_the_hundred_surest_of_a_class_and_image_count(wrong: int, ap50: float) -> None:
    found = [(0, 0.1, 0, 0, 10, 10), *[(0, 0.9, 50, 50, 60, 60)] * wrong]
    assert find_errors([scene([(0, 0, 0, 10, 10)], found)], 1, NONE).ap50[0, 0] == ap50


def test_what_is_mended_in_one_image_leaves_the_others_where_they_are() -> None:
    truth = [(0, 0, 0, 10, 10)]
    first = scene(truth, [(0, 0.9, 50, 0, 60, 10), (0, 0.5, 0, 0, 10, 10)])
    second = scene(truth, [(0, 0.8, 0, 0, 10, 10)])
    errors = find_errors([first, second], 1, np.array([[1, 0], [0, 1]]))
    # Both: right at ranks 2 and 3 of two truths. The first alone: at rank 2. The second: all.
    assert errors.ap50[0] == pytest.approx([2 / 3, 1 / 2, 1])
    assert errors.gained["background"][0] == pytest.approx([1 / 3, 1 / 2, 0])


def test_resamples_weigh_the_images() -> None:
    right = scene([(0, 0, 0, 10, 10)], [(0, 0.5, 0, 0, 10, 10)])
    near = scene([(0, 0, 0, 10, 10)], [(0, 0.9, 0, 0, 10, 4)])
    errors = find_errors([right, near], 1, np.array([[1, 0], [0, 2]]))
    # Both: right at rank 2 of two truths. The first alone: all. The second twice: nothing.
    assert errors.ap50[0] == pytest.approx([51 / 2 / 101, 1, 0])
    assert errors.gained["place"][0] == pytest.approx([1 - 51 / 2 / 101, 0, 1])


def test_an_images_f1_counts_what_is_sure_enough() -> None:
    empty = scene([], [])
    wrong = scene([], [(0, 0.6, 0, 0, 1, 1)])
    scores = image_f1([EVERY_KIND, empty, wrong], 5, confidence=0.5)
    # Detections of at least 0.5: six, two right, of eight truths.
    assert scores == pytest.approx([2 * 2 / (6 + 8), 1, 0])


def test_no_detection_and_no_truth_at_all_are_borne() -> None:
    errors = find_errors([scene([], [])], 2, NONE)
    assert np.isnan(errors.ap50).all()
    assert all(np.isnan(gain).all() for gain in errors.gained.values())
