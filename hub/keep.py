"""What must outlive a machine whose disk does not: ledger, images and releases, copied elsewhere.

The folder named by `paths.keep` may be a bucket mounted into a Space. Nobody promises that SQLite's
locks hold on such a mount, so the live ledger never lies there: a consistent copy made by SQLite's
own backup is written beside the older ones, and new events go into files that are never touched
again. Images are copied before the ledger that names them counts. A kill loses what happened since
the last copy, at most `EVERY_S`; an orderly end loses nothing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import sqlite3
import tempfile
import threading
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError
from core.files import remove_unfinished, write_atomically
from core.ledger import ledger_address
from core.scratch import scratch
from core.settings import PathSettings
from models._release import CHANNEL_FILE

logger = logging.getLogger(__name__)

EVERY_S: Final = 60.0
_KEPT: Final = 3  # copies of the ledger
_TIME: Final = "%Y%m%dT%H%M%S%fZ"
_NAME: Final = re.compile(r"ledger-(\d{8}T\d{12}Z)-(\d+)-([0-9a-f]{12})\.db")


class Keeper:
    """Copies what changes to `paths.keep`, and brings it back on a fresh disk.

    Args:
        paths: where things lie; `keep` must be set.

    Raises:
        ConfigError: if `keep` is not a folder: a bucket that is not mounted must not look empty.
    """

    def __init__(self, paths: PathSettings) -> None:
        if paths.keep is None or not paths.keep.is_dir():
            raise ConfigError(
                f"{paths.keep} is no folder, so nothing could be kept there: mount the bucket, or "
                "unset ROLLMARK_PATHS__KEEP."
            )
        self._paths, self._keep = paths, paths.keep
        self._ledger = _sqlite_file(paths.ledger_url)
        self._copied: dict[Path, tuple[int, int, int]] = {}  # stamp of what each was copied from
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def restore(self) -> bool:
        """Bring back what is missing here; whether a ledger was.

        A ledger that lies here is newer than every copy, and stays.

        Raises:
            ConfigError: if there are copies of the ledger and none is sound: starting with an empty
                one would hide it.
        """
        remove_unfinished(self._keep, "ledger-*")  # each as large as the ledger
        for place, here in self._folders():
            for file in _files(self._keep / place):
                target = here / file
                if not target.exists():
                    write_atomically(target, (self._keep / place / file).read_bytes())
        copies = self._copies()
        if self._ledger is None or self._ledger.exists() or not copies:
            return False
        for copy in reversed(copies):
            data = copy.read_bytes()
            named = _NAME.fullmatch(copy.name)
            if named is not None and hashlib.sha256(data).hexdigest().startswith(named[3]):
                write_atomically(self._ledger, data)
                logger.info("brought the ledger back from %s", copy.name)
                return True
            logger.error("%s is damaged; the one before is tried", copy)
        raise ConfigError(
            f"None of the {len(copies)} copies of the ledger in {self._keep} is sound: repair one, "
            "or move them away to start anew."
        )

    def copy(self) -> bool:
        """Copy what is new; whether anything was.

        Raises:
            OSError: if a folder cannot be read or written; older copies are as they were.
            sqlite3.Error: if the ledger cannot be read.
        """
        with self._lock:
            # First the ledger as of now, then the images it names, and only then does it count.
            taken = _backup(self._ledger) if self._ledger and self._ledger.exists() else None
            changed = [self._copy_folder(place, here) for place, here in self._folders()]
            is_new = taken is not None and self._put_ledger(taken)
            return is_new or any(changed)

    def start(self) -> None:
        """Copy every minute in the background until `stop`."""
        self._thread = threading.Thread(target=self._run, name="keep", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the background copies with a last one."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._try_copy()

    def _run(self) -> None:
        while not self._stop.wait(EVERY_S):
            self._try_copy()

    def _try_copy(self) -> None:
        try:
            self.copy()
        except (OSError, sqlite3.Error) as exc:
            logger.error("nothing could be copied to %s: %s", self._keep, exc)

    def _folders(self) -> tuple[tuple[str, Path], ...]:
        return ("images", self._paths.images), ("releases", self._paths.releases)

    def _copy_folder(self, place: str, here: Path) -> bool:
        changed = False
        # What names others goes after them: a description after its files, a channel after both.
        for file in sorted(
            _files(here), key=lambda f: (f.name == CHANNEL_FILE, f.suffix == ".json")
        ):
            source, target = here / file, self._keep / place / file
            try:
                facts = source.stat()  # taken first: a change while reading is noticed next time
                stamp = (facts.st_mtime_ns, facts.st_size, facts.st_ino)
                if self._copied.get(target) == stamp:
                    continue
                data = source.read_bytes()
            except FileNotFoundError:  # taken away since it was listed: nothing names it any more
                continue
            if not (target.is_file() and target.read_bytes() == data):
                write_atomically(target, data)
                changed = True
            self._copied[target] = stamp
        return changed

    def _put_ledger(self, data: bytes) -> bool:
        digest = hashlib.sha256(data).hexdigest()[:12]
        copies = self._copies()
        if copies and copies[-1].stem.endswith(digest):
            return False
        events, count = _events(data, after=self._last_event())
        if events:
            first, last = events[0]["id"], events[-1]["id"]
            lines = "".join(json.dumps(event) + "\n" for event in events)
            file = self._keep / "events" / f"{first:012d}-{last:012d}.jsonl"
            write_atomically(file, lines.encode())
        name = f"ledger-{_later_than(copies):{_TIME}}-{count}-{digest}.db"
        write_atomically(self._keep / name, data)
        for old in self._copies()[:-_KEPT]:
            named = _NAME.fullmatch(old.name)
            if named is not None and int(named[2]) <= count:  # never a fuller one for an emptier
                old.unlink()
        return True

    def _copies(self) -> list[Path]:
        """Copies of the ledger, oldest first."""
        return sorted(path for path in self._keep.glob("ledger-*.db") if _NAME.match(path.name))

    def _last_event(self) -> int:
        files = sorted((self._keep / "events").glob("*.jsonl"))
        return int(files[-1].stem.partition("-")[2]) if files else 0


def _later_than(copies: Sequence[Path]) -> datetime:
    """Now, or right after the latest copy where the clock was set back: names tell the order."""
    now = datetime.now(UTC)
    named = _NAME.fullmatch(copies[-1].name) if copies else None
    if named is None:
        return now
    latest = datetime.strptime(named[1], _TIME).replace(tzinfo=UTC)
    return max(now, latest + timedelta(microseconds=1))


def _sqlite_file(url: str) -> Path | None:
    """The file of an SQLite ledger; None for a database that is kept by its own server."""
    parsed = ledger_address(url)
    is_file = parsed.get_backend_name() == "sqlite"
    return Path(parsed.database) if is_file and parsed.database else None


def _backup(ledger: Path) -> bytes:
    """A consistent copy of a database that others write to meanwhile."""
    with tempfile.TemporaryDirectory(prefix="keep-", dir=scratch()) as folder:
        copy = Path(folder) / "ledger.db"
        with closing(sqlite3.connect(ledger)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            target.execute("PRAGMA journal_mode = DELETE")  # one file, no log beside it
        return copy.read_bytes()


def _events(data: bytes, *, after: int) -> tuple[list[dict[str, Any]], int]:
    """The events of a copy after one of them, oldest first, and how many there are in all."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(data)
        [count] = database.execute("SELECT count(*) FROM events").fetchone()
        database.row_factory = sqlite3.Row
        rows = database.execute("SELECT * FROM events WHERE id > ? ORDER BY id", (after,))
        return [dict(row) for row in rows], int(count)


def _files(folder: Path) -> list[Path]:
    """Every file below a folder, relative to it; temporary and hidden ones are left out."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part[0] == "." for part in path.parts))
