"""Boxes, masks and letterboxes: worked by hand, and against pycocotools."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco

from core import geometry
from core.errors import InputError
from core.geometry import Letterbox, encode_rle, is_anywhere
from core.records import MaskRLE

sides = st.integers(min_value=1, max_value=3000)
fractions = st.floats(min_value=0, max_value=1, width=32)


@st.composite
def images_with_box(draw):
    width, height = draw(sides), draw(sides)
    xs = sorted(draw(fractions) * width for _ in range(2))
    ys = sorted(draw(fractions) * height for _ in range(2))
    return width, height, [[xs[0], ys[0], xs[1], ys[1]]]


# --- letterbox ---------------------------------------------------------------------------------


def test_letterbox_centres_a_wide_image_between_grey_bars():
    # 400 x 200 into 640: scale 1.6, 640 x 320, (640 - 320) / 2 = 160 px above and below.
    square, way = geometry.letterbox(np.full((200, 400, 3), 7, np.uint8), 640)
    assert way == Letterbox(scale=1.6, left=0, top=160)
    assert (square.shape, square.dtype) == ((640, 640, 3), np.uint8)
    assert (square[:160] == 114).all()
    assert (square[160:480] == 7).all()
    assert (square[480:] == 114).all()


def test_letterbox_keeps_the_colours_of_a_tall_image_between_grey_bars():
    # 200 x 400 into 640: scale 1.6, 320 x 640, (640 - 320) / 2 = 160 px to the left and right.
    image = np.full((400, 200, 3), (10, 20, 30), np.uint8)
    square, way = geometry.letterbox(image, 640)
    assert way == Letterbox(scale=1.6, left=160, top=0)
    assert (square[:, 160:480] == (10, 20, 30)).all()
    assert (square[:, :160] == 114).all()
    assert (square[:, 480:] == 114).all()


def test_letterbox_puts_an_odd_pixel_of_padding_to_the_right_and_the_bottom():
    # 3 x 4 into 8: scale 2, 6 x 8; into 9: scale 2.25, round(6.75) = 7 x 9, 2 px = 1 + 1;
    # 5 x 6 into 6: 5 x 6, 1 px: round(0.5 - 0.1) = 0 on the left, the pixel goes to the right.
    image = np.zeros((6, 5, 3), np.uint8)
    square, way = geometry.letterbox(image, 6)
    assert (way.left, way.top) == (0, 0)
    assert (square[:, :5] == 0).all()
    assert (square[:, 5] == 114).all()
    assert geometry.letterbox(np.zeros((4, 3, 3), np.uint8), 9)[1] == Letterbox(2.25, 1, 0)
    square, way = geometry.letterbox(image.transpose(1, 0, 2), 6)
    assert (way.left, way.top) == (0, 0)
    assert (square[5] == 114).all()


@pytest.mark.parametrize("shape", [(1, 3000), (3000, 1)], ids=["wide", "tall"])
def test_letterbox_keeps_at_least_one_pixel_of_a_thin_image(shape):
    square, _ = geometry.letterbox(np.zeros((*shape, 3), np.uint8), 64)
    assert (square == 0).all(axis=2).sum() == 64


def test_letterbox_of_a_fitting_image_is_the_image_itself():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    square, way = geometry.letterbox(image, 64)
    assert square is image
    assert way == Letterbox(1.0, 0, 0)


def test_letterbox_interpolates_bilinearly():
    # Two columns, 0 and 200, doubled: sample centres at -0.25, 0.25, 0.75, 1.25 of the source,
    # so 0, 0.25 * 200 = 50, 0.75 * 200 = 150, 200.
    image = np.zeros((2, 2, 3), np.uint8)
    image[:, 1] = 200
    square, _ = geometry.letterbox(image, 4)
    assert square[0, :, 0].tolist() == [0, 50, 150, 200]
    assert square.dtype == np.uint8


def test_box_of_the_square_comes_back_to_source_pixels():
    # 400 x 200 into 640: scale 1.6 and 160 px above; 161 / 1.6 = 100.625, (240 - 160) / 1.6 = 50.
    way = Letterbox(scale=1.6, left=0, top=160)
    source = way.to_source([[161, 240, 320, 400]], 400, 200)
    np.testing.assert_allclose(source, [[100.625, 50, 200, 150]])
    assert source.dtype == np.float32


def test_box_in_the_padding_is_clipped_to_the_image():
    way = Letterbox(scale=1.6, left=0, top=160)
    source = way.to_source([[-10, 0, 650, 640]], 400, 200)
    np.testing.assert_allclose(source, [[0, 0, 400, 200]])


@given(images_with_box(), st.integers(min_value=32, max_value=1280))
@settings(max_examples=100)
def test_source_to_square_and_back_is_the_same_box(image, size):
    width, height, box = image
    scale = min(size / width, size / height)
    new_width, new_height = max(round(width * scale), 1), max(round(height * scale), 1)
    left, top = round((size - new_width) / 2 - 0.1), round((size - new_height) / 2 - 0.1)
    gain = np.array([new_width / width, new_height / height] * 2)
    in_square = np.array(box) * gain + np.array([left, top, left, top])
    back = Letterbox(scale, left, top).to_source(in_square, width, height)
    np.testing.assert_allclose(back, box, atol=1e-3)


def test_no_boxes_stay_no_boxes():
    none = np.zeros((0, 4), np.float32)
    assert Letterbox(1.0, 0, 0).to_source(none, 10, 10).shape == (0, 4)
    assert geometry.xyxy_to_percent([], 10, 10).shape == (0, 4)
    assert geometry.box_iou(none, [[0, 0, 1, 1]]).shape == (0, 1)


# --- coordinates -------------------------------------------------------------------------------


def test_percent_is_corner_and_size_in_hundredths():
    # (20, 30) to (60, 90) of 200 x 300: x 10 %, y 10 %, 40 / 200 = 20 %, 60 / 300 = 20 %.
    percent = geometry.xyxy_to_percent([[20, 30, 60, 90]], 200, 300)
    np.testing.assert_allclose(percent, [[10, 10, 20, 20]])


@given(images_with_box())
@settings(max_examples=100)
def test_pixels_to_percent_and_back_are_the_same(image):
    width, height, box = image
    percent = geometry.xyxy_to_percent(box, width, height)
    np.testing.assert_allclose(geometry.percent_to_xyxy(percent, width, height), box, atol=1e-8)


def test_clipping_leaves_its_input_alone():
    boxes = np.array([[-5, -5, 50, 60]], np.float32)
    np.testing.assert_array_equal(geometry.clip_boxes(boxes, 40, 30), [[0, 0, 40, 30]])
    assert boxes[0, 0] == -5


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        pytest.param([0, 0, 10, 10], [0, 0, 10, 10], 1.0, id="the same"),
        pytest.param([0, 0, 10, 10], [5, 0, 15, 10], 50 / 150, id="half shifted"),
        pytest.param([0, 0, 10, 10], [10, 0, 20, 10], 0.0, id="touching"),
        pytest.param([0, 0, 10, 10], [20, 20, 30, 30], 0.0, id="apart on both axes"),
        pytest.param([3, 3, 3, 3], [3, 3, 3, 3], 0.0, id="without area"),
        pytest.param([3, 3, 3, 5], [0, 0, 10, 10], 0.0, id="a line on a box"),
        pytest.param([0, 0, 0.5, 1], [0, 0, 0.5, 1], 1.0, id="the same, of half a pixel"),
        pytest.param([0, 0, 0.5, 1], [0, 0, 1, 1], 0.5, id="half a pixel of one"),
    ],
)
def test_iou_of_two_boxes(a, b, expected):
    assert geometry.box_iou([a], [b])[0, 0] == pytest.approx(expected)


def test_iou_compares_every_box_with_every_other():
    a = [[0, 0, 10, 10], [5, 0, 15, 10]]
    b = [[0, 0, 10, 10], [5, 0, 15, 10], [0, 0, 5, 10]]
    expected = [[1, 1 / 3, 1 / 2], [1 / 3, 1, 0]]
    np.testing.assert_allclose(geometry.box_iou(a, b), expected, rtol=1e-6)


# --- run lengths -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "counts"),
    [
        # Columns top to bottom: 0 1 | 1 0 -> outside 1, inside 2, outside 1.
        pytest.param([[0, 1], [1, 0]], "121", id="two by two"),
        pytest.param([[1, 1], [1, 1]], "04", id="full: no pixel outside first"),
        pytest.param([[0, 0], [0, 0]], "4", id="empty"),
        # 40 = 8 + 1 * 32: "8 and more" = 48 + 32 + 8 = "X", then 48 + 1 = "1".
        pytest.param([[0] * 40], "X1", id="two characters"),
        # Runs 1 5 1 1: the fourth is written as 1 - 5 = -4 -> 28 = 0b11100 -> 48 + 28 = "L".
        pytest.param([[0, 1, 1, 1, 1, 1, 0, 1]], "151L", id="negative difference"),
    ],
)
def test_run_lengths_worked_by_hand(rows, counts):
    mask = np.array(rows, dtype=bool)
    assert geometry.encode_rle(mask) == counts
    np.testing.assert_array_equal(geometry.decode_rle(counts, mask.shape), mask)


def test_anything_but_0_is_inside_and_a_mask_may_have_no_pixel():
    # Columns top to bottom: 0 3 | 2 0 -> outside 1, inside 2, outside 1.
    assert geometry.encode_rle(np.array([[0, 2], [3, 0]])) == "121"  # type: ignore[arg-type]
    assert geometry.encode_rle(np.zeros((0, 3), bool)) == "0"
    assert geometry.decode_rle("0", (0, 3)).shape == (0, 3)


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40)))
@settings(max_examples=200)
def test_run_lengths_equal_pycocotools_byte_for_byte(mask):
    counts = geometry.encode_rle(mask)
    assert counts.encode() == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    np.testing.assert_array_equal(geometry.decode_rle(counts, mask.shape), mask)


def test_long_runs_equal_pycocotools():
    # Runs of a hundred thousand and of one beside each other need every character count.
    mask = np.zeros((700, 900), bool)
    mask[:, 200:500] = True
    mask[::7, 600:] = True
    mask[350, 350] = False
    counts = geometry.encode_rle(mask)
    assert counts.encode() == coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    np.testing.assert_array_equal(geometry.decode_rle(counts, mask.shape), mask)


def test_a_large_mask_is_coded_quickly():
    mask = np.zeros((2000, 2000), bool)
    mask[100:1900, 50:1800] = True
    start = time.thread_time()  # not the clock on the wall: others may be at work, too
    geometry.decode_rle(geometry.encode_rle(mask), mask.shape)
    assert time.thread_time() - start < 1.0  # 15 ms where it was written


@pytest.mark.parametrize(
    "counts",
    [
        pytest.param("", id="nothing"),
        pytest.param("123", id="too many pixels"),
        pytest.param("1", id="too few pixels"),
        pytest.param("1T", id="ends in the middle of a number"),
        pytest.param("2 2", id="a blank"),
        pytest.param("2é", id="not ASCII"),
        # Without a look at each character "p", 64 beyond "0", and "\x14", 28 before it, would be
        # read as the 0 and the 4 that lie in their five bits.
        pytest.param("p4", id="beyond the last character"),
        pytest.param("\x140", id="before the first character"),
        pytest.param("o" * 30 + "0", id="a number without end"),
        pytest.param("0TPPPPPP0", id="a 4 of eight characters"),
        pytest.param("08L", id="adds up by a negative run"),
    ],
)
def test_what_is_not_run_lengths_is_refused(counts):
    with pytest.raises(InputError, match=r"[Rr]un lengths"):
        geometry.decode_rle(counts, (2, 2))


@given(st.text(alphabet=[chr(c) for c in range(40, 120)], max_size=30))
@settings(max_examples=200)
def test_any_text_is_a_mask_or_an_input_error(text):
    with contextlib.suppress(InputError):
        assert geometry.decode_rle(text, (5, 4)).shape == (5, 4)


def test_class_map_goes_into_a_record_and_back():
    class_map = np.array([[0, 1, 1], [3, 0, 1]], np.uint8)
    record = geometry.mask_record(class_map, 3)
    # Columns: 0 3 | 1 0 | 1 1. Class 1: out 2, in 1, out 1, in 2 (2 - 1 = 1) -> "2111".
    assert record == MaskRLE(size=(2, 3), counts=("2111", "6", "114"))
    back = geometry.class_map_from_record(record)
    np.testing.assert_array_equal(back, class_map)
    assert back.dtype == np.uint8


def test_a_class_without_label_is_refused():
    with pytest.raises(InputError, match=r"class 4 but there are 3 labels"):
        geometry.mask_record(np.array([[4]], np.uint8), 3)
    with pytest.raises(InputError, match=r"class 4 but there are 3 labels"):
        geometry.regions(np.array([[4]], np.uint8), np.ones((1, 1), np.float32), ("a", "b", "c"))


# --- regions -----------------------------------------------------------------------------------


def test_regions_have_area_edges_and_mean_score():
    class_map = np.array([[1, 1, 0, 0], [0, 1, 0, 2], [0, 0, 0, 2]], np.uint8)
    scores = np.array(
        [[0.5, 0.7, 0.1, 0.1], [0.1, 0.9, 0.1, 0.25], [0.1, 0.1, 0.1, 0.75]], np.float32
    )
    first, second = geometry.regions(class_map, scores, ("inclusion", "patches"))
    assert (first.label, first.area_px, first.box) == ("inclusion", 3, (0, 0, 2, 2))
    assert first.score == pytest.approx((0.5 + 0.7 + 0.9) / 3)
    assert (second.label, second.area_px, second.box) == ("patches", 2, (3, 1, 4, 3))
    assert second.score == pytest.approx(0.5)


@pytest.mark.parametrize(("score", "expected"), [(1.0000001, 1.0), (-1e-9, 0.0)])
def test_a_mean_score_that_rounding_took_out_of_bounds_lies_within(score, expected):
    (region,) = geometry.regions(
        np.ones((2, 2), np.uint8), np.full((2, 2), score, np.float32), ("a",)
    )
    assert region.score == expected


def test_pixels_that_touch_at_a_corner_are_one_region():
    class_map = np.eye(4, dtype=np.uint8)
    assert len(geometry.regions(class_map, np.ones((4, 4), np.float32), ("a",))) == 1


def test_neighbours_of_different_classes_are_two_regions_largest_first():
    class_map = np.array([[1, 2, 2]], np.uint8)
    found = geometry.regions(class_map, np.ones((1, 3), np.float32), ("a", "b"))
    assert [region.label for region in found] == ["b", "a"]


def test_background_is_no_region():
    blank = np.zeros((5, 5), np.uint8)
    assert geometry.regions(blank, np.ones((5, 5), np.float32), ("a",)) == []


def test_a_grey_image_is_fitted_as_its_three_equal_channels_would_be():
    rng = np.random.default_rng(0)
    grey = np.repeat(rng.integers(0, 256, (30, 50, 1), dtype=np.uint8), 3, axis=2)
    for size in (64, 50, 20):
        one, frame = geometry.letterbox(grey, size, is_grey=True)
        three, other_frame = geometry.letterbox(grey, size)
        np.testing.assert_array_equal(one, three)
        assert frame == other_frame


@pytest.mark.parametrize(
    ("inside", "expected"),
    [((), False), ((0,), True), ((5,), True), (range(1, 6), True), (range(6), True)],
    ids=["nowhere", "the first pixel", "the last one", "all but the first", "everywhere"],
)
def test_whether_a_mask_is_anywhere_is_read_from_its_run_lengths(inside, expected):
    mask = np.zeros(6, dtype=bool)
    mask[list(inside)] = True
    assert is_anywhere(encode_rle(mask.reshape(2, 3))) is expected


def test_a_mask_whose_run_inside_is_empty_is_nowhere_until_a_later_one():
    assert is_anywhere("600") is False  # 6 pixels outside, none inside, none outside
    assert is_anywhere("202") is False  # 2 outside, 0 inside, 2 more outside
    assert is_anywhere("2021") is True  # … and 0 + 1 inside
    assert is_anywhere("") is False


def test_areas_of_boxes_and_what_each_pair_has_in_common():
    first = [[0, 0, 10, 10], [5, 5, 5, 9]]  # the second has no width
    second = [[6, 8, 20, 9], [10, 0, 12, 10], [8, 2, 4, 6]]  # the last one's corners are crossed
    assert geometry.box_areas(first).tolist() == [100, 0]
    assert geometry.box_areas(second).tolist() == [14, 20, 0]
    assert geometry.common_areas(first, second).tolist() == [[4, 0, 0], [0, 0, 0]]
    assert geometry.common_areas([], second).shape == (0, 3)


def test_regions_that_touch_at_a_corner_have_one_number():
    mask = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    assert geometry.numbered_regions(mask).tolist() == [[1, 0, 0, 2], [0, 1, 0, 0], [0, 0, 0, 3]]
