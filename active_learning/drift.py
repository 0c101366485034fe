"""Whether the images that come in still look like those a model was trained on.

Four numbers of every inspection are compared with a reference kept in the release: brightness,
contrast, the class of its strongest finding, and how probable that finding is. The first two are
the picture's own and are held against the training images; the last two are the model's opinion
and are held against its opinion of the validation images, which it was not fitted to.

The distance is the population stability index over the reference's deciles (or its classes),

    PSI = sum over bins of (q - p) ln(q / p),    p the reference's share, q the incoming share,

0 for equal shares; above 0.1 a shift, above 0.25 a large one, by a rule of thumb as old as itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import ValidationError

from core.errors import WeightsError
from core.records import Inspection, Record, ReleaseConfig
from core.types import Image

NOTHING: Final = "nothing"  # the class of an image on which nothing probable was found
BINS: Final = 10
# Of two samples of the same images the PSI is about (bins - 1) (1 / n + 1 / m): 0.09 at 100 each.
FEWEST: Final = 100
_FOUND: Final = 0.5  # probability from which a finding gives an image its class
_FLOOR: Final = 1e-3  # a share of 0 has no logarithm; smaller than one image of the window
_ENOUGH_PX: Final = 128  # along the longer side: they tell brightness as well as all of them


@dataclass(frozen=True, slots=True)
class Seen:
    """What one inspection contributes; brightness and contrast are fractions of full scale."""

    brightness: float  # mean grey
    contrast: float  # standard deviation of grey
    label: str  # of the strongest finding, or NOTHING
    probability: float  # of that finding, 0 without one


class Shares(Record):
    """How a number is distributed: the inner edges of its bins, and the share of each bin."""

    edges: tuple[float, ...]
    shares: tuple[float, ...]


class Reference(Record):
    """What a release was trained on and how it judged what it was validated on."""

    n: int
    brightness: Shares
    contrast: Shares
    probability: Shares
    labels: dict[str, float]


class Drift(Record):
    """PSI of each of the four, and of how many inspections."""

    n: int
    psi: dict[str, float]

    @property
    def is_known(self) -> bool:
        """Whether enough was seen to speak of it."""
        return self.n >= FEWEST

    def worst(self) -> tuple[str, float]:
        """The one that has moved most, and its PSI."""
        return max(self.psi.items(), key=lambda item: item[1])


def observe(pixels: Image, inspection: Inspection) -> Seen:
    """The four numbers of an inspection; a tenth of a millisecond for a strip image.

    Args:
        pixels: (H, W, 3) uint8, as inspected.
        inspection: what the model said.
    """
    label, probability = strongest(inspection)
    brightness, contrast = light(pixels)
    return Seen(brightness, contrast, label, probability)


def light(pixels: Image) -> tuple[float, float]:
    """Mean and standard deviation of an image's grey, (H, W, 3) uint8, as fractions of 255."""
    step = max(1, max(pixels.shape[:2]) // _ENOUGH_PX)
    grey = pixels[::step, ::step].mean(axis=2)
    return float(grey.mean()) / 255, float(grey.std()) / 255


def strongest(inspection: Inspection) -> tuple[str, float]:
    """Class and probability of the most probable finding; below one half the class is NOTHING."""
    found = [(d.probability, d.label) for d in inspection.detections]
    found += [(s.score, s.label) for s in inspection.segments]
    found += [(p, label) for label, p in inspection.probabilities.items()]
    if not found:
        return NOTHING, 0.0
    probability, label = max(found)
    return (label if probability >= _FOUND else NOTHING), probability


def describe(
    pictures: Sequence[tuple[float, float]], opinions: Sequence[tuple[str, float]]
) -> Reference:
    """The reference of a release.

    Args:
        pictures: brightness and contrast of the training images.
        opinions: class and probability of the strongest finding on the validation images.
    """
    counts = Counter(label for label, _ in opinions)
    return Reference(
        n=len(pictures),
        brightness=_deciles([b for b, _ in pictures]),
        contrast=_deciles([c for _, c in pictures]),
        probability=_deciles([p for _, p in opinions]),
        labels={label: n / len(opinions) for label, n in sorted(counts.items())},
    )


def compare(reference: Reference, seen: Sequence[Seen]) -> Drift:
    """How far what came in is from the reference."""
    if not seen:
        return Drift(
            n=0, psi=dict.fromkeys(("brightness", "contrast", "class", "probability"), 0.0)
        )
    counts = Counter(s.label for s in seen)
    incoming = {label: n / len(seen) for label, n in counts.items()}
    numbers = {
        name: psi(kept.shares, _binned([getattr(s, name) for s in seen], kept.edges))
        for name, kept in (
            ("brightness", reference.brightness),
            ("contrast", reference.contrast),
            ("probability", reference.probability),
        )
    }
    return Drift(n=len(seen), psi={**numbers, "class": _mix(reference.labels, incoming)})


def psi(expected: Sequence[float], actual: Sequence[float]) -> float:
    """Population stability index of two lists of shares; a share below 0.001 counts as 0.001."""
    p = np.maximum(np.asarray(expected, np.float64), _FLOOR)
    q = np.maximum(np.asarray(actual, np.float64), _FLOOR)
    return float(((q - p) * np.log(q / p)).sum())


def read_reference(config: ReleaseConfig) -> Reference | None:
    """The reference kept in a release; None if none was fitted.

    Raises:
        WeightsError: if it is damaged.
    """
    if not config.drift:
        return None
    try:
        return Reference.model_validate(config.drift)
    except ValidationError as exc:
        raise WeightsError(
            f"The drift reference of {config.name} {config.revision} is damaged: fit it again."
        ) from exc


def _deciles(values: Sequence[float]) -> Shares:
    """Bins of about a tenth each; a value that is several deciles at once is a bin of its own.

    Else one that most images share, as 0 where nothing was found, would hide what becomes of them.
    """
    deciles = np.quantile(np.asarray(values, np.float64), np.linspace(0, 1, BINS + 1)[1:-1])
    inner, times = np.unique(deciles, return_counts=True)
    above = np.nextafter(inner[times > 1], np.inf)
    edges = tuple(float(edge) for edge in np.union1d(inner, above))
    return Shares(edges=edges, shares=_binned(values, edges))


def _binned(values: Sequence[float], edges: Sequence[float]) -> tuple[float, ...]:
    """Share of the values in each bin; a value on an edge belongs to the bin above it."""
    place = np.searchsorted(np.asarray(edges), np.asarray(values), side="right")
    counts = np.bincount(place, minlength=len(edges) + 1)
    return tuple(float(n) for n in counts / len(values))


def _mix(expected: Mapping[str, float], actual: Mapping[str, float]) -> float:
    labels = sorted({*expected, *actual})
    return psi([expected.get(k, 0.0) for k in labels], [actual.get(k, 0.0) for k in labels])
