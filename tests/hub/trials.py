"""Trials made by hand, and trials drawn by chance from models whose true quality is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.records import Evaluation, Metric
from core.verdicts import Trial
from training.metrics import resample_weights

LABELS = ("crazing", "inclusion", "patches", "pitted", "rolled", "scratches")
GROUPS, PER_GROUP = 60, 5  # of the simulated test split: 300 images
RESAMPLES = 200
SETTINGS = {"seed": 0, "resamples": 4, "resampled": "groups"}


def trial(
    *,
    value: float = 0.70,
    resamples: Sequence[float] = (0.69, 0.70, 0.70, 0.71),
    classes: Mapping[str, tuple[float, Sequence[float]]] | None = None,
    **changes: Any,
) -> Trial:
    """A trial of four resamples; `classes` gives value and resamples of each class."""
    given = classes or {"crazing": (0.40, (0.39, 0.40, 0.40, 0.41))}
    evaluation = {
        "model": "grace",
        "revision": "a" * 12,
        "dataset": "neu-det",
        "protocol": "leak-free",
        "split": "test",
        "test_id": "e" * 64,
        "settings": SETTINGS,
        **changes.pop("evaluation", {}),
    }
    metric = Metric(
        name="mAP50_95", value=value, per_class={k: v for k, (v, _) in given.items()}, n=324
    )
    fields: dict[str, Any] = {
        "evaluation": Evaluation(**{"metrics": (metric,), **evaluation}),
        "metric": "mAP50_95",
        "resamples": tuple(resamples),
        "class_resamples": {k: tuple(r) for k, (_, r) in given.items()},
        "support": dict.fromkeys(given, 50),
        "calibration_error": 0.05,
        "latency_ms": 20.0,
        "groups": 60,
    }
    return Trial(**{**fields, **changes})


@cache
def _weights(groups: int) -> NDArray[np.float32]:
    """(resamples, images), as the evaluation draws them."""
    names = [str(i // PER_GROUP) for i in range(groups * PER_GROUP)]
    return resample_weights(names, resamples=RESAMPLES, seed=0).astype(np.float32)


class World:
    """A test split of groups of five images, and models that are right on each by chance.

    How hard an image is, is shared by all models and alike within a group: that is what pairing and
    resampling by groups are for. A model's metric is the mean over six classes of its hit rate.
    """

    def __init__(self, *, seed: int, groups: int = GROUPS) -> None:
        self.rng = np.random.default_rng(seed)
        n = groups * PER_GROUP
        self.groups = groups
        self.weights = _weights(groups)
        self.labels = np.array([(i // PER_GROUP) % len(LABELS) for i in range(n)])
        hardness = np.repeat(self.rng.normal(0, 1, groups), PER_GROUP) + self.rng.normal(0, 1, n)
        self.p = 0.7 + 0.12 * np.clip(hardness, -2, 2)  # in [0.46, 0.94]
        self.p -= self.p.mean() - 0.7

    def model(self, *, gain: float = 0.0, broken: str | None = None, revision: str) -> Trial:
        """A model whose true rate is the world's plus `gain`; 0 on a broken class."""
        right = self.rng.random(len(self.p)) < self.p + gain
        if broken is not None:
            right[self.labels == LABELS.index(broken)] = False
        values, drawn = self._rates(right)
        metric = Metric(
            name="mAP50_95",
            value=float(np.mean(values)),
            per_class=dict(zip(LABELS, values, strict=True)),
            n=len(self.p),
        )
        evaluation = {"revision": revision, "metrics": (metric,)}
        return trial(
            evaluation=evaluation,
            groups=self.groups,
            resamples=drawn.mean(1).tolist(),
            classes={k: (v, r.tolist()) for k, v, r in zip(LABELS, values, drawn.T, strict=True)},
        )

    def _rates(self, right: NDArray[np.bool_]) -> tuple[list[float], NDArray[np.float64]]:
        """Hit rate of each class, and of each class in each resample."""
        member = self.labels[:, None] == np.arange(len(LABELS))
        hits = self.weights @ (member & right[:, None]).astype(np.float32)
        there = np.maximum(self.weights @ member.astype(np.float32), 1)
        values = (member & right[:, None]).sum(0) / np.maximum(member.sum(0), 1)
        return [float(v) for v in values], hits / there
