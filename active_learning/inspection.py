"""From what a model says about an image to the answer a person reads: `Inspection`.

Scores are calibrated first; findings are those above the score threshold, doubts are measured on
everything the model was asked for, shown or not. The verdict is one of three: `defect` and
`accept` are the model's own, `review` asks for a person. Every verdict comes with its reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, assert_never

import numpy as np
from numpy.typing import NDArray

from active_learning import uncertainty as measure
from active_learning.calibration import apply, apply_temperature
from active_learning.novelty import doubt
from active_learning.uncertainty import ASK_FROM, LIKELY, NOT_SURE, SURE
from active_learning.wording import count, listed, named, number, told_apart
from core.errors import InputError
from core.geometry import mask_record, regions
from core.records import (
    FoundBox,
    FoundSegment,
    ImageFacts,
    Inspection,
    MaskRLE,
    ReleaseConfig,
    Verdict,
)
from core.taxonomy import is_sound
from core.types import Classification, Detections, Prediction, Segmentation

# A speck of a mask is shown and does not decide: 20 px of a 200 × 200 image.
DECISIVE_AREA_SHARE: Final = 0.0005
MAX_SEGMENTS: Final = 300  # listed per image, largest first; the mask itself is always whole
_TELL: Final = 0.5  # a doubt from which it is worth a sentence of its own
_NAMED_BOXES: Final = 3  # doubtful boxes that a reason names before it only counts

_IN_DOUBT: Final = f"in doubt ({NOT_SURE:.2f} to {SURE:.2f})"


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the three kinds of prediction have in common once they are read."""

    uncertainty: float
    likely: bool  # something shown is more likely a defect than not
    doubts: tuple[str, ...]  # why a person should look, strongest first
    summary: str  # what the model is sure of
    hidden: str = ""  # a likely defect that the score threshold keeps from being shown
    detections: tuple[FoundBox, ...] = ()
    segments: tuple[FoundSegment, ...] = ()
    probabilities: dict[str, float] | None = None
    mask: MaskRLE | None = None


def to_inspection(
    prediction: Prediction,
    *,
    release: ReleaseConfig,
    score_threshold: float | None,
    review_threshold: float | None = None,
    novelty: float | None = None,
) -> Inspection:
    """Read a prediction: calibrated findings, verdict and reasons.

    Args:
        prediction: boxes down to `uncertainty.ACQUISITION_THRESHOLD`, whatever is shown.
        release: of the model that predicted; its calibration and its own score threshold.
        score_threshold: lowest raw score of a box, or probability of a region, that is shown, in
            [0, 1]; None: the release's own.
        review_threshold: uncertainty from which on a person should look, in [0, 1]; None: the
            release's own, and `ASK_FROM` for novelty and where none was fitted.
        novelty: of `novelty.novelty_of`, in [0, 1); None where the release cannot tell.

    Raises:
        InputError: if a threshold lies outside [0, 1].
        WeightsError: if the release's calibration is damaged or of another task.
    """
    shown_from = release.score_threshold if score_threshold is None else score_threshold
    strange_from = ASK_FROM if review_threshold is None else review_threshold
    unsure_from = (release.ask_from or ASK_FROM) if review_threshold is None else review_threshold
    for name, value in (("Review", unsure_from), ("Score", shown_from)):
        if not 0 <= value <= 1:
            raise InputError(f"{name} threshold is {value:g}; it must lie in [0, 1].")
    match prediction:
        case Detections():
            answer = _read_boxes(prediction, release, shown_from)
        case Segmentation():
            answer = _read_mask(prediction, release, shown_from)
        case Classification():
            answer = _read_classes(prediction, release)
        case _:
            assert_never(prediction)
    verdict, reasons = _judge(
        answer, novelty or 0.0, unsure_from=unsure_from, strange_from=strange_from
    )
    source = prediction.source
    return Inspection(
        model=source.model,
        revision=source.revision,
        task=release.task,
        image=ImageFacts(sha256=source.image_sha256, width=source.width, height=source.height),
        detections=answer.detections,
        segments=answer.segments,
        probabilities=answer.probabilities or {},
        mask=answer.mask,
        uncertainty=round(max(answer.uncertainty, doubt(novelty or 0.0)), 4),
        verdict=verdict,
        reasons=reasons,
        latency_ms=round(source.latency_ms, 2),
    )


def _judge(
    answer: _Answer, novelty: float, *, unsure_from: float, strange_from: float
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict and why; a review names its doubts, any other verdict what it is sure of."""
    doubts = list(answer.doubts)
    if answer.hidden:
        doubts.insert(0, answer.hidden)
    strangeness = doubt(novelty)
    if strangeness >= min(_TELL, strange_from) > 0:
        doubts.insert(
            0,
            f"unlike anything seen in training: further from it than {100 * novelty:.1f} % of "
            "ordinary images",
        )
    if answer.uncertainty >= unsure_from or strangeness >= strange_from or answer.hidden:
        asked, limit = answer.uncertainty, unsure_from
        if asked < limit:
            asked, limit = strangeness, strange_from
        return "review", tuple(doubts) or (
            f"{answer.summary}, yet uncertainty {number(asked)} reaches {number(limit)}",
        )
    said = dict.fromkeys((answer.summary, *doubts))  # one doubtful box is both
    return ("defect" if answer.likely else "accept"), tuple(said)


# --- boxes -------------------------------------------------------------------------------------


def _read_boxes(prediction: Detections, release: ReleaseConfig, shown_from: float) -> _Answer:
    labels = [prediction.labels[k] for k in prediction.class_ids]
    p = apply(release.calibration, prediction.scores, labels)
    shown = prediction.scores >= np.float32(shown_from)  # as 0.25 was compared by the predictor
    detections = tuple(
        FoundBox(
            label=labels[k],
            score=round(float(prediction.scores[k]), 4),
            probability=round(float(p[k]), 4),
            box=_box(prediction.xyxy[k]),
        )
        for k in np.flatnonzero(shown)
    )
    overlap = measure.strongest_overlap(prediction.xyxy, p, prediction.class_ids)
    return _Answer(
        uncertainty=measure.boxes_uncertainty(prediction.xyxy, p, prediction.class_ids),
        likely=bool((shown & (p >= LIKELY)).any()),
        doubts=_box_doubts(prediction, labels, p, overlap),
        summary=_box_summary(labels, p),
        hidden=_hidden(prediction, labels, p, shown, shown_from),
        detections=detections,
    )


def _box_summary(labels: Sequence[str], p: measure.Floats) -> str:
    if not len(p):
        return "the model sees nothing that might be a defect"
    best = int(p.argmax())
    limit = f"sure ({SURE:.2f} or more)" if p[best] >= SURE else _IN_DOUBT
    if p[best] < NOT_SURE:
        return (
            f"nothing is likely ({NOT_SURE:.2f} or more): "
            f"the best is {named(labels[best])} {number(p[best])}"
        )
    return f"{named(labels[best])} {number(p[best])} is {limit}"


def _box_doubts(
    prediction: Detections,
    labels: Sequence[str],
    p: measure.Floats,
    overlap: measure.Overlap | None,
) -> tuple[str, ...]:
    doubts = []
    if overlap and overlap.ambiguity >= _TELL:
        x1, y1, x2, y2 = prediction.xyxy[[overlap.first, overlap.second]].mean(axis=0)
        pair = listed(
            [f"{named(labels[k])} {number(p[k])}" for k in (overlap.first, overlap.second)]
        )
        doubts.append(
            f"two boxes of different classes overlap by {number(overlap.iou)} "
            f"at ({(x1 + x2) / 2:.0f}, {(y1 + y2) / 2:.0f}) px: {pair}"
        )
    open_boxes = np.flatnonzero((p >= NOT_SURE) & (p < SURE))
    # The most open first: nearest to one half.
    for k in open_boxes[np.argsort(np.abs(p[open_boxes] - LIKELY), kind="stable")][:_NAMED_BOXES]:
        doubts.append(f"{named(labels[k])} {number(p[k])} is {_IN_DOUBT}")
    more = len(open_boxes) - _NAMED_BOXES
    if more > 0:
        doubts.append(f"{more} more {'box is' if more == 1 else 'boxes are'} in doubt")
    escape = measure.escape_ambiguity(p)
    if escape >= _TELL and not len(open_boxes):
        doubts.append(
            f"{len(p)} faint boxes together make a defect {number(escape)} probable, "
            f"the best is {named(labels[int(p.argmax())])} {number(float(p.max()))}"
        )
    low, high = measure.count_range(p)
    if high - low > 1:
        doubts.append(f"there may be {low} to {high} defects")
    return tuple(doubts)


def _hidden(
    prediction: Detections,
    labels: Sequence[str],
    p: measure.Floats,
    shown: NDArray[np.bool_],
    shown_from: float,
) -> str:
    """The sentence about a likely defect that is not shown, where nothing likely is shown."""
    likely = p >= LIKELY
    if (likely & shown).any() or not likely.any():
        return ""
    best = int(np.where(likely, p, -1).argmax())
    score, limit = told_apart(float(prediction.scores[best]), shown_from)
    return (
        f"{named(labels[best])} is {number(float(p[best]))} probable but hidden: its score "
        f"{score} is below the score threshold {limit}"
    )


def _box(xyxy: NDArray[np.float32]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (round(float(v), 2) for v in xyxy)
    return x1, y1, x2, y2


# --- masks -------------------------------------------------------------------------------------


def _read_mask(prediction: Segmentation, release: ReleaseConfig, shown_from: float) -> _Answer:
    class_map, labels = prediction.class_map, prediction.labels
    p = np.array(prediction.scores, dtype=np.float64)
    for k, label in enumerate(labels, start=1):  # the curves are of defects, not of the background
        where = class_map == k
        p[where] = apply(release.calibration, p[where], label)
    every = regions(class_map, p.astype(np.float32), labels)
    found = [r for r in every if r.score >= shown_from]
    least_px = DECISIVE_AREA_SHARE * class_map.size
    likely = [r for r in every if r.score >= LIKELY and r.area_px >= least_px]
    decisive = [r for r in likely if r.score >= shown_from]
    outline = measure.boundary_entropy(class_map, p)
    inside = measure.interior_entropy(class_map, p)
    doubts = [
        (outline, f"the outlines are blurred: {number(outline)} of 1"),
        (inside, f"a region may be missing, or be one too many: doubt {number(inside)} of 1"),
    ]
    return _Answer(
        uncertainty=max(outline, inside),
        likely=bool(decisive),
        doubts=tuple(words for value, words in sorted(doubts, reverse=True) if value >= _TELL),
        summary=_mask_summary(found, decisive),
        hidden="" if decisive or not likely else _hidden_region(likely[0], shown_from),
        segments=tuple(_rounded(region) for region in found[:MAX_SEGMENTS]),
        mask=mask_record(class_map, len(labels)),
    )


def _mask_summary(found: Sequence[FoundSegment], decisive: Sequence[FoundSegment]) -> str:
    if decisive:
        largest = decisive[0]
        return (
            f"{count(len(decisive), 'region')} of defects, the largest {named(largest.label)} "
            f"of {largest.area_px} px at {number(largest.score)}"
        )
    if found:
        return f"only specks are marked, the largest of {found[0].area_px} px: too few to decide"
    return "no region of a defect is marked"


def _hidden_region(region: FoundSegment, shown_from: float) -> str:
    """The sentence about the largest likely region, where the threshold lets none be shown."""
    score, limit = told_apart(region.score, shown_from)
    return (
        f"{named(region.label)} of {region.area_px} px is {score} probable but "
        f"hidden: that is below the score threshold {limit}"
    )


def _rounded(region: FoundSegment) -> FoundSegment:
    return region.model_copy(update={"score": round(region.score, 4)})


# --- whole images ------------------------------------------------------------------------------


def _read_classes(prediction: Classification, release: ReleaseConfig) -> _Answer:
    """Without a class for sound steel a classifier is sure of a defect, or it asks."""
    p = apply_temperature(release.calibration, prediction.probabilities)
    ranked = [int(k) for k in np.argsort(-p, kind="stable")]
    best = f"{named(prediction.labels[ranked[0]])} {number(float(p[ranked[0]]))}"
    doubt = float(measure.margin(p))
    summary, close = f"{best} is the only class", ""
    if len(ranked) > 1:
        next_best = f"{named(prediction.labels[ranked[1]])} {number(float(p[ranked[1]]))}"
        summary = f"{best} leads {next_best}"
        close = f"{best} and {next_best} are close" if doubt >= _TELL else ""
    return _Answer(
        uncertainty=doubt,
        likely=not is_sound(prediction.labels[ranked[0]]),
        doubts=(close,) if close else (),
        summary=summary,
        probabilities={
            label: round(float(value), 4) for label, value in zip(prediction.labels, p, strict=True)
        },
    )
