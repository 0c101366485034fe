"""Looking up instead of looking: the annotation of the training image that is most like a picture.

What this reaches on a test split is what remembering its training images is worth there. Where a
split parts copies of one strip, it is much; a network's figure there says as much about memory as
about sight. Images are compared as grouping does (`_grouping`), in all eight orientations, and the
annotation is turned along.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from core.errors import DatasetError, InputError
from core.images import KEPT, decode
from core.records import Evaluation
from core.types import (
    Classification,
    DecodedImage,
    Detections,
    FloatArray,
    Image,
    Prediction,
    Provenance,
    Segmentation,
)
from models import get_spec
from training._grouping import NEAR, thumbnail_of, views
from training.evaluate import evaluate
from training.truth import class_index, read_mask

if TYPE_CHECKING:
    from models._spec import ModelSpec
    from training.datasets import Dataset, Sample
    from training.splits import Protocol

NAME: Final = "lookup"
_TITLE: Final = "the training image most like it"
_MIRRORED: Final = 4  # place of the first mirrored orientation in `views`
# A network of each task, of whose description everything is left out that is about a network.
_LIKE: Final = {"detect": "yolo11", "segment": "deeplabv3plus", "classify": "mobilenet_v1"}


@dataclass(frozen=True, slots=True)
class Nearest:
    """The training image most like a picture.

    `orientation` is the place in `views` of the picture's view that is like the training image;
    `similarity` in [-1, 1] the correlation of their thumbnails.
    """

    sample: Sample
    orientation: int
    similarity: float

    @property
    def is_copy(self) -> bool:
        """Whether both are taken for one and the same picture when groups are found."""
        return self.similarity >= NEAR


class Lookup:
    """Answers as the most similar of some annotated images is labelled; a `Predictor`."""

    revision = NAME

    def __init__(self, dataset: Dataset, samples: Sequence[Sample]) -> None:
        """Read the images that may be remembered.

        Args:
            dataset: a prepared set.
            samples: its images to answer from, at least one.

        Raises:
            DatasetError: if there is none, or one cannot be read.
        """
        if not samples:
            raise DatasetError(f"{dataset.name} has no training image to look anything up in.")
        self.labels = dataset.labels
        self.spec: ModelSpec = replace(
            get_spec(_LIKE[dataset.task]),
            name=NAME,
            title=_TITLE,
            paper=None,
            reported=(),
            departures=(),
        )
        self._samples = tuple(samples)
        console = Console(stderr=True)
        self._thumbnails: FloatArray = np.stack(
            [
                thumbnail_of(_pixels(sample)).ravel()
                for sample in track(
                    self._samples,
                    f"reading {len(samples)} images of {dataset.name}",
                    console=console,
                    disable=not console.is_terminal,
                    transient=True,
                )
            ]
        )  # (n, 24 * 24)
        self.found: dict[str, Nearest] = {}  # by the SHA-256 of each picture that was answered

    def nearest(self, pixels: Image) -> Nearest:
        """The image most like a picture (H, W, 3); of equal ones the first."""
        turned = np.stack([view.ravel() for view in views(thumbnail_of(pixels))])
        similarities = turned @ self._thumbnails.T  # (8, n)
        orientation, place = divmod(int(similarities.argmax()), len(self._samples))
        similarity = float(similarities[orientation, place])
        return Nearest(self._samples[place], orientation, similarity)

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """Look each image up; the score of all that is said of it is the similarity."""
        return [self._answer(image, score_threshold) for image in images]

    def _answer(self, image: DecodedImage, score_threshold: float) -> Prediction:
        if (nearest := self.found.get(image.sha256)) is None:
            nearest = self.found[image.sha256] = self.nearest(image.pixels)
        score = min(max(nearest.similarity, 0.0), 1.0)
        source = Provenance(NAME, self.revision, image.sha256, image.width, image.height, 0.0)
        match self.spec.task:
            case "detect":
                boxes = nearest.sample.boxes if score >= score_threshold else ()
                return Detections(
                    xyxy=_turned_back(
                        np.array([box for _, box in boxes], np.float32).reshape(-1, 4),
                        nearest,
                        (image.height, image.width),
                    ),
                    scores=np.full(len(boxes), score, np.float32),
                    class_ids=np.array([self.labels.index(name) for name, _ in boxes], np.int64),
                    labels=self.labels,
                    source=source,
                )
            case "segment":
                mask = view_back(read_mask(nearest.sample, self.labels), nearest.orientation)
                class_map = _resized(mask, (image.height, image.width))
                scores = np.full(class_map.shape, score, np.float32)
                return Segmentation(class_map, scores, self.labels, source)
            case "classify":
                probabilities = np.zeros(len(self.labels), np.float32)
                probabilities[class_index(nearest.sample, self.labels)] = 1.0
                return Classification(probabilities, self.labels, source)


def look_up(
    dataset: Dataset,
    *,
    protocol: Protocol,
    resamples: int = 1000,
) -> Evaluation:
    """What looking up among the training images reaches on the test split, measured as a model is.

    Returns:
        An evaluation of the model "lookup". Its settings tell the `copies` among the images, those
        of which a training image is the same picture, turned or not, and, where any of them shows a
        defect, `on_copies`, the first metric on these alone: how far the labels of a picture agree
        with those of its copy, which no network can be expected to exceed by much.

    Raises:
        DatasetError: as `training.evaluate.measure` does, or if there is no training image.
    """
    lookup = Lookup(dataset, dataset.split(protocol, "train"))
    measured = evaluate(lookup, dataset, protocol=protocol, split="test", resamples=resamples)
    copies = tuple(
        sample for sample in dataset.split(protocol, "test") if lookup.found[sample.sha256].is_copy
    )
    settings: dict[str, Any] = {**measured.settings, "copies": len(copies)}
    if copies:
        alone = replace(dataset, samples=copies)
        # All have just been read: what may be refused are copies that all show sound steel.
        with suppress(DatasetError):
            again = evaluate(lookup, alone, protocol=protocol, split="test", resamples=0)
            settings["on_copies"] = again.metrics[0].value
    return measured.model_copy(update={"settings": settings})


def view_back(view: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The array of which `views` shows this one at a place: its inverse."""
    turned = np.fliplr(view) if orientation >= _MIRRORED else view
    return np.rot90(turned, -(orientation % _MIRRORED))


def _turned_back(boxes: FloatArray, nearest: Nearest, size: tuple[int, int]) -> FloatArray:
    """Boxes (n, 4) of the training image as they lie in the picture of this (height, width)."""
    sample, k = nearest.sample, nearest.orientation % _MIRRORED
    shares = boxes / np.array([sample.width, sample.height] * 2, np.float32)  # of width and height
    x1, y1, x2, y2 = shares.T
    if nearest.orientation >= _MIRRORED:
        x1, x2 = 1 - x2, 1 - x1
    for _ in range(k):  # a quarter turn to the right: what was at the bottom is at the left
        x1, y1, x2, y2 = 1 - y2, x1, 1 - y1, x2
    height, width = size
    turned = np.stack([x1, y1, x2, y2], axis=1) * np.array([width, height] * 2)
    return np.asarray(turned, np.float32)


def _resized(mask: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A class map at another (height, width): of each pixel the class at its middle."""
    if mask.shape == size:
        return np.ascontiguousarray(mask)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(np.int64)
        for new, old in zip(size, mask.shape, strict=True)
    )
    return np.asarray(mask[np.ix_(rows, columns)])


def _pixels(sample: Sample) -> Image:
    try:
        return decode(sample.path, limits=KEPT).pixels
    except InputError as exc:
        raise DatasetError(f"An image of the set cannot be read: {exc}") from exc
