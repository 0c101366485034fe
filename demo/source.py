"""The source of the very code that runs, offered to everyone who uses it over a network (AGPL).

The archive is made from the files that are running, so it is exact even where there is no git. Only
known folders and kinds of file go in: no weights, no data, no settings.
"""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
UNKNOWN: Final = "unknown"
_ROOMS: Final = ("core", "models", "training", "hub", "active_learning", "demo", "tests", "docs")
_KINDS: Final = frozenset({".py", ".md", ".txt", ".in", ".toml", ".css", ".js", ".jpg", ".csv"})
_TOP: Final = ("app.py", "LICENSE", "Makefile", "pyproject.toml", "packages.txt")


@cache
def commit() -> str:
    """The commit of the running code, 12 digits; UNKNOWN where there is no git."""
    try:
        found = subprocess.run(
            ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return UNKNOWN
    return found.stdout.strip()


@cache
def archive() -> bytes:
    """A gzipped tar of the running source, the same bytes for the same files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=6) as tar:
        for path in files():
            entry = tarfile.TarInfo(f"rollmark-{commit()}/{path.relative_to(ROOT)}")
            data = path.read_bytes()
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def files() -> Iterator[Path]:
    """Every file that goes into the archive, in a fixed order."""
    yield from (ROOT / name for name in _TOP if (ROOT / name).is_file())
    yield from sorted(p for p in ROOT.glob("*.*") if p.suffix in {".md", ".txt", ".in"})
    for room in _ROOMS:
        yield from sorted(
            path
            for path in (ROOT / room).rglob("*")
            if path.suffix in _KINDS and path.is_file() and not path.is_symlink()
        )
