"""What `predictions.json` and the masks beside it hold, whoever computes them.

One entry an image: its file name, its size and the answer of its task, or an `error`.
"""

from __future__ import annotations

import io
import json
import logging
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, assert_never

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PILImage

from core.errors import InputError
from core.files import remove_unfinished, write_atomically
from core.images import SUFFIXES, ImageLimits, decode
from core.types import Classification, DecodedImage, Detections, Prediction, Predictor, Segmentation

logger = logging.getLogger(__name__)

_LONGEST = 240  # bytes of a mask's name; no disk takes more than 255, of which we need some
PREDICTIONS_FILE = "predictions.json"
MASKS = "masks"


class Tally(NamedTuple):
    """How many images were looked at, and how many of them could not be read."""

    images: int
    unreadable: int


def list_images(folder: Path) -> list[Path]:
    """What lies directly in a folder and is named as an image, in order of the names.

    A link that leads nowhere is one of them: it is told that its image cannot be opened. What a
    Mac leaves beside a picture on a foreign disk, `._a.jpg` beside `a.jpg`, is none.

    Raises:
        InputError: if `folder` is no folder or holds no image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the images.")
    named = (f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES)
    files = sorted(f for f in named if not f.name.startswith("._") and not f.is_dir())
    if not files:
        raise InputError(f"{folder} holds no PNG, JPEG, BMP, TIFF or WebP image.")
    return files


def write_entry(
    file: Path,
    seen: InputError | tuple[DecodedImage, Prediction],
    *,
    mask: str,
    output: Path,
) -> dict[str, Any]:
    """The entry of one image; a class map goes to `output / mask` first.

    Raises:
        OSError: if the class map cannot be written.
    """
    if isinstance(seen, InputError):
        return {"file": file.name, "error": str(seen)}
    image, prediction = seen
    size = {"width": image.width, "height": image.height}
    if isinstance(prediction, Segmentation):
        write_atomically(output / mask, index_png(prediction.class_map))
    return {"file": file.name, **size, **_answer(prediction, mask)}


def make_way(predictor: Predictor, output: Path) -> None:
    """Take away an earlier document whose masks are about to be written over.

    Cut off half-way, the new ones would be taken for its own.

    Raises:
        OSError: if it cannot be removed.
    """
    remove_unfinished(output, PREDICTIONS_FILE)
    if predictor.spec.task == "segment":
        (output / PREDICTIONS_FILE).unlink(missing_ok=True)


def write_document(
    predictor: Predictor, entries: Iterable[Mapping[str, Any]], output: Path
) -> Tally:
    """Write the whole of `output/predictions.json`, entry by entry as they come, and count them.

    Raises:
        OSError: if it cannot be written.
    """
    counts: Counter[bool] = Counter()

    def pieces() -> Iterator[bytes]:
        about = {
            "task": predictor.spec.task,
            "model": predictor.spec.name,
            "revision": predictor.revision,
            "labels": list(predictor.labels),
            "images": [],
        }
        yield json.dumps(about, indent=1).removesuffix("]\n}").encode()
        for entry in entries:
            text = textwrap.indent(json.dumps(entry, indent=1), "  ")
            yield f"{',' if counts else ''}\n{text}".encode()
            counts["error" in entry] += 1
        yield b"\n ]\n}" if counts else b"]\n}"

    write_atomically(output / PREDICTIONS_FILE, pieces())
    tally = Tally(counts.total(), counts[True])
    logger.info("predicted %d images, %d unreadable, to %s", *tally, output)
    return tally


def index_png(class_map: NDArray[np.uint8]) -> bytes:
    """A class map as an 8-bit grey PNG whose values are the class indices."""
    buffer = io.BytesIO()
    PILImage.fromarray(class_map).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_file(file: Path, limits: ImageLimits) -> DecodedImage | InputError:
    """The decoded image, or why there is none."""
    try:
        return decode(file, limits=limits)
    except InputError as exc:
        return exc
    except OSError as exc:
        return InputError(f"{file.name} cannot be opened: {exc.strerror or exc}.")


def mask_names(files: Sequence[Path]) -> dict[Path, str]:
    """A mask file for each image: `masks/a.png`, or `masks/a.jpg.png` where stems collide.

    Compared without case: some file systems keep A.png and a.png in one place.
    """
    stems = Counter(file.stem.casefold() for file in files)
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        base = _cut(file.stem if stems[file.stem.casefold()] == 1 else file.name)
        name, count = base, 1
        while name.casefold() in taken:
            count += 1
            name = f"{base}-{count}"
        taken.add(name.casefold())
        names[file] = f"{MASKS}/{name}.png"
    return names


def _cut(name: str) -> str:
    """As much of a name as a disk takes."""
    while len(os.fsencode(name)) > _LONGEST:
        name = name[:-1]
    return name


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
