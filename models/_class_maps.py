"""From class probabilities to a class map at the picture's own size, a strip of rows at a time.

Without thresholds a pixel has its most probable class. With one threshold per class, fitted on
validation images, it has the class that passes its threshold by the largest ratio, and is
background where none does: a rare class that is never the most probable can still be found.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from core.types import FloatArray

STRIP_PIXELS = 1_000_000  # of the picture, enlarged at a time: memory does not grow with its height


def class_map(
    maps: Tensor, height: int, width: int, thresholds: Tensor | None = None
) -> tuple[NDArray[np.uint8], FloatArray]:
    """The class of each pixel and its probability.

    Args:
        maps: (1 + n, h, w) probabilities at any scale, background first.
        height: of the picture, px.
        width: of the picture, px.
        thresholds: (n,) in (0, 1), lowest probability of each class; None: take the most probable.

    Returns:
        (height, width) class ids, 0 being background, and the probabilities of these classes.
    """
    classes = np.empty((height, width), np.uint8)
    scores = np.empty((height, width), np.float32)
    for top, strip in enlarged(maps, height, width):
        score, chosen = strip.max(0) if thresholds is None else _passing(strip, thresholds)
        rows = slice(top, top + strip.shape[1])
        classes[rows], scores[rows] = chosen.to(torch.uint8).numpy(), score.numpy()
    return classes, scores


def enlarged(maps: Tensor, height: int, width: int) -> Iterator[tuple[int, Tensor]]:
    """Strips of the maps, interpolated bilinearly to height × width px, with their first row.

    Equal to `F.interpolate(..., align_corners=False)` of the whole: rows are mixed first (output
    row i lies at (i + 1/2)·h/height − 1/2, kept inside), then each strip is widened.
    """
    h, w = maps.shape[1:]
    step = max(STRIP_PIXELS // width, 1)
    for top in range(0, height, step):
        place = (torch.arange(top, min(top + step, height)) + 0.5) * (h / height) - 0.5
        place = place.clamp(0, h - 1)
        upper = place.long().clamp(max=max(h - 2, 0))
        lower = (upper + 1).clamp(max=h - 1)
        share = (place - upper)[:, None]
        strip = torch.lerp(maps[:, upper], maps[:, lower], share.expand(-1, w))
        if w != width:
            strip = F.interpolate(strip, width, mode="linear", align_corners=False)
        yield top, strip


def _passing(strip: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    ratio, best = (strip[1:] / thresholds[:, None, None]).max(0)
    chosen = torch.where(ratio >= 1, best + 1, 0)
    return strip.gather(0, chosen[None])[0], chosen
