"""The inbox: what people answered, each answer applied exactly once.

An arrival is one state of one annotation, named by task, annotation and the time it was last
changed. It may be delivered any number of times and in any order: a row already there is left
alone, and what holds for an image is read from the newest state of each of its annotations. A
deletion can only be seen by absence; it is an arrival like the others, dated when it was noticed.

Ids are a server's own: behind the same title, another server or a fresh database begins with task 1
again. So an answer replaces none about another image, and each keeps its origin: absence counts in
the project alone that an answer came from, and each origin is read with a cursor of its own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from active_learning._answer_rows import (
    AnnotationRow,
    CursorRow,
    newest_states,
    repeated_ids,
    rows_of,
    standing_rows,
    to_annotation,
)
from core.errors import InputError
from core.ledger import Ledger
from core.records import Annotation

Kind = Literal["annotated", "skipped", "deleted"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# By so much the clocks of our own machines may differ, each of which may have moved the cursor.
CLOCKS_APART: Final = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, order=True)
class Cursor:
    """How far a project has been read: the last annotation in the order (updated_at, id)."""

    updated_at: datetime
    last_id: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """One state of one annotation as it was read from the labelling tool.

    `annotation` is what the person says about the image; only kind "annotated" has one. `origin`
    names the project there beyond doubt, "" where that is not known.
    """

    task_id: int
    annotation_id: int
    updated_at: datetime
    kind: Kind
    image_sha256: str
    annotation: Annotation | None = None
    origin: str = ""


# Annotations by task and image, for a task number alone may mean another task elsewhere.
Live = Mapping[tuple[int, str], frozenset[int]]


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a batch of arrivals; `repeated` had been applied before."""

    seen: int = 0
    applied: int = 0
    skipped: int = 0
    deleted: int = 0
    repeated: int = 0

    def __add__(self, other: Taken) -> Taken:
        return Taken(
            self.seen + other.seen,
            self.applied + other.applied,
            self.skipped + other.skipped,
            self.deleted + other.deleted,
            self.repeated + other.repeated,
        )


class Inbox:
    """The answers of one labelling project.

    Args:
        ledger: where they lie.
        project: title of the labelling project.
        who: name of this process in the audit trail.
    """

    def __init__(self, ledger: Ledger, *, project: str, who: str) -> None:
        self.ledger = ledger
        self.project = project
        self._who = who

    def take(
        self, arrivals: Iterable[Arrival], *, cursor: Cursor | None = None, origin: str = ""
    ) -> Taken:
        """Apply a batch and move the cursor, both or neither.

        Args:
            arrivals: in any order, also ones taken before.
            cursor: how far the project is read with this batch; it never moves back, unless the
                one before lies ahead of our clock.
            origin: of the project that the cursor is about.

        Raises:
            InputError: if an arrival contradicts itself; then nothing of the batch is applied.
            LedgerError: if the ledger cannot be written.
        """
        taken = Taken()
        with self.ledger.session() as session:
            for arrival in arrivals:
                _check(arrival)
                taken += self._apply(session, arrival)
            if cursor is not None:
                self._advance(session, cursor, origin)
        return taken

    def cursor(self, origin: str = "") -> Cursor | None:
        """How far the project of this origin has been read; None: not at all, or nobody can say.

        One ahead of our clock tells that one of two clocks was wrong: what lies before it may not
        have been read.
        """
        with self.ledger.reading() as session:
            row = session.get(CursorRow, self._place(origin))
        if row is None or self._is_ahead(row):
            return None
        return Cursor(row.updated_at, row.last_id)

    def current(self) -> tuple[Annotation, ...]:
        """What people now say, one annotation an image, sorted by image.

        The newest state of each annotation counts, and of several annotations of an image the
        newest; a skipped or deleted one says nothing.
        """
        return tuple(self.each())

    def each(self) -> Iterator[Annotation]:
        """What `current` has, one after the other: all at once may take gigabytes."""
        with self.ledger.reading() as session:
            for row in standing_rows(session, self.project):
                yield to_annotation(row)

    def answered_repeatedly(self) -> Iterator[tuple[Annotation, ...]]:
        """Of each image with several answers that stand all of them, the oldest first."""
        with self.ledger.reading() as session:
            for ids in repeated_ids(session, self.project):
                yield tuple(to_annotation(row) for row in rows_of(session, ids))

    def times_answered(self) -> dict[str, int]:
        """How often an answer about each image was given: submitted, or updated since."""
        row = AnnotationRow
        query = (
            sa.select(row.image_sha256, sa.func.count())
            .where(row.project == self.project, row.kind == "annotated")
            .group_by(row.image_sha256)
        )
        with self.ledger.reading() as session:
            return {image: times for image, times in session.execute(query)}

    def live(self, origin: str | None = None) -> Live:
        """The annotations not known to be deleted: what a full sweep compares.

        Args:
            origin: where they came from; those of which it is not known are there, too. None: all.
        """
        row = AnnotationRow
        query = sa.select(row.task_id, row.image_sha256, row.annotation_id).where(
            row.id.in_(newest_states(self.project)), row.kind != "deleted"
        )
        if origin is not None:
            query = query.where(row.origin.in_((origin, "")))
        found: dict[tuple[int, str], set[int]] = defaultdict(set)
        with self.ledger.reading() as session:
            for task_id, image_sha256, annotation_id in session.execute(query):
                found[task_id, image_sha256].add(annotation_id)
        return {place: frozenset(ids) for place, ids in found.items()}

    def counts(self) -> dict[Kind, int]:
        """How many annotations stand in each kind, by their newest state."""
        query = sa.select(AnnotationRow.kind, sa.func.count()).group_by(AnnotationRow.kind)
        query = query.where(AnnotationRow.id.in_(newest_states(self.project)))
        with self.ledger.reading() as session:
            found = {kind: number for kind, number in session.execute(query)}
        return {kind: found.get(kind, 0) for kind in KINDS}

    def _apply(self, session: Session, arrival: Arrival) -> Taken:
        at, newest = arrival.updated_at, self._newest_state(session, arrival)
        if arrival.kind == "deleted":
            if newest is not None and newest.kind == "deleted":
                return Taken(seen=1, repeated=1)
            if newest is not None:  # dated by our clock, and the labelling tool's may be ahead
                at = max(at, newest.updated_at + timedelta(microseconds=1))
        row = AnnotationRow(
            project=self.project,
            task_id=arrival.task_id,
            annotation_id=arrival.annotation_id,
            updated_at=at,
            kind=arrival.kind,
            image_sha256=arrival.image_sha256,
            content=arrival.annotation and arrival.annotation.model_dump(mode="json"),
            applied_at=self.ledger.clock.now(),
            origin=arrival.origin,
        )
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:
            return self._apply_again(session, replace(arrival, updated_at=at))
        if newest is not None and newest.updated_at > at and self._is_ahead(newest):
            self._date_before(session, row)
        self.ledger.record(
            session,
            arrival.kind,
            who=self._who,
            entity=f"annotation:{arrival.annotation_id}",
            after=arrival.kind,
            task_id=arrival.task_id,
            image_sha256=arrival.image_sha256,
            updated_at=at.isoformat(),
        )
        return Taken(
            seen=1,
            applied=int(arrival.kind == "annotated"),
            skipped=int(arrival.kind == "skipped"),
            deleted=int(arrival.kind == "deleted"),
        )

    def _apply_again(self, session: Session, arrival: Arrival) -> Taken:
        """An arrival whose ids and time are there already."""
        row = session.scalars(
            self._states(arrival).where(AnnotationRow.updated_at == arrival.updated_at)
        ).one()
        if row.image_sha256 != arrival.image_sha256:  # of another server, in the same microsecond
            later = arrival.updated_at + timedelta(microseconds=1)
            return self._apply(session, replace(arrival, updated_at=later))
        row.origin = row.origin or arrival.origin  # it was taken before origins were kept
        return Taken(seen=1, repeated=1)

    def _date_before(self, session: Session, row: AnnotationRow) -> None:
        """Date the states that seem later than one just taken right before it.

        They were given while the clock over there was ahead: until it got there, no correction
        would count.
        """
        later = self._in_order(row).where(AnnotationRow.updated_at > row.updated_at)
        for place, state in enumerate(session.scalars(later).all(), start=1):
            state.updated_at = row.updated_at - timedelta(microseconds=place)

    def _states(self, arrival: Arrival | AnnotationRow) -> sa.Select[AnnotationRow]:
        """Every state under the ids of an arrival, whatever image it is about."""
        return (
            sa.select(AnnotationRow)
            .where(AnnotationRow.project == self.project)
            .where(AnnotationRow.task_id == arrival.task_id)
            .where(AnnotationRow.annotation_id == arrival.annotation_id)
        )

    def _in_order(self, arrival: Arrival | AnnotationRow) -> sa.Select[AnnotationRow]:
        """Every state of the annotation that an arrival is about, the newest first."""
        of_image = self._states(arrival).where(AnnotationRow.image_sha256 == arrival.image_sha256)
        return of_image.order_by(AnnotationRow.updated_at.desc(), AnnotationRow.id.desc())

    def _newest_state(self, session: Session, arrival: Arrival) -> AnnotationRow | None:
        return session.scalars(self._in_order(arrival).limit(1)).one_or_none()

    def _advance(self, session: Session, cursor: Cursor, origin: str) -> None:
        place = self._place(origin)
        row = session.get(CursorRow, place, with_for_update=True)
        if row is None:
            session.add(CursorRow(name=place, updated_at=cursor.updated_at, last_id=cursor.last_id))
        elif Cursor(row.updated_at, row.last_id) < cursor or self._is_ahead(row):
            row.updated_at, row.last_id = cursor.updated_at, cursor.last_id

    def _place(self, origin: str) -> str:
        return f"{self.project} {origin}".rstrip()

    def _is_ahead(self, row: CursorRow | AnnotationRow) -> bool:
        return row.updated_at > self.ledger.clock.now() + CLOCKS_APART


def _check(arrival: Arrival) -> None:
    name = f"Annotation {arrival.annotation_id} of task {arrival.task_id}"
    if (arrival.annotation is not None) != (arrival.kind == "annotated"):
        raise InputError(f"{name} is {arrival.kind}: only an annotated one says something.")
    if arrival.annotation and arrival.annotation.image_sha256 != arrival.image_sha256:
        raise InputError(
            f"{name} is about image {arrival.annotation.image_sha256[:12]}, but its task shows "
            f"{arrival.image_sha256[:12]}."
        )
    if arrival.updated_at.tzinfo is None:
        raise InputError(f"{name} was changed at {arrival.updated_at} of no time zone; UTC is.")
