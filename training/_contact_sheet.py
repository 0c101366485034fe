"""Synthetic images to look at, a row each: where the defect comes from, before, after, closer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from core.files import write_atomically
from core.images import KEPT, decode

if TYPE_CHECKING:
    from core.types import Image
    from training.datasets import Dataset
    from training.synthesis import Trace

CELL = 200  # px
GAP = 8
_COLOUR = (194, 87, 26)  # RGB of the frames
_HEADS = ("source", "target", "synthetic", "synthetic, framed")


def draw_sheet(dataset: Dataset, traces: Sequence[Trace], path: Path, *, per_class: int) -> None:
    """Write a PNG with up to `per_class` synthetic images of each class, two to a row.

    Args:
        dataset: with the synthetic samples among its own.
        traces: of the synthetic samples.
        path: of the PNG.
        per_class: most images of each class; they are taken evenly from all of them.
    """
    places = {sample.file: sample.path for sample in dataset.samples}
    rows: list[Image] = []
    for label in dict.fromkeys(trace.label for trace in traces):
        own = [trace for trace in traces if trace.label == label]
        chosen = np.unique(np.linspace(0, len(own) - 1, min(per_class, len(own))).astype(int))
        rows += [_row(own[i], places) for i in chosen]
    if len(rows) % 2:
        rows.append(np.full_like(rows[0], 255))
    pairs = [np.hstack(rows[i : i + 2]) for i in range(0, len(rows), 2)]
    head = np.full((24, pairs[0].shape[1], 3), 255, np.uint8)
    for i in range(2 * len(_HEADS)):
        _say(head, _HEADS[i % len(_HEADS)], GAP + i * (CELL + GAP) + (i // 4) * GAP, 16)
    sheet = np.vstack([head, *pairs])
    _, encoded = cv2.imencode(".png", sheet[..., ::-1])
    write_atomically(path, encoded.tobytes())


def _row(trace: Trace, places: dict[str, Path]) -> Image:
    files = (trace.source_file, trace.target_file, trace.file, trace.file)
    boxes = (trace.source_box, None, None, trace.box)
    cells = [_cell(places[file], box) for file, box in zip(files, boxes, strict=True)]
    gap = np.full((CELL, GAP, 3), 255, np.uint8)
    row = np.hstack([part for cell in cells for part in (gap, cell)] + [gap])
    foot = np.full((20, row.shape[1], 3), 255, np.uint8)
    _say(foot, f"{trace.file}, mismatch {trace.mismatch:.1f}", GAP, 12)
    return np.vstack([row, foot])


def _cell(path: Path, box: tuple[int, int, int, int] | None) -> Image:
    pixels = decode(path, limits=KEPT).pixels
    scale = CELL / max(pixels.shape[:2])
    size = (round(pixels.shape[1] * scale), round(pixels.shape[0] * scale))
    shown = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    if box is not None:
        x1, y1, x2, y2 = (round(v * scale) for v in box)
        cv2.rectangle(shown, (x1, y1), (x2 - 1, y2 - 1), _COLOUR, 1)
    cell = np.full((CELL, CELL, 3), 255, np.uint8)
    cell[: size[1], : size[0]] = shown
    return cell


def _say(canvas: Image, text: str, x: int, y: int) -> None:
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (60, 60, 60), 1, cv2.LINE_AA)
