"""Folders for what need not last: one of the user's, for libraries, and one of each process's own.

Libraries put settings and caches into the home folder, or into places below `/tmp` that every user
of the machine shares by name. A service user has no home, a container's user often no name either,
and what another user made first cannot be written. Both folders here are the user's alone.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

from core.errors import ConfigError

_LOCK: Final = ".lock"  # a process holds it for as long as it lives
_PROCESS: Final = "process-"
_LONGEST: Final = 107 - len("/pymp-12345678/listener-12345678")  # of a socket's path, in bytes


@cache
def own_folder() -> Path:
    """This user's folder for temporary files of Rollmark's, closed to all others.

    Raises:
        ConfigError: if there is nowhere to make one.
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"rollmark-{os.getuid()}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        facts = folder.lstat()
        if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid():
            folder.chmod(0o700)
            return folder
        return Path(tempfile.mkdtemp(prefix="rollmark-"))  # somebody else has taken the name
    except OSError as exc:
        raise ConfigError(
            f"No temporary files can be written ({exc.strerror}): set TMPDIR to a folder that this "
            "user may write, outside ROLLMARK_PATHS__DATA."
        ) from exc


@cache
def scratch() -> Path:
    """A folder of this process alone, removed when it ends; those of killed ones are removed first.

    Raises:
        ConfigError: if there is nowhere to make one.
    """
    parent = own_folder()
    try:
        with (parent / _LOCK).open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # one that is being made is not locked yet
            _remove_orphans(parent)
            folder = Path(tempfile.mkdtemp(prefix=_PROCESS, dir=parent))
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)  # open until the end
            fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError as exc:
        raise ConfigError(f"No temporary files can be written: {exc.strerror}.") from exc
    atexit.register(forget_scratch)
    return folder


def forget_scratch() -> None:
    """Remove the folder of this process, if it has one."""
    if scratch.cache_info().currsize:
        shutil.rmtree(scratch(), ignore_errors=True)


@contextmanager
def temporary_files_in_scratch() -> Iterator[None]:
    """While inside, temporary files of this process and of those it forks lie in `scratch`.

    Processes that load images for torch make a folder with a socket each, and leave it when they
    are ended. Where TMPDIR is so long that a socket could not have a name there, nothing changes.

    Raises:
        ConfigError: if there is nowhere to make one.
    """
    before, folder = tempfile.tempdir, str(scratch())
    if len(os.fsencode(folder)) <= _LONGEST:
        tempfile.tempdir = folder
    try:
        yield
    finally:
        tempfile.tempdir = before


def place_library_files() -> None:
    """Tell libraries where they may write; what the environment says already stays.

    To be called before they are imported, for they look once.

    Raises:
        ConfigError: if there is nowhere.
    """
    ours = own_folder()
    # Ultralytics writes its settings anew where it finds them half written by another process.
    os.environ.setdefault("YOLO_CONFIG_DIR", str(scratch() / "ultralytics"))
    # torch would name its folder after the user, and fail for a user without a name.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(ours / "torchinductor"))
    home = os.path.expanduser("~")
    if home == "~":  # no library that asks for it would get further
        os.environ["HOME"] = str(ours)
    elif not os.access(home, os.W_OK):
        os.environ.setdefault("MPLCONFIGDIR", str(ours / "matplotlib"))


def _remove_orphans(parent: Path) -> None:
    """Remove the folders whose processes are gone: nobody holds their locks."""
    for folder in parent.glob(f"{_PROCESS}*"):
        # FileNotFoundError: its process has ended by itself meanwhile, and taken it away.
        with (
            suppress(BlockingIOError, FileNotFoundError),
            (folder / _LOCK).open("ab") as lock,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
