"""Random views of training images, drawn on the CPU and applied to whole batches of tensors.

All geometry of a view (crop, flips, quarter turns, rotation, zoom, aspect, shift) is one affine
map, so an image is resampled once, straight from its source pixels to the network's input. What a
warp looks up outside the picture is mirrored in: a grey or black edge would be a texture that no
strip shows, and a mirrored mask stays true to its mirrored image. Randomness comes from a generator
that the caller seeds per epoch; the same seed gives the same views on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.plan import Augmentation


@dataclass(frozen=True, slots=True)
class Views:
    """The random numbers of a batch of views: where each pixel comes from and how it is toned."""

    theta: Tensor  # (N, 2, 3), output to input in coordinates from -1 to 1, as affine_grid wants
    brightness: Tensor  # (N,) factor
    contrast: Tensor  # (N,) factor around the view's mean

    def __getitem__(self, rows: Tensor) -> Views:
        return Views(self.theta[rows], self.brightness[rows], self.contrast[rows])


def draw(augmentation: Augmentation, count: int, generator: torch.Generator) -> Views:
    """Random numbers for `count` views.

    Args:
        augmentation: how far the views may go.
        count: how many views.
        generator: a CPU generator; it alone decides the outcome.
    """
    a = augmentation

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)

    turns = torch.randint(0, 4, (count,), generator=generator) * (1 if a.quarter_turns else 0)
    angle = turns * (math.pi / 2) + uniform(-a.rotation_deg, a.rotation_deg) * (math.pi / 180)
    zoom = torch.exp(uniform(math.log(a.zoom[0]), math.log(a.zoom[1])))
    aspect = torch.exp(uniform(-a.aspect, a.aspect) / 2)
    flip_x = torch.where(uniform(0, 1) < a.flip_horizontal, -1.0, 1.0)
    flip_y = torch.where(uniform(0, 1) < a.flip_vertical, -1.0, 1.0)
    # A view is a rotated window on the image: window = rotation . diag(side lengths).
    width, height = a.crop / zoom / aspect * flip_x, a.crop / zoom * aspect * flip_y
    cos, sin = torch.cos(angle), torch.sin(angle)
    room, reach = 1 - a.crop, 2 * a.shift * a.crop
    shift_x = uniform(-room, room) + uniform(-reach, reach)
    shift_y = uniform(-room, room) + uniform(-reach, reach)
    top = torch.stack((cos * width, -sin * height, shift_x), 1)
    bottom = torch.stack((sin * width, cos * height, shift_y), 1)
    return Views(
        torch.stack((top, bottom), 1).float(),
        uniform(1 - a.brightness, 1 + a.brightness).float(),
        uniform(1 - a.contrast, 1 + a.contrast).float(),
    )


def render(
    images: Sequence[Tensor], views: Views, *, size: int, mode: str, stretch: bool
) -> Tensor:
    """Views of a batch as network input before any normalisation.

    Args:
        images: uint8 (1 or 3, H, W) each, of any size, all on one device.
        views: one row per image.
        size: side of a view, px.
        mode: bilinear or bicubic.
        stretch: whether an oblong image is squeezed into the square, or keeps its aspect.

    Returns:
        float32 (N, 3, size, size) in [0, 1].
    """
    pixels = _warp(images, views.theta, size=size, mode=mode, stretch=stretch).div_(255)
    device = pixels.device
    contrast = views.contrast.to(device)[:, None, None, None]
    brightness = views.brightness.to(device)[:, None, None, None]
    mean = pixels.mean((1, 2, 3), keepdim=True)
    return ((pixels - mean) * contrast + mean).mul_(brightness).clamp_(0, 1).expand(-1, 3, -1, -1)


def render_masks(masks: Sequence[Tensor], views: Views, *, size: int) -> Tensor:
    """The same views of index masks: uint8 (H, W) each to int64 (N, size, size), nearest pixel."""
    layers = [mask[None] for mask in masks]
    return _warp(layers, views.theta, size=size, mode="nearest", stretch=False)[:, 0].long()


def _warp(
    layers: Sequence[Tensor], theta: Tensor, *, size: int, mode: str, stretch: bool
) -> Tensor:
    """Resample (C, H, W) each by its affine map to float32 (N, C, size, size), one call a shape."""
    channels = max(layer.shape[0] for layer in layers)
    device = layers[0].device
    out = torch.empty((len(layers), channels, size, size), device=device)
    shapes: dict[torch.Size, list[int]] = {}
    for row, layer in enumerate(layers):
        shapes.setdefault(layer.shape, []).append(row)
    for (_, height, width), rows in shapes.items():
        stack = torch.stack([layers[row] for row in rows]).float()
        index = torch.tensor(rows)
        window = theta[index]
        if not stretch:  # a square window whose side is the image's longer one
            side = max(height, width)
            window = window * torch.tensor([side / width, side / height])[:, None]
        grid = F.affine_grid(window.to(device), [len(rows), 1, size, size], align_corners=False)
        # A grey image has one channel in memory; assignment repeats it where others have three.
        out[index.to(device)] = F.grid_sample(
            stack, grid, mode=mode, padding_mode="reflection", align_corners=False
        ).expand(-1, channels, -1, -1)
    return out
