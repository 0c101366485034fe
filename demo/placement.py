"""Where names go on a picture: beside the finding, never on it while there is room elsewhere.

Pure geometry in px of the canvas; rectangles are (x1, y1, x2, y2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Rectangle: TypeAlias = tuple[float, float, float, float]
Size: TypeAlias = tuple[float, float]  # width, height


@dataclass(frozen=True, slots=True)
class Tag:
    """The place of one name."""

    x: float
    y: float
    is_short: bool  # only the number, because the whole name found no room


def place_tags(
    findings: Sequence[Rectangle], full: Sequence[Size], short: Sequence[Size], canvas: Size
) -> tuple[Tag, ...]:
    """Places for the names of all findings, in the same order.

    The whole name goes beside its finding where it covers no finding and no other name; if there is
    no such place, the number alone does; if there is none for that either, the number goes where it
    covers least, a corner of its own finding included.

    Args:
        findings: boxes on the canvas.
        full: size of each whole name.
        short: size of each number.
        canvas: width and height.
    """
    taken: list[Rectangle] = []
    tags = []
    for box, whole, brief in zip(findings, full, short, strict=True):
        tag, rectangle = _place(box, whole, brief, canvas, findings, taken)
        tags.append(tag)
        taken.append(rectangle)
    return tuple(tags)


def _place(
    box: Rectangle,
    whole: Size,
    brief: Size,
    canvas: Size,
    findings: Sequence[Rectangle],
    taken: Sequence[Rectangle],
) -> tuple[Tag, Rectangle]:
    for extent, is_short in ((whole, False), (brief, True)):
        for rectangle in _beside(box, extent, canvas):
            if _covered(rectangle, findings) == 0 and _covered(rectangle, taken) == 0:
                return Tag(rectangle[0], rectangle[1], is_short), rectangle
    anywhere = [*_beside(box, brief, canvas), *_inside(box, brief, canvas)]
    # Two names on each other cannot be read at all, so that weighs most.
    least = min(anywhere, key=lambda r: 4 * _covered(r, taken) + _covered(r, findings))
    return Tag(least[0], least[1], True), least


def _beside(box: Rectangle, extent: Size, canvas: Size) -> Iterator[Rectangle]:
    """Rectangles that touch the box from outside and lie on the canvas, the best liked first."""
    x1, y1, x2, y2 = box
    width, height = extent
    corners = (
        *((x1, y1 - height), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2)),
        *((x2, y1), (x1 - width, y1), (x2, y2 - height), (x1 - width, y2 - height)),
    )
    for x, y in corners:
        above_or_below = y + height <= y1 or y >= y2
        # A name above may slide along the edge until it is on the canvas; so may one at the side.
        left = min(max(x, 0), canvas[0] - width) if above_or_below else x
        top = y if above_or_below else min(max(y, 0), canvas[1] - height)
        if left >= 0 and top >= 0 and left + width <= canvas[0] and top + height <= canvas[1]:
            yield left, top, left + width, top + height


def _inside(box: Rectangle, extent: Size, canvas: Size) -> Iterator[Rectangle]:
    """The corners of the box itself, pushed on to the canvas."""
    width, height = extent
    for x in (box[0], box[2] - width):
        for y in (box[1], box[3] - height):
            left = max(min(x, canvas[0] - width), 0)
            top = max(min(y, canvas[1] - height), 0)
            yield left, top, left + width, top + height


def _covered(rectangle: Rectangle, others: Iterable[Rectangle]) -> float:
    """Area in px² that the rectangle shares with the others, counted once for each."""
    x1, y1, x2, y2 = rectangle
    return sum(
        max(min(x2, other[2]) - max(x1, other[0]), 0)
        * max(min(y2, other[3]) - max(y1, other[1]), 0)
        for other in others
    )
