"""What may stay on the steel: findings of a class up to a size that the mill's rules allow.

The rules are a file of the mill, read at the start. They say nothing about what a model sees or how
sure it is: doubts, the review queue and training know nothing of them. Only a verdict of `defect`
becomes `accept` where every place that makes it one may stay.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from active_learning.inspection import DECISIVE_AREA_SHARE, MAX_SEGMENTS
from active_learning.uncertainty import LIKELY
from active_learning.wording import count, named
from core.errors import ConfigError
from core.pitch import PixelPitch
from core.records import Box, FoundBox, FoundSegment, Inspection, Record

# A box that comes as near to the picture's edge may go on beyond it: nobody knows how long it is.
EDGE_PX: Final = 2.0


class Limit(Record):
    """Up to which size a class may stay, by the longer side of its box, and how often."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    up_to_mm: float | None = Field(None, gt=0)
    up_to_px: float | None = Field(None, gt=0)
    at_most: int | None = Field(None, ge=1)  # places in one picture; None: any number

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if (self.up_to_mm is None) == (self.up_to_px is None):
            raise ValueError("give either up_to_mm or up_to_px")
        return self

    def allows(self, box: Box, pitch: PixelPitch | None) -> bool:
        """Whether a finding with this box in px is small enough."""
        if self.up_to_px is not None:
            return max(box[2] - box[0], box[3] - box[1]) <= self.up_to_px
        return pitch is not None and max(pitch.size_mm(box)) <= (self.up_to_mm or 0.0)

    def __str__(self) -> str:
        return f"{self.up_to_px:g} px" if self.up_to_mm is None else f"{self.up_to_mm:g} mm"


_FILE: Final = TypeAdapter(dict[str, Limit])


class Tolerances:
    """The limit of each class that has one; a class without is a defect at any size.

    Args:
        limits: by label, as the models name their classes.
        pitch: steel that one pixel shows; needed for limits in mm.
    """

    def __init__(self, limits: Mapping[str, Limit], pitch: PixelPitch | None = None) -> None:
        self._limits, self._pitch = dict(limits), pitch

    @property
    def labels(self) -> tuple[str, ...]:
        """Classes that have a limit."""
        return tuple(self._limits)

    def judge(self, inspection: Inspection) -> Inspection:
        """The answer with what may stay marked, told in its reasons and kept out of its verdict.

        An answer of a classifier, which knows no sizes, stays as it is.
        """
        found: tuple[FoundBox | FoundSegment, ...] = inspection.detections or inspection.segments
        if not found or len(inspection.segments) >= MAX_SEGMENTS:  # then not all are listed
            return inspection
        decisive = [k for k, one in enumerate(found) if _decides(one, inspection)]
        staying: set[int] = set()
        said: list[str] = []
        for label, limit in self._limits.items():
            of_class = [k for k in decisive if found[k].label == label]
            small = [k for k in of_class if limit.allows(found[k].box, self._pitch)]
            whole = [k for k in small if not _is_cut_off(found[k].box, inspection)]
            if len(whole) < len(small):
                cut = count(len(small) - len(whole), "place")
                said.append(f"{named(label)}: {cut} cut off by the picture's edge, size not known")
            if limit.at_most is not None and len(whole) > limit.at_most:
                places = count(len(whole), "place")
                said.append(f"{named(label)}: {places} within {limit}, only {limit.at_most} may be")
            elif whole:
                staying.update(whole)
                places = f"{len(whole)} of {count(len(of_class), 'place')}"
                said.append(f"{named(label)}: {places} within the tolerance of {limit}")
        if not said:
            return inspection
        marked = tuple(
            one.model_copy(update={"tolerated": True}) if k in staying else one
            for k, one in enumerate(found)
        )
        is_free = inspection.verdict == "defect" and staying.issuperset(decisive)
        is_asked = inspection.verdict == "review"  # then why a person should look comes first
        return inspection.model_copy(
            update={
                "verdict": "accept" if is_free else inspection.verdict,
                "reasons": (*inspection.reasons, *said)
                if is_asked
                else (*said, *inspection.reasons),
                "detections" if inspection.detections else "segments": marked,
            }
        )


def read_tolerances(path: Path | None, pitch: PixelPitch | None) -> Tolerances | None:
    """The rules of a TOML file, a table for each class; None without a file.

    Args:
        path: the file; None: there are no rules.
        pitch: steel that one pixel shows; None where it is not known.

    Raises:
        ConfigError: if the file cannot be read, is no TOML, says what no rule can say, or gives
            millimetres where it is not known how much steel a pixel shows.
    """
    if path is None:
        return None
    try:
        limits = _FILE.validate_python(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as exc:
        raise ConfigError(f"Cannot read the tolerances in {path}: {exc.strerror}.") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"The tolerances in {path} are no TOML: {exc}.") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"The tolerances in {path} are wrong at {where}: {first['msg']}; "
            "a class has up_to_mm or up_to_px, and perhaps at_most."
        ) from exc
    if pitch is None:
        for label, limit in limits.items():
            if limit.up_to_mm is not None:
                raise ConfigError(
                    f"The tolerances in {path} give {limit} for {label}, but "
                    "ROLLMARK_SERVING__MM_PER_PX does not say how much steel a pixel shows."
                )
    return Tolerances(limits, pitch)


def _decides(one: FoundBox | FoundSegment, inspection: Inspection) -> bool:
    """Whether this place alone makes the verdict `defect`, as `to_inspection` judges it."""
    if isinstance(one, FoundBox):
        return one.probability >= LIKELY
    least_px = DECISIVE_AREA_SHARE * inspection.image.width * inspection.image.height
    return one.score >= LIKELY and one.area_px >= least_px


def _is_cut_off(box: Box, inspection: Inspection) -> bool:
    x1, y1, x2, y2 = box
    right, bottom = inspection.image.width - EDGE_PX, inspection.image.height - EDGE_PX
    return min(x1, y1) <= EDGE_PX or x2 >= right or y2 >= bottom
