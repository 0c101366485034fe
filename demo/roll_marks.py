"""What comes again along a strip, in the mill's words: of one picture, or of those of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from core.pitch import PixelPitch
from core.records import Inspection
from core.repeats import Mark, Repeat, find_repeats
from core.taxonomy import title
from demo.words import Finding, findings

STRIP_FROM: Final = 2.0  # times as long as wide: less shows no roll turn often enough
_LEAST_PICTURES: Final = 3
_MOST_PLACES: Final = 12  # that a sentence lists


def coming_again(inspection: Inspection, pitch: PixelPitch | None = None) -> tuple[str, ...]:
    """One for each row of findings at equal distances; none for a picture that is no strip.

    Args:
        inspection: the answer; its longer side is taken to lie along the strip.
        pitch: steel that one pixel shows, for mm and the diameter of the roll; None: px.
    """
    width, height = inspection.image.width, inspection.image.height
    if max(width, height) < STRIP_FROM * min(width, height):
        return ()
    marks, length, beside = marks_of(inspection, pitch)
    found = find_repeats(marks, length=length, width=beside)
    in_px = [f"{mark.along:,.0f}" for mark in marks_of(inspection)[0]]  # as the table tells places
    return tuple(
        _sentence(repeat, f"at {_listed(repeat, in_px, '; ')} px", in_mm=pitch is not None)
        for repeat in found
    )


def coming_again_in(
    inspections: Sequence[Inspection], pitch: PixelPitch | None = None
) -> tuple[str, ...]:
    """The same for pictures that follow each other down a strip, row after row.

    None for fewer than three of them, or where they are not equally large.
    """
    sizes = {(seen.image.width, seen.image.height) for seen in inspections}
    if len(inspections) < _LEAST_PICTURES or len(sizes) > 1:
        return ()
    across, down = (pitch.across_mm, pitch.down_mm) if pitch else (1.0, 1.0)
    [(width, height)] = sizes
    marks, numbers = [], []
    for number, seen in enumerate(inspections):
        for row in findings(seen):
            if row.box is not None:
                mark = _mark(row, across, down, lies=False)
                marks.append(replace(mark, along=mark.along + number * height * down))
                numbers.append(str(number + 1))
    found = find_repeats(
        marks,
        length=len(inspections) * height * down,
        width=width * across,
        picture=height * down,
    )
    return tuple(
        _sentence(repeat, f"in pictures {_listed(repeat, numbers, ', ')}", in_mm=pitch is not None)
        for repeat in found
    )


def marks_of(
    inspection: Inspection, pitch: PixelPitch | None = None
) -> tuple[list[Mark], float, float]:
    """Findings with a place, in their order, and length and width of the strip; px, or mm."""
    width, height = inspection.image.width, inspection.image.height
    lies = width > height
    across, down = (pitch.across_mm, pitch.down_mm) if pitch else (1.0, 1.0)
    rows = [row for row in findings(inspection) if row.box is not None]
    sides = (width * across, height * down)
    return (
        [_mark(row, across, down, lies=lies) for row in rows],
        sides[not lies],
        sides[lies],
    )


def _mark(row: Finding, across: float, down: float, *, lies: bool) -> Mark:
    assert row.box is not None
    x1, y1, x2, y2 = row.box
    wide = ((x1 + x2) / 2 * across, (x2 - x1) * across)
    high = ((y1 + y2) / 2 * down, (y2 - y1) * down)
    (along, length), (beside, width) = (wide, high) if lies else (high, wide)
    return Mark(row.label, along, beside, length, width)


def _listed(repeat: Repeat, places: Sequence[str], between: str) -> str:
    more = " …" if len(repeat.marks) > _MOST_PLACES else ""
    return between.join(places[k] for k in repeat.marks[:_MOST_PLACES]) + more


def _sentence(repeat: Repeat, where: str, *, in_mm: bool) -> str:
    unit = "mm" if in_mm else "px"
    # A distance between boxes is not surer than a pixel or a millimetre, however well they fit.
    every = f"{repeat.period:,.0f} ± {max(2 * repeat.deviation, 1):,.0f} {unit}"
    places = f"at {len(repeat.marks)} of {repeat.turns + 1} places"
    roll = "A damaged roll leaves such marks"
    if in_mm:
        roll += f"; one of {repeat.diameter:,.0f} mm in diameter turns once in that"
    return f"{title(repeat.label)} again every {every} along the strip, {places} ({where}). {roll}."
