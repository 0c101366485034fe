"""COCO average precision of boxes, and its bootstrap: numpy, no images, no networks.

The number itself is faster-coco-eval's. A thousand resamples of it would take hours, so boxes are
matched here once, image by image, by COCO's own rules; a resample then only weighs the images. With
every weight 1 both ways give the same number. At most 100 detections of a class count per image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.geometry import box_iou
from training.metrics import Counts, Floats, mean

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # COCO's; the first is mAP50's
RECALLS = np.linspace(0.0, 1.0, 101)  # COCO interpolates precision at these
MAX_DETECTIONS = 100  # per image and class, COCO's
CHUNK = 100  # resamples at a time: each needs a number per detection


@dataclass(frozen=True, slots=True)
class Scene:
    """Truth and detections of one image; boxes are xyxy px."""

    truth: Floats  # (g, 4)
    truth_ids: NDArray[np.int64]  # (g,)
    boxes: Floats  # (n, 4)
    scores: Floats  # (n,)
    class_ids: NDArray[np.int64]  # (n,)


@dataclass(frozen=True, slots=True)
class Ranking:
    """All detections of one class over all images, highest score first."""

    image: NDArray[np.int64]  # (D,), index of the scene
    score: Floats  # (D,)
    hit: NDArray[np.bool_]  # (10, D), matched at each IoU threshold
    truths: Counts  # (scenes,), boxes of this class that were there to find


def coco_ap(scenes: Sequence[Scene], classes: int) -> Floats:
    """Average precision by faster-coco-eval, (10, classes); NaN for a class without truth."""
    from faster_coco_eval import COCO, COCOeval_faster

    boxes, found = [], []
    for image_id, scene in enumerate(scenes, start=1):
        for box, class_id in zip(scene.truth, scene.truth_ids, strict=True):
            boxes.append({"image_id": image_id, **_coco_box(box, class_id), "iscrowd": 0})
        for box, score, class_id in zip(scene.boxes, scene.scores, scene.class_ids, strict=True):
            found.append({"image_id": image_id, **_coco_box(box, class_id), "score": float(score)})
    truth = COCO(
        {
            "info": {},
            "images": [{"id": i + 1} for i in range(len(scenes))],
            "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
            "annotations": [{"id": i, **box} for i, box in enumerate(boxes, start=1)],
        }
    )
    judge = COCOeval_faster(truth, truth.loadRes(found), iouType="bbox")
    judge.evaluate()
    judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, -1]  # (T, R, K), all areas, 100 detections
    ap: Floats = np.where(precision[:, 0] < 0, np.nan, precision.mean(1))
    return ap


def _coco_box(box: Floats, class_id: np.int64) -> dict[str, object]:
    x1, y1, x2, y2 = (float(v) for v in box)
    width, height = x2 - x1, y2 - y1
    return {
        "category_id": int(class_id) + 1,
        "bbox": [x1, y1, width, height],
        "area": width * height,
    }


def rank(scenes: Sequence[Scene], classes: int) -> tuple[Ranking, ...]:
    """Match every image once and rank the detections of each class."""
    return tuple(_rank_class(scenes, class_id) for class_id in range(classes))


def _rank_class(scenes: Sequence[Scene], class_id: int) -> Ranking:
    images, scores, hits, truths = [], [], [], []
    for index, scene in enumerate(scenes):
        rows = np.flatnonzero(scene.class_ids == class_id)
        rows = rows[np.argsort(-scene.scores[rows], kind="stable")][:MAX_DETECTIONS]
        truth = scene.truth[scene.truth_ids == class_id]
        images.append(np.full(len(rows), index))
        scores.append(scene.scores[rows])
        hits.append(match(scene.boxes[rows], truth) >= 0)
        truths.append(len(truth))
    score = np.concatenate(scores)
    order = np.argsort(-score, kind="stable")
    return Ranking(
        image=np.concatenate(images)[order],
        score=score[order],
        hit=np.concatenate(hits, axis=1)[:, order],
        truths=np.asarray(truths, dtype=np.int64),
    )


def match(boxes: Floats, truth: Floats) -> NDArray[np.int64]:
    """Which truth each of one class's boxes, best first, finds for itself; (10, n), -1 for none.

    Each box takes the free truth it overlaps most, the later of two equal ones.
    """
    taken = np.full((len(IOU_THRESHOLDS), len(boxes)), -1, dtype=np.int64)
    if not len(truth) or not len(boxes):
        return taken
    overlap = box_iou(boxes, truth)[:, ::-1]  # reversed: argmax then prefers the later truth
    free = np.ones((len(IOU_THRESHOLDS), len(truth)), dtype=np.bool_)
    for row in np.flatnonzero(overlap.max(1) >= IOU_THRESHOLDS[0]):
        fits = free & (overlap[row] >= IOU_THRESHOLDS[:, None])
        levels = np.flatnonzero(fits.any(1))
        best = np.where(fits, overlap[row], -1.0).argmax(1)[levels]
        taken[levels, row] = len(truth) - 1 - best
        free[levels, best] = False
    return taken


def weighted_ap(ranking: Ranking, weights: Counts) -> Floats:
    """Average precision of one class when image i counts `weights[:, i]` times.

    Args:
        ranking: of the class.
        weights: (resamples, scenes).

    Returns:
        (10, resamples); NaN where a resample holds no truth of the class.
    """
    parts = [
        _weighted_ap(ranking, weights[start : start + CHUNK])
        for start in range(0, len(weights), CHUNK)
    ]
    return np.concatenate(parts, axis=1) if parts else np.empty((len(IOU_THRESHOLDS), 0))


def _weighted_ap(ranking: Ranking, weights: Counts) -> Floats:
    there = (weights @ ranking.truths).astype(np.float64)  # (resamples,)
    drawn = weights[:, ranking.image].cumsum(1)  # detections up to each rank
    out: Floats = np.full((len(IOU_THRESHOLDS), len(weights)), np.nan)
    known = there > 0
    for level, hit in enumerate(ranking.hit):
        # Recall rises at hits only, and precision's envelope is decided there.
        places = np.flatnonzero(hit)
        found = weights[:, ranking.image[places]].cumsum(1)
        precision = found / np.maximum(drawn[:, places], 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = found / np.maximum(there, 1)[:, None]
        reached = np.searchsorted(RECALLS, recall, side="right")  # recall levels reached so far
        gained = np.diff(reached, axis=1, prepend=0)
        out[level, known] = ((envelope * gained).sum(1) / len(RECALLS))[known]
    return out


def best_confidence(rankings: Sequence[Ranking]) -> float:
    """The one confidence at which the classes' mean F1 at IoU 0.5 is highest.

    As ultralytics chooses it: curves over 1000 confidences, their mean smoothed over a tenth of
    the range, so that a lucky peak is not taken for an operating point.
    """
    grid = np.linspace(0, 1, 1000)
    curves = []
    for ranking in rankings:
        if not ranking.truths.sum():
            continue
        found = ranking.hit[0].cumsum()
        above = np.searchsorted(-ranking.score, -grid, side="right")  # detections at or above
        hits = np.concatenate(([0], found))[above]
        curves.append(2 * hits / (above + ranking.truths.sum()))
    if not curves:
        return 0.0
    width = len(grid) // 10 + 1
    padded = np.pad(np.mean(curves, axis=0), width // 2, mode="edge")
    smooth = np.convolve(padded, np.ones(width) / width, mode="valid")
    return float(grid[smooth.argmax()])


def operating_point(
    rankings: Sequence[Ranking], weights: Counts, confidence: float
) -> dict[str, Floats]:
    """Class means of precision, recall and F1 at IoU 0.5 for detections of at least `confidence`.

    A class with truth and no detection has precision 0. Returns (resamples,) each.
    """
    columns: dict[str, list[Floats]] = {"precision": [], "recall": [], "F1": []}
    for ranking in rankings:
        kept = ranking.score >= confidence
        images = len(ranking.truths)
        said = weights @ np.bincount(ranking.image[kept], minlength=images)
        hits = weights @ np.bincount(ranking.image[kept & ranking.hit[0]], minlength=images)
        there = weights @ ranking.truths
        known = there > 0
        columns["precision"].append(np.where(known, hits / np.maximum(said, 1), np.nan))
        columns["recall"].append(np.where(known, hits / np.maximum(there, 1), np.nan))
        columns["F1"].append(np.where(known, 2 * hits / np.maximum(said + there, 1), np.nan))
    return {name: mean(np.stack(values, axis=-1)) for name, values in columns.items()}
