"""The review queue as a person sees it: where each image is, what is on it, what was learned.

Read from the ledger alone, so that it answers when Label Studio does not. A page may ask every two
seconds: `mark` tells by one number whether anything has happened. The database counts and sorts, in
an index alone; only the items that are listed are loaded, and each answer once.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Session

from active_learning._answer_rows import AnnotationRow, answered_tasks, standing_ids
from active_learning._review_rows import ReviewItemRow, is_due
from active_learning.choosing import NO_FINDING as NO_FINDING
from active_learning.desk import Desk
from active_learning.labelling import all_labels_given
from core.ledger import EventRow
from core.records import Annotation, ReviewItem, ReviewState

Place = Literal["parked", "waiting", "there", "reviewed"]
PLACES: Final[tuple[Place, ...]] = get_args(Place)  # in the order in which they are listed
_PLACE_OF: Final[Mapping[ReviewState, Place]] = {
    "parked": "parked",
    "pending": "waiting",
    "sending": "waiting",
    "unknown": "waiting",
    "sent": "there",
    "verified": "there",
}
_BATCH: Final = 500  # answers read at a time; one with a mask takes some kB


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
    sendable: int  # images that may be sent now
    waiting_since: datetime | None  # of the oldest image that waits to be sent or answered
    classes: Mapping[str, int]  # of those images by their most probable class, most first
    learned: Learned


class QueueReader:
    """Reads overviews; keeps the labels of answers, which never change."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._labels: dict[int, tuple[datetime, tuple[str, ...]]] = {}  # by answer: applied, labels
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
        places, classes = Counter[Place](), Counter[str]()
        since_when: list[datetime] = []
        with self._lock, desk.ledger.reading() as session:
            _plan_for_many(session)
            for place, main_class, images, oldest in session.execute(_counts(desk)):
                places[place] += images
                if place in ("waiting", "there"):
                    classes[main_class] += images
                    since_when.append(oldest)
            return Overview(
                mark=_mark(session),
                places={place: places[place] for place in PLACES},
                sendable=session.scalar(_sendable(desk)) or 0,
                waiting_since=min(since_when, default=None),
                classes=_most_first(classes),
                learned=self._what_was_learned(session, desk, since),
            )

    def entries(self, desk: Desk, place: Place | None, *, limit: int) -> tuple[Entry, ...]:
        """Images at a place, or at all of them: what a person should see first comes first.

        Raises:
            LedgerError: if the ledger cannot be read.
        """
        shown: dict[str, Place] = {}
        with desk.ledger.reading() as session:
            _plan_for_many(session)
            for at in (place,) if place is not None else PLACES:
                if left := limit - len(shown):
                    shown |= dict.fromkeys(session.scalars(_listed(desk, at).limit(left)), at)
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
            item = row.to_record()
            place = _PLACE_OF[item.state]
            if place == "there" and _is_answered(session, item):
                place = "reviewed"
        return Entry(item, place)

    def _what_was_learned(self, session: Session, desk: Desk, since: datetime | None) -> Learned:
        newest = session.scalar(sa.select(sa.func.max(AnnotationRow.id)))
        key = (desk.queue.project, newest, since)
        if self._learned is None or self._learned[0] != key:
            ids = standing_ids(session, desk.queue.project)
            known = self._labels_of(session, ids)
            new = [labels for at, labels in known if since is None or at > since]
            counts = Counter(chain.from_iterable(new))
            self._learned = (key, Learned(since, len(new), _most_first(counts)))
        return self._learned[1]

    def _labels_of(
        self, session: Session, ids: Sequence[int]
    ) -> list[tuple[datetime, tuple[str, ...]]]:
        """When each answer was applied and what it names; only those not seen before are read."""
        known = {number: self._labels[number] for number in ids if number in self._labels}
        missing = [number for number in ids if number not in known]
        row, alike = AnnotationRow, dict[tuple[str, ...], tuple[str, ...]]()
        for start in range(0, len(missing), _BATCH):
            query = sa.select(row.id, row.applied_at, row.content).where(
                row.id.in_(missing[start : start + _BATCH])
            )
            for number, at, content in session.execute(query):
                labels = tuple(all_labels_given(Annotation.model_validate(content)))
                known[number] = (at, alike.setdefault(labels, labels))
        self._labels = known
        return list(known.values())


def _mark(session: Session) -> int:
    return session.scalar(sa.select(sa.func.max(EventRow.id))) or 0


def _plan_for_many(session: Session) -> None:
    """Have PostgreSQL match items and answers by their hashes in this transaction.

    Without statistics, as after a restore, it takes both for a handful of rows and compares each
    with each: three quarters of a minute with 30,000 items and 20,000 answers.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.execute(sa.text("SET LOCAL enable_nestloop = off"))


def _counts(desk: Desk) -> sa.Select[Any]:
    """Place, main class, number of images and the oldest of them, of each such group."""
    row, answered = ReviewItemRow, answered_tasks(desk.queue.project).subquery()
    in_words = {state: place for state, place in _PLACE_OF.items() if place != "there"}
    is_reviewed = answered.c.task_id.is_not(None)
    place = sa.case(
        *((row.state == state, at) for state, at in in_words.items()),
        (is_reviewed, "reviewed"),
        else_="there",
    ).label("place")
    return (
        sa.select(place, row.main_class, sa.func.count(), sa.func.min(row.created_at))
        .outerjoin_from(row, answered, _is_of(answered))
        .where(row.project == desk.queue.project)
        .group_by(place, row.main_class)
    )


def _sendable(desk: Desk) -> sa.Select[int]:
    row = ReviewItemRow
    is_pending = (row.project == desk.queue.project) & (row.state == "pending")
    now = desk.ledger.clock.now()
    return sa.select(sa.func.count()).select_from(row).where(is_pending, is_due(now))


def _listed(desk: Desk, place: Place) -> sa.Select[str]:
    """Ids of the images at a place, the most urgent first."""
    row = ReviewItemRow
    at: Place = "there" if place == "reviewed" else place
    states = [state for state, of in _PLACE_OF.items() if of == at]
    query = sa.select(row.id).where(row.project == desk.queue.project, row.state.in_(states))
    if at == "there":
        answered = answered_tasks(desk.queue.project).subquery()
        is_reviewed = answered.c.task_id.is_not(None)
        query = query.outerjoin(answered, _is_of(answered))
        query = query.where(is_reviewed if place == "reviewed" else sa.not_(is_reviewed))
    return query.order_by(row.priority.desc(), row.created_at, row.id)


def _is_of(answered: sa.Subquery) -> sa.ColumnElement[bool]:
    """Whether an answered task is an item's: another server may have given the same number."""
    row = ReviewItemRow
    return (answered.c.task_id == row.task_id) & (answered.c.image_sha256 == row.image_sha256)


def _is_answered(session: Session, item: ReviewItem) -> bool:
    if item.task_id is None:
        return False
    answered = session.execute(answered_tasks(item.project, task_id=item.task_id))
    return any(image == item.image_sha256 for _, image in answered)


def _most_first(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
