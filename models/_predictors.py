"""From images to `core.types` results: one adapter per task around a network and its labels."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor, nn
from torch.nn import functional as F

from core.geometry import Letterbox, letterbox
from core.types import (
    Classification,
    DecodedImage,
    Detections,
    Prediction,
    Predictor,
    Provenance,
    Segmentation,
)
from models._runtime import TorchRuntime
from models._spec import ModelSpec

NMS_IOU = 0.6  # two boxes of one class overlapping more than this are one finding
MAX_DETECTIONS = 300  # per image
MAX_CANDIDATES = 3000  # per image, before suppression
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
BATCH = 16


class _Base:
    """What the three adapters share: identity, batching, timing."""

    def __init__(
        self,
        spec: ModelSpec,
        network: nn.Module,
        *,
        labels: Sequence[str],
        image_size: int,
        revision: str,
        device: str = "cpu",
    ) -> None:
        self.spec = spec
        self.labels = tuple(labels)
        self.image_size = image_size
        self.revision = revision
        self.runtime = TorchRuntime(network, device=device, feature_layer=spec.feature_layer)

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """Look at each image; detections with a score below the threshold are left out."""
        results: list[Prediction] = []
        for start in range(0, len(images), BATCH):
            results += self._predict(images[start : start + BATCH], score_threshold)
        return results

    def _predict(self, images: Sequence[DecodedImage], threshold: float) -> list[Prediction]:
        raise TypeError(f"{type(self).__name__} does not say how it predicts.")

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
        boxed = [letterbox(image.pixels, self.image_size) for image in images]
        # (N, 4 + C, A), (N, D)
        output, features = self.runtime(_to_tensor([pixels for pixels, _ in boxed]))
        found = [
            self._decode(rows, image, frame, threshold)
            for rows, image, (_, frame) in zip(output, images, boxed, strict=True)
        ]
        each_ms = (time.perf_counter() - started) * 1e3 / len(images)
        return [
            Detections(
                xyxy=xyxy,
                scores=scores,
                class_ids=class_ids,
                labels=self.labels,
                source=self._source(image, each_ms, vector),
            )
            for image, (xyxy, scores, class_ids), vector in zip(
                images, found, features, strict=True
            )
        ]

    def _decode(
        self, rows: Tensor, image: DecodedImage, frame: Letterbox, threshold: float
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
        """One image's (4 + C, A) output to boxes in source pixels; a box may carry two classes."""
        from torchvision.ops import batched_nms

        class_ids, anchors = torch.nonzero(rows[4:] >= threshold, as_tuple=True)
        scores = rows[4:][class_ids, anchors]
        if len(scores) > MAX_CANDIDATES:
            scores, keep = scores.topk(MAX_CANDIDATES)
            class_ids, anchors = class_ids[keep], anchors[keep]
        centre, size = rows[:2, anchors].T, rows[2:4, anchors].T
        xyxy = torch.cat((centre - size / 2, centre + size / 2), dim=1)
        kept = batched_nms(xyxy, scores, class_ids, NMS_IOU)[:MAX_DETECTIONS]
        boxes = frame.to_source(xyxy[kept].numpy(), image.width, image.height)
        return boxes, scores[kept].numpy(), class_ids[kept].numpy()


class Segmenter(_Base):
    """Bicubic resize, aspect kept → logits → class probabilities at the source's own resolution."""

    def _predict(self, images: Sequence[DecodedImage], threshold: float) -> list[Prediction]:
        return [self._one(image) for image in images]

    def _one(self, image: DecodedImage) -> Prediction:
        started = time.perf_counter()
        scale = self.image_size / max(image.width, image.height)
        width = max(32, round(image.width * scale))
        height = max(32, round(image.height * scale))
        pixels = _resize(image.pixels, width, height, PILImage.Resampling.BICUBIC)
        logits, features = self.runtime(_to_tensor([pixels]))
        probabilities = F.interpolate(
            logits.softmax(1), (image.height, image.width), mode="bilinear", align_corners=False
        )
        scores, class_map = probabilities[0].max(0)
        return Segmentation(
            class_map=class_map.to(torch.uint8).numpy(),
            scores=scores.numpy(),
            labels=self.labels,
            source=self._source(image, (time.perf_counter() - started) * 1e3, features[0]),
        )


class Classifier(_Base):
    """Square bilinear resize, ImageNet normalisation → softmax."""

    def _predict(self, images: Sequence[DecodedImage], threshold: float) -> list[Prediction]:
        started = time.perf_counter()
        side = self.image_size
        resized = [_resize(i.pixels, side, side, PILImage.Resampling.BILINEAR) for i in images]
        logits, features = self.runtime(normalise(_to_tensor(resized)))
        probabilities = logits.softmax(1).numpy()
        each_ms = (time.perf_counter() - started) * 1e3 / len(images)
        return [
            Classification(
                probabilities=row, labels=self.labels, source=self._source(image, each_ms, vector)
            )
            for image, row, vector in zip(images, probabilities, features, strict=True)
        ]


def normalise(batch: Tensor) -> Tensor:
    """ImageNet mean and standard deviation; (N, 3, H, W) in [0, 1]."""
    mean = torch.tensor(IMAGENET_MEAN, device=batch.device)
    std = torch.tensor(IMAGENET_STD, device=batch.device)
    return (batch - mean[:, None, None]) / std[:, None, None]


def _resize(
    pixels: NDArray[np.uint8], width: int, height: int, how: PILImage.Resampling
) -> NDArray[np.uint8]:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(PILImage.fromarray(pixels).resize((width, height), how))


def _to_tensor(pixels: Sequence[NDArray[np.uint8]]) -> Tensor:
    """Equal-sized (H, W, 3) uint8 pictures to (N, 3, H, W) float32 in [0, 1], channels last."""
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div_(255)


def make_predictor(
    spec: ModelSpec,
    network: nn.Module,
    *,
    labels: Sequence[str],
    image_size: int,
    revision: str,
    device: str = "cpu",
) -> Predictor:
    """Wrap a trained network for its task; the network is owned by the predictor from here on."""
    adapters: dict[str, type[_Base]] = {
        "detect": Detector,
        "segment": Segmenter,
        "classify": Classifier,
    }
    return adapters[spec.task](
        spec, network, labels=labels, image_size=image_size, revision=revision, device=device
    )


def load_predictor(folder: Path, *, device: str = "cpu") -> Predictor:
    """Rebuild the network of a release folder and fill it with its verified weights.

    Raises:
        WeightsNotFoundError: if the folder holds no release.
        WeightsError: if the weights fail their hash or do not fit.
        UnknownModelError: if the release names a model this code does not have.
    """
    from models import get_spec
    from models._release import load_weights, read_release

    config = read_release(folder)
    spec = get_spec(config.name)
    network = spec.build(len(config.labels), config.scale)
    load_weights(network, folder, config)
    return make_predictor(
        spec,
        network,
        labels=config.labels,
        image_size=config.image_size,
        revision=config.revision,
        device=device,
    )
