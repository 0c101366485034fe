"""A detector of which only the head learns: all that comes before it runs once an image.

For simulations, which train a hundred detectors in the time of one. Backbone and neck of a YOLO11n
keep their COCO weights, so the maps that they make of an image never change. Of the head, the
branch that places boxes begins at COCO as well, the one that names classes at random. Nothing here
becomes a release.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from core.geometry import Letterbox, letterbox
from core.images import KEPT, decode
from models import get_spec
from models._boxes import Boxes, decode_boxes
from models._pictures import to_tensor

# isort: split
from models._coco import load_coco_npz  # first: sets ultralytics' environment
from models._ultralytics import replace_layer

# isort: split
from ultralytics.cfg import get_cfg
from ultralytics.utils.loss import v8DetectionLoss

from training.datasets import Sample

IMAGE_SIZE: Final = 128  # px
STEPS: Final = 120  # of training, however many images there are
BATCH: Final = 16  # images a step
LEARNING_RATE: Final = 0.003  # AdamW's highest, reached after a tenth of the steps
SETTLING_IMAGES: Final = 64  # to settle BatchNorm, as the detectors' trainer does
_LOOK: Final = 32  # images at a time
_CLIP: Final = 10.0  # largest gradient norm, of one image


@dataclass(frozen=True)
class Maps:
    """What backbone and neck make of images, and where their boxes are."""

    levels: tuple[Tensor, ...]  # (n, C, H, W) each, P3 to P5
    frames: tuple[Letterbox, ...]
    samples: tuple[Sample, ...]
    targets: tuple[NDArray[np.float32], ...]  # (g, 5): class, centre and size in [0, 1]

    def __len__(self) -> int:
        return len(self.samples)


class HeadTrainer:
    """Trains heads on the maps of a YOLO11n that began at COCO.

    Args:
        arrays: .npz of folded COCO arrays.
        labels: class names in the order of the class ids.
        samples: of the data set to be trained on; no label of them is read.

    Raises:
        WeightsError: if the arrays cannot be read or do not fit.
        InputError: if an image is unreadable.
    """

    def __init__(self, arrays: Path, labels: Sequence[str], samples: Sequence[Sample]) -> None:
        self.labels = tuple(labels)
        with _seeded(0):
            network: Any = get_spec("yolo11").build(len(labels), "n")
        chosen = np.linspace(0, len(samples) - 1, min(SETTLING_IMAGES, len(samples))).astype(int)
        pixels, _ = _letterboxed([samples[i] for i in chosen])
        load_coco_npz(network, arrays, pixels)
        network.args = get_cfg()
        self._criterion = v8DetectionLoss(network)
        self._head = network.model[-1]
        replace_layer(network, len(network.model) - 1, nn.Identity())
        self._trunk = network.eval()

    @torch.no_grad()
    def maps(self, samples: Sequence[Sample], *, mirrored: bool = False) -> Maps:
        """Run backbone and neck over images, or over their mirror images."""
        levels: list[list[Tensor]] = []
        frames: list[Letterbox] = []
        for start in range(0, len(samples), _LOOK):
            pixels, placed = _letterboxed(samples[start : start + _LOOK])
            levels.append(self._trunk(pixels.flip(3) if mirrored else pixels))
            frames += placed
        return Maps(
            levels=tuple(torch.cat(level) for level in zip(*levels, strict=True)),
            frames=tuple(frames),
            samples=tuple(samples),
            targets=tuple(
                self._target(sample, frame, mirrored=mirrored)
                for sample, frame in zip(samples, frames, strict=True)
            ),
        )

    def train(
        self, views: Sequence[Maps], rows: Sequence[int], *, seed: int, steps: int = STEPS
    ) -> nn.Module:
        """A head that has learned from some of the images.

        Args:
            views: of the same images, one of which is drawn whenever an image is shown.
            rows: the images that have labels.
            seed: of the class branch, the order and the views.
            steps: of BATCH images.
        """
        chance = np.random.default_rng(seed)
        head: nn.Module = self._new_head(seed)
        parameters = list(head.parameters())
        optimiser = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=1e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.1
        )
        order: list[int] = []
        for _ in range(steps):
            while len(order) < BATCH:
                order += chance.permutation(np.asarray(rows)).tolist()
            batch, order = order[:BATCH], order[BATCH:]
            drawn = [views[k] for k in chance.integers(len(views), size=BATCH)]
            loss, _ = self._criterion(head(_stacked(drawn, batch)), _truth(drawn, batch))
            optimiser.zero_grad()
            loss.sum().backward()
            nn.utils.clip_grad_norm_(parameters, _CLIP * BATCH)
            optimiser.step()
            schedule.step()
        return head.eval()

    @torch.no_grad()
    def look(
        self, head: nn.Module, maps: Maps, rows: Sequence[int], *, threshold: float
    ) -> list[Boxes]:
        """What a trained head finds in some of the images, in px of the image, best score first."""
        found = []
        for start in range(0, len(rows), _LOOK):
            part = list(rows[start : start + _LOOK])
            output, _ = head([level[part] for level in maps.levels])  # (N, 4 + C, A)
            for k, answer in zip(part, output, strict=True):
                sample, frame = maps.samples[k], maps.frames[k]
                found.append(decode_boxes(answer, frame, sample.width, sample.height, threshold))
        return found

    def _new_head(self, seed: int) -> Any:
        head = copy.deepcopy(self._head)
        with _seeded(seed):
            for branch in head.cv3:
                rare = branch[-1].bias.detach().clone()  # to begin with, nothing is a defect
                for layer in branch.modules():
                    if isinstance(layer, nn.Conv2d | nn.BatchNorm2d):
                        layer.reset_parameters()
                branch[-1].bias.data.copy_(rare)
        return head.train()

    def _target(self, sample: Sample, frame: Letterbox, *, mirrored: bool) -> NDArray[np.float32]:
        pixels = np.array([box for _, box in sample.boxes], np.float64).reshape(-1, 4)
        boxes = (pixels * frame.scale + [frame.left, frame.top] * 2) / IMAGE_SIZE
        if mirrored:
            boxes[:, [0, 2]] = 1 - boxes[:, [2, 0]]
        rows = np.empty((len(boxes), 5), np.float32)
        rows[:, 0] = [self.labels.index(label) for label, _ in sample.boxes]
        rows[:, 1:3] = (boxes[:, :2] + boxes[:, 2:]) / 2
        rows[:, 3:] = boxes[:, 2:] - boxes[:, :2]
        return rows


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's chance begins anew within, and goes on outside as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _letterboxed(samples: Sequence[Sample]) -> tuple[Tensor, list[Letterbox]]:
    """Images (N, 3, S, S) in [0, 1], and how each was fitted."""
    images = [decode(sample.path, limits=KEPT) for sample in samples]
    fitted = [letterbox(image.pixels, IMAGE_SIZE, is_grey=image.is_grey) for image in images]
    return to_tensor([pixels for pixels, _ in fitted]), [frame for _, frame in fitted]


def _stacked(drawn: Sequence[Maps], batch: Sequence[int]) -> list[Tensor]:
    """The maps of a batch, (BATCH, C, H, W) a level."""
    return [
        torch.stack([maps.levels[level][k] for maps, k in zip(drawn, batch, strict=True)])
        for level in range(len(drawn[0].levels))
    ]


def _truth(drawn: Sequence[Maps], batch: Sequence[int]) -> dict[str, Tensor]:
    """The boxes of a batch as ultralytics' loss reads them."""
    targets = [maps.targets[k] for maps, k in zip(drawn, batch, strict=True)]
    rows = torch.from_numpy(np.concatenate(targets))
    image = np.repeat(np.arange(len(batch)), [len(target) for target in targets])
    return {
        "batch_idx": torch.from_numpy(image).float(),
        "cls": rows[:, :1],
        "bboxes": rows[:, 1:],
    }
