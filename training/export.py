"""Samples as a folder that ultralytics can train on. Segmenter and classifier read Samples."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from PIL import Image as PILImage

from core.errors import DatasetError
from core.images import KEPT, decode
from training.datasets import Dataset, Sample

_ORIENTATION: Final = 0x0112  # EXIF tag; 1 is upright


def to_yolo_folder(
    dataset: Dataset,
    protocol: str,
    folder: Path,
    *,
    splits: Sequence[str] = ("train", "val", "test"),
) -> None:
    """Write `images/SPLIT` and `labels/SPLIT`; an older export there is replaced.

    Images are links to the prepared set (copies where links are impossible), so the caches that
    ultralytics drops beside labels stay in this folder and never reach the data set. Those with
    transparency, and a WebP that was turned, are written anew, as they are inspected.

    Args:
        dataset: a detection set.
        protocol: paper or leak-free.
        folder: where the export goes.
        splits: which splits; joined ones such as "val+test" become one folder "val+test".

    Raises:
        DatasetError: if the set has no boxes to detect, or a split is unknown.
        InputError: if a picture that is written anew cannot be read.
    """
    if dataset.task != "detect":
        raise DatasetError(f"{dataset.name} is a {dataset.task} set; only boxes go to YOLO form.")
    for part in ("images", "labels"):
        shutil.rmtree(folder / part, ignore_errors=True)
    for split in splits:
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for sample in dataset.split(protocol, split):
            source = sample.path.resolve()
            if _is_read_otherwise(source):
                pixels = decode(source, limits=KEPT).pixels
                PILImage.fromarray(pixels).save(images / sample.file, lossless=True)
            else:
                _link(source, images / sample.file)
            text = _yolo_lines(sample, dataset.labels)
            (labels / sample.file).with_suffix(".txt").write_text(text, "utf-8")


def _yolo_lines(sample: Sample, labels: Sequence[str]) -> str:
    """One line a box: class id, then centre and size as fractions of the image."""
    lines = []
    for label, (x1, y1, x2, y2) in sample.boxes:
        cx, cy = (x1 + x2) / 2 / sample.width, (y1 + y2) / 2 / sample.height
        w, h = (x2 - x1) / sample.width, (y2 - y1) / sample.height
        lines.append(f"{labels.index(label)} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n")
    return "".join(lines)


def _link(source: Path, target: Path) -> None:
    """Hard link, else symbolic link, else copy: whatever the file systems allow."""
    makers = (os.link, os.symlink, shutil.copyfile)
    # ultralytics saves a JPEG without an end marker anew, in place: never through a link
    for make in makers if _is_complete(source) else (shutil.copyfile,):
        try:
            make(source, target)
        except OSError:
            continue
        return
    raise DatasetError(f"{source} can neither be linked nor copied to {target}.")


def _is_read_otherwise(source: Path) -> bool:
    """Whether ultralytics would learn from another picture than is inspected and labelled.

    It drops transparency, which lies over white here, and leaves a WebP turned as it was taken.
    """
    if source.suffix.lower() in (".jpg", ".jpeg", ".bmp"):
        return False
    try:
        with PILImage.open(source) as picture:
            is_turned = picture.format == "WEBP" and picture.getexif().get(_ORIENTATION, 1) != 1
            return picture.has_transparency_data or is_turned
    except OSError:
        return False  # whoever reads it will say what is wrong with it


def _is_complete(source: Path) -> bool:
    if source.suffix.lower() not in (".jpg", ".jpeg"):
        return True
    with source.open("rb") as file:
        file.seek(-min(2, source.stat().st_size), os.SEEK_END)
        return file.read() == b"\xff\xd9"
