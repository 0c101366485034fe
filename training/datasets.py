"""Prepared data sets: the samples of a public set or of one's own, checked and split once for all.

A prepared set is a folder `NAME/` with `images/`, `masks/` (segment), `samples.jsonl` (one sample a
line, sorted by file) and `dataset.json` (labels, identity, counts, faults found). Splits are frozen
in it: training, evaluation and promotion read them and never divide anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from core.errors import DatasetError
from core.images import DEFAULT_LIMITS, ImageLimits
from core.records import Box
from core.types import TASKS, Task
from training._report import PrepareReport
from training.splits import PROTOCOLS, SPLITS

SAMPLES_FILE = "samples.jsonl"
DATASET_FILE = "dataset.json"


@dataclass(frozen=True)
class Sample:
    """One image of a data set and what is known of it.

    Boxes are (label, xyxy) in px of the image, corners as edges. `label` is the class of the whole
    image where the source names one. `mask` is an 8-bit index PNG, 0 = background. `splits` gives
    the split of each protocol.
    """

    file: str
    path: Path
    sha256: str  # of the encoded bytes
    width: int  # px
    height: int  # px
    group: str  # images of one group show related steel and never part
    boxes: tuple[tuple[str, Box], ...] = ()
    label: str | None = None
    mask: Path | None = None
    splits: dict[str, str] = field(default_factory=dict)
    mask_sha256: str | None = None

    def to_line(self) -> str:
        """The sample as one line of JSON, the same for the same content wherever it lies."""
        return json.dumps(
            {
                "file": self.file,
                "sha256": self.sha256,
                "width": self.width,
                "height": self.height,
                "group": self.group,
                "label": self.label,
                "boxes": [[label, list(box)] for label, box in self.boxes],
                "mask": self.mask.name if self.mask else None,
                "mask_sha256": self.mask_sha256,
                "splits": self.splits,
            },
            sort_keys=True,
        )

    @classmethod
    def from_line(cls, line: str, root: Path) -> Sample:
        """Inverse of `to_line` for a set that lies at `root`.

        Raises:
            ValueError, KeyError, TypeError: if the line is not one that `to_line` wrote.
        """
        row: dict[str, Any] = json.loads(line)
        return cls(
            file=row["file"],
            path=root / "images" / row["file"],
            sha256=row["sha256"],
            width=row["width"],
            height=row["height"],
            group=row["group"],
            boxes=tuple((label, cast(Box, tuple(box))) for label, box in row["boxes"]),
            label=row["label"],
            mask=root / "masks" / row["mask"] if row["mask"] else None,
            splits=row["splits"],
            mask_sha256=row["mask_sha256"],
        )


@dataclass(frozen=True)
class Dataset:
    """A prepared data set; `samples` are sorted by file name."""

    name: str
    task: Task
    labels: tuple[str, ...]
    root: Path
    samples: tuple[Sample, ...]

    def split(self, protocol: str, split: str) -> tuple[Sample, ...]:
        """Samples of a split; several may be joined ("val+test"), and "all" is every one.

        Raises:
            DatasetError: if there is no such protocol or split.
        """
        if protocol not in PROTOCOLS:
            raise DatasetError(f"Unknown protocol {protocol!r}. Available: {', '.join(PROTOCOLS)}.")
        wanted = set(SPLITS) if split == "all" else set(split.split("+"))
        if not wanted <= set(SPLITS):
            raise DatasetError(
                f"Unknown split {split!r}. Available: {', '.join(SPLITS)}, all, or some of them "
                "joined as in val+test."
            )
        return tuple(sample for sample in self.samples if sample.splits[protocol] in wanted)

    @cached_property
    def id(self) -> str:
        """SHA-256 of the sorted samples with their splits: the version of this data set."""
        return _digest([self.name, *self.labels], (sample.to_line() for sample in self.samples))

    def test_id(self, protocol: str, split: str) -> str:
        """SHA-256 of the sorted image hashes of a split: equal ids mean equal pictures."""
        return _digest([], (sample.sha256 for sample in self.split(protocol, split)))

    def counts(self, protocol: str) -> dict[str, dict[str, int]]:
        """Per split: the images, and per label its boxes (detect) or its images (otherwise).

        Masks are not opened: for a segmentation set only the images are counted here.
        """
        return {split: self._count(self.split(protocol, split)) for split in SPLITS}

    def _count(self, samples: Sequence[Sample]) -> dict[str, int]:
        if self.task == "detect":
            seen = [label for sample in samples for label, _ in sample.boxes]
        else:
            seen = [sample.label for sample in samples if sample.label]
        rows = {label: seen.count(label) for label in self.labels} if seen else {}
        return {"images": len(samples), **rows}


def open_dataset(name: str, data_root: Path) -> Dataset:
    """A data set prepared before.

    Args:
        name: neu-det, neu-cls, neu-seg, x-sdd, gc10-det, the name of a reviewed version, or a view
            of one of them such as neu-det@two-rare (`training.tails`).
        data_root: folder that holds the prepared sets, such as data/datasets.

    Raises:
        DatasetError: if it was not prepared, its files cannot be understood, or there is no such
            view.
    """
    root = data_root / name
    if "@" in name and not root.exists():  # reviewed versions bear an @, too, and are folders
        from training.tails import view

        return view(open_dataset(name.rpartition("@")[0], data_root), name)
    if not (root / DATASET_FILE).is_file():
        raise DatasetError(
            f"Data set {name!r} is not prepared in {data_root}: run "
            f"`python -m training prepare {name} --source ZIP_OR_DIR` first."
        )
    try:
        head = json.loads((root / DATASET_FILE).read_text("utf-8"))
        if head["task"] not in TASKS:
            raise ValueError(f"unknown task {head['task']!r}")
        lines = (root / SAMPLES_FILE).read_text("utf-8").splitlines()
        samples = tuple(Sample.from_line(line, root) for line in lines)
        return Dataset(head["name"], head["task"], tuple(head["labels"]), root, samples)
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise DatasetError(f"{root} is not a prepared data set ({exc}): prepare it again.") from exc


def write_index(dataset: Dataset, details: dict[str, Any]) -> None:
    """Write `samples.jsonl` and `dataset.json` into the set's folder, beside its images.

    Args:
        dataset: the set; its images and masks already lie where its samples say.
        details: further keys of dataset.json (faults, notes, citation, per-class counts).
    """
    lines = "".join(sample.to_line() + "\n" for sample in dataset.samples)
    (dataset.root / SAMPLES_FILE).write_text(lines, "utf-8")
    protocols = {
        protocol: {
            "counts": dataset.counts(protocol),
            "test_id": dataset.test_id(protocol, "test"),
        }
        for protocol in PROTOCOLS
    }
    head = {
        "name": dataset.name,
        "task": dataset.task,
        "labels": list(dataset.labels),
        "dataset_id": dataset.id,
        "protocols": protocols,
    }
    text = json.dumps(head | details, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    (dataset.root / DATASET_FILE).write_text(text, "utf-8")


def prepare(
    name: str,
    source: Path,
    data_root: Path,
    *,
    seed: int = 0,
    task: Task | None = None,
    rename: Mapping[str, str] | None = None,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> PrepareReport:
    """Turn an archive into a prepared data set; a faulty file is reported and left out.

    Preparing the same source again gives the same `dataset_id`. The set appears under its name
    only when it is complete.

    Args:
        name: neu-det, neu-cls, neu-seg, x-sdd or gc10-det, or with `task` that of a new set.
        source: zip or folder of the set, with or without MANIFEST.csv.
        data_root: folder that holds the prepared sets, such as data/datasets.
        seed: of both protocols' splits.
        task: of a set of one's own, whose annotations are Pascal VOC, YOLO, COCO, masks or folders.
        rename: of such a set: class as its source spells it -> its name here.
        limits: an image beyond them is reported and left out.

    Raises:
        DatasetError: if the name is unknown or cannot be, or the source holds no usable image.
    """
    from training._prepare import prepare_set

    return prepare_set(
        name, source, data_root, seed=seed, task=task, rename=rename or {}, limits=limits
    )


def _digest(head: Iterable[str], lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join([*head, *sorted(lines)]).encode()).hexdigest()
