"""Features of many images by one release, computed once and kept for the next run."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from active_learning.uncertainty import Floats
from core.errors import WeightsError
from core.files import write_atomically
from core.images import KEPT, decode
from core.types import DecodedImage
from models import get_spec, load
from models._release import read_release

if TYPE_CHECKING:
    from core.types import Predictor
    from training.datasets import Sample

logger = logging.getLogger(__name__)

PART: Final = 64  # images a file, so that a run that is cut off loses no more than one of them
_BATCH: Final = 16
_THRESHOLD: Final = 0.5  # the findings are thrown away; few of them are fast


class Embedder:
    """The features that one release gives to images, with a cache on disk.

    Args:
        release: folder of the release; its network is built when an image is not in the cache.
        cache: folder of the cache; files are named by revision and by the images they are of.

    Raises:
        WeightsNotFoundError: if there is no release.
    """

    def __init__(self, release: Path, *, cache: Path) -> None:
        self.config = read_release(release)
        self._release, self._cache = release, cache
        self._network: Predictor | None = None

    def samples(self, samples: Sequence[Sample]) -> Floats:
        """Features (n, D) of images of a data set, in their order."""
        return self._features(
            [sample.sha256 for sample in samples],
            lambda part: [decode(sample.path, limits=KEPT) for sample in samples[part]],
        )

    def images(self, images: Sequence[DecodedImage]) -> Floats:
        """Features (n, D) of decoded images, in their order."""
        return self._features([image.sha256 for image in images], lambda part: images[part])

    def _features(
        self, hashes: Sequence[str], decoded: Callable[[slice], Sequence[DecodedImage]]
    ) -> Floats:
        """Features of the images with these hashes; only parts that are not kept are decoded."""
        rows = []
        for start in range(0, len(hashes), PART):
            part = slice(start, start + PART)
            kept = self._kept(hashes[part])
            if not kept.is_file():
                fresh = np.stack(self._look(decoded(part)))
                write_atomically(kept, fresh.astype("<f4").tobytes())
            rows.append(_read(kept))
        return np.concatenate(rows).astype(np.float64)

    def _look(self, images: Sequence[DecodedImage]) -> list[NDArray[np.float32]]:
        if self._network is None:
            self._network = load(self._release)
        rows: list[NDArray[np.float32]] = []
        for start in range(0, len(images), _BATCH):
            for found in self._network(images[start : start + _BATCH], score_threshold=_THRESHOLD):
                if found.source.features is None:
                    raise WeightsError(
                        f"{self.config.name} {self.config.revision} gives no features."
                    )
                rows.append(found.source.features)
        logger.info("%s looked at %d images", self.config.name, len(images))
        return rows

    def _kept(self, hashes: Sequence[str]) -> Path:
        # The same weights give other features at another size, or read at another layer.
        config = self.config
        seen = (get_spec(config.name).feature_layer, str(config.image_size), *hashes)
        digest = hashlib.sha256("\n".join(seen).encode()).hexdigest()[:16]
        return self._cache / f"{self.config.revision}-{digest}-{len(hashes)}.f4"


def _read(kept: Path) -> NDArray[np.float32]:
    n = int(kept.stem.rsplit("-", 1)[1])
    return np.frombuffer(kept.read_bytes(), dtype="<f4").reshape(n, -1)
