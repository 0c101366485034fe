"""A prepared set's folder while it is made: out of sight, and in place only when it is whole.

The set that was there before is given up last, and comes back whatever goes wrong, also when a
process was killed between the two renames: whoever prepares the set next finds it.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from core.errors import DatasetError

_NEW, _OLD = "new", "old"


@contextmanager
def folder_in_the_making(data_root: Path, name: str) -> Iterator[Path]:
    """A temporary folder beside the final one that takes its place if all goes well.

    Raises:
        DatasetError: if another process prepares the same set, or the folder cannot take its place.
    """
    data_root.mkdir(parents=True, exist_ok=True)
    final = data_root / name
    with ExitStack() as until_done:
        with _locked(data_root):  # one that is being made is not locked yet
            _clear(data_root, final)
            made = tempfile.TemporaryDirectory(prefix=f".{name}-", dir=data_root)
            scratch = Path(until_done.enter_context(made))
            until_done.enter_context(_locked(scratch))
        folder = scratch / _NEW
        (folder / "images").mkdir(parents=True)
        yield folder
        _take_place(folder, final, scratch / _OLD)


@contextmanager
def _locked(folder: Path, *, or_refuse: bool = False) -> Iterator[None]:
    """Hold a folder's lock; BlockingIOError where it shall be refused while others hold it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if or_refuse else 0))
        yield
    finally:
        os.close(descriptor)


def _clear(data_root: Path, final: Path) -> None:
    """Remove what killed processes left, after the set has its place again if they had taken it."""
    # what tempfile adds has no hyphen, so that mill never removes what mill-a is making
    left = re.compile(rf"\.{re.escape(final.name)}-[a-z0-9_]{{8}}")
    for scratch in [path for path in data_root.iterdir() if left.fullmatch(path.name)]:
        try:
            with _locked(scratch, or_refuse=True):
                if (scratch / _OLD).is_dir() and not final.exists():
                    (scratch / _OLD).rename(final)
                shutil.rmtree(scratch, ignore_errors=True)
        except BlockingIOError as exc:
            raise DatasetError(
                f"{final.name} is being prepared by another process: wait until it is done."
            ) from exc
        except FileNotFoundError:  # it has just been done
            continue


def _take_place(folder: Path, final: Path, old: Path) -> None:
    try:
        if final.exists():
            final.rename(old)
        folder.rename(final)
    except OSError as exc:
        raise DatasetError(f"{final} cannot be put in place: {exc}.") from exc
    finally:  # being told to end is no OSError, and comes at any moment
        if old.exists() and not final.exists():
            old.rename(final)
