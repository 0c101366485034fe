"""Boxes and masks between coordinate systems: letterbox, percent, run lengths, regions.

Pure functions on numpy arrays. Boxes are xyxy pixel *edges* with the origin at the top-left corner
of the image: a box from x1 = 0 to x2 = W covers the whole width. Masks are bool (H, W); run lengths
are COCO's compressed text, column by column, byte for byte what pycocotools writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as PillowImage

from core.errors import InputError
from core.records import FoundSegment, MaskRLE
from core.types import FloatArray, Image

LETTERBOX_GREY = 114  # the padding that YOLO networks are trained with

_CHUNK_BITS = 5  # payload of one character of COCO's run lengths
_MORE = 0x20  # another character follows
_SIGN = 0x10  # of the last character: the value is negative
_FIRST_CHAR = 48  # "0"
_MAX_CHARS = 7  # 35 bits, more than any run length needs


@dataclass(frozen=True, slots=True)
class Letterbox:
    """How an image was fitted into a square: nominal scale and the padding before it."""

    scale: float  # network px per source px, before the sides were rounded
    left: int  # px of padding
    top: int  # px of padding

    def to_source(self, xyxy: ArrayLike, width: int, height: int) -> FloatArray:
        """Boxes of the square back in pixels of the source image, clipped to it.

        Args:
            xyxy: (n, 4) px in the square.
            width: of the source image, px.
            height: of the source image, px.

        Returns:
            (n, 4) float32, within [0, width] and [0, height].
        """
        boxes = np.array(xyxy, dtype=np.float64).reshape(-1, 4)
        # Each side was rounded to whole pixels: the true scales differ a little from the nominal.
        new_width, new_height = _fitted(width, height, self.scale)
        boxes[:, 0::2] = (boxes[:, 0::2] - self.left) * (width / new_width)
        boxes[:, 1::2] = (boxes[:, 1::2] - self.top) * (height / new_height)
        return clip_boxes(boxes, width, height)


def letterbox(image: Image, size: int, *, is_grey: bool = False) -> tuple[Image, Letterbox]:
    """Fit an image into a square: aspect kept, bilinear, centred, the rest filled with grey.

    Sides and padding are rounded as ultralytics rounds them (an odd pixel of padding goes to the
    right and the bottom), so that weights see at inference the geometry they were trained on.

    Args:
        image: (H, W, 3) uint8.
        size: side of the square, px.
        is_grey: all three channels are equal, and one is resized for all; the result is the same.

    Returns:
        (size, size, 3) uint8, the image itself where it fits already, and the way back.
    """
    height, width = image.shape[:2]
    scale = min(size / height, size / width)
    new_width, new_height = _fitted(width, height, scale)
    left = round((size - new_width) / 2 - 0.1)
    top = round((size - new_height) / 2 - 0.1)
    if (new_width, new_height) != (width, height):
        one_or_three = np.ascontiguousarray(image[..., 0]) if is_grey else image
        fitted = PillowImage.fromarray(one_or_three).resize(
            (new_width, new_height), PillowImage.Resampling.BILINEAR
        )
        resized = np.asarray(fitted)
        image = np.empty((new_height, new_width, 3), dtype=np.uint8)  # asarray's is read-only
        if is_grey:
            spread_grey(resized, image)
        else:
            image[...] = resized
    if (new_width, new_height) == (size, size):
        return image, Letterbox(scale, left, top)
    square = np.full((size, size, 3), LETTERBOX_GREY, dtype=np.uint8)
    square[top : top + new_height, left : left + new_width] = image
    return square, Letterbox(scale, left, top)


def spread_grey(grey: NDArray[np.uint8], image: Image) -> None:
    """Write one channel (H, W) into all three of an image (H, W, 3).

    Channel by channel: numpy's broadcast along a last axis of three takes six times as long.
    """
    for channel in range(3):
        image[..., channel] = grey


def clip_boxes(xyxy: ArrayLike, width: int, height: int) -> FloatArray:
    """Boxes cut off at the borders of a width × height image; (n, 4) float32, a copy."""
    boxes = np.array(xyxy, dtype=np.float32).reshape(-1, 4)
    boxes[:, 0::2] = boxes[:, 0::2].clip(0, width)
    boxes[:, 1::2] = boxes[:, 1::2].clip(0, height)
    return boxes


def xyxy_to_percent(xyxy: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """Corners in px to Label Studio's x, y, width, height in percent of the image; (n, 4)."""
    boxes = np.asarray(xyxy, dtype=np.float64).reshape(-1, 4)
    corners = boxes * (100.0 / np.array([width, height, width, height]))
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def percent_to_xyxy(percent: ArrayLike, width: int, height: int) -> NDArray[np.float64]:
    """Label Studio's x, y, width, height in percent of the image to corners in px; (n, 4)."""
    boxes = np.asarray(percent, dtype=np.float64).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
    return np.asarray(corners * (np.array([width, height, width, height]) / 100.0))


def box_areas(boxes: ArrayLike) -> NDArray[np.float64]:
    """Areas (n,) of boxes (n, 4) xyxy; one whose corners are crossed has none."""
    corners = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.asarray((corners[:, 2:] - corners[:, :2]).clip(min=0).prod(axis=1))


def common_areas(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Areas (n, m) that every box of `a` (n, 4) xyxy has in common with every box of `b` (m, 4)."""
    first = np.asarray(a, dtype=np.float64).reshape(-1, 1, 4)
    second = np.asarray(b, dtype=np.float64).reshape(1, -1, 4)
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    return np.asarray((high - low).clip(min=0).prod(axis=-1))


def box_iou(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` with every box of `b`.

    Args:
        a: (n, 4) xyxy.
        b: (m, 4) xyxy.

    Returns:
        (n, m) in [0, 1]; a pair of which neither has an area scores 0.
    """
    shared = common_areas(a, b)
    union = box_areas(a)[:, None] + box_areas(b) - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def encode_rle(mask: NDArray[np.bool_]) -> str:
    """A mask as COCO's compressed run lengths.

    Args:
        mask: (H, W), anything but 0 is inside.

    Returns:
        ASCII text: runs down the columns, outside first, each from the third on as the difference
        to the run two before, in groups of five bits.
    """
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts_inside = bool(flat.size) and bool(flat[0])
    bounds = np.concatenate([[0], [0] if starts_inside else [], edges, [flat.size]])
    runs = np.diff(bounds.astype(np.int64))
    values = runs.copy()
    values[3:] -= runs[1:-2]

    bits = int(np.abs(values).max()).bit_length() + 1  # with the sign
    shifts = _CHUNK_BITS * np.arange(-(-bits // _CHUNK_BITS))
    chunks = (values[:, None] >> shifts) & 0x1F  # (runs, characters), low bits first
    rest = values[:, None] >> (shifts + _CHUNK_BITS)
    more = np.where(chunks & _SIGN, rest != -1, rest != 0)
    written = np.ones_like(more)  # a character is written while all before it said "more"
    written[:, 1:] = np.logical_and.accumulate(more[:, :-1], axis=1)
    characters = (chunks | np.where(more, _MORE, 0)) + _FIRST_CHAR
    text: bytes = characters[written].astype(np.uint8).tobytes()
    return text.decode("ascii")


def decode_rle(counts: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask that COCO's compressed run lengths describe.

    Args:
        counts: ASCII text, as `encode_rle` writes it.
        size: H, W in px.

    Returns:
        (H, W) bool.

    Raises:
        InputError: if the text is not run lengths, or they do not fill the size.
    """
    height, width = size
    runs = _run_lengths(counts)
    covered = int(runs.sum())
    if (runs < 0).any() or covered != height * width:
        raise InputError(
            f"Run lengths cover {covered} pixels but the mask is {height} × {width}: "
            "they must fill it exactly, column by column."
        )
    inside = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def is_anywhere(counts: str) -> bool:
    """Whether a mask covers any pixel: its run lengths are read only up to the first one inside.

    Args:
        counts: ASCII text, as `encode_rle` writes it; what follows that run is not looked at.
    """
    run, value, shift, before = 0, 0, 0, 0  # `before`: the last run inside
    for character in counts.encode("utf-8"):
        code = character - _FIRST_CHAR
        value |= (code & 0x1F) << shift
        shift += _CHUNK_BITS
        if code & _MORE:
            continue
        if code & _SIGN:
            value -= 1 << shift
        if run % 2:
            before += value  # from the second on, each is a difference to the one before
            if before > 0:
                return True
        run, value, shift = run + 1, 0, 0
    return False


def mask_record(class_map: NDArray[np.uint8], n_labels: int) -> MaskRLE:
    """A class map as run lengths, one entry per label; the background is what is left over.

    Args:
        class_map: (H, W), 0 is background, k is the k-th label.
        n_labels: number of labels, background not counted.

    Raises:
        InputError: if the map holds a class beyond `n_labels`.
    """
    _check_classes(class_map, n_labels)
    height, width = class_map.shape
    counts = tuple(encode_rle(class_map == k) for k in range(1, n_labels + 1))
    return MaskRLE(size=(height, width), counts=counts)


def class_map_from_record(record: MaskRLE) -> NDArray[np.uint8]:
    """The class map (H, W) of stored run lengths; where two labels overlap, the later one wins.

    Raises:
        InputError: if an entry is not run lengths of that size.
    """
    class_map = np.zeros(record.size, dtype=np.uint8)
    for k, counts in enumerate(record.counts, start=1):
        class_map[decode_rle(counts, record.size)] = k
    return class_map


def numbered_regions(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Connected regions of a mask (H, W), numbered from 1, else 0; touching corners connect."""
    from scipy import ndimage

    return np.asarray(ndimage.label(mask, structure=np.ones((3, 3), dtype=bool))[0], np.int64)


def regions(
    class_map: NDArray[np.uint8], scores: FloatArray, labels: Sequence[str]
) -> list[FoundSegment]:
    """Connected regions of each class, largest first; touching at a corner is enough.

    Args:
        class_map: (H, W), 0 is background, k is `labels[k - 1]`.
        scores: (H, W), probability of the class chosen at each pixel.
        labels: names of the classes.

    Returns:
        One entry per region: label, area in px, box of pixel edges, mean score.

    Raises:
        InputError: if the map holds a class without a label.
    """
    from scipy import ndimage

    _check_classes(class_map, len(labels))
    found = []
    for k, label in enumerate(labels, start=1):
        numbered = numbered_regions(class_map == k)
        if not numbered.any():
            continue
        flat = numbered.ravel()
        areas = np.bincount(flat)
        sums = np.bincount(flat, weights=scores.ravel())
        for number, (rows, columns) in enumerate(ndimage.find_objects(numbered), start=1):
            area = int(areas[number])
            found.append(
                FoundSegment(
                    label=label,
                    area_px=area,
                    box=(columns.start, rows.start, columns.stop, rows.stop),
                    score=min(max(float(sums[number]) / area, 0.0), 1.0),
                )
            )
    return sorted(found, key=lambda region: -region.area_px)


def _fitted(width: int, height: int, scale: float) -> tuple[int, int]:
    """Sides after scaling, in whole pixels; a thin image keeps at least one."""
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _check_classes(class_map: NDArray[np.uint8], n_labels: int) -> None:
    highest = int(class_map.max(initial=0))
    if highest > n_labels:
        raise InputError(
            f"Class map holds class {highest} but there are {n_labels} labels: "
            f"values must lie in 0 (background) to {n_labels}."
        )


def _run_lengths(counts: str) -> NDArray[np.int64]:
    """The runs (n,) behind COCO's text: five bits a character, differences undone."""
    characters = np.frombuffer(counts.encode("utf-8"), dtype=np.uint8).astype(np.int64)
    characters -= _FIRST_CHAR
    last = (characters & _MORE) == 0  # of its group
    if not len(characters) or characters.min() < 0 or characters.max() > 63 or not last[-1]:
        raise InputError(f"Not COCO run lengths: {counts[:20]!r}.")
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _MAX_CHARS:
        raise InputError(f"Not COCO run lengths: a run has {lengths.max()} characters.")
    place = np.arange(len(characters)) - np.repeat(starts, lengths)
    runs = np.add.reduceat((characters & 0x1F) << (_CHUNK_BITS * place), starts)
    negative = (characters[ends] & _SIGN) != 0
    runs[negative] -= np.int64(1) << (_CHUNK_BITS * lengths[negative])
    runs[1::2] = np.cumsum(runs[1::2])  # each is a difference to the run two before it …
    runs[2::2] = np.cumsum(runs[2::2])  # … and the very first stands alone
    return runs
