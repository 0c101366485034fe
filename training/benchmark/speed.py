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
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
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
from models._release import find_release, load_network, read_release
from models._tiling import tile
from training.benchmark.speed_app import measure_app
from training.benchmark.speed_contenders import OURS, Contender, Subject, contenders
from training.benchmark.speed_records import Growth, SpeedRecord, SubjectSpeed, Timing
from training.runs import describe_machine, git_commit

logger = logging.getLogger(__name__)

DETECTOR_SIZE = 640  # px at which the papers state their speed
STOCK = (
    ("yolo11", "n"),
    ("yolo11", "s"),
    ("grace", "s"),
)  # random weights: as fast as trained ones
GROWING = ((200, 200), (640, 640), (1024, 1024), (2048, 1024), (4096, 1024))  # width, height px
BATCH = 16
WARM_UP = 3


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
    paths: PathSettings, files: Sequence[Path], *, models: Sequence[str], cpus: int, quick: bool
) -> SpeedRecord:
    """Time everything that docs/benchmarks/speed.md says.

    Args:
        paths: of the settings; for the releases.
        files: real pictures.
        models: names; only those with a release are measured.
        cpus: what `use_cpus` returned.
        quick: few repetitions and no stock networks: to see that it works.

    Raises:
        WeightsError: if a release is damaged.
    """
    encoded = [file.read_bytes() for file in files]
    rounds, sweep = (5, 16) if quick else (100, 500)
    subjects = subjects_of(paths, models, stock=not quick)
    measured = [measure_subject(s, encoded, rounds=rounds, sweep=sweep) for s in subjects]
    released = [s for s in subjects if s.weights != "random" and s.task == "detect"]
    growth = measure_growth(released[0], encoded[0], rounds=2 if quick else 10) if released else ()
    app = measure_app(paths, files[0], cpus=cpus, requests=8 if quick else 64)
    packages = ("torch", "openvino", "ultralytics", "onnxruntime", "numpy", "pillow", "gradio")
    return SpeedRecord(
        machine=describe_machine("cpu"),
        cpus=cpus,
        precision=native_precision(),
        versions={name: version(name) for name in packages},
        git_commit=git_commit(),
        measured_at=datetime.now(UTC),
        quick=quick,
        images=f"{len(files)} pictures, the first {decode(encoded[0]).width} px wide",
        subjects=tuple(measured),
        growth=growth,
        app=app,
    )


def subjects_of(paths: PathSettings, models: Sequence[str], *, stock: bool) -> list[Subject]:
    """The releases at their own size, detectors at 640 px too, and stock networks beside them."""
    subjects = []
    for name in models:
        folder = release_of(name, paths)
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
    subject: Subject, encoded: Sequence[bytes], *, rounds: int, sweep: int
) -> SubjectSpeed:
    """Latency of single pictures and throughput in batches, of everyone who can run it."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="rollmark-speed-") as folder:
        ready, missing = contenders(subject, Path(folder))
        took = take_turns(ready, encoded, rounds=rounds)
        rates = {c.name: _images_per_s(c, encoded, sweep) for c in ready}
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
    ready: Sequence[Contender], encoded: Sequence[bytes], *, rounds: int
) -> dict[str, list[float]]:
    """Milliseconds of each single picture by contender; who begins changes every round."""
    for contender in ready:
        for number in range(WARM_UP):
            contender.ask([encoded[number % len(encoded)]])
    took: dict[str, list[float]] = {contender.name: [] for contender in ready}
    for number in range(rounds):
        first = number % len(ready)
        picture = [encoded[number % len(encoded)]]
        for contender in (*ready[first:], *ready[:first]):
            started = time.perf_counter()
            contender.ask(picture)
            took[contender.name].append((time.perf_counter() - started) * 1e3)
    return took


def _images_per_s(contender: Contender, encoded: Sequence[bytes], count: int) -> float:
    pictures = [encoded[i % len(encoded)] for i in range(count)]
    contender.ask(pictures[:BATCH])  # this size of a batch is new to it
    started = time.perf_counter()
    for start in range(0, count, BATCH):
        contender.ask(pictures[start : start + BATCH])
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


def release_of(name: str, paths: PathSettings) -> Path:
    """Folder of the release that the app would serve.

    Raises:
        WeightsNotFoundError: if there is none.
    """
    return find_release(name, bundled=paths.bundled, releases=paths.releases, fetched=paths.fetched)


def served_names(paths: PathSettings) -> tuple[str, ...]:
    """The models that have a release here."""
    found = []
    for name in names():
        with suppress(WeightsNotFoundError):
            release_of(name, paths)
            found.append(name)
    return tuple(found)
