"""Annotations read with suspicion: VOC boxes and index masks checked against their image."""

from __future__ import annotations

import io
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL.PngImagePlugin import PngImageFile

from core.errors import InputError
from core.records import Box

LabelledBox = tuple[str, Box]
# kind of fault, detail
Report = Callable[[str, str], None]

_MAX_XML_BYTES = 1024**2


class AnnotationError(InputError):
    """An annotation or mask that cannot be used; `kind` is the kind of fault."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def read_voc(
    data: bytes,
    *,
    size: tuple[int, int],
    label_of: Callable[[str], str | None],
    report: Report,
) -> tuple[LabelledBox, ...]:
    """Boxes of a Pascal-VOC file as pixel edges of the image.

    VOC corners are 1-based and inclusive: (1, 1, 200, 200) covers a 200 x 200 image and becomes
    (0, 0, 200, 200). Boxes that stick out are clipped; inverted, empty and outside ones and exact
    repetitions are dropped; each is reported.

    Args:
        data: bytes of the XML.
        size: width and height of the decoded image in px.
        label_of: our name of a class, or None.
        report: receives kind and detail of each fault.

    Raises:
        AnnotationError: if this is no VOC file, or it was made for an image of another size.
    """
    root = parse_voc(data)
    _check_size(root, size)
    boxes: list[LabelledBox] = []
    for number, element in enumerate(root.iter("object"), start=1):
        spelling = (element.findtext("name") or "").strip()
        label = label_of(spelling)
        if label is None:
            report("unknown-label", f"object {number} is called {spelling!r}")
            continue
        box = _box(element, number, size, report)
        if box is None:
            continue
        if (label, box) in boxes:
            report("duplicate-box", f"{label} {box} is given twice")
            continue
        boxes.append((label, box))
    if root.find("object") is None:
        report("no-object", "the annotation holds no object")
    return tuple(boxes)


def read_mask(data: bytes, *, size: tuple[int, int], n_classes: int) -> NDArray[np.uint8]:
    """Class map (H, W) of an 8-bit index mask: 0 background, 1 to n_classes.

    Raises:
        AnnotationError: if it cannot be read, has another size than the image or unknown values.
    """
    try:
        with PngImageFile(io.BytesIO(data)) as image:
            found = image.size
            mode = image.mode
            class_map = np.asarray(image) if found == size else np.zeros((0, 0), np.uint8)
    except (OSError, ValueError, SyntaxError) as exc:
        raise AnnotationError("unreadable-mask", f"the mask cannot be read: {exc}") from exc
    if found != size:
        raise AnnotationError("size-differs", f"the mask is {found}, the image {size}")
    if mode not in ("L", "P") or int(class_map.max()) > n_classes:
        seen = f"mode {mode}, highest value {class_map.max()}"
        raise AnnotationError("mask-values", f"{seen}; 8-bit values 0 to {n_classes} are known")
    return class_map.astype(np.uint8)


def parse_voc(data: bytes) -> ET.Element:
    """The root of a Pascal-VOC file.

    Raises:
        AnnotationError: if it is too large, no XML, or XML that does more than to list.
    """
    if len(data) > _MAX_XML_BYTES:
        raise AnnotationError(
            "unreadable-annotation",
            f"the XML has {len(data)} bytes, at most {_MAX_XML_BYTES} are read",
        )
    # entity tricks have no place in an annotation, so a document type is refused unread
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise _typed()
    try:
        return ET.fromstring(data, ET.XMLParser(target=_Plain()))
    except (ET.ParseError, ValueError, LookupError) as exc:
        raise AnnotationError("unreadable-annotation", f"the XML cannot be read: {exc}") from exc


class _Plain(ET.TreeBuilder):
    """Elements and texts; refuses a document type in whatever encoding it is written."""

    def doctype(self, *_: object) -> None:
        """Called by the parser before it takes in what the type declares."""
        raise _typed()


def _typed() -> AnnotationError:
    return AnnotationError("unreadable-annotation", "the XML declares a document type or entities")


def _check_size(root: ET.Element, size: tuple[int, int]) -> None:
    """Refuse boxes made for another picture size; 0 and absent mean that the tool did not say."""
    stated = (_number(root, "size/width"), _number(root, "size/height"))
    if any(math.isnan(side) or side == 0 for side in stated):
        return
    if stated != size:
        raise AnnotationError(
            "size-differs", f"the XML says {stated[0]:g} x {stated[1]:g}, the image is {size}"
        )


def _box(element: ET.Element, number: int, size: tuple[int, int], report: Report) -> Box | None:
    x1, y1, x2, y2 = (
        _number(element, f"bndbox/{corner}") for corner in ("xmin", "ymin", "xmax", "ymax")
    )
    # 1-based inclusive corners to edges
    return checked_box((x1 - 1, y1 - 1, x2, y2), number, size=size, report=report)


def checked_box(edges: Box, number: int, *, size: tuple[int, int], report: Report) -> Box | None:
    """A box clipped to its image, or None for one that is inverted, empty or outside.

    Args:
        edges: xyxy in px of the image; NaN where the source gave no number.
        number: of the object in its annotation, from 1.
        size: width and height of the image in px.
        report: receives kind and detail of each fault.
    """
    x1, y1, x2, y2 = edges
    width, height = size
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height))
    told = f"object {number} has edges ({x1:g}, {y1:g}, {x2:g}, {y2:g}) in {width} x {height}"
    # written so that a NaN, a missing or unreadable number, drops the box as well
    if not (x1 < x2 and y1 < y2 and clipped[0] < clipped[2] and clipped[1] < clipped[3]):
        report("box-dropped", told)
        return None
    if clipped != (x1, y1, x2, y2):
        report("box-clipped", told)
    return (float(clipped[0]), float(clipped[1]), float(clipped[2]), float(clipped[3]))


def _number(element: ET.Element, path: str) -> float:
    try:
        return float(element.findtext(path, default="nan"))
    except ValueError:
        return math.nan
