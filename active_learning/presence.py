"""Which watchers are there: each says so in the ledger every few seconds while it lives.

A page that takes orders can thus say whether anybody will hear them. A watcher that was killed is
silent, and counts as gone after `SILENT_S`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from active_learning.leases import own_name
from core.ledger import Base, Ledger
from core.records import Record

BEAT_S: Final = 15.0
SILENT_S: Final = 60.0
_FORGOTTEN: Final = timedelta(days=1)  # after which the row of a killed watcher is dropped


class WatcherRow(Base):
    """Table of watchers, one row a process; one that ends in good order takes its row away."""

    __tablename__ = "watchers"

    name: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    poll_min: Mapped[float]
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class Watcher(Record):
    """A process that makes passes."""

    name: str  # of `own_name`
    poll_min: float
    started_at: datetime
    seen_at: datetime

    @property
    def host(self) -> str:
        """The machine it runs on."""
        return self.name.partition(":")[0]


class Presence:
    """One watcher's own row.

    Args:
        ledger: where it lies.
        poll_min: minutes between two of its passes.
    """

    def __init__(self, ledger: Ledger, *, poll_min: float) -> None:
        self._ledger = ledger
        self._poll_min = poll_min
        self._started_at = ledger.clock.now()
        self._name = own_name()

    def beat(self) -> None:
        """Say that this watcher is there.

        Raises:
            LedgerError: if the ledger cannot be written.
        """
        now = self._ledger.clock.now()
        with self._ledger.session() as session:
            session.execute(sa.delete(WatcherRow).where(WatcherRow.seen_at < now - _FORGOTTEN))
            session.merge(
                WatcherRow(
                    name=self._name,
                    poll_min=self._poll_min,
                    started_at=self._started_at,
                    seen_at=now,
                )
            )

    def leave(self) -> None:
        """Say that it is there no more."""
        with self._ledger.session() as session:
            session.execute(sa.delete(WatcherRow).where(WatcherRow.name == self._name))


def watchers(ledger: Ledger) -> tuple[Watcher, ...]:
    """The watchers that were heard within `SILENT_S`, the oldest first.

    One that was heard in the future was heard before the clock was set back.

    Raises:
        LedgerError: if the ledger cannot be read.
    """
    now, silent = ledger.clock.now(), timedelta(seconds=SILENT_S)
    seen_at = WatcherRow.seen_at
    query = sa.select(WatcherRow).where(seen_at > now - silent, seen_at < now + silent)
    with ledger.reading() as session:
        rows = session.scalars(query.order_by(WatcherRow.started_at, WatcherRow.name)).all()
        return tuple(
            Watcher.model_validate({name: getattr(row, name) for name in Watcher.model_fields})
            for row in rows
        )
