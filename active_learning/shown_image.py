"""The picture that a person is shown: the bytes as they came where every browser shows them alike.

TIFF, CMYK, transparency, 16-bit grey and an EXIF orientation look different from one viewer to the
next, or like nothing at all. Such pictures are sent as a PNG of the pixels the models saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image as PillowImage
from PIL import ImageFile, JpegImagePlugin, PngImagePlugin

from core.images import KEPT, decode
from core.records import ImageFacts
from core.types import DecodedImage

_ORIENTATION: Final = 0x0112  # EXIF tag; 1 is upright
_PLAIN: Final[tuple[tuple[bytes, type[ImageFile.ImageFile], str, str], ...]] = (
    (b"\x89PNG", PngImagePlugin.PngImageFile, ".png", "image/png"),
    (b"\xff\xd8\xff", JpegImagePlugin.JpegImageFile, ".jpg", "image/jpeg"),
)


@dataclass(frozen=True, slots=True)
class ShownImage:
    """A picture ready for a browser, with the facts of the image it shows."""

    name: str  # of the file, from the image's hash
    mime: str
    data: bytes
    facts: ImageFacts


def shown_image(data: bytes) -> ShownImage:
    """What to upload for an image; pixel for pixel what the models saw.

    Raises:
        InputError: if it is no image within the limits.
    """
    decoded = decode(data, limits=KEPT)
    facts = ImageFacts(sha256=decoded.sha256, width=decoded.width, height=decoded.height)
    stem = decoded.sha256[:16]
    for signature, reader, suffix, mime in _PLAIN:
        if data.startswith(signature) and _is_plain(reader(BytesIO(data), "")):
            return ShownImage(stem + suffix, mime, data, facts)
    return ShownImage(f"{stem}.png", "image/png", _png(decoded), facts)


def _is_plain(image: ImageFile.ImageFile) -> bool:
    turned = image.getexif().get(_ORIENTATION, 1) != 1
    return image.mode in ("L", "RGB") and "transparency" not in image.info and not turned


def _png(decoded: DecodedImage) -> bytes:
    pixels = decoded.pixels[:, :, 0] if decoded.is_grey else decoded.pixels
    out = BytesIO()
    PillowImage.fromarray(pixels).save(out, format="PNG")
    return out.getvalue()
