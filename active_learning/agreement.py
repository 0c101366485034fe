"""How far people agree: two answers about one picture, compared class by class.

No model can be asked to agree with people better than they do with each other, and a class on
which they do not agree lacks a rule of what to draw, not images. Each pair of people who answered
the same image is compared; of one person's answers the newest holds.

The figure is the proportion of specific agreement (Fleiss, Levin and Paik, *Statistical Methods for
Rates and Proportions*): 2 s / (a + b), of what the one marked as a class (a) and the other (b) the
share that both did (s). It is the F-measure of either taken as the truth for the other. Boxes are
counted by place, regions by pixel, choices by image.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from active_learning.labelling import all_labels_given, labels_given
from active_learning.wording import count, named, number
from core.geometry import box_iou, class_map_from_record
from core.records import Annotation, Box
from core.taxonomy import is_sound
from core.types import Task

SAME_PLACE: Final = 0.5  # IoU from which on two boxes mark one place
RESAMPLES: Final = 1000
_FEWEST_IMAGES: Final = 5  # with an interval: of fewer a bootstrap knows nothing

How = Literal["boxes", "regions", "choice"]


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """How far people agree on one class; fractions in [0, 1]."""

    how: How
    label: str
    images: int  # on which at least one of two people marked it
    agreement: float  # 2 s / (a + b)
    low: float | None  # 95 %, bootstrap over images; None for too few of them
    high: float | None
    overlap: float | None  # mean IoU of the boxes that both drew; of regions the IoU of all pixels


@dataclass(frozen=True, slots=True)
class Agreement:
    """What came of comparing the answers of a project."""

    images: int  # that two people or more have answered
    people: int  # who answered them
    classes: tuple[ClassAgreement, ...]  # boxes, regions, choices; the least agreed first in each
    swapped: tuple[tuple[str, str, int], ...]  # one place or image, two classes; most often first


@dataclass(slots=True)
class _Count:
    """What one pair of people marked as one class on one image."""

    marked: float = 0.0  # by the one and by the other, added
    shared: float = 0.0
    overlap: float = 0.0  # sum of IoUs of shared boxes; of regions shared pixels
    whole: float = 0.0  # what `overlap` is a share of


_Counts = dict[tuple[How, str], _Count]


def agreement(answers: Iterable[Sequence[Annotation]]) -> Agreement:
    """Compare all pairs of people on each image.

    Args:
        answers: those about one image each time, oldest first; an image that one person alone has
            answered is left out.
    """
    images: list[_Counts] = []
    swapped: Counter[tuple[str, str]] = Counter()
    people: set[str] = set()
    for about in answers:
        given = {one.annotator: one for one in about}  # the newest of each
        if len(given) < 2:
            continue
        people.update(given)
        images.append(defaultdict(_Count))
        for first, second in combinations(given.values(), 2):
            _compare_boxes(first, second, images[-1], swapped)
            _compare_regions(first, second, images[-1])
            _compare_choices(first, second, images[-1], swapped)
    found = [
        _summary(how, label, images) for how, label in {key for each in images for key in each}
    ]
    found.sort(key=lambda one: (get_args(How).index(one.how), one.agreement, one.label))
    pairs = sorted(swapped.items(), key=lambda entry: (-entry[1], entry[0]))
    return Agreement(
        images=len(images),
        people=len(people),
        classes=tuple(found),
        swapped=tuple((one, other, times) for (one, other), times in pairs),
    )


# --- one image, two people -----------------------------------------------------------------------


def _compare_boxes(
    first: Annotation, second: Annotation, counts: _Counts, swapped: Counter[tuple[str, str]]
) -> None:
    left_out = _not_shown(first, second, "detect")
    if left_out is None or not (first.boxes or second.boxes):
        return
    ours, theirs = ([b for b in one.boxes if b[0] not in left_out] for one in (first, second))
    alone_of_ours, alone_of_theirs = [], []
    for label in {name for name, _ in (*ours, *theirs)}:
        a, b = ([box for name, box in side if name == label] for side in (ours, theirs))
        pairs = list(_matched(a, b))
        of_class = counts["boxes", label]
        of_class.marked += len(a) + len(b)
        of_class.shared += len(pairs)
        of_class.overlap += sum(iou for _, _, iou in pairs)
        of_class.whole += len(pairs)
        alone_of_ours += [(label, a[i]) for i in {*range(len(a))} - {i for i, _, _ in pairs}]
        alone_of_theirs += [(label, b[j]) for j in {*range(len(b))} - {j for _, j, _ in pairs}]
    places = ([box for _, box in alone] for alone in (alone_of_ours, alone_of_theirs))
    for i, j, _ in _matched(*places):
        one, other = sorted((alone_of_ours[i][0], alone_of_theirs[j][0]))
        swapped[one, other] += 1


def _not_shown(first: Annotation, second: Annotation, task: Task) -> set[str] | None:
    """Classes that either named and did not mark in this way; None: one of them marked nothing so.

    Who draws boxes and who brushes cannot be compared, nor can a class be that was only chosen.
    """
    left_out: set[str] = set()
    for said in (first, second):
        marked = {name for name in labels_given(said, task) if not is_sound(name)}
        named = {name for name in all_labels_given(said) if not is_sound(name)}
        if named and not marked:
            return None
        left_out |= named - marked
    return left_out


def _matched(a: Sequence[Box], b: Sequence[Box]) -> Iterator[tuple[int, int, float]]:
    """Pairs of places in `a` and `b`, each box once, of the greatest IoU in all."""
    from scipy.optimize import linear_sum_assignment

    if not a or not b:
        return
    iou = box_iou(a, b)
    rows, columns = linear_sum_assignment(np.where(iou >= SAME_PLACE, iou, 0.0), maximize=True)
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        if iou[i, j] >= SAME_PLACE:
            yield i, j, float(iou[i, j])


def _compare_regions(first: Annotation, second: Annotation, counts: _Counts) -> None:
    left_out = _not_shown(first, second, "segment")
    names = first.mask_labels or second.mask_labels
    if left_out is None or {first.mask_labels, second.mask_labels} - {(), names}:
        return  # or the classes on offer were others
    ours, theirs = map(_class_map, (first, second))
    for k, label in enumerate(names, start=1):
        a, b = ours == k, theirs == k
        marked, shared = int(a.sum()) + int(b.sum()), int((a & b).sum())
        if marked and label not in left_out:
            of_class = counts["regions", label]
            of_class.marked += marked
            of_class.shared += shared
            of_class.overlap += shared
            of_class.whole += marked - shared


def _class_map(said: Annotation) -> NDArray[np.uint8]:
    if said.mask is None:
        return np.zeros((said.height, said.width), np.uint8)
    return class_map_from_record(said.mask)


def _compare_choices(
    first: Annotation, second: Annotation, counts: _Counts, swapped: Counter[tuple[str, str]]
) -> None:
    if first.label is None or second.label is None:
        return
    for label in (first.label, second.label):
        counts["choice", label].marked += 1
    if first.label == second.label:
        counts["choice", first.label].shared += 1
    else:
        one, other = sorted((first.label, second.label))
        swapped[one, other] += 1


# --- all images ----------------------------------------------------------------------------------


def _summary(how: How, label: str, images: Sequence[_Counts]) -> ClassAgreement:
    from training.metrics import interval, resample_weights

    counts = [each[how, label] for each in images if (how, label) in each]
    marked = np.array([one.marked for one in counts])
    shared = np.array([one.shared for one in counts])
    low = high = None
    if len(counts) >= _FEWEST_IMAGES:
        names = [str(k) for k in range(len(counts))]
        drawn = resample_weights(names, resamples=RESAMPLES, seed=0)
        low, high = interval(2 * (drawn @ shared) / (drawn @ marked))
    whole = sum(one.whole for one in counts)
    return ClassAgreement(
        how=how,
        label=label,
        images=len(counts),
        agreement=float(2 * shared.sum() / marked.sum()),
        low=low,
        high=high,
        overlap=sum(one.overlap for one in counts) / whole if whole else None,
    )


# --- in words ------------------------------------------------------------------------------------

WAYS: Final[dict[How, str]] = {"boxes": "boxes", "regions": "brushed", "choice": "chosen"}


def in_words(one: ClassAgreement) -> str:
    """`scratches, boxes: 0.67 (0.41 to 0.86) on 12 images, what both drew overlaps by 0.80`."""
    return f"{named(one.label)}, {WAYS[one.how]}: {figures(one)}"


def figures(one: ClassAgreement) -> str:
    """What `in_words` tells after the colon."""
    said = number(one.agreement)
    if one.low is not None and one.high is not None:
        said += f" ({number(one.low)} to {number(one.high)})"
    said += f" on {count(one.images, 'image')}"
    if one.overlap is None:
        return said
    drawn = "what both drew" if one.how == "boxes" else "what they brushed"
    return f"{said}, {drawn} overlaps by {number(one.overlap)}"


def summary(found: Agreement) -> tuple[str, ...]:
    """What was swapped, and how much the figures rest on, a sentence each."""
    if not found.images:
        return (
            "no image was answered by two people yet: in Label Studio, open a task that somebody "
            "else has answered and add an annotation of your own",
        )
    swaps = tuple(
        f"{named(one)} to one and {named(other)} to the other: {count(times, 'time')}"
        for one, other, times in found.swapped
    )
    rest = f"{count(found.images, 'image')} answered by two people or more, {found.people} in all"
    return (*swaps, rest)
