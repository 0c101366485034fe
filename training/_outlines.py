"""Objects as an annotation draws them, and what becomes of them: checked boxes, or a class map."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from core.errors import InputError
from core.geometry import decode_rle
from core.records import Box
from training._checks import LabelledBox, Report, checked_box

_MOST_POINTS = 20_000  # of one polygon
Polygon = NDArray[np.float64]  # (n, 2) corners in px of the image


@dataclass(frozen=True, slots=True)
class Drawn:
    """One object of an image; `polygons` and `runs` are its outline, where it has one."""

    number: int  # in its annotation, from 1
    label: str
    edges: Box  # xyxy px; NaN where the source gives no number
    polygons: tuple[Polygon, ...] = ()
    runs: str | tuple[int, ...] | None = None  # COCO's run lengths, packed or as they are


def to_boxes(
    objects: Sequence[Drawn], *, size: tuple[int, int], report: Report
) -> tuple[LabelledBox, ...]:
    """The objects' boxes within an image of that size; exact repetitions are dropped."""
    boxes: list[LabelledBox] = []
    for drawn in objects:
        box = checked_box(drawn.edges, drawn.number, size=size, report=report)
        if box is None:
            continue
        if (drawn.label, box) in boxes:
            report("duplicate-box", f"{drawn.label} {box} is given twice")
            continue
        boxes.append((drawn.label, box))
    if not objects:
        report("no-object", "the annotation holds no object")
    return tuple(boxes)


def to_class_map(
    objects: Sequence[Drawn], labels: Sequence[str], *, size: tuple[int, int], report: Report
) -> tuple[NDArray[np.uint8], bytes]:
    """The objects' areas as a class map (H, W), and as the PNG to be kept.

    k is the k-th of `labels`; where areas overlap the later object wins.
    """
    width, height = size
    class_map = np.zeros((height, width), np.uint8)
    for drawn in objects:
        try:
            area = _area(drawn, size)
        except InputError as exc:
            report("unreadable-object", f"object {drawn.number}: {exc}")
            continue
        class_map[area] = 1 + labels.index(drawn.label)
    if not objects:
        report("no-object", "the annotation holds no object")
    return class_map, as_png(class_map)


def as_png(class_map: NDArray[np.uint8]) -> bytes:
    """A class map (H, W) as an 8-bit grey PNG."""
    buffer = io.BytesIO()
    PILImage.fromarray(class_map).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def edges_of(polygons: Sequence[Polygon]) -> Box:
    """The smallest box around polygons; NaN without any."""
    if not polygons:
        return math.nan, math.nan, math.nan, math.nan
    corners = np.concatenate(polygons)
    (x1, y1), (x2, y2) = corners.min(axis=0), corners.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def polygon(numbers: Sequence[float]) -> Polygon:
    """Corners from x1, y1, x2, y2, …

    Raises:
        InputError: if these are no three to twenty thousand points.
    """
    points = np.asarray(numbers, np.float64)
    if points.ndim != 1 or len(points) % 2 or not 6 <= len(points) <= 2 * _MOST_POINTS:
        raise InputError(f"{points.size} numbers are no outline of 3 to {_MOST_POINTS} points")
    if not np.isfinite(points).all():
        raise InputError("an outline has a corner that is no number")
    return points.reshape(-1, 2)


def _area(drawn: Drawn, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels (H, W) of an object."""
    width, height = size
    if isinstance(drawn.runs, str):
        return decode_rle(drawn.runs, (height, width))
    if drawn.runs is not None:
        return _filled(drawn.runs, size)
    if not drawn.polygons:
        raise InputError("it has a box and no outline")
    from faster_coco_eval.core import mask

    inside = [p.clip((0, 0), (width, height)).ravel().tolist() for p in drawn.polygons]
    areas = mask.decode(mask.frPyObjects(inside, height, width))  # (H, W, n)
    together: NDArray[np.bool_] = areas.any(axis=2)
    return together


def _filled(runs: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """COCO's plain run lengths: down the columns, outside first."""
    width, height = size
    if min(runs, default=-1) < 0 or sum(runs) != width * height:
        raise InputError(f"its run lengths do not fill {width} x {height}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(flat.reshape(width, height).T)
