"""A classifier without weights that says who looked: for tests of engines, not of models."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from core.types import Classification, DecodedImage, Prediction, Provenance
from models import get_spec
from models._spec import ModelSpec


class SlowEye:
    """Probability of "dark" is 1 - mean grey / 255; each call leaves a line in `diary`."""

    revision = "slow-eye"
    labels = ("dark", "bright")

    def __init__(self, diary: Path, pause_s: float) -> None:
        self._diary, self._pause_s = diary, pause_s

    @property
    def spec(self) -> ModelSpec:
        return get_spec("mobilesteelnet")

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        time.sleep(self._pause_s)
        with self._diary.open("a") as diary:
            diary.write(f"{os.getpid()} {len(images)}\n")
        answers: list[Prediction] = []
        for image in images:
            bright = float(image.pixels.mean()) / 255
            source = Provenance("mobilesteelnet", self.revision, image.sha256, 4, 4, 1.0)
            shares = np.array([1 - bright, bright], np.float32)
            answers.append(Classification(shares, self.labels, source))
        return answers
