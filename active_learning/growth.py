"""How a data set grows by reviewed images: the part without a database.

What a person said replaces the labels of an image that was there, or adds an image. Three rules
keep the acceptance test honest. An image of a test split, under either protocol, is never touched.
An image that shows the same steel as a test image is left out. Everything else goes to train or
val: where its group already is, or by a hash of the group's name, so it stays there for good.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from active_learning.labelling import NO_DEFECT, all_labels_given, labels_given
from core.errors import DatasetError, InputError
from core.files import remove_stale
from core.geometry import class_map_from_record
from core.images import KEPT, ImageStore, decode
from core.records import Annotation
from core.taxonomy import is_sound
from core.types import FloatArray, Task
from training._grouping import content_groups, fingerprint
from training.datasets import Dataset, Sample, open_dataset, write_index
from training.splits import LEAK_FREE_SHARES, PROTOCOLS

GROUPING: Final = "leak-free"  # the protocol under which a group lies in one split
_VAL_SHARE: Final = LEAK_FREE_SHARES[1] / (LEAK_FREE_SHARES[0] + LEAK_FREE_SHARES[1])
_SUFFIXES: Final = (
    (b"\x89PNG", ".png"),
    (b"\xff\xd8", ".jpg"),
    (b"BM", ".bmp"),
    (b"II", ".tif"),
    (b"MM", ".tif"),
    (b"RIFF", ".webp"),
)


@dataclass(frozen=True, slots=True)
class Growth:
    """A grown data set before it is written: its samples, and what became of each reviewed image.

    `sources` holds the annotation behind each reviewed image in it, `left_out` the reason why one
    is not; both by image hash. New samples have no path and no suffix yet, and masks that a person
    changed are still in `sources`.
    """

    samples: tuple[Sample, ...]
    sources: dict[str, Annotation]
    left_out: dict[str, str]


def grow(
    base: Dataset,
    parent: Dataset,
    annotations: Sequence[Annotation],
    *,
    groups: Mapping[str, str],
    unfit: Mapping[str, str] | None = None,
) -> Growth:
    """The samples of the next version; the same for the same arguments in any order.

    Args:
        base: the public set at the root; its labels hold where nobody says otherwise, and its
            test splits are final.
        parent: the version before, `base` itself at first; its images keep group and splits.
        annotations: all that people now say, at most one for each image.
        groups: name of the group of each image that is not in `parent`, by image hash; one of
            `parent`'s groups if it shows steel that is there.
        unfit: reason for each image that cannot be used, by image hash.

    Raises:
        DatasetError: if there are two annotations for one image.
    """
    by_image = {annotation.image_sha256: annotation for annotation in annotations}
    if len(by_image) != len(annotations):
        raise DatasetError("Two annotations are about one image; the newest alone may be given.")
    split_of = {sample.group: sample.splits[GROUPING] for sample in parent.samples}
    known = {sample.sha256: sample for sample in parent.samples}
    in_base = {sample.sha256 for sample in base.samples}
    tested = {s.sha256 for s in base.samples if "test" in s.splits.values()}

    sources: dict[str, Annotation] = {}
    left_out: dict[str, str] = {}
    added: list[Sample] = []
    for sha256, annotation in sorted(by_image.items()):
        group = known[sha256].group if sha256 in known else groups.get(sha256, _own_group(sha256))
        is_new = sha256 not in in_base
        if sha256 in tested:
            left_out[sha256] = "it is a test image"
        elif is_new and split_of.get(group) == "test":
            left_out[sha256] = "it shows the same steel as a test image"
        elif reason := (unfit or {}).get(sha256) or unfit_for(
            annotation, task=base.task, labels=base.labels, dataset=base.name
        ):
            left_out[sha256] = reason
        else:
            sources[sha256] = annotation
            if is_new:
                added.append(_new_sample(annotation, group, split_of.get(group) or _drawn(group)))
    samples = sorted((*base.samples, *added), key=lambda sample: sample.file)
    return Growth(
        tuple(
            _labelled(sample, sources[sample.sha256], base) if sample.sha256 in sources else sample
            for sample in samples
        ),
        sources,
        left_out,
    )


@dataclass(frozen=True, slots=True)
class Looked:
    """What the pictures of new images tell, by image hash: their groups, and which are no use."""

    groups: dict[str, str]
    unfit: dict[str, str]


def look_at(parent: Dataset, images: ImageStore, annotations: Sequence[Annotation]) -> Looked:
    """Open the images that are new and group them by their content, for `grow`.

    Copies, turned and mirrored ones included, and near copies of an image of `parent` join its
    group, that of a test image above all. Overlapping crops are not looked for.

    Args:
        parent: the version before.
        images: where the new images lie.
        annotations: what people say about images, new or not.

    Raises:
        LedgerError: if a new image is missing or damaged.
    """
    known = {sample.sha256 for sample in parent.samples}
    prints: dict[str, tuple[str, FloatArray]] = {}
    unfit: dict[str, str] = {}
    for annotation in sorted(annotations, key=lambda a: a.image_sha256):
        sha256 = annotation.image_sha256
        if sha256 in known:
            continue
        data = images.get(sha256)
        try:
            image = decode(data, limits=KEPT)
        except InputError as exc:
            unfit[sha256] = str(exc)
            continue
        if (image.width, image.height) != (annotation.width, annotation.height):
            unfit[sha256] = (
                f"it is {image.width} × {image.height} px and was annotated as "
                f"{annotation.width} × {annotation.height} px"
            )
        prints[sha256] = fingerprint(image.pixels)
    return Looked(_groups(parent, prints), unfit)


def _groups(parent: Dataset, prints: Mapping[str, tuple[str, FloatArray]]) -> dict[str, str]:
    """Group of each new image: of the related images of `parent`, else one of its own kind."""
    if not prints:
        return {}
    n = len(parent.samples)
    first: dict[str, int] = {}
    components = content_groups(
        [sample.file for sample in parent.samples] + list(prints),
        [fingerprint(decode(sample.path, limits=KEPT).pixels) for sample in parent.samples]
        + list(prints.values()),
        related=[(first.setdefault(s.group, i), i) for i, s in enumerate(parent.samples)],
    )
    name: dict[str, tuple[bool, str]] = {}
    for sample, component in zip(parent.samples, components[:n], strict=True):
        candidate = (sample.splits[GROUPING] != "test", sample.group)  # a test group comes first
        name[component] = min(candidate, name.get(component, candidate))
    for sha256, component in zip(prints, components[n:], strict=True):
        name.setdefault(component, (True, _own_group(sha256)))
    found = zip(prints, components[n:], strict=True)
    return {sha256: name[component][1] for sha256, component in found}


def write(growth: Growth, base: Dataset, images: ImageStore, data_root: Path) -> Dataset:
    """The grown set as a prepared folder `<base>@<id>`; there completely or not at all.

    Images are linked, not copied, where the file system allows it. Written twice, the folder of
    the first time is kept.

    Raises:
        DatasetError: if the folder cannot be written, or its test split would differ from `base`'s.
        LedgerError: if a reviewed image is missing or damaged.
    """
    data_root.mkdir(parents=True, exist_ok=True)
    try:
        remove_stale(data_root, f".{base.name}@*")  # what was being written by who was killed
        with tempfile.TemporaryDirectory(prefix=f".{base.name}@", dir=data_root) as scratch:
            folder = Path(scratch) / "new"
            (folder / "images").mkdir(parents=True)
            (folder / "masks").mkdir()
            samples = tuple(_place(s, growth, base, images, folder) for s in growth.samples)
            grown = Dataset(base.name, base.task, base.labels, folder, samples)
            _check_test_splits(base, grown)
            write_index(grown, {"reviewed": len(growth.sources), "base_id": base.id})
            final = data_root / f"{base.name}@{grown.id[:12]}"
            if not _is_sound(final, grown.id):
                if final.exists():
                    final.rename(Path(scratch) / "old")
                folder.rename(final)
    except OSError as exc:
        raise DatasetError(
            f"A new version of {base.name} cannot be written to {data_root}: {exc.strerror}."
        ) from exc
    return open_dataset(final.name, data_root)


def unfit_for(annotation: Annotation, *, task: Task, labels: Sequence[str], dataset: str) -> str:
    """Why a model of this task and these classes cannot learn from an annotation; "" if it can."""
    named = classes_given(annotation, task, labels)
    if not named and task == "classify":
        return "nobody said which class the image is"
    elsewhere = [name for name in all_labels_given(annotation) if not is_sound(name)]
    if not named and elsewhere:
        how = "no box was drawn" if task == "detect" else "nothing was brushed"
        return f"a defect was named and {how}"
    strangers = sorted(set(named) - set(labels))
    if strangers:
        return f"{dataset} has no class {strangers[0]!r}"
    # Where it is, nobody has shown: beside other marks it would be taught as background.
    nowhere = sorted({*elsewhere} & {*labels} - {*named}) if task != "classify" else []
    how = "has no box" if task == "detect" else "was not brushed"
    return f"{nowhere[0]!r} was named and {how}" if nowhere else ""


def classes_given(annotation: Annotation, task: Task, labels: Sequence[str]) -> list[str]:
    """What an annotation names; "no defect" is a classifier's own class for sound steel."""
    named = labels_given(annotation, task)
    if task == "classify" and named == [NO_DEFECT]:
        return [label for label in labels if is_sound(label)][:1] or named
    return named


def _drawn(group: str) -> str:
    """train or val by the group's name alone: the same in every version and on every machine."""
    share = int(hashlib.sha256(group.encode()).hexdigest()[:8], 16) / 16**8
    return "val" if share < _VAL_SHARE else "train"


def _own_group(sha256: str) -> str:
    return f"r-{sha256[:16]}"


def _new_sample(annotation: Annotation, group: str, split: str) -> Sample:
    return Sample(
        file=f"review-{annotation.image_sha256}",  # the suffix is known once the file is read
        path=Path(),
        sha256=annotation.image_sha256,
        width=annotation.width,
        height=annotation.height,
        group=group,
        splits=dict.fromkeys(PROTOCOLS, split),
    )


def _labelled(sample: Sample, annotation: Annotation, base: Dataset) -> Sample:
    """The sample with what the annotation says in place of its labels; a mask is written later."""
    match base.task:
        case "detect":
            return replace(sample, boxes=annotation.boxes)
        case "segment":
            return replace(sample, mask=None, mask_sha256=None)
        case "classify":
            return replace(sample, label=classes_given(annotation, base.task, base.labels)[0])


def _place(
    sample: Sample, growth: Growth, base: Dataset, images: ImageStore, folder: Path
) -> Sample:
    """The sample with its image and mask put into the folder."""
    source, file = sample.path, sample.file
    if source == Path():
        source = images.path(sample.sha256)
        head = images.get(sample.sha256)[:8]  # reads and checks it whole
        file += next(suffix for start, suffix in _SUFFIXES if head.startswith(start))
    _link(source, folder / "images" / file)
    placed = replace(sample, file=file, path=folder / "images" / file)
    if base.task != "segment":
        return placed
    target = folder / "masks" / f"{Path(file).stem}.png"
    if sample.mask is not None:
        _link(sample.mask, target)
        return replace(placed, mask=target)
    data = _mask_png(growth.sources[sample.sha256], base.labels)
    target.write_bytes(data)
    return replace(placed, mask=target, mask_sha256=hashlib.sha256(data).hexdigest())


def labelled_map(annotation: Annotation, labels: Sequence[str]) -> NDArray[np.uint8]:
    """The annotated mask as a data set has it, (H, W): 0 is background, k is `labels[k - 1]`."""
    class_map = np.zeros((annotation.height, annotation.width), np.uint8)
    if annotation.mask is not None:  # else a person looked and saw nothing
        # A class of another set may have been on offer; it covers nothing, or it was refused.
        number = {label: k for k, label in enumerate(labels, start=1)}
        index = [0, *(number.get(label, 0) for label in annotation.mask_labels)]
        class_map[:] = np.asarray(index, np.uint8)[class_map_from_record(annotation.mask)]
    return class_map


def _mask_png(annotation: Annotation, labels: Sequence[str]) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(labelled_map(annotation, labels)).save(file, "PNG")
    return file.getvalue()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def _check_test_splits(base: Dataset, grown: Dataset) -> None:
    for protocol in PROTOCOLS:
        before, after = (
            [sample.to_line() for sample in dataset.split(protocol, "test")]
            for dataset in (base, grown)
        )
        if before != after:
            raise DatasetError(
                f"The next version of {base.name} would change its {protocol} test split; "
                "prepare the public set again and start from it."
            )


def _is_sound(folder: Path, dataset_id: str) -> bool:
    try:
        return open_dataset(folder.name, folder.parent).id == dataset_id
    except DatasetError:
        return False
