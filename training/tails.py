"""Long-tailed views of prepared sets: some classes thinned in training, val and test untouched.

A view is opened by its name as any data set is, `neu-det@two-rare`, so runs trained on one can be
evaluated and resumed. Nothing is written: left-out images keep their file and get the split
`left-out`. The view has its own name and id; its test split, and the id of that, are the set's own.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from core.errors import DatasetError
from training.datasets import Dataset, Sample

LEFT_OUT = "left-out"
# Images that hold each class of GC10-DET, most frequent first: silk spot, welding line, punching
# hole, water spot, crescent gap, oil spot, inclusion, waist folding, crease, rolled pit. Counted by
# dataset-ninja/gc10-det from the 2300 public images of Lv et al., Sensors 20(6) (2020) 1562.
GC10_IMAGES = (734, 512, 329, 310, 264, 250, 201, 140, 53, 46)
_NAME = re.compile(r".+@(?P<profile>[a-z0-9-]+?)(?:-s(?P<seed>\d+))?")


def _two_rare(labels: Sequence[str]) -> dict[str, float]:
    return {"crazing": 0.1, "scratches": 0.1}


def _gc10(labels: Sequence[str]) -> dict[str, float]:
    """GC10-DET's tail over the set's classes in their order: the first stays whole."""
    places = np.linspace(0, len(GC10_IMAGES) - 1, len(labels))
    images = np.interp(places, np.arange(len(GC10_IMAGES)), GC10_IMAGES)
    return dict(zip(labels, (images / GC10_IMAGES[0]).tolist(), strict=True))


PROFILES = MappingProxyType({"two-rare": _two_rare, "gc10-tail": _gc10})


def view(dataset: Dataset, name: str) -> Dataset:
    """The view of a data set that a name means: `BASE@PROFILE`, or `BASE@PROFILE-sN` for seed N.

    Raises:
        DatasetError: if there is no such profile, or it thins a class that the set does not have.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["profile"] not in PROFILES:
        raise DatasetError(
            f"{name!r} is neither prepared nor a view of {dataset.name}. "
            f"Views: {', '.join(f'{dataset.name}@{profile}' for profile in PROFILES)}."
        )
    keep = PROFILES[match["profile"]](dataset.labels)
    return long_tailed(dataset, keep, seed=int(match["seed"] or 0), name=name)


def long_tailed(dataset: Dataset, keep: Mapping[str, float], *, seed: int, name: str) -> Dataset:
    """The data set with some classes thinned in the training split of each protocol.

    Of a class's n training images round(share · n) stay, at least one, chosen by the seed. An image
    that holds several thinned classes counts for all of them and goes if the rarest lets it go.

    Args:
        dataset: a set to detect or to classify.
        keep: label -> share of its training images that stays, in (0, 1]; others stay whole.
        seed: of the choice.
        name: of the view.

    Raises:
        DatasetError: if a label is not the set's, a share is out of range, or the set has masks.
    """
    if dataset.task == "segment":
        raise DatasetError(f"{dataset.name} has masks: views are made of boxes and image labels.")
    for label, share in keep.items():
        if label not in dataset.labels:
            raise DatasetError(
                f"{name} thins {label!r}, which is no class of {dataset.name}; "
                f"it has: {', '.join(dataset.labels)}."
            )
        if not 0 < share <= 1:
            raise DatasetError(f"{name} keeps {share} of {label!r}: the share lies in (0, 1].")
    dropped = {
        protocol: _dropped(
            [s for s in dataset.samples if s.splits[protocol] == "train"], keep, seed
        )
        for protocol in dataset.samples[0].splits
    }
    samples = tuple(
        replace(
            sample,
            splits={
                protocol: LEFT_OUT if sample.file in dropped[protocol] else split
                for protocol, split in sample.splits.items()
            },
        )
        for sample in dataset.samples
    )
    return replace(dataset, name=name, samples=samples)


def _dropped(training: Sequence[Sample], keep: Mapping[str, float], seed: int) -> set[str]:
    """Files that leave the training split."""
    held = {s.file: classes_of(s) for s in training}
    dropped: set[str] = set()
    settled: set[str] = set()
    for label, share in sorted(keep.items(), key=lambda item: (item[1], item[0])):
        files = sorted(file for file, classes in held.items() if label in classes)
        target = max(1, round(share * len(files)))
        rng = np.random.default_rng((seed, zlib.crc32(label.encode())))
        shuffled = [files[i] for i in rng.permutation(len(files))]
        # what a rarer class has decided comes first and stays decided
        decided = dropped | settled
        free = [file for file in shuffled if file not in decided]
        room = target - sum(file in settled for file in files)
        dropped.update(free[max(room, 0) :])
        settled.update(free[: max(room, 0)])
    return dropped


def classes_of(sample: Sample) -> frozenset[str]:
    """The labels of a sample's boxes, or that of its image."""
    if sample.boxes:
        return frozenset(label for label, _ in sample.boxes)
    return frozenset((sample.label,)) if sample.label else frozenset()
