"""How unsure a model is about one image: pure functions on calibrated probabilities.

Every function answers in [0, 1]: 0 when nothing is open, 1 when a person should look first. A
detector gives each box one class and one probability, so its doubts are four: boxes that may or may
not be defects, many faint ones that together may hide one, how many defects there are, and two
classes in one place. For a mask it is how sharp the outline is; for a whole image, how close the
two best classes are. Whether an image looks like anything the model has learned from is the
question of `active_learning.novelty`.

Predict at ACQUISITION_THRESHOLD: a display threshold hides the very boxes the model is unsure of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from core.geometry import box_iou

Floats = NDArray[np.float64]

# Raw score down to which boxes are predicted for these measures.
ACQUISITION_THRESHOLD: Final = 0.05
# Between these two probabilities it is open whether a finding is a defect: the ambiguity of a lone
# box, 1 - |2p - 1|, is at least one half.
NOT_SURE: Final = 0.25
SURE: Final = 0.75
# From here on an answer is as open as a tossed coin, or more: a person is asked.
ASK_FROM: Final = 0.5
LIKELY: Final = 0.5  # from here on a finding is more likely a defect than not

_BAND_SHARE: Final = 0.02  # of the short side, to either side of an outline
_LEAST_SURE_SHARE: Final = 0.01  # of the pixels away from any outline
_MAX_MAP_SIDE: Final = 512  # px; a larger map is thinned out, entropy does not need every pixel


# --- whole images ------------------------------------------------------------------------------


def least_confidence(probabilities: ArrayLike) -> Floats:
    """How far the best class is from certain; 0 is certain, 1 is uniform.

    Args:
        probabilities: (..., C), the last axis summing to 1.

    Returns:
        (...), (1 - p1) C / (C - 1). With C = 1 the answer is 0.
    """
    p = _rows(probabilities)
    n = p.shape[-1]
    if n < 2:
        return np.zeros(p.shape[:-1])
    return np.asarray(((1 - p.max(axis=-1)) * n / (n - 1)).clip(0, 1))


def margin(probabilities: ArrayLike) -> Floats:
    """How close the two best classes are; 0 is certain, 1 is a tie.

    Never below `least_confidence`: what the best class leaves over must go somewhere.

    Args:
        probabilities: (..., C), the last axis summing to 1.

    Returns:
        (...), 1 - (p1 - p2). With C = 1 the answer is 0.
    """
    p = _rows(probabilities)
    if p.shape[-1] < 2:
        return np.zeros(p.shape[:-1])
    best = np.sort(p, axis=-1)[..., -2:]
    return np.asarray((1 - (best[..., 1] - best[..., 0])).clip(0, 1))


def entropy(probabilities: ArrayLike) -> Floats:
    """Normalised Shannon entropy; 0 is certain, 1 is uniform.

    Args:
        probabilities: (..., C), the last axis summing to 1.

    Returns:
        (...), H(p) / log C. With C = 1 the answer is 0.
    """
    p = _rows(probabilities)
    n = p.shape[-1]
    if n < 2:
        return np.zeros(p.shape[:-1])
    logs = np.log(p, out=np.zeros_like(p), where=p > 0)  # p log p is 0 at p = 0
    return np.asarray((-(p * logs).sum(axis=-1) / math.log(n)).clip(0, 1))


# --- boxes -------------------------------------------------------------------------------------


def box_ambiguity(probabilities: ArrayLike) -> float:
    """How open it is whether the boxes of an image are defects.

    Each box counts 1 - |2p - 1|, a tossed coin 1 and a sure box 0. The mean is weighted with p²:
    a crowd of leftovers near the acquisition threshold must not water down the one box that
    matters, and beside a sure defect one more doubtful box hardly changes the sheet's fate.

    Args:
        probabilities: (n,), of being a true defect.

    Returns:
        In [0, 1]; 0 without boxes.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    weights = p**2
    total = float(weights.sum())
    if total == 0:
        return 0.0
    return float((weights * (1 - np.abs(2 * p - 1))).sum() / total)


def escape_ambiguity(probabilities: ArrayLike) -> float:
    """How open it is whether an image without a likely box hides a defect after all.

    It is the chance that any of the faint boxes is a defect, were they independent. Boxes that
    stand or fall together make it too high, which errs on the side of asking: five boxes at 0.15
    are no reason to be confident.

    Args:
        probabilities: (n,), of being a true defect.

    Returns:
        1 - Π(1 - p); 0 if any box is likely, for then the sheet is defective anyway.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    return 0.0 if (p >= LIKELY).any() else float(1 - (1 - p).prod())


def count_range(probabilities: ArrayLike) -> tuple[int, int]:
    """Between which two numbers of defects it lies: those that are sure, those not ruled out."""
    p = np.asarray(probabilities, dtype=np.float64)
    return int((p >= SURE).sum()), int((p >= NOT_SURE).sum())


def count_ambiguity(probabilities: ArrayLike) -> float:
    """How open the number of defects is: (high - low) / (high + 1) of `count_range`.

    Args:
        probabilities: (n,), of being a true defect.

    Returns:
        In [0, 1); 0.5 for one open box, 0.2 for one beside three sure ones.
    """
    low, high = count_range(probabilities)
    return (high - low) / (high + 1)


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two boxes of different classes in one place."""

    first: int  # index of the more probable box
    second: int
    iou: float
    ambiguity: float  # [0, 1]


def strongest_overlap(
    xyxy: ArrayLike, probabilities: ArrayLike, class_ids: ArrayLike
) -> Overlap | None:
    """The two boxes of different classes that contradict each other most.

    A pair's ambiguity is IoU · min(1, 2 min(p, q)): it takes two serious boxes in one place.

    Args:
        xyxy: (n, 4) px.
        probabilities: (n,), of being a true defect.
        class_ids: (n,).

    Returns:
        None if no two boxes of different classes touch.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    ids = np.asarray(class_ids)
    if len(p) < 2:
        return None
    iou = box_iou(xyxy, xyxy)
    weight = np.minimum(1, 2 * np.minimum(p[:, None], p[None]))
    clash = np.triu(iou * weight * (ids[:, None] != ids[None]), k=1)
    i, j = (int(k) for k in np.unravel_index(int(clash.argmax()), clash.shape))
    if clash[i, j] == 0:
        return None
    first, second = (i, j) if p[i] >= p[j] else (j, i)
    return Overlap(first, second, iou=float(iou[i, j]), ambiguity=float(clash[i, j]))


def boxes_uncertainty(xyxy: ArrayLike, probabilities: ArrayLike, class_ids: ArrayLike) -> float:
    """The largest of the four doubts about the boxes of an image.

    Args:
        xyxy: (n, 4) px.
        probabilities: (n,), of being a true defect.
        class_ids: (n,).

    Returns:
        In [0, 1]; 0 without boxes.
    """
    overlap = strongest_overlap(xyxy, probabilities, class_ids)
    return max(
        box_ambiguity(probabilities),
        escape_ambiguity(probabilities),
        count_ambiguity(probabilities),
        overlap.ambiguity if overlap else 0.0,
    )


# --- masks -------------------------------------------------------------------------------------


def binary_entropy(probabilities: ArrayLike) -> Floats:
    """Entropy of yes or no in bits; below 0.5, where more than two classes compete, it is 1.

    Args:
        probabilities: (...), of the class chosen.

    Returns:
        (...), in [0, 1].
    """
    p = np.asarray(probabilities, dtype=np.float64).clip(0.5, 1)
    q = 1 - p
    logs = np.log2(q, out=np.zeros_like(q), where=q > 0)
    return np.asarray((-p * np.log2(p) - q * logs).clip(0, 1))


def boundary_entropy(class_map: NDArray[np.uint8], probabilities: ArrayLike) -> float:
    """Mean entropy of the pixels beside an outline: how blurred the outlines are.

    On the outline itself two classes are equal in any network; a sure one leaves 0.5 within few
    pixels. The band reaches 2 % of the short side (at least 2 px) to either side.

    Args:
        class_map: (H, W), 0 is background.
        probabilities: (H, W), of the class chosen at each pixel.

    Returns:
        In [0, 1]; 0 if the whole image is one class.
    """
    thin_map, thin = _thinned(class_map, probabilities)
    band = _band(thin_map)
    return float(binary_entropy(thin[band]).mean()) if band.any() else 0.0


def interior_entropy(class_map: NDArray[np.uint8], probabilities: ArrayLike) -> float:
    """Mean entropy of the least sure 1 % of the pixels away from any outline.

    It finds the defect that was almost drawn, and the one that was only just drawn.

    Args:
        class_map: (H, W), 0 is background.
        probabilities: (H, W), of the class chosen at each pixel.

    Returns:
        In [0, 1]; 0 if outlines are everywhere.
    """
    thin_map, thin = _thinned(class_map, probabilities)
    away = binary_entropy(thin[~_band(thin_map)])
    if not away.size:
        return 0.0
    count = max(1, round(_LEAST_SURE_SHARE * away.size))
    return float(np.partition(away, away.size - count)[-count:].mean())


def _thinned(
    class_map: NDArray[np.uint8], probabilities: ArrayLike
) -> tuple[NDArray[np.uint8], Floats]:
    step = -(-max(class_map.shape) // _MAX_MAP_SIDE)
    return class_map[::step, ::step], np.asarray(probabilities, np.float64)[::step, ::step]


def _band(class_map: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels (H, W) that have another class within reach."""
    from scipy import ndimage

    reach = max(2, round(_BAND_SHARE * min(class_map.shape)))
    size = 2 * reach + 1
    highest = ndimage.maximum_filter(class_map, size=size, mode="nearest")
    lowest = ndimage.minimum_filter(class_map, size=size, mode="nearest")
    return np.asarray(highest != lowest)


def unit_rows(embeddings: ArrayLike) -> Floats:
    """Rows (n, D) scaled to length 1; a row of zeros stays."""
    rows = np.atleast_2d(np.asarray(embeddings, dtype=np.float64))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))


def _rows(probabilities: ArrayLike) -> Floats:
    return np.atleast_1d(np.asarray(probabilities, dtype=np.float64))
