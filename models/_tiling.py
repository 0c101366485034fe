"""Large pictures in overlapping tiles: where to cut, how maps and boxes become one again.

A network has learned from pictures of one size (`core.taxonomy.native_side`) and meets a line-scan
frame of 4096 × 1024 px. Shrunk to fit, a scratch would vanish. So the whole picture is brought to
the scale the network was trained at, once, and looked at through windows of the training size.

Maps are blended with weights that are 0 near a cut, where the network saw padding in place of
surface: where the overlap hides the network's receptive field, the blend is the very map of the
whole picture. Boxes that are cut by a seam are joined when both tiles agree about the strip that
both have seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.types import FloatArray

TILE_FROM = 2.0  # a picture with a side this many times longer than the trained one is cut
OVERLAP = 0.25  # of a tile, at least
MAX_TILES = 256  # of one picture; a larger one is shrunk until that many cover it
AGREEMENT = 0.5  # IoU, within what both tiles have seen, from which two boxes are one thing
KIN = 0.5  # a piece scored lower than this share of the best one is dropped, not added
CUT = 0.02  # of a tile: a box that ends this close to a seam may go on behind it


@dataclass(frozen=True, slots=True)
class Tiling:
    """A picture's size at the network's scale, and the top-left corners of its tiles there."""

    width: int  # px of the whole picture at the network's scale
    height: int  # px
    tile_width: int  # px
    tile_height: int  # px
    xs: tuple[int, ...]  # left edges of the columns, ascending
    ys: tuple[int, ...]  # upper edges of the rows, ascending

    @property
    def corners(self) -> tuple[tuple[int, int], ...]:
        """(x, y) of every tile, row by row."""
        return tuple((x, y) for y in self.ys for x in self.xs)

    def areas(self) -> FloatArray:
        """xyxy px of every tile, (T, 4)."""
        low = np.array(self.corners, np.float32)
        size = np.array([self.tile_width, self.tile_height], np.float32)
        return np.concatenate([low, low + size], axis=1)


def tile(
    width: int,
    height: int,
    *,
    native_px: int,
    image_size: int,
    most: int = MAX_TILES,
) -> Tiling | None:
    """How to cut a picture, or None where it is looked at as a whole.

    Args:
        width: of the picture, px.
        height: of the picture, px.
        native_px: long side of the pictures that the network has learned from.
        image_size: px to which those were scaled, and the side of a tile.
        most: tiles; the picture is shrunk further until so many are enough.
    """
    longest = max(width, height)
    if longest <= TILE_FROM * native_px:
        return None
    scale = image_size / native_px
    while True:
        wide, high = max(round(width * scale), 1), max(round(height * scale), 1)
        xs, ys = _starts(wide, image_size), _starts(high, image_size)
        if len(xs) * len(ys) <= most:
            return Tiling(wide, high, min(wide, image_size), min(high, image_size), xs, ys)
        scale *= max(math.sqrt(most / (len(xs) * len(ys))), 0.5) * 0.99


def _starts(length: int, size: int) -> tuple[int, ...]:
    """Where tiles begin along a side: evenly spread, first and last flush with the borders."""
    if length <= size:
        return (0,)
    count = 1 + math.ceil((length - size) / (size * (1 - OVERLAP)))
    return tuple(round(k * (length - size) / (count - 1)) for k in range(count))


class Blend:
    """One map from those of the tiles, added one after the other; only the sum is kept.

    Args:
        tiling: where the tiles lie.
        channels: of the maps.
    """

    def __init__(self, tiling: Tiling, channels: int) -> None:
        self._tiling = tiling
        self._sum = torch.zeros(channels, tiling.height, tiling.width)
        self._weight = torch.zeros(tiling.height, tiling.width)
        self._rows = _ramps(tiling.ys, tiling.tile_height)
        self._columns = _ramps(tiling.xs, tiling.tile_width)

    def add(self, number: int, values: Tensor) -> None:
        """Add the map (channels, tile height, tile width) of the tile of that number."""
        row, column = divmod(number, len(self._tiling.xs))
        x, y = self._tiling.xs[column], self._tiling.ys[row]
        weight = self._rows[row][:, None] * self._columns[column][None]
        height, width = weight.shape
        self._sum[:, y : y + height, x : x + width] += values * weight
        self._weight[y : y + height, x : x + width] += weight

    def result(self) -> Tensor:
        """The weighted mean at each pixel, (channels, height, width)."""
        return self._sum / self._weight


def _ramps(starts: tuple[int, ...], size: int) -> list[Tensor]:
    """Weights (size,) of each tile along a side: 0 next to a cut, rising to 1; 1 at the borders."""
    if len(starts) == 1:
        return [torch.ones(size)]
    shared = min(a + size - b for a, b in pairwise(starts))
    blind = shared // 4  # px next to a cut that do not count
    place = torch.arange(size, dtype=torch.float32) + 0.5
    rising = ((place - blind) / (shared - 2 * blind)).clamp(0, 1)
    ramps = []
    for number in range(len(starts)):
        ramp = torch.ones(size)
        if number > 0:
            ramp = ramp * rising
        if number < len(starts) - 1:
            ramp = ramp * rising.flip(0)
        ramps.append(ramp)
    return ramps


@dataclass(frozen=True, slots=True)
class Pieces:
    """What the detector found in all tiles, in px of the whole picture at the network's scale."""

    xyxy: FloatArray  # (n, 4)
    scores: FloatArray  # (n,)
    class_ids: NDArray[np.int64]  # (n,)
    tiles: NDArray[np.int64]  # (n,), number of the tile each was found in


def join(found: Pieces, tiling: Tiling) -> tuple[FloatArray, FloatArray, NDArray[np.int64]]:
    """One box per finding, whatever the seams did to it.

    From the best box down: boxes of its class in other tiles that agree with it about the strip
    both tiles have seen (IoU of what lies there) are the same thing. A tile that saw the whole of
    it knows best; where every tile has cut it, the pieces are put together, and their neighbours'
    neighbours too.

    Returns:
        Boxes (m, 4), scores (m,) and class ids (m,), highest score first.
    """
    areas = tiling.areas()
    cut = _cut_edges(found, areas, tiling)
    order = np.argsort(-found.scores, kind="stable")
    free = np.ones(len(order), dtype=bool)
    boxes, kept = [], []
    for best in order:
        if not free[best]:
            continue
        free[best] = False
        members = _grow(int(best), found, areas, cut, free)
        whole = [m for m in members if not cut[m]]
        shown = found.xyxy[whole[:1] or members]
        boxes.append(np.concatenate([shown[:, :2].min(axis=0), shown[:, 2:].max(axis=0)]))
        kept.append(best)
    index = np.array(kept, dtype=np.int64)
    joined = np.array(boxes, np.float32).reshape(-1, 4)
    return joined, found.scores[index], found.class_ids[index]


def _cut_edges(found: Pieces, areas: FloatArray, tiling: Tiling) -> NDArray[np.bool_]:
    """Which boxes (n,) end at a seam of their tile, rather than at the picture's border."""
    near = CUT * max(tiling.tile_width, tiling.tile_height)
    own = areas[found.tiles]
    border = np.array([0, 0, tiling.width, tiling.height], np.float32)
    at_seam = (np.abs(found.xyxy - own) <= near) & (own != border)
    return np.asarray(at_seam.any(axis=1))


def _grow(
    best: int, found: Pieces, areas: FloatArray, cut: NDArray[np.bool_], free: NDArray[np.bool_]
) -> list[int]:
    """Everything that is the same thing as `best`, itself first; takes all of it out of `free`."""
    members, frontier = [best], [best]
    while frontier:
        one = frontier.pop()
        same = free & (found.class_ids == found.class_ids[best])
        others = np.flatnonzero(same & (found.tiles != found.tiles[one]))
        agreeing = others[_agreement(one, others, found, areas) >= AGREEMENT]
        free[agreeing] = False
        kin = agreeing[found.scores[agreeing] >= KIN * found.scores[best]]
        members += kin.tolist()
        if cut[one]:  # it may go on in a third tile; what one tile saw whole ends there
            frontier += kin.tolist()
    return members


def _agreement(
    one: int, others: NDArray[np.int64], found: Pieces, areas: FloatArray
) -> NDArray[np.float64]:
    """IoU (k,) of a box with each of the others, within what the tiles of both have seen."""
    mine, theirs = areas[found.tiles[one]], areas[found.tiles[others]]
    low, high = np.maximum(mine[:2], theirs[:, :2]), np.minimum(mine[2:], theirs[:, 2:])
    seen = np.concatenate([low, np.maximum(low, high)], axis=1)  # (k, 4), empty if they lie apart
    a = _within(np.broadcast_to(found.xyxy[one], seen.shape), seen)
    b = _within(found.xyxy[others], seen)
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    common = (high - low).clip(min=0).prod(axis=1)
    union = _area(a) + _area(b) - common
    iou: NDArray[np.float64] = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
    return iou


def _within(boxes: FloatArray, frames: FloatArray) -> NDArray[np.float64]:
    """Each box (k, 4) cut down to the frame beside it."""
    low = np.tile(frames[:, :2], 2)
    high = np.tile(frames[:, 2:], 2)
    return np.clip(boxes.astype(np.float64), low, high)


def _area(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
