"""The tables of what people answered, and which of their rows hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from core.ledger import Base
from core.records import Annotation

_AT_ONCE: Final = 200  # rows in one question; one with a mask may take a megabyte


class AnnotationRow(Base):
    """Table of every state of every annotation that ever arrived; rows are only ever added."""

    __tablename__ = "annotations"
    __table_args__ = (
        sa.UniqueConstraint(
            "project", "task_id", "annotation_id", "updated_at", name="uq_annotations_once"
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    project: Mapped[str] = mapped_column(sa.String(50))
    task_id: Mapped[int]
    annotation_id: Mapped[int]
    updated_at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(sa.String(10))
    image_sha256: Mapped[str] = mapped_column(sa.String(64), index=True)
    content: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON(none_as_null=True))
    applied_at: Mapped[datetime]
    origin: Mapped[str] = mapped_column(sa.String(60), server_default="")  # "": not known


class CursorRow(Base):
    """Table of how far each project has been read, by its title and origin."""

    __tablename__ = "cursors"

    name: Mapped[str] = mapped_column(sa.String(100), primary_key=True)
    updated_at: Mapped[datetime]
    last_id: Mapped[int]


def standing_rows(session: Session, project: str | None) -> Iterator[AnnotationRow]:
    """The rows behind `Inbox.current` as this transaction sees them, in the same order.

    Args:
        session: the transaction; some rows of it are in memory at a time.
        project: title of a project; None: all of them, still one row an image.
    """
    ids = standing_ids(session, project)
    for start in range(0, len(ids), _AT_ONCE):
        yield from rows_of(session, ids[start : start + _AT_ONCE])


def standing_ids(session: Session, project: str | None) -> tuple[int, ...]:
    """The ids of `standing_rows`, without what was answered, which may take megabytes."""
    row = AnnotationRow
    query = sa.select(row.image_sha256, row.id).where(
        row.id.in_(newest_states(project)), row.kind == "annotated"
    )
    newest = {
        image: number for image, number in session.execute(query.order_by(row.updated_at, row.id))
    }
    return tuple(number for _, number in sorted(newest.items()))


def repeated_ids(session: Session, project: str) -> tuple[tuple[int, ...], ...]:
    """Of each image with several answers that stand their ids, the oldest first."""
    row = AnnotationRow
    query = sa.select(row.image_sha256, row.id).where(
        row.id.in_(newest_states(project)), row.kind == "annotated"
    )
    found: dict[str, list[int]] = {}
    for image, number in session.execute(query.order_by(row.updated_at, row.id)):
        found.setdefault(image, []).append(number)
    return tuple(tuple(ids) for _, ids in sorted(found.items()) if len(ids) > 1)


def rows_of(session: Session, ids: Sequence[int]) -> tuple[AnnotationRow, ...]:
    """The rows with these ids, in their order."""
    found: dict[int, AnnotationRow] = {}
    for start in range(0, len(ids), _AT_ONCE):
        query = sa.select(AnnotationRow).where(AnnotationRow.id.in_(ids[start : start + _AT_ONCE]))
        found |= {row.id: row for row in session.scalars(query)}
    return tuple(found[number] for number in ids)


def to_annotation(row: AnnotationRow) -> Annotation:
    """What a row of kind "annotated" says."""
    return Annotation.model_validate(row.content)


def answered_tasks(project: str, *, task_id: int | None = None) -> sa.Select[int, str]:
    """Tasks with an answer that stands, each with its image; a skipped or deleted one is none.

    Args:
        project: title of a project.
        task_id: of the only task that is asked about; None: all of them.
    """
    row = AnnotationRow
    newest = newest_states(project, task_id=task_id)
    query = sa.select(row.task_id, row.image_sha256)
    return query.where(row.id.in_(newest), row.kind == "annotated").distinct()


def newest_states(project: str | None, *, task_id: int | None = None) -> sa.Select[tuple[int]]:
    """Ids of the newest row of each annotation; of two noticed at one time, of the later one.

    Args:
        project: title of a project; None: all of them.
        task_id: of the only task that is asked about; None: all of them.
    """
    row = AnnotationRow
    place = sa.func.row_number().over(
        partition_by=(row.project, row.task_id, row.annotation_id, row.image_sha256),
        order_by=(row.updated_at.desc(), row.id.desc()),
    )
    ranked = sa.select(row.id, place.label("place"))
    if project is not None:
        ranked = ranked.where(row.project == project)
    if task_id is not None:
        ranked = ranked.where(row.task_id == task_id)
    numbered = ranked.subquery()
    return sa.select(numbered.c.id).where(numbered.c.place == 1)
