"""Where large pictures are cut, and that no seam is left: maps exact, boxes joined."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models._tiling import Blend, Pieces, Tiling, join, tile


def _pieces(*rows):
    """Rows of x1, y1, x2, y2, score, class, tile."""
    table = np.array(rows, np.float32).reshape(-1, 7)
    return Pieces(
        xyxy=table[:, :4],
        scores=table[:, 4],
        class_ids=table[:, 5].astype(np.int64),
        tiles=table[:, 6].astype(np.int64),
    )


# Two tiles of 100 px side by side, both seeing x 75..100 of a picture of 175 × 100 px.
PAIR = Tiling(width=175, height=100, tile_width=100, tile_height=100, xs=(0, 75), ys=(0,))
ROW = Tiling(width=250, height=100, tile_width=100, tile_height=100, xs=(0, 75, 150), ys=(0,))


@pytest.mark.parametrize(
    ("width", "height", "cut"),
    [
        (200, 200, False),
        (400, 400, False),
        (401, 30, True),
        (30, 401, True),
        (4096, 1024, True),
    ],
)
def test_a_picture_more_than_twice_as_long_as_the_trained_ones_is_cut(width, height, cut):
    assert (tile(width, height, native_px=200, image_size=320) is not None) is cut


def test_tiles_have_the_scale_of_training_and_overlap_by_a_quarter():
    tiling = tile(600, 150, native_px=200, image_size=320)
    # At 320 / 200 the picture is 960 × 240: 1 + ceil((960 - 320) / 240) = 4 columns, 1 row.
    assert (tiling.width, tiling.height) == (960, 240)
    assert (tiling.tile_width, tiling.tile_height) == (320, 240)
    assert tiling.xs == (0, 213, 427, 640)  # evenly spread, flush with both borders
    assert tiling.ys == (0,)
    assert tiling.corners[2] == (427, 0)


def test_a_side_that_is_one_tile_long_is_not_cut():
    assert tile(800, 200, native_px=200, image_size=320).ys == (0,)


def test_as_many_tiles_as_there_may_be_need_no_shrinking():
    four = tile(600, 150, native_px=200, image_size=320)
    assert tile(600, 150, native_px=200, image_size=320, most=4) == four
    assert len(tile(600, 150, native_px=200, image_size=320, most=3).corners) <= 3


def test_a_line_scan_frame_takes_as_many_tiles_as_the_rule_says():
    tiling = tile(4096, 1024, native_px=200, image_size=320)
    # 6554 × 1638 px: 1 + ceil(6234 / 240) = 27 columns, 1 + ceil(1318 / 240) = 7 rows.
    assert (len(tiling.xs), len(tiling.ys)) == (27, 7)


def test_a_huge_picture_is_shrunk_until_few_enough_tiles_cover_it():
    tiling = tile(20_000, 20_000, native_px=200, image_size=320)
    assert 200 < len(tiling.corners) <= 256
    assert tiling.width < 20_000


def _equivariant(picture):
    """A network that knows no place: 7 × 7 means of squares, zeros around; reaches 3 px."""
    return F.avg_pool2d(picture[None] ** 2, 7, stride=1, padding=3)[0]


@pytest.mark.parametrize(("width", "height"), [(233, 97), (161, 161), (500, 40)])
def test_the_blend_of_tiles_is_the_map_of_the_whole_picture(width, height):
    picture = torch.rand(2, height, width, generator=torch.Generator().manual_seed(3))
    tiling = tile(width, height, native_px=64, image_size=64)
    assert len(tiling.corners) > 1
    blend = Blend(tiling, 2)
    for number, (x, y) in enumerate(tiling.corners):
        part = picture[:, y : y + tiling.tile_height, x : x + tiling.tile_width]
        blend.add(number, _equivariant(part))
    # 16 px are shared, 4 on each side do not count: more than the 3 px that a border reaches.
    torch.testing.assert_close(blend.result(), _equivariant(picture), rtol=0, atol=2e-6)


def test_beside_a_cut_the_other_tile_alone_decides_and_the_middle_is_shared():
    tiling = Tiling(width=24, height=1, tile_width=16, tile_height=1, xs=(0, 8), ys=(0,))
    blend = Blend(tiling, 1)
    blend.add(0, torch.zeros(1, 1, 16))
    blend.add(1, torch.ones(1, 1, 16))
    # Shared is x 8..16; the 2 px next to each cut are blind; between, 4 px rise by quarters.
    expected = [0.0] * 10 + [0.125, 0.375, 0.625, 0.875] + [1.0] * 10
    assert blend.result()[0, 0].tolist() == pytest.approx(expected)


def test_a_defect_across_a_seam_is_one_box():
    # 30..100 in the left tile, 75..150 in the right one: both end at their tile's border.
    found = _pieces((30, 20, 100, 40, 0.9, 0, 0), (75, 22, 150, 41, 0.8, 0, 1))
    boxes, scores, ids = join(found, PAIR)
    assert boxes.tolist() == [[30, 20, 150, 41]]
    assert scores.tolist() == pytest.approx([0.9])
    assert ids.tolist() == [0]


def test_a_defect_through_three_tiles_is_one_box_with_the_best_score():
    found = _pieces(
        (50, 10, 100, 20, 0.5, 1, 0), (75, 10, 175, 20, 0.6, 1, 1), (150, 10, 210, 22, 0.4, 1, 2)
    )
    boxes, scores, _ = join(found, ROW)
    assert boxes.tolist() == [[50, 10, 210, 22]]
    assert scores.tolist() == pytest.approx([0.6])


def test_a_tile_that_saw_the_whole_defect_knows_where_it_ends():
    # The left tile sees 70..95 whole; the right one sees its part 75..96, cut at 75, and surer.
    found = _pieces((70, 30, 95, 50, 0.6, 0, 0), (75, 29, 96, 52, 0.9, 0, 1))
    boxes, scores, _ = join(found, PAIR)
    assert boxes.tolist() == [[70, 30, 95, 50]]
    assert scores.tolist() == pytest.approx([0.9])


def test_a_defect_that_the_middle_tile_saw_whole_is_one_box_however_sure_a_piece_of_it_is():
    # The left tile cuts it at 100 and is surest; the right one cuts it at 150.
    found = _pieces(
        (81, 10, 100, 20, 0.9, 0, 0), (80, 10, 160, 20, 0.8, 0, 1), (150, 10, 161, 20, 0.7, 0, 2)
    )
    boxes, scores, _ = join(found, ROW)
    assert boxes.tolist() == [[80, 10, 160, 20]]
    assert scores.tolist() == pytest.approx([0.9])


def test_what_one_tile_saw_whole_does_not_go_on_in_a_third():
    # 70..95 is whole; the middle tile takes it for the beginning of something longer.
    found = _pieces(
        (70, 30, 95, 50, 0.9, 0, 0), (75, 30, 170, 50, 0.8, 0, 1), (150, 30, 170, 50, 0.7, 0, 2)
    )
    assert join(found, ROW)[0].tolist() == [[70, 30, 95, 50], [150, 30, 170, 50]]


def test_the_pictures_own_border_cuts_nothing():
    # 0..95 begins at the picture's border, not at a seam: the left tile saw the whole of it.
    found = _pieces((0, 0, 95, 100, 0.6, 0, 0), (75, 0, 96, 100, 0.9, 0, 1))
    assert join(found, PAIR)[0].tolist() == [[0, 0, 95, 100]]


@pytest.mark.parametrize(
    ("end", "joined"), [(98, [30, 20, 150, 40]), (97.5, [30, 20, 97.5, 40])], ids=["cut", "whole"]
)
def test_a_box_that_ends_within_a_fiftieth_of_a_tile_from_the_seam_may_go_on(end, joined):
    found = _pieces((30, 20, end, 40, 0.9, 0, 0), (75, 20, 150, 40, 0.8, 0, 1))
    assert join(found, PAIR)[0].tolist() == [joined]


@pytest.mark.parametrize(("bottom", "boxes"), [(58, 1), (61, 2)], ids=["20 / 38", "20 / 41"])
def test_two_tiles_agree_from_half_of_what_both_have_marked(bottom, boxes):
    found = _pieces((30, 20, 100, 40, 0.9, 0, 0), (75, 20, 150, bottom, 0.8, 0, 1))
    assert len(join(found, PAIR)[0]) == boxes


def test_a_piece_scored_half_as_high_is_still_a_piece():
    found = _pieces((30, 20, 100, 40, 0.8, 0, 0), (75, 20, 150, 40, 0.4, 0, 1))
    assert join(found, PAIR)[0].tolist() == [[30, 20, 150, 40]]


def test_two_defects_that_only_meet_at_the_seam_stay_two():
    # In the strip 75..100 they are 20..40 and 60..80 high: nothing in common.
    found = _pieces((30, 20, 100, 40, 0.9, 0, 0), (75, 60, 150, 80, 0.8, 0, 1))
    assert len(join(found, PAIR)[0]) == 2


def test_boxes_of_two_classes_or_of_one_tile_are_never_joined():
    classes = _pieces((30, 20, 100, 40, 0.9, 0, 0), (75, 20, 150, 40, 0.8, 1, 1))
    assert len(join(classes, PAIR)[0]) == 2
    one_tile = _pieces((30, 20, 100, 40, 0.9, 0, 0), (75, 20, 100, 40, 0.8, 0, 0))
    assert len(join(one_tile, PAIR)[0]) == 2


def test_a_faint_piece_belongs_to_a_sure_one_and_does_not_stretch_it():
    # 0.4 is less than half of 0.9: gone, but the sure box keeps its own end.
    found = _pieces((30, 20, 100, 40, 0.9, 0, 0), (75, 20, 175, 40, 0.4, 0, 1))
    boxes, scores, _ = join(found, PAIR)
    assert boxes.tolist() == [[30, 20, 100, 40]]
    assert scores.tolist() == pytest.approx([0.9])


def test_nothing_found_is_nothing_joined():
    boxes, scores, ids = join(_pieces(), PAIR)
    assert boxes.shape == (0, 4)
    assert (len(scores), len(ids)) == (0, 0)
