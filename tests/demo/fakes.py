"""A predictor that says what a test wants it to say."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from core.records import ReleaseConfig
from core.types import Classification, DecodedImage, Detections, Prediction, Provenance
from models._release import read_release
from models._spec import ModelSpec, Recipe

# label id, score, box in px: one sure scratch, one doubtful inclusion
FOUND = ((5, 0.93, (10.0, 20.0, 40.0, 190.0)), (1, 0.30, (100.0, 100.0, 150.0, 140.0)))


def _refuse(n_classes: int, scale: str) -> Any:
    raise NotImplementedError("A fake has no network.")


class FakePredictor:
    """Finds FOUND on every picture, or calls every picture crazing."""

    def __init__(self, config: ReleaseConfig) -> None:
        self.config = config
        self.revision = config.revision
        self.labels = config.labels
        self.spec = ModelSpec(
            name=config.name,
            title=config.title,
            task=config.task,
            image_size=config.image_size,
            build=_refuse,
            scales=("n",),
            default_scale="n",
            recipe=Recipe(epochs=1, batch=1, optimizer="SGD", lr0=0.01),
        )

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        return [self._one(image, score_threshold) for image in images]

    def _one(self, image: DecodedImage, threshold: float) -> Prediction:
        source = Provenance(
            self.config.name, self.revision, image.sha256, image.width, image.height, 12.0
        )
        if self.config.task == "classify":
            probabilities = np.array([0.95, *[0.01] * (len(self.labels) - 1)], dtype=np.float32)
            return Classification(probabilities, self.labels, source)
        kept = [found for found in FOUND if found[1] >= threshold]
        return Detections(
            xyxy=np.array([box for _, _, box in kept], dtype=np.float32).reshape(-1, 4),
            scores=np.array([score for _, score, _ in kept], dtype=np.float32),
            class_ids=np.array([k for k, _, _ in kept], dtype=np.int64),
            labels=self.labels,
            source=source,
        )


class Loader:
    """Stands in for `models.load`; counts what was loaded and refuses what it is told to."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.tried: list[str] = []
        self.accelerated: list[str] = []
        self.refused: dict[str, Exception] = {}  # by revision

    def __call__(self, folder: Path, *, device: str, runtime: str, cache: Path) -> FakePredictor:
        config = read_release(folder)
        self.tried.append(config.revision)
        if config.revision in self.refused:
            raise self.refused[config.revision]
        self.loaded.append(config.revision)
        return FakePredictor(config)

    def accelerate(self, predictor: Any, folder: Path, **options: Any) -> bool:
        """Stands in for `models.accelerate`."""
        self.accelerated.append(predictor.revision)
        return True
