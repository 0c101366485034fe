"""Fitting what a release has seen: centres and spread from training images, the scale from others.

The network looks at its training images (at most MOST_IMAGES, evenly drawn) and at its validation
images. The test split is not read.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import ArrayLike

from active_learning.calibrate import check_dataset
from active_learning.novelty import ALARM, NOVELTY_FILE, Familiarity, to_bytes
from active_learning.uncertainty import Floats, unit_rows
from core.errors import DatasetError, InputError
from core.files import write_atomically
from core.records import ReleaseConfig, SideFile
from models import load
from models._release import read_release, write_config

if TYPE_CHECKING:
    from core.types import Predictor
    from training.datasets import Dataset, Sample

logger = logging.getLogger(__name__)

MOST_IMAGES: Final = 1000  # of the training split: more change the spread of 256 features little


def fit_novelty(release: Path, dataset: Dataset, *, device: str = "cpu") -> ReleaseConfig:
    """Fit what a release's images look like to it, and store it beside the weights.

    Args:
        release: folder of a release.
        dataset: the very data set it was trained on, prepared the same way.
        device: "cpu" or "cuda:N".

    Raises:
        DatasetError: if the data set is not the one the release was trained on, or too small.
        WeightsError: if the release is damaged, or its network gives no features.
    """
    config = read_release(release)
    check_dataset(config, dataset)
    predictor = load(release, device=device)
    train = dataset.split(config.protocol, "train")
    step = -(-len(train) // MOST_IMAGES) or 1
    known = train[::step]
    validation = dataset.split(config.protocol, "val")
    try:
        familiarity = fit(
            features_of(predictor, known),
            [kind(sample, config.labels) for sample in known],
            features_of(predictor, validation),
        )
    except InputError as exc:
        raise DatasetError(f"What {config.name} has seen cannot be fitted: {exc}") from exc
    if len(validation) + 1 < 1 / ALARM:
        logger.warning(
            "%d validation images are too few to tell 1 in %.0f: no image of %s will be called "
            "unlike anything seen",
            len(validation),
            1 / ALARM,
            config.name,
        )
    content = to_bytes(familiarity, layer=predictor.spec.feature_layer)
    side = SideFile(file=NOVELTY_FILE, sha256=hashlib.sha256(content).hexdigest())
    config = config.model_copy(update={"novelty": side})
    # The config last: a file that it does not name yet does no harm.
    write_atomically(release / NOVELTY_FILE, content)
    write_config(release, config)
    logger.info("fitted what %s %s has seen", config.name, config.revision)
    return config


def fit(train: ArrayLike, kinds: Sequence[str], validation: ArrayLike) -> Familiarity:
    """Centres of the kinds, one shrunken covariance around them, and the validation distances.

    The covariance is that of the differences from the centres, pooled over the kinds and shrunk
    towards a multiple of the identity (Ledoit and Wolf 2004), so that it can be inverted also
    where features outnumber images.

    Args:
        train: (n, D).
        kinds: (n,), of each training image; all alike if none is known.
        validation: (m, D).

    Raises:
        InputError: if there is no validation image, or nothing varies around the centres.
    """
    from sklearn.covariance import ledoit_wolf

    known, asked = unit_rows(train), np.asarray(validation, dtype=np.float64)
    names, which = np.unique(np.asarray(kinds, dtype=str), return_inverse=True)
    if len(known) <= len(names) or not len(asked):
        raise InputError(
            f"{len(known)} training images of {len(names)} kinds and {len(asked)} validation "
            "images are too few: each kind needs two, and one must be left to compare with."
        )
    centres = np.stack([known[which == k].mean(axis=0) for k in range(len(names))])
    covariance, _ = ledoit_wolf(known - centres[which], assume_centered=True)
    spread, axes = np.linalg.eigh(covariance)
    if not spread.min() > 0:
        raise InputError("The features of the training images do not vary.")
    whitening = (axes / np.sqrt(spread)).astype(np.float32)
    unsorted = Familiarity(
        whitening,
        (centres @ whitening.astype(np.float64)).astype(np.float32),
        np.zeros(1, np.float32),
    )
    ordinary = np.sort(unsorted.distance(asked)).astype(np.float32)
    return Familiarity(unsorted.whitening, unsorted.centres, ordinary)


def features_of(predictor: Predictor, samples: Sequence[Sample]) -> Floats:
    """Features (n, D) of samples, in their order.

    Raises:
        DatasetError: if the network gives none, or there is no sample.
    """
    from training.evaluate import predictions

    rows = [found.source.features for _, found in predictions(predictor, samples)]
    vectors = [row for row in rows if row is not None]
    if not vectors or len(vectors) < len(rows):
        raise DatasetError(
            f"{predictor.spec.name} gives no features for {len(rows) - len(vectors)} of "
            f"{len(rows)} images: its spec must name a feature layer."
        )
    return np.stack(vectors).astype(np.float64)


def kind(sample: Sample, labels: Sequence[str]) -> str:
    """What a training image shows: its label, else the class that covers most of it, else ""."""
    from training.truth import read_mask

    if sample.label:
        return sample.label
    covered: Counter[str] = Counter()
    for label, (x1, y1, x2, y2) in sample.boxes:
        covered[label] += int((x2 - x1) * (y2 - y1))
    if sample.mask is not None:
        areas = np.bincount(read_mask(sample, labels).ravel(), minlength=len(labels) + 1)[1:]
        covered.update({name: int(n) for name, n in zip(labels, areas, strict=True) if n})
    return max(sorted(covered), key=lambda name: covered[name], default="")
