"""Fitting a calibration to what a model said about the validation images, and what was true.

Matched boxes come from the same evaluation that measures mAP50. The errors that a fit reports are
cross-validated by strip: no image judges a curve that it, or another of the same steel, has shaped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from active_learning.calibration import (
    Claimed,
    Curve,
    Floats,
    ScoreCalibration,
    TemperatureCalibration,
    d_ece,
    diagram,
    ece,
    soften,
    to_logits,
)
from active_learning.folds import FOLDS, folds
from active_learning.uncertainty import ACQUISITION_THRESHOLD
from core.errors import InputError

if TYPE_CHECKING:
    from training.detection_metrics import Ranking

# Isotonic regression overfits where either outcome is rare; a logistic curve has two parameters.
ISOTONIC_SUPPORT: Final = 50  # right ones, and wrong ones, at least
LOGISTIC_SUPPORT: Final = 10
_KNOTS: Final[Floats] = np.linspace(
    0, 1, 41, dtype=np.float64
)  # at which a logistic curve is stored
_DIGITS: Final = 6  # of stored scores and probabilities
_EPS: Final = 1e-4  # a score of 0 or 1 has no finite logit
_IDENTITY: Final = Curve(method="identity", x=(0.0, 1.0), y=(0.0, 1.0), n=0)


@dataclass(frozen=True, slots=True)
class Pairs:
    """What was claimed on the validation images, and whether it was so."""

    scores: Floats  # (n,), raw
    correct: NDArray[np.bool_]  # (n,)
    class_ids: NDArray[np.int64]  # (n,), index into labels
    groups: NDArray[np.int64]  # (n,), number of the group of the image each pair is from
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.scores)
        if {len(self.correct), len(self.class_ids), len(self.groups)} != {n}:
            raise InputError(
                f"{n} scores need as many outcomes, classes and groups, got {len(self.correct)}, "
                f"{len(self.class_ids)} and {len(self.groups)}."
            )

    @classmethod
    def from_rankings(
        cls, rankings: Sequence[Ranking], labels: Sequence[str], groups: Sequence[str]
    ) -> Pairs:
        """The boxes of an evaluation, matched to the truth at IoU 0.5 by COCO's rules.

        Args:
            rankings: one for each class.
            labels: names of the classes.
            groups: name of the group of each image that was ranked.
        """
        _, member = np.unique(np.asarray(groups), return_inverse=True)
        sizes = [len(ranking.score) for ranking in rankings]
        return cls(
            scores=np.concatenate([np.asarray(r.score, np.float64) for r in rankings]),
            correct=np.concatenate([r.hit[0] for r in rankings]),
            class_ids=np.repeat(np.arange(len(rankings)), sizes),
            groups=member[np.concatenate([r.image for r in rankings])],
            labels=tuple(labels),
        )


def fit_detection(pairs: Pairs) -> dict[str, Any]:
    """A curve per class from validation pairs; also for pixels or regions of a segmenter.

    Args:
        pairs: of boxes down to a low score: what is cut off cannot be learned. The errors are
            measured from ACQUISITION_THRESHOLD on, where it matters; below it thousands of boxes,
            all wrong and all scored near 0, would make any detector look calibrated.

    Returns:
        A `ScoreCalibration` as a JSON-ready dictionary; empty without pairs.
    """
    if not len(pairs.scores):
        return {}
    counted = pairs.scores >= ACQUISITION_THRESHOLD
    before, after = pairs.scores[counted], _crossed(pairs)[counted]
    correct = pairs.correct[counted]
    per_class, pooled = _fit_curves(pairs, np.ones(len(pairs.scores), dtype=np.bool_))
    return ScoreCalibration(
        per_class=per_class,
        pooled=pooled,
        n=len(pairs.scores),
        dece_before=d_ece(before, correct),
        dece_after=d_ece(after, correct),
        diagram_before=diagram(before, correct),
        diagram_after=diagram(after, correct),
    ).model_dump(mode="json")


def fit_temperature(
    probabilities: ArrayLike, truth: ArrayLike, groups: ArrayLike
) -> dict[str, Any]:
    """The temperature at which the truth is most likely (Guo et al. 2017, section 4.2).

    Args:
        probabilities: (n, C), softmax of the validation images.
        truth: (n,), index of the true class.
        groups: (n,), name or number of the group of each image.

    Returns:
        A `TemperatureCalibration` as a JSON-ready dictionary; empty with images of fewer than
        FOLDS groups.
    """
    logits = to_logits(np.asarray(probabilities, dtype=np.float64))
    true = np.asarray(truth, dtype=np.int64)
    fold_of = folds(groups)
    if len(np.unique(fold_of)) < FOLDS:
        return {}
    crossed = np.empty_like(logits)
    for fold in range(FOLDS):
        held = fold_of == fold
        crossed[held] = soften(logits[held], _best_temperature(logits[~held], true[~held]))
    return TemperatureCalibration(
        T=_best_temperature(logits, true),
        n=len(true),
        ece_before=ece(probabilities, true),
        ece_after=ece(crossed, true),
        diagram_before=_diagram_of_classes(np.asarray(probabilities), true),
        diagram_after=_diagram_of_classes(crossed, true),
    ).model_dump(mode="json")


def _diagram_of_classes(
    probabilities: NDArray[Any], truth: NDArray[np.int64]
) -> tuple[Claimed, ...]:
    """Of the class that each image was given; (n, C) against (n,)."""
    return diagram(probabilities.max(axis=-1), probabilities.argmax(axis=-1) == truth)


def _crossed(pairs: Pairs) -> Floats:
    """Probabilities (n,) of each pair by curves fitted to the groups of the other folds."""
    out = np.empty(len(pairs.scores))
    fold_of = folds(pairs.groups)
    for fold in range(FOLDS):
        held = fold_of == fold
        per_class, pooled = _fit_curves(pairs, ~held)
        for class_id, label in enumerate(pairs.labels):
            rows = held & (pairs.class_ids == class_id)
            out[rows] = per_class.get(label, pooled)(pairs.scores[rows])
    return out


def _fit_curves(pairs: Pairs, used: NDArray[np.bool_]) -> tuple[dict[str, Curve], Curve]:
    pooled = _fit_curve(pairs.scores[used], pairs.correct[used]) or _IDENTITY
    per_class = {}
    for class_id, label in enumerate(pairs.labels):
        rows = used & (pairs.class_ids == class_id)
        curve = _fit_curve(pairs.scores[rows], pairs.correct[rows])
        if curve is not None:
            per_class[label] = curve
    return per_class, pooled


def _fit_curve(scores: Floats, correct: NDArray[np.bool_]) -> Curve | None:
    """The curve that the number of pairs can carry; None where it carries none."""
    support = int(min(correct.sum(), (~correct).sum()))
    if support < LOGISTIC_SUPPORT:
        return None
    method: Literal["isotonic", "logistic"]
    method = "isotonic" if support >= ISOTONIC_SUPPORT else "logistic"
    x, y = (_isotonic if method == "isotonic" else _logistic)(scores, correct)
    # However many were right above some score: a finite sample proves no certainty.
    n = len(scores)
    y = y.clip(1 / (n + 2), (n + 1) / (n + 2))
    return Curve(
        method=method,
        x=tuple(float(v) for v in x.round(_DIGITS)),
        y=tuple(float(v) for v in y.round(_DIGITS)),
        n=n,
    )


def _isotonic(scores: Floats, correct: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """The rising steps nearest to the outcomes, as the two ends of each step.

    One wrong pair is added at the highest score and one right pair at the lowest: what a step of
    k pairs claims at most is k / (k + 1), however many pairs lie on the other steps.
    """
    from scipy.optimize import isotonic_regression

    # Rounded before they are told apart: two knots must still differ once they are stored.
    claimed = np.r_[scores, scores.max(), scores.min()].round(_DIGITS)
    x, place, n = np.unique(claimed, return_inverse=True, return_counts=True)
    precision = np.bincount(place, weights=np.r_[correct, False, True]) / n
    y = isotonic_regression(precision, weights=n).x
    end = np.ones(len(y) + 1, dtype=np.bool_)
    end[1:-1] = np.diff(y) > 0
    kept = end[:-1] | end[1:]
    return x[kept], y[kept]


def _logistic(scores: Floats, correct: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """P = sigmoid(a logit(s) + b) with a >= 0, to targets drawn in from 0 and 1 (Platt 1999)."""
    from scipy.optimize import minimize

    right = int(correct.sum())
    wrong = len(correct) - right
    target = np.where(correct, (right + 1) / (right + 2), 1 / (wrong + 2))
    z = _logit(scores)

    def loss(ab: Floats) -> tuple[float, Floats]:
        value = ab[0] * z + ab[1]
        error = _sigmoid(value) - target
        nll = np.logaddexp(0, value) - target * value
        return float(nll.mean()), np.array([(error * z).mean(), error.mean()])

    a, b = minimize(loss, x0=(1.0, 0.0), jac=True, bounds=((0, 50), (-50, 50))).x
    return _KNOTS, _sigmoid(a * _logit(_KNOTS) + b)


def _best_temperature(logits: Floats, truth: NDArray[np.int64]) -> float:
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    rows = np.arange(len(truth))

    def nll(log_t: float) -> float:
        return -float(log_softmax(logits / np.exp(log_t), axis=1)[rows, truth].mean())

    # Without mistakes the likeliest temperature is 0, which makes the first mistake a certain one:
    # fewer than LOGISTIC_SUPPORT of them prove no right to be surer than the network is.
    mistakes = int((logits.argmax(axis=1) != truth).sum())
    coldest = -3.0 if mistakes >= LOGISTIC_SUPPORT else 0.0
    return float(np.exp(minimize_scalar(nll, bounds=(coldest, 3), method="bounded").x))


def _logit(scores: Floats) -> Floats:
    s = scores.clip(_EPS, 1 - _EPS)
    return np.asarray(np.log(s) - np.log1p(-s))


def _sigmoid(z: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * z)))
