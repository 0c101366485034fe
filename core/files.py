"""Writing a file so that a crash leaves the old bytes or the new ones; what of a zip is read.

And what a disk or a folder says that refuses.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
import time
import zipfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

_SHOWN: Final = 40  # letters of a file's name that its temporary one has: names have an end
_RANDOM: Final = "[a-z0-9_]" * 8  # what tempfile adds
STALE_S: Final = 3600  # what one process works on is done long before
# zipfile undoes these a piece at a time; of the others it unpacks all that was read at once, and
# some hundred bytes become gigabytes.
ZIP_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# What a disk or a folder refuses wherever it is written to; anything else may be a bug of ours.
_REFUSALS: Final = frozenset(
    (
        errno.EACCES,
        errno.EDQUOT,
        errno.EEXIST,  # a file where a folder should be
        errno.EIO,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOSPC,
        errno.ENOTDIR,
        errno.EPERM,
        errno.EROFS,
        errno.ESTALE,  # a folder of another machine that is gone
    )
)


def refusal(error: OSError) -> str | None:
    """What to tell a person whose disk or folder refuses; None of an error of any other kind."""
    if error.errno not in _REFUSALS:
        return None
    where = f"{error.filename} cannot be used" if error.filename else "Nothing can be written"
    return f"{where}: {error.strerror}; make room, or name another place."


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Replace `path` by `data`: temporary file, fsync, rename, fsync of the folder.

    Missing folders are made. When it returns, file and name have reached the disk. A pipe or a
    device, such as /dev/stdout, is written to instead.

    Args:
        path: of the file.
        data: its bytes, whole or one piece after the other: what is too large for memory.

    Raises:
        OSError: if the disk is full or the folder cannot be written; `path` is as it was.
    """
    pieces = (data,) if isinstance(data, bytes) else data
    if _is_no_file(path):
        with path.open("ab") as file:
            file.writelines(pieces)
        return
    made = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name[:_SHOWN]}.", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)  # mkstemp makes it private to the owner
        temporary.replace(path)
    except BaseException as exc:
        temporary.unlink(missing_ok=True)
        if isinstance(exc, OSError) and exc.filename is None:  # as of a full disk
            exc.filename = str(path)
        raise
    if os.name == "posix":  # the new names themselves must survive a power cut
        for folder in (path.parent, *(new.parent for new in made)):
            _sync_folder(folder)


def _is_no_file(path: Path) -> bool:
    """Whether there is something that must not be replaced: a pipe, a device, or its name."""
    place = path.absolute()
    is_named = path.is_symlink() and (place.is_relative_to("/dev") or place.is_relative_to("/proc"))
    return is_named or path.is_fifo() or path.is_char_device()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_unfinished(parent: Path, names: str) -> None:
    """Remove what killed processes left of files that `write_atomically` was writing.

    Args:
        parent: of the files.
        names: of the files themselves, as `Path.glob` takes them.
    """
    for left in parent.glob(f".{names}.{_RANDOM}"):
        with suppress(OSError):  # another process was faster, or it is another user's and stays
            facts = left.lstat()
            if stat.S_ISREG(facts.st_mode) and time.time() - facts.st_mtime > STALE_S:
                left.unlink()


def remove_stale(parent: Path, pattern: str) -> None:
    """Remove the folders that processes left in a folder when they were killed.

    Args:
        parent: of the folders.
        pattern: of their names, as `Path.glob` takes it; one that nothing else is named by.
    """
    for folder in parent.glob(pattern):
        try:
            is_stale = time.time() - folder.lstat().st_mtime > STALE_S
        except OSError:  # another process was faster
            continue
        if is_stale and folder.is_dir() and not folder.is_symlink():
            shutil.rmtree(folder, ignore_errors=True)  # another user's stays
