"""Who is trained on and who is tested on: the paper's split and a leak-free one.

Public steel sets are full of overlapping crops and turned copies, so a random image-wise split
tests on pictures that were partly seen. Both protocols are therefore always made: `paper` divides
as the publication says (comparable, optimistic), `leak-free` keeps every group of related images
on one side (what new steel will show). All functions are pure; the answer depends on keys, labels,
groups and seed alone, not on the order in which files are met.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from core.records import Protocol as Protocol

Split = Literal["train", "val", "test"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
SPLITS: tuple[Split, ...] = get_args(Split)

LEAK_FREE_SHARES = (0.7, 0.1, 0.2)  # of train, val and test
_TRIALS = 32  # random orders tried by `group_split`; the best balanced one is kept


@dataclass(frozen=True, slots=True)
class Item:
    """What a split needs to know of an image.

    `classes` are the labels it counts for when the splits are balanced; `part` is the part of the
    original division it came from ("" without one).
    """

    key: str  # unique
    classes: tuple[str, ...]
    group: str
    part: str = ""

    @property
    def stratum(self) -> str:
        """The combination of classes: what a stratified random split keeps in proportion."""
        return "+".join(self.classes)


Assignment = dict[str, Split]
# number of images of a stratum -> how many of them go to val and to test
Quota = Callable[[int], tuple[int, int]]


def shares(val: float, test: float) -> Quota:
    """A quota by fractions; a stratum of three or more gives at least one image to each split."""

    def quota(n: int) -> tuple[int, int]:
        least = 1 if n >= 3 else 0
        return (
            max(round(val * n), least if val else 0),
            max(round(test * n), least if test else 0),
        )

    return quota


def few_shot(n_train: int, n_val: int) -> Quota:
    """A quota by counts: that many images of each class to train and val, all others to test.

    Classes of fewer than three times as many images give a third each.
    """

    def quota(n: int) -> tuple[int, int]:
        third = max(1, n // 3) if n > 1 else 0
        val = min(n_val, third)
        train = max(1, min(n_train, third))
        return val, n - train - val

    return quota


def random_split(items: Sequence[Item], quota: Quota, *, seed: int) -> Assignment:
    """Divide image by image, stratified by class combination; what papers call a random split.

    Each stratum is shuffled by its own generator, so adding a class does not move the others.
    """
    strata: dict[str, list[str]] = defaultdict(list)
    for item in items:
        strata[item.stratum].append(item.key)
    assignment: Assignment = {}
    for stratum, keys in sorted(strata.items()):
        rng = np.random.default_rng((seed, zlib.crc32(stratum.encode())))
        ordered = sorted(keys)
        shuffled = [ordered[i] for i in rng.permutation(len(ordered))]
        n_val, n_test = quota(len(shuffled))
        for rank, key in enumerate(shuffled):
            in_test = rank < n_test
            assignment[key] = "test" if in_test else "val" if rank < n_test + n_val else "train"
    wanted = dict(zip(("val", "test"), quota(1000), strict=True))
    needed: tuple[Split, ...] = ("test", "val")
    for split in needed:
        if wanted[split]:
            _fill_empty(items, assignment, split)
    return assignment


def original_split(items: Sequence[Item], *, val: float, seed: int) -> Assignment:
    """Keep the original test part; divide the original training part at random into train and val.

    Items of the part "test" are the test split. Without any such part nothing is known of the
    original division, and a fifth is drawn at random instead.
    """
    inner = [item for item in items if item.part != "test"]
    if len(inner) == len(items):
        return random_split(items, shares(val, 0.2), seed=seed)
    assignment = random_split(inner, shares(val, 0.0), seed=seed)
    assignment.update({item.key: "test" for item in items if item.part == "test"})
    return assignment


def group_split(items: Sequence[Item], *, seed: int) -> Assignment:
    """Divide group by group, so that each class keeps LEAK_FREE_SHARES as nearly as it can.

    Groups are placed one after the other, large ones first, each where it leaves the class counts
    nearest to their targets; of several random orders among equals the best is kept. This is
    scikit-learn's StratifiedGroupKFold idea for unequal parts, and it cannot put a group of 44
    into a test split that should hold 54 images of its class while smaller groups would fit.

    Args:
        items: images with their groups.
        seed: of the random orders.
    """
    groups = sorted({item.group for item in items})
    counts = _group_counts(items, groups)
    wanted = np.outer(np.asarray(LEAK_FREE_SHARES), counts.sum(axis=0))  # (3, C)
    orders = (np.random.default_rng((seed, trial)) for trial in range(_TRIALS))
    placement = min(
        (_place(counts, wanted, order) for order in orders),
        key=lambda placed: _cost(_totals(counts, placed), wanted),
    )
    split_of = {group: SPLITS[placement[i]] for i, group in enumerate(groups)}
    return {item.key: split_of[item.group] for item in items}


def _group_counts(items: Sequence[Item], groups: Sequence[str]) -> NDArray[np.float64]:
    """(G, 1 + C): images of each group, and images of each group that hold each class."""
    row = {group: i for i, group in enumerate(groups)}
    labels = sorted({label for item in items for label in item.classes})
    column = {label: 1 + i for i, label in enumerate(labels)}
    counts = np.zeros((len(groups), 1 + len(labels)))
    for item in items:
        counts[row[item.group], 0] += 1
        for label in item.classes:
            counts[row[item.group], column[label]] += 1
    return counts


def _place(
    counts: NDArray[np.float64], wanted: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    """Split index (G,) of each group: greedy, large groups first, ties in random order."""
    shuffled = rng.permutation(len(counts))
    order = shuffled[np.argsort(-counts[shuffled].max(axis=1), kind="stable")]
    totals = np.zeros_like(wanted)
    placed = np.zeros(len(counts), np.int64)
    for group in order:
        costs = [_cost(totals + np.eye(3)[[s]].T * counts[group], wanted) for s in range(3)]
        placed[group] = int(np.argmin(costs))
        totals[placed[group]] += counts[group]
    _fill_missing(counts, placed)
    return placed


def _cost(totals: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """Squared distance from the targets, each class in units of its own size and split share."""
    return float((((totals - wanted) ** 2) / np.maximum(wanted, 1e-9)).sum())


def _totals(counts: NDArray[np.float64], placed: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.stack([counts[placed == s].sum(axis=0) for s in range(3)])


def _fill_missing(counts: NDArray[np.float64], placed: NDArray[np.int64]) -> None:
    """Give every split every class, as far as the class has a group to spare; in place.

    Only tiny or very uneven sets need it. Column 0 (all images) goes last and repairs splits
    that are still empty when no class has three groups.
    """
    for column in (*range(1, counts.shape[1]), 0):
        for split in (0, 2, 1):
            holders = np.flatnonzero(counts[:, column])
            if len(holders) < (3 if column else 2) or (placed[holders] == split).any():
                continue
            donors = [g for g in holders if (placed[holders] == placed[g]).sum() > 1]
            if donors:
                smallest = min(donors, key=lambda g: (counts[g, 0], g))
                placed[smallest] = split


def _fill_empty(items: Sequence[Item], assignment: Assignment, split: Split) -> None:
    """Give a split that a tiny set left empty one training image; in place."""
    if split in assignment.values():
        return
    donors = sorted((item.stratum, item.key) for item in items if assignment[item.key] == "train")
    if len(donors) > 1:
        # the two splits take from opposite ends, so that they get different classes
        _, key = donors[-1 if split == "test" else 0]
        assignment[key] = split


@dataclass(frozen=True, slots=True)
class Plan:
    """How a set is divided under the paper protocol, and how that is said to the reader."""

    divide: Callable[[Sequence[Item], int], Assignment]
    statement: str


def assign(items: Sequence[Item], plan: Plan, *, seed: int) -> Mapping[str, dict[str, str]]:
    """Both protocols at once: key -> {"paper": split, "leak-free": split}."""
    paper = plan.divide(items, seed)
    leak_free = group_split(items, seed=seed)
    return {i.key: {"paper": paper[i.key], "leak-free": leak_free[i.key]} for i in items}
