"""How many of what, and how large: class and size statistics of a prepared data set.

Counts are per split; sizes and imbalance are of the training split, which is what a model learns
from. An object is a box or a connected region of a mask; a set of image labels has one an image,
without a size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import DatasetError
from training.datasets import Dataset, Sample
from training.splits import SPLITS
from training.truth import read_mask

SIZES = ("small", "medium", "large")
COCO_LIMITS_PX = (32.0**2, 96.0**2)  # small below the first area, large from the second
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, slots=True)
class ClassStatistics:
    """One class.

    `images` and `objects` are per split. `sizes` counts training objects by COCO's limits of
    32² and 96² px of the source image; `share` gives the 10, 50 and 90 % quantiles of an object's
    area over its image's. Both are empty for image labels.
    """

    label: str
    images: Mapping[str, int]
    objects: Mapping[str, int]
    sizes: Mapping[str, int]
    share: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Imbalance:
    """How uneven the counts of the training split are.

    `ratio` is the largest class over the smallest, infinite where a class is absent; `gini` is 0
    for equal classes and (C - 1) / C for a single one; `effective_classes` is exp of the entropy
    of the shares: C for equal classes, 1 for a single one.
    """

    ratio: float
    gini: float
    effective_classes: float

    @property
    def told_ratio(self) -> str:
        """The ratio with one digit; in a word where it has none."""
        return "infinite" if np.isinf(self.ratio) else f"{self.ratio:.1f}"


@dataclass(frozen=True, slots=True)
class DatasetStatistics:
    """What is in a data set under one protocol; `unlabelled` images of a split hold no class."""

    dataset: str
    dataset_id: str
    task: str
    protocol: str
    images: Mapping[str, int]
    unlabelled: Mapping[str, int]
    classes: tuple[ClassStatistics, ...]
    by_images: Imbalance
    by_objects: Imbalance

    def as_json(self) -> dict[str, Any]:
        """Plain values; an infinite ratio is null, which JSON has a word for."""
        plain = asdict(self)
        for name in ("by_images", "by_objects"):
            if np.isinf(plain[name]["ratio"]):
                plain[name]["ratio"] = None
        return plain


def imbalance(counts: Sequence[int]) -> Imbalance:
    """Imbalance of the counts of the classes.

    Gini is Σ_i Σ_j |n_i - n_j| / (2 C Σ n).

    Raises:
        DatasetError: if nothing was counted.
    """
    n = np.asarray(counts, dtype=np.float64)
    if not n.sum() > 0:
        raise DatasetError("The training split holds no class: there is nothing to count.")
    shares = n[n > 0] / n.sum()
    return Imbalance(
        ratio=float(n.max() / n.min()) if n.min() > 0 else float("inf"),
        gini=float(np.abs(n[:, None] - n).sum() / (2 * len(n) * n.sum())),
        effective_classes=float(np.exp(-(shares * np.log(shares)).sum())),
    )


def measure(dataset: Dataset, *, protocol: str) -> DatasetStatistics:
    """Count a data set; masks are opened, images are not.

    Raises:
        DatasetError: if there is no such protocol, a mask cannot be, or nothing is labelled.
    """
    found: dict[str, list[_Objects]] = {
        split: [_objects(sample, dataset) for sample in dataset.split(protocol, split)]
        for split in SPLITS
    }
    classes = tuple(_class_statistics(k, label, found) for k, label in enumerate(dataset.labels))
    return DatasetStatistics(
        dataset=dataset.name,
        dataset_id=dataset.id,
        task=dataset.task,
        protocol=protocol,
        images={split: len(samples) for split, samples in found.items()},
        unlabelled={s: sum(not len(ids) for ids, _, _ in found[s]) for s in SPLITS},
        classes=classes,
        by_images=imbalance([c.images["train"] for c in classes]),
        by_objects=imbalance([c.objects["train"] for c in classes]),
    )


# class id, area in px and share of the image of each object of one image, (n,) each
_Objects = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]


def _objects(sample: Sample, dataset: Dataset) -> _Objects:
    rows: list[tuple[int, float]] = []
    if dataset.task == "detect":
        for label, (x1, y1, x2, y2) in sample.boxes:
            rows.append((dataset.labels.index(label), (x2 - x1) * (y2 - y1)))
    elif dataset.task == "segment":
        rows = _regions(read_mask(sample, dataset.labels))
    elif sample.label:
        rows = [(dataset.labels.index(sample.label), np.nan)]
    ids = np.array([k for k, _ in rows], dtype=np.int64)
    areas = np.array([area for _, area in rows], dtype=np.float64)
    return ids, areas, areas / (sample.width * sample.height)


def _regions(mask: NDArray[np.uint8]) -> list[tuple[int, float]]:
    """Class id and area of each 8-connected region of one class."""
    import cv2

    regions = []
    for value in np.unique(mask[mask > 0]):
        _, _, stats, _ = cv2.connectedComponentsWithStats((mask == value).astype(np.uint8))
        regions += [(int(value) - 1, float(a)) for a in stats[1:, cv2.CC_STAT_AREA]]
    return regions


def _class_statistics(
    k: int, label: str, found: Mapping[str, Sequence[_Objects]]
) -> ClassStatistics:
    areas, shares = (
        np.concatenate([of[which][of[0] == k] for of in found["train"]] or [np.empty(0)])
        for which in (1, 2)
    )
    sized = np.isfinite(shares)
    size = np.searchsorted(COCO_LIMITS_PX, areas[sized], side="right")
    return ClassStatistics(
        label=label,
        images={s: sum(k in ids for ids, _, _ in found[s]) for s in SPLITS},
        objects={s: sum(int((ids == k).sum()) for ids, _, _ in found[s]) for s in SPLITS},
        sizes={name: int((size == i).sum()) for i, name in enumerate(SIZES)} if sized.any() else {},
        share=tuple(np.quantile(shares[sized], QUANTILES).tolist()) if sized.any() else (),
    )
