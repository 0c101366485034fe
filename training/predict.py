"""A predictor over a folder of images, and the file that other programs read: predictions.json.

Two batches are on their way at a time: while the network looks at one, the other is decoded and
resized, or its boxes are sorted out, and threads write what came of the one before. Pillow and the
network libraries work outside Python's lock.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from core.errors import InputError
from core.images import DEFAULT_LIMITS, ImageLimits
from core.types import DecodedImage, Prediction, Predictor
from training.predictions import (
    Tally,
    decode_file,
    list_images,
    make_way,
    mask_names,
    write_document,
    write_entry,
)

logger = logging.getLogger(__name__)

BATCH = 16  # images looked at together
DECODERS, LOOKERS, WRITERS = 2, 2, 2  # threads

Seen = InputError | tuple[DecodedImage, Prediction]


def predict_folder(
    predictor: Predictor,
    images: Path,
    output: Path,
    *,
    score_threshold: float = 0.001,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Tally:
    """Look at every image of a folder and write `output/predictions.json`.

    Images are the files directly in the folder that are named as PNG, JPEG, BMP, TIFF or WebP, in
    order of their names. One that cannot be read gets an "error" in its entry; the others are
    still done. Class maps go to `output/masks/`, 8-bit index PNGs of the source's size. The file
    appears, or replaces an earlier one, when all is done; one whose masks are written over is taken
    away before.

    Args:
        predictor: of any task.
        images: the folder.
        output: made if missing.
        score_threshold: detections below it are left out.
        limits: a file beyond them is not opened.

    Returns:
        how many images there were, and how many of them could not be read.

    Raises:
        InputError: if `images` is no folder or holds no image, or `output` cannot be written.
    """
    files = list_images(images)
    try:
        make_way(predictor, output)
        seen = look(predictor, files, score_threshold, limits)
        return write_document(predictor, _entries(seen, mask_names(files), output), output)
    except OSError as exc:
        raise InputError(f"Cannot write to {output}: {exc.strerror or exc}.") from exc


def _entries(
    looked: Iterable[tuple[Path, Seen]], masks: Mapping[Path, str], output: Path
) -> Iterator[dict[str, Any]]:
    """The entry of each image, in order, its class map written."""
    with ThreadPoolExecutor(WRITERS, thread_name_prefix="write") as writers:
        written: deque[Future[dict[str, Any]]] = deque()
        for file, seen in looked:
            if isinstance(seen, InputError):
                logger.info("%s: %s", file.name, seen)
            written.append(writers.submit(write_entry, file, seen, mask=masks[file], output=output))
            if len(written) > BATCH:  # no more answers in memory than that
                yield written.popleft().result()
        while written:
            yield written.popleft().result()


def look(
    predictor: Predictor,
    files: Sequence[Path],
    score_threshold: float,
    limits: ImageLimits = DEFAULT_LIMITS,
) -> Iterator[tuple[Path, Seen]]:
    """Each file with what was seen in it, or with why nothing was, in order."""
    console = Console(stderr=True)
    batches = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    description = f"{predictor.spec.name} on {len(files)} images"
    with (
        ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as decoders,
        ThreadPoolExecutor(LOOKERS, thread_name_prefix="look") as lookers,
    ):
        ask = partial(_seen, predictor, score_threshold, limits, decoders)
        coming = deque(lookers.submit(ask, batch) for batch in batches[:LOOKERS])
        for number in track(
            range(len(batches)),
            description,
            console=console,
            disable=not console.is_terminal,
            transient=True,
        ):
            seen = coming.popleft().result()
            if number + LOOKERS < len(batches):
                coming.append(lookers.submit(ask, batches[number + LOOKERS]))
            yield from zip(batches[number], seen, strict=True)


def _seen(
    predictor: Predictor,
    score_threshold: float,
    limits: ImageLimits,
    decoders: Executor,
    files: Sequence[Path],
) -> list[Seen]:
    """What was seen in each file of a batch."""
    decoded = list(decoders.map(partial(decode_file, limits=limits), files))
    readable = [image for image in decoded if not isinstance(image, InputError)]
    answers = iter(predictor(readable, score_threshold=score_threshold) if readable else ())
    return [image if isinstance(image, InputError) else (image, next(answers)) for image in decoded]
