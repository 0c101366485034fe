"""Groups of related images found from their content, for sources that do not say.

Joined are: identical pixels, quarter turns and mirror images of them, and near copies of these;
besides these, whatever pairs the caller knows to be related (see `_overlaps`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from core.types import FloatArray, Image

_SIDE = 24  # px of the thumbnail that stands for an image
# Thumbnail correlation of one and the same picture. At 0.995 this joins 5,042 of the 5,202 pairs
# that NEU-Seg's manifest joins and no other; at 0.99 smooth pictures of NEU-DET get confused.
NEAR = 0.995
_ROWS = 512  # rows of the similarity matrix computed at a time


def thumbnail_of(pixels: Image) -> FloatArray:
    """Zero-mean unit-norm thumbnail (24, 24) of an image (H, W, 3); zeros for one flat grey."""
    return _thumbnail(_grey(pixels))


def views(grey: NDArray[Any]) -> list[NDArray[Any]]:
    """The eight orientations of a square or oblong array: four turns, each also mirrored."""
    turns = [np.rot90(grey, k) for k in range(4)]
    return [*turns, *(np.fliplr(turn) for turn in turns)]


def fingerprint(pixels: Image) -> tuple[str, FloatArray]:
    """What grouping needs of an image (H, W, 3).

    Returns:
        A hash that turned and mirrored images share, and a zero-mean unit-norm thumbnail
        (24 * 24,); an image of one flat grey has a thumbnail of zeros.
    """
    grey = _grey(pixels)
    digests = [
        hashlib.sha256(f"{view.shape}".encode() + np.ascontiguousarray(view).tobytes()).hexdigest()
        for view in views(grey)
    ]
    return min(digests), _thumbnail(grey).ravel()


def content_groups(
    keys: Sequence[str],
    prints: Sequence[tuple[str, FloatArray]],
    *,
    related: Iterable[tuple[int, int]] = (),
) -> list[str]:
    """Name of the group of each image; the names do not depend on the order of the images.

    Args:
        keys: unique names of the images, at least one.
        prints: their fingerprints, in the same order.
        related: further pairs of positions that belong together.
    """
    parent = list(range(len(keys)))
    first: dict[str, int] = {}
    for i, (digest, _) in enumerate(prints):
        _join(parent, first.setdefault(digest, i), i)
    for a, b in _near_pairs(np.stack([thumbnail for _, thumbnail in prints])):
        _join(parent, a, b)
    for a, b in related:
        _join(parent, a, b)
    roots = [_root(parent, i) for i in range(len(keys))]
    first_key: dict[int, str] = {}
    for root, key in zip(roots, keys, strict=True):
        first_key[root] = min(first_key.get(root, key), key)
    return [f"c-{first_key[root]}" for root in roots]


def _near_pairs(thumbnails: FloatArray) -> list[tuple[int, int]]:
    """Pairs (a, b) of images that correlate in any of the eight orientations."""
    turned = np.stack(
        [np.stack([view.ravel() for view in views(t.reshape(_SIDE, _SIDE))]) for t in thumbnails],
        axis=1,
    )  # (8, N, S * S)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(thumbnails), _ROWS):
        rows = thumbnails[start : start + _ROWS]
        for view in turned:
            near = np.argwhere(rows @ view.T >= NEAR)
            pairs.extend((start + int(a), int(b)) for a, b in near if start + a < b)
    return pairs


def _grey(pixels: Image) -> NDArray[np.uint8]:
    return np.asarray(pixels.mean(axis=2), np.uint8)


def _thumbnail(grey: NDArray[np.uint8]) -> FloatArray:
    small = PillowImage.fromarray(grey).resize((_SIDE, _SIDE), PillowImage.Resampling.BOX)
    thumbnail = np.asarray(small, dtype=np.float32)
    thumbnail = thumbnail - thumbnail.mean()
    norm = float(np.linalg.norm(thumbnail))
    return np.asarray(thumbnail / norm if norm > 0 else thumbnail, np.float32)


def _root(parent: list[int], i: int) -> int:
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


def _join(parent: list[int], a: int, b: int) -> None:
    parent[_root(parent, b)] = _root(parent, a)
