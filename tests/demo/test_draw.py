"""Pixels of what is drawn: in place, in the class's colour, and nothing else changed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from core.taxonomy import look
from core.types import Image
from demo.colours import ink_on, rgb
from demo.draw import Layers, fitted, overlay, sheet
from demo.masks import paint_mask
from demo.placement import place_tags
from tests.demo.inspections import (
    GREY,
    LABELS,
    classification,
    detection,
    picture,
    segmentation,
)

VERMILION = (213, 94, 0)  # scratches: #D55E00, a solid line
BOX = (20.0, 30.0, 60.0, 80.0)
SCRATCH = detection(("scratches", 0.93, BOX))
BOXES_ONLY = Layers(boxes=True, mask=False, names=False)
NAMES_ONLY = Layers(boxes=False, mask=False, names=True)


def test_a_small_picture_is_enlarged_by_a_whole_factor() -> None:
    # 800 // 100 = 8; a picture of 300 px doubles, one of 900 px stays.
    assert _drawn().shape == (800, 800, 3)
    assert fitted(picture(300, 200), 2000).shape == (400, 600, 3)
    assert fitted(picture(900, 200), 2000).shape == (200, 900, 3)


def test_a_large_picture_is_shrunk_to_the_side_it_is_shown_at() -> None:
    assert fitted(picture(3000, 1500), 1000).shape == (500, 1000, 3)


def test_a_strip_is_shown_in_rows_under_the_px_they_begin_at_and_handed_on_as_it_is() -> None:
    # 4000 / 100 = 40 times as long as wide: round(sqrt(40 / 1.3)) = 6 rows, each of
    # ceil(4000 / 6) = 667 px, the last one filled up.
    strip = picture(4000, 100)
    strip[:, 700:710] = 255  # in the second row, 700 - 667 = 33 px from its left edge
    shown = fitted(strip, 2000)
    band = shown.shape[0] // 6 - 100
    assert shown.shape == (6 * (band + 100), 667, 3)
    second = shown[band + 100 + band :][:100]
    assert (second[:, 33:43] == 255).all()
    assert (second[:, :33] == GREY).all()
    assert (second[:, 43:] == GREY).all()
    assert overlay(strip, detection(), labels=LABELS).shape == (100, 4000, 3)


def test_a_strip_that_stands_is_shown_in_columns() -> None:
    shown = fitted(picture(100, 4000), 2000)
    columns, gap = 6, shown.shape[1] // 6 - 100
    assert gap > 0
    assert shown.shape[1] == columns * (100 + gap)
    assert 667 < shown.shape[0] < 800


def test_the_frame_has_the_class_s_colour_and_its_outer_edge_on_the_box() -> None:
    drawn = _drawn(layers=BOXES_ONLY)
    # The box spans px 160 to 479 and 240 to 639 of the canvas; row 400 crosses both sides.
    assert tuple(drawn[400, 160]) == VERMILION
    assert tuple(drawn[400, 479]) == VERMILION
    assert tuple(drawn[240, 300]) == VERMILION
    assert tuple(drawn[639, 300]) == VERMILION


def test_of_two_frames_in_one_place_the_more_probable_one_lies_on_top() -> None:
    both = detection(("patches", 0.5, BOX), ("scratches", 0.93, BOX))
    drawn = _drawn(both, layers=BOXES_ONLY)
    # All along the left side, so that no gap of a dashed frame can let it through by chance.
    assert {tuple(pixel) for pixel in drawn[240:640, 160]} == {VERMILION}


def test_a_halo_sets_the_frame_off_on_both_sides() -> None:
    drawn = _drawn(layers=BOXES_ONLY)
    halo = ink_on(VERMILION)
    assert tuple(drawn[400, 159]) == halo  # outside, on the left
    assert tuple(drawn[400, 480]) == halo  # outside, on the right: the box ends at px 479
    assert tuple(drawn[400, 162]) == halo  # inside the line of 2 px


def test_inside_and_outside_of_a_frame_the_picture_is_untouched() -> None:
    drawn = _drawn(layers=BOXES_ONLY)
    assert (drawn[250:630, 170:470] == GREY).all()
    assert (drawn[:, 500:] == GREY).all()


def test_a_dashed_class_shows_its_halo_in_the_gaps() -> None:
    # Patches are dashed (2, 2), drawn at 1.5 px each: 3 on, 3 off.
    drawn = _drawn(detection(("patches", 0.9, BOX)), layers=BOXES_ONLY)
    top = {tuple(int(c) for c in pixel) for pixel in drawn[240, 160:480]}
    green = rgb("#009E73")
    assert top == {green, ink_on(green)}


def test_a_name_stands_outside_its_finding() -> None:
    drawn = _drawn(layers=NAMES_ONLY)
    assert (drawn[240:640, 160:480] == GREY).all()
    above = (drawn[200:240, 160:480] == VERMILION).all(axis=2)
    assert above.sum() > 500


def test_a_name_avoids_the_neighbouring_finding() -> None:
    # The second box lies right above the first one, so the first name cannot stand there.
    above = ("inclusion", 0.8, (20.0, 0.0, 60.0, 30.0))
    drawn = _drawn(detection(("scratches", 0.93, BOX), above), layers=NAMES_ONLY)
    assert (drawn[0:640, 160:480] == GREY).all()


def test_a_mask_is_tinted_by_45_percent() -> None:
    drawn = _drawn(segmentation(), layers=Layers(boxes=False, mask=True, names=False))
    inside = drawn[160 + 8 : 320 - 8, 80 + 8 : 400 - 8].reshape(-1, 3)
    # 120 + 0.45 × (213 − 120) = 161.85, 120 + 0.45 × (94 − 120) = 108.3, 120 − 0.45 × 120 = 66
    tint = np.array([162, 108, 66])
    assert (inside == tint).all(axis=1).mean() > 0.5  # the rest is hatched


def test_a_mask_has_a_crisp_outline_and_ends_there() -> None:
    drawn = _drawn(segmentation(), layers=Layers(boxes=False, mask=True, names=False))
    assert tuple(drawn[160, 200]) == VERMILION  # first row of the region, 20 × 8
    assert tuple(drawn[319, 200]) == VERMILION  # last one
    assert (drawn[:150] == GREY).all()


def test_a_region_that_the_threshold_leaves_out_of_the_list_is_not_painted() -> None:
    whole = segmentation()
    unlisted = whole.model_copy(update={"segments": ()})
    layers = Layers(boxes=False, mask=True, names=False)
    assert (_drawn(unlisted, layers=layers) == GREY).all()


def test_two_classes_of_a_mask_differ_by_their_hatch_alone() -> None:
    patterns = [_hatched(k) for k in (1, 2, 3)]
    for k in range(3):
        assert 0.05 < patterns[k].mean() < 0.6
        assert (patterns[k] != patterns[k - 1]).mean() > 0.05


def test_a_selected_finding_stands_out_from_a_dimmed_picture() -> None:
    drawn = _drawn(selected=1, layers=BOXES_ONLY)
    assert (drawn[300:600, 200:440] == GREY).all()
    assert (drawn[:200, :] == 54).all()  # 0.45 × 120


def test_a_selected_number_that_is_not_there_changes_nothing() -> None:
    assert (_drawn(selected=9) == _drawn()).all()


def test_nothing_found_leaves_a_grey_picture_grey() -> None:
    assert (_drawn(detection()) == GREY).all()


def test_without_layers_nothing_is_drawn() -> None:
    assert (_drawn(layers=Layers(boxes=False, mask=False, names=False)) == GREY).all()


@pytest.mark.parametrize(
    "inspection",
    [SCRATCH, segmentation(), classification(crazing=0.9, patches=0.1)],
    ids=["detect", "segment", "classify"],
)
def test_a_sheet_is_the_overlay_over_a_strip_on_white(inspection: object) -> None:
    page = sheet(picture(), inspection, labels=LABELS)  # type: ignore[arg-type]
    drawn = overlay(picture(), inspection, labels=LABELS)  # type: ignore[arg-type]
    assert (page[:800, :800] == drawn).all()
    assert (page[-3:] == 255).all()
    assert (page[800:] == 31).any()  # ink


def test_a_bar_is_as_long_as_its_class_is_probable() -> None:
    page = sheet(picture(), classification(crazing=1.0, patches=0.5), labels=LABELS)
    strip = page[800:]
    whole = (strip == rgb("#E69F00")).all(axis=2).any(axis=0).sum()
    half = (strip == rgb("#009E73")).all(axis=2).any(axis=0).sum()
    assert abs(2 * half - whole) <= 2


@pytest.mark.parametrize(("colour", "ink"), [("#F0E442", (0, 0, 0)), ("#661100", (255, 255, 255))])
def test_ink_contrasts_with_its_ground(colour: str, ink: tuple[int, int, int]) -> None:
    assert ink_on(rgb(colour)) == ink


def test_a_box_beyond_the_edge_of_a_tiny_picture_can_be_drawn() -> None:
    found = detection(("scratches", 0.9, (0, 0, 1, 1)), ("patches", 0.8, (0, 0, 3, 2)))
    assert overlay(picture(3, 2), found, labels=LABELS).shape == (532, 798, 3)


def test_a_name_without_room_beside_its_finding_is_its_number_in_a_corner() -> None:
    [tag] = place_tags([(0, 0, 100, 100)], [(60, 20)], [(10, 20)], (100, 100))
    assert tag.is_short
    assert (tag.x, tag.y) in {(0, 0), (0, 80), (90, 0), (90, 80)}


def test_a_name_slides_along_the_edge_until_it_is_on_the_picture() -> None:
    [tag] = place_tags([(80, 50, 95, 90)], [(60, 20)], [(10, 20)], (100, 100))
    assert (tag.x, tag.y, tag.is_short) == (40, 30, False)


def test_two_names_do_not_cover_each_other() -> None:
    same = (20.0, 40.0, 60.0, 60.0)
    first, second = place_tags([same, same], [(40, 20)] * 2, [(10, 20)] * 2, (100, 100))
    assert (first.x, first.y) == (20, 20)
    assert (second.x, second.y) == (20, 60)


def test_a_name_keeps_clear_of_a_box_that_has_none() -> None:
    # Above the finding there is a box without a name, so the name goes below.
    found, other = (20.0, 40.0, 60.0, 60.0), (20.0, 25.0, 60.0, 38.0)
    [tag] = place_tags([found], [(40, 20)], [(10, 20)], (100, 100), nameless=[other])
    assert (tag.x, tag.y) == (20, 60)


def test_the_thirty_names_of_a_crowded_picture_cover_no_finding() -> None:
    # 225 boxes of 20 px, 20 px apart: a number finds room between them, a whole name does not.
    # Every eighth of them is among the thirty that are named, its neighbours are not.
    corners = [(40 * (k % 15) + 20, 40 * (k // 15) + 20) for k in range(225)]
    found = [
        ("scratches", 0.95 if k % 8 == 0 else 0.9, (x, y, x + 20, y + 20))
        for k, (x, y) in enumerate(corners)
    ]
    drawn = overlay(picture(620, 620), detection(*found), labels=LABELS, layers=NAMES_ONLY)
    assert (drawn != GREY).any()
    assert all((drawn[y : y + 20, x : x + 20] == GREY).all() for x, y in corners)


def test_a_name_is_not_cut_where_a_strip_is_folded() -> None:
    # Rows of 100 px: the name of 60 px would begin at 80 and go on over the fold.
    [tag] = place_tags([(80, 50, 95, 90)], [(60, 20)], [(10, 20)], (300, 100), row_px=100)
    assert (tag.x, tag.y, tag.is_short) == (40, 30, False)
    # Most of a finding over the fold, 30 of 40 px, is on the second row: so is its name.
    [tag] = place_tags([(90, 50, 130, 90)], [(60, 20)], [(10, 20)], (300, 100), row_px=100)
    assert (tag.x, tag.y, tag.is_short) == (100, 30, False)


def test_a_name_is_not_cut_where_a_strip_that_stands_is_folded() -> None:
    # Above the finding, from 95 to 105, it would lie over the fold; below it, it does not.
    [tag] = place_tags([(10, 105, 70, 150)], [(60, 10)], [(10, 10)], (100, 300), row_px=100)
    assert (tag.x, tag.y, tag.is_short) == (10, 150, False)


def test_names_on_a_folded_strip_lie_whole_on_their_rows() -> None:
    # 4,000 px in 6 rows of 667: the name of a finding at 640 px would reach over the first fold.
    strip, found = picture(4000, 100), detection(("scratches", 0.9, (640, 40, 660, 60)))
    marked = np.argwhere((overlay(strip, found, labels=LABELS, layers=NAMES_ONLY) != GREY).any(2))
    assert marked[:, 1].max() >= 667  # handed on as it is, it reaches over it
    shown = overlay(strip, found, labels=LABELS, layers=NAMES_ONLY, max_side_px=2000)
    band = shown.shape[0] // 6 - 100
    second = shown[band + 100 + band :][:100]
    assert (second == GREY).all()


def test_a_note_is_a_line_more_under_the_picture() -> None:
    without = sheet(picture(), SCRATCH, labels=LABELS)
    noted = sheet(picture(), SCRATCH, labels=LABELS, note="LayerCAM: what raised the score")
    line = noted.shape[0] - without.shape[0]
    assert 0 < line < without.shape[0] - 800  # less than verdict, legend and provenance
    assert (noted[800 : 800 + line] == without[800 : 800 + line]).all()  # the verdict first


def _drawn(
    inspection: object = SCRATCH, *, layers: Layers | None = None, selected: int | None = None
) -> Image:
    chosen = Layers() if layers is None else layers
    return overlay(picture(), inspection, labels=LABELS, layers=chosen, selected=selected)  # type: ignore[arg-type]


def _hatched(k: int) -> NDArray[np.bool_]:
    """Where class k of LABELS is darker or lighter than its plain tint."""
    painted = paint_mask(picture(66, 66), np.full((66, 66), k, dtype=np.uint8), LABELS, pixel=1)
    tint = (GREY + 0.45 * (np.array(rgb(look(LABELS[k - 1]).colour)) - GREY)).round()
    hatched: NDArray[np.bool_] = (np.abs(painted - tint) > 1).any(axis=2)
    return hatched
