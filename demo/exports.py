"""Results as files to take away: PNG with legend, JSON, CSV.

Files live in a folder of the app's own until a bounded number of newer ones has been made; the web
framework copies each into its cache when it hands it out. The folder goes with the app. What an app
left that was killed, the next one removes.
"""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
import threading
import weakref
from collections import deque
from itertools import count
from pathlib import Path
from typing import Final, Literal, get_args

from PIL import Image as PillowImage

from core.errors import InputError
from core.files import remove_stale
from core.records import Inspection
from core.types import Image
from demo.draw import Layers, sheet
from demo.words import findings

Kind = Literal["png", "json", "csv"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
_KEPT: Final = 16
_PREFIX: Final = "rollmark-export-"


class Exports:
    """Writes results to files and forgets the old ones."""

    def __init__(self) -> None:
        remove_stale(Path(tempfile.gettempdir()), f"{_PREFIX}*")
        self._root = Path(tempfile.mkdtemp(prefix=_PREFIX))
        weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)
        self._numbers = count()
        self._folders: deque[Path] = deque()
        self._lock = threading.Lock()

    def write(self, name: str, data: bytes) -> Path:
        """A file of that name with these bytes, in a folder of its own."""
        with self._lock:
            folder = self._root / str(next(self._numbers))
            folder.mkdir(parents=True)  # an idle app's root looks stale to another that starts
            self._folders.append(folder)
            old = [self._folders.popleft() for _ in range(len(self._folders) - _KEPT)]
        path = folder / name
        path.write_bytes(data)
        for past in old:
            shutil.rmtree(past, ignore_errors=True)
        return path


def encode(
    kind: Kind, pixels: Image, inspection: Inspection, *, labels: tuple[str, ...], layers: Layers
) -> bytes:
    """One result as the bytes of a file.

    Raises:
        InputError: if there is no such kind of file.
    """
    if kind == "png":
        buffer = io.BytesIO()
        drawn = sheet(pixels, inspection, labels=labels, layers=layers)
        PillowImage.fromarray(drawn).save(buffer, "PNG")
        return buffer.getvalue()
    if kind == "json":
        return inspection.model_dump_json(indent=2).encode()
    if kind == "csv":
        return as_csv(inspection).encode()
    raise InputError(f"Cannot write {kind!r}; {', '.join(KINDS)} are possible.")


def as_csv(inspection: Inspection) -> str:
    """One line a finding: number, class, probability, box and area in px of the source image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("number", "class", "probability", "x1", "y1", "x2", "y2", "area_px"))
    for row in findings(inspection):
        box = ("",) * 4 if row.box is None else tuple(round(edge, 2) for edge in row.box)
        area = "" if row.area_px is None else row.area_px
        writer.writerow((row.number, row.label, round(row.probability, 4), *box, area))
    return text.getvalue()


def file_name(picture: str, model: str, kind: Kind) -> str:
    """`plate 7.jpg` seen by grace becomes `plate_7_grace.png`; only harmless characters stay."""
    stem = "".join(
        c if c.isascii() and (c.isalnum() or c in "-_") else "_" for c in Path(picture).stem
    )
    return f"{stem[:60] or 'picture'}_{model}.{kind}"
