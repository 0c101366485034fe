"""Does it choose well? A pool with hidden labels, a learner, and strategies that choose from it.

Everything is real but two things: the labels come from the data set instead of a person, and what
learns is a linear head (logistic regression) on the frozen features of a network that was trained
on other data. A round is a fraction of a second, so that many seeds are affordable; what it says
about fine-tuning a whole network is an analogy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from active_learning import uncertainty as measure
from active_learning.query import Candidate, classes_worth_a_label, k_centre, rank
from active_learning.uncertainty import Floats, unit_rows
from core.errors import InputError
from core.records import Record

Indices = NDArray[np.int64]
RIDGE: Final = 1.0  # scikit-learn's C of the linear head; its default, not tuned


@dataclass(frozen=True)
class Pool:
    """Images that could be labelled, and others on which the learner is measured.

    Features are standardised with mean and spread of the pool, which needs no label.
    """

    features: Floats  # (n, D)
    truth: Indices  # (n,), index into labels
    judged_features: Floats  # (m, D)
    judged_truth: Indices  # (m,)
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.features) != len(self.truth) or len(self.judged_features) != len(
            self.judged_truth
        ):
            raise InputError("Each image of a pool needs its features and its class.")

    def standardised(self) -> tuple[Floats, Floats]:
        """Features of the pool (n, D) and of the judging images (m, D), on one scale."""
        mean, spread = self.features.mean(axis=0), self.features.std(axis=0)
        spread = np.where(spread > 0, spread, 1)
        return (self.features - mean) / spread, (self.judged_features - mean) / spread


@dataclass(frozen=True, slots=True)
class Plan:
    """How labels are asked for."""

    first: int  # images labelled before anything is chosen, drawn at random
    step: int  # images a round
    rounds: int  # after the first
    random_share: float  # of the product's ranking

    def __post_init__(self) -> None:
        if self.first < 2 or self.step < 1 or self.rounds < 1:
            raise InputError("A simulation needs 2 first images and a round of 1 at least.")


class Outcome(Record):
    """The learner after a round; `chosen` are the images that this round added."""

    strategy: str
    seed: int
    round: int
    labels: int
    chosen: tuple[int, ...]
    accuracy: float
    macro_F1: float
    recall: dict[str, float]


@dataclass(frozen=True)
class View:
    """What a strategy may know when it chooses; the truth of unlabelled images is not in it."""

    ids: tuple[int, ...]  # of the unlabelled images
    probabilities: Floats  # (u, C), of the unlabelled images
    vectors: Floats  # (n, D), unit length, of all images
    labelled: tuple[int, ...]
    counts: Mapping[str, int]  # labels of each class so far
    labels: tuple[str, ...]
    size: int
    random_share: float
    seed: int


def _ours(view: View, *, with_vectors: bool = True) -> list[int]:
    """The ranking of `active_learning push` on classified images, with or without their vectors."""
    doubts = measure.margin(view.probabilities)
    pool = [
        Candidate(
            id=f"{i:06d}",
            uncertainty=float(doubt),
            classes=classes_worth_a_label(dict(zip(view.labels, p, strict=True))),
            embedding=view.vectors[i] if with_vectors else None,
        )
        for i, doubt, p in zip(view.ids, doubts, view.probabilities, strict=True)
    ]
    ranked = rank(
        pool,
        view.size,
        labelled_counts=view.counts,
        random_share=view.random_share,
        seed=view.seed,
        labelled=view.vectors[list(view.labelled)] if with_vectors else None,
    )
    return [int(entry.id) for entry in ranked]


def _most(doubts: Floats, view: View) -> list[int]:
    order = np.argsort(-doubts, kind="stable")[: view.size]
    return [view.ids[k] for k in order]


def _k_centre(view: View) -> list[int]:
    picked = k_centre(view.vectors[list(view.ids)], view.size, view.vectors[list(view.labelled)])
    return [view.ids[k] for k, _ in picked]


def _random(view: View) -> list[int]:
    order = np.random.default_rng(view.seed).permutation(len(view.ids))[: view.size]
    return [view.ids[k] for k in order]


OURS: Final = "ours"
OURS_PLAIN: Final = "ours without vectors"
RANDOM: Final = "random"
STRATEGIES: Final[Mapping[str, Callable[[View], list[int]]]] = {
    OURS: _ours,
    OURS_PLAIN: lambda view: _ours(view, with_vectors=False),
    "least confidence": lambda view: _most(measure.least_confidence(view.probabilities), view),
    "margin": lambda view: _most(measure.margin(view.probabilities), view),
    "entropy": lambda view: _most(measure.entropy(view.probabilities), view),
    "k-centre": _k_centre,
    RANDOM: _random,
}


def simulate(
    pool: Pool, strategy: str, *, seed: int, plan: Plan, done: Sequence[Outcome] = ()
) -> Iterator[Outcome]:
    """Ask, learn, measure, round by round.

    Args:
        pool: with hidden labels.
        strategy: one of STRATEGIES.
        seed: of the first draw, which is the same for every strategy, and of all chance after it.
        plan: how many labels, when.
        done: rounds that were finished before, in order; they are not repeated.

    Yields:
        The outcome of each further round; round 0 is the first draw.

    Raises:
        InputError: if the pool is smaller than the plan.
    """
    if plan.first + plan.step * plan.rounds > len(pool.truth):
        raise InputError(
            f"The plan asks for {plan.first + plan.step * plan.rounds} labels, the pool has "
            f"{len(pool.truth)} images."
        )
    features, judged = pool.standardised()
    vectors = unit_rows(features)
    labelled = [i for outcome in done for i in outcome.chosen]
    for number in range(len(done), plan.rounds + 1):
        if number == 0:
            start = np.random.default_rng(seed).permutation(len(pool.truth))[: plan.first]
            chosen = [int(i) for i in start]
        else:
            head = fit_head(features[labelled], pool.truth[labelled], len(pool.labels))
            chosen = STRATEGIES[strategy](
                _view(pool, head(features), vectors, labelled, plan, seed=1000 * seed + number)
            )
        labelled += chosen
        head = fit_head(features[labelled], pool.truth[labelled], len(pool.labels))
        said = head(judged).argmax(axis=1)
        yield _outcome(pool, said, strategy, seed, number, len(labelled), chosen)


def _view(
    pool: Pool, p: Floats, vectors: Floats, labelled: Sequence[int], plan: Plan, *, seed: int
) -> View:
    taken = set(labelled)
    ids = tuple(i for i in range(len(pool.truth)) if i not in taken)
    counts = np.bincount(pool.truth[list(labelled)], minlength=len(pool.labels))
    return View(
        ids=ids,
        probabilities=p[list(ids)],
        vectors=vectors,
        labelled=tuple(labelled),
        counts={label: int(n) for label, n in zip(pool.labels, counts, strict=True)},
        labels=pool.labels,
        size=plan.step,
        random_share=plan.random_share,
        seed=seed,
    )


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


def _outcome(
    pool: Pool,
    said: Indices,
    strategy: str,
    seed: int,
    number: int,
    labels: int,
    chosen: Sequence[int],
) -> Outcome:
    true, n = pool.judged_truth, len(pool.labels)
    hits, shown = np.bincount(true[said == true], minlength=n), np.bincount(true, minlength=n)
    return Outcome(
        strategy=strategy,
        seed=seed,
        round=number,
        labels=labels,
        chosen=tuple(chosen),
        accuracy=float(hits.sum() / len(true)),
        macro_F1=macro_f1(said, true, n),
        recall={
            label: float(hits[k] / shown[k]) for k, label in enumerate(pool.labels) if shown[k]
        },
    )


def macro_f1(said: Indices, true: Indices, n_classes: int) -> float:
    """Mean over the classes that `true` shows of 2 TP / (TP + FN + TP + FP), in [0, 1]."""
    hits = np.bincount(true[said == true], minlength=n_classes)
    shown = np.bincount(true, minlength=n_classes)
    claimed = np.bincount(said, minlength=n_classes)
    present = shown > 0
    return float((2 * hits[present] / (shown + claimed)[present]).mean())
