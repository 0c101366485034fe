"""What was found, drawn on the image: boxes, masks, names, and a sheet with legend to hand on.

Small pictures are enlarged by a whole factor so that names can be read; nothing but what is drawn
changes a pixel's colour, so a grey original stays grey. Every class is told apart twice, by its
colour and by its dashes or hatch (`core.taxonomy.look`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from core.geometry import class_map_from_record
from core.records import Box, Inspection
from core.taxonomy import look, title
from core.types import Image
from demo.colours import Colour, ink_on, rgb
from demo.folding import fold, row_length
from demo.masks import paint_mask
from demo.placement import place_tags
from demo.words import Finding, findings, headline, labels_found, number, rows_of

SHOWN_SIDE_PX: Final = 800  # of a small picture once enlarged
MAX_NAMED: Final = 30  # findings that get a name; the rest are drawn only
_DIMMED: Final = 0.45  # brightness that is left around a selected finding
# As they are seen, whatever the size of the canvas.
_LINE_PX: Final = 2
_HALO_PX: Final = 0.7
_DASH_PX: Final = 1.5  # of one px in a class's dash pattern, which is made for lines of one px
_FONT_PX: Final = 14

_WHITE: Final[Colour] = (255, 255, 255)
_INK: Final[Colour] = (31, 41, 51)
_PALE: Final[Colour] = (222, 226, 230)


@dataclass(frozen=True, slots=True)
class Layers:
    """What is drawn over the image."""

    boxes: bool = True
    mask: bool = True
    names: bool = True


ALL_LAYERS: Final = Layers()


def usual_layers(inspection: Inspection, *, names: bool = True) -> Layers:
    """What is drawn unless somebody chooses: boxes, or masks without boxes around them."""
    return Layers(boxes=inspection.task == "detect", mask=True, names=names)


@dataclass(frozen=True, slots=True)
class _Canvas:
    """An enlarged copy of the image and how its pixels relate to the source's."""

    picture: PillowImage.Image
    scale: float  # canvas px per source px
    pixel: float  # canvas px per px as seen
    rows: int = 1  # into which it is folded when it is shown

    def px(self, seen: float) -> int:
        """Whole px of the canvas for px as seen, at least one."""
        return max(round(seen * self.pixel), 1)

    def box(self, box: Box) -> tuple[int, int, int, int]:
        """A source box in whole px of the canvas, at least one px wide and high."""
        x1, y1, x2, y2 = (round(edge * self.scale) for edge in box)
        return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def overlay(
    pixels: Image,
    inspection: Inspection,
    *,
    labels: Sequence[str],
    layers: Layers = ALL_LAYERS,
    selected: int | None = None,
    max_side_px: int | None = None,
    seen_side_px: int = SHOWN_SIDE_PX,
) -> Image:
    """The image with its findings drawn on it.

    Args:
        pixels: (H, W, 3), the image that was inspected.
        inspection: what was found on it.
        labels: the model's classes, in the order of the mask's entries.
        layers: what to draw.
        selected: number of a finding to stand out; all around it is dimmed.
        max_side_px: shrink larger pictures to this side, and fold strips, for a page; None keeps
            full resolution and the picture's own shape.
        seen_side_px: how long the long side is on the screen that lines and letters are made for.

    Returns:
        (H', W', 3) uint8: the source size times a whole number for small pictures.
    """
    canvas = _canvas(pixels, max_side_px, seen_side_px)
    found = findings(inspection)
    if inspection.mask is not None and layers.mask:
        class_map = _listed(class_map_from_record(inspection.mask), found, labels)
        painted = paint_mask(np.asarray(canvas.picture), class_map, labels, pixel=canvas.pixel)
        canvas = replace(canvas, picture=PillowImage.fromarray(painted))
    located = [finding for finding in found if finding.box is not None]
    chosen = next((finding for finding in located if finding.number == selected), None)
    if layers.boxes:
        _draw_boxes(canvas, [finding for finding in located if finding is not chosen])
    if chosen is not None and chosen.box is not None:
        canvas = _dim_around(canvas, canvas.box(chosen.box))
        _draw_boxes(canvas, [chosen], bold=True)
    if layers.names:
        if chosen is not None:
            _draw_names(canvas, [chosen])
        else:
            _draw_names(canvas, located[:MAX_NAMED], nameless=located[MAX_NAMED:])
    return _folded(canvas)


def sheet(
    pixels: Image,
    inspection: Inspection,
    *,
    labels: Sequence[str],
    layers: Layers = ALL_LAYERS,
    max_side_px: int | None = None,
    note: str = "",
) -> Image:
    """The overlay over a strip with verdict, legend or bars, the note, and provenance.

    Arguments are those of `overlay`; by default it is drawn at full resolution.
    """
    drawn = overlay(pixels, inspection, labels=labels, layers=layers, max_side_px=max_side_px)
    above = _canvas(drawn, None, SHOWN_SIDE_PX)
    font = _font(above)
    line, margin = above.px(1.6 * _FONT_PX), above.px(0.8 * _FONT_PX)
    classes = labels_found([inspection])
    rows = findings(inspection) if inspection.task == "classify" else ()
    last = [text for text in (note, f"{inspection.model}, revision {inspection.revision}") if text]
    said = (headline(inspection).text, *last)
    longest = math.ceil(max(font.getlength(text) for text in said)) + 2 * margin
    width = max(above.picture.width, above.px(24 * _FONT_PX), longest)
    height = line * (1 + len(last) + (len(rows) or len(classes))) + 2 * margin
    page = PillowImage.new("RGB", (width, above.picture.height + height), _WHITE)
    page.paste(above.picture, (0, 0))
    drawing = ImageDraw.Draw(page)
    top = above.picture.height + margin
    drawing.text((margin, top), said[0], fill=_INK, font=font)
    for row in rows:
        top += line
        _draw_bar(drawing, row, (margin, top, width - margin, top + line), font)
    for label in () if rows else classes:
        top += line
        frame = (margin, top + line // 8, margin + 2 * line, top + line * 5 // 8)
        _draw_box(drawing, above, frame, label)
        drawing.text((2 * margin + 2 * line, top), title(label), fill=_INK, font=font)
    for text in last:
        top += line
        drawing.text((margin, top), text, fill=_INK, font=font)
    return np.asarray(page)


def beside(sheets: Sequence[Image]) -> Image:
    """Pictures in a row on white, their upper edges in line."""
    gap = max(1, max(s.shape[1] for s in sheets) // 50)
    height = max(s.shape[0] for s in sheets)
    width = sum(s.shape[1] for s in sheets) + gap * (len(sheets) - 1)
    row = np.full((height, width, 3), 255, np.uint8)
    left = 0
    for one in sheets:
        row[: one.shape[0], left : left + one.shape[1]] = one
        left += one.shape[1] + gap
    return row


def fitted(pixels: Image, max_side_px: int) -> Image:
    """The image alone, at the size in which `overlay` would draw on it."""
    return _folded(_canvas(pixels, max_side_px, SHOWN_SIDE_PX))


def _canvas(pixels: Image, max_side_px: int | None, seen_side_px: int) -> _Canvas:
    height, width = pixels.shape[:2]
    rows = 1 if max_side_px is None else rows_of(width, height)
    longest = max(max(width, height) / rows, min(width, height) * rows)
    picture = PillowImage.fromarray(pixels)
    if max_side_px is not None and longest > max_side_px:
        scale = max_side_px / longest
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        picture = picture.resize(size, PillowImage.Resampling.BOX, reducing_gap=2.0)
    else:
        scale = max(int(SHOWN_SIDE_PX // longest), 1)
        if scale > 1:
            size = width * scale, height * scale
            picture = picture.resize(size, PillowImage.Resampling.BICUBIC)
    # A narrow strip has no room for letters that suit its length.
    seen = longest * scale, 2 * rows * min(picture.size)
    return _Canvas(picture, scale, max(min(seen) / seen_side_px, 0.5), rows)


def _folded(canvas: _Canvas) -> Image:
    band = canvas.px(1.4 * _FONT_PX)
    return fold(np.asarray(canvas.picture), canvas.rows, band_px=band, scale=canvas.scale)


def _listed(
    class_map: NDArray[np.uint8], found: Sequence[Finding], labels: Sequence[str]
) -> NDArray[np.uint8]:
    """The class map without what no finding lists: a region that the threshold leaves out."""
    kept = np.zeros_like(class_map)
    for finding in found:
        if finding.box is None:
            continue
        x1, y1, x2, y2 = finding.box
        window = slice(math.floor(y1), math.ceil(y2)), slice(math.floor(x1), math.ceil(x2))
        is_class = class_map[window] == labels.index(finding.label) + 1
        kept[window][is_class] = class_map[window][is_class]
    return kept


def _font(canvas: _Canvas) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(canvas.px(_FONT_PX))


def _dim_around(canvas: _Canvas, box: tuple[int, int, int, int]) -> _Canvas:
    x1, y1, x2, y2 = box
    bright = np.asarray(canvas.picture)
    dimmed = (bright * _DIMMED).astype(np.uint8)
    dimmed[max(y1, 0) : y2, max(x1, 0) : x2] = bright[max(y1, 0) : y2, max(x1, 0) : x2]
    return replace(canvas, picture=PillowImage.fromarray(dimmed))


def _draw_boxes(canvas: _Canvas, located: Sequence[Finding], *, bold: bool = False) -> None:
    drawing = ImageDraw.Draw(canvas.picture)
    for finding in reversed(located):  # the first, most probable one ends on top
        if finding.box is not None:
            _draw_box(drawing, canvas, canvas.box(finding.box), finding.label, bold=bold)


def _draw_box(
    drawing: ImageDraw.ImageDraw,
    canvas: _Canvas,
    box: tuple[int, int, int, int],
    label: str,
    *,
    bold: bool = False,
) -> None:
    """A dashed frame with its outer edge on the box, and a halo on both sides of it."""
    style = look(label)
    colour, halo = rgb(style.colour), ink_on(rgb(style.colour))
    line, rim = canvas.px(_LINE_PX * (2 if bold else 1)), canvas.px(_HALO_PX)
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1  # Pillow's corners are inclusive
    drawing.rectangle((x1 - rim, y1 - rim, x2 + rim, y2 + rim), None, halo, line + 2 * rim)
    pattern = tuple(canvas.px(part * _DASH_PX) for part in style.dash)
    for start, end in _dashes(x2 - x1 + 1, pattern):
        drawing.rectangle((x1 + start, y1, x1 + end - 1, min(y1 + line - 1, y2)), colour)
        drawing.rectangle((x1 + start, max(y2 - line + 1, y1), x1 + end - 1, y2), colour)
    for start, end in _dashes(y2 - y1 + 1, pattern):
        drawing.rectangle((x1, y1 + start, min(x1 + line - 1, x2), y1 + end - 1), colour)
        drawing.rectangle((max(x2 - line + 1, x1), y1 + start, x2, y1 + end - 1), colour)


def _dashes(length: int, pattern: Sequence[int]) -> list[tuple[int, int]]:
    """Start and end of each dash along an edge; one dash where the pattern is empty."""
    if not pattern:
        return [(0, length)]
    dashes, at, part = [], 0, 0
    while at < length:
        end = min(at + pattern[part % len(pattern)], length)
        if part % 2 == 0:
            dashes.append((at, end))
        at, part = end, part + 1
    return dashes


def _draw_names(
    canvas: _Canvas, located: Sequence[Finding], *, nameless: Sequence[Finding] = ()
) -> None:
    """A tag with number, class and probability beside each finding, where there is room."""
    drawing = ImageDraw.Draw(canvas.picture)
    font = _font(canvas)
    pad = canvas.px(3)
    texts = [f"{f.number} {title(f.label)} {number(f.probability)}" for f in located]
    halo = canvas.px(_HALO_PX) + 1  # a tag touches the halo of its box, not the box
    boxes = [
        (x1 - halo, y1 - halo, x2 + halo, y2 + halo)
        for x1, y1, x2, y2 in (canvas.box(f.box) for f in (*located, *nameless) if f.box)
    ]
    places = place_tags(
        boxes[: len(located)],
        [_extent(text, font, pad) for text in texts],
        [_extent(str(f.number), font, pad) for f in located],
        canvas.picture.size,
        row_px=row_length(canvas.picture.size, canvas.rows),
        nameless=boxes[len(located) :],
    )
    for finding, text, tag in zip(located, texts, places, strict=True):
        shown = str(finding.number) if tag.is_short else text
        width, height = _extent(shown, font, pad)
        colour = rgb(look(finding.label).colour)
        corner = (tag.x + width - 1, tag.y + height - 1)
        drawing.rectangle((tag.x, tag.y, *corner), fill=colour, outline=ink_on(colour))
        middle = (tag.x + width / 2, tag.y + height / 2)
        drawing.text(middle, shown, fill=ink_on(colour), font=font, anchor="mm")


def _extent(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, pad: int
) -> tuple[float, float]:
    _, top, _, bottom = font.getbbox("Ág")  # one height for all tags
    return font.getlength(text) + 2 * pad, bottom - top + pad


def _draw_bar(
    drawing: ImageDraw.ImageDraw,
    row: Finding,
    box: tuple[int, int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Class, a bar as long as it is probable, and the number."""
    left, top, right, bottom = box
    start, end = left + (right - left) * 2 // 5, right - (right - left) // 6
    edge = (bottom - top) // 4
    drawing.text((left, top), title(row.label), fill=_INK, font=font)
    drawing.rectangle((start, top + edge, end, bottom - edge), fill=_PALE)
    reached = start + round((end - start) * row.probability)
    if reached > start:
        drawing.rectangle((start, top + edge, reached, bottom - edge), rgb(look(row.label).colour))
    drawing.text((end + edge, top), number(row.probability), fill=_INK, font=font)
