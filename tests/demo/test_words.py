"""What a person reads: the verdict in one line, numbers with two digits, places in words."""

from __future__ import annotations

import pytest

from core.records import Box, Inspection
from demo.words import (
    duration,
    findings,
    headline,
    labels_found,
    number,
    place,
    rows_of,
    short,
    summarise,
)
from tests.demo.inspections import classification, detection, segmentation, tolerated

TWO_SCRATCHES = detection(
    ("scratches", 0.6, (0, 0, 10, 10)),
    ("scratches", 0.93, (20, 0, 30, 90)),
    ("inclusion", 0.7, (50, 50, 60, 60)),
)


def test_the_headline_counts_the_places_of_the_most_probable_class() -> None:
    line = headline(TWO_SCRATCHES)
    assert line.text == "Scratches, 0.93 probable · 2 places"
    assert line.detail == "Also Inclusion, 0.70 probable · 1 place."


@pytest.mark.parametrize(
    ("chances", "text"),
    [
        pytest.param(
            [0.94, 0.5, 0.28, 0.28], "0.94 probable · 2 places, 2 more in doubt", id="few"
        ),
        pytest.param([0.94, 0.49, 0.3], "0.94 probable · 1 place, 2 more in doubt", id="the best"),
        pytest.param([0.94, 0.25, 0.24], "0.94 probable · 1 place, 1 more in doubt", id="faint"),
        pytest.param([0.94, 0.09], "0.94 probable · 1 place", id="one faint"),
        pytest.param([0.2, 0.09], "0.20 probable · 2 places, all in doubt", id="nothing else"),
        pytest.param([0.43, 0.3], "0.43 probable · 2 places, all in doubt", id="none"),
    ],
)
def test_improbable_places_are_told_apart(chances: list[float], text: str) -> None:
    seen = detection(*(("inclusion", p, (0, 0, 10, 10)) for p in chances))
    assert headline(seen).text == f"Inclusion, {text}"


def test_nothing_found_is_said_in_two_words() -> None:
    assert headline(detection(verdict="accept")).text == "Nothing found"


def test_what_may_stay_is_told_and_is_not_called_nothing() -> None:
    line = headline(tolerated(TWO_SCRATCHES, 0, 1, 2))
    assert line.text == "Within tolerance"
    assert line.detail == (
        "Scratches, 0.93 probable · 2 places; Inclusion, 0.70 probable · 1 place."
    )
    line = headline(tolerated(TWO_SCRATCHES, 0, verdict="defect"))
    assert line.text == "Scratches, 0.93 probable · 2 places"
    assert line.detail == "Also Inclusion, 0.70 probable · 1 place. 1 place within tolerance."


def test_an_unsure_model_calls_for_a_person_and_says_what_it_leans_to() -> None:
    line = headline(detection(("patches", 0.43, (0, 0, 10, 10)), verdict="review"))
    assert line.text == "Not sure: a person should look"
    assert line.detail == "Most likely Patches, 0.43 probable · 1 place."


def test_a_classifier_names_its_best_class() -> None:
    seen = classification(crazing=0.03, patches=0.97)
    assert summarise(seen) == ("Patches, 0.97 probable",)


def test_findings_are_numbered_from_the_most_probable_one() -> None:
    rows = [(row.number, row.label, row.probability) for row in findings(TWO_SCRATCHES)]
    assert rows == [(1, "scratches", 0.93), (2, "inclusion", 0.7), (3, "scratches", 0.6)]


def test_a_region_of_a_mask_is_a_finding_with_an_area() -> None:
    [row] = findings(segmentation())
    assert (row.label, row.area_px, row.box) == ("scratches", 800, (10, 20, 50, 40))


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        pytest.param(0.934, "0.93", id="two digits"),
        pytest.param(0.9, "0.90", id="both are written"),
        pytest.param(0.0432, "0.043", id="small"),
        pytest.param(0.996, "> 0.99", id="never a certain 1"),
        pytest.param(0.004, "< 0.01", id="never an impossible 0"),
    ],
)
def test_probabilities_have_two_significant_digits(fraction: float, text: str) -> None:
    assert number(fraction) == text


@pytest.mark.parametrize(
    ("box", "text"),
    [
        pytest.param((0, 0, 10, 10), "upper left", id="corner"),
        pytest.param((40, 40, 60, 60), "centre", id="middle"),
        pytest.param((45, 80, 55, 100), "lower", id="bottom"),
        pytest.param((90, 40, 100, 60), "right", id="edge"),
        pytest.param((5, 5, 95, 95), "whole image", id="nearly all"),
        # middle at x = 100: the last column, not a fourth one
        pytest.param((100, 0, 100, 10), "upper right", id="on the border"),
    ],
)
def test_a_place_is_one_of_nine_fields(box: Box, text: str) -> None:
    assert place(box, 100, 100) == text


def test_a_place_on_a_strip_is_told_in_px_from_its_beginning() -> None:
    assert place((5000.0, 0.0, 5240.0, 80.0), 12_000, 200) == "at 5,120 px"
    assert place((0.0, 900.0, 80.0, 1100.0), 200, 12_000) == "at 1,000 px"


@pytest.mark.parametrize(
    ("size", "rows"),
    [
        pytest.param((200, 200), 1, id="square"),
        pytest.param((4096, 1024), 1, id="four to one"),
        pytest.param((1000, 200), 2, id="five to one"),
        # sqrt(60 / 1.3) = 6.8
        pytest.param((12_000, 200), 7, id="strip"),
        pytest.param((200, 12_000), 7, id="strip that stands"),
    ],
)
def test_only_a_strip_is_shown_in_rows(size: tuple[int, int], rows: int) -> None:
    assert rows_of(*size) == rows


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (4.26, "4.3 ms"),
        (9.97, "10 ms"),
        (23.1, "23 ms"),
        (287.0, "290 ms"),
        (997.0, "1.0 s"),
        (1400.0, "1.4 s"),
        (72_000.0, "72 s"),
        (123_000.0, "120 s"),
    ],
)
def test_durations_have_two_digits_and_the_unit_that_suits(milliseconds: float, text: str) -> None:
    assert duration(milliseconds) == text


def test_a_model_s_short_title_leaves_out_what_it_is_made_of() -> None:
    assert short("GRACE (YOLO11s + Lite-FEN)") == "GRACE"


def test_the_legend_names_each_class_once_and_a_classifier_s_best_only() -> None:
    seen: list[Inspection] = [TWO_SCRATCHES, classification(crazing=0.9, patches=0.1)]
    assert labels_found(seen) == ("scratches", "inclusion", "crazing")
