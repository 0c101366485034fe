"""A predictor over a folder of images, and the file that other programs read: predictions.json."""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage
from rich.console import Console
from rich.progress import track

from core.errors import InputError
from core.files import write_atomically
from core.images import decode
from core.types import (
    Classification,
    DecodedImage,
    Detections,
    Prediction,
    Predictor,
    Segmentation,
)

logger = logging.getLogger(__name__)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
PREDICTIONS_FILE = "predictions.json"
MASKS = "masks"
BATCH = 16  # images decoded at a time


def predict_folder(
    predictor: Predictor, images: Path, output: Path, *, score_threshold: float = 0.001
) -> int:
    """Look at every image of a folder and write `output/predictions.json`.

    Images are the files directly in the folder that are named as PNG, JPEG, BMP, TIFF or WebP, in
    order of their names. One that cannot be read gets an "error" in its entry; the others are
    still done. Class maps go to `output/masks/`, 8-bit index PNGs of the source's size. The file
    appears, or replaces an earlier one, when all is done.

    Args:
        predictor: of any task.
        images: the folder.
        output: made if missing.
        score_threshold: detections below it are left out.

    Returns:
        how many images could not be read.

    Raises:
        InputError: if `images` is no folder or holds no image, or `output` cannot be written.
    """
    if not images.is_dir():
        raise InputError(f"{images} is not a folder: give the folder that holds the images.")
    files = sorted(f for f in images.iterdir() if f.suffix.lower() in SUFFIXES and f.is_file())
    if not files:
        raise InputError(f"{images} holds no PNG, JPEG, BMP, TIFF or WebP image.")
    masks = _mask_names(files)
    entries: list[dict[str, Any]] = []
    try:
        for file, looked_at in _look(predictor, files, score_threshold):
            if isinstance(looked_at, InputError):
                logger.info("%s: %s", file.name, looked_at)
                entries.append({"file": file.name, "error": str(looked_at)})
                continue
            image, prediction = looked_at
            size = {"width": image.width, "height": image.height}
            if isinstance(prediction, Segmentation):
                write_atomically(output / masks[file], index_png(prediction.class_map))
            entries.append({"file": file.name, **size, **_answer(prediction, masks[file])})
        document = {
            "task": predictor.spec.task,
            "model": predictor.spec.name,
            "revision": predictor.revision,
            "labels": list(predictor.labels),
            "images": entries,
        }
        write_atomically(output / PREDICTIONS_FILE, json.dumps(document, indent=1).encode())
    except OSError as exc:
        raise InputError(f"Cannot write to {output}: {exc.strerror or exc}.") from exc
    failed = sum("error" in entry for entry in entries)
    logger.info("predicted %d images, %d unreadable, to %s", len(files), failed, output)
    return failed


def index_png(class_map: NDArray[np.uint8]) -> bytes:
    """A class map as an 8-bit grey PNG whose values are the class indices."""
    buffer = io.BytesIO()
    PILImage.fromarray(class_map).save(buffer, format="PNG")
    return buffer.getvalue()


def _look(
    predictor: Predictor, files: Sequence[Path], score_threshold: float
) -> Iterator[tuple[Path, InputError | tuple[DecodedImage, Prediction]]]:
    """Each file with what was seen in it, or with why nothing was, in order."""
    console = Console(stderr=True)
    starts = range(0, len(files), BATCH)
    description = f"{predictor.spec.name} on {len(files)} images"
    for start in track(
        starts, description, console=console, disable=not console.is_terminal, transient=True
    ):
        decoded = [_decode(file) for file in files[start : start + BATCH]]
        readable = [image for image in decoded if not isinstance(image, InputError)]
        predictions = iter(predictor(readable, score_threshold=score_threshold) if readable else ())
        for file, image in zip(files[start : start + BATCH], decoded, strict=True):
            yield file, image if isinstance(image, InputError) else (image, next(predictions))


def _decode(file: Path) -> DecodedImage | InputError:
    try:
        return decode(file)
    except InputError as exc:
        return exc
    except OSError as exc:
        return InputError(f"{file.name} cannot be opened: {exc.strerror or exc}.")


def _mask_names(files: Sequence[Path]) -> dict[Path, str]:
    """A mask file for each image: `masks/a.png`, or `masks/a.jpg.png` where stems collide.

    Compared without case: some file systems keep A.png and a.png in one place.
    """
    stems = Counter(file.stem.casefold() for file in files)
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        base = file.stem if stems[file.stem.casefold()] == 1 else file.name
        name, count = base, 1
        while name.casefold() in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name.casefold())
        names[file] = f"{MASKS}/{name}.png"
    return names


def _answer(prediction: Prediction, mask: str) -> dict[str, Any]:
    """The part of an image's entry that depends on the task."""
    match prediction:
        case Detections():
            found = zip(prediction.class_ids, prediction.scores, prediction.xyxy, strict=True)
            return {
                "detections": [
                    {
                        "label": prediction.labels[class_id],
                        "score": float(score),
                        "box": [float(v) for v in box],
                    }
                    for class_id, score, box in found
                ]
            }
        case Segmentation():
            return {"mask": mask}
        case Classification():
            pairs = zip(prediction.labels, prediction.probabilities, strict=True)
            return {"probabilities": {label: float(p) for label, p in pairs}}
        case _:
            assert_never(prediction)
