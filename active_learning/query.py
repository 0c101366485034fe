"""Which images of a pool a person should label next: a budget shared out with care.

First a stated share is drawn at random: it shows the mistakes a model is sure of, and it alone is
an unbiased sample. The rest goes to classes by quota, more to those short of labels; within a class
the most uncertain form a shortlist, from which a greedy k-centre picks images unlike each other.
Pure and deterministic: the same pool in any order, with the same seed, gives the same list.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from active_learning.uncertainty import NOT_SURE, Floats, unit_rows
from active_learning.wording import count, named, number
from core.errors import InputError

SHORTLIST: Final = 4  # candidates per place of the quota among which diversity may choose
_DRAWN: Final = "drawn at random, to find mistakes the models are sure of"
_NOTHING: Final = ""  # the group of images in which no class was found


@dataclass(frozen=True, slots=True)
class Candidate:
    """An image that could be labelled."""

    id: str
    uncertainty: float  # [0, 1]
    classes: tuple[str, ...] = ()  # that the models see in it, most probable first
    embedding: Sequence[float] | NDArray[np.floating] | None = None  # (D,)


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
    labelled: Floats | None = None,
) -> list[Ranked]:
    """Choose up to `budget` images and order them so that every beginning is balanced too.

    Args:
        pool: unlabelled images; of one that is there twice, the more uncertain entry counts.
        budget: images a person can label now.
        labelled_counts: labels there are of each class; a class that is missing has none.
        random_share: of the budget, in [0, 1], drawn at random from the whole pool.
        seed: of the random share.
        labelled: (m, D), embeddings of images that have their labels already: what is chosen keeps
            its distance from them too; None where they are not known.

    Returns:
        min(budget, images) entries, no image twice.

    Raises:
        InputError: if budget, share, an uncertainty or the embeddings' lengths cannot be.
    """
    candidates = _unique(pool)
    _check(candidates, budget, random_share)
    places = min(budget, len(candidates))
    vectors = _vectors(candidates)
    drawn = _draw(len(candidates), math.floor(random_share * places + 0.5), seed)
    picks = [
        _Pick(
            k, (turn + 0.5) / len(drawn), "drawn at random, to find mistakes the models are sure of"
        )
        for turn, k in enumerate(drawn)
    ]
    groups = _groups(candidates, labelled_counts, without=set(drawn))
    quotas = _quotas(
        {name: len(members) for name, members in groups.items()},
        _weights(groups, labelled_counts),
        places - len(drawn),
    )
    known = _known(labelled, vectors)
    chosen = list(drawn)
    for name in sorted(groups, key=lambda g: (labelled_counts.get(g, 0), g)):
        members = groups[name][: SHORTLIST * quotas[name]]
        picked = _diverse(members, quotas[name], chosen, vectors, known)
        chosen += [k for k, _ in picked]
        for turn, (k, distance) in enumerate(picked):
            words = _why(candidates[k], name, labelled_counts, distance)
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


def _vectors(candidates: Sequence[Candidate]) -> Floats | None:
    """Embeddings (n, D) of length 1; None if an image has none: then diversity is left out."""
    embeddings = [c.embedding for c in candidates if c.embedding is not None]
    if len(embeddings) < len(candidates) or not embeddings:
        return None
    lengths = {len(embedding) for embedding in embeddings}
    if len(lengths) > 1:
        raise InputError(f"Embeddings have lengths {sorted(lengths)}; one model gives one length.")
    return unit_rows(np.asarray(embeddings, dtype=np.float64))


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


# --- diversity ---------------------------------------------------------------------------------


def k_centre(members: Floats, size: int, centres: Floats) -> list[tuple[int, float]]:
    """Greedy k-centre (Sener and Savarese 2018): always the one furthest from all chosen so far.

    Args:
        members: (n, D) of length 1; the first wins ties.
        size: how many to take.
        centres: (m, D) of length 1, to keep away from as well.

    Returns:
        Row and cosine distance to the nearest chosen one before; infinite for the first of all.
    """
    nearest = np.full(len(members), np.inf)
    if len(centres):
        nearest = (1 - members @ centres.T).min(axis=1)
    picked: list[tuple[int, float]] = []
    for _ in range(min(size, len(members))):
        place = int(nearest.argmax())
        picked.append((place, float(nearest[place])))
        nearest = np.minimum(nearest, 1 - members @ members[place])
        nearest[place] = -np.inf  # and stays so: nobody is taken twice
    return picked


def _known(labelled: Floats | None, vectors: Floats | None) -> Floats | None:
    """Embeddings (m, D) of labelled images, of length 1; None where nothing can be compared."""
    if labelled is None or vectors is None or not len(labelled):
        return None
    if labelled.shape[1] != vectors.shape[1]:
        raise InputError(
            f"Embeddings of labelled images have length {labelled.shape[1]}, those of the pool "
            f"{vectors.shape[1]}; one model gives one length."
        )
    return unit_rows(labelled)


def _diverse(
    shortlist: Sequence[int],
    size: int,
    chosen: Sequence[int],
    vectors: Floats | None,
    known: Floats | None,
) -> list[tuple[int, float | None]]:
    """Pick from a shortlist what is unlike the chosen and the labelled; without vectors its head.

    Args:
        shortlist: indices, the most uncertain first.
        size: how many to take.
        chosen: indices chosen before.
        vectors: (n, D) of length 1, or None.
        known: (m, D) of length 1, or None.

    Returns:
        Index and cosine distance to the nearest chosen one; None for the first of all.
    """
    if vectors is None:
        return [(k, None) for k in shortlist[:size]]
    centres = vectors[list(chosen)]
    if known is not None:
        centres = np.concatenate([centres, known])
    picked = k_centre(vectors[list(shortlist)], size, centres)
    return [
        (shortlist[place], distance if math.isfinite(distance) else None)
        for place, distance in picked
    ]


def _why(
    candidate: Candidate, group: str, labelled: Mapping[str, int], distance: float | None
) -> str:
    parts = [f"uncertainty {number(candidate.uncertainty)}"]
    if group == _NOTHING:
        parts.append("no class was found in it")
    else:
        parts.append(f"{named(group)} has {count(labelled.get(group, 0), 'label')}")
    if distance is not None:
        parts.append(f"differs from all chosen before by {number(max(distance, 0.0) / 2)} of 1")
    return "; ".join(parts)
