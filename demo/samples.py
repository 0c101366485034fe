"""The sample pictures that come with the app."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from PIL import Image as PillowImage

from core.images import decode
from core.types import Image

FOLDER: Final = Path(__file__).resolve().parent / "examples"
FIRST: Final = "inclusion_145.jpg"  # what the page opens with
_THUMB_PX: Final = 128


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture to try, and what its data set calls the defect."""

    path: Path
    title: str


def samples() -> tuple[Sample, ...]:
    """All of them, the one that the page opens with first, the rest by name."""
    paths = sorted(FOLDER.glob("*.jpg"), key=lambda path: (path.name != FIRST, path.name))
    return tuple(Sample(path, _title(path)) for path in paths)


def thumbnail(sample: Sample) -> str:
    """A small square cut-out as a data address, so that the page needs no further request."""
    return as_address(square(decode(sample.path).pixels, _THUMB_PX), "JPEG", quality=80)


def square(pixels: Image, side_px: int) -> PillowImage.Image:
    """The middle of a picture, as a small square."""
    picture = PillowImage.fromarray(pixels)
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    middle = picture.crop((left, top, left + side, top + side))
    return middle.resize((side_px, side_px), PillowImage.Resampling.LANCZOS)


def picture_address(pixels: Image) -> str:
    """A picture of a tile as a data address."""
    return as_address(PillowImage.fromarray(pixels), "WEBP", quality=85)


def as_address(picture: PillowImage.Image, kind: str, *, quality: int) -> str:
    """`data:image/…;base64,…`."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=quality)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{encoded}"


def _title(path: Path) -> str:
    """`rolled-in_scale_110.jpg` is "Rolled-in scale"."""
    return re.sub(r"_\d+$", "", path.stem).replace("_", " ").capitalize()
