"""What people ask of retraining: train this model now, stop the run in hand, drop a parked one.

An order is a row. The page writes it, and whoever makes the next pass takes it up: to train in the
very transaction that begins or reopens the run, so it is taken up once, whoever is killed when.
There is at most one open order of a kind for a model: two clicks are one. An order to train that
nobody hears in time expires and says so; the others last as long as their run waits for them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Literal

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, Session, mapped_column

from active_learning.leases import Leases
from active_learning.retraining import RetrainingRow, carried_run
from core.errors import IllegalTransition
from core.ledger import Base, Ledger
from core.records import Record

What = Literal["train", "stop", "drop"]
OrderState = Literal["open", "taken", "withdrawn", "expired"]
_IS_OPEN: Final = sa.text("state = 'open'")
_STATE_OF: Final = {"stop": "open", "drop": "parked"}  # in which a run must be for an order


class OrderRow(Base):
    """Table of orders; at most one of a kind is open for a model."""

    __tablename__ = "retraining_orders"
    __table_args__ = (
        sa.Index(
            "ix_retraining_orders_open",
            *("model", "what"),
            unique=True,
            sqlite_where=_IS_OPEN,
            postgresql_where=_IS_OPEN,
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    what: Mapped[str] = mapped_column(sa.String(10))
    model: Mapped[str] = mapped_column(sa.String(50))
    run: Mapped[str | None] = mapped_column(sa.String(60))
    who: Mapped[str] = mapped_column(sa.String(100))
    state: Mapped[str] = mapped_column(sa.String(10))
    reason: Mapped[str | None] = mapped_column(sa.Text)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    closed_at: Mapped[datetime | None]

    def to_record(self) -> Order:
        """The order as everybody else sees it."""
        return Order.model_validate({name: getattr(self, name) for name in Order.model_fields})


class Order(Record):
    """What one person has asked for."""

    id: int
    what: What
    model: str
    run: str | None  # to stop or drop: which one; to train: the one it led to, None before
    who: str
    state: OrderState
    reason: str | None  # why it was closed; None while it is open
    created_at: datetime
    expires_at: datetime | None  # None: lasts as long as its run waits for it
    closed_at: datetime | None


class Orders:
    """The orders of a ledger.

    Args:
        ledger: where they lie.
        lasts_h: how long an order to train waits for somebody to take it up, in hours.
    """

    def __init__(self, ledger: Ledger, *, lasts_h: float) -> None:
        self._ledger = ledger
        self._leases = Leases(ledger)
        self._lasts = timedelta(hours=lasts_h)

    def train(self, model: str, *, who: str) -> Order:
        """Ask for a run of a model, or for its parked or laid-down run to be gone on with.

        Returns:
            The order; the one that is open already if there is one.

        Raises:
            IllegalTransition: if a process is at work on a run of this model.
            LedgerError: if the ledger cannot be written.
        """
        with self._ledger.session() as session:
            carried = carried_run(session, self._leases)
            run = session.get(RetrainingRow, carried) if carried else None
            if run is not None and run.model == model:
                raise IllegalTransition(
                    f"Run {run.id} of {model} is under way: stop it, or wait for its end."
                )
            expires_at = self._ledger.clock.now() + self._lasts
            return self._give(session, "train", model, who=who, expires_at=expires_at)

    def stop(self, run_id: str, *, who: str) -> Order:
        """Ask for a run to be laid down after the epoch in hand, until somebody has it go on.

        Raises:
            IllegalTransition: if the run is not going on.
            LedgerError: if the ledger cannot be written.
        """
        return self._about("stop", run_id, who=who)

    def drop(self, run_id: str, *, who: str) -> Order:
        """Ask for a parked run to be given up, so that its model may be due again.

        Raises:
            IllegalTransition: if the run is not parked.
            LedgerError: if the ledger cannot be written.
        """
        return self._about("drop", run_id, who=who)

    def _about(self, what: What, run_id: str, *, who: str) -> Order:
        with self._ledger.session() as session:
            run = session.get(RetrainingRow, run_id)
            if run is None or run.state != _STATE_OF[what]:
                state = run.state if run is not None else "unknown"
                raise IllegalTransition(f"Run {run_id} is {state}: there is nothing to {what}.")
            return self._give(session, what, run.model, who=who, run=run_id)

    def withdraw(self, order_id: int, *, who: str) -> Order:
        """Take back an order that nobody has taken up.

        Raises:
            IllegalTransition: if it is closed already; the message says how.
        """
        with self._ledger.session() as session:
            row = session.get(OrderRow, order_id, with_for_update=True, populate_existing=True)
            if row is None or row.state != "open":
                told = "unknown" if row is None else f"{row.state} already ({row.reason})"
                raise IllegalTransition(
                    f"Order {order_id} is {told}: there is nothing to take back."
                )
            self._close(session, row, "withdrawn", f"taken back by {who}", who=who)
            return row.to_record()

    def open_order(self, what: What, *, model: str | None = None) -> Order | None:
        """The oldest open order of a kind, for one model or for any; one out of time is none."""
        query = sa.select(OrderRow).where(OrderRow.state == "open", OrderRow.what == what)
        if model is not None:
            query = query.where(OrderRow.model == model)
        with self._ledger.reading() as session:
            rows = session.scalars(query.order_by(OrderRow.id)).all()
        now = self._ledger.clock.now()
        return next((row.to_record() for row in rows if not _is_out_of_time(row, now)), None)

    def newest(self, model: str) -> Order | None:
        """The latest order for a model, open or not; one out of time is told as expired.

        It is closed by the next pass, and where nobody makes one, nobody would ever say so.
        """
        query = sa.select(OrderRow).where(OrderRow.model == model)
        with self._ledger.reading() as session:
            row = session.scalars(query.order_by(OrderRow.id.desc()).limit(1)).one_or_none()
            if row is None:
                return None
            order = row.to_record()
        if order.state == "open" and _is_out_of_time(row, self._ledger.clock.now()):
            return order.model_copy(update={"state": "expired", "reason": self._unheard()})
        return order

    def asks_to_stop(self, run_id: str) -> Order | None:
        """The open order to stop a run."""
        query = sa.select(OrderRow).where(
            OrderRow.state == "open", OrderRow.what == "stop", OrderRow.run == run_id
        )
        with self._ledger.reading() as session:
            row = session.scalars(query).one_or_none()
            return row.to_record() if row else None

    def taking(self, order: Order) -> Callable[[Session, str], None]:
        """What takes an order up within the transaction that begins the run of that name.

        Raises:
            IllegalTransition: from within, if the order was closed meanwhile; nothing is begun.
        """

        def take(session: Session, run_id: str) -> None:
            row = session.get_one(OrderRow, order.id, with_for_update=True, populate_existing=True)
            if row.state != "open":
                raise IllegalTransition(
                    f"Order {order.id} to {order.what} {order.model} is {row.state} "
                    f"({row.reason}): nothing was begun."
                )
            row.run = run_id
            self._close(session, row, "taken", f"run {run_id}", who=order.who)

        return take

    def obeyed(self, order: Order, what_was_done: str) -> None:
        """Close an order that was carried out; one that is closed already stays as it is."""
        with self._ledger.session() as session:
            row = session.get_one(OrderRow, order.id, with_for_update=True, populate_existing=True)
            if row.state == "open":
                self._close(session, row, "taken", what_was_done, who=order.who)

    def close_stale(self) -> None:
        """Close what can no longer be done: orders out of time, and those whose run moved on."""
        with self._ledger.session() as session:
            query = sa.select(OrderRow).where(OrderRow.state == "open").with_for_update()
            now = self._ledger.clock.now()
            for row in session.scalars(query.order_by(OrderRow.id)).all():
                if _is_out_of_time(row, now):
                    self._close(session, row, "expired", self._unheard(), who="retraining")
                elif row.what != "train" and _state(session, row.run) != _STATE_OF[row.what]:
                    reason = f"the run is {_state(session, row.run)}"
                    self._close(session, row, "taken", reason, who="retraining")

    def _unheard(self) -> str:
        return f"nobody made a pass within {self._lasts.total_seconds() / 3600:g} h"

    def _give(
        self,
        session: Session,
        what: What,
        model: str,
        *,
        who: str,
        run: str | None = None,
        expires_at: datetime | None = None,
    ) -> Order:
        """Write an order, or find the one that says the same."""
        now = self._ledger.clock.now()
        query = sa.select(OrderRow).where(
            OrderRow.state == "open", OrderRow.what == what, OrderRow.model == model
        )
        there = session.scalars(query.with_for_update()).one_or_none()
        if there is not None and (_is_out_of_time(there, now) or there.run != run):
            self._close(session, there, "expired", "another one took its place", who=who)
            there = None
        if there is not None:
            return there.to_record()
        row = OrderRow(
            what=what,
            model=model,
            run=run,
            who=who[:100],
            state="open",
            created_at=now,
            expires_at=expires_at,
        )
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:  # another click was faster, between our look and our insert
            return session.scalars(query).one().to_record()
        self._event(session, row, "ordered", before=None, who=who)
        return row.to_record()

    def _close(
        self, session: Session, row: OrderRow, state: OrderState, reason: str, *, who: str
    ) -> None:
        row.state, row.reason, row.closed_at = state, reason, self._ledger.clock.now()
        self._event(session, row, state, before="open", who=who, reason=reason)
        session.flush()

    def _event(
        self,
        session: Session,
        row: OrderRow,
        what: str,
        *,
        before: str | None,
        who: str,
        **more: str,
    ) -> None:
        self._ledger.record(
            session,
            what,
            who=who,
            entity=f"order:{row.id}",
            before=before,
            after=row.state,
            order=row.what,
            model=row.model,
            run=row.run,
            **more,
        )


def _state(session: Session, run_id: str | None) -> str | None:
    row = session.get(RetrainingRow, run_id) if run_id else None
    return row.state if row else None


def _is_out_of_time(row: OrderRow, now: datetime) -> bool:
    return row.expires_at is not None and row.expires_at <= now
