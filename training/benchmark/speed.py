"""How fast, beside what people use instead: everyone in one process, taking turns.

Contenders ask for the same pictures one after the other, each round in another order, so that
whatever else the machine does meets all of them alike.
"""

from __future__ import annotations

import gc
import logging
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PILImage

from core.errors import ConfigError, WeightsNotFoundError
from core.images import decode
from core.settings import PathSettings
from core.taxonomy import labels as labels_of
from core.taxonomy import native_side
from models import get_spec, names
from models._openvino import native_precision
from models._release import load_network, read_release
from models._tiling import tile
from training.benchmark.speed_aims import OURS
from training.benchmark.speed_app import measure_app
from training.benchmark.speed_contenders import Contender, Subject, contenders
from training.benchmark.speed_records import Growth, SpeedRecord, SubjectSpeed, Timing
from training.predict import BATCH
from training.runs import describe_machine, git_commit
from training.served import served_release

logger = logging.getLogger(__name__)

DETECTOR_SIZE = 640  # px at which the papers state their speed
STOCK = (
    ("yolo11", "n"),
    ("yolo11", "s"),
    ("grace", "s"),
)  # random weights: as fast as trained ones
GROWING = ((200, 200), (640, 640), (1024, 1024), (2048, 1024), (4096, 1024))  # width, height px
WARM_UP = 3
FEWEST = 10  # rounds, however long they take


def use_cpus(count: int | None) -> int:
    """Confine this process to so many CPUs, so that every library sees the same; returns how many.

    To be called before any of them has started its threads.

    Raises:
        ConfigError: if there are fewer.
    """
    free = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if count is not None:
        if count > len(free):
            raise ConfigError(f"{count} CPUs were asked for; this process may use {len(free)}.")
        os.sched_setaffinity(0, free[:count])
        free = free[:count]
    used = len(free) or os.cpu_count() or 1
    torch.set_num_threads(used)
    return used


def measure(
    paths: PathSettings,
    files: Sequence[Path],
    *,
    models: Sequence[str],
    cpus: int,
    quick: bool,
    patience_s: float = 60,
) -> SpeedRecord:
    """Time everything that docs/benchmarks/speed.md says.

    Args:
        paths: of the settings; for the releases.
        files: real pictures.
        models: names; only those with a release are measured.
        cpus: what `use_cpus` returned.
        quick: few repetitions and no stock networks: to see that it works.
        patience_s: longest that the contenders for one network take turns, and longest for the
            slowest of them with a folder; what does not fit is not asked.

    Raises:
        WeightsError: if a release is damaged.
    """
    before = os.getloadavg()[0]
    encoded = [file.read_bytes() for file in files]
    rounds, sweep = (5, 2 * BATCH) if quick else (100, 500)
    subjects = subjects_of(paths, models, stock=not quick)
    measured = [
        measure_subject(s, encoded, rounds=rounds, sweep=sweep, patience_s=patience_s)
        for s in subjects
    ]
    released = [s for s in subjects if s.weights != "random" and s.task == "detect"]
    growth = measure_growth(released[0], encoded[0], rounds=2 if quick else 10) if released else ()
    app = measure_app(paths, files[0], cpus=cpus, each=4 if quick else 60, patience_s=patience_s)
    packages = ("torch", "openvino", "ultralytics", "onnxruntime", "numpy", "pillow", "gradio")
    return SpeedRecord(
        machine=describe_machine("cpu"),
        cpus=cpus,
        precision=native_precision(),
        versions=_versions(packages),
        git_commit=git_commit(),
        measured_at=datetime.now(UTC),
        quick=quick,
        images=f"{len(files)} pictures, the first {decode(encoded[0]).width} px wide",
        load=(round(before, 1), round(os.getloadavg()[0], 1)),
        subjects=tuple(measured),
        growth=growth,
        app=app,
    )


def _versions(packages: Iterable[str]) -> dict[str, str]:
    """Of those that are here: a rival that is not was told as one, and spoils no record."""
    found = {}
    for name in packages:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def subjects_of(paths: PathSettings, models: Sequence[str], *, stock: bool) -> list[Subject]:
    """The releases at their own size, detectors at 640 px too, and stock networks beside them."""
    subjects = []
    for name in models:
        folder = served_release(name, None, paths)
        config = read_release(folder)
        own = Subject(
            model=name,
            scale=config.scale,
            image_size=config.image_size,
            labels=config.labels,
            dataset=config.dataset,
            weights=config.revision,
            build=partial(load_network, folder, config),
        )
        subjects.append(own)
        if own.task == "detect" and own.image_size != DETECTOR_SIZE and stock:
            subjects.append(replace(own, image_size=DETECTOR_SIZE))
    for name, scale in STOCK if stock else ():
        names_of_classes = labels_of("neu-det")
        subjects.append(
            Subject(
                model=name,
                scale=scale,
                image_size=DETECTOR_SIZE,
                labels=names_of_classes,
                dataset="neu-det",
                weights="random",
                build=partial(get_spec(name).build, len(names_of_classes), scale),
            )
        )
    return subjects


def measure_subject(
    subject: Subject, encoded: Sequence[bytes], *, rounds: int, sweep: int, patience_s: float
) -> SubjectSpeed:
    """Latency of single pictures and throughput over a folder, of everyone who can run it."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="rollmark-speed-") as name:
        folder = Path(name)
        ready, missing = contenders(subject, folder)
        took = take_turns(ready, encoded, rounds=rounds, patience_s=patience_s)
        slowest_s = max(float(np.median(samples)) for samples in took.values()) / 1e3
        swept = min(sweep, max(int(patience_s / slowest_s), 2 * BATCH))
        few = _folder_of(encoded, 2 * BATCH, folder / "few")
        many = _folder_of(encoded, swept, folder / "many")
        rates = {c.name: _images_per_s(c, few, many) for c in ready}
    timings = []
    for name, samples in took.items():
        p50, p95, p99 = np.percentile(samples, (50, 95, 99))
        timings.append(
            Timing(
                contender=name,
                n=len(samples),
                p50_ms=round(float(p50), 2),
                p95_ms=round(float(p95), 2),
                p99_ms=round(float(p99), 2),
                images_per_s=round(rates[name], 2),
                swept=swept,
            )
        )
        logger.info("%s at %d: %s %.1f ms", subject.model, subject.image_size, name, p50)
    for name, why in missing.items():
        logger.warning("%s at %d: %s: %s", subject.model, subject.image_size, name, why)
    gc.collect()
    return SubjectSpeed(
        model=subject.model,
        scale=subject.scale,
        task=subject.task,
        image_size=subject.image_size,
        weights=subject.weights,
        timings=tuple(timings),
        missing=missing,
    )


def take_turns(
    ready: Sequence[Contender],
    encoded: Sequence[bytes],
    *,
    rounds: int,
    patience_s: float = float("inf"),
) -> dict[str, list[float]]:
    """Milliseconds of each single picture by contender; who begins changes every round.

    There are at least FEWEST rounds, and none begins after `patience_s`.
    """
    for contender in ready:
        for number in range(WARM_UP):
            contender.ask([encoded[number % len(encoded)]])
    took: dict[str, list[float]] = {contender.name: [] for contender in ready}
    began = time.perf_counter()
    for number in range(rounds):
        if number >= FEWEST and time.perf_counter() - began > patience_s:
            break
        first = number % len(ready)
        picture = [encoded[number % len(encoded)]]
        for contender in (*ready[first:], *ready[:first]):
            started = time.perf_counter()
            contender.ask(picture)
            took[contender.name].append((time.perf_counter() - started) * 1e3)
    return took


def _folder_of(encoded: Sequence[bytes], count: int, folder: Path) -> Path:
    """A folder of so many pictures, each as often as need be."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:04}.jpg").write_bytes(encoded[number % len(encoded)])
    return folder


def _images_per_s(contender: Contender, few: Path, many: Path) -> float:
    contender.sweep(few)  # batches are new to it
    started = time.perf_counter()
    count = contender.sweep(many)
    return count / (time.perf_counter() - started)


def measure_growth(subject: Subject, picture: bytes, *, rounds: int) -> tuple[Growth, ...]:
    """Latency of ever larger pictures, made of one real picture side by side."""
    with tempfile.TemporaryDirectory(prefix="rollmark-speed-") as folder:
        ready, _ = contenders(subject, Path(folder), only=(OURS,))
        grown = []
        for width, height in GROWING:
            enlarged = _repeated(picture, width, height)
            samples = take_turns(ready, [enlarged], rounds=rounds)[OURS]
            native = native_side(subject.dataset) or subject.image_size
            tiling = tile(width, height, native_px=native, image_size=subject.image_size)
            grown.append(
                Growth(
                    model=subject.model,
                    width=width,
                    height=height,
                    tiles=1 if tiling is None else len(tiling.corners),
                    n=len(samples),
                    p50_ms=round(float(np.median(samples)), 2),
                )
            )
    return tuple(grown)


def _repeated(picture: bytes, width: int, height: int) -> bytes:
    pixels = decode(picture).pixels
    times = (-(-height // pixels.shape[0]), -(-width // pixels.shape[1]), 1)
    buffer = BytesIO()
    PILImage.fromarray(np.tile(pixels, times)[:height, :width]).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def served_names(paths: PathSettings) -> tuple[str, ...]:
    """The models that have a release here."""
    found = []
    for name in names():
        with suppress(WeightsNotFoundError):
            served_release(name, None, paths)
            found.append(name)
    return tuple(found)
