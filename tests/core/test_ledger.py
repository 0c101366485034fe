"""The ledger: durable, append-only, migrated without loss, and clear about what went wrong."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from core import ledger as ledger_module
from core._database_errors import ledger_error
from core.errors import InputError, LedgerError
from core.ledger import Base, downgrade, migrate, open_ledger
from tests.databases import in_children


def note(ledger, n, **details):
    with ledger.session() as session:
        ledger.record(session, "noted", who="test", entity=f"number:{n}", **details)


def numbers(ledger):
    return [int(event.entity.removeprefix("number:")) for event in ledger.events()]


def sqlite_ledger(tmp_path):
    return open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}")


# --- what is written stays written -------------------------------------------------------------


def test_sqlite_waits_for_the_disk_and_checks_references(tmp_path):
    with sqlite_ledger(tmp_path).reading() as session:
        pragmas = {
            name: session.execute(sa.text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    # synchronous 2 is FULL
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 15_000}
    assert pragmas == expected


def test_a_block_that_raises_leaves_nothing_behind(ledger):
    def fails_late():
        with ledger.session() as session:
            ledger.record(session, "noted", who="test", entity="number:1")
            session.flush()
            raise InputError("late")

    with pytest.raises(InputError):
        fails_late()
    assert ledger.events() == ()


def test_an_event_tells_who_did_what_to_which_entity_when(ledger, clock):
    with ledger.session() as session:
        ledger.record(
            session, "sent", who="push", entity="x:1", before="sending", after="sent", task_id=7
        )
    [event] = ledger.events("x:1")
    assert event.at == clock.wall
    assert (event.who, event.what, event.before, event.after) == ("push", "sent", "sending", "sent")
    assert event.details == {"task_id": 7}
    assert ledger.events("x:2") == ()


def test_the_latest_events_come_in_the_order_they_happened(ledger):
    for n in range(5):
        note(ledger, n)
    assert [event.entity for event in ledger.events(limit=2)] == ["number:3", "number:4"]


@pytest.mark.parametrize(
    "statement",
    ["UPDATE events SET who = 'nobody'", "DELETE FROM events"],
    ids=["update", "delete"],
)
def test_the_database_itself_refuses_to_change_an_event(ledger, statement):
    note(ledger, 1)
    with pytest.raises(LedgerError, match="only ever appended"), ledger.session() as session:
        session.execute(sa.text(statement))
    assert numbers(ledger) == [1]


def test_a_reader_does_not_wait_for_a_writer(ledger):
    note(ledger, 1)
    with ledger.session() as session:
        ledger.record(session, "noted", who="test", entity="number:2")
        session.flush()
        assert numbers(ledger) == [1]
    assert numbers(ledger) == [1, 2]


def test_times_come_back_in_utc_and_need_a_zone(ledger, clock):
    clock.wall = datetime(2026, 5, 4, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    note(ledger, 1)
    assert ledger.events()[0].at == datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
    assert ledger.events()[0].at.tzinfo == UTC
    clock.wall = datetime(2026, 5, 4, 14, 30)
    with pytest.raises(LedgerError, match="no time zone"):
        note(ledger, 2)


def test_who_did_something_may_have_a_long_name(ledger):
    """A user of 32 letters at a machine of 64, with the number of its process."""
    who = f"{'u' * 32}@{'m' * 64}:1234567"
    with ledger.session() as session:
        ledger.record(session, "noted", who=who, entity="x:1")
    assert ledger.events()[0].who == who[:100]


# --- migrations --------------------------------------------------------------------------------


def test_migrations_make_exactly_the_tables_that_the_code_declares(ledger_url):
    engine = sa.create_engine(ledger_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_every_revision_up_and_down_keeps_what_it_can(empty_url):
    def rows(table):
        engine = sa.create_engine(empty_url)
        with engine.connect() as connection:
            found = connection.execute(sa.text(f"SELECT * FROM {table}")).mappings().all()
        engine.dispose()
        return [dict(row) for row in found]

    def execute(statement):
        engine = sa.create_engine(empty_url)
        with engine.begin() as connection:
            connection.execute(sa.text(statement))
        engine.dispose()

    when = "'2026-05-04 12:00:00.000000'"
    migrate(empty_url, revision="0001")
    execute(
        "INSERT INTO events (at, who, what, entity, details) "
        f"VALUES ({when}, 'w', 'what', 'x:1', '{{}}')"
    )
    events = rows("events")
    migrate(empty_url, revision="0002")
    execute(
        "INSERT INTO annotations (project, task_id, annotation_id, updated_at, kind, image_sha256,"
        f" applied_at) VALUES ('p', 1, 2, {when}, 'skipped', 'abc', {when})"
    )
    annotations = rows("annotations")
    migrate(empty_url)
    execute(
        "INSERT INTO dataset_versions (id, dataset, folder, protocol, counts, test_id, reviewed,"
        f" created_at) VALUES ('v', 'd', 'f', 'leak-free', '{{}}', 't', 0, {when})"
    )
    assert rows("events") == events
    assert rows("annotations") == [row | {"origin": ""} for row in annotations]
    downgrade(empty_url, revision="0002")
    assert (rows("events"), rows("annotations")) == (events, annotations)
    migrate(empty_url)
    assert rows("dataset_versions") == []
    downgrade(empty_url, revision="0001")
    assert rows("events") == events
    downgrade(empty_url, revision="base")
    open_ledger(empty_url).close()
    assert rows("events") == []


def test_the_main_class_of_items_that_are_there_is_filled_in(empty_url):
    """Of each label the best probability counts; of two alike the first by name."""
    said = {
        "a": {"a detector": {"detections": [{"label": "patches", "probability": 0.3}]}},
        "b": {
            "a detector": {"detections": [{"label": "patches", "probability": 0.3}]},
            "a segmenter": {"segments": [{"label": "inclusion", "score": 0.7}]},
            "a classifier": {"probabilities": {"slag": 0.7, "red iron": 0.3}},
        },
        "c": {"a classifier": {"probabilities": {"slag": 0.0}}},
        "d": {},
    }
    migrate(empty_url, revision="0006")
    engine = sa.create_engine(empty_url)
    items = sa.Table("review_items", sa.MetaData(), autoload_with=engine)
    common = {
        **dict.fromkeys(("project", "config_revision", "note", "state"), "x"),
        **dict.fromkeys(("priority", "attempts", "fence"), 0),
        **dict.fromkeys(("created_at", "updated_at"), datetime(2026, 5, 4, tzinfo=UTC)),
        "reasons": [],
    }
    with engine.begin() as connection:
        for key, predictions in said.items():
            row = {"id": key, "image_sha256": key, "dedupe_key": key, "predictions": predictions}
            connection.execute(sa.insert(items), common | row)
    before = _rows(engine)
    migrate(empty_url)
    found = _rows(engine)
    assert {row["id"]: row.pop("main_class") for row in found} == {
        **{"a": "patches", "b": "inclusion", "c": "", "d": ""}
    }
    downgrade(empty_url, revision="0006")
    assert found == before == _rows(engine)
    engine.dispose()


def _rows(engine):
    with engine.connect() as connection:
        query = sa.text("SELECT * FROM review_items ORDER BY id")
        return [dict(row) for row in connection.execute(query).mappings()]


def test_four_processes_may_open_an_empty_ledger_at_once(empty_url):
    def opens(n):
        ledger = open_ledger(empty_url)
        note(ledger, n)
        ledger.close()

    assert in_children(*(partial(opens, n) for n in range(4))) == [0, 0, 0, 0]
    ledger = open_ledger(empty_url)
    assert sorted(numbers(ledger)) == [0, 1, 2, 3]
    ledger.close()


def test_the_ledger_of_a_newer_release_is_refused(empty_url):
    with closing(open_ledger(empty_url)) as ledger, ledger.session() as session:
        session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match=r"'9999'.*written by a newer Rollmark; update this one"):
        open_ledger(empty_url)


# --- failures in one sentence ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("ledger.db", "The ledger's address is no SQLAlchemy URL; sqlite:///data/ledger.db is one"),
        ("fax://x", "The ledger's address is no SQLAlchemy URL"),
        ("sqlite://", "names no file: it would be lost"),
        ("sqlite:///:memory:", "names no file: it would be lost"),
        ("mysql+pymysql://u:secret@h/d", "needs the Python package 'pymysql': install it with"),
        (
            "postgresql+psycopg://u:secret@/d?host=/nowhere",
            r"postgresql\+psycopg://u:\*\*\*@/d\?host=%2Fnowhere cannot be reached: check that its",
        ),
        (
            "postgresql+psycopg://u@/d?host=/nowhere&password=secret",
            r"postgresql\+psycopg://u@/d\?host=%2Fnowhere&password=%2A%2A%2A cannot be reached",
        ),
    ],
)
def test_a_useless_address_is_told_in_one_sentence_without_its_password(url, sentence):
    with pytest.raises(LedgerError, match=sentence) as caught:
        open_ledger(url)
    assert "secret" not in str(caught.value)


def test_an_unknown_database_of_a_running_server_is_told(postgres_server):
    with pytest.raises(LedgerError, match="does not exist"):
        open_ledger(postgres_server.url("elsewhere"))


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(LedgerError, match="cannot be made: Not a directory; name another one"):
        open_ledger(f"sqlite:///{tmp_path}/file/deeper/ledger.db")


def test_the_folders_of_a_new_ledger_are_made(tmp_path):
    open_ledger(f"sqlite:///{tmp_path}/not/yet/there/ledger.db").close()
    assert (tmp_path / "not" / "yet" / "there" / "ledger.db").is_file()


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "ledger.db").write_bytes(b"a letter, not a ledger. " * 50)
    with pytest.raises(LedgerError, match="is not an SQLite database: name another file"):
        sqlite_ledger(tmp_path)


def test_a_lock_that_lasts_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(ledger_module, "_BUSY_TIMEOUT_S", 0)
    ledger = sqlite_ledger(tmp_path)
    with ledger.session() as session:
        session.execute(sa.text("SELECT 1"))
        with pytest.raises(LedgerError, match="is locked by another process"):
            note(ledger, 1)


def test_a_read_only_file_is_told(tmp_path):
    sqlite_ledger(tmp_path).close()
    connection = sqlite3.connect(f"file:{tmp_path}/ledger.db?mode=ro", uri=True)
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("DELETE FROM leases")
    connection.close()
    assert str(ledger_error(caught.value, "sqlite:///l.db")) == (
        "The ledger sqlite:///l.db cannot be written: make the file and its folder writable for "
        "this user (attempt to write a readonly database)."
    )


def test_a_damaged_file_is_told(tmp_path):
    path = tmp_path / "ledger.db"
    sqlite_ledger(tmp_path).close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)  # every page but the first
    path.write_bytes(data)
    with pytest.raises(LedgerError, match="is damaged: restore it from a backup"):
        note(sqlite_ledger(tmp_path), 1)


def test_a_database_at_its_size_limit_is_told_and_loses_nothing(tmp_path):
    ledger = sqlite_ledger(tmp_path)
    note(ledger, 1)

    def overfills():
        with ledger.session() as session:
            session.execute(sa.text("PRAGMA max_page_count = 1"))  # means: no more than it has
            ledger.record(session, "noted", who="test", entity="number:2", text="x" * 100_000)

    with pytest.raises(LedgerError, match="because the disk is full: free some space"):
        overfills()
    assert numbers(ledger) == [1]
    note(ledger, 3)
    assert numbers(ledger) == [1, 3]


def test_a_file_that_may_not_grow_is_told_and_loses_nothing(tmp_path):
    ledger = sqlite_ledger(tmp_path)

    def writes_on():
        for n in range(1000):
            note(ledger, n, text="x" * 1000)
            with (tmp_path / "acknowledged").open("a") as file:
                file.write(f"{n}\n")

    def fills_up():
        limit = 150_000  # bytes of the largest file that this process may write
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        with pytest.raises(LedgerError, match=r"disk is full|the limits on file size"):
            writes_on()

    assert in_children(fills_up) == [0]
    acknowledged = [int(n) for n in (tmp_path / "acknowledged").read_text().split()]
    assert len(acknowledged) > 5
    assert [event.entity for event in ledger.events(limit=5000)] == [
        f"number:{n}" for n in acknowledged
    ]
    note(ledger, 9999)  # and with space again it goes on


# --- a cut or damaged write-ahead log ----------------------------------------------------------


@pytest.fixture(scope="module")
def wal_history(tmp_path_factory):
    """A database file, its write-ahead log, and how long the log was after each of 6 commits."""
    folder = tmp_path_factory.mktemp("wal")
    path = folder / "ledger.db"
    migrate(f"sqlite:///{path}")
    ledger = open_ledger(f"sqlite:///{path}")
    lengths = []
    with ledger.reading() as session:  # an open reader keeps the log from being folded in
        session.execute(sa.text("SELECT count(*) FROM events"))
        for n in range(6):
            note(ledger, n)
            lengths.append(Path(f"{path}-wal").stat().st_size)
        shutil.copyfile(path, folder / "copy.db")
        wal = Path(f"{path}-wal").read_bytes()
    return folder / "copy.db", wal, lengths


def reopened(tmp_path, wal_history, wal):
    shutil.copyfile(wal_history[0], tmp_path / "ledger.db")
    (tmp_path / "ledger.db-wal").write_bytes(wal)
    ledger = sqlite_ledger(tmp_path)
    with ledger.reading() as session:
        assert session.execute(sa.text("PRAGMA integrity_check")).scalar_one() == "ok"
    return numbers(ledger)


def test_a_cut_log_keeps_every_commit_that_lies_before_the_cut(tmp_path, wal_history):
    _, wal, lengths = wal_history
    assert lengths == sorted(set(lengths))  # each commit made the log longer
    cuts = [cut for length in lengths for cut in (length - 1, length, length + 1)]
    for i, cut in enumerate([0, 31, 32, *cuts]):
        folder = tmp_path / str(i)
        folder.mkdir()
        complete = sum(length <= cut for length in lengths)
        assert reopened(folder, wal_history, wal[:cut]) == list(range(complete)), cut


def test_a_damaged_frame_takes_back_only_what_came_after_it(tmp_path, wal_history):
    _, wal, lengths = wal_history
    for i, commit in enumerate((2, 5)):
        folder = tmp_path / str(i)
        folder.mkdir()
        damaged = bytearray(wal)
        damaged[lengths[commit] - 100] ^= 0xFF  # in the last frame of that commit
        assert reopened(folder, wal_history, bytes(damaged)) == list(range(commit))


def test_threads_that_open_ledgers_at_once_do_not_meet_in_alembic(tmp_path):
    urls = [f"sqlite:///{tmp_path / f'{k}.db'}" for k in range(6)]
    with ThreadPoolExecutor(6) as pool:
        ledgers = list(pool.map(open_ledger, urls))
    for ledger in ledgers:
        ledger.close()
