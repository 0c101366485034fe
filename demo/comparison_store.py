"""Comparisons that got a link: the picture and what every model said of it, as it was said.

A folder `comparisons/ID` holds `comparison.json` and `picture`. The ID cannot be guessed; knowing
it is the permission to see both.
"""

from __future__ import annotations

import re
import secrets
import shutil
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import InputError
from core.files import remove_stale, write_atomically
from core.records import Inspection
from demo.handlers import Compared

_ID: Final = re.compile(r"[A-Za-z0-9_-]{16}")
_RECORD, _PICTURE = "comparison.json", "picture"
_FRESH: Final = ".new-"  # begins the name of one that is being written


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str  # of the picture, for people
    inspections: tuple[Inspection, ...]
    titles: tuple[str, ...]  # of the models
    labels: tuple[tuple[str, ...], ...]  # that each can name
    committee: dict[str, Any]
    created_at: datetime


class Comparisons:
    """The comparisons that one installation keeps.

    Args:
        root: folder of all of them; made when the first one is kept.
        days: how long each is kept.
    """

    def __init__(self, root: Path, days: float) -> None:
        self._root, self.days = root, days

    def keep(self, compared: Compared) -> str:
        """Keep a comparison, whole or not at all; its ID.

        Raises:
            InputError: if its picture has been cleared from the server, or the disk refuses it.
        """
        kept = _Kept(
            name=compared.name,
            inspections=compared.inspections,
            titles=compared.titles,
            labels=compared.labels,
            committee=compared.committee,
            created_at=datetime.now(UTC),
        )
        name = secrets.token_urlsafe(12)
        fresh = self._root / f"{_FRESH}{name}"
        try:
            picture = Path(compared.path).read_bytes()
        except OSError as exc:
            raise InputError(
                f"The picture {compared.name} has been cleared from the server; open it again."
            ) from exc
        try:
            write_atomically(fresh / _PICTURE, picture)
            write_atomically(fresh / _RECORD, kept.model_dump_json().encode())
            fresh.rename(self._root / name)
        except OSError as exc:
            raise InputError(f"The comparison cannot be kept: {exc.strerror or exc}.") from exc
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return name

    def open(self, name: str) -> Compared:
        """The comparison of that ID.

        Raises:
            InputError: if there is none, or none any more.
        """
        folder = self._root / name
        if _ID.fullmatch(name):
            with suppress(OSError, ValidationError):
                kept = _Kept.model_validate_json((folder / _RECORD).read_bytes())
                return Compared(
                    path=str(folder / _PICTURE),
                    name=kept.name,
                    inspections=kept.inspections,
                    titles=kept.titles,
                    labels=kept.labels,
                    committee=kept.committee,
                )
        raise InputError("There is no such comparison any more; drop the picture again.")

    def forget_old(self) -> None:
        """Remove those that have had their time. What a kill left goes, too."""
        remove_stale(self._root, f"{_FRESH}*")
        limit = (datetime.now(UTC) - timedelta(days=self.days)).timestamp()
        for record in self._root.glob(f"*/{_RECORD}"):
            with suppress(OSError):  # another app was faster
                if record.stat().st_mtime < limit:
                    shutil.rmtree(record.parent, ignore_errors=True)
