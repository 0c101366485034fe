"""Folds for cross-validation: images of one strip are never on both sides."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

FOLDS: Final = 5


def folds(groups: ArrayLike) -> NDArray[np.int64]:
    """The fold of each row, groups dealt out in a fixed random order.

    Args:
        groups: (n,), name or number of the group each row belongs to.

    Returns:
        (n,), in 0 to FOLDS - 1; with fewer groups than FOLDS, as many folds as groups.
    """
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    place = np.random.default_rng(0).permutation(len(names))
    return np.asarray(place[member] % FOLDS, np.int64)
