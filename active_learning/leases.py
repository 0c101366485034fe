"""Who may do what only one process may do at a time: push, train, publish.

A lease is a row with an expiry and a fencing number that grows with every new holder. A holder that
was paused past its expiry finds the number changed, and what it still wants to write is refused in
the same transaction. Processes on one machine compare the expiry on the clock that is never set, so
a jump of the wall clock neither frees a lease nor makes it last; only between machines, or after a
restart, the wall clock decides.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import String
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from core.errors import LeaseHeld, LeaseLost, LedgerError
from core.ledger import Base, Ledger


def own_name() -> str:
    """`host:process:nonce`, another one at every call: a process may take its own lease again."""
    return f"{socket.gethostname()[:60]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


class LeaseRow(Base):
    """Table of leases, one row a name; `holder` is null once it was given back."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(100), primary_key=True)
    holder: Mapped[str | None] = mapped_column(String(100))
    fence: Mapped[int]
    ttl_s: Mapped[float]
    expires_at: Mapped[datetime]
    boot_id: Mapped[str] = mapped_column(String(50))
    expires_monotonic_s: Mapped[float]


@dataclass(frozen=True, slots=True)
class Lease:
    """Proof that this process is the one; handed to every write that only it may do."""

    name: str
    holder: str
    fence: int  # 1, 2, 3 … : higher is newer


class Leases:
    """The leases of a ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def acquire(self, name: str, *, ttl_s: float) -> Lease:
        """Become the holder, if nobody else is or the other one has let it run out.

        Args:
            name: what is leased, such as "push".
            ttl_s: after how many seconds without a write or a renewal others may take it.

        Raises:
            LeaseHeld: if another process holds it.
            LedgerError: if the ledger cannot be written.
        """
        if not ttl_s > 0:
            raise LedgerError(f"A lease of {ttl_s} s ends before it begins; use more than 0 s.")
        holder = own_name()
        with self._ledger.session() as session:
            row = session.get(LeaseRow, name, with_for_update=True)
            if row is None:
                row = self._first(session, name)
            if row.holder is not None and not self._has_run_out(row):
                raise LeaseHeld(
                    f"Only one process may {name} at a time, and {row.holder} does: try again when "
                    f"it has finished, or {row.ttl_s:g} s after it was killed."
                )
            before = row.holder
            row.holder, row.fence, row.ttl_s = holder, row.fence + 1, ttl_s
            self._extend(row)
            self._ledger.record(
                session,
                "acquired",
                who=holder,
                entity=f"lease:{name}",
                before=before and before[:50],
                after=holder[:50],
                fence=row.fence,
            )
            return Lease(name, holder, row.fence)

    def holder(self, session: Session, name: str) -> str | None:
        """Who holds a lease; None if nobody does, or lets it run out."""
        row = session.get(LeaseRow, name)
        return None if row is None or self._has_run_out(row) else row.holder

    def renew(self, lease: Lease) -> None:
        """Keep the lease for its whole time from now on.

        Raises:
            LeaseLost: if another process has taken it.
            LedgerError: if the ledger cannot be written.
        """
        with self._ledger.session() as session:
            self.check(session, lease)

    def check(self, session: Session, lease: Lease) -> None:
        """Make a transaction one that only the holder can commit, and renew the lease with it.

        The row stays locked to the end of the transaction, so no other process can take the lease
        between this check and the commit.

        Raises:
            LeaseLost: if another process has taken it.
        """
        row = session.get(LeaseRow, lease.name, with_for_update=True, populate_existing=True)
        if row is None or row.fence != lease.fence or row.holder != lease.holder:
            newer = "nobody" if row is None or row.holder is None else row.holder
            raise LeaseLost(
                f"The lease to {lease.name} number {lease.fence} was lost to {newer}: what this "
                "process still wanted to write is refused; start it again."
            )
        self._extend(row)

    def release(self, lease: Lease) -> None:
        """Give the lease back; one that was lost already is left to its new holder."""
        with self._ledger.session() as session:
            row = session.get(LeaseRow, lease.name, with_for_update=True)
            if row is not None and (row.fence, row.holder) == (lease.fence, lease.holder):
                row.holder = None
                self._ledger.record(
                    session,
                    "released",
                    who=lease.holder,
                    entity=f"lease:{lease.name}",
                    before=lease.holder[:50],
                    fence=lease.fence,
                )

    @contextmanager
    def hold(self, name: str, *, ttl_s: float) -> Iterator[Lease]:
        """Hold a lease for the length of a block; raises what `acquire` raises."""
        lease = self.acquire(name, ttl_s=ttl_s)
        try:
            yield lease
        finally:
            self.release(lease)

    def _first(self, session: Session, name: str) -> LeaseRow:
        """The row of a lease nobody ever held, made by whoever comes first."""
        now = self._ledger.clock.now()
        row = LeaseRow(
            name=name, fence=0, ttl_s=0.0, expires_at=now, boot_id="", expires_monotonic_s=0.0
        )
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:  # another process made it between our look and our insert
            return session.get_one(LeaseRow, name, with_for_update=True, populate_existing=True)
        return row

    def _extend(self, row: LeaseRow) -> None:
        clock = self._ledger.clock
        row.expires_at = clock.now() + timedelta(seconds=row.ttl_s)
        row.boot_id = clock.boot_id()
        row.expires_monotonic_s = clock.monotonic_s() + row.ttl_s

    def _has_run_out(self, row: LeaseRow) -> bool:
        clock = self._ledger.clock
        if row.boot_id and row.boot_id == clock.boot_id():
            return clock.monotonic_s() >= row.expires_monotonic_s
        return clock.now() >= row.expires_at
