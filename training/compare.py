"""Is one model better than another on a split: the difference, resample by resample.

Both are measured on the same images and the same bootstrap resamples of whole groups, so what makes
an image hard for both cancels out: an interval of the difference is far narrower than the two
intervals beside each other, and says whether they differ at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from core.records import Record
from training import metrics
from training.evaluate import Measurement, measure

if TYPE_CHECKING:
    from core.types import Predictor
    from training.datasets import Dataset
    from training.splits import Protocol


class Difference(Record):
    """How far the first of two models is ahead in one metric, as a fraction."""

    name: str
    first: float
    second: float
    difference: float
    low: float | None = None  # of the difference's 95 % interval; None without resamples
    high: float | None = None
    ahead: float | None = None  # share of resamples the first wins


class Comparison(Record):
    """Two models on one split."""

    first: str  # name and revision
    second: str
    dataset: str
    protocol: str
    split: str
    test_id: str
    n: int
    seed: int
    resamples: int
    differences: tuple[Difference, ...]


def compare(
    first: Predictor,
    second: Predictor,
    dataset: Dataset,
    *,
    protocol: Protocol,
    split: str,
    seed: int = 0,
    resamples: int = 1000,
) -> Comparison:
    """Measure two predictors of one task and take the differences.

    Raises:
        DatasetError: whatever `measure` raises for either.
    """
    one, other = (
        measure(p, dataset, protocol=protocol, split=split, seed=seed, resamples=resamples)
        for p in (first, second)
    )
    return Comparison(
        first=f"{first.spec.name} {first.revision}",
        second=f"{second.spec.name} {second.revision}",
        dataset=dataset.name,
        protocol=protocol,
        split=split,
        test_id=one.evaluation.test_id,
        n=one.evaluation.metrics[0].n,
        seed=seed,
        resamples=resamples,
        differences=differences(one, other),
    )


def differences(one: Measurement, other: Measurement) -> tuple[Difference, ...]:
    """The first measurement's lead in each metric that both have; resamples must be paired."""
    found = []
    there = {metric.name: metric.value for metric in other.evaluation.metrics}
    for metric in one.evaluation.metrics:
        if metric.name not in there:
            continue
        drawn = one.resamples[metric.name] - other.resamples[metric.name]
        drawn = drawn[~np.isnan(drawn)]  # a resample of images without defects tells nothing
        low, high = metrics.interval(drawn) if len(drawn) else (None, None)
        found.append(
            Difference(
                name=metric.name,
                first=metric.value,
                second=there[metric.name],
                difference=metric.value - there[metric.name],
                low=low,
                high=high,
                ahead=float(np.mean(drawn > 0)) if len(drawn) else None,
            )
        )
    return tuple(found)
