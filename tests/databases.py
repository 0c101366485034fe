"""Ledgers for tests, on SQLite and on a real PostgreSQL that runs for this test session alone."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

import active_learning.inbox
import active_learning.incoming
import active_learning.leases
import active_learning.orders
import active_learning.presence
import active_learning.queue
import active_learning.retraining
import active_learning.versions  # noqa: F401 - tables are known once their rooms are loaded
from core.ledger import Base, Clock, Ledger, migrate, open_ledger

MISSING = "PostgreSQL is not installed: run `make postgres`, or `apt-get install postgresql`."


@dataclass
class HandClock(Clock):
    """A clock that tests turn by hand; `wall` and `steady` can be turned apart."""

    wall: datetime = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
    steady: float = 1000.0
    boot: str = "first-boot"

    def now(self) -> datetime:
        return self.wall

    def monotonic_s(self) -> float:
        return self.steady

    def boot_id(self) -> str:
        return self.boot

    def pass_s(self, seconds: float) -> None:
        self.wall += timedelta(seconds=seconds)
        self.steady += seconds


def in_children(*tasks: Callable[[], None], timeout_s: float = 300) -> list[int]:
    """Run each task in a process of its own, all at once.

    Returns:
        Exit status of each: 0 went well, 1 raised, -9 was killed.
    """
    children = []
    for task in tasks:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                task()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        children.append(child)
    deadline = time.monotonic() + timeout_s
    return [_status(child, deadline) for child in children]


def _status(child: int, deadline: float) -> int:
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise TimeoutError("A child process did not end.")


@dataclass(frozen=True)
class PostgresServer:
    """A server of our own, reachable through a socket in its folder."""

    folder: Path

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://rollmark@/{database}?host={self.folder}"

    def execute(self, *statements: str, database: str = "postgres") -> None:
        engine = sa.create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))
        engine.dispose()

    def new_database(self) -> str:
        name = f"t{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        return name


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server in a temporary folder, run by an unprivileged user."""
    programs = _postgres_programs()
    folder = Path(tempfile.mkdtemp(prefix="rollmark-pg-"))
    user = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        account = pwd.getpwnam("postgres")
        os.chown(folder, account.pw_uid, account.pw_gid)
        user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    data = folder / "data"
    initdb = [programs / "initdb", "-D", data, "-U", "rollmark", "--auth=trust", "--no-sync"]
    done = subprocess.run(initdb, capture_output=True, text=True, cwd="/", **user)
    assert done.returncode == 0, done.stderr
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",  # the machine does not lose power during a test
        "max_connections": "60",
    }
    command = [programs / "postgres", "-D", data]
    command += [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **user)
    try:
        found = PostgresServer(folder)
        _wait_until_ready(found, server)
        yield found
    finally:
        server.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
        server.wait(timeout=60)
        shutil.rmtree(folder)


def _postgres_programs() -> Path:
    beside = shutil.which("initdb")
    places = [Path(beside).resolve().parent] if beside else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for place in places:
        if (place / "initdb").exists() and (place / "postgres").exists():
            return place
    pytest.fail(MISSING)


def _wait_until_ready(found: PostgresServer, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 300
    while True:
        try:
            found.execute("SELECT 1")
            return
        except sa.exc.OperationalError:
            if server.poll() is not None or time.monotonic() > deadline:
                pytest.fail("PostgreSQL did not start: " + (found.folder / "log").read_text())
            time.sleep(0.05)


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """Which database a test runs on; every test that asks runs on both."""
    return str(request.param)


@pytest.fixture
def empty_url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Address of a database without tables."""
    if database == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url(server.new_database())


@pytest.fixture(scope="session")
def _sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "ledger.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def _postgres_database(postgres_server: PostgresServer) -> str:
    name = postgres_server.new_database()
    migrate(postgres_server.url(name))
    return name


@pytest.fixture
def ledger_url(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Address of a migrated, empty ledger."""
    if database == "sqlite":
        path = tmp_path / "ledger.db"
        shutil.copyfile(request.getfixturevalue("_sqlite_template"), path)
        return f"sqlite:///{path}"
    name: str = request.getfixturevalue("_postgres_database")
    server: PostgresServer = request.getfixturevalue("postgres_server")
    tables = ", ".join(Base.metadata.tables)
    server.execute(
        "SET session_replication_role = replica",  # so that events may be emptied
        f"TRUNCATE {tables} RESTART IDENTITY",
        database=name,
    )
    return server.url(name)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def ledger(ledger_url: str, clock: HandClock) -> Iterator[Ledger]:
    """An open, empty ledger whose clock is turned by hand."""
    opened = open_ledger(ledger_url, clock=clock)
    yield opened
    opened.close()
