"""How consistently a class's boxes are drawn: near how many of them a model finds it, and how near.

Where a class is found and its labels are not met, models and labels, or the labels among each
other, differ in where it begins and ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training import metrics
from training.label_doubts import SAME_PLACE, Found, closest, touched
from training.metrics import Counts, Floats

STRICT_PLACE: Final = 0.75  # IoU from which two annotators would be said to agree well


@dataclass(frozen=True, slots=True)
class Share:
    """A share of labels with the 95 % interval over resampled strips; None without resamples."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Places:
    """On how many of a class's boxes at least one model puts a finding of the class."""

    touched: Share  # anywhere near: IoU 0.1, or half of the smaller box
    placed: Share  # IoU 0.5
    strictly: Share  # IoU 0.75


@dataclass(frozen=True, slots=True)
class Counted:
    """How many labels there are and where they are found, (images, classes) each."""

    labels: Counts
    touched: Counts
    placed: Counts
    strictly: Counts

    @classmethod
    def of(cls, labelled: Sequence[Found], claimed: Sequence[Found], classes: int) -> Counted:
        """Count image by image.

        Args:
            labelled: boxes of each image.
            claimed: what any model shows of it.
            classes: how many there are.
        """
        rows = []
        for truth, found in zip(labelled, claimed, strict=True):
            best = closest(truth, found)
            at_all = touched(truth, found)
            where = (np.ones_like(at_all), at_all, best >= SAME_PLACE, best >= STRICT_PLACE)
            rows.append([np.bincount(truth.class_ids[w], minlength=classes) for w in where])
        return cls(*np.asarray(rows, np.int64).swapaxes(0, 1))

    def share(self, counts: Counts) -> Floats:
        """Of the labels of each class, (classes,); 0 for a class without labels."""
        return np.asarray(counts.sum(0) / np.maximum(self.labels.sum(0), 1), np.float64)

    def of_class(self, class_id: int, weights: Counts) -> Places | None:
        """The shares with their intervals over resamples (resamples, images)."""
        there = self.labels[:, class_id]
        if not there.any():
            return None
        shares = []
        for counts in (self.touched, self.placed, self.strictly):
            drawn: Floats = np.full(len(weights), np.nan)
            labels = weights @ there
            np.divide(weights @ counts[:, class_id], labels, out=drawn, where=labels > 0)
            low, high = metrics.interval(drawn) if len(weights) else (None, None)
            shares.append(Share(float(self.share(counts)[class_id]), low, high))
        return Places(*shares)
