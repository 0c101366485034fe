"""What came first and what last, whatever the clocks said: by its place in the audit trail.

A clock that was ahead when something was dated, and was set right since, would have it be the
newest for as long as it was ahead.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from core.ledger import EventRow


def first_event(kind: str, key: Any) -> sa.ColumnElement[int]:
    """Number of the first event about the row with this key; 0 where none is told."""
    return _event(sa.func.min, kind, key)


def last_event(kind: str, key: Any) -> sa.ColumnElement[int]:
    """Number of the latest event about the row with this key; 0 where none is told."""
    return _event(sa.func.max, kind, key)


def _event(which: Any, kind: str, key: Any) -> sa.ColumnElement[int]:
    about = sa.select(which(EventRow.id)).where(EventRow.entity == sa.literal(f"{kind}:") + key)
    return sa.func.coalesce(about.correlate(key.table).scalar_subquery(), 0)
