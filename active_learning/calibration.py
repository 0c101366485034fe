"""From a raw score to the probability of being right, and how far the two are apart.

A detector's and a segmenter's scores have one rising curve per class, a classifier's probabilities
one temperature. They are stored as a JSON-ready dictionary, `ReleaseConfig.calibration`; an empty
one leaves scores as they are. `active_learning.calibration_fitting` makes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from core.errors import WeightsError
from core.records import Record

Floats = NDArray[np.float64]

BINS: Final = 10
_EPS: Final = 1e-6  # a probability of 0 has no logarithm


class Curve(Record):
    """A rising curve through (x, y), linear between its knots and level outside them."""

    method: Literal["isotonic", "logistic", "identity"]
    x: tuple[float, ...] = Field(min_length=1)
    y: tuple[float, ...] = Field(min_length=1)
    n: int  # pairs it was fitted to

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if len(self.x) != len(self.y):
            raise ValueError(f"{len(self.x)} scores need as many probabilities, got {len(self.y)}")
        if (np.diff(self.x) <= 0).any() or (np.diff(self.y) < 0).any():
            raise ValueError("scores must ascend and probabilities must not fall")
        if not 0 <= self.y[0] <= self.y[-1] <= 1:
            raise ValueError("probabilities must lie in [0, 1]")
        return self

    def __call__(self, scores: Floats) -> Floats:
        """Probabilities of scores, any shape."""
        return np.asarray(np.interp(scores, self.x, self.y))


class Claimed(Record):
    """A point of a reliability diagram: what was claimed in a tenth of [0, 1], and what was so."""

    tenth: int  # 0 is from 0 to 0.1
    claimed: float  # mean score or probability
    right: float  # share of these that was right
    n: int


class ScoreCalibration(Record):
    """One curve per class; `pooled` serves the classes without one of their own."""

    kind: Literal["curves"] = "curves"
    per_class: dict[str, Curve]
    pooled: Curve
    n: int
    dece_before: float
    dece_after: float  # cross-validated: no strip judges a curve it has shaped
    diagram_before: tuple[Claimed, ...] = ()  # older releases have none
    diagram_after: tuple[Claimed, ...] = ()  # cross-validated


class TemperatureCalibration(Record):
    """A classifier's probabilities become softmax(log p / T)."""

    kind: Literal["temperature"] = "temperature"
    T: float = Field(gt=0)
    n: int
    ece_before: float
    ece_after: float  # cross-validated
    diagram_before: tuple[Claimed, ...] = ()
    diagram_after: tuple[Claimed, ...] = ()


_CALIBRATION: Final[TypeAdapter[ScoreCalibration | TemperatureCalibration]] = TypeAdapter(
    Annotated[ScoreCalibration | TemperatureCalibration, Field(discriminator="kind")]
)


# --- applying ----------------------------------------------------------------------------------


def apply(calibration: Mapping[str, Any], scores: ArrayLike, labels: str | Sequence[str]) -> Floats:
    """Probabilities of being right for raw scores of boxes, regions or pixels.

    Args:
        calibration: as `fit_detection` returned it; empty leaves the scores as they are.
        scores: (...), in [0, 1].
        labels: name of the class of all scores, or of each of (n,).

    Returns:
        The shape of `scores`, in [0, 1].

    Raises:
        WeightsError: if the calibration is damaged or not one of scores.
    """
    raw = np.asarray(scores, dtype=np.float64)
    if not calibration:
        return raw
    fitted = _parse(calibration)
    if not isinstance(fitted, ScoreCalibration):
        raise WeightsError("Scores need a calibration of kind 'curves', not 'temperature'.")
    if isinstance(labels, str):
        return fitted.per_class.get(labels, fitted.pooled)(raw)
    names = np.asarray(labels, dtype=object)
    out = np.empty_like(raw)
    for name in set(labels):
        where = names == name
        out[where] = fitted.per_class.get(name, fitted.pooled)(raw[where])
    return out


def apply_temperature(calibration: Mapping[str, Any], probabilities: ArrayLike) -> Floats:
    """Class probabilities as sure as they have a right to be; their order does not change.

    Args:
        calibration: as `fit_temperature` returned it; empty leaves them as they are.
        probabilities: (..., C), the last axis summing to 1.

    Returns:
        (..., C), the last axis summing to 1.

    Raises:
        WeightsError: if the calibration is damaged or not a temperature.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not calibration:
        return p
    fitted = _parse(calibration)
    if not isinstance(fitted, TemperatureCalibration):
        raise WeightsError("Class probabilities need a calibration of kind 'temperature'.")
    return soften(to_logits(p), fitted.T)


def _parse(calibration: Mapping[str, Any]) -> ScoreCalibration | TemperatureCalibration:
    try:
        return _CALIBRATION.validate_python(dict(calibration))
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "calibration"
        raise WeightsError(
            f"The release's calibration is damaged: {where}: {first['msg']}."
        ) from exc


def to_logits(probabilities: Floats) -> Floats:
    """Logits (..., C) whose softmax is `probabilities`."""
    return np.asarray(np.log(probabilities.clip(_EPS, 1)))


def soften(logits: Floats, temperature: float) -> Floats:
    """softmax(logits / temperature) over the last axis (..., C)."""
    from scipy.special import softmax

    return np.asarray(softmax(logits / temperature, axis=-1))


# --- measuring ---------------------------------------------------------------------------------


def d_ece(scores: ArrayLike, correct: ArrayLike) -> float:
    """Detection ECE over confidence: Σ |bin| / n · |precision - mean score| (Küppers et al. 2020).

    Args:
        scores: (n,), of detections.
        correct: (n,), whether each found a true defect at IoU 0.5.

    Returns:
        In [0, 1]; 0 without detections.
    """
    s = np.asarray(scores, dtype=np.float64)
    if not s.size:
        return 0.0
    gap = s - np.asarray(correct, dtype=np.float64)
    return float(np.abs(np.bincount(_bin_of(s), weights=gap)).sum() / s.size)


def diagram(scores: ArrayLike, correct: ArrayLike) -> tuple[Claimed, ...]:
    """The points of a reliability diagram, from the lowest score up; an empty tenth has none.

    Args:
        scores: (n,), of detections, or of the class an image was given.
        correct: (n,), whether each was right.
    """
    s, right = np.asarray(scores, np.float64), np.asarray(correct, np.bool_)
    place = _bin_of(s)
    return tuple(
        Claimed(
            tenth=int(k),
            claimed=round(float(s[place == k].mean()), 4),
            right=round(float(right[place == k].mean()), 4),
            n=int((place == k).sum()),
        )
        for k in np.unique(place)
    )


def _bin_of(scores: Floats) -> NDArray[np.int64]:
    """The bin (n,) of each score, BINS of equal width; a score of 1 is in the last one."""
    return np.minimum((scores * BINS).astype(np.int64), BINS - 1)


def ece(probabilities: ArrayLike, truth: ArrayLike) -> float:
    """Expected calibration error of the best class (Guo et al. 2017, eq. 3).

    Args:
        probabilities: (n, C).
        truth: (n,), index of the true class.

    Returns:
        In [0, 1]; 0 without images.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return d_ece(p.max(axis=-1), p.argmax(axis=-1) == np.asarray(truth))
