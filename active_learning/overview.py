"""The review queue as a person sees it: where each image is, what is on it, what was learned.

Read from the ledger alone, so that it answers when Label Studio does not. A page may ask every two
seconds: `mark` tells by one number whether anything has happened, and what an item shows is read
again only when the item has changed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from active_learning._answer_rows import (
    AnnotationRow,
    newest_states,
    standing_rows,
    to_annotation,
)
from active_learning._review_rows import ReviewItemRow
from active_learning.choosing import classes_seen
from active_learning.desk import Desk
from active_learning.labelling import all_labels_given
from core.ledger import EventRow
from core.records import ReviewItem, ReviewState

Place = Literal["parked", "waiting", "there", "reviewed"]
PLACES: Final[tuple[Place, ...]] = get_args(Place)  # in the order in which they are listed
NO_FINDING: Final = ""  # the class of an image on which no model finds anything
_PLACE_OF: Final[Mapping[ReviewState, Place]] = {
    "parked": "parked",
    "pending": "waiting",
    "sending": "waiting",
    "unknown": "waiting",
    "sent": "there",
    "verified": "there",
}
_BATCH: Final = 200  # predictions read at a time; one with a mask takes some kB


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of the queue."""

    item: ReviewItem
    place: Place


@dataclass(frozen=True, slots=True)
class Learned:
    """What people have answered since a moment, usually that of the newest release."""

    since: datetime | None  # None: since the beginning
    images: int
    labels: Mapping[str, int]  # labels given, by class, most first


@dataclass(frozen=True, slots=True)
class Overview:
    """The whole queue at one moment."""

    mark: int
    places: Mapping[Place, int]  # images; every place is there
    states: Mapping[ReviewState, int]  # of the images that are not reviewed; none is absent
    sendable: int  # images that may be sent now
    waiting_since: datetime | None  # of the oldest image that waits to be sent or answered
    classes: Mapping[str, int]  # of those images by their most probable class, most first
    learned: Learned


@dataclass(frozen=True, slots=True)
class _Line:
    """What the overview needs of every item."""

    id: str
    place: Place
    state: ReviewState
    priority: float
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None


class QueueReader:
    """Reads overviews; keeps what it has read of items and answers that did not change since."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._classes: dict[str, tuple[datetime, str]] = {}  # by item: as of, main class
        self._learned: tuple[object, Learned] | None = None

    def mark(self, desk: Desk) -> int:
        """A number that grows whenever anything happens.

        Raises:
            LedgerError: if the ledger cannot be read.
        """
        with desk.ledger.reading() as session:
            return _mark(session)

    def overview(self, desk: Desk, *, since: datetime | None) -> Overview:
        """The queue now.

        Args:
            desk: of the project.
            since: from when on answers count as learned; None: all of them.

        Raises:
            LedgerError: if the ledger cannot be read.
        """
        with self._lock, desk.ledger.reading() as session:
            lines = _lines(session, desk)
            is_open = [line for line in lines if line.place in ("waiting", "there")]
            places = Counter(line.place for line in lines)
            states = Counter(line.state for line in lines if line.place != "reviewed")
            now = desk.ledger.clock.now()
            return Overview(
                mark=_mark(session),
                places={place: places[place] for place in PLACES},
                states={state: states[state] for state in _PLACE_OF},
                sendable=sum(
                    line.state == "pending"
                    and (line.next_attempt_at is None or line.next_attempt_at <= now)
                    for line in lines
                ),
                waiting_since=min((line.created_at for line in is_open), default=None),
                classes=_most_first(self._main_classes(session, is_open)),
                learned=self._what_was_learned(session, desk, since),
            )

    def entries(self, desk: Desk, place: Place | None, *, limit: int) -> tuple[Entry, ...]:
        """Images at a place, or at all of them: what a person should see first comes first.

        Raises:
            LedgerError: if the ledger cannot be read.
        """
        with desk.ledger.reading() as session:
            lines = [line for line in _lines(session, desk) if place in (None, line.place)]
            lines.sort(
                key=lambda one: (PLACES.index(one.place), -one.priority, one.created_at, one.id)
            )
            shown = {line.id: line.place for line in lines[:limit]}
            query = sa.select(ReviewItemRow).where(ReviewItemRow.id.in_(shown))
            items = {row.id: row.to_record() for row in session.scalars(query)}
        return tuple(Entry(items[key], at) for key, at in shown.items() if key in items)

    def entry(self, desk: Desk, item_id: str) -> Entry | None:
        """One image; None if the queue has no such item.

        Raises:
            LedgerError: if the ledger cannot be read.
        """
        with desk.ledger.reading() as session:
            row = session.get(ReviewItemRow, item_id)
            if row is None or row.project != desk.queue.project:
                return None
            answered = _answered_tasks(session, desk.queue.project)
            item = row.to_record()
        return Entry(item, _place(item.state, (item.task_id, item.image_sha256) in answered))

    def _main_classes(self, session: Session, lines: Iterable[_Line]) -> Counter[str]:
        wanted = {line.id: line.updated_at for line in lines}
        known = {i: c for i, c in self._classes.items() if wanted.get(i) == c[0]}
        missing = [item_id for item_id in wanted if item_id not in known]
        for start in range(0, len(missing), _BATCH):
            ids = missing[start : start + _BATCH]
            query = sa.select(ReviewItemRow).where(ReviewItemRow.id.in_(ids))
            for row in session.scalars(query):
                seen = classes_seen(row.to_record().predictions)
                known[row.id] = (wanted[row.id], seen[0] if seen else NO_FINDING)
            session.expunge_all()
        self._classes = known
        return Counter(label for _, label in known.values())

    def _what_was_learned(self, session: Session, desk: Desk, since: datetime | None) -> Learned:
        newest = session.scalar(sa.select(sa.func.max(AnnotationRow.id)))
        key = (desk.queue.project, newest, since)
        if self._learned is None or self._learned[0] != key:
            rows = standing_rows(session, desk.queue.project)
            new = [row for row in rows if since is None or row.applied_at > since]
            labels = Counter(label for row in new for label in all_labels_given(to_annotation(row)))
            self._learned = (key, Learned(since, len(new), _most_first(labels)))
        return self._learned[1]


def _mark(session: Session) -> int:
    return session.scalar(sa.select(sa.func.max(EventRow.id))) or 0


def _lines(session: Session, desk: Desk) -> list[_Line]:
    """Every item, without what models said about it."""
    row = ReviewItemRow
    query = sa.select(
        *(row.id, row.task_id, row.state, row.priority, row.created_at, row.updated_at),
        *(row.next_attempt_at, row.image_sha256),
    ).where(row.project == desk.queue.project)
    answered = _answered_tasks(session, desk.queue.project)
    return [
        _Line(
            id=line.id,
            place=_place(line.state, (line.task_id, line.image_sha256) in answered),
            state=line.state,
            priority=line.priority,
            created_at=line.created_at,
            updated_at=line.updated_at,
            next_attempt_at=line.next_attempt_at,
        )
        for line in session.execute(query)
    ]


def _answered_tasks(session: Session, project: str) -> set[tuple[int | None, str]]:
    """Tasks with an answer that stands, each with its image; a skipped or deleted one is none."""
    query = sa.select(AnnotationRow.task_id, AnnotationRow.image_sha256).where(
        AnnotationRow.id.in_(newest_states(project)), AnnotationRow.kind == "annotated"
    )
    return {(task_id, image) for task_id, image in session.execute(query)}


def _place(state: ReviewState, is_answered: bool) -> Place:
    place = _PLACE_OF[state]
    return "reviewed" if place == "there" and is_answered else place


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
