"""What a database says when it fails, in one sentence a person can act on.

SQLite is read by its error names, PostgreSQL by its SQLSTATE codes; whatever is not listed is
passed on in the database's own words.
"""

from __future__ import annotations

import re
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from core.errors import LedgerError

_BUSY: Final = "is locked by another process: wait until that has finished, then try again"
_FULL: Final = "could not be written because the disk is full: free some space, then try again"
_READ_ONLY: Final = "cannot be written: make the file and its folder writable for this user"
_CORRUPT: Final = "is damaged: restore it from a backup"
_CLOSED: Final = "cannot be opened: check that its folder exists and may be read and written"
_FAILED_IO: Final = (
    "could not be read or written by the operating system: check the disk, its free space and the "
    "limits on file size"
)
_NO_TABLE: Final = "lacks a table: it was not brought up to date by this release"
_REFUSED: Final = "refused the change because it contradicts what is already there"

# First match wins, so the more special name stands before the one it begins with.
_SQLITE: Final = (
    ("SQLITE_BUSY", _BUSY),
    ("SQLITE_LOCKED", _BUSY),
    ("SQLITE_FULL", _FULL),
    ("SQLITE_READONLY", _READ_ONLY),
    ("SQLITE_CORRUPT", _CORRUPT),
    ("SQLITE_NOTADB", "is not an SQLite database: name another file"),
    ("SQLITE_CANTOPEN", _CLOSED),
    ("SQLITE_PERM", _READ_ONLY),
    ("SQLITE_IOERR", _FAILED_IO),
    ("SQLITE_CONSTRAINT", _REFUSED),
)
_POSTGRESQL: Final = (
    ("53100", _FULL),
    ("53", "has no resources left: free memory or connections, then try again"),
    ("25006", _READ_ONLY),
    ("40", _BUSY),
    ("55P03", _BUSY),
    ("28", "refused the user or password of its address"),
    ("3D", "does not exist on its server: create the database first"),
    ("08", "cannot be reached: check that its server runs"),
    ("57P", "cannot be reached: its server is stopping or starting"),
    ("XX", _CORRUPT),
    ("58", _FAILED_IO),
    ("42P01", _NO_TABLE),
    ("42501", _READ_ONLY),
    ("23", _REFUSED),
)


def ledger_error(error: Exception, where: str) -> LedgerError:
    """The error to raise instead of one of the database's.

    Args:
        error: what SQLAlchemy or the driver raised.
        where: the ledger's address without its password.
    """
    cause = getattr(error, "orig", None) or error
    name = str(getattr(cause, "sqlite_errorname", "") or "")
    state = str(getattr(cause, "sqlstate", "") or "")
    for prefix, sentence in _SQLITE if name else _POSTGRESQL:
        if (name or state).startswith(prefix):
            return LedgerError(f"The ledger {where} {sentence} ({_words(cause)}).")
    if isinstance(error, SQLAlchemyError) and "no such table" in str(cause):
        return LedgerError(f"The ledger {where} {_NO_TABLE} ({_words(cause)}).")
    if not state and re.search(r"connect|closed", str(cause)):  # the server never answered
        return LedgerError(
            f"The ledger {where} cannot be reached: check that its server runs ({_words(cause)})."
        )
    return LedgerError(f"The ledger {where} failed: {_words(cause)}.")


def _words(cause: BaseException) -> str:
    """The first line of the database's own message, without a full stop."""
    lines = str(cause).strip().splitlines()
    return (lines[0] if lines else type(cause).__name__).rstrip(".")[:200]
