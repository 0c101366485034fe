"""Results as files to take away: PNG with legend, JSON, CSV.

Files live in a folder of the app's own until a bounded number of newer ones has been made; the web
framework copies each into its cache when it hands it out. The folder goes with the app.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Final, Literal, get_args

from PIL import Image as PillowImage

from core.errors import InputError
from core.pitch import PixelPitch
from core.records import Inspection
from core.scratch import scratch
from core.types import Image
from demo.draw import Layers, beside, sheet, usual_layers
from demo.handlers import TILE_SIDE_PX, Compared
from demo.words import Finding, findings

Kind = Literal["png", "json", "csv"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_COLUMNS: Final = ("number", "class", "probability", "x1", "y1", "x2", "y2", "area_px")
_COLUMNS_MM: Final = ("width_mm", "height_mm", "area_mm2")  # where it is known what a px shows
_TOLERATED: Final = "tolerated"  # where the mill has rules
_KEPT: Final = 16


class Exports:
    """Writes results to files and forgets the old ones."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="export-", dir=scratch()))
        self._numbers = count()
        self._folders: deque[Path] = deque()
        self._lock = threading.Lock()

    def write(self, name: str, data: bytes) -> Path:
        """A file of that name with these bytes, in a folder of its own."""
        with self._lock:
            folder = self._root / str(next(self._numbers))
            folder.mkdir()
            self._folders.append(folder)
            old = [self._folders.popleft() for _ in range(len(self._folders) - _KEPT)]
        path = folder / name
        path.write_bytes(data)
        for past in old:
            shutil.rmtree(past, ignore_errors=True)
        return path


def encode(
    kind: Kind,
    pixels: Image,
    inspection: Inspection,
    *,
    labels: tuple[str, ...],
    layers: Layers,
    note: str = "",
    pitch: PixelPitch | None = None,
    ruled: bool = False,
) -> bytes:
    """One result as the bytes of a file; arguments are those of `draw.sheet` and `as_csv`.

    Raises:
        InputError: if there is no such kind of file.
    """
    if kind == "png":
        return _png(sheet(pixels, inspection, labels=labels, layers=layers, note=note))
    if kind == "json":
        return inspection.model_dump_json(indent=2).encode()
    if kind == "csv":
        return as_csv(inspection, pitch, ruled=ruled).encode()
    raise InputError(f"Cannot write {kind!r}; {', '.join(KINDS)} are possible.")


def encode_comparison(
    kind: Kind,
    pixels: Image,
    compared: Compared,
    pitch: PixelPitch | None = None,
    *,
    ruled: bool = False,
) -> bytes:
    """What several models say of one picture as the bytes of a file, in the order of the page.

    Raises:
        InputError: if there is no such kind of file.
    """
    if kind == "png":
        drawn = beside(
            [
                sheet(pixels, seen, labels=of, layers=usual_layers(seen), max_side_px=TILE_SIDE_PX)
                for seen, of in zip(compared.inspections, compared.labels, strict=True)
            ]
        )
        return _png(drawn)
    if kind == "json":
        return json.dumps(compared.record(), indent=2).encode()
    if kind == "csv":
        lines: list[tuple[object, ...]] = [("model", *_COLUMNS, *last_columns(pitch, ruled=ruled))]
        for seen in compared.inspections:
            lines += [(seen.model, *row) for row in _rows(seen, pitch, ruled=ruled)]
        return _csv(lines).encode()
    raise InputError(f"Cannot write {kind!r}; {', '.join(KINDS)} are possible.")


def as_csv(inspection: Inspection, pitch: PixelPitch | None = None, *, ruled: bool = False) -> str:
    """One line a finding: number, class, probability, box and area in px of the source image.

    With the steel that one pixel shows, width and height in mm and area in mm² stand at the end;
    where the mill has rules (`ruled`), "yes" stands last in the line of a finding that may stay.
    """
    lines = _rows(inspection, pitch, ruled=ruled)
    return _csv([(*_COLUMNS, *last_columns(pitch, ruled=ruled)), *lines])


def last_columns(pitch: PixelPitch | None, *, ruled: bool) -> tuple[str, ...]:
    """The head of what `last_cells` tells."""
    return (*(() if pitch is None else _COLUMNS_MM), *((_TOLERATED,) if ruled else ()))


def in_px(finding: Finding) -> tuple[object, ...]:
    """x1, y1, x2, y2 and area in px of the source image; empty cells where there is none."""
    box = ("",) * 4 if finding.box is None else tuple(round(edge, 2) for edge in finding.box)
    return (*box, "" if finding.area_px is None else finding.area_px)


def last_cells(finding: Finding, pitch: PixelPitch | None, *, ruled: bool) -> tuple[object, ...]:
    """What only some installations have: sizes in mm, and whether the mill's rules let it stay."""
    return (*_in_mm(finding, pitch), *(("yes" if finding.tolerated else "",) if ruled else ()))


def _in_mm(finding: Finding, pitch: PixelPitch | None) -> tuple[object, ...]:
    """Width and height in mm and area in mm², in four digits; nothing without a pitch."""
    if pitch is None:
        return ()
    sides = ("", "") if finding.box is None else map(_four_digits, pitch.size_mm(finding.box))
    area = "" if finding.area_px is None else _four_digits(pitch.area_mm2(finding.area_px))
    return (*sides, area)


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def _rows(
    inspection: Inspection, pitch: PixelPitch | None, *, ruled: bool
) -> Iterator[tuple[object, ...]]:
    for row in findings(inspection):
        shown = (row.number, row.label, round(row.probability, 4))
        yield (*shown, *in_px(row), *last_cells(row, pitch, ruled=ruled))


def _csv(lines: Iterable[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def _png(drawn: Image) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(drawn).save(buffer, "PNG")
    return buffer.getvalue()


def file_name(picture: str, model: str, kind: Kind) -> str:
    """`plate 7.jpg` seen by grace becomes `plate_7_grace.png`; only harmless characters stay."""
    stem = "".join(
        c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in Path(picture).stem
    )
    return f"{stem[:60] or 'picture'}_{model}.{kind}"
