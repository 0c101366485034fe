"""Putting a piece of one picture into another so that it belongs there: texture, tone, Poisson.

Pure functions of pixels; what is pasted where is decided in `synthesis`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from core.types import Image

Mask = NDArray[np.bool_]

GAIN = (0.7, 1.4)  # contrast of a piece is changed no further
# A difference of one in `Texture.distance` for each: grey levels, grey levels, grey levels per px,
# and the share of the gradient that runs along the rows.
SCALES = np.array([24.0, 12.0, 8.0, 0.15])
_PAD = 8  # px mirrored around a picture, so that a piece may touch its edge
_ERODED = 3  # px that OpenCV takes off a mask before it clones


@dataclass(frozen=True, slots=True)
class Texture:
    """Grey-level statistics of a region.

    `mean` and `std` in grey levels, `gradient` the mean magnitude of the gradient in levels per px,
    `across` the horizontal share of it: 1/2 without direction, near 1 for upright stripes.
    """

    mean: float
    std: float
    gradient: float
    across: float

    def distance(self, other: Texture) -> float:
        """How unlike two textures are; 0 is alike, below about 2 is hard to tell by eye."""
        mine, theirs = (np.array([t.mean, t.std, t.gradient, t.across]) for t in (self, other))
        return float(np.abs((mine - theirs) / SCALES).sum())


def texture(pixels: Image, region: Mask | None = None) -> Texture:
    """Texture of (H, W, 3) pixels, or of those of them in the region; an empty region is all."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    horizontal = np.abs(cv2.Sobel(grey, cv2.CV_32F, 1, 0) / 8)
    vertical = np.abs(cv2.Sobel(grey, cv2.CV_32F, 0, 1) / 8)
    inside = np.ones(grey.shape, np.bool_) if region is None or not region.any() else region
    h, v = float(horizontal[inside].mean()), float(vertical[inside].mean())
    return Texture(
        mean=float(grey[inside].mean()),
        std=float(grey[inside].std()),
        gradient=float(np.hypot(horizontal, vertical)[inside].mean()),
        across=h / (h + v) if h + v > 0 else 0.5,
    )


def seam(target: Image, piece: Image, mask: Mask) -> float:
    """How a blend would smear: spread of piece minus target along the mask's edge, grey levels.

    A constant difference is taken up by Poisson blending unseen; a varying one is drawn inwards.

    Args:
        target: (h, w, 3), what the piece would cover.
        piece: (h, w, 3).
        mask: (h, w).
    """
    edge = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    if not edge.any():
        return 0.0
    mine, theirs = (
        cv2.GaussianBlur(cv2.cvtColor(a, cv2.COLOR_RGB2GRAY), (5, 5), 0).astype(np.float32)
        for a in (piece, target)
    )
    return float((mine - theirs)[edge].std())


def match_tone(piece: Image, *, of: Texture, to: Texture) -> Image:
    """The piece with the brightness and contrast of other surroundings.

    y = g (x - mean_of) + mean_to with g = std_to / std_of within `GAIN`.

    Args:
        piece: (h, w, 3).
        of: texture around the piece where it comes from.
        to: texture of where it goes.
    """
    gain = float(np.clip(to.std / max(of.std, 1.0), *GAIN))
    toned = gain * (piece.astype(np.float32) - of.mean) + to.mean
    levels: Image = np.clip(np.rint(toned), 0, 255).astype(np.uint8)
    return levels


def blend(target: Image, piece: Image, mask: Mask, *, x: int, y: int) -> Image:
    """Poisson blending: inside the mask the piece's gradients, at its edge the target's values.

    Pérez et al., "Poisson Image Editing", SIGGRAPH 2003, seamless cloning.

    Args:
        target: (H, W, 3).
        piece: (h, w, 3), wholly inside the target at (x, y).
        mask: (h, w), what of the piece is taken.
        x: column of the target where the piece's first column goes.
        y: row likewise.

    Returns:
        (H, W, 3), equal to the target outside the mask.
    """
    height, width = target.shape[:2]
    h, w = mask.shape
    around = ((_PAD, _PAD), (_PAD, _PAD))
    padded = np.pad(target, (*around, (0, 0)), mode="reflect")
    canvas = padded.copy()
    rows, columns = np.s_[y : y + h + 2 * _PAD], np.s_[x : x + w + 2 * _PAD]
    canvas[rows, columns] = np.pad(piece, (*around, (0, 0)), mode="reflect")
    taken = np.zeros(padded.shape[:2], np.uint8)
    taken[y + _PAD : y + _PAD + h, x + _PAD : x + _PAD + w] = mask
    whole = _beyond_edges(taken, mask, x=x, y=y, height=height, width=width)
    # Beyond the picture's edge there is no target to agree with: the piece goes on as it is.
    beyond = (whole > 0) & (taken == 0)
    padded[beyond] = canvas[beyond]
    grown = cv2.dilate(whole, np.ones((3, 3), np.uint8), iterations=_ERODED)
    grown[[0, -1], :] = grown[:, [0, -1]] = 0  # the clone needs a frame of target around it
    left, top, wide, high = cv2.boundingRect(grown)
    centre = (left + wide // 2, top + high // 2)
    cloned = cv2.seamlessClone(canvas, padded, grown * 255, centre, cv2.NORMAL_CLONE)
    out = target.copy()
    inner = cloned[_PAD : _PAD + height, _PAD : _PAD + width]
    placed = np.zeros((height, width), np.bool_)
    placed[y : y + h, x : x + w] = mask
    out[placed] = inner[placed]
    return out


def _beyond_edges(
    taken: NDArray[np.uint8], mask: Mask, *, x: int, y: int, height: int, width: int
) -> NDArray[np.uint8]:
    """The mask continued into the mirrored margin where it touches the picture's edge."""
    h, w = mask.shape
    whole = taken.copy()
    if y == 0:
        whole[:_PAD] |= whole[_PAD]
    if y + h == height:
        whole[-_PAD:] |= whole[-_PAD - 1]
    if x == 0:
        whole[:, :_PAD] |= whole[:, _PAD, None]
    if x + w == width:
        whole[:, -_PAD:] |= whole[:, -_PAD - 1, None]
    return whole
