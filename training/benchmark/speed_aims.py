"""What was aimed at in speed, and what of it the record shows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from training.benchmark.speed_records import AppSpeed, Clients, SpeedRecord, SubjectSpeed, Timing

OURS: Final = "Rollmark"
PLAIN_TORCH: Final = "plain torch"
ULTRALYTICS: Final = "ultralytics predict"
ULTRALYTICS_OPENVINO: Final = "ultralytics, its OpenVINO export"
_DETECTOR_SIZE: Final = 640  # px at which detectors are judged
_NOT_MEASURED: Final = "not measured"


@dataclass(frozen=True, slots=True)
class Aim:
    """One aim in words; `is_reached` is None where nothing was measured."""

    what: str
    wanted: str
    measured: str = _NOT_MEASURED
    is_reached: bool | None = None


def aims(speed: SpeedRecord) -> Iterator[Aim]:
    """Every aim, in the order in which they were set."""
    detectors = [s for s in speed.subjects if s.task == "detect" and s.image_size == _DETECTOR_SIZE]
    others = [s for s in speed.subjects if s.task != "detect"]
    at = f"detectors at {_DETECTOR_SIZE} px"
    yield _times(f"{at}, faster than {ULTRALYTICS}", 5.0, detectors, ULTRALYTICS, _latency)
    export = "ultralytics' OpenVINO export"
    yield _times(f"{at}, beside {export}", 1.0, detectors, ULTRALYTICS_OPENVINO, _latency)
    yield _times(
        f"{at}, throughput beside {export}", 1.3, detectors, ULTRALYTICS_OPENVINO, _throughput
    )
    yield _grace(speed)
    yield _times("segmenter and classifier, beside plain torch", 3.0, others, PLAIN_TORCH, _latency)
    yield from _of_app(speed.app)


def _latency(ours: Timing, theirs: Timing) -> float | None:
    return theirs.p50_ms / ours.p50_ms


def _throughput(ours: Timing, theirs: Timing) -> float | None:
    if not ours.images_per_s or not theirs.images_per_s:
        return None
    return ours.images_per_s / theirs.images_per_s


def _times(
    what: str,
    wanted: float,
    subjects: list[SubjectSpeed],
    rival: str,
    ratio: Callable[[Timing, Timing], float | None],
) -> Aim:
    """How many times faster than a rival, at worst and at best."""
    found: list[tuple[float, str]] = []
    for subject in subjects:
        timings = {timing.contender: timing for timing in subject.timings}
        if OURS in timings and rival in timings:
            times = ratio(timings[OURS], timings[rival])
            if times is not None:
                found.append((times, f"{subject.model} {subject.scale}"))
    aim = f"≥ {wanted:.1f} ×"
    if not found:
        return Aim(what, aim)
    (worst, where), (best, _) = min(found), max(found)
    measured = f"{worst:.2f} × ({where}) to {best:.2f} ×" if len(found) > 1 else f"{worst:.2f} ×"
    return Aim(what, aim, measured, worst >= wanted)


def _grace(speed: SpeedRecord) -> Aim:
    what, wanted = f"GRACE of scale s at {_DETECTOR_SIZE} px, one picture", 25.0
    for subject in speed.subjects:
        if (subject.model, subject.scale, subject.image_size) == ("grace", "s", _DETECTOR_SIZE):
            for timing in subject.timings:
                if timing.contender == OURS:
                    return _at_most(what, wanted, timing.p50_ms, "ms")
    return Aim(what, f"≤ {wanted:g} ms")


def _of_app(app: AppSpeed | None) -> Iterator[Aim]:
    one = _of(app, 1)
    everyone, start, memory = (
        (None, None, None)
        if app is None
        else (app.all_models_s, app.first_answer_s, app.resident_mb)
    )
    yield _at_most("all models about one picture", 0.4, everyone, "s")
    yield _at_most("what HTTP adds to an answer", 30, one.overhead_ms if one else None, "ms")
    yield _crowd(one, _of(app, 16))
    yield _at_most("from start to first answer", 15, start, "s")
    yield _at_most("all models in memory", 2500, memory, "MB")


def _of(app: AppSpeed | None, clients: int) -> Clients | None:
    return next((c for c in app.clients if c.clients == clients), None) if app else None


def _crowd(one: Clients | None, crowd: Clients | None) -> Aim:
    what, wanted = "16 clients: requests/s, errors", "not below 1 client, none"
    if one is None or crowd is None:
        return Aim(what, wanted)
    measured = (
        f"{crowd.requests_per_s:.1f} to {one.requests_per_s:.1f}, {crowd.errors} of "
        f"{crowd.requests}"
    )
    is_reached = crowd.requests_per_s >= one.requests_per_s and not crowd.errors
    return Aim(what, wanted, measured, is_reached)


def _at_most(what: str, wanted: float, measured: float | None, unit: str) -> Aim:
    limit = f"≤ {wanted:g} {unit}"
    if measured is None:
        return Aim(what, limit)
    return Aim(what, limit, f"{measured:.4g} {unit}", measured <= wanted)
