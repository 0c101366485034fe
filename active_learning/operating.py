"""From which score on a release shows a finding, and what that costs: counted on validation alone.

The score at which strict boxes have the best F1 hides what people would want to see: where a
surface without edges is divided differently than its annotator did, no box fits at IoU 0.5, though
all of them lie on the defect. Here a finding counts for where it lies, not for how well it fits: it
is right if at least a tenth of it is labelled with its class, and a defect is found if at least a
tenth of it is covered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from active_learning.calibration import apply
from core.geometry import box_areas, common_areas, numbered_regions
from core.operating import OperatingCurve

if TYPE_CHECKING:
    from core.types import Segmentation
    from training.detection_metrics import Scene

Floats = NDArray[np.float64]

ON: Final = 0.1  # share of a finding, or of a defect, that the other covers
SPARED: Final = 0.005  # of F1, given up for fewer boxes
TOLD: Final = tuple(round(0.05 * k, 2) for k in range(1, 20))  # thresholds kept in the release
_TRIED: Final = np.round(np.arange(0.05, 0.951, 0.01), 2)  # thresholds to choose from
_NEVER: Final = -1.0  # from no score on


@dataclass(slots=True)
class Tally:
    """All findings and labelled defects of one class, over the images looked at."""

    scores: list[float] = field(default_factory=list)  # of every finding
    right: list[bool] = field(default_factory=list)  # whether it lies on a defect
    found_from: list[float] = field(default_factory=list)  # of each defect: highest threshold

    def counts(self, thresholds: Sequence[float] | Floats) -> tuple[Floats, Floats, Floats]:
        """Defects found, findings shown, and those of them that are wrong, at each threshold."""
        levels = np.asarray(thresholds, np.float64)[:, None]
        shown = np.asarray(self.scores, np.float64) >= levels
        wrong = shown & ~np.asarray(self.right, np.bool_)
        found = np.asarray(self.found_from, np.float64) >= levels
        return found.sum(1), shown.sum(1), wrong.sum(1)


def tally_boxes(scenes: Iterable[Scene], labels: Sequence[str]) -> dict[str, Tally]:
    """Where a detector's boxes lie, image by image; see `add_boxes`."""
    tallies = {label: Tally() for label in labels}
    for scene in scenes:
        add_boxes(tallies, scene)
    return tallies


def add_boxes(tallies: Mapping[str, Tally], scene: Scene) -> None:
    """Count one image of a detector; a box is compared with each labelled box alone.

    Args:
        tallies: by class, in the order of the class ids.
        scene: its truth and detections.
    """
    for class_id, tally in enumerate(tallies.values()):
        own = scene.class_ids == class_id
        boxes, scores = scene.boxes[own], scene.scores[own]
        truth = scene.truth[scene.truth_ids == class_id]
        common = common_areas(boxes, truth)  # (n, g), px²
        lies_on = _share(common, box_areas(boxes)[:, None]).max(1, initial=0.0) >= ON
        surest = np.where(_share(common, box_areas(truth)) >= ON, scores[:, None], _NEVER)
        tally.scores += scores.tolist()
        tally.right += lies_on.tolist()
        tally.found_from += surest.max(0, initial=_NEVER).tolist()


def add_mask(
    tallies: Mapping[str, Tally],
    truth: NDArray[np.uint8],
    said: Segmentation,
    calibration: Mapping[str, Any],
) -> None:
    """Count one image of a segmenter: connected regions, scored as the app scores them.

    Args:
        tallies: by class, in the order of the class map, which begins with 1.
        truth: the labelled class map, (H, W).
        said: what the segmenter says, of the same size.
        calibration: of the release.
    """
    for k, (label, tally) in enumerate(tallies.items(), start=1):
        where = said.class_map == k
        p = np.zeros(where.shape)
        p[where] = apply(calibration, said.scores[where].astype(np.float64), label)
        numbered = numbered_regions(where)
        overlap = _joint(numbered_regions(truth == k), numbered)
        sizes, defects = overlap.sum(0)[1:], overlap.sum(1)[1:, None]
        scores = np.bincount(numbered.ravel(), weights=p.ravel())[1:] / sizes
        common = overlap[1:, 1:]  # (defects, regions), px
        order = np.argsort(-scores, kind="stable")
        covered = common[:, order].cumsum(1) >= ON * defects
        surest = np.where(covered, scores[order], _NEVER)
        tally.scores += scores.tolist()
        tally.right += (common.sum(0) >= ON * sizes).tolist()
        tally.found_from += surest.max(1, initial=_NEVER).tolist()


def curve(tallies: Mapping[str, Tally], n: int, own: float) -> OperatingCurve:
    """The counts at the thresholds that are told.

    Args:
        tallies: by class.
        n: images looked at.
        own: threshold of the release, told as well.
    """
    thresholds = tuple(sorted({*TOLD, own}))
    counted = {label: tally.counts(thresholds) for label, tally in tallies.items()}
    found, findings, wrong = (
        {label: tuple(counts[part].tolist()) for label, counts in counted.items()}
        for part in range(3)
    )
    return OperatingCurve(
        n=n,
        thresholds=thresholds,
        defects={label: len(tally.found_from) for label, tally in tallies.items()},
        found=found,
        findings=findings,
        wrong=wrong,
    )


def best_threshold(tallies: Mapping[str, Tally], *, give_up: float = 0.0) -> float | None:
    """The score from which on findings are worth showing: the best mean F1 of the classes.

    F1 = 2 found right / (found + right), found the share of the defects that are found and right
    the share of the findings that are not wrong.

    Args:
        tallies: by class.
        give_up: of F1; the highest threshold that is within it of the best is taken. Around the
            best a lower one adds little to a detector but a second box where there is one.

    Returns:
        In [0.05, 0.95], a hundredth; None where no defect was labelled.
    """
    curves = []
    for tally in tallies.values():
        if not tally.found_from:
            continue
        found, shown, wrong = tally.counts(_TRIED)
        recall = found / len(tally.found_from)
        precision = (shown - wrong) / np.maximum(shown, 1)
        curves.append(2 * recall * precision / np.maximum(recall + precision, 1e-9))
    if not curves:
        return None
    worth = np.mean(curves, axis=0)
    return float(_TRIED[np.flatnonzero(worth >= worth.max() - give_up)[-1]])


def _share(part: Floats, whole: Floats) -> Floats:
    """Part of the whole; of nothing no part."""
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _joint(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many pixels have each pair of numbers, (1 + regions of first, 1 + of second)."""
    width = int(second.max(initial=0)) + 1
    shape = (int(first.max(initial=0)) + 1, width)
    pairs = np.bincount((first * width + second).ravel(), minlength=shape[0] * shape[1])
    return pairs.reshape(shape)
