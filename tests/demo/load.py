"""Asking a running app for a long time, and asking it too much; its memory is watched meanwhile."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import psutil

from core.images import MEGA
from tests.active_learning.drill_results import Result
from tests.demo.hostile_requests import Answer, ask, call, file_data, uploaded
from tests.demo.releases import EXAMPLES

OCTETS: Final = "application/octet-stream"
_SAMPLE_S: Final = 2.0
_WARM_SHARE: Final = 0.2  # of a soak, in which buffers and caches are still being made
_SOAKERS: Final = 2


@dataclass
class App:
    """A running app as it looks from outside."""

    address: str
    root: Path  # its working folder, with its data, its cache and its log
    process: psutil.Process = field(default_factory=lambda: only_child())

    @property
    def log(self) -> str:
        return (self.root / "log.txt").read_text(errors="replace")

    def is_well(self) -> bool:
        """Whether the process that was started still answers."""
        return self.process.is_running() and ask(self.address, "/health").status == 200

    def computing_s(self) -> float:
        """Seconds that its threads have computed so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)

    def peak_mb(self, *, forget: bool = False) -> float:
        """Most resident memory since it was last forgotten, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
        if forget:
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return int(line.split()[1]) * 1024 / MEGA


def only_child() -> psutil.Process:
    """The one app that this process has started."""
    [app] = [c for c in psutil.Process().children() if "app.py" in " ".join(c.cmdline())]
    return app


@dataclass(frozen=True, slots=True)
class Sample:
    """What the app holds at a moment."""

    at_s: float
    resident_mb: float
    files: int
    threads: int
    cache_mb: float


def slope_per_hour(at_s: Sequence[float], values: Sequence[float]) -> float:
    """Of the straight line nearest to the values, by least squares; 0 with fewer than two."""
    if len(at_s) < 2:
        return 0.0
    return float(np.polyfit(np.asarray(at_s) / 3600, np.asarray(values), 1)[0])


@contextmanager
def watched(app: App) -> Iterator[list[Sample]]:
    """Samples of the app, one every other second."""
    samples: list[Sample] = []
    over = threading.Event()
    started = time.monotonic()

    def watch() -> None:
        while not over.wait(_SAMPLE_S):
            with suppress(psutil.Error):
                samples.append(
                    Sample(
                        time.monotonic() - started,
                        app.process.memory_info().rss / MEGA,
                        app.process.num_fds(),
                        app.process.num_threads(),
                        _bytes_of(app.root / "cache") / MEGA,
                    )
                )

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


def soak(app: App, *, minutes: float, seed: int) -> Result:
    """Ask for so long: every model, comparisons, by Gradio's own protocol, and cut-off files."""
    pictures = [path.read_bytes() for path in sorted(EXAMPLES.glob("*.jpg"))]
    models = [each["name"] for each in call_models(app.address)]
    deadline = time.monotonic() + 60 * minutes
    kinds: Counter[str] = Counter()
    unlike: Counter[str] = Counter()

    def client(number: int) -> None:
        source = random.Random(f"{seed} {number}")
        while time.monotonic() < deadline:
            kind, is_right = _one(app.address, source, pictures, models)
            kinds[kind] += 1
            unlike[kind] += not is_right

    with watched(app) as samples:
        _together(client, _SOAKERS)
    steady = [s for s in samples if s.at_s >= _WARM_SHARE * samples[-1].at_s]
    at = [s.at_s for s in steady]
    return Result(
        "Soak",
        {
            "minutes": f"{minutes:g}",
            "clients": _SOAKERS,
            "requests": sum(kinds.values()),
            "resident memory after a fifth of it, MB": round(steady[0].resident_mb),
            "resident memory at the end, MB": round(steady[-1].resident_mb),
            "highest resident memory, MB": round(max(s.resident_mb for s in samples)),
            "slope of resident memory after a fifth, MB an hour": round(
                slope_per_hour(at, [s.resident_mb for s in steady]), 1
            ),
            "open files at the end": steady[-1].files,
            "slope of open files, an hour": round(slope_per_hour(at, [s.files for s in steady]), 1),
            "threads at the end": steady[-1].threads,
            "slope of threads, an hour": round(slope_per_hour(at, [s.threads for s in steady]), 1),
            "uploads kept in the cache at the end, MB": round(steady[-1].cache_mb, 2),
        },
        {
            "answers that were not as they should be": sum(unlike.values()),
            "restarts": int(not app.is_well()),
        },
        {"asked": kinds},
        "After the overload, by the same process. A short soak's slope tells as much of buffers "
        "that are still\nbeing made as of growth: `--minutes 480` soaks a night.",
    )


def overload(app: App, *, clients: int, seconds: float) -> Result:
    """Far more clients than there is room for; one who is turned away waits as it is told to."""
    picture = sorted(EXAMPLES.glob("*.jpg"))[0].read_bytes()
    alone, _ = _asked(app.address, picture, clients=4, seconds=seconds / 3)
    app.peak_mb(forget=True)
    answers, took_s = _asked(app.address, picture, clients=clients, seconds=seconds)
    peak = app.peak_mb()
    served = [1e3 * a.seconds for a in answers if a.status == 200]
    turned_away = [1e3 * a.seconds for a in answers if a.status == 503]
    return Result(
        "Overload",
        {
            "clients": clients,
            "seconds": round(took_s, 1),
            "served a second, 4 clients alone before it": round(
                sum(a.status == 200 for a in alone) / (seconds / 3), 1
            ),
            "offered": len(answers),
            "offered a second": round(len(answers) / took_s, 1),
            "served": len(served),
            "served a second": round(len(served) / took_s, 1),
            "turned away at once (503, Retry-After)": len(turned_away),
            "served, p50, ms": _percentile(served, 50),
            "served, p99, ms": _percentile(served, 99),
            "turned away, p99, ms": _percentile(turned_away, 99),
            "peak resident memory, MB": round(peak),
        },
        {
            "neither served nor turned away": len(answers) - len(served) - len(turned_away),
            "restarts": int(not app.is_well()),
        },
    )


def call_models(address: str) -> list[dict[str, str]]:
    """What `/models` answers."""
    lines = call(address, "models", []).body.decode().strip().splitlines()
    [models] = json.loads(lines[-1].removeprefix("data: "))
    return list(models)


def _asked(
    address: str, picture: bytes, *, clients: int, seconds: float
) -> tuple[list[Answer], float]:
    answers: list[Answer] = []
    started = time.monotonic()

    def client(_: int) -> None:
        while time.monotonic() - started < seconds:
            answers.append(ask(address, "/v1/inspect", picture, OCTETS))
            if answers[-1].status == 503:
                time.sleep(1.0)

    _together(client, clients)
    return answers, time.monotonic() - started


def _one(
    address: str, source: random.Random, pictures: Sequence[bytes], models: Sequence[str]
) -> tuple[str, bool]:
    """One question of a soak: of which kind, and whether it was answered as it should be."""
    picture, drawn = source.choice(pictures), source.random()
    if drawn < 0.7:
        model = source.choice(models)
        answer = ask(address, f"/v1/inspect?model={model}", picture, OCTETS)
        return "inspect", answer.status == 200
    if drawn < 0.8:
        return "compare", ask(address, "/v1/compare", picture, OCTETS).status == 200
    if drawn < 0.9:
        broken = picture[: source.randrange(len(picture) // 2)]
        return "cut-off file", ask(address, "/v1/inspect", broken, OCTETS).status == 400
    sent = uploaded(address, "a.jpg", picture)
    if sent.status != 200:
        return "by Gradio", False
    told = call(address, "inspect", [file_data(sent.json[0]), "auto", None])
    return "by Gradio", b"event: complete" in told.body


def _percentile(values: Sequence[float], q: float) -> str:
    return f"{np.percentile(values, q):.0f}" if values else "–"


def _together(client: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=client, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _bytes_of(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # it may go while one looks
            total += path.stat().st_size
    return total
