"""A predictor that says what a test wrote down for it, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.types import (
    Classification,
    DecodedImage,
    Detections,
    Prediction,
    Provenance,
    Segmentation,
)
from models import get_spec
from models._spec import ModelSpec

_MODELS = {"detect": "grace", "segment": "sme_deeplabv3plus", "classify": "mobilesteelnet"}


@dataclass
class Canned:
    """`answers` are per image in the order of asking, or per SHA-256.

    detect: rows (class id, score, x1, y1, x2, y2); segment: a class map; classify: probabilities.
    """

    task: str
    labels: tuple[str, ...]
    answers: Mapping[str, object] | Sequence[object]
    revision: str = "canned"
    thresholds: list[float] = field(default_factory=list)
    asked: int = 0

    @property
    def spec(self) -> ModelSpec:
        return get_spec(_MODELS[self.task])

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        self.thresholds.append(score_threshold)
        return [self._one(image) for image in images]

    def _one(self, image: DecodedImage) -> Prediction:
        if isinstance(self.answers, Mapping):
            answer = self.answers[image.sha256]
        else:
            answer = self.answers[self.asked]
        self.asked += 1
        source = Provenance(
            self.spec.name, self.revision, image.sha256, image.width, image.height, 0.0
        )
        match self.task:
            case "detect":
                rows = np.asarray(answer, dtype=np.float64).reshape(-1, 6)
                return Detections(
                    xyxy=rows[:, 2:].astype(np.float32),
                    scores=rows[:, 1].astype(np.float32),
                    class_ids=rows[:, 0].astype(np.int64),
                    labels=self.labels,
                    source=source,
                )
            case "segment":
                class_map = np.asarray(answer, dtype=np.uint8)
                scores = np.ones(class_map.shape, np.float32)
                return Segmentation(class_map, scores, self.labels, source)
            case _:
                return Classification(np.asarray(answer, np.float32), self.labels, source)
