"""A class map painted on a picture: tint, hatch, crisp outline, halo."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.taxonomy import look
from core.types import Image
from demo.colours import ink_on, rgb

OPACITY: Final = 0.45
_HATCH_OPACITY: Final = 0.8
# As they are seen, whatever the size of the canvas.
_OUTLINE_PX: Final = 2
_HATCH_PX: Final = 1.2
_PERIOD_PX: Final = 11


def paint_mask(
    canvas: Image, class_map: NDArray[np.uint8], labels: Sequence[str], *, pixel: float
) -> Image:
    """Each class tinted in its colour, hatched in its pattern and outlined.

    Args:
        canvas: (H', W', 3), the picture at the size it is shown.
        class_map: (H, W) at any size; 0 is background, k is `labels[k - 1]`.
        labels: names of the classes.
        pixel: px of the canvas that are seen as one px.

    Returns:
        (H', W', 3) uint8, a new picture.
    """
    height, width = canvas.shape[:2]
    class_map = _stretched(class_map, height, width)
    line, rim = max(round(_OUTLINE_PX * pixel), 1), max(round(pixel), 1)
    painted = canvas.astype(np.float32)
    for k, label in enumerate(labels, start=1):
        inside = class_map == k
        if not inside.any():
            continue
        style = look(label)
        colour = np.array(rgb(style.colour), dtype=np.float32)
        hatched = inside & _hatch(style.hatch, height, width, pixel)
        outline = inside & ~_shrunk(inside, line)
        painted[inside] += OPACITY * (colour - painted[inside])
        painted[hatched] += _HATCH_OPACITY * (colour - painted[hatched])
        painted[outline] = colour
        halo = _grown(inside, rim) & (class_map == 0)
        painted[halo] = ink_on(rgb(style.colour))
    return painted.round().astype(np.uint8)


def _stretched(class_map: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """The nearest class for every px of a height × width canvas."""
    rows = np.arange(height) * class_map.shape[0] // height
    columns = np.arange(width) * class_map.shape[1] // width
    stretched: NDArray[np.uint8] = class_map[rows[:, None], columns]
    return stretched


def _shrunk(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask without a rim of `by` px; the border of the picture is no rim."""
    return ~_grown(~mask, by)


def _grown(mask: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    """The mask with a rim of `by` px, square-cornered."""
    grown = mask.copy()
    for axis in (0, 1):
        source = grown.copy()
        for step in range(1, by + 1):
            ahead = [slice(None), slice(None)]
            behind = [slice(None), slice(None)]
            ahead[axis], behind[axis] = slice(step, None), slice(None, -step)
            grown[tuple(ahead)] |= source[tuple(behind)]
            grown[tuple(behind)] |= source[tuple(ahead)]
    return grown


# Each says where its lines are, from the row and column within one period p.
_HATCHES: Final[dict[str, Callable[..., NDArray[np.bool_]]]] = {
    "/": lambda y, x, p, w: (x + y) % p < w,
    "\\": lambda y, x, p, w: (x - y) % p < w,
    "|": lambda y, x, p, w: x < w,
    "-": lambda y, x, p, w: y < w,
    "+": lambda y, x, p, w: (y < w) | (x < w),
    "x": lambda y, x, p, w: ((x + y) % p < w) | ((x - y) % p < w),
    ".": lambda y, x, p, w: np.hypot(y - p / 2, x - p / 2) < w,
    "o": lambda y, x, p, w: np.abs(np.hypot(y - p / 2, x - p / 2) - p / 4) < w / 2,
    "O": lambda y, x, p, w: np.abs(np.hypot(y - p / 2, x - p / 2) - p / 2.5) < w / 2,
    "*": lambda y, x, p, w: (np.abs(y - p / 2) + np.abs(x - p / 2)) < p / 4,
}


def _hatch(sign: str, height: int, width: int, pixel: float) -> NDArray[np.bool_]:
    """(height, width), true on the lines of the pattern."""
    period = max(round(_PERIOD_PX * pixel), 4)
    rows = np.arange(height)[:, None] % period
    columns = np.arange(width)[None, :] % period
    pattern = _HATCHES[sign](rows, columns, period, max(_HATCH_PX * pixel, 1))
    return np.broadcast_to(pattern, (height, width))
