"""Which images show the same steel: fingerprints, and the groups that they make."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.types import FloatArray, Image
from training._grouping import content_groups, fingerprint


def flat(height: int, width: int, grey: int) -> Image:
    return np.full((height, width, 3), grey, np.uint8)


def pictures(count: int, rng: np.random.Generator) -> FloatArray:
    """Zero-mean unit-norm thumbnails (count, 576) of unrelated pictures."""
    drawn = rng.normal(size=(count, 576))
    drawn -= drawn.mean(axis=1, keepdims=True)
    return np.float32(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))


def test_a_thumbnail_has_no_mean_and_a_length_of_one() -> None:
    half = flat(48, 48, 10)
    half[:, 24:] = 30  # 24 of its 48 columns: half of the thumbnail's pixels on either side of 20
    _, thumbnail = fingerprint(half)
    # 576 pixels of -10 and of 10 have a length of 10 * sqrt(576) = 240.
    expected = np.repeat([[-10 / 240, 10 / 240]], 12, axis=1)
    np.testing.assert_allclose(thumbnail.reshape(24, 24), np.tile(expected, (24, 1)), atol=1e-7)


def test_flat_pictures_are_one_where_grey_and_sides_are_the_same_and_no_near_copies() -> None:
    prints = [fingerprint(flat(*shape)) for shape in ((40, 20, 90), (20, 40, 90), (40, 20, 91))]
    prints.append(fingerprint(flat(80, 10, 90)))  # as many pixels of the same grey
    assert not np.any([thumbnail for _, thumbnail in prints])
    assert content_groups(["a", "b", "c", "d"], prints) == ["c-a", "c-a", "c-c", "c-d"]


@pytest.mark.parametrize(("correlation", "related"), [(0.996, True), (0.994, False)])
def test_near_copies_correlate_at_0_995_in_any_of_eight_orientations(
    correlation: float, related: bool
) -> None:
    one, other = pictures(2, np.random.default_rng(0)).astype(np.float64)
    other -= (other @ one) * one
    other /= np.linalg.norm(other)
    near = correlation * one + math.sqrt(1 - correlation**2) * other
    turned = np.fliplr(np.rot90(near.reshape(24, 24))).ravel()
    prints = [(digest, np.float32(t)) for digest, t in (("x", one), ("y", turned))]
    assert content_groups(["a", "b"], prints) == (["c-a", "c-a"] if related else ["c-a", "c-b"])


def test_near_copies_are_found_in_whichever_part_of_the_search_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("training._grouping._ROWS", 2)
    thumbnails = pictures(6, np.random.default_rng(0))
    thumbnails[4], thumbnails[5] = thumbnails[1], thumbnails[3]
    groups = content_groups(list("abcdef"), list(zip("uvwxyz", thumbnails, strict=True)))
    assert groups == ["c-a", "c-b", "c-c", "c-d", "c-b", "c-d"]
