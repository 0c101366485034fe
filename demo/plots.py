"""Small plots as SVG in the page's own colours; the numbers stand in words beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Final

_WIDTH: Final = 480
_HEIGHT: Final = 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 26  # margins
_TRACK: Final = 300  # length of an interval's scale
_FEW: Final = 12  # points that are each marked


def interval(low: float, value: float, high: float) -> str:
    """A change and its interval on a scale with zero in the middle."""
    reach = max(abs(low), abs(high), 0.01) * 1.2
    left, right, point = (_TRACK / 2 * (1 + x / reach) for x in (low, high, value))
    middle = _TRACK / 2
    return (
        f'<svg class="interval" viewBox="0 0 {_TRACK} 22" aria-hidden="true">'
        f'<line x1="0" x2="{_TRACK}" y1="11" y2="11" class="axis"/>'
        f'<line x1="{middle}" x2="{middle}" y1="2" y2="20" class="axis"/>'
        f'<line x1="{left:.1f}" x2="{right:.1f}" y1="11" y2="11" class="range"/>'
        f'<circle cx="{point:.1f}" cy="11" r="5" class="point"/></svg>'
    )


def line(points: Sequence[tuple[float, float]], words: str, *, axis: str) -> str:
    """A line through fractions, on a scale of whole tenths.

    Args:
        points: x ascending, and y in [0, 1]; at least one.
        words: what the plot says, for people who do not see it.
        axis: what x counts.
    """
    low, high = _tenths([y for _, y in points])
    first, last = points[0][0], points[-1][0]

    def place(x: float, y: float) -> tuple[float, float]:
        along = (x - first) / (last - first) if last > first else 0.5
        across = _LEFT + along * (_WIDTH - _LEFT - _RIGHT)
        return across, _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*p) for p in points))
    marked = points if len(points) <= _FEW else points[-1:]
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" class="point"/>'
        for x, y in (place(*p) for p in marked)
    )
    grid = "".join(_rule(y, place(first, y)[1]) for y in (low, (low + high) / 2, high))
    ends = _tick(axis, first, place(first, low)[0], "start" if last > first else "middle")
    if last > first:
        ends += _tick(axis, last, place(last, low)[0], "end")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(words)}">{grid}'
        f'<polyline points="{path}" class="line"/>{dots}{ends}</svg>'
    )


def _tenths(values: Sequence[float]) -> tuple[float, float]:
    """The tenths that enclose all values, at least one apart."""
    low = min(int(min(values) * 10), 9)
    high = max(low + 1, math.ceil(max(values) * 10))
    return low / 10, high / 10


def _rule(y: float, across: float) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{across:.1f}" y2="{across:.1f}" '
        f'class="axis"/><text x="{_LEFT - 6}" y="{across + 4:.1f}" text-anchor="end">'
        f"{100 * y:.0f} %</text>"
    )


def _tick(axis: str, x: float, along: float, anchor: str) -> str:
    return (
        f'<text x="{along:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">'
        f"{escape(axis)} {x:.0f}</text>"
    )
