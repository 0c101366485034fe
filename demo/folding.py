"""A long strip folded into rows, so that a page can show it: it is read like lines of text.

Shrunk to a page's width, 12,000 × 200 px would be a line of ten px. Only what is shown is folded;
downloads, boxes and masks keep the picture's own shape.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from core.types import Image

_BAND: Final = (222, 226, 230)
_INK: Final = (31, 41, 51)


def fold(pixels: Image, rows: int, *, band_px: int, scale: float) -> Image:
    """Cut along the long side into rows (columns, if it stands), each under the px it begins at.

    Args:
        pixels: (H, W, 3), drawn.
        rows: how many; 1 changes nothing.
        band_px: height of the band between rows, in which the number is written; px.
        scale: px of `pixels` per px of the source, in which the numbers count.

    Returns:
        (H', W', 3) uint8.
    """
    if rows == 1:
        return pixels
    height, width = pixels.shape[:2]
    stands = height > width
    length = row_length((width, height), rows)
    parts = []
    for start in range(0, max(height, width), length):
        part = pixels[start : start + length] if stands else pixels[:, start : start + length]
        parts.append(_under(part, f"{start / scale:,.0f} px", band_px, length, stands=stands))
    return np.concatenate(parts, axis=1 if stands else 0)


def row_length(size: tuple[int, int], rows: int) -> int:
    """Length in px of the rows into which a picture of that width and height is cut."""
    return math.ceil(max(size) / rows)


def _under(part: Image, text: str, band_px: int, length: int, *, stands: bool) -> Image:
    """A row under its band, or a column with its band above it and a gap to its right."""
    height, width = part.shape[:2]
    size = (width + band_px // 3, band_px + length) if stands else (length, band_px + height)
    page = PillowImage.new("RGB", size, _BAND)
    page.paste(PillowImage.fromarray(part), (0, band_px))
    font = ImageFont.load_default(max(band_px * 2 // 3, 1))
    place = (band_px // 4, band_px / 2)
    ImageDraw.Draw(page).text(place, text, fill=_INK, font=font, anchor="lm")
    return np.asarray(page)
