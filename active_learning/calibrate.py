"""Teaching a release how often it is right: fit on its own validation split, stored in its config.

The test split is not read. Weights and revision stay as they are; only `config.json` changes.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from active_learning.calibration import Floats
from active_learning.calibration_fitting import Pairs, fit_detection, fit_temperature
from core.errors import DatasetError
from core.types import Classification, Segmentation
from models import load
from models._release import read_release, write_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.records import ReleaseConfig
    from core.types import Predictor, Task
    from training.datasets import Dataset, Sample

logger = logging.getLogger(__name__)

PIXEL_STRIDE = 7  # of a class map, every 7th pixel both ways: neighbours say the same


def calibrate(release: Path, dataset: Dataset, *, device: str = "cpu") -> ReleaseConfig:
    """Fit score → probability of being right, and write it into the release.

    Detectors: a curve per class for "this box is a defect at IoU 0.5". Classifiers: a temperature.
    Segmenters: a curve per class for "this pixel is right", background left out.

    Args:
        release: folder of a release.
        dataset: the very data set it was trained on, prepared the same way.
        device: "cpu" or "cuda:N".

    Raises:
        DatasetError: if the data set is not the one the release was trained on.
        WeightsError: if the release is damaged.
    """
    config = read_release(release)
    check_dataset(config, dataset)
    predictor = load(release, device=device)
    samples = dataset.split(config.protocol, "val")
    calibration = _fit(predictor, samples, config.labels, task=config.task)
    config = config.model_copy(update={"calibration": calibration})
    write_config(release, config)
    logger.info("calibrated %s %s on %d images", config.name, config.revision, len(samples))
    return config


def check_dataset(config: ReleaseConfig, dataset: Dataset) -> None:
    """Refuse a data set other than the very one that a release was trained on.

    Raises:
        DatasetError: if it is another one.
    """
    if dataset.id != config.run.dataset_id:
        version = f"{config.dataset}@{config.run.dataset_id[:12]}"  # of what people reviewed
        if (dataset.root.parent / version).is_dir():
            way = f"give {version}"
        elif dataset.name != config.dataset:
            way = f"give {config.dataset}"
        else:
            way = "prepare the same archive with the same seed"
        raise DatasetError(
            f"{config.name} {config.revision} was trained on {config.dataset} "
            f"{config.run.dataset_id[:12]}, this is {dataset.name} {dataset.id[:12]}: {way}."
        )


def _fit(
    predictor: Predictor, samples: Sequence[Sample], labels: Sequence[str], *, task: Task
) -> dict[str, Any]:
    match task:
        case "detect":
            return fit_detection(box_pairs(predictor, samples, labels))
        case "segment":
            return fit_detection(pixel_pairs(predictor, samples, labels))
        case "classify":
            answers = class_answers(predictor, samples, labels)
            return fit_temperature(*answers, [sample.group for sample in samples])


def box_pairs(predictor: Predictor, samples: Sequence[Sample], labels: Sequence[str]) -> Pairs:
    """What a detector claimed of the samples, and which of its boxes are right at IoU 0.5."""
    from training.detection_metrics import rank
    from training.evaluate import detection_scenes

    rankings = rank(detection_scenes(predictor, samples, labels), len(labels))
    return Pairs.from_rankings(rankings, labels, [sample.group for sample in samples])


def class_answers(
    predictor: Predictor, samples: Sequence[Sample], labels: Sequence[str]
) -> tuple[Floats, NDArray[np.int64]]:
    """A classifier's probabilities (n, C) of the samples, and their true classes (n,)."""
    from training.evaluate import predictions
    from training.truth import class_index

    rows, truth = [], []
    for sample, found in predictions(predictor, samples):
        if isinstance(found, Classification):
            rows.append(found.probabilities)
            truth.append(class_index(sample, labels))
    return np.stack(rows).astype(np.float64), np.asarray(truth, np.int64)


def pixel_pairs(predictor: Predictor, samples: Sequence[Sample], labels: Sequence[str]) -> Pairs:
    """What a segmenter claimed of the samples' pixels, background left out, and which are right."""
    from training.evaluate import predictions
    from training.truth import read_mask

    _, member = np.unique([sample.group for sample in samples], return_inverse=True)
    scores, correct, class_ids, groups = [], [], [], []
    for group, (sample, found) in zip(member, predictions(predictor, samples), strict=True):
        if not isinstance(found, Segmentation):
            continue
        thin = (slice(None, None, PIXEL_STRIDE), slice(None, None, PIXEL_STRIDE))
        claimed, truth = found.class_map[thin].ravel(), read_mask(sample, labels)[thin].ravel()
        defects = claimed > 0
        scores.append(found.scores[thin].ravel()[defects].astype(np.float64))
        correct.append(claimed[defects] == truth[defects])
        class_ids.append(claimed[defects].astype(np.int64) - 1)
        groups.append(np.full(int(defects.sum()), group, np.int64))
    return Pairs(
        scores=np.concatenate(scores),
        correct=np.concatenate(correct),
        class_ids=np.concatenate(class_ids),
        groups=np.concatenate(groups),
        labels=tuple(labels),
    )
