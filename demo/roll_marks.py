"""What comes again along a strip: in one picture, or in those of a batch as they came."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from core.pitch import PixelPitch
from core.records import FoundBox, FoundRepeat, FoundSegment, Inspection
from core.repeats import Mark, Repeat, find_repeats
from core.taxonomy import title

STRIP_FROM: Final = 2.0  # times as long as wide: less shows no roll turn often enough
_LEAST_PICTURES: Final = 3
_MOST_PLACES: Final = 12  # that a sentence lists


class RepeatOver(NamedTuple):
    """What comes again over several pictures; each of its findings is one of its own picture."""

    repeat: FoundRepeat
    pictures: tuple[int, ...]  # positions in what was given, from 0, one for each finding


def with_repeats(inspection: Inspection, pitch: PixelPitch | None = None) -> Inspection:
    """An answer with what comes again in it; most have nothing and stay as they are."""
    found = repeats_of(inspection, pitch)
    return inspection.model_copy(update={"repeats": found}) if found else inspection


def repeats_of(inspection: Inspection, pitch: PixelPitch | None = None) -> tuple[FoundRepeat, ...]:
    """What comes again along a picture, the surest first; nothing where it is no strip.

    Args:
        inspection: the answer; its longer side is taken to lie along the strip.
        pitch: steel that one pixel shows, for mm and the diameter of the roll; None: px alone.
    """
    width, height = inspection.image.width, inspection.image.height
    if max(width, height) < STRIP_FROM * min(width, height):
        return ()
    marks, length, beside = marks_of(inspection)
    return tuple(
        _record(each, each.marks, pitch, lies=width > height)
        for each in find_repeats(marks, length=length, width=beside)
    )


def repeats_over(
    inspections: Sequence[Inspection], pitch: PixelPitch | None = None
) -> tuple[RepeatOver, ...]:
    """The same for pictures that follow each other down a strip, row after row.

    Nothing for fewer than three of them, or where they are not equally large.
    """
    sizes = {(seen.image.width, seen.image.height) for seen in inspections}
    if len(inspections) < _LEAST_PICTURES or len(sizes) > 1:
        return ()
    [(width, height)] = sizes
    places = [(n, k) for n, seen in enumerate(inspections) for k in range(len(_placed(seen)))]
    marks = [
        replace(mark, along=mark.along + number * height)
        for number, seen in enumerate(inspections)
        for mark in (_mark(found, lies=False) for found in _placed(seen))
    ]
    found = find_repeats(
        marks, length=len(inspections) * height, width=width, picture=float(height)
    )
    return tuple(
        RepeatOver(
            _record(each, [places[k][1] for k in each.marks], pitch, lies=False),
            tuple(places[k][0] for k in each.marks),
        )
        for each in found
    )


def coming_again(inspection: Inspection, pitch: PixelPitch | None = None) -> tuple[str, ...]:
    """A sentence for each of `repeats_of`, in the mill's words."""
    placed = _placed(inspection)

    def where(repeat: FoundRepeat) -> str:
        first = 0 if repeat.axis == "x" else 1
        middles = [(placed[k].box[first] + placed[k].box[first + 2]) / 2 for k in repeat.findings]
        # As the table tells places along a strip.
        return f"at {_listed([f'{middle:,.0f}' for middle in middles], '; ')} px"

    return tuple(_sentence(each, where(each)) for each in repeats_of(inspection, pitch))


def coming_again_in(
    inspections: Sequence[Inspection], pitch: PixelPitch | None = None
) -> tuple[str, ...]:
    """A sentence for each of `repeats_over`."""
    return tuple(
        _sentence(repeat, f"in pictures {_listed([str(n + 1) for n in pictures], ', ')}")
        for repeat, pictures in repeats_over(inspections, pitch)
    )


def marks_of(inspection: Inspection) -> tuple[list[Mark], float, float]:
    """Findings with a place, in their order, and length and width of the strip; all in px."""
    width, height = inspection.image.width, inspection.image.height
    lies = width > height
    marks = [_mark(found, lies=lies) for found in _placed(inspection)]
    return marks, max(width, height), min(width, height)


def _placed(inspection: Inspection) -> Sequence[FoundBox | FoundSegment]:
    """What `FoundRepeat.findings` counts: boxes or regions; of a classifier nothing has a place."""
    return inspection.segments if inspection.task == "segment" else inspection.detections


def _mark(found: FoundBox | FoundSegment, *, lies: bool) -> Mark:
    x1, y1, x2, y2 = found.box
    wide, high = ((x1 + x2) / 2, x2 - x1), ((y1 + y2) / 2, y2 - y1)
    (along, length), (beside, width) = (wide, high) if lies else (high, wide)
    return Mark(found.label, along, beside, length, width)


def _record(
    repeat: Repeat, findings: Sequence[int], pitch: PixelPitch | None, *, lies: bool
) -> FoundRepeat:
    mm_per_px = None if pitch is None else pitch.across_mm if lies else pitch.down_mm
    return FoundRepeat(
        label=repeat.label,
        axis="x" if lies else "y",
        distance_px=_digits(repeat.period),
        deviation_px=_digits(repeat.deviation),
        distance_mm=None if mm_per_px is None else _digits(repeat.period * mm_per_px),
        diameter_mm=None if mm_per_px is None else _digits(repeat.diameter * mm_per_px),
        places=repeat.turns + 1,
        findings=tuple(findings),
        false_alarms=_digits(repeat.false_alarms),
    )


def _digits(value: float) -> float:
    """Six significant ones: of a strip of 40,000 px a tenth of a pixel."""
    return float(f"{value:.6g}")


def _listed(places: Sequence[str], between: str) -> str:
    more = " …" if len(places) > _MOST_PLACES else ""
    return between.join(places[:_MOST_PLACES]) + more


def _sentence(repeat: FoundRepeat, where: str) -> str:
    distance, deviation, unit = repeat.distance_px, repeat.deviation_px, "px"
    roll = "A damaged roll leaves such marks"
    if repeat.distance_mm is not None:
        deviation *= repeat.distance_mm / distance
        distance, unit = repeat.distance_mm, "mm"
        roll += f"; one of {repeat.diameter_mm:,.0f} mm in diameter turns once in that"
    # A distance between boxes is not surer than a pixel or a millimetre, however well they fit.
    every = f"{distance:,.0f} ± {max(2 * deviation, 1):,.0f} {unit}"
    places = f"at {len(repeat.findings)} of {repeat.places} places"
    return f"{title(repeat.label)} again every {every} along the strip, {places} ({where}). {roll}."
