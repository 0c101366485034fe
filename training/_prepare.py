"""The steps behind `training.datasets.prepare`: read, check, group, split, write, rename."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from core.errors import DatasetError, InputError
from core.images import ImageLimits, decode
from core.types import FloatArray, Task
from training._annotations import Annotations, SourceSet, public_set
from training._archive import Archive, open_source
from training._catalogue import Entry, entry
from training._checks import AnnotationError, LabelledBox, Report
from training._grouping import content_groups, fingerprint
from training._in_the_making import folder_in_the_making
from training._overlaps import overlapping_pairs, texture
from training._own_sets import read_own_set
from training._readers import Found
from training._report import Fault, PrepareReport
from training._summary import summarise
from training.datasets import Dataset, Sample, write_index
from training.splits import Item, assign

logger = logging.getLogger(__name__)

# Objects of an annotation that are not in the set for these reasons were seen by somebody.
_LOST = frozenset({"unknown-label", "unreadable-object", "crowd", "box-dropped"})


@dataclass
class _Checked:
    """One decodable image while the set is being made; `usable` once its annotation is good."""

    found: Found
    sha256: str
    width: int
    height: int
    group: str
    fingerprint: tuple[str, FloatArray] | None
    texture: FloatArray | None = None
    boxes: tuple[LabelledBox, ...] = ()
    mask_sha256: str | None = None
    classes: tuple[str, ...] = ()
    usable: bool = False

    def agrees_with(self, other: _Checked) -> bool:
        """Whether both say the same of what is to be seen; an unusable one says nothing."""
        said = [(set(c.classes), set(c.boxes), c.mask_sha256) for c in (self, other)]
        return said[0] == said[1] or not (self.usable and other.usable)


@dataclass
class _Work:
    """A set in the making: where it goes and what was found wrong so far."""

    entry: Entry
    archive: Archive
    annotations: Annotations
    limits: ImageLimits
    folder: Path
    faults: list[Fault] = field(default_factory=list)

    def report(self, kind: str, file: str, detail: str) -> None:
        self.faults.append(Fault(kind, file, detail))


def prepare_set(
    name: str,
    source: Path,
    data_root: Path,
    *,
    seed: int,
    task: Task | None,
    rename: Mapping[str, str],
    limits: ImageLimits,
) -> PrepareReport:
    """See `training.datasets.prepare`."""
    read: Callable[[Archive], SourceSet] = (
        partial(public_set, entry(name))
        if task is None
        else partial(read_own_set, name, task, rename)
    )
    archive = open_source(source)
    try:
        found = read(archive)
        known, layout = found.entry, found.layout
        with folder_in_the_making(data_root, name) as folder:
            work = _Work(known, archive, found.annotations, limits, folder, list(layout.faults))
            checked = [c for one in layout.found if (c := _check(work, one, layout.has_groups))]
            usable = [c for c in checked if c.usable]
            if not usable:
                raise DatasetError(
                    f"{source} holds no usable image of {name}: of the faults the first is "
                    f"{work.faults[0].file}, {work.faults[0].detail.rstrip('.')}."
                )
            _set_groups(work, checked)
            # Splits are drawn over every image with a class, those left out for a bad annotation
            # included, so that neu-cls and neu-det always agree on who is tested.
            items = [
                Item(c.found.file, c.classes, c.group, c.found.part)
                for c in checked
                if c.classes or c.usable
            ]
            splits = assign(items, known.plan, seed=seed)
            samples = tuple(_sample(c, folder, splits[c.found.file]) for c in usable)
            dataset = Dataset(name, known.task, _labels(known, usable), folder, samples)
            classes = {c.found.file: c.classes for c in usable}
            report = summarise(known, layout, dataset, classes, tuple(work.faults))
            write_index(dataset, _details(known, report, seed))
    finally:
        archive.close()
    logger.info("prepared %s version %s: %d images", name, report.dataset_id[:12], report.images)
    return report


def _check(work: _Work, found: Found, has_groups: bool) -> _Checked | None:
    """Read, decode and check one image and its annotation; None if the image is unusable."""
    try:
        data = work.archive.read(found.member)
        image = decode(data, limits=work.limits)
    except InputError as exc:
        work.report("unreadable-image", found.member, str(exc))
        return None
    if found.sha256 and found.sha256.strip().lower() != image.sha256:
        work.report("checksum", found.member, f"{image.sha256[:12]}, listed {found.sha256[:12]}")
        return None
    prints = None if has_groups else fingerprint(image.pixels)
    checked = _Checked(found, image.sha256, image.width, image.height, found.group, prints)
    if not has_groups and work.entry.overlaps:
        checked.texture = texture(image.pixels)
    checked.classes = (found.label,) if found.label else ()
    try:
        _annotate(work, checked)
    except AnnotationError as exc:
        work.report(exc.kind, found.member, str(exc))
        return checked
    if not checked.classes and not work.entry.may_be_sound:
        work.report("unknown-class", found.member, "neither file nor folder nor boxes name one")
        return checked
    checked.usable = True
    _write(work.folder / "images" / found.file, data)
    return checked


def _annotate(work: _Work, checked: _Checked) -> None:
    """Fill boxes or mask and classes; AnnotationError if the image must be left out."""
    match work.entry.task:
        case "detect":
            _add_boxes(work, checked)
        case "segment":
            _add_mask(work, checked)
        case "classify":
            pass


def _add_boxes(work: _Work, checked: _Checked) -> None:
    found = checked.found
    with _faults_of(work, found) as report:
        checked.boxes = work.annotations.boxes(
            found, size=(checked.width, checked.height), report=report
        )
    names = Counter(label for label, _ in checked.boxes)
    others = {label: n for label, n in names.items() if found.label and label != found.label}
    if others:
        told = ", ".join(f"{n} {label}" for label, n in sorted(others.items()))
        work.report("label-differs", found.member, f"{found.label} by its name, boxes: {told}")
    checked.classes = checked.classes or tuple(sorted(names))


def _add_mask(work: _Work, checked: _Checked) -> None:
    found, labels = checked.found, work.entry.labels
    with _faults_of(work, found) as report:
        class_map, data = work.annotations.mask(
            found, size=(checked.width, checked.height), report=report
        )
    pixels = np.bincount(class_map.ravel(), minlength=len(labels) + 1)
    checked.classes = tuple(label for k, label in enumerate(labels, start=1) if pixels[k])
    checked.mask_sha256 = hashlib.sha256(data).hexdigest()
    _write(work.folder / "masks" / f"{Path(found.file).stem}.png", data)


@contextmanager
def _faults_of(work: _Work, found: Found) -> Iterator[Report]:
    """Report what is wrong with an annotation; AnnotationError if an object of one's own is lost.

    A defect without its label would be learned, and counted, as sound steel. The public sets stay
    as they were measured: there a lost object costs itself alone.
    """
    told: list[tuple[str, str]] = []
    lost = 0
    try:
        yield lambda kind, detail: told.append((kind, detail))
    finally:
        if work.entry.own_classes is not None:
            lost = sum(kind in _LOST for kind, _ in told)
        for kind, detail in told:
            if not (lost and kind == "no-object"):
                work.report(kind, found.member, detail)
    if lost:
        raise AnnotationError("object-lost", f"objects of it that cannot be used: {lost}")


def _set_groups(work: _Work, checked: Sequence[_Checked]) -> None:
    """Groups from content where the source gives none, on top of those that it gives.

    Same bytes always share a group.
    """
    if prints := [c.fingerprint for c in checked if c.fingerprint]:
        pairs = (*_overlaps(work.entry, checked), *_given(checked))
        groups = content_groups([c.found.file for c in checked], prints, related=pairs)
        for c, group in zip(checked, groups, strict=True):
            c.group = group
    by_bytes: dict[str, list[_Checked]] = defaultdict(list)
    for c in checked:
        by_bytes[c.sha256].append(c)
    merged: dict[str, str] = {}
    for first, *copies in by_bytes.values():
        for copy in copies:
            detail = f"same bytes as {first.found.member}"
            work.report("duplicate-image", copy.found.member, detail)
            if work.entry.own_classes is not None and not copy.agrees_with(first):
                work.report("copies-differ", copy.found.member, _both(copy, first))
            if _last(merged, copy.group) != _last(merged, first.group):
                merged[_last(merged, copy.group)] = _last(merged, first.group)
    for c in checked:
        c.group = _last(merged, c.group)


def _overlaps(known: Entry, checked: Sequence[_Checked]) -> Iterator[tuple[int, int]]:
    """Positions of overlapping crops, searched class by class."""
    for label, at_least in known.overlaps.items():
        members = [(i, c.texture) for i, c in enumerate(checked) if c.found.label == label]
        textures = [t for _, t in members if t is not None]
        if len(textures) > 1:
            logger.info("searching %d images of %s for overlaps", len(textures), label)
            for a, b in overlapping_pairs(np.stack(textures), at_least=at_least):
                yield members[a][0], members[b][0]


def _given(checked: Sequence[_Checked]) -> Iterator[tuple[int, int]]:
    """Positions of images that the source puts into one group."""
    first: dict[str, int] = {}
    for i, c in enumerate(checked):
        if c.found.group:
            yield first.setdefault(c.found.group, i), i


def _both(copy: _Checked, first: _Checked) -> str:
    ours, theirs = (", ".join(c.classes) or "no defect" for c in (copy, first))
    if ours == theirs:
        return f"{ours}, marked elsewhere than in {first.found.member}"
    return f"{ours} here, {theirs} in {first.found.member}"


def _last(merged: Mapping[str, str], group: str) -> str:
    while group in merged:
        group = merged[group]
    return group


def _labels(known: Entry, usable: Sequence[_Checked]) -> tuple[str, ...]:
    """The classes of the set: of one's own boxes and folders those that occur."""
    if known.own_classes is None or known.task == "segment":  # a mask's numbers are its classes
        return known.labels
    seen = {label for c in usable for label in (*c.classes, *(b for b, _ in c.boxes))}
    return tuple(label for label in known.labels if label in seen)


def _sample(checked: _Checked, folder: Path, splits: dict[str, str]) -> Sample:
    file = checked.found.file
    mask = folder / "masks" / f"{Path(file).stem}.png" if checked.mask_sha256 else None
    return Sample(
        file=file,
        path=folder / "images" / file,
        sha256=checked.sha256,
        width=checked.width,
        height=checked.height,
        group=checked.group,
        boxes=checked.boxes,
        label=checked.found.label,
        mask=mask,
        splits=splits,
        mask_sha256=checked.mask_sha256,
    )


def _details(known: Entry, report: PrepareReport, seed: int) -> dict[str, object]:
    return {
        "seed": seed,
        "grouping": report.grouping,
        "groups": report.groups,
        "counts": report.counts,
        "statements": dict(report.statements),
        "citation": known.citation,
        "licence": known.licence,
        "notes": list(known.notes),
        "faults": [{"kind": f.kind, "file": f.file, "detail": f.detail} for f in report.faults],
    }


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
