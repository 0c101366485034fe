"""What a classifier gets wrong on a split, image by image: which strip, and what it was taken for.

For looking at after a split has been measured. Each image that is named wrongly is shown with the
place that spoke for the wrong class, and with the training images that the network finds most like
it. Images of one strip are told together: a class of few strips is judged by few looks at steel.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from core.errors import DatasetError
from core.types import Classification
from training.evaluate import predictions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from core.types import Predictor
    from training.datasets import Dataset, Sample
    from training.splits import Protocol

NEIGHBOURS: Final = 3  # training images shown beside a mistake


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image that was named wrongly."""

    sample: Sample
    said: str
    probability: float  # of what was said
    of_truth: float  # probability of the true class
    alike: tuple[Sample, ...]  # training images with the nearest features, nearest first


@dataclass(frozen=True, slots=True)
class ClassStrips:
    """How many strips stand behind the images of one class in one split."""

    images: int
    strips: int
    largest: int  # images of the strip that has most


@dataclass(frozen=True, slots=True)
class StripMistakes:
    """The mistakes on one strip."""

    group: str
    label: str
    images: int  # of the strip in the split
    said: Mapping[str, int]  # wrong answers by class, most frequent first


def find_mistakes(
    predictor: Predictor, dataset: Dataset, *, protocol: Protocol, split: str
) -> tuple[Mistake, ...]:
    """The images of a split that a classifier names wrongly, strip by strip.

    Args:
        predictor: a classifier with a feature layer.
        dataset: of its labels.
        protocol: which division.
        split: which part of it.

    Raises:
        DatasetError: if the predictor is no classifier or gives no features.
    """
    known = dataset.split(protocol, "train")
    answers = [
        (s, _classified(p)) for s, p in predictions(predictor, dataset.split(protocol, split))
    ]
    wrong = [(s, found) for s, found in answers if _named(found) != s.label]
    if not wrong:
        return ()
    trained = np.stack([_direction(_classified(p)) for _, p in predictions(predictor, known)])
    mistakes = [_mistake(sample, found, known, trained) for sample, found in wrong]
    return tuple(sorted(mistakes, key=lambda m: (m.sample.label or "", m.sample.group)))


def _mistake(
    sample: Sample, found: Classification, known: Sequence[Sample], trained: NDArray[np.float64]
) -> Mistake:
    likeness = trained @ _direction(found)  # cosine, (n,)
    nearest = np.argsort(-likeness, kind="stable")[:NEIGHBOURS]
    truth = found.labels.index(sample.label or "")
    return Mistake(
        sample=sample,
        said=_named(found),
        probability=float(found.probabilities.max()),
        of_truth=float(found.probabilities[truth]),
        alike=tuple(known[i] for i in nearest),
    )


def class_strips(samples: Sequence[Sample]) -> dict[str, ClassStrips]:
    """The strips behind the images of each class, by label."""
    groups: dict[str, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        groups[sample.label or ""][sample.group] += 1
    return {
        label: ClassStrips(sum(counts.values()), len(counts), max(counts.values()))
        for label, counts in sorted(groups.items())
    }


def by_strip(mistakes: Sequence[Mistake], samples: Sequence[Sample]) -> tuple[StripMistakes, ...]:
    """The mistakes of each strip, the strip with most of them first.

    Args:
        mistakes: of a split.
        samples: all images of that split.
    """
    images = Counter(sample.group for sample in samples)
    said: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for mistake in mistakes:
        said[mistake.sample.group, mistake.sample.label or ""][mistake.said] += 1
    rows = [
        StripMistakes(group, label, images[group], dict(counts.most_common()))
        for (group, label), counts in said.items()
    ]
    return tuple(sorted(rows, key=lambda row: (-sum(row.said.values()), row.group)))


def _classified(found: object) -> Classification:
    if not isinstance(found, Classification):
        raise DatasetError("A classifier's answer was expected.")
    return found


def _named(found: Classification) -> str:
    return found.labels[int(found.probabilities.argmax())]


def _direction(found: Classification) -> NDArray[np.float64]:
    """The image's features (D,) at length 1."""
    features = found.source.features
    if features is None:
        raise DatasetError(f"{found.source.model} gives no features: its spec must name a layer.")
    length = max(float(np.linalg.norm(features)), 1e-12)
    return np.asarray(features, np.float64) / length
