"""A second look at the labels of a data set: what models that never learned from them contradict.

Each model is asked about every image. What any of them shows may stand for a label; what all of
them together are sure of, fused with an equal say each, may contradict one. *Sure* is the mean
score of a class where findings and labels agree: the threshold of confident learning (Northcutt,
Jiang & Chuang, JAIR 70, 2021), which asks nothing of how a detector's scores are calibrated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, assert_never

import numpy as np

from core.errors import DatasetError
from core.types import Classification, Prediction, Segmentation
from models._committee import UNTUNED_IOU
from models._fusion import fuse
from training import metrics
from training.detection_metrics import Scene, best_confidence, rank
from training.evaluate import detection_scenes, predictions
from training.label_doubts import (
    SAME_PLACE,
    Doubt,
    Found,
    Kind,
    box_doubts,
    class_doubts,
    closest,
    mask_doubts,
    quality,
)
from training.label_places import Counted, Places
from training.metrics import Counts, Floats
from training.truth import class_index, read_mask

if TYPE_CHECKING:
    from core.types import Predictor
    from training.datasets import Dataset, Sample
    from training.splits import Protocol

_FUSED_FROM: Final = 0.01  # lower scores move no box worth showing


@dataclass(frozen=True, slots=True)
class CheckedImage:
    """One image, what is doubtful about its labels, and what is drawn beside them."""

    sample: Sample
    quality: float  # in [0, 1], 1 is without a doubt
    doubts: tuple[Doubt, ...]  # strongest first
    found: Found | None = None  # boxes that the models together show


@dataclass(frozen=True, slots=True)
class ClassLabels:
    """The labels of one class: how many there are, and how many of them are doubted.

    Boxes are counted as such; of masks and whole images the images are, and of masks the doubtful
    regions. What was overlooked is no label yet.
    """

    label: str
    labels: int
    doubts: dict[Kind, int]
    places: Places | None = None  # of boxes, where there are any


@dataclass(frozen=True, slots=True)
class LabelCheck:
    """What was found, the image with the poorest labels first."""

    images: tuple[CheckedImage, ...]
    classes: tuple[ClassLabels, ...]


def check_labels(
    predictors: Sequence[Predictor],
    dataset: Dataset,
    *,
    protocol: Protocol,
    split: str,
    resamples: int = 1000,
    seed: int = 0,
) -> LabelCheck:
    """Look at the labels of a split with models that have not learned from it.

    Args:
        predictors: one or more; who has learned from the split would repeat its labels
            (`training.learned` tells).
        dataset: a prepared set of their task and classes.
        protocol: which of its splits.
        split: train, val, test, joined or all.
        resamples: of whole strips, for the intervals; 0 leaves them out.
        seed: of the resamples.

    Raises:
        DatasetError: if there is no predictor, task or labels differ, or the split is empty.
    """
    _check(predictors, dataset)
    samples = dataset.split(protocol, split)
    if not samples:
        raise DatasetError(f"{dataset.name} has no {split} images under protocol {protocol}.")
    match dataset.task:
        case "detect":
            weights = metrics.resample_weights(
                [sample.group for sample in samples], resamples=resamples, seed=seed
            )
            images, classes = _boxes(predictors, samples, dataset.labels, weights)
        case "segment":
            images = list(_masks(predictors, samples, dataset.labels))
            classes = _mask_classes(images, dataset.labels)
        case "classify":
            images = list(_classes(predictors, samples, dataset.labels))
            given = Counter(str(sample.label) for sample in samples)
            classes = _tally(images, dataset.labels, given)
        case _:
            assert_never(dataset.task)
    return LabelCheck(
        images=tuple(sorted(images, key=lambda image: (image.quality, image.sample.file))),
        classes=tuple(classes),
    )


def _check(predictors: Sequence[Predictor], dataset: Dataset) -> None:
    if not predictors:
        raise DatasetError(
            f"There is no model to check the labels of {dataset.name}: give one that is made to "
            f"{dataset.task} {', '.join(dataset.labels)}."
        )
    for predictor in predictors:
        name, task = predictor.spec.name, predictor.spec.task
        if task != dataset.task or tuple(predictor.labels) != dataset.labels:
            raise DatasetError(
                f"{name} is made to {task} {', '.join(predictor.labels)}: the labels of "
                f"{dataset.name} are checked by models that {dataset.task} "
                f"{', '.join(dataset.labels)}."
            )


def _tally(
    images: Sequence[CheckedImage], labels: Sequence[str], given: Counter[str]
) -> list[ClassLabels]:
    counts = Counter((d.subject, d.kind) for image in images for d in image.doubts)
    return [
        ClassLabels(
            label, given[label], {kind: n for (of, kind), n in counts.items() if of == label}
        )
        for label in labels
    ]


# --- boxes -------------------------------------------------------------------------------------


def _boxes(
    predictors: Sequence[Predictor],
    samples: Sequence[Sample],
    labels: Sequence[str],
    weights: Counts,
) -> tuple[list[CheckedImage], list[ClassLabels]]:
    opinions = [detection_scenes(predictor, samples, labels) for predictor in predictors]
    fused = [_fused(of_one) for of_one in zip(*opinions, strict=True)]
    truths = [_labelled(scene) for scene in fused]
    shown = [_shown(scenes, len(labels)) for scenes in (*opinions, fused)]
    together = shown.pop()
    claims = [_joined(of_one) for of_one in zip(*shown, strict=True)]
    bar = sure_from(truths, together, len(labels))
    places = Counted.of(truths, claims, len(labels))
    usually_seen = places.share(places.touched)
    images = []
    for sample, truth, claimed, found in zip(samples, truths, claims, together, strict=True):
        sure = found[found.scores >= bar[found.class_ids]]
        doubts = box_doubts(truth, claimed, sure, labels, usually_seen=usually_seen.tolist())
        images.append(CheckedImage(sample, quality(doubts), doubts, found))
    given = Counter(label for sample in samples for label, _ in sample.boxes)
    return images, [
        replace(row, places=places.of_class(class_id, weights))
        for class_id, row in enumerate(_tally(images, labels, given))
    ]


def sure_from(truths: Sequence[Found], found: Sequence[Found], classes: int) -> Floats:
    """The score from which the models are sure of a class, (classes,).

    It is the mean score of the findings that lie in the place of a label of their class; infinite
    for a class without any.
    """
    bars: Floats = np.full(classes, np.inf)
    agreeing = [
        seen[closest(seen, truth) >= SAME_PLACE] for truth, seen in zip(truths, found, strict=True)
    ]
    together = _joined(agreeing)
    for class_id in np.unique(together.class_ids):
        bars[class_id] = together.scores[together.class_ids == class_id].mean()
    return bars


def _fused(scenes: Sequence[Scene]) -> Scene:
    """One image as all models together see it; none has more say, so nothing was tuned here."""
    if len(scenes) == 1:
        return scenes[0]
    kept = [(s, s.scores >= _FUSED_FROM) for s in scenes]
    xyxy, scores, class_ids = fuse(
        [
            (s.boxes[k].astype(np.float32), s.scores[k].astype(np.float32), s.class_ids[k])
            for s, k in kept
        ],
        [1.0] * len(scenes),
        iou_threshold=UNTUNED_IOU,
    )
    return replace(
        scenes[0],
        boxes=xyxy.astype(np.float64),
        scores=scores.astype(np.float64),
        class_ids=class_ids,
    )


def _shown(scenes: Sequence[Scene], classes: int) -> list[Found]:
    """What a model shows of each image, from the score on at which F1 is best.

    That of all classes or of the very class, whichever is lower: one score for all would hide most
    findings of a faint class.
    """
    rankings = rank(scenes, classes)
    of_all = best_confidence(rankings)
    bars = np.array(
        [min(of_all, best_confidence([r])) if r.truths.any() else of_all for r in rankings]
    )
    everything = (Found(scene.boxes, scene.scores, scene.class_ids) for scene in scenes)
    return [found[found.scores >= bars[found.class_ids]] for found in everything]


def _labelled(scene: Scene) -> Found:
    return Found(scene.truth, np.ones(len(scene.truth)), scene.truth_ids)


def _joined(parts: Sequence[Found]) -> Found:
    return Found(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.class_ids for part in parts]),
    )


# --- masks and whole images --------------------------------------------------------------------


def _masks(
    predictors: Sequence[Predictor], samples: Sequence[Sample], labels: Sequence[str]
) -> Iterator[CheckedImage]:
    for sample, answers in _answers(predictors, samples):
        maps = [a for a in answers if isinstance(a, Segmentation)]
        first = maps[0].class_map
        # Where the models do not agree, they contradict no label.
        agree = np.all([m.class_map == first for m in maps], axis=0)
        scores = np.where(agree, np.mean([m.scores for m in maps], axis=0), 0.0)
        value, doubts = mask_doubts(read_mask(sample, labels), first, scores, labels)
        yield CheckedImage(sample, value, doubts)


def _mask_classes(images: Sequence[CheckedImage], labels: Sequence[str]) -> list[ClassLabels]:
    given: Counter[str] = Counter()
    for image in images:
        there = np.unique(read_mask(image.sample, labels))
        given.update(labels[k - 1] for k in there if k)
    return _tally(images, labels, given)


def _classes(
    predictors: Sequence[Predictor], samples: Sequence[Sample], labels: Sequence[str]
) -> Iterator[CheckedImage]:
    for sample, answers in _answers(predictors, samples):
        said = [a.probabilities for a in answers if isinstance(a, Classification)]
        value, doubts = class_doubts(
            class_index(sample, labels), np.mean(said, axis=0, dtype=np.float64), labels
        )
        yield CheckedImage(sample, value, doubts)


def _answers(
    predictors: Sequence[Predictor], samples: Sequence[Sample]
) -> Iterator[tuple[Sample, list[Prediction]]]:
    """Each sample with what every predictor says of it."""
    streams = [predictions(predictor, samples) for predictor in predictors]
    for of_one in zip(*streams, strict=True):
        yield of_one[0][0], [answer for _, answer in of_one]
