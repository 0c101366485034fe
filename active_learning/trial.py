"""Measuring a candidate beside the incumbent, for the gate: one look at the test split each.

Both look at the same frozen images; calibration error, golden findings and metrics come from the
same predictions. Latency is taken in turns, so that what else the machine does is shared.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from active_learning.calibrate import box_pairs, class_answers, pixel_pairs
from active_learning.calibration import apply, apply_temperature, d_ece, ece
from active_learning.uncertainty import ACQUISITION_THRESHOLD
from core.errors import ConfigError, DatasetError
from core.geometry import box_iou
from core.types import Classification, DecodedImage, Detections, Prediction, Segmentation
from core.verdicts import PRIMARY, Trial

if TYPE_CHECKING:
    from core.records import ReleaseConfig
    from core.types import Predictor
    from training.datasets import Dataset, Sample

PROTOCOL: Final = "leak-free"  # whose test split decides
TIMED_IMAGES: Final = 12
ROOM: Final = 500_000_000  # bytes: 2,500 pictures of 200 × 200 px, 25 of 4 megapixels
_GOLDEN_IOU: Final = 0.5
_GOLDEN_SHARE: Final = 0.5  # of a class's pixels that must be found


class Remembering:
    """A predictor that looks at each image once and repeats itself when asked again.

    Of class maps, which take five bytes a pixel, it remembers as many as `ROOM` holds; at the
    other images it looks again.

    Args:
        predictor: who looks; always asked for everything it sees.
    """

    def __init__(self, predictor: Predictor) -> None:
        self.spec = predictor.spec
        self.revision = predictor.revision
        self.labels = predictor.labels
        self._predictor = predictor
        self._said: dict[str, Prediction] = {}
        self._threshold: float | None = None
        self._room = ROOM

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """As the predictor; every call must ask for the same threshold."""
        if self._threshold not in (None, score_threshold):
            raise ValueError(f"Asked for scores from {self._threshold}, now {score_threshold}.")
        self._threshold = score_threshold
        known = {i.sha256: self._said[i.sha256] for i in images if i.sha256 in self._said}
        new = [image for image in images if image.sha256 not in known]
        if new:
            found = self._predictor(new, score_threshold=score_threshold)
            for image, prediction in zip(new, found, strict=True):
                known[image.sha256] = prediction
                self._remember(image.sha256, prediction)
        return [known[image.sha256] for image in images]

    def _remember(self, sha256: str, prediction: Prediction) -> None:
        size = 0
        if isinstance(prediction, Segmentation):
            size = prediction.class_map.nbytes + prediction.scores.nbytes
        if size <= self._room:
            self._room -= size
            self._said[sha256] = prediction


def compare_trials(
    candidate: Path,
    incumbent: Path,
    dataset: Dataset,
    *,
    golden: Sequence[str] = (),
    device: str,
    resamples: int = 1000,
) -> tuple[Trial, Trial]:
    """Measure two releases on the frozen leak-free test split.

    Args:
        candidate: release folder, calibrated.
        incumbent: release folder of the same model.
        dataset: whose test split it is.
        golden: names of images of the data set, of any split.
        device: where both run.
        resamples: of the bootstrap, the same for both.

    Raises:
        DatasetError: if a golden image is not in the data set, labels differ, or there is no test
            image.
        WeightsError: if a release is damaged.
    """
    from models import load
    from models._release import read_release

    test = dataset.split(PROTOCOL, "test")
    if not test:
        raise DatasetError(
            f"{dataset.name} has no test images under protocol {PROTOCOL}: nothing can be proven "
            "better on it; prepare it from more images."
        )
    predictors = [load(folder, device=device) for folder in (candidate, incumbent)]
    times = _latencies(predictors, test[:TIMED_IMAGES])
    first, second = (
        _trial(
            Remembering(predictor),
            read_release(folder),
            dataset,
            golden=golden,
            latency_ms=latency_ms,
            resamples=resamples,
        )
        for predictor, folder, latency_ms in zip(
            predictors, (candidate, incumbent), times, strict=True
        )
    )
    return first, second


def read_golden(file: Path | None) -> tuple[str, ...]:
    """Names of the golden images: one a line, `#` begins a comment.

    Raises:
        ConfigError: if the file is named and cannot be read.
    """
    if file is None:
        return ()
    try:
        lines = file.read_text("utf-8-sig").splitlines()  # some editors begin with a mark
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(
            f"The golden images are named in {file}, which cannot be read: give a text file of "
            "image names in ROLLMARK_RETRAINING__GOLDEN."
        ) from exc
    names = (line.partition("#")[0].strip() for line in lines)
    return tuple(dict.fromkeys(name for name in names if name))


def refuse_strangers(golden: Sequence[str], dataset: Dataset) -> None:
    """Refuse names of golden images that no image of the data set has.

    Raises:
        DatasetError: if there is one.
    """
    files = {sample.file for sample in dataset.samples}
    strangers = [name for name in golden if name not in files]
    if strangers:
        raise DatasetError(
            f"The golden image {strangers[0]!r} is not in {dataset.name}: give names of its files."
        )


def _trial(
    predictor: Remembering,
    config: ReleaseConfig,
    dataset: Dataset,
    *,
    golden: Sequence[str],
    latency_ms: float,
    resamples: int,
) -> Trial:
    from training.evaluate import measure

    measured = measure(predictor, dataset, protocol=PROTOCOL, split="test", resamples=resamples)
    metric = PRIMARY[config.task]
    test = dataset.split(PROTOCOL, "test")
    wanted, found = golden_findings(predictor, config, dataset, golden)
    return Trial(
        evaluation=measured.evaluation,
        metric=metric,
        resamples=tuple(measured.resamples[metric].tolist()),
        class_resamples={
            label: tuple(drawn.tolist())
            for label, drawn in measured.class_resamples[metric].items()
        },
        support=measured.support,
        calibration_error=calibration_error(predictor, config, test),
        latency_ms=latency_ms,
        groups=len({sample.group for sample in test}),
        golden=wanted,
        golden_found=found,
    )


def calibration_error(
    predictor: Predictor, config: ReleaseConfig, samples: Sequence[Sample]
) -> float:
    """D-ECE of boxes or pixels, or ECE of classes, of the probabilities that people are shown."""
    labels, calibration = config.labels, config.calibration
    if config.task == "classify":
        probabilities, truth = class_answers(predictor, samples, labels)
        return ece(apply_temperature(calibration, probabilities), truth)
    pairs = (box_pairs if config.task == "detect" else pixel_pairs)(predictor, samples, labels)
    p = apply(calibration, pairs.scores, [labels[k] for k in pairs.class_ids])
    # Below it thousands of boxes, all wrong and all scored near 0, would hide every error.
    counted = pairs.scores >= (ACQUISITION_THRESHOLD if config.task == "detect" else 0.0)
    return d_ece(p[counted], pairs.correct[counted])


def golden_findings(
    predictor: Predictor, config: ReleaseConfig, dataset: Dataset, golden: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What there is to find on the golden images, and what of it was found, as `file: class`.

    A class of boxes is found by one box of it at the release's own score threshold with IoU of at
    least 0.5, a class of pixels by half of them, the class of an image by being named first.

    Raises:
        DatasetError: if a name is not one of the data set's.
    """
    from training.evaluate import predictions

    refuse_strangers(golden, dataset)
    by_file = {sample.file: sample for sample in dataset.samples}
    wanted, found = [], []
    for sample, said in predictions(predictor, [by_file[name] for name in golden]):
        for label, is_found in _looked_for(sample, said, config).items():
            wanted.append(f"{sample.file}: {label}")
            if is_found:
                found.append(wanted[-1])
    return tuple(wanted), tuple(found)


def _looked_for(sample: Sample, said: Prediction, config: ReleaseConfig) -> Mapping[str, bool]:
    match said:
        case Detections():
            return _boxes_found(sample, said, config)
        case Segmentation():
            return _pixels_found(sample, said, config.labels)
        case Classification():
            return {str(sample.label): said.labels[said.best] == sample.label}


def _boxes_found(sample: Sample, said: Detections, config: ReleaseConfig) -> dict[str, bool]:
    shown = said.scores >= np.float32(config.score_threshold)
    found = {}
    for label in dict.fromkeys(label for label, _ in sample.boxes):
        truth = np.array([box for name, box in sample.boxes if name == label], np.float64)
        claimed = said.xyxy[shown & (said.class_ids == config.labels.index(label))]
        overlaps = box_iou(claimed, truth)
        found[label] = bool(overlaps.max(initial=0.0) >= _GOLDEN_IOU)
    return found


def _pixels_found(sample: Sample, said: Segmentation, labels: Sequence[str]) -> dict[str, bool]:
    from training.truth import read_mask

    truth: Any = read_mask(sample, labels)
    found = {}
    for number in np.unique(truth[truth > 0]):
        there = truth == number
        share = float((said.class_map[there] == number).mean())
        found[labels[int(number) - 1]] = share >= _GOLDEN_SHARE
    return found


def _latencies(predictors: Sequence[Predictor], samples: Sequence[Sample]) -> list[float]:
    """Median milliseconds of one image by each predictor, timed in turns after a warm-up."""
    from core.images import KEPT, decode

    images = [decode(sample.path, limits=KEPT) for sample in samples]
    times: list[list[float]] = [[] for _ in predictors]
    for turn, image in enumerate([images[0], *images]):
        for predictor, own in zip(predictors, times, strict=True):
            started = time.perf_counter()
            predictor([image], score_threshold=ACQUISITION_THRESHOLD)
            if turn:
                own.append(1000 * (time.perf_counter() - started))
    return [statistics.median(own) for own in times]
