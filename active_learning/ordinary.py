"""What a release says of ordinary images, those of its own validation split, looked at once.

From it come three things that are kept in its config: from which score on it shows a finding, and
what that costs (`operating`); from which uncertainty on it asks for a person (`asking`); and what
incoming images are compared with (`drift`). The test split is not read.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from active_learning.asking import ask_from
from active_learning.calibrate import check_dataset
from active_learning.drift import describe, light, strongest
from active_learning.inspection import to_inspection
from active_learning.operating import (
    SPARED,
    TOLD,
    Tally,
    add_boxes,
    add_mask,
    best_threshold,
    curve,
)
from core.errors import DatasetError, InputError
from core.images import KEPT, decode
from core.types import Detections, Segmentation
from models import load
from models._release import read_release, write_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.records import Inspection, ReleaseConfig
    from core.types import Prediction
    from training.datasets import Dataset, Sample

logger = logging.getLogger(__name__)


def fit_ordinary(release: Path, dataset: Dataset, *, device: str = "cpu") -> ReleaseConfig:
    """Find what a release shows, when it asks and what drift is measured from; write its config.

    Its calibration and its class thresholds must stand already.

    Args:
        release: its folder.
        dataset: the very data set it was trained on. The network sees the validation images; of
            the training images only the light is measured.
        device: "cpu" or "cuda:N".

    Raises:
        DatasetError: if it is another data set, or an image cannot be read.
        WeightsError: if the release is damaged.
    """
    from training.evaluate import predictions

    config = read_release(release)
    check_dataset(config, dataset)
    pictures = _light_of(dataset.split(config.protocol, "train"))
    validation = dataset.split(config.protocol, "val")
    tallies = {label: Tally() for label in config.labels}
    inspections = []
    for sample, said in predictions(load(release, device=device), validation):
        _count(tallies, sample, said, config)
        inspection = to_inspection(said, release=config, score_threshold=TOLD[0])
        # Masks of many large pictures would fill the memory.
        inspections.append(inspection.model_copy(update={"mask": None}))
    config = _with_threshold(config, tallies, len(validation))
    threshold = ask_from([inspection.uncertainty for inspection in inspections])
    opinions = [strongest(_shown(inspection, config)) for inspection in inspections]
    reference = describe(pictures, opinions)
    config = config.model_copy(
        update={"ask_from": threshold, "drift": reference.model_dump(mode="json")}
    )
    write_config(release, config)
    logger.info(
        "%s %s shows findings from %g on, and asks for a person from uncertainty %g on: %d of %d "
        "validation images",
        *(config.name, config.revision, config.score_threshold, threshold),
        *(sum(i.uncertainty >= threshold for i in inspections), len(inspections)),
    )
    return config


def _count(
    tallies: dict[str, Tally], sample: Sample, said: Prediction, config: ReleaseConfig
) -> None:
    """Count what was found in one image; a classifier finds no places."""
    from training.evaluate import scene_of
    from training.truth import read_mask

    match said:
        case Detections():
            add_boxes(tallies, scene_of(sample, said, config.labels))
        case Segmentation():
            add_mask(tallies, read_mask(sample, config.labels), said, config.calibration)


def _with_threshold(config: ReleaseConfig, tallies: dict[str, Tally], n: int) -> ReleaseConfig:
    """The config with the best threshold and what it costs, if there was anything to find."""
    threshold = best_threshold(tallies, give_up=SPARED if config.task == "detect" else 0.0)
    if threshold is None:
        return config
    told = curve(tallies, n, threshold).model_dump(mode="json")
    return config.model_copy(update={"score_threshold": threshold, "operating": told})


def _shown(inspection: Inspection, config: ReleaseConfig) -> Inspection:
    """What of an inspection is shown at the release's own threshold."""
    least = config.score_threshold
    return inspection.model_copy(
        update={
            "detections": tuple(d for d in inspection.detections if d.score >= least),
            "segments": tuple(s for s in inspection.segments if s.score >= least),
        }
    )


def _light_of(samples: Sequence[Sample]) -> list[tuple[float, float]]:
    """Brightness and contrast of each sample's picture, fractions of full scale."""
    try:
        return [light(decode(sample.path, limits=KEPT).pixels) for sample in samples]
    except InputError as exc:
        raise DatasetError(f"An image of the split cannot be read: {exc}") from exc
