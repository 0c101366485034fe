"""Files that are no images, or hardly: made here for every test and drill that needs them."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache

import numpy as np
from PIL import Image

RGB = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
GREY = np.random.default_rng(1).integers(0, 256, (9, 7), dtype=np.uint8)
LOSSLESS = ["PNG", "BMP", "TIFF", "WEBP"]


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    if kind == "WEBP":
        options.setdefault("lossless", True)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int, *, bits: int = 8, colour: int = 0) -> bytes:
    """A PNG that ends after its header: decoding it is impossible, refusing it is not."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def see_through_png(*samples: int, key: tuple[int, ...], bits: int = 16) -> bytes:
    """A PNG of one row whose pixels of the colour `key` are see-through; grey if it is one number.

    Pillow writes neither 16-bit colour nor 2- or 4-bit grey.
    """
    together = sum(sample << bits * place for place, sample in enumerate(reversed(samples)))
    row = b"\0" + together.to_bytes(bits * len(samples) // 8, "big")
    header = png_header(len(samples) // len(key), 1, bits=bits, colour=2 if len(key) == 3 else 0)
    chunks = ((b"tRNS", struct.pack(f">{len(key)}H", *key)), (b"IDAT", zlib.compress(row)))
    return header[:33] + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )


def tiff(tags: dict[int, int], content: bytes) -> bytes:
    """An uncompressed grey TIFF whose content starts at byte 8; tags 259, 262 and 277 are given."""
    assert len(content) <= 4
    entries = sorted({259: 1, 262: 1, 277: 1, **tags}.items())
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    head = b"II*\0" + struct.pack("<I", 12) + content.ljust(4, b"\0")
    return head + struct.pack("<H", len(entries)) + directory + struct.pack("<I", 0)


# What is no acceptable image, by name, and what the refusal says of it.
NO_IMAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "The file is empty; PNG, JPEG, BMP, TIFF and WebP"),
    "text": (b"hello", "not an image file; PNG, JPEG"),
    "svg": (b"<svg xmlns='x'></svg>", "type SVG; PNG"),
    "svg with prolog": (b"<?xml version='1.0'?>\n<svg/>", "type SVG"),
    "html": (b"\n<!DOCTYPE html><p>", "type HTML"),
    "gif": (encoded(Image.new("L", (2, 2)), "GIF"), "type GIF"),
    "heic": (b"\0\0\0\x18ftypheic" + b"\0" * 50, "type HEIC"),
    "pdf": (b"%PDF-1.7", "type PDF"),
    "png without header": (b"\x89PNG\r\n\x1a\n", "PNG header cannot be read"),
    "jpeg without header": (b"\xff\xd8\xff\xe0", "JPEG header cannot be read"),
    "webp without header": (b"RIFF\x10\0\0\0WEBPVP8 ", "WebP header"),
    "1 x 65535": (
        encoded(Image.new("L", (1, 65_535)), "PNG"),
        "1 × 65535 pixels; at most 20000 pixels a side",
    ),
    "no width": (png_header(0, 5), "PNG header|nothing to see"),
    "pixels": (png_header(8000, 5001), r"8000 × 5001 = 40.0 megapixels; at most 40"),
}


@cache  # squeezing zeros takes a moment
def bomb(side: int = 13_000) -> bytes:
    """A whole 1-bit PNG of side² pixels, all black: 20 kB that decode to 507 MB of RGB."""
    rows = zlib.compress(b"\0" * (side * (side // 8 + 1)), 9)
    idat = struct.pack(">I", len(rows)) + b"IDAT" + rows
    return png_header(side, side, bits=1)[:33] + idat + struct.pack(">I", zlib.crc32(idat[4:]))


def huge_tiles() -> bytes:
    """A TIFF of 16 × 16 pixels whose decoder would allocate one tile of 400 MB."""
    return tiff({256: 16, 257: 16, 258: 8, 322: 20_000, 323: 20_000, 324: 8, 325: 4}, b"\0" * 4)


def cut_off(kind: str) -> bytes:
    """Two thirds of a file of a format."""
    data = encoded(Image.fromarray(np.tile(RGB, (20, 20, 1))), kind)
    return data[: len(data) * 2 // 3]


def several_pictures(kind: str) -> bytes:
    """A red and a blue picture in one file of a format."""
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def damaged(data: bytes, random: np.random.Generator) -> bytes:
    """A few flipped bits, or an end that is missing, or a stretch of zeros."""
    broken = bytearray(data)
    kind = random.integers(3)
    if kind == 0:
        for position in random.integers(0, len(data), random.integers(1, 9)):
            broken[position] ^= 1 << int(random.integers(8))
    elif kind == 1:
        del broken[int(random.integers(len(data))) :]
    else:
        start = int(random.integers(len(data)))
        broken[start : start + 16] = bytes(len(broken[start : start + 16]))
    return bytes(broken)


def seeds() -> dict[str, bytes]:
    colour = Image.fromarray(np.tile(RGB, (4, 4, 1)))
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "png": encoded(colour, "PNG", exif=exif),
        "png palette": encoded(colour.convert("P"), "PNG", transparency=3),
        "png alpha": encoded(colour.convert("RGBA"), "PNG"),
        "png 16 bit": encoded(Image.fromarray(np.full((20, 20), 700, np.uint16)), "PNG"),
        "jpeg": encoded(colour, "JPEG", exif=exif),
        "jpeg progressive": encoded(colour, "JPEG", progressive=True),
        "jpeg cmyk": encoded(colour.convert("CMYK"), "JPEG"),
        "bmp": encoded(colour, "BMP"),
        "tiff": encoded(colour, "TIFF", exif=exif),
        "tiff deflate": encoded(colour, "TIFF", compression="tiff_deflate"),
        "tiff lzw": encoded(colour.convert("L"), "TIFF", compression="tiff_lzw"),
        "webp": encoded(colour, "WEBP"),
        "webp lossy": encoded(colour, "WEBP", lossless=False, exif=exif),
    }
