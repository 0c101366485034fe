"""How good a predictor is on one frozen split, with bootstrap intervals: the same code for all.

A model is judged through its `Predictor`, as the app runs it: resizing, thresholds and the way back
to source pixels included. Detectors answer with every detection of score 0.001 or more.

Resamples draw from the split's images or, under the leak-free protocol, from its groups. Two
predictors measured on one split with one seed see the same resamples, so that differences between
them may be taken resample by resample.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import track

from core.errors import DatasetError, InputError
from core.images import KEPT, decode
from core.records import Evaluation, Metric
from core.types import Classification, Detections, Prediction, Predictor, Segmentation
from models._flips import Flipped
from models._predictors import Segmenter
from training import metrics
from training.detection_metrics import (
    MAX_DETECTIONS,
    Scene,
    best_confidence,
    coco_ap,
    operating_point,
    rank,
    weighted_ap,
)
from training.metrics import Counts, Floats
from training.truth import class_index, read_mask

if TYPE_CHECKING:
    from training.datasets import Dataset, Sample
    from training.splits import Protocol

logger = logging.getLogger(__name__)

SCORE_THRESHOLD = 0.001  # low enough that average precision sees every detection that matters
BATCH = 16  # images decoded at a time
BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class Measurement:
    """An evaluation and what its intervals were read from."""

    evaluation: Evaluation
    resamples: dict[str, Floats]  # of each metric, (resamples,)
    class_resamples: dict[str, dict[str, Floats]]  # of each metric's classes, (resamples,), or NaN
    support: dict[str, int]  # images that show each class


@dataclass(frozen=True, slots=True)
class _Scores:
    """What one task's judge found."""

    values: dict[str, float]
    resamples: dict[str, Floats]
    per_class: dict[str, dict[str, float]]
    class_resamples: dict[str, dict[str, Floats]]
    support: dict[str, int]
    confusion: Counts | None = None
    settings: dict[str, Any] | None = None


def evaluate(
    predictor: Predictor,
    dataset: Dataset,
    *,
    protocol: Protocol,
    split: str,
    seed: int = 0,
    resamples: int = 1000,
) -> Evaluation:
    """Measure a predictor on a split; see `measure`."""
    return measure(
        predictor, dataset, protocol=protocol, split=split, seed=seed, resamples=resamples
    ).evaluation


def measure(
    predictor: Predictor,
    dataset: Dataset,
    *,
    protocol: Protocol,
    split: str,
    seed: int = 0,
    resamples: int = 1000,
) -> Measurement:
    """Measure a predictor on a split and keep the bootstrap.

    detect: mAP50 and mAP50_95 (COCO, at most 100 detections of a class and image), precision,
    recall and F1 at IoU 0.5 and the confidence where mean F1 is highest; per class AP.
    segment: mIoU, MPA, precision, recall from one confusion matrix with background, and each
    without background as `_defects`; per class IoU, recall and precision.
    classify: accuracy, macro_F1, mean recall and precision; per class F1, recall and precision.

    Args:
        predictor: any model with the data set's labels.
        dataset: a prepared set of the predictor's task.
        protocol: which of its splits.
        split: train, val, test, joined or all.
        seed: of the resamples.
        resamples: for the 95 % intervals; 0 leaves the intervals out.

    Raises:
        DatasetError: if task or labels differ, the split is empty or shows none of the classes, or
            an image is unreadable.
    """
    samples = images_for(predictor, dataset, protocol=protocol, split=split)
    by_group = protocol == "leak-free"
    groups = [s.group if by_group else s.file for s in samples]
    weights = metrics.resample_weights(groups, resamples=resamples, seed=seed)
    judge = {"detect": _detection, "segment": _segmentation, "classify": _classification}
    scores = judge[dataset.task](predictor, samples, dataset.labels, weights)
    if np.isnan(list(scores.values.values())).any():
        raise nothing_to_find(dataset, protocol=protocol, split=split)
    evaluation = Evaluation(
        model=predictor.spec.name,
        revision=predictor.revision,
        dataset=dataset.name,
        protocol=protocol,
        split=split,
        test_id=dataset.test_id(protocol, split),
        metrics=tuple(
            _metric(name, value, scores, len(samples)) for name, value in scores.values.items()
        ),
        confusion=() if scores.confusion is None else tuple(map(tuple, scores.confusion.tolist())),
        settings={
            "seed": seed,
            "resamples": resamples,
            "resampled": "groups" if by_group else "images",
            **({"tta": True} if isinstance(predictor, Flipped) else {}),
            **(scores.settings or {}),
        },
    )
    logger.info(
        "evaluated %s %s on %s %s %s: %s",
        *(predictor.spec.name, predictor.revision, dataset.name, protocol, split),
        ", ".join(f"{m.name} {m.value:.4f}" for m in evaluation.metrics),
    )
    return Measurement(evaluation, scores.resamples, scores.class_resamples, scores.support)


def images_for(
    predictor: Predictor, dataset: Dataset, *, protocol: Protocol, split: str
) -> tuple[Sample, ...]:
    """The images of a split, if the predictor can be asked about them.

    Raises:
        DatasetError: if task or labels differ, or the split is empty.
    """
    if predictor.spec.task != dataset.task:
        raise DatasetError(
            f"{dataset.name} is a data set to {dataset.task}: {predictor.spec.name} is made to "
            f"{predictor.spec.task}."
        )
    if tuple(predictor.labels) != dataset.labels:
        raise DatasetError(
            f"{predictor.spec.name} {predictor.revision} knows {', '.join(predictor.labels)}; "
            f"{dataset.name} has {', '.join(dataset.labels)}: they must be the same."
        )
    samples = dataset.split(protocol, split)
    if not samples:
        raise DatasetError(f"{dataset.name} has no {split} images under protocol {protocol}.")
    return samples


def nothing_to_find(dataset: Dataset, *, protocol: str, split: str) -> DatasetError:
    """The error to raise about a split that shows sound steel alone."""
    return DatasetError(
        f"{dataset.name} has no defect in its {split} images under protocol {protocol}: there is "
        "nothing to be found on them."
    )


def _metric(name: str, value: float, scores: _Scores, n: int) -> Metric:
    low, high = None, None
    if not np.isnan(scores.resamples[name]).all():
        low, high = metrics.interval(scores.resamples[name])
    return Metric(
        name=name, value=value, low=low, high=high, per_class=scores.per_class.get(name, {}), n=n
    )


def predictions(
    predictor: Predictor, samples: Sequence[Sample]
) -> Iterator[tuple[Sample, Prediction]]:
    """Each sample with what the predictor says of it."""
    console = Console(stderr=True)
    starts = range(0, len(samples), BATCH)
    description = f"{predictor.spec.name} on {len(samples)} images"
    for start in track(
        starts, description, console=console, disable=not console.is_terminal, transient=True
    ):
        part = samples[start : start + BATCH]
        try:
            images = [decode(sample.path, limits=KEPT) for sample in part]
        except InputError as exc:
            raise DatasetError(f"An image of the split cannot be read: {exc}") from exc
        yield from zip(part, predictor(images, score_threshold=SCORE_THRESHOLD), strict=True)


def detection_scenes(
    predictor: Predictor, samples: Sequence[Sample], labels: Sequence[str]
) -> list[Scene]:
    """What a detector says of each sample, down to SCORE_THRESHOLD, beside what is there.

    Raises:
        DatasetError: if an image is unreadable.
    """
    scenes = []
    for sample, found in predictions(predictor, samples):
        if not isinstance(found, Detections):
            raise TypeError(f"{predictor.spec.name} answered {type(found).__name__}.")
        scenes.append(scene_of(sample, found, labels))
    return scenes


def scene_of(sample: Sample, found: Detections, labels: Sequence[str]) -> Scene:
    """What a detector said of a sample, beside what is there."""
    return Scene(
        truth=np.array([box for _, box in sample.boxes], np.float64).reshape(-1, 4),
        truth_ids=np.array([labels.index(name) for name, _ in sample.boxes], np.int64),
        boxes=found.xyxy.astype(np.float64),
        scores=found.scores.astype(np.float64),
        class_ids=found.class_ids,
    )


def _detection(
    predictor: Predictor, samples: Sequence[Sample], labels: Sequence[str], weights: Counts
) -> _Scores:
    scenes = detection_scenes(predictor, samples, labels)
    ap = coco_ap(scenes, len(labels))  # (10, C)
    rankings = rank(scenes, len(labels))
    confidence = best_confidence(rankings)
    once = np.ones((1, len(samples)), dtype=np.int64)
    point = operating_point(rankings, once, confidence)
    drawn = np.stack([weighted_ap(ranking, weights) for ranking in rankings], axis=-1)
    return _Scores(
        values={
            "mAP50": float(metrics.mean(ap[0])),
            "mAP50_95": float(metrics.mean(ap.mean(0))),
            **{name: float(value[0]) for name, value in point.items()},
        },
        resamples={
            "mAP50": metrics.mean(drawn[0]),
            "mAP50_95": metrics.mean(drawn.mean(0)),
            **operating_point(rankings, weights, confidence),
        },
        per_class={"mAP50": _named(labels, ap[0]), "mAP50_95": _named(labels, ap.mean(0))},
        class_resamples={
            "mAP50": dict(zip(labels, drawn[0].T, strict=True)),
            "mAP50_95": dict(zip(labels, drawn.mean(0).T, strict=True)),
        },
        support={
            label: int((ranking.truths > 0).sum())
            for label, ranking in zip(labels, rankings, strict=True)
        },
        settings={
            "score_threshold": SCORE_THRESHOLD,
            "max_detections_per_class": MAX_DETECTIONS,
            "confidence_of_best_F1": confidence,
        },
    )


def _segmentation(
    predictor: Predictor, samples: Sequence[Sample], labels: Sequence[str], weights: Counts
) -> _Scores:
    """Scores of the class map; with class thresholds, `_argmax` are those without them."""
    names = (BACKGROUND, *labels)
    scores = _from_confusion(_pixels(predictor, samples, labels), names, weights, segment=True)
    if not (isinstance(predictor, Segmenter) and predictor.class_thresholds):
        return scores
    matrices = _pixels(predictor.without_thresholds(), samples, labels)
    plain = _from_confusion(matrices, names, weights, segment=True)
    return replace(
        scores,
        values=scores.values | {f"{name}_argmax": v for name, v in plain.values.items()},
        resamples=scores.resamples | {f"{name}_argmax": v for name, v in plain.resamples.items()},
        per_class=scores.per_class | {f"{name}_argmax": v for name, v in plain.per_class.items()},
        settings={"class_thresholds": predictor.class_thresholds},
    )


def _pixels(predictor: Predictor, samples: Sequence[Sample], labels: Sequence[str]) -> Counts:
    """Confusion (n, C, C) of each image's pixels, background first."""
    matrices = []
    for sample, found in predictions(predictor, samples):
        if not isinstance(found, Segmentation):
            raise TypeError(f"{predictor.spec.name} answered {type(found).__name__}.")
        truth = read_mask(sample, labels)
        matrices.append(metrics.confusion(truth, found.class_map, len(labels) + 1))
    return np.stack(matrices)


def _classification(
    predictor: Predictor, samples: Sequence[Sample], labels: Sequence[str], weights: Counts
) -> _Scores:
    matrices = []
    for sample, found in predictions(predictor, samples):
        if not isinstance(found, Classification):
            raise TypeError(f"{predictor.spec.name} answered {type(found).__name__}.")
        truth = np.array([class_index(sample, labels)])
        matrices.append(metrics.confusion(truth, np.array([found.best]), len(labels)))
    return _from_confusion(np.stack(matrices), labels, weights, segment=False)


def _from_confusion(
    matrices: Counts, names: Sequence[str], weights: Counts, *, segment: bool
) -> _Scores:
    """Scores of (n, C, C) per-image matrices: of their sum, and of each resample's sum."""
    judge = metrics.segmentation_scores if segment else metrics.classification_scores
    total = matrices.sum(0)
    drawn = np.tensordot(weights, matrices, axes=1)  # (resamples, C, C)
    classes, drawn_classes = metrics.per_class(total), metrics.per_class(drawn)
    shown = {
        "mIoU" if segment else "macro_F1": "IoU" if segment else "F1",
        "recall": "recall",
        "precision": "precision",
    }
    return _Scores(
        values={name: float(value) for name, value in judge(total).items()},
        resamples=judge(drawn),
        per_class={name: _named(names, classes[source]) for name, source in shown.items()},
        class_resamples={
            name: dict(zip(names, drawn_classes[source].T, strict=True))
            for name, source in shown.items()
        },
        support=dict(zip(names, (matrices.sum(-1) > 0).sum(0).tolist(), strict=True)),
        confusion=total,
    )


def _named(names: Sequence[str], values: Floats) -> dict[str, float]:
    """Values by class; a class that could not be measured is left out."""
    return {n: float(v) for n, v in zip(names, values, strict=True) if not np.isnan(v)}
