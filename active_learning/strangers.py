"""Images that are no steel with a defect: what a novelty score has to notice.

Two families, repeatable by seed. Synthetic surfaces are drawn: plain grey, gradients, noise of
several grain sizes, brushed streaks, gratings and chequers; the brushed ones are the nearest to
clean steel that can be had here, and they are no photographs of it. Photographs are crops from the
sample pictures that come with installed libraries, in grey like the pictures of the mills.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import DatasetError
from core.images import decode
from core.types import DecodedImage

SIDE: Final = 200  # px, as the images of NEU
_PHOTOGRAPHS: Final = (  # package, path in it
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("ultralytics", "assets/bus.jpg"),
    ("ultralytics", "assets/zidane.jpg"),
    ("gradio", "media_assets/images/cheetah1.jpg"),
    ("gradio", "media_assets/images/lion.jpg"),
    ("gradio", "media_assets/images/tower.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


@dataclass(frozen=True)
class Stranger:
    """An image, what it is, and the group of related images it belongs to."""

    image: DecodedImage
    family: str  # the kind of surface, or the photograph
    group: str


def synthetic(count: int, *, seed: int) -> list[Stranger]:
    """Drawn surfaces, the kinds in turn."""
    source = np.random.default_rng(seed)
    kinds = list(_KINDS.items())
    surfaces = []
    for number in range(count):
        name, draw = kinds[number % len(kinds)]
        surfaces.append(Stranger(_image(draw(source)), name, f"{name} {number}"))
    return surfaces


def photographs(count: int, *, seed: int) -> list[Stranger]:
    """Square crops of at least SIDE px, shrunk to it, from each picture in turn.

    Raises:
        DatasetError: if none of the libraries that bring pictures is installed.
    """
    from PIL import Image

    source = np.random.default_rng(seed)
    pictures = [(path.stem, decode(path).pixels) for path in _paths()]
    if not pictures:
        raise DatasetError(
            "No sample photographs were found: the libraries of requirements.txt bring them."
        )
    crops = []
    for number in range(count):
        family, pixels = pictures[number % len(pictures)]
        height, width = pixels.shape[:2]
        size = int(source.integers(min(SIDE, height, width), min(height, width) + 1))
        y = int(source.integers(0, height - size + 1))
        x = int(source.integers(0, width - size + 1))
        crop = Image.fromarray(pixels[y : y + size, x : x + size]).convert("L")
        shrunk = crop.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        crops.append(Stranger(_image(np.asarray(shrunk, dtype=np.float64)), family, family))
    return crops


def _paths() -> list[Path]:
    found = []
    for package, place in _PHOTOGRAPHS:
        spec = find_spec(package)  # does not import it
        if spec is not None and spec.origin is not None:
            path = Path(spec.origin).parent / place
            if path.is_file():
                found.append(path)
    return found


def _image(grey: NDArray[np.float64]) -> DecodedImage:
    channel = grey.round().clip(0, 255).astype(np.uint8)
    pixels = np.ascontiguousarray(np.repeat(channel[..., None], 3, axis=2))
    return DecodedImage(pixels, hashlib.sha256(pixels.tobytes()).hexdigest(), is_grey=True)


# --- drawn surfaces: a random source -> (SIDE, SIDE) grey values --------------------------------


def _grid() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    return x, y


def _plain(source: np.random.Generator) -> NDArray[np.float64]:
    grey: NDArray[np.float64] = source.uniform(30, 225) + source.normal(0, 2, (SIDE, SIDE))
    return grey


def _gradient(source: np.random.Generator) -> NDArray[np.float64]:
    x, y = _grid()
    angle = source.uniform(0, 2 * np.pi)
    along = np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5)
    grey: NDArray[np.float64] = 128 + source.uniform(80, 240) * along
    return grey + source.normal(0, 2, (SIDE, SIDE))


def _grain(source: np.random.Generator) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    sigma = source.uniform(0.3, 8)
    return _stretched(gaussian_filter(source.normal(size=(SIDE, SIDE)), sigma), source)


def _brushed(source: np.random.Generator) -> NDArray[np.float64]:
    from scipy.ndimage import gaussian_filter

    sigma = (source.uniform(0, 0.8), source.uniform(10, 60))
    streaks = gaussian_filter(source.normal(size=(SIDE, SIDE)), sigma, mode="wrap")
    return _stretched(streaks if source.random() < 0.5 else streaks.T, source)


def _grating(source: np.random.Generator) -> NDArray[np.float64]:
    x, y = _grid()
    angle, waves = source.uniform(0, np.pi), source.uniform(2, 25)
    along = np.cos(angle) * x + np.sin(angle) * y
    return _stretched(np.sin(2 * np.pi * waves * along), source)


def _chequers(source: np.random.Generator) -> NDArray[np.float64]:
    x, y = _grid()
    squares = source.integers(2, 16)
    board = (np.floor(x * squares) + np.floor(y * squares)) % 2
    return _stretched(board, source)


def _stretched(values: NDArray[np.float64], source: np.random.Generator) -> NDArray[np.float64]:
    """Zero mean, unit spread, then a random contrast around a random grey; a little noise."""
    centred = (values - values.mean()) / max(float(values.std()), 1e-9)
    grey = source.uniform(80, 180) + source.uniform(8, 40) * centred
    noisy: NDArray[np.float64] = grey + source.normal(0, 2, (SIDE, SIDE))
    return noisy


_KINDS: Final[dict[str, Callable[[np.random.Generator], NDArray[np.float64]]]] = {
    "plain": _plain,
    "gradient": _gradient,
    "grain": _grain,
    "brushed": _brushed,
    "grating": _grating,
    "chequers": _chequers,
}
