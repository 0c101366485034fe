"""Settings over temporary folders, a fake loader for logic, the real app for the rest."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from core.settings import PathSettings, Settings
from demo import loaded
from demo.heat import HeatMaps
from demo.service import Service
from tests.demo import releases
from tests.demo.fakes import Loader
from tests.ports import free_port

SECRET = "sesame open"  # of the app's webhook
APP = Path(__file__).parents[2] / "app.py"
START_S = 600  # at most; on a machine that is busy otherwise a start takes minutes
STOP_S = 30


@pytest.fixture
def paths(tmp_path: Path) -> PathSettings:
    return PathSettings(
        bundled=tmp_path / "bundled", data=tmp_path / "data", runs=tmp_path / "runs"
    )


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Loader]:
    fake = Loader()
    monkeypatch.setattr(loaded, "load", fake)
    monkeypatch.setattr(loaded, "accelerate", fake.accelerate)
    monkeypatch.setattr(HeatMaps, "get_ready", lambda _: None)  # imports libraries for seconds
    yield fake
    for thread in threading.enumerate():  # or one that is late would call the real function
        if thread.name.startswith("export "):
            thread.join()


@pytest.fixture
def service(paths: PathSettings, loader: Loader) -> Service:
    """Two detectors, of which grace validated better, and a classifier."""
    for name, task, validated in (
        ("da_yolo", "detect", 0.41),
        ("grace", "detect", 0.43),
        ("mobilesteelnet", "classify", 0.9),
    ):
        releases.describe(paths.bundled / name, name, task=task, validated=validated)
    return Service(Settings(paths=paths))


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real app, started as a person starts it, with small networks of every task."""
    root = tmp_path_factory.mktemp("app")
    for name in releases.DATASETS:
        releases.write(root / "bundled" / name, name)
    with served(root, root / "bundled", ROLLMARK_LABEL_STUDIO__WEBHOOK_SECRET=SECRET) as started:
        yield started


@contextmanager
def served(root: Path, bundled: Path, *, program: Path = APP, **settings: str) -> Iterator[str]:
    """The address of `python app.py` with the releases of a folder, all of them in memory.

    `program` may be another that starts it; `settings` are environment variables on top of those
    that every test needs.
    """
    with free_port() as port:
        yield from _served(port, root, bundled, program, settings)


def _served(
    port: int, root: Path, bundled: Path, program: Path, settings: Mapping[str, str]
) -> Iterator[str]:
    chosen = {
        "ROLLMARK_PATHS__BUNDLED": str(bundled),
        "ROLLMARK_PATHS__DATA": str(root / "data"),
        "ROLLMARK_SERVING__PORT": str(port),
        "ROLLMARK_SERVING__THREADS": "1",
        "ROLLMARK_SERVING__RUNTIME": "torch",  # exports take time, and are tested by themselves
        "ROLLMARK_SERVING__MAX_IMAGE_MB": "1",
        "ROLLMARK_SERVING__MAX_UPLOAD_MB": "1",
        "ROLLMARK_SERVING__MAX_MEGAPIXELS": "4",
        "GRADIO_TEMP_DIR": str(root / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    log = root / "log.txt"
    with log.open("wb") as stream:
        app = subprocess.Popen(
            [sys.executable, str(program)],
            cwd=root,
            env=_environment() | chosen | settings,
            stdout=stream,
            stderr=stream,
        )
        try:
            wanted = len(list(bundled.glob("*/config.json")))
            _wait_until_loaded(app, f"http://127.0.0.1:{port}", log, wanted)
            yield f"http://127.0.0.1:{port}"
        finally:
            app.terminate()
            try:
                app.wait(STOP_S)
            except subprocess.TimeoutExpired:
                app.kill()
                app.wait()
        if app.returncode != 0:
            raise RuntimeError(f"The app did not end well ({app.returncode}):\n{log.read_text()}")


def _environment() -> dict[str, str]:
    """This process's own, without settings that its user has made for another app."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("ROLLMARK_", "GRADIO_"))}


def _wait_until_loaded(app: subprocess.Popen[bytes], address: str, log: Path, wanted: int) -> None:
    """Until every network is in memory; the app's log is shown when it ends or hangs before."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and app.poll() is None:
        if log.read_text().count(" loaded ") == wanted:
            try:
                if requests.get(f"{address}/health", timeout=5).ok:
                    return
            except (requests.ConnectionError, requests.Timeout):
                pass
        time.sleep(0.2)
    raise RuntimeError(f"The app did not start:\n{log.read_text()}")
