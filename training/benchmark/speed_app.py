"""The app as users meet it: a process of its own, asked over HTTP."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias
from urllib.request import Request, urlopen

import numpy as np
import psutil

from core.errors import TrainingError
from core.images import MEGA
from core.settings import PREFIX, PathSettings
from training.benchmark.speed_records import AppSpeed, Clients

_Ask: TypeAlias = Callable[[], float | None]  # one question; its own time in ms where it is told

_APP: Final = Path(__file__).parents[2] / "app.py"
CLIENTS: Final = (1, 4, 16)
START_S: Final = 300
STOP_S: Final = 60
_COMPARISONS: Final = 9
EXPORT_S: Final = 900


@dataclass(frozen=True, slots=True)
class _App:
    """A running app."""

    address: str
    process: subprocess.Popen[bytes]
    log: Path
    started: float  # by perf_counter

    def client(self) -> Any:
        """A client of its API; each keeps a session of its own."""
        from gradio_client import Client

        return Client(self.address, verbose=False)

    def post(self, name: str, data: bytes) -> tuple[bytes, float]:
        """One request of `/v1`: the answer, and the milliseconds that it took itself.

        Raises:
            OSError: if there is no server, or it answers with an error.
        """
        request = Request(f"{self.address}/v1/{name}", data, {"Content-Type": "image/jpeg"})
        with urlopen(request, timeout=START_S) as response:
            return response.read(), float(response.headers["Server-Timing"].partition("=")[2])

    def wait_for(self, texts: tuple[str, ...], count: int, *, at_most_s: float) -> None:
        """Until the log holds that many lines with one of these texts.

        Raises:
            TrainingError: if it ends or takes too long.
        """
        deadline = time.monotonic() + at_most_s
        while time.monotonic() < deadline and self.process.poll() is None:
            lines = self.log.read_text(errors="replace").splitlines()
            if sum(any(text in line for text in texts) for line in lines) >= count:
                return
            time.sleep(0.2)
        tail = self.log.read_text(errors="replace")[-500:]
        raise TrainingError(f"The app did not say {texts[0]!r} {count} times; it said: {tail}")


def measure_app(
    paths: PathSettings, picture: Path, *, cpus: int, each: int, patience_s: float
) -> AppSpeed:
    """Start it twice, fill its memory, and ask it from 1, 4 and 16 clients.

    Args:
        paths: of the settings; for the releases, whose models are all served.
        picture: that is asked about.
        cpus: threads of one forward pass.
        each: requests of each client.
        patience_s: after which no client asks again.

    Raises:
        TrainingError: if the app does not start.
    """
    data = picture.read_bytes()
    with tempfile.TemporaryDirectory(prefix="rollmark-app-") as name:
        root = Path(name)
        with _running(root, paths, cpus) as app:
            first = _first_answer(app, data)
            count = len(app.client().predict(api_name="/models"))
            app.wait_for((" runs on ", " stays on "), count, at_most_s=EXPORT_S)
        with _running(root, paths, cpus) as app:
            again = _first_answer(app, data)
            app.wait_for((" loaded ",), count, at_most_s=START_S)
            everyone = _seconds_of_all(app, data)
            model = str(json.loads(app.post("inspect", data)[0])["model"])
            plain, gradio = (
                tuple(_ask_from(make, n, each, patience_s) for n in CLIENTS)
                for make in (partial(_by_http, app, data), partial(_by_gradio, app, picture))
            )
            resident = psutil.Process(app.process.pid).memory_info().rss / MEGA
    return AppSpeed(
        model=model,
        first_answer_s=round(first, 2),
        first_answer_again_s=round(again, 2),
        models_loaded=count,
        resident_mb=round(resident),
        all_models_s=round(everyone, 3),
        clients=plain,
        gradio_clients=gradio,
    )


@contextmanager
def _running(root: Path, paths: PathSettings, cpus: int) -> Iterator[_App]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    own = {name: v for name, v in os.environ.items() if not name.startswith((PREFIX, "GRADIO_"))}
    chosen = {
        "PATHS__BUNDLED": str(paths.bundled.resolve()),
        "PATHS__RELEASES": str(paths.releases.resolve()),
        "PATHS__DATA": str(root / "data"),
        "SERVING__PORT": str(port),
        "SERVING__DEVICE": "cpu",
        "SERVING__THREADS": str(cpus),
        "REVIEW__QUEUE_UNSURE": "false",
        "HUB__OFFLINE": "true",
    }
    own |= {PREFIX + name: value for name, value in chosen.items()}
    own["GRADIO_TEMP_DIR"] = str(root / "uploads")
    log = root / "log.txt"
    with log.open("wb") as stream:
        started = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, str(_APP)], cwd=root, env=own, stdout=stream, stderr=stream
        )
        try:
            yield _App(f"http://127.0.0.1:{port}", process, log, started)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the app: by asking, and where it does not listen, by force. Nothing of it is left."""
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _first_answer(app: _App, data: bytes) -> float:
    """Seconds from the start to the first whole answer."""
    deadline = app.started + START_S
    while time.perf_counter() < deadline and app.process.poll() is None:
        try:
            app.post("inspect", data)
        except OSError:  # there is no server yet
            time.sleep(0.05)
        else:
            return time.perf_counter() - app.started
    tail = app.log.read_text(errors="replace")[-500:]
    raise TrainingError(f"The app gave no answer within {START_S} s; it said: {tail}")


def _seconds_of_all(app: _App, data: bytes) -> float:
    """One picture, every model, by one request; the median of a few, after the first."""
    app.post("compare", data)
    samples = []
    for _ in range(_COMPARISONS):
        started = time.perf_counter()
        app.post("compare", data)
        samples.append(time.perf_counter() - started)
    return float(np.median(samples))


def _by_http(app: _App, data: bytes) -> _Ask:
    """A caller of `POST /v1/inspect`; of each answer, the milliseconds that it took itself."""
    return lambda: app.post("inspect", data)[1]


def _by_gradio(app: _App, picture: Path) -> _Ask:
    """A caller by `gradio_client`, which knows no more than that it has an answer."""
    from gradio_client import handle_file

    client = app.client()

    def ask() -> None:
        client.predict(handle_file(str(picture)), api_name="/inspect")

    return ask


def _ask_from(make: Callable[[], _Ask], clients: int, each: int, patience_s: float) -> Clients:
    callers = [make() for _ in range(clients)]
    callers[0]()
    took: list[float] = []  # of all callers: nothing that follows asks which
    beside: list[float] = []
    errors: list[str] = []
    started = time.perf_counter()

    def call(ask: _Ask) -> None:
        for number in range(each):
            began = time.perf_counter()
            if number > 1 and began - started > patience_s:
                break
            try:
                answer_ms = ask()
            except Exception as exc:  # of any kind: a user got no answer
                errors.append(f"{type(exc).__name__}: {' '.join(str(exc).split())[:200]}")
                continue
            waited_ms = (time.perf_counter() - began) * 1e3
            took.append(waited_ms)
            if answer_ms is not None:
                beside.append(waited_ms - answer_ms)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(call, callers))
    wall_s = time.perf_counter() - started
    p50, p95 = (
        (round(float(ms), 1) for ms in np.percentile(took, (50, 95))) if took else (None,) * 2
    )
    return Clients(
        clients=clients,
        requests=len(took) + len(errors),
        errors=len(errors),
        first_error=errors[0] if errors else "",
        p50_ms=p50,
        p95_ms=p95,
        requests_per_s=round(len(took) / wall_s, 2),
        overhead_ms=round(float(np.median(beside)), 1) if beside else None,
    )
