"""Images are dealt into folds by strip."""

from __future__ import annotations

import numpy as np

from active_learning.folds import FOLDS, folds


def test_images_of_one_strip_are_judged_together():
    found = folds(["x", "y", "x", "z", "y"])
    assert found[0] == found[2]
    assert found[1] == found[4]
    assert len({*found}) == 3  # as many folds as strips


def test_strips_are_dealt_evenly_and_the_same_way_every_time():
    strips = [f"strip {k}" for k in range(12)]
    assert sorted(np.bincount(folds(strips), minlength=FOLDS).tolist()) == [2, 2, 2, 3, 3]
    assert folds(strips).tolist() == folds(strips).tolist()
    assert folds(np.arange(12)).tolist() == folds(np.arange(12) * 7).tolist()  # by rank, not value
