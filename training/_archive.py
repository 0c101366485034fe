"""A zip or a folder read as one thing: member names and their bytes, nothing written to disk.

Members are only ever read into memory by name, so a hostile path cannot reach outside; such a path
refuses the whole archive all the same, because nothing in it deserves trust. Sizes are capped from
the zip's directory before a byte is inflated, and again while inflating.
"""

from __future__ import annotations

import unicodedata
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

from core.errors import DatasetError, InputError
from core.files import ZIP_METHODS

MAX_MEMBERS = 100_000
MAX_TOTAL_BYTES = 8 * 1024**3  # GC10-DET, the largest public set, is about 1 GiB
MAX_MEMBER_BYTES = 64 * 1024**2


class Archive(Protocol):
    """Where a data set is read from."""

    def names(self) -> tuple[str, ...]:
        """Paths of all files, with forward slashes, relative to the top, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """Bytes of one file; InputError if that file is broken or too large."""
        ...


class ZipSource:
    """A zip archive; see `Archive`.

    Raises:
        DatasetError: if it is no zip, holds a path that leaves the archive, or breaks a cap.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as exc:
            raise DatasetError(f"{path} cannot be opened as a zip: {exc}.") from exc
        members = [info for info in self._zip.infolist() if not _slashed(info).endswith("/")]
        try:
            _check_members(path, members)
        except DatasetError:
            self._zip.close()
            raise
        self._members = {_slashed(info): info for info in members}
        self._names = tuple(sorted(_slashed(info) for info in members))

    def names(self) -> tuple[str, ...]:
        """Paths of all files, sorted."""
        return self._names

    def read(self, name: str) -> bytes:
        """Bytes of one member, its checksum verified; InputError if it is broken or too large."""
        try:
            info = self._members[name]
            if info.compress_type not in ZIP_METHODS:
                raise InputError(f"{name} is compressed in a way that is not read here.")
            with self._zip.open(info) as member:
                # the directory may lie about the size: never inflate more than the cap
                data = member.read(MAX_MEMBER_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, KeyError) as exc:
            raise InputError(f"{name} cannot be read from the archive: {exc}.") from exc
        return _within_cap(name, data)

    def close(self) -> None:
        """Close the file behind the archive."""
        self._zip.close()


class FolderSource:
    """A folder with everything below it; see `Archive`. Links that lead outside are not followed.

    Raises:
        DatasetError: if a cap is broken, or a name cannot be written into a list of files.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        files = [path for path in sorted(self._root.rglob("*")) if self._is_inside(path)]
        if len(files) > MAX_MEMBERS:
            raise DatasetError(f"{root} holds {len(files)} files; at most {MAX_MEMBERS} are read.")
        self._members = {composed(p.relative_to(self._root).as_posix()): p for p in files}
        if odd := [name for name in self._members if not _is_utf8(name)]:
            raise DatasetError(
                f"{root} holds file names that are not UTF-8 ({len(odd)}, the first {odd[0]!r}): "
                "rename them."
            )

    def names(self) -> tuple[str, ...]:
        """Paths of all files, sorted."""
        return tuple(sorted(self._members))

    def read(self, name: str) -> bytes:
        """Bytes of one file; InputError if it cannot be read or is too large."""
        try:
            with self._members[name].open("rb") as file:
                data = file.read(MAX_MEMBER_BYTES + 1)
        except (OSError, KeyError) as exc:
            raise InputError(f"{name} cannot be read: {exc}.") from exc
        return _within_cap(name, data)

    def close(self) -> None:
        """Nothing to close; present so that both sources end the same way."""

    def _is_inside(self, path: Path) -> bool:
        return path.is_file() and path.resolve().is_relative_to(self._root)


def open_source(source: Path) -> ZipSource | FolderSource:
    """The zip or the folder at that path.

    Raises:
        DatasetError: if there is neither, or the zip is unsafe.
    """
    if source.is_dir():
        return FolderSource(source)
    if source.is_file():
        return ZipSource(source)
    raise DatasetError(f"No data at {source}: give a zip or a folder.")


def composed(name: str) -> str:
    """A name with ü as one character: as keyboards and labelling tools write it, macOS may not."""
    return unicodedata.normalize("NFC", name)


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_MEMBERS:
        raise DatasetError(f"{path} holds {len(members)} members; at most {MAX_MEMBERS} are read.")
    total = sum(info.file_size for info in members)
    if total > MAX_TOTAL_BYTES:
        raise DatasetError(
            f"{path} would unpack to {total} bytes; at most {MAX_TOTAL_BYTES} are read."
        )
    for info in members:
        parts = PurePosixPath(_slashed(info))
        if parts.is_absolute() or ".." in parts.parts or any(":" in p for p in parts.parts[:1]):
            raise DatasetError(
                f"{path} holds the path {info.filename!r}, which leaves the archive: pack it "
                "anew, or take it from its public source again."
            )


def _slashed(info: zipfile.ZipInfo) -> str:
    """Its name as zips are meant to have it; some that are made on Windows hold backslashes."""
    return composed(info.filename.replace("\\", "/"))


def _is_utf8(name: str) -> bool:
    """Whether it is a text; bytes of a file name that are none stand in it as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _within_cap(name: str, data: bytes) -> bytes:
    if len(data) > MAX_MEMBER_BYTES:
        raise InputError(f"{name} is larger than {MAX_MEMBER_BYTES} bytes.")
    return data
