"""A little steel that can be learned in seconds: patches, inclusions, scratches, a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from models import get_spec
from models._spec import ModelSpec
from tests.training.synthetic import TinyNetwork
from training.datasets import Dataset, Sample, write_index

LABELS = ("inclusion", "patches", "scratches")
SIDE = 32  # px


def picture(kind: str, seed: int) -> bytes:
    """A grey PNG: dark patches, a speckled inclusion or a bright scratch; a seed is a steel."""
    rng = np.random.default_rng((seed, LABELS.index(kind)))
    pixels = rng.integers(70, 130, (SIDE, SIDE)).astype(np.int64)
    if kind == "scratches":
        x = int(rng.integers(3, SIDE - 6))
        pixels[:, x : x + 3] += 110
    elif kind == "inclusion":
        y = int(rng.integers(1, SIDE - 16))
        pixels[y : y + 15 : 2, ::2] += 90
        pixels[y + 1 : y + 15 : 2, 1::2] -= 60
    else:
        for y, x in rng.integers(2, SIDE - 10, (3, 2)):
            pixels[y : y + 7, x : x + 7] -= 65
    out = BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(out, format="PNG")
    return out.getvalue()


def write_set(root: Path, counts: Mapping[str, Mapping[str, int]]) -> Dataset:
    """A prepared set called neu-cls with so many images of each kind in each split."""
    folder = root / "neu-cls"
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    samples = []
    for split, kinds in counts.items():
        for kind, n in kinds.items():
            for _ in range(n):
                number = len(samples)
                data = picture(kind, number)
                path = folder / "images" / f"{number:03}.png"
                path.write_bytes(data)
                samples.append(
                    Sample(
                        file=path.name,
                        path=path,
                        sha256=hashlib.sha256(data).hexdigest(),
                        width=SIDE,
                        height=SIDE,
                        group=path.name,
                        label=kind,
                        splits={"paper": split, "leak-free": split},
                    )
                )
    dataset = Dataset("neu-cls", "classify", LABELS, folder, tuple(samples))
    write_index(dataset, {})
    return dataset


def quick_spec() -> ModelSpec:
    """MobileSteelNet's place filled by two convolutions; fine-tuned, a tenth of lr0, they learn."""
    spec = get_spec("mobilesteelnet")
    return replace(
        spec,
        build=lambda n, scale: TinyNetwork(n, dense=False),
        feature_layer="features",
        image_size=SIDE,
        recipe=replace(spec.recipe, lr0=1.0, batch=8, patience=None, warmup_epochs=0.0),
    )
