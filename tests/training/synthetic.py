"""Small data sets drawn for tests of training, which even a tiny network tells apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor, nn

from core.types import Task
from training.datasets import Dataset, Sample


class TinyNetwork(nn.Module):
    """Two convolutions with batch statistics and dropout: logits per pixel, or their mean."""

    def __init__(self, outputs: int, *, dense: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout2d(0.1)
        )
        self.head = nn.Conv2d(8, outputs, 1)
        self.dense = dense

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(image))
        return logits if self.dense else logits.mean((2, 3))


def draw_dataset(
    root: Path,
    task: Task,
    *,
    parts: Sequence[str] = ("train",) * 12 + ("val",) * 6 + ("test",) * 6,
    side: int = 24,
) -> Dataset:
    """Grey noise with a bright square ("spot") or a bright column ("line"), alternating."""
    rng = np.random.default_rng(7)
    labels = ("spot", "line")
    samples = []
    for index, part in enumerate(parts):
        pixels = rng.integers(20, 60, (side, side), dtype=np.uint8)
        mask = np.zeros((side, side), dtype=np.uint8)
        kind = index % 2
        x, y = (int(v) for v in rng.integers(2, side - 10, 2))
        where = np.s_[y : y + 8, x : x + 8] if kind == 0 else np.s_[:, x : x + 2]
        pixels[where] = 250 if kind == 0 else 140
        mask[where] = kind + 1
        samples.append(_write(root, f"{index:02}.png", pixels, mask, labels[kind], part, task))
    return Dataset("drawn", task, labels, root, tuple(samples))


def _write(
    root: Path,
    file: str,
    pixels: np.ndarray,
    mask: np.ndarray,
    label: str,
    part: str,
    task: Task,
) -> Sample:
    path, mask_path = root / "images" / file, root / "masks" / file
    for target, array in ((path, pixels), (mask_path, mask)):
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(target)
    rows, columns = np.nonzero(mask)
    box = (float(columns.min()), float(rows.min()), columns.max() + 1.0, rows.max() + 1.0)
    return Sample(
        file=file,
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        width=pixels.shape[1],
        height=pixels.shape[0],
        group=file,
        boxes=((label, box),) if task == "detect" else (),
        label=label if task == "classify" else None,
        mask=mask_path if task == "segment" else None,
        splits={"paper": part, "leak-free": part},
    )
