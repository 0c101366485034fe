"""The guarded decoder: every mode and format, every refusal, and a few hundred damaged files."""

from __future__ import annotations

import hashlib
import os
import resource
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from core.errors import InputError
from core.images import ImageLimits, decode
from tests.core.bad_images import (
    GREY,
    LOSSLESS,
    NO_IMAGES,
    RGB,
    bomb,
    cut_off,
    damaged,
    encoded,
    huge_tiles,
    png_header,
    see_through_png,
    seeds,
    several_pictures,
    tiff,
)

# --- formats and modes -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LOSSLESS)
def test_colour_picture_comes_out_as_it_went_in(kind):
    data = encoded(Image.fromarray(RGB), kind)
    image = decode(data)
    np.testing.assert_array_equal(image.pixels, RGB)
    assert image.sha256 == hashlib.sha256(data).hexdigest()
    assert (image.width, image.height, image.is_grey) == (7, 9, False)
    assert image.pixels.flags.writeable
    assert image.pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_grey_picture_has_three_equal_channels(kind):
    image = decode(encoded(Image.fromarray(GREY), kind))
    np.testing.assert_array_equal(image.pixels, np.stack([GREY] * 3, axis=2))
    assert image.is_grey


def test_jpeg_is_decoded_at_full_resolution():
    flat = Image.new("RGB", (400, 300), (200, 60, 20))
    image = decode(encoded(flat, "JPEG", quality=95))
    assert image.pixels.shape == (300, 400, 3)
    np.testing.assert_allclose(image.pixels[150, 200], (200, 60, 20), atol=3)


def test_colour_file_with_equal_channels_is_grey():
    assert decode(encoded(Image.fromarray(GREY).convert("RGB"), "PNG")).is_grey


def test_one_coloured_pixel_at_the_end_of_a_large_picture_is_seen():
    pixels = np.full((1100, 1000, 3), 9, np.uint8)  # more than one block of rows
    pixels[-1, -1, 2] = 10
    image = decode(encoded(Image.fromarray(pixels), "PNG", compress_level=1))
    assert not image.is_grey
    np.testing.assert_array_equal(image.pixels, pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_one_bit_is_black_and_white(kind):
    bits = Image.fromarray(GREY > 127)
    image = decode(encoded(bits, kind))
    np.testing.assert_array_equal(image.pixels[..., 0], np.where(GREY > 127, 255, 0))
    assert image.is_grey


def test_palette_is_looked_up():
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 40, 50, 60])
    picture.putpixel((1, 0), 1)
    image = decode(encoded(picture, "PNG"))
    assert image.pixels.tolist() == [[[10, 20, 30], [40, 50, 60]]]


def test_transparency_lies_over_white():
    # 100 at alpha 0 is white; at 255 itself; at 51 = 1/5: 0.2 * 100 + 0.8 * 255 = 224.
    picture = Image.new("RGBA", (3, 1), (100, 100, 100, 255))
    picture.putpixel((0, 0), (100, 100, 100, 0))
    picture.putpixel((2, 0), (100, 100, 100, 51))
    assert decode(encoded(picture, "PNG")).pixels[0, :, 0].tolist() == [255, 100, 224]
    grey = picture.convert("LA")
    image = decode(encoded(grey, "PNG"))
    assert image.pixels[0, :, 1].tolist() == [255, 100, 224]
    assert image.is_grey


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_see_through_colour_of_a_png_is_white(mode):
    picture = Image.new(mode, (2, 1), 0)
    picture.putpixel((1, 0), 1 if mode == "P" else (7, 7, 7) if mode == "RGB" else 7)
    if mode == "P":
        picture.putpalette([0, 0, 0, 7, 7, 7])
    key = (0, 0, 0) if mode == "RGB" else 0
    image = decode(encoded(picture, "PNG", transparency=key))
    assert image.pixels[0, :, 0].tolist() == [255, 7]


def test_see_through_grey_of_a_16_bit_png_is_white_and_its_neighbour_is_not():
    data = see_through_png(0x1234, 0x1235, 0x8000, key=(0x1234,))
    assert decode(data).pixels[0, :, 0].tolist() == [255, 0x12, 0x80]


def test_see_through_colour_of_a_16_bit_png_is_white():
    # The second pixel differs in a high byte; the third's high bytes are the colour's low ones.
    colours = ((0x1234, 0x5678, 0x9ABC), (0x1334, 0x5678, 0x9ABC), (0x3400, 0x7800, 0xBC00))
    data = see_through_png(*colours[0], *colours[1], *colours[2], key=colours[0])
    assert decode(data).pixels[0].tolist() == [
        [255, 255, 255],
        [0x13, 0x56, 0x9A],
        [0x34, 0x78, 0xBC],
    ]


def test_see_through_grey_of_few_bits_is_white():
    # 5 of 15 is 85 of 255, 1 of 3 too; 4 of 15 is 68.
    assert decode(see_through_png(5, 4, key=(5,), bits=4)).pixels[0, :, 0].tolist() == [255, 68]
    few = see_through_png(1, 2, 0, 3, key=(1,), bits=2)
    assert decode(few).pixels[0, :, 0].tolist() == [255, 170, 0, 255]


def test_cmyk_becomes_rgb():
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    for kind in ("JPEG", "TIFF"):
        pixels = decode(encoded(cyan, kind)).pixels
        np.testing.assert_allclose(pixels[8, 8], (0, 255, 255), atol=3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_high_byte(kind):
    # 0x00FF = 255 -> 0, 0x0100 -> 1, 0x8000 -> 128, 0xFFFF -> 255.
    samples = np.array([[0x00FF, 0x0100, 0x8000, 0xFFFF]], np.uint16)
    image = decode(encoded(Image.fromarray(samples), kind))
    assert image.pixels[0, :, 0].tolist() == [0, 1, 128, 255]
    assert image.is_grey


def test_twelve_bit_tiff_uses_its_own_range():
    # Two samples in three bytes: 0x800 and 0xFFF; the upper eight bits are 0x80 and 0xFF.
    data = tiff({256: 2, 257: 1, 258: 12, 273: 8, 278: 1, 279: 3}, b"\x80\x0f\xff")
    assert decode(data).pixels[0, :, 0].tolist() == [0x80, 0xFF]


def test_sixteen_bit_tiff_in_which_zero_is_white_is_inverted():
    samples = np.array([[0x0000, 0xFFFF]], np.uint16)
    data = encoded(Image.fromarray(samples), "TIFF", tiffinfo={262: 0})
    assert decode(data).pixels[0, :, 0].tolist() == [255, 0]


@pytest.mark.parametrize("dtype", [np.int32, np.float32], ids=["integer", "float"])
def test_thirty_two_bit_samples_are_refused(dtype):
    with pytest.raises(InputError, match="8 or 16 bits"):
        decode(encoded(Image.fromarray(np.ones((3, 3), dtype)), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied_once(kind, orientation):
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32], upright[:16, 32:], upright[16:, :32] = 250, 160, 80  # no symmetry
    # EXIF: 2 mirrored, 3 upside down, 4 flipped, 5 transposed, 6 needs a quarter turn clockwise,
    # 7 anti-transposed, 8 needs a quarter turn anticlockwise; stored is the inverse of each.
    stored = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(stored))
    image = decode(encoded(picture, kind, exif=exif))
    np.testing.assert_allclose(image.pixels.astype(int), upright, atol=4)


def test_damaged_exif_beside_an_intact_picture_is_ignored():
    data = encoded(Image.fromarray(RGB), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(decode(data).pixels, RGB)


def test_one_pixel_is_an_image():
    assert decode(encoded(Image.new("L", (1, 1), 9), "PNG")).pixels.tolist() == [[[9, 9, 9]]]


def test_a_line_of_the_longest_side_is_an_image():
    assert decode(encoded(Image.new("L", (1, 20_000), 9), "PNG")).height == 20_000


# --- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "says"), NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_acceptable_image_is_refused_in_one_sentence(data, says):
    with pytest.raises(InputError, match=says) as caught:
        decode(data)
    message = str(caught.value)
    assert message.endswith(".")
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
def test_cut_off_file_is_refused(kind):
    with pytest.raises(InputError, match=r"file is (cut off|damaged)"):
        decode(cut_off(kind))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_several_pictures_in_one_file_are_refused(kind):
    with pytest.raises(InputError, match="holds several pictures"):
        decode(several_pictures(kind))


def test_multi_picture_jpeg_is_its_main_picture():
    # Phones append previews and depth maps to the photograph.
    main, preview = Image.new("RGB", (16, 16), "white"), Image.new("RGB", (8, 8), "black")
    image = decode(encoded(main, "MPO", save_all=True, append_images=[preview]))
    assert image.pixels.shape == (16, 16, 3)
    assert image.pixels.min() > 250


def test_more_bytes_than_allowed_are_refused_unread(tmp_path):
    limits = ImageLimits(max_bytes=1_000_000)
    big = tmp_path / "big.png"
    with big.open("wb") as file:
        file.truncate(2_000_000)
    for source in (big, big.read_bytes()):
        with pytest.raises(InputError, match=r"has 2.0 MB; at most 1 MB are accepted"):
            decode(source, limits=limits)


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [(10, 10, True), (10, 11, False), (21, 2, False), (20, 2, True), (20, 1, False)],
)
def test_limits_are_inclusive(width, height, fits):
    limits = ImageLimits(max_pixels=100, max_side_px=20, min_side_px=2)
    data = encoded(Image.new("L", (width, height)), "PNG")
    if fits:
        assert decode(data, limits=limits).width == width
    else:
        with pytest.raises(InputError, match=r"are accepted|at least 2 pixels a side"):
            decode(data, limits=limits)


@pytest.mark.parametrize(
    ("name", "says"), [("absent.png", "not there"), ("", "a folder"), ("pipe", "no file")]
)
def test_what_is_no_file_is_refused(tmp_path, name, says):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=f"cannot be opened: it is {says}"):
        decode(tmp_path / name)


def test_a_name_with_a_null_character_is_refused():
    with pytest.raises(InputError, match="cannot be opened"):
        decode(Path("a\0b.png"))


def test_a_path_and_its_bytes_are_the_same_image(tmp_path):
    file = tmp_path / "steel.png"
    file.write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    assert decode(file).sha256 == decode(file.read_bytes()).sha256


# --- bombs -------------------------------------------------------------------------------------


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def test_twenty_kilobyte_bomb_is_refused_before_it_is_decoded():
    data = bomb()
    assert len(data) < 30_000
    before, start = resident_mb(), time.thread_time()
    with pytest.raises(InputError, match=r"13000 × 13000 = 169.0 megapixels; at most 40"):
        decode(data)
    assert time.thread_time() - start < 0.5
    assert resident_mb() - before < 50


@pytest.mark.parametrize("side", [7_000, 16_000, 19_999])
def test_bombs_are_refused_whatever_pillow_is_set_to(monkeypatch, side):
    # Other libraries switch Pillow's own check off, and it warns on stderr where it is on.
    for limit in (None, Image.MAX_IMAGE_PIXELS):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(InputError, match="megapixels; at most 40"):
                decode(png_header(side, side))


def test_small_tiff_of_huge_tiles_is_refused():
    with pytest.raises(InputError, match=r"tiles of 400.0 megapixels"):
        decode(huge_tiles())


# --- damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", seeds())
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's remarks about damaged metadata
@pytest.mark.filterwarnings("ignore::UserWarning:core.images")
def test_damaged_file_is_an_image_or_an_input_error(name):
    data = seeds()[name]
    random = np.random.default_rng(zlib.crc32(name.encode()))
    slowest = 0.0
    for _ in range(60):
        broken = damaged(data, random)
        start = time.thread_time()
        try:
            image = decode(broken)
        except InputError:
            pass
        else:
            assert image.pixels.dtype == np.uint8
            assert image.pixels.ndim == 3
            assert image.pixels.shape[2] == 3
        slowest = max(slowest, time.thread_time() - start)
    assert slowest < 5


def test_truncated_files_are_not_accepted_anywhere():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


@pytest.mark.parametrize("colour", [(200, 10, 10), (10, 200, 10), (10, 10, 200)])
def test_an_image_of_which_two_channels_agree_is_no_grey_one(colour):
    assert not decode(encoded(Image.new("RGB", (4, 3), colour), "PNG")).is_grey
