"""Where names go on a picture: beside the finding, never on it while there is room elsewhere.

Pure geometry in px of the canvas; rectangles are (x1, y1, x2, y2).
"""

from __future__ import annotations

import math
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
    findings: Sequence[Rectangle],
    full: Sequence[Size],
    short: Sequence[Size],
    canvas: Size,
    *,
    row_px: float = math.inf,
    nameless: Sequence[Rectangle] = (),
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
        row_px: length of the rows into which the canvas will be folded along its long side; a name
            lies in one of them, so that no fold cuts it.
        nameless: boxes that are drawn without a name, which names keep clear of as well.
    """
    taken: list[Rectangle] = []
    tags = []
    drawn = [*findings, *nameless]
    for box, whole, brief in zip(findings, full, short, strict=True):
        near = [other for other in drawn if _covered(_reach(box, whole), (other,))]
        tag, rectangle = _place(box, whole, brief, _Ground(*canvas, row_px), near, taken)
        tags.append(tag)
        taken.append(rectangle)
    return tuple(tags)


@dataclass(frozen=True, slots=True)
class _Ground:
    """What names are placed on: a canvas, and where it will be folded along its long side."""

    width: float
    height: float
    row_px: float

    def pages(self, box: Rectangle) -> Iterator[Rectangle]:
        """The rows on which a finding lies, the one first that has most of it."""
        x1, y1, x2, y2 = box
        stands = self.height > self.width
        long, start, end = (self.height, y1, y2) if stands else (self.width, x1, x2)
        if self.row_px >= long:
            yield 0, 0, self.width, self.height
            return
        first = int(max(start, 0) // self.row_px)
        last = int(max(min(end, long) - 1, start, 0) // self.row_px)
        rows = [(k * self.row_px, min((k + 1) * self.row_px, long)) for k in range(first, last + 1)]
        for low, high in sorted(rows, key=lambda row: max(start, row[0]) - min(end, row[1])):
            yield (0, low, self.width, high) if stands else (low, 0, high, self.height)


def _place(
    box: Rectangle,
    whole: Size,
    brief: Size,
    ground: _Ground,
    findings: Sequence[Rectangle],
    taken: Sequence[Rectangle],
) -> tuple[Tag, Rectangle]:
    for extent, is_short in ((whole, False), (brief, True)):
        for rectangle in _beside(box, extent, ground):
            if _covered(rectangle, findings) == 0 and _covered(rectangle, taken) == 0:
                return Tag(rectangle[0], rectangle[1], is_short), rectangle
    anywhere = [*_beside(box, brief, ground), *_inside(box, brief, ground)]
    # Two names on each other cannot be read at all, so that weighs most.
    least = min(anywhere, key=lambda r: 4 * _covered(r, taken) + _covered(r, findings))
    return Tag(least[0], least[1], True), least


def _reach(box: Rectangle, extent: Size) -> Rectangle:
    """All ground on which a name of the box may lie."""
    x1, y1, x2, y2 = box
    width, height = extent
    return x1 - width, y1 - height, x2 + width, y2 + height


def _beside(box: Rectangle, extent: Size, ground: _Ground) -> Iterator[Rectangle]:
    """Rectangles that touch the box from outside and lie on a row, the best liked first."""
    for page in ground.pages(box):
        yield from _beside_on(page, box, extent)


def _beside_on(page: Rectangle, box: Rectangle, extent: Size) -> Iterator[Rectangle]:
    x1, y1, x2, y2 = box
    width, height = extent
    corners = (
        *((x1, y1 - height), (x1, y2), (x2 - width, y1 - height), (x2 - width, y2)),
        *((x2, y1), (x1 - width, y1), (x2, y2 - height), (x1 - width, y2 - height)),
    )
    for x, y in corners:
        above_or_below = y + height <= y1 or y >= y2
        # A name above may slide along the edge until it is on the row; so may one at the side.
        left = min(max(x, page[0]), page[2] - width) if above_or_below else x
        top = y if above_or_below else min(max(y, page[1]), page[3] - height)
        right, bottom = left + width, top + height
        if left >= page[0] and top >= page[1] and right <= page[2] and bottom <= page[3]:
            yield left, top, right, bottom


def _inside(box: Rectangle, extent: Size, ground: _Ground) -> Iterator[Rectangle]:
    """The corners of the box itself, pushed on to a row."""
    width, height = extent
    for page in ground.pages(box):
        for x in (box[0], box[2] - width):
            for y in (box[1], box[3] - height):
                left = max(min(x, page[2] - width), page[0])
                top = max(min(y, page[3] - height), page[1])
                yield left, top, left + width, top + height


def _covered(rectangle: Rectangle, others: Iterable[Rectangle]) -> float:
    """Area in px² that the rectangle shares with the others, counted once for each."""
    x1, y1, x2, y2 = rectangle
    return sum(
        max(min(x2, other[2]) - max(x1, other[0]), 0)
        * max(min(y2, other[3]) - max(y1, other[1]), 0)
        for other in others
    )
