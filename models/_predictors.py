"""From images to `core.types` results: one adapter per task around a network and its labels.

A picture much larger than those that a network has learned from is looked at in overlapping tiles;
`models._tiling` says where they lie and makes one answer of them.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor, nn

from core.geometry import clip_boxes, letterbox
from core.types import (
    Classification,
    DecodedImage,
    Detections,
    Prediction,
    Provenance,
    Segmentation,
)
from models._boxes import MAX_CANDIDATES, Boxes, decode_boxes, suppress
from models._class_maps import class_map
from models._pictures import fitted, normalise, resize, to_tensor
from models._runtime import Runtime, TorchRuntime
from models._spec import ModelSpec
from models._steps import tell
from models._tiling import Blend, Pieces, Tiling, join, tile

BATCH = 16


class _Base:
    """What the three adapters share: identity, batching, timing.

    Args:
        spec: of the network.
        network: trained, and owned by the predictor from here on; or where one runs already.
        labels: its classes, background left out.
        image_size: px it is shown.
        revision: of its weights.
        device: "cpu" or "cuda:N", for a network.
        native_px: long side of the pictures it has learned from; None: never cut a picture.
        class_thresholds: of a segmenter, by label; empty: the most probable class.
    """

    resampling = PILImage.Resampling.BILINEAR  # of a picture, to the network's scale

    def __init__(
        self,
        spec: ModelSpec,
        network: nn.Module | Runtime,
        *,
        labels: Sequence[str],
        image_size: int,
        revision: str,
        device: str = "cpu",
        native_px: int | None = None,
        class_thresholds: Mapping[str, float] | None = None,
    ) -> None:
        self.spec = spec
        self.labels = tuple(labels)
        self.image_size = image_size
        self.revision = revision
        self.native_px = native_px
        self.class_thresholds = dict(class_thresholds or {})
        self.runtime: Runtime = (
            TorchRuntime(network, device=device, feature_layer=spec.feature_layer, fold=spec.fold)
            if isinstance(network, nn.Module)
            else network
        )

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """Look at each image; detections with a score below the threshold are left out."""
        tilings = [self.tiling(image) for image in images]
        answers: dict[int, Prediction] = {}
        whole = [i for i, tiling in enumerate(tilings) if tiling is None]
        for start in range(0, len(whole), BATCH):
            part = whole[start : start + BATCH]
            found = self._predict([images[i] for i in part], score_threshold)
            answers.update(zip(part, found, strict=True))
        for i, tiling in enumerate(tilings):
            if tiling is not None:
                answers[i] = self._predict_large(images[i], tiling, score_threshold)
        return [answers[i] for i in range(len(images))]

    def tiling(self, image: DecodedImage) -> Tiling | None:
        """How a large picture is cut, None where it is looked at as a whole."""
        if self.native_px is None:
            return None
        return tile(image.width, image.height, native_px=self.native_px, image_size=self.image_size)

    def _predict(self, images: Sequence[DecodedImage], threshold: float) -> list[Prediction]:
        raise TypeError(f"{type(self).__name__} does not say how it predicts.")

    def _predict_large(self, image: DecodedImage, tiling: Tiling, threshold: float) -> Prediction:
        raise TypeError(f"{type(self).__name__} does not say how it predicts.")

    def _tiles(
        self, image: DecodedImage, tiling: Tiling
    ) -> Iterator[tuple[range, list[NDArray[np.uint8]]]]:
        """The tiles of a picture at the network's scale, a batch at a time, with their numbers.

        Who asks for the next batch has looked at the one before: a listener is told so.
        """
        picture = resize(image.pixels, tiling.width, tiling.height, self.resampling)
        corners = tiling.corners
        for start in range(0, len(corners), BATCH):
            numbers = range(start, min(start + BATCH, len(corners)))
            yield (
                numbers,
                [
                    picture[y : y + tiling.tile_height, x : x + tiling.tile_width]
                    for x, y in corners[start : start + BATCH]
                ],
            )
            tell(len(numbers))

    def _source(self, image: DecodedImage, latency_ms: float, features: Tensor) -> Provenance:
        """Where an answer comes from; features (D,) of the image, none where D is 0."""
        return Provenance(
            model=self.spec.name,
            revision=self.revision,
            image_sha256=image.sha256,
            width=image.width,
            height=image.height,
            latency_ms=latency_ms,
            features=features.numpy() if len(features) else None,
        )


class Detector(_Base):
    """Letterboxed RGB in [0, 1] → decoded boxes → class-wise non-maximum suppression."""

    def _predict(self, images: Sequence[DecodedImage], threshold: float) -> list[Prediction]:
        started = time.perf_counter()
        boxed = [letterbox(i.pixels, self.image_size, is_grey=i.is_grey) for i in images]
        # (N, 4 + C, A), (N, D)
        output, features = self.runtime(to_tensor([pixels for pixels, _ in boxed]))
        found = [
            decode_boxes(rows, frame, image.width, image.height, threshold)
            for rows, image, (_, frame) in zip(output, images, boxed, strict=True)
        ]
        each_ms = (time.perf_counter() - started) * 1e3 / len(images)
        return [
            Detections(*boxes, self.labels, self._source(image, each_ms, vector))
            for image, boxes, vector in zip(images, found, features, strict=True)
        ]

    def _predict_large(self, image: DecodedImage, tiling: Tiling, threshold: float) -> Prediction:
        """Tile by tile; boxes are joined across seams and suppressed as one picture's."""
        started = time.perf_counter()
        found, vectors = [], []
        for numbers, tiles in self._tiles(image, tiling):
            boxed = [letterbox(pixels, self.image_size) for pixels in tiles]
            output, features = self.runtime(to_tensor([pixels for pixels, _ in boxed]))
            vectors.append(features)
            for number, rows, (_, frame) in zip(numbers, output, boxed, strict=True):
                xyxy, scores, class_ids = decode_boxes(
                    rows, frame, tiling.tile_width, tiling.tile_height, threshold
                )
                xyxy += np.array(tiling.corners[number] * 2, np.float32)
                found.append((xyxy, scores, class_ids, np.full(len(scores), number)))
        boxes = self._join(found, tiling, image)
        vector = torch.cat(vectors).mean(0)
        each_ms = (time.perf_counter() - started) * 1e3
        return Detections(*boxes, self.labels, self._source(image, each_ms, vector))

    def _join(
        self, found: Sequence[tuple[NDArray[Any], ...]], tiling: Tiling, image: DecodedImage
    ) -> Boxes:
        """What the tiles found, as boxes in source pixels."""
        xyxy, scores, class_ids, tiles = (
            np.concatenate(column) for column in zip(*found, strict=True)
        )
        best = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
        pieces = Pieces(xyxy[best], scores[best], class_ids[best], tiles[best])
        boxes, scores, class_ids = join(pieces, tiling)
        kept = suppress(
            *(torch.from_numpy(column) for column in (boxes, scores, class_ids))
        ).numpy()
        to_source = (image.width / tiling.width, image.height / tiling.height) * 2
        boxes = clip_boxes(boxes[kept] * np.array(to_source), image.width, image.height)
        return boxes, scores[kept], class_ids[kept]


class Segmenter(_Base):
    """Bicubic resize, aspect kept → logits → class probabilities at the source's own resolution."""

    resampling = PILImage.Resampling.BICUBIC

    def _predict(self, images: Sequence[DecodedImage], threshold: float) -> list[Prediction]:
        """Those that have one size at the network's scale go through it together."""
        answers: dict[int, Prediction] = {}
        sizes = [self._fitted(image) for image in images]
        for width, height in dict.fromkeys(sizes):
            started = time.perf_counter()
            alike = [i for i, size in enumerate(sizes) if size == (width, height)]
            pixels = [resize(images[i].pixels, width, height, self.resampling) for i in alike]
            logits, features = self.runtime(to_tensor(pixels))
            each_s = (time.perf_counter() - started) / len(alike)
            for i, maps, vector in zip(alike, logits.softmax(1), features, strict=True):
                began = time.perf_counter() - each_s
                answers[i] = self.decide(images[i], maps, vector, began)
        return [answers[i] for i in range(len(images))]

    def _predict_large(self, image: DecodedImage, tiling: Tiling, threshold: float) -> Prediction:
        started = time.perf_counter()
        maps, features = self._blended(image, tiling)
        return self.decide(image, maps, features, started)

    def maps(self, image: DecodedImage) -> tuple[Tensor, Tensor]:
        """Class probabilities (1 + n, h, w) at the network's scale, and the image's vector (D,)."""
        tiling = self.tiling(image)
        if tiling is not None:
            return self._blended(image, tiling)
        pixels = resize(image.pixels, *self._fitted(image), self.resampling)
        logits, features = self.runtime(to_tensor([pixels]))
        return logits.softmax(1)[0], features[0]

    def _fitted(self, image: DecodedImage) -> tuple[int, int]:
        """Width and height of a picture at the network's scale, px."""
        return fitted(image.width, image.height, self.image_size)

    def _blended(self, image: DecodedImage, tiling: Tiling) -> tuple[Tensor, Tensor]:
        blend, vectors = Blend(tiling, 1 + len(self.labels)), []
        for numbers, tiles in self._tiles(image, tiling):
            logits, features = self.runtime(to_tensor(tiles))
            vectors.append(features)
            for number, probabilities in zip(numbers, logits.softmax(1), strict=True):
                blend.add(number, probabilities)
        return blend.result(), torch.cat(vectors).mean(0)

    def without_thresholds(self) -> Segmenter:
        """The same network, every pixel of its most probable class."""
        plain = copy.copy(self)
        plain.class_thresholds = {}
        return plain

    def decide(
        self, image: DecodedImage, maps: Tensor, features: Tensor, started: float
    ) -> Segmentation:
        """A class for every pixel, from what `maps` returned; `started` by `perf_counter`."""
        thresholds = None
        if self.class_thresholds:
            thresholds = torch.tensor([self.class_thresholds[label] for label in self.labels])
        classes, scores = class_map(maps, image.height, image.width, thresholds)
        latency_ms = (time.perf_counter() - started) * 1e3
        return Segmentation(classes, scores, self.labels, self._source(image, latency_ms, features))


class Classifier(_Base):
    """Square bilinear resize, ImageNet normalisation → softmax; a large picture: tiles' mean."""

    def _predict(self, images: Sequence[DecodedImage], threshold: float) -> list[Prediction]:
        started = time.perf_counter()
        probabilities, features = self._classify([image.pixels for image in images])
        each_ms = (time.perf_counter() - started) * 1e3 / len(images)
        return [
            Classification(
                probabilities=row, labels=self.labels, source=self._source(image, each_ms, vector)
            )
            for image, row, vector in zip(images, probabilities, features, strict=True)
        ]

    def _predict_large(self, image: DecodedImage, tiling: Tiling, threshold: float) -> Prediction:
        """The mean over the tiles: the class that most of the surface shows."""
        started = time.perf_counter()
        parts = [self._classify(tiles) for _, tiles in self._tiles(image, tiling)]
        mean = np.concatenate([rows for rows, _ in parts]).mean(0)
        vector = torch.cat([features for _, features in parts]).mean(0)
        each_ms = (time.perf_counter() - started) * 1e3
        return Classification(mean, self.labels, self._source(image, each_ms, vector))

    def _classify(
        self, pictures: Sequence[NDArray[np.uint8]]
    ) -> tuple[NDArray[np.float32], Tensor]:
        side = self.image_size
        resized = [resize(pixels, side, side, self.resampling) for pixels in pictures]
        logits, features = self.runtime(normalise(to_tensor(resized)))
        return logits.softmax(1).numpy(), features


AnyPredictor: TypeAlias = Detector | Segmenter | Classifier


def make_predictor(
    spec: ModelSpec,
    network: nn.Module | Runtime,
    *,
    labels: Sequence[str],
    image_size: int,
    revision: str,
    device: str = "cpu",
    native_px: int | None = None,
    class_thresholds: Mapping[str, float] | None = None,
) -> AnyPredictor:
    """Wrap a trained network for its task; the network is owned by the predictor from here on.

    `native_px` and `class_thresholds` are explained by `_Base`.
    """
    adapters: dict[str, type[AnyPredictor]] = {
        "detect": Detector,
        "segment": Segmenter,
        "classify": Classifier,
    }
    return adapters[spec.task](
        spec,
        network,
        labels=labels,
        image_size=image_size,
        revision=revision,
        device=device,
        native_px=native_px,
        class_thresholds=class_thresholds,
    )
