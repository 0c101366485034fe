"""What several models say together about one image: how far they disagree, where, and in words.

Models of different tasks and data sets are compared through the common-defect table of
`core.taxonomy`. A pair of models is judged only on classes that both know: nobody can miss what it
was never taught. A classifier names the one main class of an image and is asked about that alone;
one that names its class for sound steel has found nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from active_learning.vote import Opinion, sentence_of
from active_learning.wording import listed, named, number
from core.errors import InputError
from core.geometry import box_areas, box_iou, common_areas
from core.records import Box, Inspection
from core.taxonomy import CLASSES, COMMON_DEFECT_VERSION, is_sound, translate
from core.taxonomy import labels as labels_of
from core.types import Task

# Public annotations of steel differ in where a box ends more than in what it is: a difference in
# place weighs half of a difference in class.
PLACE_WEIGHT: Final = 0.5
# A box is seen by the other model too if they share this much of the smaller of two boxes; IoU
# would call one long box and its three short halves four different findings.
SHARED_AREA: Final = 0.5
_MATCH_IOU: Final = 0.1  # of two boxes that may be one finding
_GRID: Final = 256  # cells along the long side, for areas
_TELL: Final = 0.2  # weighted difference from which it is worth a sentence

Kind = Literal["conflict", "missed", "extra", "boxes", "area"]
_WEIGHT: Final[Mapping[Kind, float]] = {
    "conflict": 1.0,
    "missed": 1.0,
    "extra": PLACE_WEIGHT,
    "boxes": PLACE_WEIGHT,
    "area": PLACE_WEIGHT,
}


@dataclass(frozen=True, slots=True)
class Committee:
    """What the models say together.

    `disagreement` is the mean over all pairs of models with a class in common: 0 if each pair
    agrees, 1 if each contradicts the other outright. One sure dissenter of five makes 0.4.
    """

    disagreement: float
    reasons: tuple[str, ...]
    sentence: str
    mapping_version: int = COMMON_DEFECT_VERSION


@dataclass(frozen=True, slots=True)
class _Difference:
    """One way in which two models differ."""

    kind: Kind
    size: float  # [0, 1], not yet weighted
    names: tuple[str, ...]  # common names
    models: tuple[str, ...]  # two; where one found more, that one first


def compare(
    inspections: Sequence[Inspection],
    *,
    labels: Mapping[str, Sequence[str]] | None = None,
    titles: Mapping[str, str] | None = None,
) -> Committee:
    """Judge the answers of several models about the same image.

    Args:
        inspections: one per model.
        labels: classes that each model was taught, by its name. Without them, a model is taken to
            know what any model of its task has named, and a classifier what it gave a probability.
        titles: what people call a model, by its name; without one, it is called by its name.

    Raises:
        InputError: if the inspections are of different images.
    """
    images = {inspection.image.sha256 for inspection in inspections}
    if len(images) > 1:
        raise InputError(f"A committee judges one image, got inspections of {len(images)}.")
    taught = _taught(inspections, labels or {})
    called = titles or {}
    opinions = [
        _opinion(i, called.get(i.model, i.model), known)
        for i, known in zip(inspections, taught, strict=True)
    ]
    found: list[_Difference] = []
    sizes = []
    for a, b in combinations(opinions, 2):
        if a.known & b.known:
            differences = list(_differences(a, b))
            found += differences
            sizes.append(max((d.size * _WEIGHT[d.kind] for d in differences), default=0.0))
    return Committee(
        disagreement=round(float(np.mean(sizes)), 4) if sizes else 0.0,
        reasons=_reasons(found),
        sentence=sentence_of(opinions),
    )


def common_name(label: str) -> str:
    """One name for the same defect in all data sets; a class without counterpart keeps its own."""
    for source in CLASSES:
        if label in labels_of(source):
            for target in CLASSES:
                same = translate(label, source=source, target=target)
                if same is not None:
                    return same
    return label


# --- reading -----------------------------------------------------------------------------------


def _taught(
    inspections: Sequence[Inspection], labels: Mapping[str, Sequence[str]]
) -> list[frozenset[str]]:
    by_task: dict[Task, set[str]] = {}
    for inspection in inspections:
        by_task.setdefault(inspection.task, set()).update(_named_in(inspection))
    taught = []
    for i in inspections:
        given = labels.get(i.model) or i.probabilities or by_task[i.task]
        taught.append(frozenset(common_name(label) for label in given))
    return taught


def _named_in(inspection: Inspection) -> set[str]:
    boxes, regions = inspection.detections, inspection.segments
    return {*(d.label for d in boxes), *(s.label for s in regions), *inspection.probabilities}


def _opinion(inspection: Inspection, called: str, known: frozenset[str]) -> Opinion:
    claims = [(d.label, d.probability, d.box) for d in inspection.detections]
    claims += [(s.label, s.score, s.box) for s in inspection.segments]
    boxes: dict[str, list[Box]] = {}
    chances: dict[str, list[float]] = {}
    for label, probability, box in claims:
        boxes.setdefault(common_name(label), []).append(box)
        chances.setdefault(common_name(label), []).append(probability)
    seen = {name: max(values) for name, values in chances.items()}
    if inspection.probabilities:
        label, probability = max(inspection.probabilities.items(), key=lambda entry: entry[1])
        seen = {} if is_sound(label) else {common_name(label): probability}
    return Opinion(
        called=called,
        task=inspection.task,
        size=(inspection.image.width, inspection.image.height),
        known=known,
        seen=dict(sorted(seen.items(), key=lambda entry: -entry[1])),
        boxes={name: np.asarray(values, np.float64) for name, values in boxes.items()},
        chances={name: np.asarray(values, np.float64) for name, values in chances.items()},
    )


# --- comparing two -----------------------------------------------------------------------------


def _differences(a: Opinion, b: Opinion) -> Iterator[_Difference]:
    """Every way in which two models differ on classes that both know."""
    shared = a.known & b.known
    in_a = {name: p for name, p in a.seen.items() if name in shared}
    in_b = {name: p for name, p in b.seen.items() if name in shared}
    only_a, only_b = in_a.keys() - in_b.keys(), in_b.keys() - in_a.keys()
    classifier = "classify" in (a.task, b.task)
    if in_a and in_b and not in_a.keys() & in_b.keys():
        claims = sorted([(next(iter(in_a)), a), (next(iter(in_b)), b)], key=lambda claim: claim[0])
        size = min(opinion.seen[name] for name, opinion in claims)
        names, models = tuple(n for n, _ in claims), tuple(o.called for _, o in claims)
        yield _Difference("conflict", size, names, models)
    else:
        yield from _missed(a, b, {name: in_a[name] for name in only_a})
        yield from _missed(b, a, {name: in_b[name] for name in only_b})
    if not classifier:
        for name in sorted(in_a.keys() & in_b.keys()):
            yield from _places(a, b, name)


def _missed(finder: Opinion, other: Opinion, only: Mapping[str, float]) -> Iterator[_Difference]:
    """Classes that one model found and the other, which knows them, did not."""
    if other.task == "classify" and other.seen:
        return  # it names one class: a second one in the image is none of its business
    if finder.task == "classify" and other.seen.keys() - finder.known:
        return  # it had to name something, and was never taught what the other found
    for name, probability in only.items():
        yield _Difference("missed", probability, (name,), (finder.called, other.called))


def _places(a: Opinion, b: Opinion, name: str) -> Iterator[_Difference]:
    """How two locators that see the same class differ in where it is."""
    models = (a.called, b.called)
    if a.task == b.task == "detect":
        iou = box_iou(a.boxes[name], b.boxes[name])
        matched = [iou[i, j] for i, j in _greedy(iou)]
        if matched:
            yield _Difference("boxes", 1 - float(np.mean(matched)), (name,), models)
        for finder, other in ((a, b), (b, a)):
            alone = ~_is_shared(finder.boxes[name], other.boxes[name])
            if alone.any():
                size = float(finder.chances[name][alone].max())
                yield _Difference("extra", size, (name,), (finder.called, other.called))
    else:
        covered_a = _covered(a.boxes[name], a.size)
        covered_b = _covered(b.boxes[name], a.size)
        union = int((covered_a | covered_b).sum())
        iou_area = int((covered_a & covered_b).sum()) / union if union else 1.0
        yield _Difference("area", 1 - iou_area, (name,), models)


def _greedy(iou: NDArray[np.float64]) -> Iterator[tuple[int, int]]:
    """Pairs of boxes, best overlap first, each box once."""
    left = iou.copy()
    while left.size and left.max() >= _MATCH_IOU:
        i, j = np.unravel_index(int(left.argmax()), left.shape)
        left[i, :] = left[:, j] = -1.0
        yield int(i), int(j)


def _is_shared(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which boxes (n, 4) share at least half of the smaller area with one of the others."""
    common = common_areas(boxes, others)
    smaller = np.minimum(box_areas(boxes)[:, None], box_areas(others))
    return np.asarray((common >= SHARED_AREA * np.maximum(smaller, 1e-9)).any(axis=1))


def _covered(boxes: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Cells of a coarse grid over the image that lie in any of the boxes."""
    width, height = size
    scale = _GRID / max(width, height)
    grid = np.zeros((max(round(height * scale), 1), max(round(width * scale), 1)), dtype=np.bool_)
    for x1, y1, x2, y2 in np.round(boxes * scale).astype(int):
        grid[y1 : max(y2, y1 + 1), x1 : max(x2, x1 + 1)] = True
    return grid


# --- words -------------------------------------------------------------------------------------


def _reasons(found: Sequence[_Difference]) -> tuple[str, ...]:
    """One sentence for all that is alike, the heaviest first; small differences go untold."""
    alike: dict[tuple[Kind, tuple[str, ...]], list[_Difference]] = {}
    for d in found:
        if d.size * _WEIGHT[d.kind] >= _TELL:
            alike.setdefault((d.kind, d.names), []).append(d)
    told = sorted(alike.values(), key=lambda group: -max(d.size * _WEIGHT[d.kind] for d in group))
    return tuple(_reason(group) for group in told)


def _reason(group: Sequence[_Difference]) -> str:
    worst = max(group, key=lambda d: d.size)
    first, second = (listed(list(dict.fromkeys(d.models[side] for d in group))) for side in (0, 1))
    names = [named(name) for name in worst.names]
    match worst.kind:
        case "conflict":
            return f"classes disagree: {names[0]} by {first}, {names[1]} by {second}"
        case "missed":
            return f"{names[0]} {number(worst.size)} is found by {first} and missed by {second}"
        case "extra":
            one, other = worst.models
            return f"{one} marks {names[0]} {number(worst.size)} in a place where {other} does not"
        case "boxes":
            overlap = number(1 - worst.size)
            return f"boxes of {names[0]} by {listed(worst.models)} overlap by {overlap}"
        case "area":
            share = number(1 - worst.size)
            return f"{listed(worst.models)} share {share} of the area they mark as {names[0]}"
