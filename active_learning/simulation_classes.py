"""A pool of images with one class each: a linear head learns, on features it did not shape.

The learner is a logistic regression on the frozen features of a network that was trained on other
data. A round is a fraction of a second; what it says about fine-tuning a whole network is an
analogy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from active_learning import uncertainty as measure
from active_learning.query import Candidate, classes_worth_a_label, rank
from active_learning.simulation import OURS, RANDOM, Ask, Indices, at_random, most
from active_learning.uncertainty import Floats, unit_rows
from core.errors import InputError

RIDGE: Final = 1.0  # scikit-learn's C of the linear head; its default, not tuned
MACRO_F1: Final = "macro-F1"
DIVERSE: Final = "ours, then k-centre"
K_CENTRE: Final = "k-centre"
SHORTLIST: Final = 4  # of the product's ranking, for each place that k-centre fills
_DOUBTS: Final[dict[str, Callable[[Floats], Floats]]] = {
    "least confidence": measure.least_confidence,
    "margin": measure.margin,
    "entropy": measure.entropy,
}


@dataclass(frozen=True)
class ClassPool:
    """Images that could be labelled, and others on which the learner is measured.

    Features are standardised with mean and spread of the pool, which needs no label.
    """

    features: Floats  # (n, D)
    truth: Indices  # (n,), index into labels
    judged_features: Floats  # (m, D)
    judged_truth: Indices  # (m,)
    labels: tuple[str, ...]
    split: str  # of the judging images

    strategies = (OURS, DIVERSE, *_DOUBTS, K_CENTRE, RANDOM)

    def __post_init__(self) -> None:
        if len(self.features) != len(self.truth) or len(self.judged_features) != len(
            self.judged_truth
        ):
            raise InputError("Each image of a pool needs its features and its class.")

    def __len__(self) -> int:
        return len(self.truth)

    @property
    def counts(self) -> dict[str, int]:
        """Images of each class in the whole pool."""
        return self._count(range(len(self)))

    @property
    def judged(self) -> dict[str, int]:
        """Images of the judging split."""
        return {self.split: len(self.judged_truth)}

    def choose(self, strategy: str, ask: Ask) -> list[int]:
        """Images to be labelled next."""
        if strategy == RANDOM:
            return at_random(ask)
        if strategy == K_CENTRE:
            return self._spread(ask.unlabelled, ask)
        probabilities = self._fit(ask.labelled)(self._scaled[0][list(ask.unlabelled)])
        if strategy in _DOUBTS:
            return most(_DOUBTS[strategy](probabilities), ask)
        if strategy == DIVERSE:
            size = min(SHORTLIST * ask.size, len(ask.unlabelled))
            return self._spread(self._ours(probabilities, ask, size), ask)
        return self._ours(probabilities, ask, ask.size)

    def judge(self, labelled: Sequence[int], *, seed: int) -> dict[str, float]:
        """Macro-F1 on the judging split; nothing of this learner is drawn by chance."""
        said = self._fit(labelled)(self._scaled[1]).argmax(axis=1)
        score = macro_f1(said, self.judged_truth, len(self.labels))
        return {f"{self.split} {MACRO_F1}": score}

    def _ours(self, probabilities: Floats, ask: Ask, size: int) -> list[int]:
        """The ranking of `active_learning push`."""
        doubts = measure.margin(probabilities)
        pool = [
            Candidate(
                id=f"{i:06d}",
                uncertainty=float(doubt),
                classes=classes_worth_a_label(dict(zip(self.labels, p, strict=True))),
            )
            for i, doubt, p in zip(ask.unlabelled, doubts, probabilities, strict=True)
        ]
        ranked = rank(
            pool,
            size,
            labelled_counts=self._count(ask.labelled),
            random_share=ask.random_share,
            seed=ask.seed,
        )
        return [int(entry.id) for entry in ranked]

    def _spread(self, shortlist: Sequence[int], ask: Ask) -> list[int]:
        """Those of a shortlist that differ most from each other and from what is labelled."""
        vectors = unit_rows(self._scaled[0])
        rows = list(shortlist)
        return [rows[k] for k in k_centre(vectors[rows], ask.size, vectors[list(ask.labelled)])]

    def _fit(self, labelled: Sequence[int]) -> Callable[[Floats], Floats]:
        rows = list(labelled)
        return fit_head(self._scaled[0][rows], self.truth[rows], len(self.labels))

    def _count(self, rows: Sequence[int]) -> dict[str, int]:
        counts = np.bincount(self.truth[list(rows)], minlength=len(self.labels))
        return {label: int(n) for label, n in zip(self.labels, counts, strict=True)}

    @cached_property
    def _scaled(self) -> tuple[Floats, Floats]:
        """Features of the pool (n, D) and of the judging images (m, D), on one scale."""
        mean, spread = self.features.mean(axis=0), self.features.std(axis=0)
        spread = np.where(spread > 0, spread, 1)
        return (self.features - mean) / spread, (self.judged_features - mean) / spread


def k_centre(members: Floats, size: int, centres: Floats) -> list[int]:
    """Greedy k-centre (Sener and Savarese 2018): always the one furthest from all chosen so far.

    Args:
        members: (n, D) of length 1; the first wins ties.
        size: how many to take.
        centres: (m, D) of length 1, to keep away from as well.

    Returns:
        Rows of `members`, in the order they were taken.
    """
    nearest = np.full(len(members), np.inf)
    if len(centres):
        nearest = (1 - members @ centres.T).min(axis=1)
    picked: list[int] = []
    for _ in range(min(size, len(members))):
        place = int(nearest.argmax())
        picked.append(place)
        nearest = np.minimum(nearest, 1 - members @ members[place])
        nearest[place] = -np.inf  # and stays so: nobody is taken twice
    return picked


def fit_head(features: Floats, truth: Indices, n_classes: int) -> Callable[[Floats], Floats]:
    """A linear head: features (n, D) -> probabilities (n, C), 0 for a class without a label."""
    present = np.unique(truth)
    if len(present) == 1:

        def certain(asked: Floats) -> Floats:
            out = np.zeros((len(asked), n_classes))
            out[:, present] = 1
            return out

        return certain
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=RIDGE, max_iter=2000, tol=1e-3).fit(features, truth)

    def answer(asked: Floats) -> Floats:
        out = np.zeros((len(asked), n_classes))
        out[:, present] = model.predict_proba(asked)
        return out

    return answer


def macro_f1(said: Indices, true: Indices, n_classes: int) -> float:
    """Mean over the classes that `true` shows of 2 TP / (TP + FN + TP + FP), in [0, 1]."""
    hits = np.bincount(true[said == true], minlength=n_classes)
    shown = np.bincount(true, minlength=n_classes)
    claimed = np.bincount(said, minlength=n_classes)
    present = shown > 0
    return float((2 * hits[present] / (shown + claimed)[present]).mean())
