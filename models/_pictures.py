"""What lies between a decoded picture and a network's input: resizing, tensors, normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor

MIN_SIDE = 32  # px of a picture that a segmenter is shown
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def resize(
    pixels: NDArray[np.uint8], width: int, height: int, how: PILImage.Resampling
) -> NDArray[np.uint8]:
    """A picture (H, W, 3) at another size, itself where it has that size already."""
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(PILImage.fromarray(pixels).resize((width, height), how))


def fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height of a picture brought to that longer side, aspect kept; MIN_SIDE at least."""
    scale = longest / max(width, height)
    return max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale))


def to_tensor(pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Equal-sized (H, W, 3) uint8 pictures to (N, 3, H, W) float32 in [0, 1], channels last."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div_(255)


def normalise(batch: Tensor) -> Tensor:
    """ImageNet mean and standard deviation; (N, 3, H, W) in [0, 1]."""
    mean = torch.tensor(IMAGENET_MEAN, device=batch.device)
    std = torch.tensor(IMAGENET_STD, device=batch.device)
    return (batch - mean[:, None, None]) / std[:, None, None]
