"""Where a network looked: a heat map over the picture, by LayerCAM or Eigen-CAM.

LayerCAM (Jiang et al., TIP 2021) asks what raised the score of what was found: at each place, the
sum over a layer's channels of activation times positive gradient. Eigen-CAM (Muhammad & Yeasin,
IJCNN 2020) asks no such question: it shows the strongest pattern in the layer, the first principal
component of its activations, whatever the network made of it. Both come from the grad-cam library.

A network is rebuilt from its release for this, with its gradients: the one that serves may be
fused, half as precise, or not torch's at all, and is not disturbed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PILImage
from torch import Tensor, nn
from torch.nn import functional as F

from core.geometry import letterbox
from core.types import DecodedImage, FloatArray
from models import get_spec
from models._features import FirstOutput
from models._pictures import fitted, normalise, resize, to_tensor
from models._release import load_network, read_release
from models._tiling import Blend, Tiling, tile

if TYPE_CHECKING:
    from core.types import Task
    from models._spec import ModelSpec

Method = Literal["layer", "eigen"]
METHODS: tuple[Method, ...] = ("layer", "eigen")

MAX_TILES = 24  # of a large picture that are explained; beyond it they show it smaller
BATCH = 8

_Target = Callable[[Tensor], Tensor]


def load_explainer(folder: Path) -> Explainer:
    """The explainer of a release.

    Raises:
        WeightsNotFoundError: if the folder holds no release.
        WeightsError: if its weights fail their hash or do not fit the network.
    """
    config = read_release(folder)
    return Explainer(
        get_spec(config.name),
        load_network(folder, config),
        image_size=config.image_size,
        native_px=config.native_px,
        score_threshold=config.score_threshold,
    )


class Explainer:
    """A network kept for explanations; one picture at a time, from any thread.

    Args:
        spec: of the network.
        network: trained, in torch; owned by the explainer from here on.
        image_size: px it is shown.
        native_px: long side of the pictures it has learned from.
        score_threshold: of a detector's boxes worth explaining.
    """

    def __init__(
        self,
        spec: ModelSpec,
        network: nn.Module,
        *,
        image_size: int,
        native_px: int,
        score_threshold: float,
    ) -> None:
        self._spec = spec
        self._image_size = image_size
        self._native_px = native_px
        self._threshold = score_threshold
        self._network = FirstOutput(network.requires_grad_(False)).eval()
        self._layers = explained_layers(spec, network)
        self._lock = threading.Lock()

    def __call__(self, image: DecodedImage, *, method: Method) -> FloatArray:
        """Heat (H, W) in [0, 1] over a picture: 1 where most, all 0 if nothing stands out.

        A picture that is cut into tiles is explained tile by tile, and a tile's heat counts as much
        as the network is sure of what it found there.
        """
        tiling = tile(
            image.width,
            image.height,
            native_px=self._native_px,
            image_size=self._image_size,
            most=MAX_TILES,
        )
        with self._lock:
            heat = (
                self._whole(image, method) if tiling is None else self._tiled(image, tiling, method)
            )
        heat = F.interpolate(heat[None, None], (image.height, image.width), mode="bilinear")[0, 0]
        heat = heat - heat.min()
        scaled: FloatArray = (heat / heat.max().clamp(min=1e-7)).numpy()
        return scaled

    def _whole(self, image: DecodedImage, method: Method) -> Tensor:
        """Heat over the picture at the network's scale, what was padded cut away."""
        batch, (left, top, width, height) = self._input(image.pixels)
        heat, _ = self._explain(batch, method)
        return heat[0, top : top + height, left : left + width]

    def _tiled(self, image: DecodedImage, tiling: Tiling, method: Method) -> Tensor:
        picture = resize(image.pixels, tiling.width, tiling.height, PILImage.Resampling.BILINEAR)
        inputs, frames = [], []
        for x, y in tiling.corners:
            part = picture[y : y + tiling.tile_height, x : x + tiling.tile_width]
            batch, frame = self._input(part)
            inputs.append(batch)
            frames.append(frame)
        heat, sureness = self._explain(torch.cat(inputs), method)
        blend = Blend(tiling, 1)
        for number, (left, top, width, height) in enumerate(frames):
            own = heat[number, top : top + height, left : left + width] * sureness[number]
            size = (tiling.tile_height, tiling.tile_width)
            blend.add(number, F.interpolate(own[None, None], size, mode="bilinear")[0])
        return blend.result()[0]

    def _input(self, pixels: NDArray[np.uint8]) -> tuple[Tensor, tuple[int, int, int, int]]:
        """What the network is shown, and where in it the picture lies: left, top, width, height."""
        side = self._image_size
        height, width = pixels.shape[:2]
        if self._spec.task == "detect":
            boxed, frame = letterbox(pixels, side)
            size = max(round(width * frame.scale), 1), max(round(height * frame.scale), 1)
            return to_tensor([boxed]), (frame.left, frame.top, *size)
        if self._spec.task == "classify":
            square = resize(pixels, side, side, PILImage.Resampling.BILINEAR)
            return normalise(to_tensor([square])), (0, 0, side, side)
        wide, high = fitted(width, height, side)
        shown = resize(pixels, wide, high, PILImage.Resampling.BICUBIC)
        return to_tensor([shown]), (0, 0, wide, high)

    def _explain(self, inputs: Tensor, method: Method) -> tuple[Tensor, Tensor]:
        """Heat (N, H, W) and how sure (N,) the network is of what it found in each."""
        target = self._target(inputs)
        cam = _cam(method, self._network, self._layers)
        heats, sureness = [], []
        try:
            for start in range(0, len(inputs), BATCH):
                # The input asks for gradients in place of the frozen weights.
                batch = inputs[start : start + BATCH].clone().requires_grad_(method == "layer")
                heats.append(torch.from_numpy(cam(batch, [target] * len(batch))))
                sureness.append(_sureness(self._spec.task, cam.outputs.detach(), target))
        finally:
            cam.activations_and_grads.release()
        return torch.cat(heats), torch.cat(sureness)

    def _target(self, inputs: Tensor) -> _Target:
        """What the heat explains, as a number read from the output of one picture or tile."""
        if self._spec.task == "detect":
            return _found_boxes(self._threshold)
        if self._spec.task == "segment":
            return _found_pixels
        with torch.no_grad():
            starts = range(0, len(inputs), BATCH)
            parts = [self._network(inputs[start : start + BATCH]) for start in starts]
        return _class(int(torch.cat(parts).softmax(1).mean(0).argmax()))


def explained_layers(spec: ModelSpec, network: nn.Module) -> list[nn.Module]:
    """The modules whose maps are read: what a detector's head looks at, or what the spec names."""
    if spec.task == "detect" and not spec.explained_layers:
        modules: Any = network.model
        return [modules[index] for index in modules[-1].f]
    named = spec.explained_layers or (spec.feature_layer,)
    return [network.get_submodule(name) for name in named]


# --- what was found ------------------------------------------------------------------------------


def _found_boxes(threshold: float) -> _Target:
    """Sum of the scores of all boxes worth showing; of the best one where there is none."""

    def score(output: Tensor) -> Tensor:
        best = output[4:].amax(0)
        found = best >= threshold
        return best[found].sum() if found.any() else best.max()

    return score


def _found_pixels(output: Tensor) -> Tensor:
    """Sum of the defects' logits where they win; the highest where background wins everywhere."""
    found = output.argmax(0) > 0
    best = output[1:].amax(0)
    return best[found].sum() if found.any() else best.max()


def _class(number: int) -> _Target:
    return lambda output: output[number]


def _sureness(task: Task, outputs: Tensor, target: _Target) -> Tensor:
    """Probability (N,) of what was found in each picture: by it the tiles of one are weighed."""
    if task == "detect":
        return outputs[:, 4:].amax((1, 2))
    if task == "segment":
        return outputs.softmax(1)[:, 1:].amax((1, 2, 3))
    return torch.stack([target(row) for row in outputs.softmax(1)])


# --- the two methods -----------------------------------------------------------------------------


def _cam(method: Method, network: nn.Module, layers: Sequence[nn.Module]) -> Any:
    """A grad-cam object; its `release` must be called, or the hooks stay."""
    from pytorch_grad_cam import EigenCAM, LayerCAM

    if method == "layer":
        return LayerCAM(network, list(layers))

    class SignedEigenCAM(EigenCAM):  # type: ignore[misc]
        """The library's, without a matrix of places × places, and with a sign that is no chance."""

        def get_cam_image(self, *inputs: Any, **named: Any) -> NDArray[np.float32]:
            activations: NDArray[np.float32] = inputs[3]
            return np.stack([first_component(one) for one in activations])

    return SignedEigenCAM(network, list(layers))


def first_component(activations: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each place of a map (C, H, W) along the map's first principal component, (H, W).

    A component has no sign of its own: it points to where the activations are strong.
    """
    channels, height, width = activations.shape
    places = activations.reshape(channels, -1).T.astype(np.float64)  # (H·W, C)
    centred = places - places.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)  # ascending: the last is the first component
    along = centred @ vectors[:, -1]
    strength = np.linalg.norm(places, axis=1)
    if along @ (strength - strength.mean()) < 0:
        along = -along
    component: NDArray[np.float32] = along.reshape(height, width).astype(np.float32)
    return component
