"""From which uncertainty on a release asks for a person, fitted on its validation split alone.

One half is where an answer is as open as a tossed coin. A model of soft outlines or of classes that
people disagree about stands above it on most images, and who is asked about most images is asked
about none. So a release whose own validation images would go to a person more often than `MOST`
asks later; one that is surer keeps to one half and is not made to ask.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from active_learning.uncertainty import ASK_FROM
from models._release import read_release, write_config

if TYPE_CHECKING:
    from core.records import ReleaseConfig
    from training.datasets import Dataset

logger = logging.getLogger(__name__)

MOST: Final = 0.25  # of the validation images, asked about
_STEPS: Final = 1000  # a threshold is told to three digits


def fit_asking(release: Path, dataset: Dataset, *, device: str = "cpu") -> ReleaseConfig:
    """Find from which uncertainty on the release asks, and write it into its config.

    Its calibration must stand already: uncertainty is of calibrated probabilities.

    Args:
        release: its folder.
        dataset: the very data set it was trained on; only its validation split is read.
        device: where the network runs.

    Raises:
        DatasetError: if it is another data set, or an image cannot be read.
        WeightsError: if the release is damaged.
    """
    from active_learning.calibrate import check_dataset
    from active_learning.inspection import to_inspection
    from models import load
    from training.evaluate import predictions

    config = read_release(release)
    check_dataset(config, dataset)
    found = predictions(load(release, device=device), dataset.split(config.protocol, "val"))
    uncertainties = [
        to_inspection(said, release=config, score_threshold=None).uncertainty for _, said in found
    ]
    config = config.model_copy(update={"ask_from": ask_from(uncertainties)})
    write_config(release, config)
    logger.info(
        "%s %s asks for a person from uncertainty %g on: %d of %d validation images",
        *(config.name, config.revision, config.ask_from),
        *(sum(u >= (config.ask_from or 0) for u in uncertainties), len(uncertainties)),
    )
    return config


def ask_from(uncertainties: Sequence[float]) -> float:
    """The lowest threshold from one half on that at most a share of `MOST` reaches.

    Args:
        uncertainties: of images as they come, each in [0, 1].

    Returns:
        In [0.5, 1], a multiple of a thousandth; 1 may be reached by more, where more are at 1.
    """
    ordered = sorted(uncertainties, reverse=True)
    spared = ordered[math.floor(MOST * len(ordered)) :]  # these must stay below it
    if not spared:
        return ASK_FROM
    above = (math.floor(spared[0] * _STEPS) + 1) / _STEPS
    return max(ASK_FROM, min(1.0, above))
