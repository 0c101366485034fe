"""A real Label Studio for a test session: its own folder, a free port, both kinds of token."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import urllib.request
import uuid
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from active_learning import serve_label_studio
from active_learning.label_studio import LabelStudio
from core.settings import LabelStudioSettings
from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
# The database as it is after the first start, which takes much longer than every other one.
FRESH = ROOT / ".venv-label-studio" / "fresh.sqlite3"
DATABASE = "label_studio.sqlite3"
PASSWORD = "Tests-only-1"
LEGACY_TOKEN = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Server:
    """A running Label Studio, and what a person at its pages would do, by plain HTTP."""

    data: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    pat: str = ""
    log: Path = field(init=False)

    def __post_init__(self) -> None:
        self.log = self.data / "server.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = serve_label_studio.start(
                self.data,
                port=self.port,
                password=PASSWORD,
                token=LEGACY_TOKEN,
                log=log.fileno(),
                environment={"OMP_NUM_THREADS": "1"},
            )
        serve_label_studio.wait_until_up(self.process, self.url)

    def stop(self, how: int = signal.SIGTERM) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(timeout=60)

    def settings(self, *, project: str = "Rollmark", url: str = "", token: str = "") -> Any:
        return LabelStudioSettings(
            url=url or self.url, token=SecretStr(token or self.pat), project=project
        )

    def client(self, *, url: str = "", token: str = "", timeout_s: float = 30) -> LabelStudio:
        """Our client; reads are not tried again, so that tests see every failure."""
        settings = self.settings(url=url, token=token)
        client = LabelStudio(settings, timeout_s=timeout_s, read_retries=0)
        weakref.finalize(client, client._transport.close)
        return client

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """What the pages of Label Studio would ask on behalf of the person."""
        request = urllib.request.Request(
            f"{self.url}/api/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Token {LEGACY_TOKEN}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=180) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def annotate(self, task_id: int, *regions: dict[str, Any], **more: Any) -> int:
        """Submit an answer; the id of the annotation."""
        body = {"result": list(regions), **more}
        return int(self.ask("POST", f"tasks/{task_id}/annotations/", body)["id"])

    def tasks(self, project_id: int) -> list[dict[str, Any]]:
        found = self.ask("GET", f"tasks/?project={project_id}&fields=all&page_size=1000")
        tasks: list[dict[str, Any]] = found["tasks"]
        return tasks


@contextmanager
def running() -> Iterator[Server]:
    """A server with an account and its token, in a folder that goes with it."""
    with free_port() as port:
        server = Server(Path(tempfile.mkdtemp(prefix="rollmark-ls-")), port)
        try:
            _first_start(server)
            server.pat = str(server.ask("POST", "token/", {})["token"])
            yield server
        finally:
            if server.process is not None and server.process.poll() is None:
                server.stop(signal.SIGKILL)
            shutil.rmtree(server.data)


@pytest.fixture(scope="session")
def label_studio() -> Iterator[Server]:
    """One server for the whole session; every test makes a project of its own."""
    with running() as server:
        yield server


@pytest.fixture
def project_title() -> str:
    """A project that no other test uses."""
    return f"Rollmark {uuid.uuid4().hex[:12]}"


def _first_start(server: Server) -> None:
    """Start a server on the database that the first one of all made.

    While there is none, one process of a test run makes it and the others wait: four that make one
    each, side by side, take so long that none is in time.
    """
    with FRESH.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not FRESH.exists():
            server.start()
            _keep(server.data / DATABASE)
            return
    shutil.copyfile(FRESH, server.data / DATABASE)
    server.start()


def _keep(database: Path) -> None:
    """Copy a live database as one consistent whole."""
    unfinished = FRESH.with_suffix(f".{os.getpid()}")
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(unfinished)) as copy:
        source.backup(copy)
    unfinished.replace(FRESH)
