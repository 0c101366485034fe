"""Data sets of which only a part may be trained on: few labels, and a long tail."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from core.errors import DatasetError
from training.benchmark.rows import Protocol, View

if TYPE_CHECKING:
    from training.datasets import Dataset

FEW = 15  # labelled images a class: the 5 % of NEU's 300 that MobileSteelNet trains on


def few_labels(dataset: Dataset, protocol: Protocol, seed: int, *, per_class: int) -> Dataset:
    """Keep `per_class` images of each class in train, as many in val, and the whole test split.

    Each class is drawn by a generator of its own, so adding a class does not move the others. A
    class that has no more than `per_class` images in a split keeps them all.

    Raises:
        DatasetError: if an image has no class.
    """
    classes: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sample in dataset.samples:
        if sample.label is None:
            raise DatasetError(f"{sample.file} has no class: few labels are drawn class by class.")
        classes[sample.splits[protocol], sample.label].append(sample.file)
    kept: set[str] = set()
    for (split, label), files in classes.items():
        if split == "test":
            kept.update(files)
            continue
        rng = np.random.default_rng((seed, zlib.crc32(f"{split} {label}".encode())))
        kept.update(sorted(files)[i] for i in rng.permutation(len(files))[:per_class])
    return replace(dataset, samples=tuple(s for s in dataset.samples if s.file in kept))


FEW_LABELS = View(
    name=f"few{FEW}",
    words=f"{FEW} labelled images a class in train and in val, drawn anew by each seed",
    of=partial(few_labels, per_class=FEW),
)


TAIL = ("crazing", "scratches")  # cut to a tenth: a hard class and an easy one
KEEP = 0.1


def long_tail(
    dataset: Dataset, protocol: Protocol, seed: int, *, labels: tuple[str, ...], keep: float
) -> Dataset:
    """Keep a share of the training images of some classes, drawn by the seed; val and test whole.

    Raises:
        DatasetError: if no training image bears one of the classes.
    """
    dropped: set[str] = set()
    for label in labels:
        train = [s.file for s in dataset.split(protocol, "train") if s.label == label]
        if not train:
            raise DatasetError(f"{dataset.name} has no training image of {label!r} to leave out.")
        rng = np.random.default_rng((seed, zlib.crc32(label.encode())))
        order = rng.permutation(len(train))
        dropped.update(train[i] for i in order[max(1, round(keep * len(train))) :])
    return replace(dataset, samples=tuple(s for s in dataset.samples if s.file not in dropped))


LONG_TAIL = View(
    name="tail",
    words=f"of {' and '.join(TAIL)} a tenth of the training images",
    of=partial(long_tail, labels=TAIL, keep=KEEP),
)
