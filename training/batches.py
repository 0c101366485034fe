"""A split held in memory as uint8 tensors, and the batches a segmenter or classifier is fed.

Grey images keep one channel in memory. Training batches are random views (`training.augment`);
validation sees exactly what `models._predictors` would feed the network: the same library resizes
with the same filter, a class map is judged at its source's own resolution.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image as PILImage
from torch import Tensor

from core.images import KEPT, decode
from core.types import Task
from models._pictures import fitted
from training import augment
from training.truth import class_index, read_mask

if TYPE_CHECKING:
    from training.datasets import Sample

_FILTERS = {"segment": PILImage.Resampling.BICUBIC, "classify": PILImage.Resampling.BILINEAR}
_MODES = {"segment": "bicubic", "classify": "bilinear"}


@dataclass(frozen=True, slots=True)
class Split:
    """Images and truths of one split on one device.

    `images` are uint8 (1 or 3, H, W). `targets` are uint8 (H, W) class maps at source resolution
    or int64 scalars.
    """

    task: Task
    images: tuple[Tensor, ...]
    targets: tuple[Tensor, ...]

    def __len__(self) -> int:
        return len(self.images)

    def views(
        self, rows: Sequence[int], views: augment.Views, *, size: int
    ) -> tuple[Tensor, Tensor]:
        """A training batch: float (N, 3, size, size) in [0, 1] and int64 targets."""
        pixels = augment.render(
            [self.images[row] for row in rows],
            views,
            size=size,
            mode=_MODES[self.task],
            stretch=self.task == "classify",
        )
        targets = [self.targets[row] for row in rows]
        if self.task == "classify":
            return pixels, torch.stack(targets)
        return pixels, augment.render_masks(targets, views, size=size)

    def plain(self, batch: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Batches of equal-sized images as they are: float (N, 3, h, w) in [0, 1], targets."""
        shapes: dict[torch.Size, list[int]] = {}
        for row, image in enumerate(self.images):
            shapes.setdefault(image.shape[1:], []).append(row)
        for same in shapes.values():
            for start in range(0, len(same), batch):
                rows = same[start : start + batch]
                pixels = torch.stack([self.images[row].expand(3, -1, -1) for row in rows])
                yield pixels.float().div_(255), [self.targets[row] for row in rows]


def needed_mb(samples: Sequence[Sample], *, task: Task, image_size: int, exact: bool) -> float:
    """Memory in megabytes that `load_split` takes at least, as if no image had colours."""
    sizes = [_kept_size(s.width, s.height, image_size, task=task, exact=exact) for s in samples]
    truths = [s.width * s.height for s in samples] if task == "segment" else []
    return (sum(width * height for width, height in sizes) + sum(truths)) / 1e6


def load_split(
    samples: Sequence[Sample],
    *,
    task: Task,
    labels: Sequence[str],
    image_size: int,
    device: torch.device,
    workers: int,
    exact: bool,
) -> Split:
    """Decode a split into memory.

    Args:
        samples: what to load, in order.
        task: segment or classify.
        labels: class names; the target of a sample is its place in them.
        image_size: side of the network's input, px.
        device: where the tensors live.
        workers: decoding threads.
        exact: True resizes each image to the network's input once, as a predictor does; False
            leaves images as they are, shrunk to twice the input where larger, to be viewed.

    Raises:
        DatasetError: if a truth is missing or names a class the set does not have.
        InputError: if an image cannot be decoded.
    """

    def load(sample: Sample) -> tuple[Tensor, Tensor]:
        image = decode(sample.path, limits=KEPT)
        size = _kept_size(image.width, image.height, image_size, task=task, exact=exact)
        pixels = image.pixels
        if size != (image.width, image.height):
            pixels = np.asarray(PILImage.fromarray(pixels).resize(size, _FILTERS[task]))
        channels = pixels[..., :1] if image.is_grey else pixels
        target = (
            torch.from_numpy(read_mask(sample, labels))
            if task == "segment"
            else torch.tensor(class_index(sample, labels))
        )
        return torch.from_numpy(channels.transpose(2, 0, 1).copy()), target

    with ThreadPoolExecutor(max(1, workers)) as pool:
        loaded = list(pool.map(load, samples))
    return Split(
        task,
        tuple(image.to(device) for image, _ in loaded),
        tuple(target.to(device) for _, target in loaded),
    )


def _kept_size(width: int, height: int, side: int, *, task: Task, exact: bool) -> tuple[int, int]:
    """(w, h) at which an image is kept in memory.

    Exact is as a predictor feeds it: square to a classifier, aspect kept otherwise.
    """
    if exact:
        return (side, side) if task == "classify" else fitted(width, height, side)
    most = 2 * side / max(width, height)
    if most >= 1:
        return width, height
    return max(1, round(width * most)), max(1, round(height * most))
