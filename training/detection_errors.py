"""What a detector's average precision is lost to: the errors of TIDE, at IoU 0.5.

Bolya et al., TIDE: A General Toolbox for Identifying Object Detection Errors, ECCV 2020. Every
detection that finds no truth of its own is wrong in one of five ways, every truth that nothing
touches is missed, and what an error costs is what AP50 gains when all errors of its kind, and only
those, are mended. The gains do not add up to what is lacking: errors hide one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.geometry import box_iou
from training.detection_metrics import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    Ranking,
    Scene,
    match,
    weighted_ap,
)
from training.metrics import Counts, Floats

FOUND: Final = float(IOU_THRESHOLDS[0])  # a truth is found from this IoU on
TOUCHED: Final = 0.1  # below it, a detection has nothing to do with a truth

PLACE, CLASS, TWICE, BACKGROUND, BOTH, MISSED = (
    "place",
    "class",
    "twice",
    "background",
    "class and place",
    "missed",
)
KINDS: Final = (PLACE, CLASS, BOTH, TWICE, BACKGROUND, MISSED)
_RIGHT: Final = "right"


@dataclass(frozen=True, slots=True)
class BoxErrors:
    """AP50 of each class, and what each kind of error costs it.

    - *place*: the right class, but IoU with the truth in [0.1, 0.5]; mended, it lies on the truth.
    - *class*: IoU at least 0.5 with a truth of another class; mended, it is of that class.
    - *class and place*: touches a truth of another class only; mended, it is gone.
    - *twice*: on a truth that a surer detection has found; mended, it is gone.
    - *background*: touches no truth; mended, it is gone.
    - *missed*: a truth that is neither found nor what a *place* or *class* error meant; mended, it
      need not be found.
    """

    ap50: Floats  # (C, 1 + resamples), the images as they are first; NaN for a class without truth
    gained: Mapping[str, Floats]  # by kind, (C, 1 + resamples): AP50 if mended, less AP50


@dataclass(frozen=True, slots=True)
class _Found:
    """All detections of all scenes, and the truths they are about."""

    image: Counts  # (D,)
    class_id: Counts  # (D,)
    score: Floats  # (D,)
    kind: NDArray[np.str_]  # (D,)
    meant: Counts  # (D,), place of the truth found or meant among all truths, or -1
    truth_image: Counts  # (T,)
    truth_class: Counts  # (T,)


def find_errors(scenes: Sequence[Scene], classes: int, weights: Counts) -> BoxErrors:
    """Tell the errors of a detector apart and weigh them.

    Args:
        scenes: truth and detections, image by image, with one truth at least; every detection
            counts, however unsure.
        classes: how many there are.
        weights: (resamples, scenes), how often each image counts; none are needed.
    """
    found = _collect(scenes, classes)
    weights = np.vstack([np.ones((1, len(scenes)), dtype=np.int64), weights])
    ap50 = _ap50(found, classes, weights)
    gained = {}
    for kind in KINDS:
        mended = _ap50(_mended(found, kind), classes, weights)
        gained[kind] = np.where(np.isnan(mended), 1.0, mended) - ap50  # nothing left to find
    return BoxErrors(ap50, gained)


def image_f1(scenes: Sequence[Scene], classes: int, confidence: float) -> Floats:
    """F1 at IoU 0.5 of each image's detections of at least `confidence`, (scenes,).

    F1 = 2 TP / (detections + truths); an image without either is right: 1.
    """
    scores = []
    for scene in scenes:
        kept = scene.scores >= confidence
        sure = Scene(
            scene.truth,
            scene.truth_ids,
            scene.boxes[kept],
            scene.scores[kept],
            scene.class_ids[kept],
        )
        right = int((_collect([sure], classes).kind == _RIGHT).sum())
        there = int(kept.sum()) + len(scene.truth)
        scores.append(2 * right / there if there else 1.0)
    return np.array(scores, dtype=np.float64)


def _collect(scenes: Sequence[Scene], classes: int) -> _Found:
    """Every detection with its kind, class by class and image by image, best first."""
    starts = np.cumsum([0, *(len(scene.truth) for scene in scenes)])
    columns: list[tuple[Counts, Counts, Floats, NDArray[np.str_], Counts]] = []
    for class_id in range(classes):
        for image, (scene, start) in enumerate(zip(scenes, starts, strict=False)):
            rows = np.flatnonzero(scene.class_ids == class_id)
            rows = rows[np.argsort(-scene.scores[rows], kind="stable")][:MAX_DETECTIONS]
            kind, meant = _judge(scene, rows, class_id)
            columns.append(
                (
                    np.full(len(rows), image),
                    np.full(len(rows), class_id),
                    scene.scores[rows],
                    kind,
                    np.where(meant >= 0, meant + start, -1),
                )
            )
    image_, class_, score, kind_, meant_ = (
        np.concatenate(parts) for parts in zip(*columns, strict=True)
    )
    return _Found(
        image=image_,
        class_id=class_,
        score=score,
        kind=kind_,
        meant=meant_,
        truth_image=np.repeat(np.arange(len(scenes)), np.diff(starts)),
        truth_class=np.concatenate([scene.truth_ids for scene in scenes]),
    )


def _judge(scene: Scene, rows: Counts, class_id: int) -> tuple[NDArray[np.str_], Counts]:
    """Kind of each detection of one class and image, and the truth it found or meant, or -1."""
    own = np.flatnonzero(scene.truth_ids == class_id)
    other = np.flatnonzero(scene.truth_ids != class_id)
    taken = match(scene.boxes[rows], scene.truth[own])[0]
    near, nearest = _nearest(scene, rows, own)
    strange, strangest = _nearest(scene, rows, other)
    # The first that holds, in TIDE's order: a box near a truth of its own class is misplaced,
    # whatever else it covers.
    hit = taken >= 0
    place = (near >= TOUCHED) & (near < FOUND)
    named = strange >= FOUND
    twice = near >= FOUND
    alone = np.maximum(near, strange) < TOUCHED
    kind = np.select(
        [hit, place, named, twice, alone], [_RIGHT, PLACE, CLASS, TWICE, BACKGROUND], BOTH
    )
    found = own[taken] if len(own) else np.full(len(rows), -1)
    return kind, np.select([hit, place, named], [found, nearest, strangest], -1)


def _nearest(scene: Scene, rows: Counts, truths: Counts) -> tuple[Floats, Counts]:
    """The largest IoU of each detection with some of the truths, and with which of all."""
    if not len(truths):
        return np.zeros(len(rows)), np.full(len(rows), -1)
    overlap = box_iou(scene.boxes[rows], scene.truth[truths])
    return overlap.max(1), truths[overlap.argmax(1)]


def _mended(found: _Found, kind: str) -> _Found:
    """The same detections with all errors of one kind mended."""
    if kind == MISSED:
        spoken_of = np.unique(found.meant[found.meant >= 0])
        return replace(
            found,
            truth_image=found.truth_image[spoken_of],
            truth_class=found.truth_class[spoken_of],
        )
    wrong = found.kind == kind
    mended = np.zeros_like(wrong)
    if kind in (PLACE, CLASS):
        # Each truth that nothing has found goes to the surest detection that meant it.
        places = np.flatnonzero(wrong)
        places = places[np.argsort(-found.score[places], kind="stable")]
        free = ~np.isin(found.meant[places], found.meant[found.kind == _RIGHT])
        _, first = np.unique(found.meant[places[free]], return_index=True)
        mended[places[free][first]] = True
    kept = ~wrong | mended
    return replace(
        found,
        image=found.image[kept],
        class_id=np.where(mended, found.truth_class[found.meant], found.class_id)[kept],
        score=found.score[kept],
        kind=np.where(mended, _RIGHT, found.kind)[kept],
        meant=found.meant[kept],
    )


def _ap50(found: _Found, classes: int, weights: Counts) -> Floats:
    """COCO's average precision at IoU 0.5 of each class when images count by weight, (C, R)."""
    out = np.full((classes, len(weights)), np.nan)
    for k in range(classes):
        rows = np.flatnonzero(found.class_id == k)
        rows = rows[np.argsort(-found.score[rows], kind="stable")]
        there = found.truth_image[found.truth_class == k]
        ranking = Ranking(
            image=found.image[rows],
            score=found.score[rows],
            hit=(found.kind[rows] == _RIGHT)[None],
            truths=np.bincount(there, minlength=weights.shape[1]),
        )
        out[k] = weighted_ap(ranking, weights)[0]
    return out
