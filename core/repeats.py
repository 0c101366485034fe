"""Findings that come again at equal distances along a strip, as what a damaged roll leaves behind.

A roll prints the same mark once a turn, always at the same place across the strip. Whether marks
that lie so are more than chance is judged a contrario (Desolneux, Moisan and Morel, *From Gestalt
Theory to Image Analysis*, 2008): how many such rows would be expected if as many marks lay anywhere
along the strip?
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, count
from typing import Final

FALSE_ALARMS: Final = 0.01  # expected rows of chance in a strip, below which one is told
MOST_MARKS: Final = 600  # of a class that are compared; a strip with more is covered by it,
MOST_PAIRS: Final = 5000  # or with more that might be of one damage
_LEAST_TURNS: Final = 3  # distances that must fit into the strip
_MOST_TURNS: Final = 2000
_SLACK: Final = 0.01  # of the distance: a strip slips and is stretched
_SHARES: Final = (1 / 8, 1 / 2)  # of the marks' length: boxes are placed well, or less well
_ALIKE: Final = 1.5  # times as long or wide are marks of one damage at most
_LEAST_LANE: Final = 0.01  # of the strip's width, on either side: it wanders


@dataclass(frozen=True, slots=True)
class Mark:
    """One finding on a strip; all lengths in one unit, px or mm."""

    label: str
    along: float  # of its centre, from the strip's beginning
    across: float  # of its centre
    length: float
    width: float


@dataclass(frozen=True, slots=True)
class Repeat:
    """Marks of one class that come again at equal distances.

    `turns` are counted from the first of them; one in between may have been missed.
    """

    label: str
    period: float  # in the unit of the marks
    deviation: float  # standard error of the period
    marks: tuple[int, ...]  # positions in what was given, along the strip
    turns: int  # from the first to the last
    false_alarms: float  # such rows expected by chance

    @property
    def diameter(self) -> float:
        """Of the roll whose circumference is the period."""
        return self.period / math.pi


@dataclass(frozen=True, slots=True)
class _Strip:
    length: float
    picture: float | None
    attempts: int


def find_repeats(
    marks: Sequence[Mark],
    *,
    length: float,
    width: float,
    picture: float | None = None,
) -> tuple[Repeat, ...]:
    """What comes again along a strip, the surest first; no mark belongs to two rows.

    Every pair of marks of a class that are alike in size and lie in one lane proposes a period P.
    The places at which it would come again, m of them, are looked up; k hold another such mark. If
    all n of them lay anywhere along the length L, a place with a margin of δ on either side would
    hold one of the other n - 2 with probability p = 1 - (1 - 2δ/L)^(n-2), and the number of false
    alarms is

        NFA = N · Σ_{i=k..m} (m choose i) p^i (1-p)^(m-i),

    with N the number of such pairs in the strip, of all classes, times two: δ is a hundredth of the
    period, but at least an eighth of the marks' length, and in a second attempt half of it.

    Args:
        marks: findings, in any order.
        length: of the strip, in the marks' unit.
        width: of the strip.
        picture: length of each of the pictures that make up the strip. Distances of whole pictures
            are left out: they may be how defects were cut out, one in the middle of each.

    Raises:
        ValueError: if the strip has no length or width.
    """
    if not (length > 0 and width > 0):
        raise ValueError("A strip has a length and a width.")
    least = _LEAST_LANE * width
    groups = [list(_ordered(marks, label)) for label in dict.fromkeys(m.label for m in marks)]
    tried = [_pairs(marks, group, least) for group in groups]
    strip = _Strip(length, picture, len(_SHARES) * sum(len(pairs) for pairs in tried))
    found = [row for pairs in tried for row in _rows(marks, pairs, strip)]
    return tuple(sorted(found, key=lambda repeat: repeat.false_alarms))


def _rows(
    marks: Sequence[Mark], pairs: Sequence[tuple[int, int]], strip: _Strip
) -> Iterator[Repeat]:
    """The rows of a class, the surest first; its marks are taken before the next is looked for."""
    lanes = _lanes(pairs)
    rows: dict[tuple[int, int], Repeat | None] = {}
    taken: set[int] = set()
    changed = list(pairs)
    while True:
        for pair in changed:
            lane = sorted(lanes[pair] - taken, key=lambda k: (marks[k].along, k))
            rows[pair] = _surest(_row(marks, lane, pair, strip, share) for share in _SHARES)
        best = _surest(rows.values())
        if best is None or best.false_alarms > FALSE_ALARMS:
            break
        yield best
        taken.update(best.marks)
        rows = {pair: row for pair, row in rows.items() if taken.isdisjoint(pair)}
        # A lane that lost no mark proposes the very row that it proposed before.
        changed = [pair for pair in rows if not lanes[pair].isdisjoint(best.marks)]


def _surest(rows: Iterable[Repeat | None]) -> Repeat | None:
    """Of rows that are as sure, that of the shorter period: twice the period is one, too."""
    return min(filter(None, rows), key=lambda row: (row.false_alarms, row.period), default=None)


def _lanes(pairs: Sequence[tuple[int, int]]) -> dict[tuple[int, int], set[int]]:
    """For each pair the marks that may be of one damage with both."""
    beside: dict[int, set[int]] = {}
    for first, second in pairs:
        beside.setdefault(first, set()).add(second)
        beside.setdefault(second, set()).add(first)
    return {(first, second): beside[first] & beside[second] for first, second in pairs}


def _ordered(marks: Sequence[Mark], label: str) -> Iterator[int]:
    """Positions of a class's marks along the strip; none if it covers the strip."""
    own = [k for k, mark in enumerate(marks) if mark.label == label]
    if len(own) <= MOST_MARKS:
        yield from sorted(own, key=lambda k: marks[k].along)


def _pairs(marks: Sequence[Mark], group: Sequence[int], least: float) -> list[tuple[int, int]]:
    pairs = [(a, b) for a, b in combinations(group, 2) if _may_be_one(marks[a], marks[b], least)]
    return pairs if len(pairs) <= MOST_PAIRS else []


def _may_be_one(first: Mark, second: Mark, least: float) -> bool:
    """Whether one damage of a roll may have left both: alike in size, and in one lane."""
    return (
        max(first.length, second.length) <= _ALIKE * min(first.length, second.length)
        and max(first.width, second.width) <= _ALIKE * min(first.width, second.width)
        and abs(first.across - second.across) <= max((first.width + second.width) / 4, least)
    )


def _row(
    marks: Sequence[Mark],
    lane: Sequence[int],
    pair: tuple[int, int],
    strip: _Strip,
    share: float,
) -> Repeat | None:
    """What comes again at the distance of two marks; None if they cannot be one turn apart.

    None, too, if no third mark lies where it should.
    """
    first, second = (marks[k] for k in pair)
    period = second.along - first.along
    extent = (first.length + second.length) / 2
    # What fills half of a turn is no mark: it is how the surface looks.
    if not max(2 * extent, strip.length / _MOST_TURNS) < period <= strip.length / _LEAST_TURNS:
        return None
    margin = max(_SLACK * period, share * extent)
    if strip.picture and abs(math.remainder(period, strip.picture)) <= margin:
        return None
    along = [marks[k].along for k in lane]
    line = _Line()
    line.add(0, first.along)
    line.add(1, second.along)
    hits = {0: pair[0], 1: pair[1]}  # turn -> mark
    tried = 0
    for first_turn, step in ((2, 1), (-1, -1)):
        for turn in count(first_turn, step):
            expected = line.at(turn)
            if not 0 <= expected <= strip.length:
                break
            tried += 1
            near = _nearest(along, expected, margin)
            if near is not None and lane[near] not in hits.values():
                hits[turn] = lane[near]
                line.add(turn, along[near])
    if len(hits) == len(pair):
        return None
    chance = 1 - (1 - min(2 * margin / strip.length, 1)) ** len(lane)
    turns = sorted(hits)
    return Repeat(
        label=first.label,
        period=line.slope,
        deviation=_deviation(line, [(turn, marks[hits[turn]].along) for turn in turns]),
        marks=tuple(hits[turn] for turn in turns),
        turns=turns[-1] - turns[0],
        false_alarms=strip.attempts * tail(tried, len(hits) - 2, chance),
    )


class _Line:
    """The straight line of least squares through places over turns, point after point."""

    def __init__(self) -> None:
        self._n = self._t = self._tt = self._y = self._ty = 0.0

    def add(self, turn: int, place: float) -> None:
        """One more point."""
        self._n += 1
        self._t += turn
        self._tt += turn * turn
        self._y += place
        self._ty += turn * place

    @property
    def spread(self) -> float:
        """Σ (turn - mean)²; 0 for one point, through which there is no line yet."""
        return self._tt - self._t * self._t / self._n

    @property
    def slope(self) -> float:
        """Of the line: the period."""
        return (self._ty - self._t * self._y / self._n) / self.spread

    def at(self, turn: int) -> float:
        """Where a turn is expected."""
        return (self._y + self.slope * (self._n * turn - self._t)) / self._n


def _deviation(line: _Line, points: Sequence[tuple[int, float]]) -> float:
    """Standard error of the slope, of three points or more."""
    rest = math.fsum((place - line.at(turn)) ** 2 for turn, place in points)
    return math.sqrt(rest / (len(points) - 2) / line.spread)


def _nearest(along: Sequence[float], expected: float, margin: float) -> int | None:
    """Which of the ordered places lies nearest, if one lies within the margin."""
    after = bisect(along, expected)
    near = min(
        (k for k in (after - 1, after) if 0 <= k < len(along)),
        key=lambda k: abs(along[k] - expected),
        default=None,
    )
    return near if near is not None and abs(along[near] - expected) <= margin else None


def tail(trials: int, hits: int, chance: float) -> float:
    """Probability of at least `hits` in so many trials of one chance each."""
    from scipy.special import bdtrc

    return float(bdtrc(hits - 1, trials, chance))
