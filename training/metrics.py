"""Numbers from confusion matrices, and bootstrap intervals: numpy only, no images, no networks.

A confusion matrix counts truth in rows and predictions in columns. Every function takes matrices
with any leading dimensions, so a thousand bootstrap resamples are scored in one call. A class that
neither truth nor prediction contains says nothing: it is left out of the means.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def confusion(truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int) -> Counts:
    """(classes, classes) counts of each pair of true and predicted class; inputs of one shape."""
    pairs = truth.astype(np.int64).ravel() * classes + predicted.astype(np.int64).ravel()
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _ratio(part: NDArray[np.generic], whole: NDArray[np.generic]) -> Floats:
    """part / whole, NaN where whole is 0."""
    out: Floats = np.full(np.shape(part), np.nan)
    np.divide(part, whole, out=out, where=np.asarray(whole) > 0)
    return out


def mean(values: Floats) -> Floats:
    """Mean over the last axis without NaN; NaN where nothing is left."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0.0).sum(-1), known.sum(-1))


def per_class(matrix: Counts) -> dict[str, Floats]:
    """IoU, recall, precision and F1 of each class, (..., C); NaN where a class is undefined.

    IoU = TP / (TP + FP + FN), recall = TP / (TP + FN), precision = TP / (TP + FP),
    F1 = 2 TP / (2 TP + FP + FN). A class present in truth alone has precision 0, not NaN, and one
    present in predictions alone has recall NaN: there was nothing of it to find.
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    truth, predicted = matrix.sum(-1), matrix.sum(-2)
    precision = _ratio(hits, predicted)
    return {
        "IoU": _ratio(hits, truth + predicted - hits),
        "recall": _ratio(hits, truth),
        "precision": np.where((truth > 0) & np.isnan(precision), 0.0, precision),
        "F1": _ratio(2 * hits, truth + predicted),
    }


def segmentation_scores(matrix: Counts) -> dict[str, Floats]:
    """mIoU, MPA, precision and recall over all classes, and `_defects` without background (row 0).

    MPA is the mean class recall, so `recall` repeats it under the name other papers use.
    """
    classes = per_class(matrix)
    scores = {}
    for name, source in (
        ("mIoU", "IoU"),
        ("MPA", "recall"),
        ("precision", "precision"),
        ("recall", "recall"),
    ):
        scores[name] = mean(classes[source])
        scores[f"{name}_defects"] = mean(classes[source][..., 1:])
    return scores


def classification_scores(matrix: Counts) -> dict[str, Floats]:
    """accuracy, macro_F1, and the class means of recall and precision."""
    classes = per_class(matrix)
    hits = np.trace(matrix, axis1=-2, axis2=-1)
    return {
        "accuracy": np.nan_to_num(_ratio(hits, matrix.sum((-2, -1)))),
        "macro_F1": mean(classes["F1"]),
        "recall": mean(classes["recall"]),
        "precision": mean(classes["precision"]),
    }


def resample_weights(groups: Sequence[str], *, resamples: int, seed: int) -> Counts:
    """How often each image occurs in each bootstrap resample, (resamples, images).

    Whole groups are drawn with replacement: images of one strip are not independent, and an
    interval that pretends so is too narrow. Give every image its own group to resample images.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    count = int(member.max()) + 1
    draws = np.random.default_rng(seed).multinomial(
        count, np.full(count, 1 / count), size=resamples
    )
    return np.asarray(draws[:, member], dtype=np.int64)


def interval(values: Floats, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap values, NaN left out."""
    tail = (1 - level) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all NaN: the interval is NaN
        low, high = np.nanquantile(values, (tail, 1 - tail))
    return float(low), float(high)
