"""Which images of a pool a person should label next: a budget shared out with care.

First a stated share is drawn at random: it shows the mistakes a model is sure of, and it alone is
an unbiased sample. The rest goes to classes by quota, more to those short of labels, and within a
class to the most uncertain. Picking images unlike each other on top of that is not done: it would
need their features in the queue, and saved no labels (docs/benchmarks/active-learning.md).
Pure and deterministic: the same pool in any order, with the same seed, gives the same list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from active_learning.uncertainty import NOT_SURE
from active_learning.wording import count, named, number
from core.errors import InputError

_DRAWN: Final = "drawn at random, to find mistakes the models are sure of"
_NOTHING: Final = ""  # the group of images in which no class was found


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that could be labelled."""

    id: str
    uncertainty: float  # [0, 1]
    classes: tuple[str, ...] = ()  # that the models see in it, most probable first


@dataclass(frozen=True, slots=True)
class Ranked:
    """An image to label; `priority` falls evenly from 1 for the first of the list."""

    id: str
    priority: float  # (0, 1]
    why: str


@dataclass(frozen=True, slots=True)
class _Pick:
    index: int
    turn: float  # (0, 1): place within its group's quota
    why: str


def rank(
    pool: Sequence[Candidate],
    budget: int,
    *,
    labelled_counts: Mapping[str, int],
    random_share: float,
    seed: int,
) -> list[Ranked]:
    """Choose up to `budget` images and order them so that every beginning is balanced too.

    Args:
        pool: unlabelled images; of one that is there twice, the more uncertain entry counts.
        budget: images a person can label now.
        labelled_counts: labels there are of each class; a class that is missing has none.
        random_share: of the budget, in [0, 1], drawn at random from the whole pool.
        seed: of the random share.

    Returns:
        min(budget, images) entries, no image twice.

    Raises:
        InputError: if budget, share or an uncertainty cannot be.
    """
    candidates = _unique(pool)
    _check(candidates, budget, random_share)
    places = min(budget, len(candidates))
    drawn = _draw(len(candidates), math.floor(random_share * places + 0.5), seed)
    picks = [_Pick(k, (turn + 0.5) / len(drawn), _DRAWN) for turn, k in enumerate(drawn)]
    groups = _groups(candidates, labelled_counts, without=set(drawn))
    quotas = _quotas(
        {name: len(members) for name, members in groups.items()},
        _weights(groups, labelled_counts),
        places - len(drawn),
    )
    for name, members in groups.items():
        for turn, k in enumerate(members[: quotas[name]]):
            words = _why(candidates[k], name, labelled_counts)
            picks.append(_Pick(k, (turn + 0.5) / quotas[name], words))
    picks.sort(key=lambda pick: (pick.turn, -candidates[pick.index].uncertainty, pick.index))
    return [
        Ranked(candidates[pick.index].id, 1 - position / len(picks), pick.why)
        for position, pick in enumerate(picks)
    ]


def classes_worth_a_label(probabilities: Mapping[str, float]) -> tuple[str, ...]:
    """Classes of an image that its label may be about: the best one, and all that are possible.

    A classifier gives every class some probability; if all of them counted, every image would be
    one of the rarest class.

    Args:
        probabilities: of each class, of being in the image.

    Returns:
        Those of at least NOT_SURE and the most probable, that one first.
    """
    ranked = sorted(probabilities, key=lambda label: (-probabilities[label], label))
    return tuple(
        label
        for place, label in enumerate(ranked)
        if probabilities[label] >= NOT_SURE or (place == 0 and probabilities[label] > 0)
    )


# --- the pool ----------------------------------------------------------------------------------


def _unique(pool: Sequence[Candidate]) -> list[Candidate]:
    """One candidate an id, ordered by id: the order of the pool must not matter."""
    best: dict[str, Candidate] = {}
    for candidate in pool:
        known = best.get(candidate.id)
        if known is None or candidate.uncertainty > known.uncertainty:
            best[candidate.id] = candidate
    return [best[key] for key in sorted(best)]


def _check(candidates: Sequence[Candidate], budget: int, random_share: float) -> None:
    if budget < 0:
        raise InputError(f"Budget is {budget}; it must be 0 or more images.")
    if not 0 <= random_share <= 1:
        raise InputError(f"Random share is {random_share:g}; it must lie in [0, 1].")
    for candidate in candidates:
        if not 0 <= candidate.uncertainty <= 1:  # also when it is not a number
            raise InputError(
                f"Uncertainty of {candidate.id} is {candidate.uncertainty:g}; "
                "it must lie in [0, 1]."
            )


def _draw(n: int, size: int, seed: int) -> list[int]:
    return [int(k) for k in np.random.default_rng(seed).permutation(n)[:size]]


def _groups(
    candidates: Sequence[Candidate], labelled: Mapping[str, int], *, without: set[int]
) -> dict[str, list[int]]:
    """Each image in the group of its class with the fewest labels, the most uncertain first."""
    groups: dict[str, list[int]] = {}
    for k, candidate in enumerate(candidates):
        if k not in without:
            rarest = min(candidate.classes, key=lambda c: (labelled.get(c, 0), c), default=_NOTHING)
            groups.setdefault(rarest, []).append(k)
    for members in groups.values():
        members.sort(key=lambda k: (-candidates[k].uncertainty, k))
    return groups


# --- quotas ------------------------------------------------------------------------------------


def _weights(groups: Mapping[str, Sequence[int]], labelled: Mapping[str, int]) -> dict[str, float]:
    """1 / sqrt(labels + 1) of each class: a class with a quarter of the labels gets twice as much.

    Images in which nothing was found weigh as much as the mean class.
    """
    weights = {
        name: 1 / math.sqrt(labelled.get(name, 0) + 1) for name in groups if name != _NOTHING
    }
    if _NOTHING in groups:
        weights[_NOTHING] = sum(weights.values()) / len(weights) if weights else 1.0
    return weights


def _quotas(
    available: Mapping[str, int], weights: Mapping[str, float], places: int
) -> dict[str, int]:
    """Whole places for each group in proportion to its weight, none more than it has images.

    Highest averages (Sainte-Laguë): each place goes to the group with the largest
    weight / (2 places + 1) that still has images, so what one cannot use the others share.
    """
    quotas = dict.fromkeys(sorted(available), 0)
    for _ in range(places):
        open_groups = [name for name in quotas if quotas[name] < available[name]]
        winner = max(open_groups, key=lambda name: weights[name] / (2 * quotas[name] + 1))
        quotas[winner] += 1
    return quotas


def _why(candidate: Candidate, group: str, labelled: Mapping[str, int]) -> str:
    doubt = f"uncertainty {number(candidate.uncertainty)}"
    if group == _NOTHING:
        return f"{doubt}; no class was found in it"
    return f"{doubt}; {named(group)} has {count(labelled.get(group, 0), 'label')}"
