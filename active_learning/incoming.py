"""What the latest inspections looked like: a rolling window in the ledger, four numbers each.

No image and no name of one is kept here; the numbers are those of `active_learning.drift`. Two of
them are a release's opinion: once another one is live, they are no longer what its reference is
about.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from active_learning.drift import Seen
from core.ledger import Base, Ledger


class IncomingRow(Base):
    """Table of the latest inspections of each model."""

    __tablename__ = "incoming_images"
    __table_args__ = (sa.Index("ix_incoming_images_model", "model", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    at: Mapped[datetime]
    model: Mapped[str] = mapped_column(sa.String(50))
    revision: Mapped[str] = mapped_column(sa.String(64), server_default="")  # "": not known
    brightness: Mapped[float]
    contrast: Mapped[float]
    label: Mapped[str] = mapped_column(sa.String(50))
    probability: Mapped[float]


class Incoming:
    """The window of a ledger.

    Args:
        ledger: where it lies.
        window: inspections kept for each model.
    """

    def __init__(self, ledger: Ledger, *, window: int) -> None:
        self._ledger = ledger
        self._window = window

    def add(self, seen: Sequence[tuple[str, str, Seen]]) -> None:
        """Append inspections, each with model and revision, and forget what left the window.

        Raises:
            LedgerError: if the ledger cannot be written.
        """
        now = self._ledger.clock.now()
        with self._ledger.session() as session:
            session.add_all(
                IncomingRow(
                    at=now,
                    model=model,
                    revision=revision,
                    brightness=one.brightness,
                    contrast=one.contrast,
                    label=one.label,
                    probability=one.probability,
                )
                for model, revision, one in seen
            )
            session.flush()
            for model in {model for model, _, _ in seen}:
                oldest = session.scalar(
                    sa.select(IncomingRow.id)
                    .where(IncomingRow.model == model)
                    .order_by(IncomingRow.id.desc())
                    .offset(self._window)
                    .limit(1)
                )
                if oldest is not None:
                    session.execute(
                        sa.delete(IncomingRow)
                        .where(IncomingRow.model == model)
                        .where(IncomingRow.id <= oldest)
                    )

    def latest(self, model: str, revision: str) -> tuple[Seen, ...]:
        """What of a model's window a revision has seen, oldest first.

        Raises:
            LedgerError: if the ledger cannot be read.
        """
        query = (
            sa.select(IncomingRow)
            .where(IncomingRow.model == model, IncomingRow.revision == revision)
            .order_by(IncomingRow.id.desc())
            .limit(self._window)
        )
        with self._ledger.reading() as session:
            rows = session.scalars(query).all()
        return tuple(
            Seen(row.brightness, row.contrast, row.label, row.probability) for row in reversed(rows)
        )
