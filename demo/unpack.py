"""Pictures out of what was dropped: files, and zip archives of them. Nothing in them is trusted.

Names are for people only: nothing is ever written under a name from outside. What an archive says
of its own sizes is checked first, and what comes out of it is counted again.
"""

from __future__ import annotations

import io
import stat
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from core.errors import InputError
from core.files import ZIP_METHODS
from core.images import MEGA, SUFFIXES
from core.settings import ServingSettings

_ENCRYPTED: Final = 0x1  # of a member's flag bits
_DIRECTORY_BYTES: Final = 1000  # of an archive's list of files, for each picture a job may have
_END_BYTES: Final = 66_000  # of an archive's end: 22, a comment of up to 65,535, and some
_NAME_LENGTH: Final = 120
_PACKED: Final = (".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz")  # may hold pictures
_PACKED_NAMED: Final = 3  # in the sentence that says why there are no pictures


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """What one job may bring along."""

    pictures: int
    picture_bytes: int  # of one picture
    total_bytes: int  # of all pictures, unpacked

    @classmethod
    def of(cls, serving: ServingSettings) -> BatchLimits:
        """The limits of the settings; unpacked, a job may be ten times its upload."""
        return cls(
            pictures=serving.max_batch_images,
            picture_bytes=int(serving.max_image_mb * MEGA),
            total_bytes=int(10 * serving.max_upload_mb * MEGA),
        )


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture that was dropped: its bytes, or the sentence that says why there are none.

    Both `name` and `place` are for people: the file's own name, and the same with the folders and,
    where several files were dropped, the archive that it was in.
    """

    name: str
    place: str
    data: bytes | InputError


def list_pictures(
    files: Sequence[tuple[Path, str]], limits: BatchLimits
) -> tuple[int, tuple[str, ...]]:
    """How many pictures the files hold, and the names of the other files, which are left out.

    Args:
        files: path and name of each file that was dropped.
        limits: of the job.

    Raises:
        InputError: if an archive is damaged or encrypted, there is no picture at all, or there are
            more of them or more bytes than a job may have.
    """
    pictures = total = 0
    others: list[str] = []
    for path, name in files:
        if _is_archive(name):
            with _opened(path, name, limits) as archive:
                members = [m for m in archive.infolist() if not m.is_dir()]
                wanted = [m for m in members if _is_wanted(m)]
            if any(member.flag_bits & _ENCRYPTED for member in wanted):
                raise InputError(f"{name} is encrypted; unpack it and drop the pictures.")
            pictures += len(wanted)
            others += [shown_name(m.filename) for m in members if not _is_wanted(m)]
            total += sum(member.file_size for member in wanted)
        elif _is_picture(name):
            pictures += 1
            total += path.stat().st_size
        else:
            others.append(shown_name(name))
    if pictures == 0:
        raise InputError(_without_pictures(others))
    if pictures > limits.pictures:
        raise InputError(
            f"There are {pictures} pictures in it; at most {limits.pictures} are taken at a time."
        )
    if total > limits.total_bytes:
        raise InputError(
            f"Unpacked it is {total / MEGA:.0f} MB; at most {limits.total_bytes / MEGA:.0f} MB are "
            "taken at a time."
        )
    return pictures, tuple(others)


def _without_pictures(others: Sequence[str]) -> str:
    """Why there is none, which may be that all are in an archive within the archive."""
    packed = [name for name in others if name.lower().endswith(_PACKED) and name[0] != "."]
    if not packed:
        return "There is no picture in it; PNG, JPEG, BMP, TIFF and WebP are read."
    more = len(packed) - _PACKED_NAMED
    named = ", ".join(packed[:_PACKED_NAMED]) + (f" and {more} more" if more > 0 else "")
    are, them = ("is", "it") if len(packed) == 1 else ("are", "them")
    return (
        f"There is no picture in it; {named} {are} not opened: unpack {them} first and drop what "
        f"is in {them}."
    )


def unpack(files: Sequence[tuple[Path, str]], limits: BatchLimits) -> Iterator[Picture]:
    """The pictures themselves, in the order of the files and of each archive's names.

    Raises:
        InputError: if more bytes come out of an archive than it said.
    """
    left = limits.total_bytes
    for path, name in files:
        if _is_archive(name):
            found = _members(path, name, limits, within=f"{name}/" if len(files) > 1 else "")
        elif _is_picture(name):
            found = iter([Picture(shown_name(name), shown_name(name), _read(path, limits))])
        else:
            continue
        for picture in found:
            left -= 0 if isinstance(picture.data, InputError) else len(picture.data)
            if left < 0:
                raise InputError(
                    f"{name} unpacks to more than {limits.total_bytes / MEGA:.0f} MB, which is "
                    "more than it says; it is not taken."
                )
            yield picture


def _members(path: Path, name: str, limits: BatchLimits, *, within: str) -> Iterator[Picture]:
    with _opened(path, name, limits) as archive:
        for member in sorted(filter(_is_wanted, archive.infolist()), key=lambda m: m.filename):
            place = _printable(f"{within}{member.filename}".replace("\\", "/"))
            yield Picture(shown_name(member.filename), place, _extract(archive, member, limits))


def _extract(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, limits: BatchLimits
) -> bytes | InputError:
    if member.compress_type not in ZIP_METHODS:
        return InputError("It is compressed in a way that is not read here; pack it again as zip.")
    try:
        with archive.open(member) as stream:
            data = stream.read(limits.picture_bytes + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError):
        return InputError("It is damaged inside its archive.")
    return _checked(data, limits)


def _read(path: Path, limits: BatchLimits) -> bytes | InputError:
    with path.open("rb") as stream:
        return _checked(stream.read(limits.picture_bytes + 1), limits)


def _checked(data: bytes, limits: BatchLimits) -> bytes | InputError:
    if len(data) > limits.picture_bytes:
        return InputError(f"It has more than {limits.picture_bytes / MEGA:g} MB.")
    return data


@contextmanager
def _opened(path: Path, name: str, limits: BatchLimits) -> Iterator[zipfile.ZipFile]:
    """An archive whose list of files was read and is not endless."""
    with ExitStack() as held:
        try:
            file = held.enter_context(_Bounded(path))
            file.most_bytes = _END_BYTES + _DIRECTORY_BYTES * limits.pictures
            archive = held.enter_context(zipfile.ZipFile(file))
            file.most_bytes = None
        except _TooMuch as exc:
            raise InputError(f"{name} lists too many files; pack the pictures alone.") from exc
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as exc:
            raise InputError(f"{name} is no readable zip archive; pack it again.") from exc
        yield archive


class _TooMuch(Exception):
    """More would be read at once than is allowed."""


class _Bounded(io.FileIO):
    """A file of which no more is read at once than `most_bytes`, unless that is None.

    zipfile reads the whole list of files in one go, makes an object of every entry, and believes
    what the archive says of the list's size, in a place that depends on the archive's format.
    """

    most_bytes: int | None = None

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file; raises _TooMuch."""
        most = self.most_bytes
        if most is None:
            return super().read(size)
        data = super().read(most + 1 if size is None or size < 0 else min(size, most + 1))
        if len(data) > most:
            raise _TooMuch
        return data


def _is_archive(name: str) -> bool:
    return name.lower().endswith(".zip")


def _is_picture(name: str) -> bool:
    return PurePosixPath(name.replace("\\", "/")).suffix.lower() in SUFFIXES


def _is_wanted(member: zipfile.ZipInfo) -> bool:
    """A picture by its name; no folder, no symbolic link, none of a Mac's shadow files."""
    parts = PurePosixPath(member.filename.replace("\\", "/")).parts
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    hidden = "__MACOSX" in parts or (bool(parts) and parts[-1].startswith("."))
    return not member.is_dir() and not is_link and not hidden and _is_picture(member.filename)


def shown_name(name: str) -> str:
    """The file's own name, for people: without folders, and of a length that fits a table."""
    return _printable(PurePosixPath(name.replace("\\", "/")).name or "picture")


def _printable(text: str) -> str:
    """A text of one line; of a long one the end, where the names differ."""
    return "".join(c if c.isprintable() else "_" for c in text)[-_NAME_LENGTH:]
