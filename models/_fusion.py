"""One set of boxes from several opinions about one picture: weighted boxes fusion.

Solovyev, Wang & Gabruseva, Image and Vision Computing 107 (2021): boxes of one class that overlap
are one finding whose place is their mean, weighed by score; where suppression would throw all but
one away. Opinions are different detectors, or one detector's views of a mirrored picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.geometry import box_iou
from models._boxes import MAX_DETECTIONS, Boxes

Floats = NDArray[np.float64]


def fuse(opinions: Sequence[Boxes], weights: Sequence[float], *, iou_threshold: float) -> Boxes:
    """Boxes that overlap become one; each opinion has the say that its weight gives it.

    From the highest weight × score down, a box joins the finding of its class that it overlaps
    most, if by more than `iou_threshold`, or else begins one. A finding's box is Σ w·s·box / Σ w·s
    over its members; its score is Σ w·s / Σ w over all opinions, each with its best member there
    and 0 without one: what one of three equal opinions sees alone has a third of its score.

    Args:
        opinions: of each, xyxy (n, 4) in px, scores (n,) in [0, 1] and class ids (n,).
        weights: of the opinions, at least 0 and not all 0.
        iou_threshold: in (0, 1).

    Returns:
        As each opinion, highest score first, at most MAX_DETECTIONS.
    """
    voices = np.concatenate([np.full(len(o[1]), k) for k, o in enumerate(opinions)]).astype(int)
    xyxy, scores, class_ids = (np.concatenate(column) for column in zip(*opinions, strict=True))
    say = np.asarray(weights, np.float64) / np.sum(weights)
    pull = say[voices] * scores  # of each box on its finding
    found = []
    for class_id in np.unique(class_ids):
        rows = np.flatnonzero((class_ids == class_id) & (pull > 0))
        rows = rows[np.argsort(-pull[rows], kind="stable")]
        boxes, totals = _fuse_class(
            xyxy[rows].astype(np.float64), pull[rows], voices[rows], len(opinions), iou_threshold
        )
        found.append((boxes, totals, np.full(len(totals), class_id)))
    if not found:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    boxes, totals, ids = (np.concatenate(column) for column in zip(*found, strict=True))
    best = np.argsort(-totals, kind="stable")[:MAX_DETECTIONS]
    return (
        boxes[best].astype(np.float32),
        totals[best].astype(np.float32).clip(0, 1),
        ids[best].astype(np.int64),
    )


def _fuse_class(
    xyxy: Floats, pull: Floats, voices: NDArray[np.int_], n_voices: int, iou_threshold: float
) -> tuple[Floats, Floats]:
    """Boxes (m, 4) and scores (m,) of one class's findings; input in descending order of pull."""
    sums = np.zeros((len(xyxy), 4))  # Σ w·s·box of each finding
    mass = np.zeros(len(xyxy))  # Σ w·s
    best = np.zeros((len(xyxy), n_voices))  # highest w·s of each opinion
    fused = np.zeros((len(xyxy), 4))
    count = 0
    for box, weight, voice in zip(xyxy, pull, voices, strict=True):
        overlap = box_iou(box, fused[:count])[0]
        place = int(overlap.argmax()) if count else 0
        if not count or overlap[place] <= iou_threshold:
            place, count = count, count + 1
        sums[place] += weight * box
        mass[place] += weight
        fused[place] = sums[place] / mass[place]
        best[place, voice] = max(best[place, voice], weight)
    return fused[:count], best[:count].sum(axis=1)
