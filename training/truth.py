"""What is true of a sample of a prepared set, as numbers: class index and class map."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from core.errors import DatasetError

if TYPE_CHECKING:
    from training.datasets import Sample


def class_index(sample: Sample, labels: Sequence[str]) -> int:
    """Place of the sample's class in `labels`.

    Raises:
        DatasetError: if the sample has none, or one that is not among them.
    """
    if sample.label not in labels:
        raise DatasetError(
            f"{sample.file} has the label {sample.label!r}; the set has: {', '.join(labels)}."
        )
    return labels.index(sample.label)


def read_mask(sample: Sample, labels: Sequence[str]) -> NDArray[np.uint8]:
    """The true class map of a sample, (H, W); an image without a mask is all background.

    Raises:
        DatasetError: if the mask is missing or damaged, does not fit the image, or holds a class
            beyond `labels`.
    """
    if sample.mask is None:
        return np.zeros((sample.height, sample.width), np.uint8)
    try:
        with PILImage.open(sample.mask) as picture:
            mask = np.array(picture, dtype=np.uint8)
    # Pillow says the first three of damaged PNGs; ultralytics' Pillow asks for a library more.
    except (OSError, SyntaxError, ValueError, ImportError) as exc:
        raise DatasetError(
            f"The mask of {sample.file}, {sample.mask}, cannot be read ({exc}): prepare the data "
            "set again."
        ) from exc
    if mask.shape != (sample.height, sample.width):
        raise DatasetError(
            f"The mask of {sample.file} is {mask.shape} and its image "
            f"({sample.height}, {sample.width}): they must be of one size."
        )
    if mask.max(initial=0) > len(labels):
        raise DatasetError(
            f"The mask of {sample.file} holds the value {mask.max()}; with {len(labels)} labels "
            f"the largest is {len(labels)}."
        )
    return mask
