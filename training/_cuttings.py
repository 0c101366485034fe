"""What can be cut out of training images, and where it may be put: the material of `synthesis`."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from core.images import KEPT, decode
from core.types import Image
from training._blending import Mask, Texture, texture
from training.datasets import Dataset, Sample
from training.tails import classes_of
from training.truth import read_mask

MARGIN = 5  # px around a defect that go with it
RING = 12  # px around a defect whose texture is what it lies in
BRIM = 2  # px next to a defect that its own gradient still reaches
LEAST_SIDE = 6  # px; smaller defects are left alone
KEPT_IN_MEMORY = 256  # decoded images
MIXED = (0.5, 0.8)  # sides of the part of a whole image that is mixed in, as fractions
PARTS = 4  # parts of an image looked at; the one with most to see is taken

Edges = tuple[bool, bool, bool, bool]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Cutting:
    """A piece of a training image that holds one defect.

    `mask` (h, w) is what is blended, `region` (h, w) the defect itself, `box` its corners in the
    piece. `edges` are those of the image that the defect touched: there it goes on, and must touch
    the same edge again. `around` is the texture it lay in.
    """

    source: Sample
    source_box: tuple[int, int, int, int]
    pixels: Image
    mask: Mask
    region: Mask
    box: tuple[int, int, int, int]
    edges: Edges
    around: Texture

    @property
    def is_pinned(self) -> bool:
        """Whether it spans its image from edge to edge, so that its size must stay."""
        left, top, right, bottom = self.edges
        return (left and right) or (top and bottom)

    def transformed(self, *, flip: tuple[bool, bool], zoom: float) -> Cutting:
        """Mirrored (horizontally, vertically), then magnified."""
        left, top, right, bottom = self.edges
        if flip[0]:
            left, right = right, left
        if flip[1]:
            top, bottom = bottom, top
        columns, rows = (slice(None, None, -1 if flipped else 1) for flipped in flip)
        height, width = self.mask.shape
        size = (max(1, round(zoom * width)), max(1, round(zoom * height)))

        def turned(a: NDArray[Any], interpolation: int) -> NDArray[np.uint8]:
            flipped = np.ascontiguousarray(a[rows, columns], dtype=np.uint8)
            return np.asarray(cv2.resize(flipped, size, interpolation=interpolation), np.uint8)

        region = turned(self.region, cv2.INTER_NEAREST) > 0
        return replace(
            self,
            pixels=turned(self.pixels, cv2.INTER_LINEAR),
            mask=turned(self.mask, cv2.INTER_NEAREST) > 0,
            region=region,
            box=_bounds(region),
            edges=(left, top, right, bottom),
        )


class Training:
    """The training images of one protocol: what each holds, and where there is room on it."""

    def __init__(self, dataset: Dataset, protocol: str, *, seed: int = 0) -> None:
        self.dataset, self.protocol, self.seed = dataset, protocol, seed
        self.samples = dataset.split(protocol, "train")
        self._held = {sample.file: self._classes(sample) for sample in self.samples}
        self._decode = lru_cache(KEPT_IN_MEMORY)(partial(decode, limits=KEPT))
        self._sources: dict[str, list[tuple[Sample, Mask]]] = {}

    def _classes(self, sample: Sample) -> frozenset[str]:
        if self.dataset.task == "segment":
            present = np.unique(self.mask(sample))
            return frozenset(self.dataset.labels[k - 1] for k in present if k > 0)
        return classes_of(sample)

    def count(self, label: str) -> int:
        """Training images that hold the class."""
        return sum(label in held for held in self._held.values())

    def mask(self, sample: Sample) -> NDArray[np.uint8]:
        """The class map of a sample of a set with masks, (H, W)."""
        return read_mask(sample, self.dataset.labels)

    def pixels(self, sample: Sample) -> Image:
        """(H, W, 3) RGB."""
        return self._decode(sample.path).pixels

    def is_grey(self, sample: Sample) -> bool:
        """Whether the picture has no colour."""
        return self._decode(sample.path).is_grey

    # ------------------------------------------------------------------------------- what to cut

    def cutting(self, label: str, index: int, rng: np.random.Generator) -> Cutting | None:
        """The index-th defect of the class that stands alone, round and round; None without any."""
        if label not in self._sources:
            alone = list(self._alone(label))
            order = np.random.default_rng((self.seed, zlib.crc32(label.encode()))).permutation
            self._sources[label] = [alone[i] for i in order(len(alone))]
        sources = self._sources[label]
        if not sources:
            return None
        sample, region = sources[index % len(sources)]
        if self.dataset.task == "classify":
            parts = [_part(region.shape[0], region.shape[1], rng) for _ in range(PARTS)]
            pixels = self.pixels(sample)
            region = max(parts, key=lambda part: texture(pixels, part).std)  # not bare steel
        return self._cut(sample, region)

    def _alone(self, label: str) -> Iterator[tuple[Sample, Mask]]:
        """Defects with nothing else within the margin, as masks of their image."""
        for sample in self.samples:
            if label not in self._held[sample.file]:
                continue
            if self.dataset.task == "classify":
                yield sample, np.ones((sample.height, sample.width), np.bool_)
                continue
            occupied = self.occupied(sample)
            for region in self._regions(sample, label):
                near = _grown(region, MARGIN)
                x1, y1, x2, y2 = _bounds(region)
                if min(x2 - x1, y2 - y1) >= LEAST_SIDE and not (near & occupied & ~region).any():
                    yield sample, region

    def _regions(self, sample: Sample, label: str) -> Iterator[Mask]:
        if self.dataset.task == "segment":
            value = 1 + self.dataset.labels.index(label)
            n, numbered = cv2.connectedComponents((self.mask(sample) == value).astype(np.uint8))
            for k in range(1, n):
                yield numbered == k
            return
        boxes = [box for name, box in sample.boxes if name == label]
        for i, box in enumerate(boxes):
            others = (b for name, b in sample.boxes if (name, b) != (label, box))
            if any(_touch(box, other) for other in others) or box in boxes[:i]:
                continue
            yield _box_mask(sample, box)

    def _cut(self, sample: Sample, region: Mask) -> Cutting:
        height, width = region.shape
        x1, y1, x2, y2 = _bounds(region)
        left, top = max(0, x1 - MARGIN), max(0, y1 - MARGIN)
        right, bottom = min(width, x2 + MARGIN), min(height, y2 + MARGIN)
        window = np.s_[top:bottom, left:right]
        pixels = self.pixels(sample)
        edges: Edges = (x1 <= 1, y1 <= 1, x2 >= width - 1, y2 >= height - 1)
        ring = _grown(region, RING) & ~_grown(self.occupied(sample), BRIM)
        if self.dataset.task == "classify":  # the piece is any part of the image
            edges, ring = (False, False, False, False), region
        return Cutting(
            source=sample,
            source_box=(x1, y1, x2, y2),
            pixels=pixels[window],
            mask=_grown(region, MARGIN)[window],
            region=region[window],
            box=_bounds(region[window]),
            edges=edges,
            around=texture(pixels, ring if ring.any() else region),
        )

    # ------------------------------------------------------------------------------ where to put it

    def occupied(self, sample: Sample) -> Mask:
        """(H, W), where a defect is known; nowhere where only the image has a label."""
        if self.dataset.task == "segment":
            return self.mask(sample) > 0
        taken = np.zeros((sample.height, sample.width), np.bool_)
        for _, box in sample.boxes:
            taken |= _box_mask(sample, box)
        return taken

    def targets(self, cutting: Cutting, number: int, rng: np.random.Generator) -> list[Sample]:
        """Other training images, at random; of the same class where only images have labels."""
        others = [
            sample
            for sample in self.samples
            if sample.sha256 != cutting.source.sha256
            and (
                self.dataset.task != "classify"
                or self._held[sample.file] == self._held[cutting.source.file]
            )
        ]
        chosen = rng.permutation(len(others))[:number]
        return [others[i] for i in chosen]

    def places(
        self, target: Sample, cutting: Cutting, number: int, rng: np.random.Generator
    ) -> list[tuple[int, int]]:
        """Columns and rows where the whole piece lies on steel without a known defect."""
        height, width = cutting.mask.shape
        if height > target.height or width > target.width:
            return []
        left, top, right, bottom = cutting.edges
        columns = _along(target.width - width, first=left, last=right)
        rows = _along(target.height - height, first=top, last=bottom)
        if not columns or not rows:
            return []
        taken = np.pad(np.cumsum(np.cumsum(self.occupied(target), 0), 1), ((1, 0), (1, 0)))
        x, y = np.meshgrid(columns, rows)
        covered = (
            taken[y + height, x + width] - taken[y, x + width] - taken[y + height, x] + taken[y, x]
        )
        free = np.argwhere(covered == 0)
        chosen = rng.permutation(len(free))[:number]
        return [(columns[free[i][1]], rows[free[i][0]]) for i in chosen]


def _along(room: int, *, first: bool, last: bool) -> list[int]:
    """Where along one axis a piece may begin: at the edges it touched, or anywhere."""
    if first and last:
        return [0] if room == 0 else []
    if first:
        return [0]
    if last:
        return [room]
    return list(range(0, room + 1, 2))


def _part(height: int, width: int, rng: np.random.Generator) -> Mask:
    """A random ellipse within an image."""
    part = np.zeros((height, width), np.uint8)
    a, b = (rng.uniform(*MIXED, 2) / 2 * (width, height)).tolist()
    x, y = rng.uniform(a, width - a), rng.uniform(b, height - b)
    axes = (max(1, int(a)), max(1, int(b)))
    cv2.ellipse(part, (int(x), int(y)), axes, 0, 0, 360, 1, -1)
    return part.astype(np.bool_)


def _box_mask(sample: Sample, box: tuple[float, float, float, float]) -> Mask:
    """The pixels that a box touches."""
    x1, y1, x2, y2 = box
    mask = np.zeros((sample.height, sample.width), np.bool_)
    mask[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = True
    return mask


def _touch(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether two boxes come within the margin of each other."""
    return (
        a[0] - MARGIN < b[2]
        and b[0] - MARGIN < a[2]
        and a[1] - MARGIN < b[3]
        and b[1] - MARGIN < a[3]
    )


def _grown(region: Mask, by: int) -> Mask:
    kernel = np.ones((2 * by + 1, 2 * by + 1), np.uint8)
    return np.asarray(cv2.dilate(region.astype(np.uint8), kernel) > 0)


def _bounds(region: Mask) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 of what is set, corners as edges."""
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
