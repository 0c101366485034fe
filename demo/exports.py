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
from core.records import Inspection
from core.scratch import scratch
from core.types import Image
from demo.draw import Layers, beside, sheet
from demo.handlers import TILE_SIDE_PX, Compared
from demo.words import findings

Kind = Literal["png", "json", "csv"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_COLUMNS: Final = ("number", "class", "probability", "x1", "y1", "x2", "y2", "area_px")
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
) -> bytes:
    """One result as the bytes of a file; arguments are those of `draw.sheet`.

    Raises:
        InputError: if there is no such kind of file.
    """
    if kind == "png":
        return _png(sheet(pixels, inspection, labels=labels, layers=layers, note=note))
    if kind == "json":
        return inspection.model_dump_json(indent=2).encode()
    if kind == "csv":
        return as_csv(inspection).encode()
    raise InputError(f"Cannot write {kind!r}; {', '.join(KINDS)} are possible.")


def encode_comparison(kind: Kind, pixels: Image, compared: Compared) -> bytes:
    """What several models say of one picture as the bytes of a file, in the order of the page.

    Raises:
        InputError: if there is no such kind of file.
    """
    if kind == "png":
        drawn = beside(
            [
                sheet(pixels, seen, labels=of, layers=_laid(seen), max_side_px=TILE_SIDE_PX)
                for seen, of in zip(compared.inspections, compared.labels, strict=True)
            ]
        )
        return _png(drawn)
    if kind == "json":
        return json.dumps(compared.record(), indent=2).encode()
    if kind == "csv":
        lines: list[tuple[object, ...]] = [("model", *_COLUMNS)]
        for seen in compared.inspections:
            lines += [(seen.model, *row) for row in _rows(seen)]
        return _csv(lines).encode()
    raise InputError(f"Cannot write {kind!r}; {', '.join(KINDS)} are possible.")


def _laid(inspection: Inspection) -> Layers:
    """What a page draws unless it is told otherwise: boxes, or masks without boxes around them."""
    return Layers(boxes=inspection.task == "detect", mask=True, names=True)


def as_csv(inspection: Inspection) -> str:
    """One line a finding: number, class, probability, box and area in px of the source image."""
    return _csv([_COLUMNS, *_rows(inspection)])


def _rows(inspection: Inspection) -> Iterator[tuple[object, ...]]:
    for row in findings(inspection):
        box = ("",) * 4 if row.box is None else tuple(round(edge, 2) for edge in row.box)
        area = "" if row.area_px is None else row.area_px
        yield (row.number, row.label, round(row.probability, 4), *box, area)


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
