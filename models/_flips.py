"""A predictor that looks at each picture and at its mirror images, and answers once.

Four looks cost four times the time. A detector's boxes are fused (`models._fusion`), a segmenter's
and a classifier's probabilities are averaged before anything is decided.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from core.errors import ConfigError
from core.types import (
    Classification,
    DecodedImage,
    Detections,
    FloatArray,
    Prediction,
    Predictor,
)
from models._committee import ASKED_FROM
from models._fusion import fuse

if TYPE_CHECKING:
    from models._spec import ModelSpec

FLIPS: Final[tuple[tuple[int, ...], ...]] = ((), (1,), (0,), (0, 1))  # axes: 0 down, 1 across
IOU: Final = 0.6  # of boxes that are one finding seen twice: the detectors' own suppression


class Flipped:
    """A predictor with test-time flips.

    Args:
        predictor: of any task.
    """

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor

    @property
    def plain(self) -> Predictor:
        """The predictor itself, which looks once."""
        return self._predictor

    @property
    def spec(self) -> ModelSpec:
        """Of the network."""
        return self._predictor.spec

    @property
    def revision(self) -> str:
        """Of its weights."""
        return self._predictor.revision

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes."""
        return self._predictor.labels

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """Look at each image four times; fused detections below the threshold are left out.

        Each look tells what it finds from ASKED_FROM on, whatever the threshold: a finding that one
        of them scores below it may be above it when all are fused.
        """
        if self.spec.task == "segment":
            return [self._segment(image) for image in images]
        asked = min(score_threshold, ASKED_FROM)
        views = [
            self._predictor([_flip(i, axes) for i in images], score_threshold=asked)
            for axes in FLIPS
        ]
        return [self._one(list(of_one), score_threshold) for of_one in zip(*views, strict=True)]

    def _one(self, views: Sequence[Prediction], threshold: float) -> Prediction:
        source = replace(views[0].source, latency_ms=sum(v.source.latency_ms for v in views))
        boxes = [v for v in views if isinstance(v, Detections)]
        if boxes:
            size = source.width, source.height
            opinions = [
                (_unflip(v.xyxy, axes, *size), v.scores, v.class_ids)
                for v, axes in zip(boxes, FLIPS, strict=True)
            ]
            xyxy, scores, class_ids = fuse(opinions, [1.0] * len(FLIPS), iou_threshold=IOU)
            kept = scores >= threshold
            return Detections(xyxy[kept], scores[kept], class_ids[kept], self.labels, source)
        rows = [v.probabilities for v in views if isinstance(v, Classification)]
        return Classification(np.mean(rows, axis=0), self.labels, source)

    def _segment(self, image: DecodedImage) -> Prediction:
        from models._predictors import Segmenter

        if not isinstance(self._predictor, Segmenter):
            raise ConfigError(f"{self.spec.name} cannot be asked for probabilities to average.")
        started = time.perf_counter()
        maps, vectors = [], []
        for axes in FLIPS:
            flipped, vector = self._predictor.maps(_flip(image, axes))
            maps.append(flipped.flip([axis + 1 for axis in axes]))
            vectors.append(vector)
        return self._predictor.decide(image, torch.stack(maps).mean(0), vectors[0], started)


def _flip(image: DecodedImage, axes: tuple[int, ...]) -> DecodedImage:
    if not axes:
        return image
    return replace(image, pixels=np.ascontiguousarray(np.flip(image.pixels, axes)))


def _unflip(xyxy: FloatArray, axes: tuple[int, ...], width: int, height: int) -> FloatArray:
    """Boxes of a mirrored picture where they lie in the picture itself."""
    boxes = xyxy.copy()
    if 1 in axes:
        boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    if 0 in axes:
        boxes[:, [1, 3]] = height - boxes[:, [3, 1]]
    return boxes
