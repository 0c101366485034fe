"""Where the boxes and masks of a source come from, whatever it is written in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import InputError
from training._archive import Archive
from training._catalogue import Entry
from training._checks import AnnotationError, LabelledBox, Report, read_mask, read_voc
from training._outlines import as_png
from training._readers import Found, Layout, read_layout


class Annotations(Protocol):
    """What a source says of its images.

    Both raise AnnotationError for an image that must be left out, and give kind and detail of every
    lesser fault to `report`; `size` is width and height of the decoded image in px.
    """

    def boxes(
        self, found: Found, *, size: tuple[int, int], report: Report
    ) -> tuple[LabelledBox, ...]:
        """Boxes of an image, edges in px."""
        ...

    def mask(
        self, found: Found, *, size: tuple[int, int], report: Report
    ) -> tuple[NDArray[np.uint8], bytes]:
        """Class map (H, W) of an image, 0 background, and the PNG to be kept of it."""
        ...


class FilesBeside:
    """One Pascal-VOC file or one index mask for each image, as the public sets have them.

    Args:
        archive: that holds them.
        label_of: our name of a class however the source spells it, or None.
        numbers: for each value of a mask, from 0, the one to be kept in its place.
    """

    def __init__(
        self, archive: Archive, *, label_of: Callable[[str], str | None], numbers: Sequence[int]
    ) -> None:
        self._archive, self._label_of = archive, label_of
        self._numbers = np.asarray(numbers, np.uint8)

    def boxes(
        self, found: Found, *, size: tuple[int, int], report: Report
    ) -> tuple[LabelledBox, ...]:
        """See `Annotations`."""
        if found.annotation is None:
            raise AnnotationError("missing-annotation", "no XML of that name")
        data = read_member(self._archive, found.annotation, "unreadable-annotation")
        return read_voc(data, size=size, label_of=self._label_of, report=report)

    def mask(
        self, found: Found, *, size: tuple[int, int], report: Report
    ) -> tuple[NDArray[np.uint8], bytes]:
        """See `Annotations`; the source's own bytes are kept where its numbers are."""
        if found.mask is None:
            raise AnnotationError("missing-mask", "no mask of that name")
        data = read_member(self._archive, found.mask, "unreadable-mask")
        class_map = read_mask(data, size=size, n_classes=len(self._numbers) - 1)
        if (self._numbers == np.arange(len(self._numbers))).all():
            return class_map, data
        renumbered = self._numbers[class_map]
        return renumbered, as_png(renumbered)


@dataclass(frozen=True, slots=True)
class SourceSet:
    """A source, understood: what it is, what lies in it, and who says what is to be seen there."""

    entry: Entry
    layout: Layout
    annotations: Annotations


def public_set(entry: Entry, archive: Archive) -> SourceSet:
    """A public set in one of the layouts in which it was published.

    Raises:
        DatasetError: if no image is found, or the manifest cannot be read.
    """
    numbers = range(len(entry.labels) + 1)
    beside = FilesBeside(archive, label_of=entry.label, numbers=numbers)
    return SourceSet(entry, read_layout(entry, archive), beside)


def read_member(archive: Archive, name: str, kind: str) -> bytes:
    """Bytes of a member whose loss costs an image its annotation.

    Raises:
        AnnotationError: of that kind, if it cannot be read.
    """
    try:
        return archive.read(name)
    except InputError as exc:
        raise AnnotationError(kind, str(exc)) from exc
