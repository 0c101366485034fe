"""Synthetic training images of rare classes: real defects pasted into other real training images.

A defect goes, Poisson-blended, where the texture is most like its own surroundings and where no
defect is known. Where only the class of a whole image is known no defect can be cut out: then part
of one image is blended into another of the same class, which rearranges known textures and invents
no new appearance. Everything comes from the training split of one protocol, follows from the seed,
and is written down in `synthetic.jsonl`: which image, which box, from where, how.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from core.errors import DatasetError
from core.files import write_atomically
from core.types import Image
from training._blending import blend, match_tone, seam, texture
from training._cuttings import Cutting, Training
from training.datasets import Dataset, Sample
from training.tails import LEFT_OUT

if TYPE_CHECKING:
    from training.runs import RunFolder

logger = logging.getLogger(__name__)

TRACE_FILE = "synthetic.jsonl"
DEFAULT_SHARE = 0.5
TARGETS = 24  # images looked at for a place
PLACES = 3  # places looked at in each
ATTEMPTS = 8  # defects tried before a sample is given up
MOST_UNLIKE = 2.0  # mismatch beyond which a place looks wrong
SEAM_SCALE = 12.0  # grey levels of seam that count as much as a texture distance of 1
MIXTURES = 6  # parts of an image tried where only images have labels
ZOOM = (0.85, 1.15)


@dataclass(frozen=True, slots=True)
class Trace:
    """Where a synthetic image comes from.

    Boxes are px: `source_box` in the source image, `box` in the new one, which has the size of the
    target. `mismatch` is the texture distance and seam of the place chosen, see `_mismatch`.
    """

    file: str
    sha256: str
    label: str
    target_file: str
    target_sha256: str
    source_file: str
    source_sha256: str
    source_box: tuple[int, int, int, int]
    box: tuple[int, int, int, int]
    flip_horizontal: bool
    flip_vertical: bool
    zoom: float
    mismatch: float
    seed: int
    protocol: str
    dataset_id: str


def shortfall(dataset: Dataset, *, protocol: str, share: float = DEFAULT_SHARE) -> dict[str, int]:
    """How many images each class lacks to be held by `share` of the most frequent class's.

    Raises:
        DatasetError: if no training image holds a class.
    """
    training = Training(dataset, protocol)
    counts = {label: training.count(label) for label in dataset.labels}
    if not any(counts.values()):
        raise DatasetError(f"No training image of {dataset.name} holds a class.")
    goal = round(share * max(counts.values()))
    return {label: goal - n for label, n in counts.items() if 0 < n < goal}


def synthesise(
    dataset: Dataset, wanted: Mapping[str, int], folder: Path, *, protocol: str, seed: int
) -> Dataset:
    """The data set with synthetic training images, which are written to `folder`.

    Args:
        dataset: a prepared set.
        wanted: label -> number of synthetic images that shall hold it.
        folder: gets images, masks and `synthetic.jsonl`; files of these names are replaced.
        protocol: whose training split is used and grows; the others' are as they were.
        seed: of everything random.

    Raises:
        DatasetError: if a label is not the set's, or not one image can be made.
    """
    for label in wanted:
        if label not in dataset.labels:
            raise DatasetError(
                f"{dataset.name} has no class {label!r}; it has: {', '.join(dataset.labels)}."
            )
    training = Training(dataset, protocol, seed=seed)
    made: list[tuple[Sample, Trace]] = []
    for label, number in sorted(wanted.items()):
        before = len(made)
        for index in range(number):
            rng = np.random.default_rng((seed, zlib.crc32(label.encode()), index))
            one = _one(training, label, index, folder, rng=rng, seed=seed)
            if one is not None:
                made.append(one)
        if len(made) - before < number:
            logger.warning("made %d of %d images of %s", len(made) - before, number, label)
    if any(wanted.values()) and not made:
        raise DatasetError(
            f"No image could be synthesised from {dataset.name}: its classes have no defect that "
            "stands alone, or no training image has room for one."
        )
    lines = "".join(json.dumps(asdict(trace)) + "\n" for _, trace in made)
    write_atomically(folder / TRACE_FILE, lines.encode())
    samples = sorted((*dataset.samples, *(sample for sample, _ in made)), key=lambda s: s.file)
    return replace(dataset, samples=tuple(samples))


def training_set(
    dataset: Dataset, recipe: Mapping[str, Any], *, protocol: str, seed: int, run: RunFolder
) -> Dataset:
    """What a run trains on: the data set, with synthetic images if its recipe says so.

    They lie in the run's scratch folder, the same every time the run is resumed; where they come
    from stays in the run's folder.

    Raises:
        DatasetError: as `synthesise`.
    """
    if recipe["balance"] != "synthesis":
        return dataset
    wanted = shortfall(dataset, protocol=protocol, share=recipe["balance_strength"])
    folder = run.scratch / "synthesis"
    grown = synthesise(dataset, wanted, folder, protocol=protocol, seed=seed)
    write_atomically(run.synthetic, (folder / TRACE_FILE).read_bytes())
    return grown


def read_traces(file: Path) -> list[Trace]:
    """What `synthesise` wrote down, in its order."""
    lines = file.read_text("utf-8").splitlines()
    traces = []
    for line in lines:
        row = json.loads(line)
        boxes = {name: tuple(row[name]) for name in ("source_box", "box")}
        traces.append(Trace(**{**row, **boxes}))
    return traces


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a cutting would go: into which image, at which column and row; how it would look."""

    cutting: Cutting
    flips: tuple[bool, bool]
    zoom: float
    target: Sample
    x: int
    y: int
    piece: Image
    mismatch: float


def _one(
    training: Training, label: str, index: int, folder: Path, *, rng: np.random.Generator, seed: int
) -> tuple[Sample, Trace] | None:
    """One image with a further defect of the label, None if no place was found."""
    place = _find_place(training, label, index, rng)
    if place is None:
        return None
    cutting, target = place.cutting, place.target
    picture = blend(training.pixels(target), place.piece, cutting.mask, x=place.x, y=place.y)
    left, top, right, bottom = cutting.box
    box = (left + place.x, top + place.y, right + place.x, bottom + place.y)
    sample = _write(training, place, picture, box, folder / "images", label, index)
    return sample, Trace(
        file=sample.file,
        sha256=sample.sha256,
        label=label,
        target_file=target.file,
        target_sha256=target.sha256,
        source_file=cutting.source.file,
        source_sha256=cutting.source.sha256,
        source_box=cutting.source_box,
        box=box,
        flip_horizontal=place.flips[0],
        flip_vertical=place.flips[1],
        zoom=round(place.zoom, 4),
        mismatch=round(place.mismatch, 3),
        seed=seed,
        protocol=training.protocol,
        dataset_id=training.dataset.id,
    )


def _find_place(
    training: Training, label: str, index: int, rng: np.random.Generator
) -> _Place | None:
    """The best place of the first defect that finds one which does not look wrong."""
    tries = MIXTURES if training.dataset.task == "classify" else 1
    for attempt in range(ATTEMPTS):
        found: list[_Place] = []
        for _ in range(tries):
            cutting = training.cutting(label, index + attempt, rng)
            if cutting is None:
                return None
            flips = (bool(rng.random() < 0.5), bool(rng.random() < 0.5))
            zoom = 1.0 if cutting.is_pinned else float(rng.uniform(*ZOOM))
            turned = cutting.transformed(flip=flips, zoom=zoom)
            for target in training.targets(turned, TARGETS // tries, rng):
                for x, y in training.places(target, turned, PLACES, rng):
                    found += _look(training, turned, flips, zoom, target, x, y)
        best = min(found, key=lambda place: place.mismatch, default=None)
        if best is not None and best.mismatch <= MOST_UNLIKE:
            return best
    return None


def _look(
    training: Training,
    cutting: Cutting,
    flips: tuple[bool, bool],
    zoom: float,
    target: Sample,
    x: int,
    y: int,
) -> list[_Place]:
    """The place with its mismatch: texture distance, and seam in units of `SEAM_SCALE`.

    Where only images have labels, a piece plainer than what it would cover is refused: it might
    cover the defect that the label speaks of.
    """
    height, width = cutting.mask.shape
    covered = training.pixels(target)[y : y + height, x : x + width]
    there = texture(covered)
    if training.dataset.task == "classify":
        there = texture(covered, cutting.mask)
        if texture(cutting.pixels, cutting.mask).std < there.std:
            return []
        piece = cutting.pixels
    else:
        piece = match_tone(cutting.pixels, of=cutting.around, to=there)
    mismatch = there.distance(cutting.around) + seam(covered, piece, cutting.mask) / SEAM_SCALE
    return [_Place(cutting, flips, zoom, target, x, y, piece, mismatch)]


def _write(
    training: Training,
    place: _Place,
    picture: Image,
    box: tuple[int, int, int, int],
    folder: Path,
    label: str,
    index: int,
) -> Sample:
    """Store the picture, and its mask where the set has masks; what is known of it as a sample."""
    dataset, target = training.dataset, place.target
    file = f"synthetic-{_slug(label, dataset.labels)}-{index:04}.png"
    data = _png(picture[..., :1] if training.is_grey(target) else picture)
    write_atomically(folder / file, data)
    mask, mask_sha256 = None, None
    if dataset.task == "segment":
        truth = training.mask(target)
        height, width = place.cutting.mask.shape
        window = truth[place.y : place.y + height, place.x : place.x + width]
        window[place.cutting.region] = 1 + dataset.labels.index(label)
        mask, encoded = folder.parent / "masks" / file, _png(truth[..., None])
        write_atomically(mask, encoded)
        mask_sha256 = hashlib.sha256(encoded).hexdigest()
    x1, y1, x2, y2 = (float(v) for v in box)
    return replace(
        target,
        file=file,
        path=folder / file,
        sha256=hashlib.sha256(data).hexdigest(),
        boxes=(*target.boxes, (label, (x1, y1, x2, y2))) if dataset.task == "detect" else (),
        mask=mask,
        mask_sha256=mask_sha256,
        splits={
            protocol: "train" if protocol == training.protocol else LEFT_OUT
            for protocol in target.splits
        },
    )


def _slug(label: str, labels: Sequence[str]) -> str:
    """A class's name in names of files; with its number where another class has the same."""
    slugs = [re.sub(r"[^a-z0-9]+", "-", one.lower()) for one in labels]
    position = labels.index(label)
    slug = slugs[position]
    return f"{slug}_{position + 1}" if slugs.count(slug) > 1 else slug


def _png(pixels: Image) -> bytes:
    """(H, W, 1) or (H, W, 3) RGB as PNG."""
    order = pixels if pixels.shape[2] == 1 else pixels[..., ::-1]
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(order))
    return encoded.tobytes()
