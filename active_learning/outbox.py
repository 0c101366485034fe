"""The way out of the review queue, for the one process that holds the push lease.

Every write checks the lease's fencing number in its own transaction: a process that was paused past
its lease cannot undo what its successor did. A successor finds what the first was sending when it
ended, and declares it unknown: the labelling tool is then asked by `dedupe_key` before anything is
sent a second time.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Session

from active_learning._review_rows import (
    LONGEST_WAIT_S,
    ReviewItemRow,
    is_due,
    locked,
    move,
    ranked,
)
from active_learning.choosing import Waiting
from active_learning.leases import Lease, Leases
from active_learning.queue import ReviewQueue
from core.records import ReviewItem, ReviewState

PUSH_LEASE: Final = "push"
LEASE_S: Final = 60.0
FIRST_WAIT_S: Final = 5.0
_AT_ONCE: Final = 50  # items whose predictions are in memory together
SETTLE_S: Final = 60.0  # how long a request whose answer was lost may still be at work


@contextmanager
def pushing(
    queue: ReviewQueue,
    *,
    lease_s: float = LEASE_S,
    settle_s: float = SETTLE_S,
    jitter: random.Random | None = None,
) -> Iterator[Outbox]:
    """Be the one process that moves a queue's items, for the length of the block.

    Items that an earlier process was sending when it ended become unknown first.

    Args:
        queue: the queue of one labelling project.
        lease_s: after how many seconds without a write or `renew` another process may take over.
        settle_s: how long a request without an answer may still take effect; longer than its
            time-out. Only then the labelling tool is asked about the item.
        jitter: random numbers for waiting times.

    Raises:
        LeaseHeld: if another process is doing it.
        LedgerError: if the ledger cannot be written.
    """
    with Leases(queue.ledger).hold(f"{PUSH_LEASE} {queue.project}", ttl_s=lease_s) as lease:
        outbox = Outbox(queue, lease, settle_s=settle_s, jitter=jitter or random.Random())
        outbox.recover()
        yield outbox


class Outbox:
    """What the holder of the push lease may do; made by `pushing`.

    Every method raises LeaseLost if another process has taken the lease, and IllegalTransition if
    the item is not in a state it can be moved from; then nothing was written.
    """

    def __init__(
        self, queue: ReviewQueue, lease: Lease, *, settle_s: float, jitter: random.Random
    ) -> None:
        self._queue = queue
        self._ledger = queue.ledger
        self._leases = Leases(queue.ledger)
        self._lease = lease
        self._settle_s = settle_s
        self._jitter = jitter

    def renew(self) -> None:
        """Keep the lease during a long wait; every other write here renews it too."""
        self._leases.renew(self._lease)

    def recover(self) -> tuple[ReviewItem, ...]:
        """sending → unknown for every item that an earlier holder of the lease was sending."""
        with self._step("recover") as session:
            orphans = ranked(self._queue.project, "sending").where(
                ReviewItemRow.fence < self._lease.fence
            )
            rows = session.scalars(orphans.with_for_update()).all()
            for row in rows:
                row.last_error = "The process that was sending it ended without an answer."
                row.next_attempt_at = self._in(self._settle_s)
                self._move(session, row, "unknown", "recovered")
            return tuple(row.to_record() for row in rows)

    def due(self) -> list[Waiting]:
        """What tells of every pending item that may be sent now whether it should be."""
        query = self._due("pending").execution_options(yield_per=_AT_ONCE)
        found: list[Waiting] = []
        with self._ledger.reading() as session:
            for rows in session.scalars(query).partitions():
                found += [Waiting.of(row.to_record()) for row in rows]
                self.renew()  # tens of thousands take minutes
        return found

    def claim(self, limit: int, *, ids: Collection[str] | None = None) -> tuple[ReviewItem, ...]:
        """pending → sending for the items of highest priority that are due.

        Args:
            limit: most items to take.
            ids: take only these, where somebody else has ranked the queue.
        """
        with self._step("claim") as session:
            query = ranked(self._queue.project, "pending").where(is_due(self._now()))
            if ids is not None:
                query = query.where(ReviewItemRow.id.in_(list(ids)))
            rows = session.scalars(query.limit(limit).with_for_update()).all()
            for row in rows:
                row.attempts += 1
                row.next_attempt_at = None
                self._move(session, row, "sending", "claimed", attempt=row.attempts)
            return tuple(row.to_record() for row in rows)

    def mark_sent(self, item_id: str, *, task_id: int) -> ReviewItem:
        """sending → sent: the labelling tool answered with the id of the task it made."""
        with self._moving("mark_sent", item_id, "sending") as (session, row):
            row.task_id, row.last_error = task_id, None
            self._move(session, row, "sent", "sent", task_id=task_id)
            return row.to_record()

    def mark_verified(self, item_id: str) -> ReviewItem:
        """sent → verified: the task was read back and is what was sent."""
        with self._moving("mark_verified", item_id, "sent") as (session, row):
            self._move(session, row, "verified", "verified", task_id=row.task_id)
            return row.to_record()

    def send_again(self, item_id: str) -> ReviewItem:
        """verified → pending: its task is gone from the labelling tool."""
        with self._moving("send_again", item_id, "verified") as (session, row):
            task_id, row.task_id = row.task_id, None
            row.attempts, row.next_attempt_at = 0, None
            self._move(session, row, "pending", "to be sent again", task_id=task_id)
            return row.to_record()

    def park(self, item_id: str, *, reason: str) -> ReviewItem:
        """sending, unknown or sent → parked: trying again cannot help, a person has to look."""
        with self._moving("park", item_id, "sending", "unknown", "sent") as (session, row):
            row.parked_reason, row.next_attempt_at = reason, None
            self._move(session, row, "parked", "parked", reason=reason)
            return row.to_record()

    def retry_later(self, item_id: str, *, error: str, retry_after_s: float = 0.0) -> ReviewItem:
        """sending → pending: it certainly did not arrive; it waits, longer with every attempt.

        The wait is drawn from [0, 5 s · 2^(attempts - 1)] (full jitter), is not shorter than the
        labelling tool asked for, and not longer than an hour.
        """
        with self._moving("retry_later", item_id, "sending") as (session, row):
            row.last_error = error
            row.next_attempt_at = self._in(self._wait_s(row.attempts, retry_after_s))
            self._move(session, row, "pending", "put off", error=error)
            return row.to_record()

    def mark_unknown(self, item_id: str, *, error: str) -> ReviewItem:
        """sending → unknown: it may or may not have arrived; to be asked about once settled."""
        with self._moving("mark_unknown", item_id, "sending") as (session, row):
            row.last_error = error
            row.next_attempt_at = self._in(self._settle_s)
            self._move(session, row, "unknown", "lost sight of", error=error)
            return row.to_record()

    def due_unknown(self, limit: int = 1000) -> tuple[ReviewItem, ...]:
        """Unknown items that have settled: ask the labelling tool for each by its dedupe key."""
        with self._ledger.reading() as session:
            rows = session.scalars(self._due("unknown").limit(limit))
            return tuple(row.to_record() for row in rows)

    def resolve_unknown(self, item_id: str, *, task_id: int | None) -> ReviewItem:
        """unknown → sent if the labelling tool has the task, → pending (None) if it has not."""
        state: ReviewState = "pending" if task_id is None else "sent"
        with self._moving("resolve_unknown", item_id, "unknown") as (session, row):
            row.task_id, row.next_attempt_at = task_id, None
            self._move(session, row, state, "resolved", task_id=task_id)
            return row.to_record()

    def ask_later(self, item_id: str, *, error: str) -> ReviewItem:
        """unknown stays unknown: the labelling tool could not be asked; settle once more."""
        with self._moving("ask_later", item_id, "unknown") as (session, row):
            row.last_error = error
            row.next_attempt_at = self._in(self._settle_s)
            row.fence, row.updated_at = self._lease.fence, self._now()
            self._ledger.record(
                session,
                "not answered",
                who=self._lease.holder,
                entity=row.entity,
                before=row.state,
                after=row.state,
                error=error,
            )
            session.flush()
            return row.to_record()

    def _due(self, state: ReviewState) -> sa.Select[ReviewItemRow]:
        return ranked(self._queue.project, state).where(is_due(self._now()))

    @contextmanager
    def _step(self, name: str) -> Iterator[Session]:
        with self._queue.step(name) as session:
            self._leases.check(session, self._lease)
            yield session

    @contextmanager
    def _moving(
        self, step: str, item_id: str, *origins: ReviewState
    ) -> Iterator[tuple[Session, ReviewItemRow]]:
        """A step on one item, which has to be in one of the states the step starts from."""
        with self._step(step) as session:
            project = self._queue.project
            yield session, locked(session, project, item_id, verb=step, origins=origins)

    def _move(
        self, session: Session, row: ReviewItemRow, state: ReviewState, what: str, **details: Any
    ) -> None:
        row.fence = self._lease.fence
        move(
            self._ledger,
            session,
            row,
            state,
            what=what,
            who=self._lease.holder,
            fence=self._lease.fence,
            **details,
        )

    def _now(self) -> datetime:
        return self._ledger.clock.now()

    def _in(self, wait_s: float) -> datetime:
        return self._now() + timedelta(seconds=wait_s)

    def _wait_s(self, attempts: int, retry_after_s: float) -> float:
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(attempts - 1, 30))
        return min(LONGEST_WAIT_S, max(self._jitter.uniform(0, longest), retry_after_s))
