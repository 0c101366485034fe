"""Overlapping crops of one strip, found by trying every shift of every pair of pictures.

The images of NEU-DET are 200 px crops, many of them shifted by some pixels against each other. The
normalised cross-correlation of high-passed pictures, taken over the area that both show, tells such
pairs; by FFT all shifts of a pair cost a third of a millisecond.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from scipy.fft import irfft2, rfft2
from scipy.ndimage import uniform_filter

from core.types import FloatArray, Image

_SIDE = 100  # px to which a picture is reduced before the search
_WINDOW = 5  # px of the mean that the high-pass takes away
_LEAST_AREA = 0.25  # of the picture; smaller overlaps correlate by chance


def texture(pixels: Image) -> FloatArray:
    """The fine structure of an image (H, W, 3): (100, 100), high-passed, unit variance."""
    grey = PillowImage.fromarray(pixels.mean(axis=2).astype(np.uint8))
    small = np.asarray(grey.resize((_SIDE, _SIDE), PillowImage.Resampling.BOX), np.float32)
    fine = small - uniform_filter(small, _WINDOW)
    return np.asarray(fine / (fine.std() + 1e-6), np.float32)


def overlapping_pairs(textures: FloatArray, *, at_least: float) -> Iterator[tuple[int, int]]:
    """Pairs (a, b), a < b, whose best shift correlates with at least that value.

    Args:
        textures: (N, 100, 100) from `texture`.
        at_least: correlation in [0, 1]; 0.6 is safe for irregular textures, while streaks along
            one direction resemble each other up to 0.85.
    """
    padded = (2 * _SIDE, 2 * _SIDE)
    shifts = np.concatenate([np.arange(_SIDE), np.arange(-_SIDE, 0)])
    low, high = np.clip(shifts, 0, _SIDE), np.clip(shifts + _SIDE, 0, _SIDE)
    allowed = np.outer(high - low, high - low) >= _LEAST_AREA * _SIDE**2
    spectra = rfft2(textures, padded)
    energy = np.stack([_overlap_energy(t, low, high) for t in textures])  # (N, 200, 200)
    # where a is shifted by s against b, b is shifted by -s against a
    mirrored = np.roll(energy[:, ::-1, ::-1], 1, axis=(1, 2))
    for a in range(len(textures) - 1):
        products = irfft2(spectra[a] * np.conj(spectra[a + 1 :]), padded)
        correlation = products / (np.sqrt(energy[a] * mirrored[a + 1 :]) + 1e-6)
        best = np.where(allowed, correlation, -1.0).max(axis=(1, 2))
        yield from ((a, a + 1 + int(b)) for b in np.flatnonzero(best >= at_least))


def _overlap_energy(
    picture: FloatArray, low: NDArray[np.int64], high: NDArray[np.int64]
) -> FloatArray:
    """Sum of squares of the part that stays in view, for every vertical and horizontal shift."""
    table = np.zeros((_SIDE + 1, _SIDE + 1), np.float32)
    table[1:, 1:] = (picture**2).cumsum(axis=0).cumsum(axis=1)
    rows = table[high] - table[low]
    return np.asarray(np.maximum(rows[:, high] - rows[:, low], 0), np.float32)
