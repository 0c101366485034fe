"""An inspection in the mill's words: findings as rows, the verdict as one line, numbers as read.

Pure functions from `core.records`; nothing here knows a web page or a picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from active_learning.uncertainty import LIKELY
from active_learning.uncertainty import NOT_SURE as NOT_SURE_FROM
from active_learning.wording import capital as capital
from active_learning.wording import count as count
from core.pitch import PixelPitch
from core.records import Box, Inspection, Source
from core.taxonomy import title

NOT_SURE: Final = "Not sure: a person should look"
NOTHING: Final = "Nothing found"
TOLERATED: Final = "Within tolerance"
SOURCES: Final[dict[Source, str]] = {  # where a release came from
    "bundled": "bundled",
    "local": "promoted here",
    "hub": "from the Hub",
    "hub-cached": "from the Hub, which cannot be asked now",
}
STRIP_FROM: Final = 5.0  # times as long as wide
_WIDER: Final = 1.3  # than high: what a folded strip is, roughly
_COLUMNS: Final = ("left", "centre", "right")
_ROWS: Final = ("upper", "middle", "lower")


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the findings table; a box of None means the whole image."""

    number: int  # from 1, in the order shown
    label: str
    probability: float
    box: Box | None = None  # px of the source image
    area_px: int | None = None  # of a region of a mask
    tolerated: bool = False  # the mill's rules let it stay


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict in large type, and what is worth adding in small type."""

    text: str
    detail: str


def findings(inspection: Inspection) -> tuple[Finding, ...]:
    """What was found, most probable first; of a classifier every class, of a mask every region.

    Regions of a mask keep their own order, largest first.
    """
    if inspection.task == "classify":
        ranked = sorted(inspection.probabilities.items(), key=lambda entry: -entry[1])
        return tuple(Finding(k, label, p) for k, (label, p) in enumerate(ranked, start=1))
    if inspection.task == "segment":
        return tuple(
            Finding(k, s.label, s.score, s.box, s.area_px, s.tolerated)
            for k, s in enumerate(inspection.segments, start=1)
        )
    boxes = sorted(inspection.detections, key=lambda found: -found.probability)
    return tuple(
        Finding(k, d.label, d.probability, d.box, tolerated=d.tolerated)
        for k, d in enumerate(boxes, start=1)
    )


def headline(inspection: Inspection) -> Headline:
    """The verdict: "Scratches, 0.93 probable · 2 places", "Nothing found", or a call for a person.

    The detail names the other classes that were found, what an unsure model leans to, and how many
    places may stay.
    """
    summaries = summarise(inspection)
    staying = sum(finding.tolerated for finding in findings(inspection))
    if inspection.verdict == "review":
        leaning = f"Most likely {'; '.join(summaries)}." if summaries else "Nothing stands out."
        return Headline(NOT_SURE, leaning)
    if inspection.verdict == "accept" and staying:
        return Headline(TOLERATED, f"{'; '.join(summaries)}.")
    if inspection.verdict == "accept" or not summaries:
        return Headline(NOTHING, "No defect is probable enough to be shown.")
    others = f"Also {'; '.join(summaries[1:])}." if len(summaries) > 1 else ""
    may_stay = f"{count(staying, 'place')} within tolerance." if staying else ""
    return Headline(summaries[0], " ".join(filter(None, (others, may_stay))))


def summarise(inspection: Inspection) -> tuple[str, ...]:
    """One phrase a class, the most probable class first: "Scratches, 0.93 probable · 2 places".

    Places that are not likely are told apart: "2 places, 7 more in doubt".
    """
    found = findings(inspection)
    if inspection.task == "classify":
        return tuple(f"{title(f.label)}, {number(f.probability)} probable" for f in found[:1])
    chances: dict[str, list[float]] = {}
    for finding in found:
        chances.setdefault(finding.label, []).append(finding.probability)
    return tuple(
        f"{title(label)}, {number(max(each))} probable · {_places(each)}"
        for label, each in sorted(chances.items(), key=lambda entry: -max(entry[1]))
    )


def _places(chances: Sequence[float]) -> str:
    """How many places are likely, as the verdict means it, and how many more are in doubt.

    Beside likely places those that are hardly probable are left to the table.
    """
    likely = sum(p >= LIKELY for p in chances)
    if likely:
        open_ = sum(NOT_SURE_FROM <= p < LIKELY for p in chances)
        more = f", {open_} more in doubt" if open_ else ""
        return f"{count(likely, 'place')}{more}"
    doubtful = len(chances)
    return count(doubtful, "place") + (", all in doubt" if doubtful > 1 else "")


def short(model_title: str) -> str:
    """A model's title without what it is made of: "GRACE (YOLO11s + …)" is "GRACE"."""
    return model_title.partition(" (")[0]


def number(fraction: float) -> str:
    """A probability with two significant digits; never a rounded 0 or 1, which would be a claim."""
    if fraction >= 0.995:
        return "> 0.99"
    if fraction < 0.01:
        return "< 0.01"
    return f"{fraction:.2f}" if fraction >= 0.1 else f"{fraction:.2g}"


def size(box: Box, pitch: PixelPitch | None = None) -> str:
    """Width × height in px, or in mm where it is known what a pixel shows."""
    if pitch is not None:
        width_mm, height_mm = pitch.size_mm(box)
        return f"{_length(width_mm)} × {_length(height_mm)} mm"
    x1, y1, x2, y2 = box
    return f"{x2 - x1:.0f} × {y2 - y1:.0f} px"


def area(area_px: int, pitch: PixelPitch | None = None) -> str:
    """An area in px², or in mm² where it is known what a pixel shows."""
    return f"{area_px} px²" if pitch is None else f"{_length(pitch.area_mm2(area_px))} mm²"


def _length(value: float) -> str:
    """Two significant digits below ten, whole numbers above: "0.048", "2.4", "12", "1,150"."""
    if value == 0 or value >= 9.95:
        return f"{value:,.0f}"
    return f"{value:#.2g}" if value >= 0.0001 else "< 0.0001"


def place(box: Box, width: int, height: int) -> str:
    """Where the middle of a box lies in a grid of three by three: "upper left", "centre".

    Along a strip it is told in px from its beginning: "at 5,120 px".
    """
    x1, y1, x2, y2 = box
    if max(width, height) >= STRIP_FROM * min(width, height):
        return f"at {(x1 + x2) / 2 if width > height else (y1 + y2) / 2:,.0f} px"
    if x2 - x1 > 0.8 * width and y2 - y1 > 0.8 * height:
        return "whole image"
    column = _COLUMNS[min(int(1.5 * (x1 + x2) / width), 2)]
    row = _ROWS[min(int(1.5 * (y1 + y2) / height), 2)]
    if row == "middle":
        return column
    return row if column == "centre" else f"{row} {column}"


def rows_of(width: int, height: int) -> int:
    """In how many rows a picture of this size is shown; 1 unless it is a strip.

    A strip that stands is folded into as many columns.
    """
    ratio = max(width, height) / min(width, height)
    return 1 if ratio < STRIP_FROM else max(2, round(math.sqrt(ratio / _WIDER)))


def duration(milliseconds: float) -> str:
    """Two significant digits with the unit that suits: "23 ms", "290 ms", "1.4 s"."""
    if milliseconds < 995:
        return f"{_two_digits(milliseconds)} ms"
    return f"{_two_digits(milliseconds / 1000)} s"


def _two_digits(value: float) -> str:
    return f"{value:.1f}" if value < 9.95 else f"{float(f'{value:.2g}'):.0f}"


def age(seconds: float) -> str:
    """How long something has been so: "under 1 min", "3 min", "2 h", "5 days"."""
    minutes = int(seconds // 60)
    if minutes < 1:
        return "under 1 min"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h"
    return f"{minutes // (24 * 60)} days"


def alternative_text(inspection: Inspection) -> str:
    """The picture in words, for people who do not see it."""
    summaries = summarise(inspection)
    shown = "; ".join(summaries) if summaries else "nothing found"
    return f"Steel surface, {inspection.image.width} × {inspection.image.height} pixels: {shown}."


def labels_found(inspections: Sequence[Inspection]) -> tuple[str, ...]:
    """Every label that is drawn for these inspections, in the order first met."""
    labels: dict[str, None] = {}
    for inspection in inspections:
        rows = findings(inspection)
        for row in rows[:1] if inspection.task == "classify" else rows:
            labels.setdefault(row.label)
    return tuple(labels)
