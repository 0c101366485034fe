"""Which images of a split a page shows: easy ones and hard ones, masks beside the truth."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.images import KEPT, decode
from training.metrics import confusion, segmentation_scores
from training.truth import read_mask

if TYPE_CHECKING:
    from pathlib import Path

    from core.types import Predictor
    from training.datasets import Dataset, Sample
    from training.splits import Protocol

SHOWN = 3  # easy images, and hard ones


def draw_masks(
    predictor: Predictor,
    dataset: Dataset,
    path: Path,
    *,
    protocol: Protocol = "leak-free",
    split: str = "test",
) -> tuple[list[tuple[Sample, float]], list[tuple[Sample, float]]]:
    """Show a segmenter's easiest and hardest images of a split beside the truth.

    Images are ordered by the mean IoU of their classes; those shown are spread over the easiest and
    the hardest tenth, so that no single strip fills the figure.

    Returns:
        The easy images that are shown, and the hard ones, from left to right, each with its mean
        IoU.
    """
    from training.benchmark.figures import draw_cases
    from training.evaluate import predictions

    samples = dataset.split(protocol, split)
    maps: list[NDArray[np.uint8]] = []
    for _, found in predictions(predictor, samples):
        maps.append(np.asarray(found.class_map))  # type: ignore[union-attr]
    truths = [read_mask(sample, dataset.labels) for sample in samples]
    scores = np.array(
        [_mean_iou(t, m, 1 + len(dataset.labels)) for t, m in zip(truths, maps, strict=True)]
    )
    easy, hard = easy_and_hard(scores)
    cases = [
        (f"mIoU {100 * scores[i]:.0f} %", _pixels(samples[i]), maps[i], truths[i])
        for i in (*easy, *hard)
    ]
    draw_cases(cases, labels=dataset.labels, path=path)
    told = [(sample, float(score)) for sample, score in zip(samples, scores, strict=True)]
    return [told[i] for i in easy], [told[i] for i in hard]


def easy_and_hard(scores: Iterable[float]) -> tuple[list[int], list[int]]:
    """Places of images of the best tenth and of the worst, evenly spread over each.

    Each are three, fewer where a tenth has not as many.
    """
    order = np.argsort(-np.asarray(list(scores)), kind="stable")
    tenth = max(len(order) // 10, 1)
    places = list(dict.fromkeys(np.linspace(0, tenth - 1, SHOWN).round().astype(int).tolist()))
    easy = [int(order[i]) for i in places]
    return easy, [i for i in (int(order[-1 - k]) for k in reversed(places)) if i not in easy]


def say_easy_and_hard(easy: int, by: str) -> str:
    """Which of the images shown are which: so many easy ones come first."""
    first = "is of" if easy == 1 else f"{easy} are spread over"
    return (
        f"The first {first} the easiest tenth of the images, the others "
        f"{'are of' if easy == 1 else 'over'} the hardest, by {by}."
    )


def _mean_iou(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> float:
    return float(segmentation_scores(confusion(truth, predicted, classes))["mIoU"])


def _pixels(sample: Sample) -> NDArray[np.uint8]:
    return np.asarray(decode(sample.path, limits=KEPT).pixels)
