"""Does it choose well? A pool with hidden labels, a learner, and strategies that choose from it.

Everything is real but two things: the labels come from the data set instead of a person, and what
learns is small, so that many seeds are affordable. A pool brings both its learner and the
strategies that make sense for it: `simulation_classes` and `simulation_boxes`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import InputError
from core.records import Record

Indices = NDArray[np.int64]
OURS: Final = "ours"
RANDOM: Final = "random"


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

    @property
    def labels(self) -> tuple[int, ...]:
        """Labelled images after each round."""
        return tuple(self.first + self.step * k for k in range(self.rounds + 1))


class Outcome(Record):
    """The learner after a round; `chosen` are the images that this round added."""

    strategy: str
    seed: int
    round: int
    labels: int
    chosen: tuple[int, ...]
    scores: dict[str, float]  # by judging split and metric: "val mAP50"


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of a strategy in one round."""

    labelled: tuple[int, ...]  # images whose labels are known
    unlabelled: tuple[int, ...]
    size: int  # images to choose
    random_share: float
    seed: int  # of all chance in the choice
    learner_seed: int  # of the learner, the same in all rounds


class Pool(Protocol):
    """Images with hidden labels, what learns from them, and how it may choose."""

    @property
    def strategies(self) -> tuple[str, ...]:
        """By which it can choose; OURS and RANDOM are among them."""

    @property
    def counts(self) -> dict[str, int]:
        """Labels of each class in the whole pool."""

    @property
    def judged(self) -> dict[str, int]:
        """Images of each split on which the learner is judged."""

    def __len__(self) -> int: ...

    def choose(self, strategy: str, ask: Ask) -> list[int]:
        """Images to be labelled next, `ask.size` of `ask.unlabelled`."""

    def judge(self, labelled: Sequence[int], *, seed: int) -> dict[str, float]:
        """Scores of a learner that knows these labels, as in `Outcome`."""


def simulate(
    pool: Pool, strategy: str, *, seed: int, plan: Plan, done: Sequence[Outcome] = ()
) -> Iterator[Outcome]:
    """Ask, learn, measure, round by round.

    Args:
        pool: with hidden labels.
        strategy: one of the pool's.
        seed: of the first draw, which is the same for every strategy, and of all chance after it.
        plan: how many labels, when.
        done: rounds that were finished before, in order; they are not repeated.

    Yields:
        The outcome of each further round; round 0 is the first draw.

    Raises:
        InputError: if the pool is smaller than the plan.
    """
    if plan.labels[-1] > len(pool):
        raise InputError(
            f"The plan asks for {plan.labels[-1]} labels, the pool has {len(pool)} images."
        )
    labelled = [i for outcome in done for i in outcome.chosen]
    for number in range(len(done), plan.rounds + 1):
        if number == 0:
            start = np.random.default_rng(seed).permutation(len(pool))[: plan.first]
            chosen = [int(i) for i in start]
        else:
            taken = set(labelled)
            ask = Ask(
                labelled=tuple(labelled),
                unlabelled=tuple(i for i in range(len(pool)) if i not in taken),
                size=plan.step,
                random_share=plan.random_share,
                seed=1000 * seed + number,
                learner_seed=seed,
            )
            chosen = pool.choose(strategy, ask)
        labelled += chosen
        yield Outcome(
            strategy=strategy,
            seed=seed,
            round=number,
            labels=len(labelled),
            chosen=tuple(chosen),
            scores=pool.judge(labelled, seed=seed),
        )


def at_random(ask: Ask) -> list[int]:
    """Images drawn by chance alone."""
    order = np.random.default_rng(ask.seed).permutation(len(ask.unlabelled))[: ask.size]
    return [ask.unlabelled[k] for k in order]


def most(doubts: NDArray[np.float64], ask: Ask) -> list[int]:
    """The images with the largest doubts, (u,) in the order of `ask.unlabelled`; ties by chance."""
    chance = np.random.default_rng(ask.seed).permutation(len(doubts))
    order = chance[np.argsort(-doubts[chance], kind="stable")][: ask.size]
    return [ask.unlabelled[k] for k in order]
