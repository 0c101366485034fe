"""The one guarded decoder and the content-addressed image store.

`decode` is the only door for pictures from outside. It names the format by its first bytes, reads
the header, applies every cap, and only then decodes; whatever goes wrong is an InputError of one
sentence. Pillow's format classes are opened directly because `PIL.Image.open` depends on global
state that other libraries change (ultralytics replaces it and switches its bomb check off).

What comes out is always uint8 RGB, upright:
- grey, 1-bit and palette pictures are widened; CMYK and YCbCr are converted;
- 16-bit samples are taken as full range: the high byte is kept (12-bit TIFF: the upper eight bits);
- transparency is composited over white, as the browser in which a person labels shows it;
- the EXIF orientation is applied; colour profiles and all other metadata are ignored.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
from PIL import (
    BmpImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)
from PIL import Image as PillowImage

from core._transparency import grey_or_rgb_over_white, load_pixels, sixteen_bits_over_white
from core.errors import InputError, LedgerError
from core.files import write_atomically
from core.geometry import spread_grey
from core.types import DecodedImage, Image

MEGA = 1_000_000
ACCEPTED = "PNG, JPEG, BMP, TIFF and WebP"

_READERS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "PNG": PngImagePlugin.PngImageFile,
    "JPEG": JpegImagePlugin.JpegImageFile,  # of a multi-picture JPEG this is the main picture
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
# First bytes; those without a reader are here so that the refusal can say what the file is.
_SIGNATURES: Final[tuple[tuple[str, re.Pattern[bytes]], ...]] = (
    ("PNG", re.compile(rb"\x89PNG\r\n\x1a\n")),
    ("JPEG", re.compile(rb"\xff\xd8\xff")),
    ("BMP", re.compile(rb"BM")),
    ("TIFF", re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+")),
    ("WebP", re.compile(rb"RIFF.{4}WEBP", re.DOTALL)),
    ("GIF", re.compile(rb"GIF8[79]a")),
    ("HEIC or AVIF", re.compile(rb".{4}ftyp", re.DOTALL)),
    ("JPEG 2000", re.compile(rb"\0\0\0\x0cjP|\xff\x4f\xff\x51")),
    ("PDF", re.compile(rb"%PDF")),
    ("ZIP", re.compile(rb"PK\x03\x04")),
    ("SVG", re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg.*?>\s*)?<svg", re.S)),
    ("HTML", re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)),
)
_TRANSPOSE: Final = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}
_ORIENTATION, _BITS, _PHOTOMETRIC, _TILE_WIDTH, _TILE_LENGTH = 0x0112, 258, 262, 322, 323
_BLOCK_PX = 1 << 20  # converted at a time
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What the decoder is willing to open; checked before a pixel is decoded."""

    max_bytes: int = 25 * MEGA
    max_pixels: int = 40 * MEGA
    max_side_px: int = 20_000
    min_side_px: int = 1


DEFAULT_LIMITS: Final = ImageLimits()
# Of a picture that was let in before, by whatever caps there were: the widest that settings allow.
KEPT: Final = ImageLimits(max_bytes=500 * MEGA, max_pixels=500 * MEGA)
# What a file that may be opened is called; what it is, the decoder decides by its bytes.
SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})


def decode(source: bytes | Path, *, limits: ImageLimits = DEFAULT_LIMITS) -> DecodedImage:
    """Open one picture from outside.

    Args:
        source: the encoded bytes, or the file that holds them.
        limits: caps on bytes, pixels and sides.

    Returns:
        Upright uint8 RGB pixels with the SHA-256 of the encoded bytes.

    Raises:
        InputError: if there is no readable single picture within the limits; one sentence says why.
    """
    data = _read(source, limits) if isinstance(source, Path) else source
    if len(data) > limits.max_bytes:
        raise InputError(_too_many_bytes(len(data), limits))
    name = _format_of(data)
    image = _open(data, name)
    _check_header(image, name, limits)
    pixels, is_grey = _pixels(image, name)
    return DecodedImage(pixels=pixels, sha256=hashlib.sha256(data).hexdigest(), is_grey=is_grey)


class ImageStore:
    """Images on disk under the SHA-256 of their bytes: written once, never changed.

    A file lies at `root/ab/cd/abcd…`. It appears there complete or not at all, so that a row of the
    ledger may name it as soon as `put` has returned.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, sha256: str) -> Path:
        """Where the image with this hash lies, or would lie.

        Raises:
            InputError: if it is not a SHA-256 in lower-case hex.
        """
        if not _SHA256.fullmatch(sha256):
            raise InputError(f"Not an image hash: {sha256[:70]!r}; 64 hexadecimal digits are.")
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def put(self, data: bytes) -> str:
        """Keep these bytes and return their SHA-256; keeping them twice changes nothing.

        A stored file that is damaged is written again.

        Raises:
            LedgerError: if the disk is full or the folder cannot be written.
        """
        sha256 = hashlib.sha256(data).hexdigest()
        target = self.path(sha256)
        try:
            if not _holds(target, data):
                write_atomically(target, data)
        except OSError as exc:
            raise LedgerError(
                f"Image {sha256[:12]} could not be stored under {self.root}: {exc.strerror}; "
                f"{len(data)} bytes of writable space are needed."
            ) from exc
        return sha256

    def get(self, sha256: str) -> bytes:
        """The bytes with this hash.

        Raises:
            LedgerError: if they are not in the store, or are no longer what was put there.
        """
        try:
            data = self.path(sha256).read_bytes()
        except OSError as exc:
            raise LedgerError(
                f"Image {sha256[:12]} cannot be read from {self.root}: {exc.strerror}."
            ) from exc
        if hashlib.sha256(data).hexdigest() != sha256:
            raise LedgerError(
                f"Image {sha256[:12]} in {self.root} is damaged: its bytes have another hash."
            )
        return data


def _holds(path: Path, data: bytes) -> bool:
    """Whether a file has these very bytes; one that is absent or cannot be read has not."""
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except OSError:
        return False


def _read(path: Path, limits: ImageLimits) -> bytes:
    """The bytes of a regular file; its size is checked before it is read."""
    try:
        if not path.is_file():  # a pipe or a device would block or never end
            what = "a folder" if path.is_dir() else "not there" if not path.exists() else "no file"
            raise InputError(f"{path.name!r} cannot be opened: it is {what}; an image file is.")
        size = path.stat().st_size
        if size > limits.max_bytes:
            raise InputError(_too_many_bytes(size, limits))
        with path.open("rb") as file:
            return file.read(limits.max_bytes + 1)  # it may have grown meanwhile
    except (OSError, ValueError) as exc:  # ValueError: a null character in the name
        reason = getattr(exc, "strerror", None) or str(exc)
        raise InputError(f"{path.name!r} cannot be opened: {reason}.") from exc


def _too_many_bytes(size: int, limits: ImageLimits) -> str:
    return (
        f"The file has {size / MEGA:.1f} MB; at most {limits.max_bytes / MEGA:g} MB are accepted."
    )


def _format_of(data: bytes) -> str:
    """The name of a format there is a reader for."""
    if not data:
        raise InputError(f"The file is empty; {ACCEPTED} images are accepted.")
    head = data[:1024]
    name = next((name for name, pattern in _SIGNATURES if pattern.match(head)), None)
    if name is None:
        raise InputError(f"This is not an image file; {ACCEPTED} images are accepted.")
    if name not in _READERS:
        raise InputError(f"This is a file of type {name}; {ACCEPTED} images are accepted.")
    return name


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    """The header, parsed; no pixel is decoded yet."""
    try:
        return _READERS[name](BytesIO(data), "")
    except Exception as exc:  # hostile bytes make the parsers fail in any way there is
        raise InputError(f"The {name} header cannot be read: the file is damaged.") from exc


def _check_header(image: ImageFile.ImageFile, name: str, limits: ImageLimits) -> None:
    """Every cap, before anything large is allocated."""
    width, height = image.size
    if width < 1 or height < 1:
        raise InputError(f"The image is {width} × {height} pixels: there is nothing to see.")
    if min(width, height) < limits.min_side_px:
        raise InputError(
            f"The image is {width} × {height} pixels; at least {limits.min_side_px} pixels a side "
            "are needed to see anything."
        )
    if max(width, height) > limits.max_side_px:
        raise InputError(
            f"The image is {width} × {height} pixels; at most {limits.max_side_px} pixels a side "
            "are accepted."
        )
    if width * height > limits.max_pixels:
        raise InputError(
            f"The image is {width} × {height} = {width * height / MEGA:.1f} megapixels; "
            f"at most {limits.max_pixels / MEGA:g} are accepted."
        )
    if getattr(image, "is_animated", False):
        raise InputError(
            f"The {name} file holds several pictures; save the one to be inspected by itself."
        )
    tile = _tag(image, _TILE_WIDTH) * _tag(image, _TILE_LENGTH)
    if tile > limits.max_pixels:  # the decoder allocates whole tiles, however small the image
        raise InputError(
            f"The TIFF is cut into tiles of {tile / MEGA:.1f} megapixels; at most "
            f"{limits.max_pixels / MEGA:g} are accepted."
        )
    if image.mode in ("I", "F"):
        raise InputError(
            f"The {name} has 32-bit or signed samples, whose white is not defined; "
            "save it with 8 or 16 bits a sample."
        )


def _tag(image: ImageFile.ImageFile, number: int) -> int:
    """An integer TIFF tag; 0 where it is missing or nonsense."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 0
    value = image.tag_v2.get(number, 0)
    first = value[0] if isinstance(value, tuple) and value else value
    return first if isinstance(first, int) else 0


def _pixels(image: ImageFile.ImageFile, name: str) -> tuple[Image, bool]:
    """Upright RGB (H, W, 3), and whether all three channels are equal."""
    try:
        is_tiff = isinstance(image, TiffImagePlugin.TiffImageFile)
        bits = _tag(image, _BITS) if is_tiff else 16
        white_is_zero = is_tiff and _tag(image, _PHOTOMETRIC) == 0  # 1 is black, 0 is white
        load_pixels(image)
        turn = _TRANSPOSE.get(_orientation(image))
        upright = image if turn is None else image.transpose(turn)

        width, height = upright.size
        pixels = np.empty((height, width, 3), dtype=np.uint8)
        is_grey = True
        step = max(1, _BLOCK_PX // width)
        for top in range(0, height, step):  # in blocks: no second copy of a large picture
            block = upright.crop((0, top, width, min(top + step, height)))
            if block.mode.startswith("I;16"):
                samples = sixteen_bits_over_white(block)
                eight = (samples >> max(bits - 8, 0)).astype(np.uint8)
                colours = ~eight if white_is_zero else eight
            else:
                colours = np.asarray(grey_or_rgb_over_white(block))
            if colours.ndim == 3:
                pixels[top : top + step] = colours
            else:
                spread_grey(colours, pixels[top : top + step])
            is_grey = is_grey and (colours.ndim == 2 or _channels_agree(colours))
        return pixels, is_grey
    except Exception as exc:  # hostile bytes make the decoders fail in any way there is
        reason = "is cut off" if "truncated" in str(exc) else "is damaged"
        raise InputError(
            f"The {name} image data cannot be decoded: the file {reason}; export it again."
        ) from exc


def _channels_agree(colours: Image) -> bool:
    first = colours[..., 0]
    return np.array_equal(first, colours[..., 1]) and np.array_equal(first, colours[..., 2])


def _orientation(image: PillowImage.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none or it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata beside an intact picture is no reason to refuse it
        return 1
    return value if isinstance(value, int) else 1
