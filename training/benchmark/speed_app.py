"""The app as users meet it: a process of its own, asked over HTTP."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil

from core.errors import TrainingError
from core.images import MEGA
from core.settings import PREFIX, PathSettings
from training.benchmark.speed_records import AppSpeed, Clients

_APP: Final = Path(__file__).parents[2] / "app.py"
CLIENTS: Final = (1, 4, 16)
START_S: Final = 300
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


def measure_app(paths: PathSettings, picture: Path, *, cpus: int, requests: int) -> AppSpeed:
    """Start it twice, fill its memory, and ask it from 1, 4 and 16 clients.

    Args:
        paths: of the settings; for the releases, whose models are all served.
        picture: that is asked about.
        cpus: threads of one forward pass.
        requests: from each number of clients.

    Raises:
        TrainingError: if the app does not start.
    """
    with tempfile.TemporaryDirectory(prefix="rollmark-app-") as name:
        root = Path(name)
        with _running(root, paths, cpus) as app:
            first = _first_answer(app, picture)
            count = len(app.client().predict(api_name="/models"))
            app.wait_for((" runs on ", " stays on "), count, at_most_s=EXPORT_S)
        with _running(root, paths, cpus) as app:
            again = _first_answer(app, picture)
            app.wait_for((" loaded ",), count, at_most_s=START_S)
            everyone = _seconds_of_all(app, picture)
            clients = tuple(_ask_from(app, picture, n, requests) for n in CLIENTS)
            resident = psutil.Process(app.process.pid).memory_info().rss / MEGA
            model = str(_ask(app.client(), picture)["model"])
    return AppSpeed(
        model=model,
        first_answer_s=round(first, 2),
        first_answer_again_s=round(again, 2),
        models_loaded=count,
        resident_mb=round(resident),
        all_models_s=round(everyone, 3),
        clients=clients,
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
            process.terminate()
            process.wait(timeout=60)


def _first_answer(app: _App, picture: Path) -> float:
    """Seconds from the start to the first whole answer."""
    deadline = app.started + START_S
    while time.perf_counter() < deadline and app.process.poll() is None:
        try:
            _ask(app.client(), picture)
        except Exception:  # whatever the client raises before there is a server
            time.sleep(0.05)
        else:
            return time.perf_counter() - app.started
    tail = app.log.read_text(errors="replace")[-500:]
    raise TrainingError(f"The app gave no answer within {START_S} s; it said: {tail}")


def _ask(client: Any, picture: Path) -> dict[str, Any]:
    from gradio_client import handle_file

    answer: dict[str, Any] = client.predict(handle_file(str(picture)), api_name="/inspect")
    return answer


def _seconds_of_all(app: _App, picture: Path) -> float:
    """One picture, every model, by one call; the second of two."""
    from gradio_client import handle_file

    client = app.client()
    for _ in range(2):
        started = time.perf_counter()
        client.predict(handle_file(str(picture)), None, api_name="/compare")
    return time.perf_counter() - started


def _ask_from(app: _App, picture: Path, clients: int, requests: int) -> Clients:
    sessions = [app.client() for _ in range(clients)]
    each = max(requests // clients, 2)

    def caller(session: Any) -> tuple[list[float], list[str]]:
        took: list[float] = []
        errors: list[str] = []
        for _ in range(each):
            started = time.perf_counter()
            try:
                _ask(session, picture)
            except Exception as exc:  # of any kind: a user got no answer
                errors.append(f"{type(exc).__name__}: {' '.join(str(exc).split())[:200]}")
            else:
                took.append((time.perf_counter() - started) * 1e3)
        return took, errors

    _ask(sessions[0], picture)
    started = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(caller, sessions))
    wall_s = time.perf_counter() - started
    took = [ms for samples, _ in found for ms in samples]
    errors = [error for _, failed in found for error in failed]
    p50, p95 = np.percentile(took, (50, 95)) if took else (float("nan"), float("nan"))
    return Clients(
        clients=clients,
        requests=each * clients,
        errors=len(errors),
        first_error=errors[0] if errors else "",
        p50_ms=round(float(p50), 1),
        p95_ms=round(float(p95), 1),
        requests_per_s=round(len(took) / wall_s, 2),
    )
