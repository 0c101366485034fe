import json
import os
import shutil
import sqlite3
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.images import ImageStore
from core.ledger import open_ledger
from core.settings import PathSettings
from demo.keeping import kept
from hub import keep
from hub.channel import activate
from hub.keep import Keeper
from hub.registry import resolve
from hub.shelf import read_whole
from tests.demo.conftest import served
from tests.records import make_config, write_described, write_folder


@pytest.fixture
def paths(tmp_path):
    (tmp_path / "bucket").mkdir()
    return PathSettings(data=tmp_path / "data", keep=tmp_path / "bucket")


def happen(paths, *names):
    """Append events of these names."""
    ledger = open_ledger(paths.ledger_url)
    for name in names:
        with ledger.session() as session:
            ledger.record(session, name, who="test", entity="thing:1")
    ledger.close()


def events(paths):
    ledger = open_ledger(paths.ledger_url)
    try:
        return [event.what for event in ledger.events()]
    finally:
        ledger.close()


def copies(paths):
    return sorted(paths.keep.glob("ledger-*.db"))


def forget(paths):
    """What a restart of a Space does to its disk."""
    shutil.rmtree(paths.data)


def test_ledger_images_and_releases_come_back_on_an_empty_disk(paths, tmp_path):
    happen(paths, "first", "second")
    sha256 = ImageStore(paths.images).put(b"a picture")
    write_folder(tmp_path / "run", b"weights")
    activate(tmp_path / "run", paths)
    assert Keeper(paths).copy()
    forget(paths)
    assert Keeper(paths).restore()
    assert events(paths) == ["first", "second", "promoted"]
    assert ImageStore(paths.images).get(sha256) == b"a picture"
    assert resolve("grace", paths).config.revision == make_config().revision


def test_a_release_that_is_described_anew_comes_back_with_the_files_it_now_names(paths, tmp_path):
    keeper = Keeper(paths)
    activate(write_described(tmp_path / "run", b"weights", b"fitted"), paths)
    keeper.copy()
    # The same weights, calibrated again.
    activate(write_described(tmp_path / "run", b"weights", b"anew"), paths)
    assert keeper.copy()
    forget(paths)
    Keeper(paths).restore()
    config, found = read_whole(resolve("grace", paths).folder)
    assert found[config.novelty.file] == b"anew"


def test_what_lies_here_is_newer_and_stays(paths):
    happen(paths, "first")
    Keeper(paths).copy()
    happen(paths, "second")
    assert not Keeper(paths).restore()
    assert events(paths) == ["first", "second"]


def test_nothing_new_is_not_copied_again(paths):
    happen(paths, "first")
    keeper = Keeper(paths)
    assert keeper.copy()
    assert not keeper.copy()
    assert not Keeper(paths).copy()
    assert len(copies(paths)) == 1


def test_a_file_that_is_taken_away_meanwhile_keeps_nothing_else_from_being_copied(
    paths, monkeypatch
):
    happen(paths, "first")
    sha256 = ImageStore(paths.images).put(b"a picture")
    listed = keep._files
    monkeypatch.setattr(keep, "_files", lambda folder: [Path("gone"), *listed(folder)])
    assert Keeper(paths).copy()
    assert len(copies(paths)) == 1
    assert [file.name for file in (paths.keep / "images").rglob("*") if file.is_file()] == [sha256]


def test_three_copies_stay_and_the_log_of_events_is_only_added_to(paths):
    keeper = Keeper(paths)
    for name in "abcde":
        happen(paths, name)
        keeper.copy()
    assert len(copies(paths)) == 3
    files = sorted((paths.keep / "events").glob("*.jsonl"))
    told = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    assert [event["what"] for event in told] == list("abcde")
    assert [file.name for file in files][:2] == [
        "000000000001-000000000001.jsonl",
        "000000000002-000000000002.jsonl",
    ]


def test_a_copy_taken_while_others_write_is_consistent(paths):
    happen(paths, "first")
    stop = threading.Event()

    def write():
        ledger = open_ledger(paths.ledger_url)
        while not stop.is_set():
            with ledger.session() as session:  # two events in one transaction, always together
                ledger.record(session, "half", who="test", entity="thing:1")
                ledger.record(session, "half", who="test", entity="thing:1")
        ledger.close()

    writer = threading.Thread(target=write)
    writer.start()
    keeper = Keeper(paths)
    for _ in range(5):
        keeper.copy()
        with sqlite3.connect(copies(paths)[-1]) as copy:
            [(halves,)] = copy.execute("SELECT count(*) FROM events WHERE what = 'half'")
            assert halves % 2 == 0
            assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        copy.close()
    stop.set()
    writer.join()


def test_a_damaged_copy_is_passed_over_for_the_one_before(paths, caplog):
    keeper = Keeper(paths)
    for name in ("first", "second"):
        happen(paths, name)
        keeper.copy()
    copies(paths)[-1].write_bytes(b"half a database")
    forget(paths)
    assert Keeper(paths).restore()
    assert events(paths) == ["first"]
    assert "is damaged; the one before is tried" in caplog.text


def test_with_damaged_copies_alone_the_app_does_not_start_empty(paths):
    happen(paths, "first")
    Keeper(paths).copy()
    copies(paths)[0].write_bytes(b"")
    forget(paths)
    with pytest.raises(ConfigError, match="None of the 1 copies of the ledger"):
        Keeper(paths).restore()


def test_a_bucket_that_is_not_mounted_stops_the_start(paths):
    shutil.rmtree(paths.keep)
    with pytest.raises(ConfigError, match="mount the bucket, or unset ROLLMARK_PATHS__KEEP"):
        Keeper(paths)


def test_a_clock_that_was_set_back_costs_no_copy(paths, monkeypatch):
    now = datetime(2026, 5, 4, 12, tzinfo=UTC)

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return now

    monkeypatch.setattr(keep, "datetime", Clock)
    keeper = Keeper(paths)
    for number in range(6):
        if number == 3:
            now -= timedelta(hours=1)
        now += timedelta(minutes=1)
        happen(paths, f"event {number}")
        assert keeper.copy()
    assert [copy.name.split("-")[1] for copy in copies(paths)] == [
        "20260504T120300000001Z",  # a microsecond after the latest that is there
        "20260504T120300000002Z",
        "20260504T120300000003Z",
    ]
    forget(paths)
    assert Keeper(paths).restore()
    assert events(paths) == [f"event {number}" for number in range(6)]


def test_an_emptier_ledger_never_pushes_out_a_fuller_copy(paths, monkeypatch):
    monkeypatch.setattr(keep, "_KEPT", 1)
    happen(paths, *"abc")
    Keeper(paths).copy()
    [full] = copies(paths)
    forget(paths)
    keeper = Keeper(paths)  # started without a restore, as by a mistake
    for name in "vw":
        happen(paths, name)
        keeper.copy()
    assert full in copies(paths)
    happen(paths, "x")
    keeper.copy()
    assert len(copies(paths)) == 1  # with as many events it is the newer one that counts


def test_a_bucket_that_fails_is_a_line_in_the_log_and_tried_again(paths, caplog, monkeypatch):
    happen(paths, "first")
    keeper = Keeper(paths)

    def full_disk(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(keep, "write_atomically", full_disk)
        keeper.stop()
    assert "nothing could be copied" in caplog.text
    assert keeper.copy()


def test_a_ledger_on_a_server_is_left_to_its_server(paths):
    happen(paths, "first")
    elsewhere = paths.model_copy(update={"ledger_url": "postgresql+psycopg://db.example/rollmark"})
    assert not Keeper(elsewhere).copy()
    assert not Keeper(elsewhere).restore()


def test_an_app_that_is_told_to_end_copies_what_happened_last(paths, tmp_path):
    (tmp_path / "bundled").mkdir()  # no release: what is kept is the same, and the start is quick
    with served(tmp_path, tmp_path / "bundled", ROLLMARK_PATHS__KEEP=str(paths.keep)):
        happen(paths, "while serving")
    forget(paths)
    with kept(paths):
        assert events(paths) == ["while serving"]


def test_what_a_copy_that_was_killed_left_is_removed_at_the_next_start(paths):
    left = paths.keep / ".ledger-20261123T115112552732Z-2-b1058619.mzdl0jg2"
    left.write_bytes(b"half a ledger")
    Keeper(paths).restore()
    assert left.exists()  # somebody may be at it
    os.utime(left, (0, 0))
    Keeper(paths).restore()
    assert not left.exists()
