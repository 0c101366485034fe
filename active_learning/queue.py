"""The review queue: images on their way to a person, each exactly one item in the ledger.

    pending ── claim ──────> sending ── mark_sent ──> sent ── mark_verified ──> verified
    sending ── retry_later ─> pending     it certainly did not arrive: wait, then again
    sending ── mark_unknown ─> unknown    it may have arrived: ask before sending again
    unknown ── resolve_unknown ─> sent | pending
    sending, unknown, sent ── park ─> parked ── reopen ─> pending    a person has to look
    verified ── send_again ─> pending     its task is gone, and somebody wants it there

This is the side that anyone may use: add, look, reopen. Moving items to the labelling tool is for
one process at a time and lies in `active_learning.outbox`. No network is spoken to in either.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from active_learning._review_rows import ReviewItemRow, dedupe_key, locked, move, ranked
from active_learning.choosing import NO_FINDING, classes_seen
from core.errors import InputError
from core.images import ImageStore
from core.ledger import Ledger
from core.records import REVIEW_STATES, Inspection, ReviewItem, ReviewState

OnPoint = Callable[[str], None]


class ReviewQueue:
    """The review items of one labelling project.

    Args:
        ledger: where items lie.
        images: where their pictures lie; a picture is there before its row is.
        project: title of the labelling project.
        config_revision: revision of the labelling configuration that new items are made for.
        who: name of this process in the audit trail.
        on_point: called with the name of each step of a write as it is reached: `add:stored` once
            the image is kept, `<step>:written` before a commit and `<step>:committed` after it.
    """

    def __init__(
        self,
        ledger: Ledger,
        images: ImageStore,
        *,
        project: str,
        config_revision: str,
        who: str,
        on_point: OnPoint | None = None,
    ) -> None:
        self.ledger = ledger
        self.images = images
        self.project = project
        self.config_revision = config_revision
        self.who = who
        self._reached = on_point or (lambda point: None)

    def add(
        self,
        image: bytes,
        *,
        inspections: Sequence[Inspection],
        reasons: Sequence[str],
        priority: float,
        note: str = "",
    ) -> ReviewItem:
        """Put an image into the queue; one that is there already is the same item.

        Added again, an item keeps its state, takes the higher priority, and gains the reasons and
        the note it did not have. Its predictions are replaced, model by model, until it is sent:
        from then on they are what the person was shown.

        Args:
            image: the encoded bytes, as they came.
            inspections: what models said about it.
            reasons: why a person should look, in words; at least one.
            priority: in [0, 1], higher is sooner.
            note: what a person who flagged it had to say.

        Raises:
            InputError: if a value is out of range or belongs to another image.
            LedgerError: if the image or the row cannot be written.
        """
        sha256 = hashlib.sha256(image).hexdigest()
        _check(sha256, inspections, reasons, priority)
        self.images.put(image)
        self._reached("add:stored")
        with self.step("add") as session:
            row, is_new = self._row(session, sha256)
            before = None if is_new else row.state
            _merge(row, inspections, reasons, priority, note)
            row.updated_at = self.ledger.clock.now()
            self.ledger.record(
                session,
                "added" if is_new else "added again",
                who=self.who,
                entity=row.entity,
                before=before,
                after=row.state,
                reasons=list(reasons),
                note=note,
                priority=priority,
            )
            session.flush()
            return row.to_record()

    def reopen(self, item_id: str) -> ReviewItem:
        """parked → pending: a person has removed what was in the way.

        Raises:
            IllegalTransition: if the item is not parked, or there is none.
        """
        with self.step("reopen") as session:
            row = locked(session, self.project, item_id, verb="reopen", origins=("parked",))
            reason, row.parked_reason = row.parked_reason, None
            row.attempts, row.next_attempt_at, row.task_id = 0, None, None
            move(
                self.ledger,
                session,
                row,
                "pending",
                what="reopened",
                who=self.who,
                parked_reason=reason,
            )
            return row.to_record()

    def get(self, item_id: str) -> ReviewItem | None:
        """The item with this id, None if the project has none."""
        with self.ledger.reading() as session:
            row = session.scalars(
                ranked(self.project).where(ReviewItemRow.id == item_id)
            ).one_or_none()
            return row.to_record() if row else None

    def find(self, key: str) -> ReviewItem | None:
        """The item with this dedupe key, None if the project has none."""
        with self.ledger.reading() as session:
            row = session.scalars(
                ranked(self.project).where(ReviewItemRow.dedupe_key == key)
            ).one_or_none()
            return row.to_record() if row else None

    def find_all(self, keys: Collection[str]) -> dict[str, ReviewItem]:
        """The items with these dedupe keys, by key; a key that the project has none of is absent.

        Asked in one question: a page of tasks, not a whole project.
        """
        query = ranked(self.project).where(ReviewItemRow.dedupe_key.in_(list(keys)))
        with self.ledger.reading() as session:
            return {row.dedupe_key: row.to_record() for row in session.scalars(query)}

    def items(
        self,
        *,
        state: ReviewState | None = None,
        task_id: int | None = None,
        limit: int = 1000,
        offset: int = 0,
    ) -> tuple[ReviewItem, ...]:
        """Items of the project, highest priority first, then oldest; filters are joined by and."""
        query = ranked(self.project, state)
        if task_id is not None:
            query = query.where(ReviewItemRow.task_id == task_id)
        with self.ledger.reading() as session:
            rows = session.scalars(query.limit(limit).offset(offset))
            return tuple(row.to_record() for row in rows)

    def counts(self) -> dict[ReviewState, int]:
        """How many items are in each state; every state is there."""
        query = (
            sa.select(ReviewItemRow.state, sa.func.count())
            .where(ReviewItemRow.project == self.project)
            .group_by(ReviewItemRow.state)
        )
        with self.ledger.reading() as session:
            found = {state: number for state, number in session.execute(query)}
        return {state: found.get(state, 0) for state in REVIEW_STATES}

    def ages_s(self) -> dict[ReviewState, float]:
        """How long ago the oldest item of each state was added; states without items are absent."""
        query = (
            sa.select(ReviewItemRow.state, sa.func.min(ReviewItemRow.created_at))
            .where(ReviewItemRow.project == self.project)
            .group_by(ReviewItemRow.state)
        )
        now = self.ledger.clock.now()
        with self.ledger.reading() as session:
            found = {state: since for state, since in session.execute(query)}
        return {
            state: max(0.0, (now - found[state]).total_seconds())
            for state in REVIEW_STATES
            if state in found
        }

    @contextmanager
    def step(self, name: str) -> Iterator[Session]:
        """One write transaction whose two ends are named points."""
        with self.ledger.session() as session:
            yield session
            session.flush()
            self._reached(f"{name}:written")
        self._reached(f"{name}:committed")

    def _row(self, session: Session, sha256: str) -> tuple[ReviewItemRow, bool]:
        """The locked row of an image, and whether it was made just now."""
        key = dedupe_key(sha256, self.project, self.config_revision)
        query = sa.select(ReviewItemRow).where(ReviewItemRow.dedupe_key == key).with_for_update()
        row = session.scalars(query).one_or_none()
        if row is not None:
            return row, False
        now = self.ledger.clock.now()
        row = ReviewItemRow(
            id=uuid.uuid4().hex,
            image_sha256=sha256,
            project=self.project,
            config_revision=self.config_revision,
            dedupe_key=key,
            predictions={},
            main_class=NO_FINDING,
            reasons=[],
            note="",
            priority=0.0,
            state="pending",
            attempts=0,
            fence=0,
            created_at=now,
            updated_at=now,
        )
        try:
            with session.begin_nested():
                session.add(row)
        except IntegrityError:  # somebody added the same image between our look and our insert
            return session.scalars(query).one(), False
        return row, True


def _check(
    sha256: str, inspections: Sequence[Inspection], reasons: Sequence[str], priority: float
) -> None:
    if not 0 <= priority <= 1:
        raise InputError(f"Priority is {priority}: it must lie in [0, 1].")
    if not reasons or not all(reason.strip() for reason in reasons):
        raise InputError("A reason is missing: say in words why a person should look.")
    for inspection in inspections:
        if inspection.image.sha256 != sha256:
            raise InputError(
                f"{inspection.model} inspected image {inspection.image.sha256[:12]}, but the one "
                f"to be reviewed is {sha256[:12]}."
            )


def _merge(
    row: ReviewItemRow,
    inspections: Sequence[Inspection],
    reasons: Sequence[str],
    priority: float,
    note: str,
) -> None:
    row.reasons = list(dict.fromkeys([*row.reasons, *reasons]))
    row.priority = max(row.priority, priority)
    if note.strip() and note.strip() not in row.note.splitlines():
        row.note = "\n".join(filter(None, [row.note, note.strip()]))
    if row.state in ("pending", "parked"):
        said = {inspection.model: inspection.model_dump(mode="json") for inspection in inspections}
        row.predictions = {**row.predictions, **said}
        inspected = [Inspection.model_validate(one) for one in row.predictions.values()]
        row.main_class = next(iter(classes_seen(inspected)), NO_FINDING)
