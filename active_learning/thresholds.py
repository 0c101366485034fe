"""One probability threshold per class for a segmenter, fitted on its validation split alone.

A rare, thin defect seldom has the highest probability of a pixel, though it is right more often
than not where it has a third of it. Each class's threshold is the one of a fine grid at which the
IoU of "this class or not" over all validation pixels is highest. Thresholds are only kept if they
do better than the most probable class on images that did not choose them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from active_learning.folds import FOLDS, folds
from core.errors import ConfigError, DatasetError, InputError
from models._release import read_release, write_config

if TYPE_CHECKING:
    from torch import Tensor

    from core.types import DecodedImage
    from models._predictors import Segmenter
    from training.datasets import Dataset, Sample

logger = logging.getLogger(__name__)

GRID: Final = np.round(np.arange(0.05, 0.96, 0.01), 2)  # of thresholds
_BINS: Final = 100  # of probability: one per hundredth
# Of a class that no threshold finds, or that the images do not show: more likely than not. The
# lowest of the grid would let it win, at a probability of 0.06, over another's of one half.
_UNTAUGHT: Final = 0.5

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ThresholdFit:
    """What was found, whether it was kept, and what the choice cost or gained; IoU in [0, 1]."""

    thresholds: dict[str, float]  # by label, empty if the most probable class does as well
    plain_miou: float  # of the most probable class, validation split
    crossed_miou: float  # of thresholds fitted without the images they are judged on
    n: int


def fit_thresholds(release: Path, dataset: Dataset, *, device: str = "cpu") -> ThresholdFit:
    """Fit thresholds and write them into the release, or take them out where they do not help.

    What was calibrated before is of other decisions; calibrate again afterwards.

    Raises:
        ConfigError: if the release is not a segmenter's.
        DatasetError: if the data set is not the one the release was trained on.
        WeightsError: if the release is damaged.
    """
    from active_learning.calibrate import check_dataset
    from models import load
    from models._predictors import Segmenter
    from training.truth import read_mask

    config = read_release(release)
    if config.task != "segment":
        raise ConfigError(f"{config.name} is made to {config.task}: only segmenters have pixels.")
    check_dataset(config, dataset)
    predictor = load(release, device=device)
    if not isinstance(predictor, Segmenter):
        raise TypeError(f"{config.name} was loaded as {type(predictor).__name__}.")
    samples = dataset.split(config.protocol, "val")
    labels = config.labels
    counts = np.stack(
        [_histograms(maps, read_mask(s, labels)) for s, _, maps in _maps(predictor, samples)]
    )
    fold_of = folds([sample.group for sample in samples])
    chosen = best_thresholds(counts.sum(0))
    crossed = [best_thresholds(counts[fold_of != fold].sum(0)) for fold in range(FOLDS)]
    plain, fitted = _judge(predictor, samples, labels, [crossed[fold] for fold in fold_of])
    kept = dict(zip(labels, chosen.tolist(), strict=True)) if fitted > plain else {}
    config = config.model_copy(update={"class_thresholds": kept})
    write_config(release, config)
    logger.info(
        "thresholds of %s %s on %d images: %s; mIoU %.4f, without %.4f",
        *(config.name, config.revision, len(samples), kept or "none kept", fitted, plain),
    )
    return ThresholdFit(kept, plain, fitted, len(samples))


def best_thresholds(counts: Counts) -> NDArray[np.float64]:
    """The threshold of each class at which its IoU is highest; of equal ones the lowest.

    A class whose IoU is 0 at all of them has 0.5.

    Args:
        counts: (2, n, _BINS), pixels by probability of each class: those of the class, then all.

    Returns:
        (n,), of GRID.
    """
    above = counts[..., ::-1].cumsum(-1)[..., ::-1]  # pixels in a bin or a higher one
    places = np.round(GRID * _BINS).astype(int)
    hits, claimed = above[:, :, places]
    truth = counts[0].sum(-1)[:, None]
    iou = hits / np.maximum(truth + claimed - hits, 1)
    best = np.where(iou.max(-1) > 0, GRID[iou.argmax(-1)], _UNTAUGHT)
    return np.asarray(best, np.float64)


def _histograms(maps: Tensor, truth: NDArray[np.uint8]) -> Counts:
    """Pixels of one image by probability, (2, n, _BINS); `maps` at the network's scale."""
    from models._class_maps import enlarged

    height, width = truth.shape
    n = maps.shape[0] - 1
    counts = np.zeros((2, n, _BINS), np.int64)
    for top, strip in enlarged(maps, height, width):
        bins = np.clip(strip[1:].numpy() * _BINS, 0, _BINS - 1).astype(np.int64)
        below = truth[top : top + strip.shape[1]]
        for k in range(n):
            counts[0, k] += np.bincount(bins[k][below == k + 1], minlength=_BINS)
            counts[1, k] += np.bincount(bins[k].ravel(), minlength=_BINS)
    return counts


def _judge(
    predictor: Segmenter,
    samples: Sequence[Sample],
    labels: Sequence[str],
    thresholds: Sequence[NDArray[np.float64]],
) -> tuple[float, float]:
    """mIoU of the most probable class, and of each image's own thresholds."""
    import torch

    from models._class_maps import class_map
    from training.metrics import confusion, segmentation_scores
    from training.truth import read_mask

    classes = len(labels) + 1
    total = np.zeros((2, classes, classes), np.int64)
    for (sample, image, maps), own in zip(_maps(predictor, samples), thresholds, strict=True):
        truth = read_mask(sample, labels)
        limits = torch.from_numpy(own).float()
        for row, chosen in enumerate((None, limits)):
            found, _ = class_map(maps, image.height, image.width, chosen)
            total[row] += confusion(truth, found, classes)
    plain, fitted = segmentation_scores(total)["mIoU"]
    return float(plain), float(fitted)


def _maps(
    predictor: Segmenter, samples: Sequence[Sample]
) -> Iterator[tuple[Sample, DecodedImage, Any]]:
    from core.images import KEPT, decode

    for sample in samples:
        try:
            image = decode(sample.path, limits=KEPT)
        except InputError as exc:
            raise DatasetError(f"An image of the split cannot be read: {exc}") from exc
        yield sample, image, predictor.maps(image)[0]
