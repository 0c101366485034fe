"""The ledger: the one relational database that holds everything which changes.

SQLite by default (write-ahead log, synchronous=FULL: what was committed survives a power cut), any
SQLAlchemy address otherwise. Rooms declare their tables on `Base`; the tables are made by the
migrations in `core/migrations`, which `open_ledger` runs. What happens is appended to `events`,
in the same transaction as the change itself, and the database refuses to alter or delete an event.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Dialect, Engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

from core._database_errors import ledger_error
from core.errors import LedgerError
from core.records import Record

_MIGRATING: Final = threading.Lock()  # alembic keeps one migration at a time in its globals
_MIGRATIONS: Final = Path(__file__).resolve().parent / "migrations"
_READS: Final = "rollmark_reads"  # execution option of connections that only read
_BUSY_TIMEOUT_S: Final = 15
_MIGRATION_LOCK: Final = 7_260_311  # any number: PostgreSQL lets one process migrate at a time
_WHO: Final = 100  # characters that are kept of who did something
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_COMPLETE: Final = {"psycopg": "psycopg[binary]"}  # what brings its own libraries along
_SECRET: Final = re.compile("passw", re.IGNORECASE)  # names of a query's secrets
_NO_ADDRESS: Final = "The ledger's address is no SQLAlchemy URL; sqlite:///data/ledger.db is one."


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A time with its zone, kept in UTC; a naive one is refused."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """On its way into the database."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone; times of the ledger are UTC.")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """On its way out; SQLite forgets the zone."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Base of every table; JSON columns hold what `json.dumps` can write."""

    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        datetime: UtcDateTime,
        dict[str, Any]: sa.JSON,
        list[str]: sa.JSON,
    }


class EventRow(Base):
    """Table of what happened; rows are only ever added."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    who: Mapped[str] = mapped_column(sa.String(_WHO))
    what: Mapped[str] = mapped_column(sa.String(50))
    entity: Mapped[str] = mapped_column(sa.String(150), index=True)
    before: Mapped[str | None] = mapped_column(sa.String(50))
    after: Mapped[str | None] = mapped_column(sa.String(50))
    details: Mapped[dict[str, Any]]


class Event(Record):
    """One line of the audit trail: who did what to which entity, and its state before and after."""

    id: int
    at: datetime
    who: str
    what: str
    entity: str  # kind:id, such as review_item:4f2a
    before: str | None
    after: str | None
    details: dict[str, Any]


class Clock:
    """Time as the ledger sees it; tests put their own in its place."""

    def now(self) -> datetime:
        """Wall time, UTC: good for records, not for measuring."""
        return datetime.now(UTC)

    def monotonic_s(self) -> float:
        """Seconds since the machine started: one clock for all its processes, never set."""
        return time.monotonic()

    def boot_id(self) -> str:
        """Which start of which machine `monotonic_s` counts from; "" where that is not known."""
        try:
            return _BOOT_ID.read_text("ascii").strip()
        except OSError:
            return ""


class Ledger:
    """An open ledger; made by `open_ledger`. May be used from any thread."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._reader = engine.execution_options(**{_READS: True})
        if engine.dialect.name == "postgresql":  # SQLite's readers see one state anyway
            self._reader = self._reader.execution_options(isolation_level="REPEATABLE READ")
        self.clock = clock
        self.where = _shown(engine.url)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """One write transaction: committed at the end of the block, undone if it raises.

        On SQLite it holds the only write lock from its first statement on; elsewhere rows that
        must not change meanwhile have to be read `with_for_update`.

        Raises:
            LedgerError: if the database fails; then nothing was written.
        """
        with (
            _mapped(self.where),
            Session(self._engine, expire_on_commit=False) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent view; it neither waits for a writer nor stops one.

        Raises:
            LedgerError: if the database fails.
        """
        with _mapped(self.where), Session(self._reader, expire_on_commit=False) as session:
            yield session

    def record(
        self,
        session: Session,
        what: str,
        *,
        who: str,
        entity: str,
        before: str | None = None,
        after: str | None = None,
        **details: Any,
    ) -> None:
        """Append an event to the transaction of the change it tells of."""
        session.add(
            EventRow(
                at=self.clock.now(),
                who=who[:_WHO],  # a user at a machine, whose names may be long ones
                what=what,
                entity=entity,
                before=before,
                after=after,
                details=details,
            )
        )

    def events(self, entity: str | None = None, *, limit: int = 1000) -> tuple[Event, ...]:
        """The latest events, oldest of them first; of one entity or of all."""
        query = sa.select(EventRow).order_by(EventRow.id.desc()).limit(limit)
        if entity is not None:
            query = query.where(EventRow.entity == entity)
        with self.reading() as session:
            rows = session.scalars(query).all()
            return tuple(
                Event.model_validate({name: getattr(row, name) for name in Event.model_fields})
                for row in reversed(rows)
            )

    def close(self) -> None:
        """Give back every connection."""
        self._engine.dispose()


def open_ledger(url: str, *, clock: Clock | None = None) -> Ledger:
    """The ledger at an address, made or brought up to date first if need be.

    Args:
        url: an SQLAlchemy address, such as `settings.paths.ledger_url`.
        clock: the time to go by; the machine's by default.

    Raises:
        LedgerError: if the address is no use or the database cannot be opened or migrated.
    """
    migrate(url)
    return Ledger(_engine(_parsed(url)), clock or Clock())


def migrate(url: str, *, revision: str = "head") -> None:
    """Bring a ledger up to a revision, keeping what is in it; all of it or nothing.

    Raises:
        LedgerError: if it cannot be opened, or a newer release has written it.
    """
    from alembic import command

    with _MIGRATING, _alembic(url) as config:
        command.upgrade(config, revision)


def downgrade(url: str, *, revision: str) -> None:
    """Take a ledger back to the revision that an older release knows, or to "base": empty.

    Raises:
        LedgerError: if it cannot be opened, or there is no such revision.
    """
    from alembic import command

    with _MIGRATING, _alembic(url) as config:
        command.downgrade(config, revision)


@contextmanager
def _alembic(url: str) -> Iterator[Any]:
    """An alembic configuration bound to one transaction of the ledger."""
    from alembic.config import Config
    from alembic.util import CommandError

    parsed = _parsed(url)
    where = _shown(parsed)
    engine = _engine(parsed)
    try:
        with _mapped(where), engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            config = Config(attributes={"connection": connection})
            config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
            yield config
    except CommandError as exc:
        raise LedgerError(
            f"The ledger {where} cannot be migrated ({exc}): it was written by a newer Rollmark; "
            "update this one."
        ) from exc
    finally:
        engine.dispose()


@contextmanager
def _mapped(where: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as exc:
        raise ledger_error(exc, where) from exc


def _shown(address: URL) -> str:
    """An address as it may be shown: a password hides behind the user's name or in the query."""
    query = {k: "***" if _SECRET.search(k) else v for k, v in address.query.items()}
    return address.set(query=query).render_as_string(hide_password=True)


def ledger_address(url: str) -> URL:
    """The parts of an address.

    Raises:
        LedgerError: if it is none.
    """
    try:
        return sa.make_url(url)
    except (SQLAlchemyError, ValueError) as exc:
        raise LedgerError(_NO_ADDRESS) from exc


def _parsed(url: str) -> URL:
    """An address that can be opened here and names something that lasts."""
    parsed = ledger_address(url)
    try:
        parsed.get_dialect().import_dbapi()
    except SQLAlchemyError as exc:  # of a database that SQLAlchemy does not know
        raise LedgerError(_NO_ADDRESS) from exc
    except ImportError as exc:  # also of a package that misses a library of the system
        name = parsed.get_driver_name()
        raise LedgerError(
            f"The ledger's address needs the Python package {name!r}: "
            f"install it with `pip install '{_COMPLETE.get(name, name)}'`."
        ) from exc
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise LedgerError(
            "The ledger's address names no file: it would be lost; sqlite:///data/ledger.db is one."
        )
    return parsed


def _engine(url: URL) -> Engine:
    """An engine; on SQLite every transaction has a connection of its own and starts at once."""
    if url.get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_pre_ping=True)
    folder = Path(url.database or "").parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise LedgerError(
            f"The ledger's folder {folder} cannot be made: {exc.strerror}; name another one."
        ) from exc
    engine = sa.create_engine(url, poolclass=NullPool)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # the driver's own BEGIN comes too late; ours is below
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_S * 1000}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails if another wrote in between.
    reads = connection.get_execution_options().get(_READS, False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")
