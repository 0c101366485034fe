"""Data sets of which only a few images are labelled; long tails are `training.tails`."""

from __future__ import annotations

import zlib
from collections import defaultdict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from core.errors import DatasetError
from training.benchmark.rows import View
from training.splits import Protocol

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


FEW_LABELS = View(name=f"few{FEW}", of=partial(few_labels, per_class=FEW))
