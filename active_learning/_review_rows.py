"""The table of review items and the one way a row of it changes its state."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from core.errors import IllegalTransition
from core.ledger import Base, Ledger
from core.records import ReviewItem, ReviewState

EDGES: Final[frozenset[tuple[ReviewState, ReviewState]]] = frozenset(
    {
        ("pending", "sending"),
        ("sending", "sent"),
        ("sending", "pending"),
        ("sending", "parked"),
        ("sending", "unknown"),
        ("unknown", "sent"),
        ("unknown", "pending"),
        ("unknown", "parked"),
        ("sent", "verified"),
        ("sent", "parked"),
        ("parked", "pending"),
        ("verified", "pending"),
    }
)
LONGEST_WAIT_S: Final = 3600.0


class ReviewItemRow(Base):
    """Table of review items; `fence` is the lease number of the process that last moved it."""

    __tablename__ = "review_items"
    # All that is counted and sorted by: a row with its predictions takes kilobytes to be read.
    __table_args__ = (
        sa.Index(
            "ix_review_items_due",
            *("project", "state", "priority", "created_at", "id"),
            *("next_attempt_at", "task_id", "image_sha256", "main_class"),
        ),
    )

    id: Mapped[str] = mapped_column(sa.String(32), primary_key=True)
    image_sha256: Mapped[str] = mapped_column(sa.String(64), index=True)
    project: Mapped[str] = mapped_column(sa.String(50))
    config_revision: Mapped[str] = mapped_column(sa.String(64))
    dedupe_key: Mapped[str] = mapped_column(sa.String(64), unique=True)
    predictions: Mapped[dict[str, Any]]  # by model
    main_class: Mapped[str] = mapped_column(sa.Text, server_default="")  # the most probable one
    reasons: Mapped[list[str]]
    note: Mapped[str] = mapped_column(sa.Text)
    priority: Mapped[float]
    state: Mapped[str] = mapped_column(sa.String(10))
    parked_reason: Mapped[str | None] = mapped_column(sa.Text)
    last_error: Mapped[str | None] = mapped_column(sa.Text)
    task_id: Mapped[int | None]
    attempts: Mapped[int]
    next_attempt_at: Mapped[datetime | None]
    fence: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    @property
    def entity(self) -> str:
        """Its name in the audit trail."""
        return f"review_item:{self.id}"

    def to_record(self) -> ReviewItem:
        """The item as everybody else sees it."""
        values = {name: getattr(self, name) for name in ReviewItem.model_fields}
        by_model = sorted(self.predictions.items())
        return ReviewItem.model_validate(values | {"predictions": [said for _, said in by_model]})


def dedupe_key(image_sha256: str, project: str, config_revision: str) -> str:
    """What makes two items one: SHA-256 of image, project and labelling configuration."""
    return hashlib.sha256("\n".join((image_sha256, project, config_revision)).encode()).hexdigest()


def ranked(project: str, state: ReviewState | None = None) -> sa.Select[ReviewItemRow]:
    """Items of a project, of one state or all: highest priority first, then oldest."""
    query = sa.select(ReviewItemRow).where(ReviewItemRow.project == project)
    if state is not None:
        query = query.where(ReviewItemRow.state == state)
    return query.order_by(ReviewItemRow.priority.desc(), ReviewItemRow.created_at, ReviewItemRow.id)


def is_due(now: datetime) -> sa.ColumnElement[bool]:
    """Whether an item has waited long enough.

    A wait that seems longer than the longest there is comes from a clock that was set back.
    """
    at = ReviewItemRow.next_attempt_at
    return sa.or_(at.is_(None), at <= now, at > now + timedelta(seconds=LONGEST_WAIT_S))


def locked(
    session: Session, project: str, item_id: str, *, verb: str, origins: tuple[ReviewState, ...]
) -> ReviewItemRow:
    """The row of an item, locked until the transaction ends.

    Raises:
        IllegalTransition: if the project has no such item, or it is in none of the states that the
            verb starts from.
    """
    query = ranked(project).where(ReviewItemRow.id == item_id).with_for_update()
    row = session.scalars(query).one_or_none()
    if row is None:
        raise IllegalTransition(
            f"No review item of project {project!r} has the id {item_id!r:.50}."
        )
    if row.state not in origins:
        raise IllegalTransition(
            f"Review item {row.id} is {row.state}; {verb} needs one that is {' or '.join(origins)}."
        )
    return row


def move(
    ledger: Ledger,
    session: Session,
    row: ReviewItemRow,
    state: ReviewState,
    *,
    what: str,
    who: str,
    **details: Any,
) -> None:
    """Change an item's state along an edge and append the event that tells of it.

    Raises:
        IllegalTransition: if there is no such edge.
    """
    before = row.state
    if (before, state) not in EDGES:
        ways = sorted(after for origin, after in EDGES if origin == before)
        raise IllegalTransition(
            f"Review item {row.id} is {before} and cannot become {state}; "
            f"from there it can become {' or '.join(ways) or 'nothing else'}."
        )
    row.state, row.updated_at = state, ledger.clock.now()
    ledger.record(session, what, who=who, entity=row.entity, before=before, after=state, **details)
