"""At which picture size a release looks best, chosen on its validation split alone.

A network that was trained on random views of pictures sees defects larger in training than later,
when it looks at the whole (Touvron et al., "Fixing the train-test resolution discrepancy", NeurIPS
2019): looking at a larger picture than was trained on may cost nothing but time, and gain much.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import ConfigError
from core.verdicts import HEADLINE
from models._release import read_release, write_config

if TYPE_CHECKING:
    from core.records import ReleaseConfig
    from core.types import Predictor
    from training.datasets import Dataset

logger = logging.getLogger(__name__)

WORTH: Final = 0.005  # of the metric: what a larger picture, which costs more, must gain
STEP_PX: Final = 32  # largest stride of the networks: other sizes are padded up to it


@dataclass(frozen=True, slots=True)
class SizeFit:
    """What was found: the metric at each size that was tried, and the size that is kept."""

    image_size: int  # px
    metric: str
    scores: dict[int, float]  # by size, in [0, 1]
    n: int  # validation images


def fit_size(
    release: Path, dataset: Dataset, sizes: Sequence[int] = (), *, device: str = "cpu"
) -> SizeFit:
    """Measure a release at several sizes, and write the one worth its cost into its config.

    With another size go class thresholds, probabilities, novelty, from when on it asks, drift
    reference and evaluations: they are of other answers. Fit and measure them anew.

    Args:
        release: folder of a release.
        dataset: the very data set it was trained on.
        sizes: px to try, beside the size it has; none: those that `usual_sizes` gives.
        device: "cpu" or "cuda:N".

    Raises:
        ConfigError: if a size is neither that of training nor a positive multiple of STEP_PX.
        DatasetError: if the data set is not the one the release was trained on.
        WeightsError: if the release is damaged.
    """
    from active_learning.calibrate import check_dataset
    from models import load

    config = read_release(release)
    check_dataset(config, dataset)
    asked = set(sizes or usual_sizes(config.run.image_size))
    for size in sorted(asked):
        if size < STEP_PX or (size % STEP_PX and size != config.run.image_size):
            raise ConfigError(f"Size {size} cannot be tried: give a multiple of {STEP_PX} px.")
    predictor = load(release, device=device)
    # Also the size it has: another one has to be worth the change.
    tried = sorted(asked | {config.image_size})
    scores = {size: _score(predictor, dataset, config, size) for size in tried}
    chosen = best_size(scores)
    if chosen != config.image_size:
        config = _resized(config, chosen)
        write_config(release, config)
    logger.info("%s %s looks at %d px", config.name, config.revision, chosen)
    n = len(dataset.split(config.protocol, "val"))
    return SizeFit(chosen, HEADLINE[config.task], scores, n)


def usual_sizes(trained: int) -> tuple[int, ...]:
    """The size of training and larger ones to three quarters more, some quarter of it apart."""
    step = max(STEP_PX, trained // 4 // STEP_PX * STEP_PX)
    start = trained // STEP_PX * STEP_PX + step
    return (trained, *range(start, int(trained * 1.75) + 1, step))


def best_size(scores: Mapping[int, float]) -> int:
    """The smallest size whose score is less than WORTH below the best one."""
    best = max(scores.values())
    return min(size for size, score in scores.items() if score > best - WORTH)


def _score(predictor: Predictor, dataset: Dataset, config: ReleaseConfig, size: int) -> float:
    from models._predictors import Classifier, Detector, Segmenter
    from training.evaluate import evaluate

    if not isinstance(predictor, Detector | Segmenter | Classifier):
        raise TypeError(f"{config.name} was loaded as {type(predictor).__name__}.")
    predictor.image_size = size
    predictor.class_thresholds = {}
    found = evaluate(predictor, dataset, protocol=config.protocol, split="val", resamples=0)
    score = found.metric(HEADLINE[config.task]).value
    logger.info("%s at %d px: %s %.4f", config.name, size, HEADLINE[config.task], score)
    return score


def _resized(config: ReleaseConfig, size: int) -> ReleaseConfig:
    """The config at another size, without what was fitted or measured at the old one."""
    from models import get_spec
    from training.runs import measure_gflops

    network = get_spec(config.name).build(len(config.labels), config.scale)
    return config.model_copy(
        update={
            "image_size": size,
            "gflops": round(measure_gflops(network, size), 4),
            "class_thresholds": {},
            "calibration": {},
            "novelty": None,
            "ask_from": None,
            "drift": {},
            "operating": {},
            "evaluations": (),
        }
    )
