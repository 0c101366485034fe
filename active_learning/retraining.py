"""Retraining runs in the ledger: which phase each has reached, how it ended, and why.

    requested → leased → snapshot → training → evaluated → gate → published → activated

A run is open until it is promoted or refused; at most one of a model is. Whoever holds the lease to
train may move it, one phase at a time, and every move is an event. A run that was taken up
`MAX_ATTEMPTS` times without reaching another phase is parked with what went wrong, until a person
reopens it. This file knows nothing of training: the pages read runs here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from active_learning._order_of_events import first_event, last_event
from active_learning.leases import Lease, Leases
from active_learning.versions import VersionRow
from core.errors import IllegalTransition
from core.ledger import Base, Ledger
from core.records import Record
from core.verdicts import Decision

Phase = Literal[
    "requested", "leased", "snapshot", "training", "evaluated", "gate", "published", "activated"
]
PHASES: Final[tuple[Phase, ...]] = get_args(Phase)
RunState = Literal["open", "parked", "promoted", "refused"]
Ending = tuple[RunState, tuple[str, ...]]  # how a run ended, and why
LEASE: Final = "train"  # who holds it may move runs
SHELF: Final = "candidate"  # folder of a judged candidate's release inside the run's
MAX_ATTEMPTS: Final = 5
_OPEN: Final = ("open", "parked")
_KIND: Final = "retraining"  # of entity in the audit trail


class RetrainingRow(Base):
    """Table of retraining runs; `id` is also the name of the run's folder."""

    __tablename__ = "retraining_runs"
    __table_args__ = (sa.Index("ix_retraining_runs_model", "model", "created_at"),)

    id: Mapped[str] = mapped_column(sa.String(60), primary_key=True)
    model: Mapped[str] = mapped_column(sa.String(50))
    dataset: Mapped[str] = mapped_column(sa.String(50))
    phase: Mapped[str] = mapped_column(sa.String(10))
    state: Mapped[str] = mapped_column(sa.String(10))
    why: Mapped[str] = mapped_column(sa.Text)
    reasons: Mapped[list[str]]
    attempts: Mapped[int]
    last_error: Mapped[str | None] = mapped_column(sa.Text)
    version: Mapped[str | None] = mapped_column(sa.ForeignKey(VersionRow.id))
    incumbent: Mapped[str | None] = mapped_column(sa.String(64))
    candidate: Mapped[str | None] = mapped_column(sa.String(64))
    published: Mapped[str | None] = mapped_column(sa.String(100))
    decision: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    progress: Mapped[dict[str, Any]]
    phases: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    def to_record(self) -> RetrainingRun:
        """The run as everybody else sees it."""
        return RetrainingRun.model_validate(
            {name: getattr(self, name) for name in RetrainingRun.model_fields}
        )


class Progress(Record):
    """How far training has come."""

    epoch: int = 0
    epochs: int = 0
    left_s: float | None = None  # None before the first epoch has told how long one takes


class RetrainingRun(Record):
    """One attempt to make a model better, from the reason to the verdict."""

    id: str
    model: str
    dataset: str
    phase: Phase  # the last one it reached
    state: RunState
    why: str  # it was started
    reasons: tuple[str, ...]  # for how it ended
    attempts: int  # times it was taken up since it reached a phase last
    last_error: str | None
    version: str | None  # of the data set
    incumbent: str | None  # revision that was live when it was compared, else when it began
    candidate: str | None  # revision that it made
    published: str | None  # commit on the Hub; None where nothing was published
    decision: Decision | None
    progress: Progress
    phases: dict[Phase, datetime]  # when each was reached
    created_at: datetime
    updated_at: datetime

    @property
    def is_open(self) -> bool:
        """Whether it is still to be finished, by a process or by a person."""
        return self.state in _OPEN


class RetrainingRuns:
    """The retraining runs of a ledger.

    Args:
        ledger: where they lie.
        who: name of this process in the audit trail.
    """

    def __init__(self, ledger: Ledger, *, who: str) -> None:
        self._ledger = ledger
        self._leases = Leases(ledger)
        self._who = who

    def get(self, run_id: str) -> RetrainingRun | None:
        """The run of that name."""
        with self._ledger.reading() as session:
            row = session.get(RetrainingRow, run_id)
            return row.to_record() if row else None

    def newest(self, *, model: str | None = None, limit: int = 50) -> tuple[RetrainingRun, ...]:
        """The latest runs, newest first: as they were asked for, whatever the clock said."""
        query = sa.select(RetrainingRow)
        if model is not None:
            query = query.where(RetrainingRow.model == model)
        asked = first_event(_KIND, RetrainingRow.id)
        query = query.order_by(asked.desc(), RetrainingRow.id.desc())
        with self._ledger.reading() as session:
            return tuple(row.to_record() for row in session.scalars(query.limit(limit)))

    def is_carried(self, run: RetrainingRun) -> bool:
        """Whether a process is at work on a run, rather than about to go on with it some time."""
        with self._ledger.reading() as session:
            return run.state == "open" and carried_run(session, self._leases) == run.id

    def request(
        self,
        lease: Lease,
        *,
        model: str,
        dataset: str,
        why: str,
        incumbent: str,
        reopens: bool = False,
        also: Callable[[Session, str], None] | None = None,
    ) -> RetrainingRun:
        """Ask for a run; the one that is open for this model if there is one.

        Args:
            lease: to train.
            model: which one.
            dataset: that it is trained on.
            why: it is started.
            incumbent: revision that is live.
            reopens: a run that is parked, or about to be, is gone on with: a person has seen to it.
            also: what else belongs to the same transaction; given the run's name.

        Raises:
            LeaseLost: if another process took over.
        """
        now = self._ledger.clock.now()
        with self._ledger.session() as session:
            self._leases.check(session, lease)
            query = sa.select(RetrainingRow).where(RetrainingRow.model == model)
            row = session.scalars(query.where(RetrainingRow.state.in_(_OPEN))).first()
            if row is None:
                made = session.scalars(sa.select(sa.func.count()).select_from(RetrainingRow)).one()
                row = RetrainingRow(
                    id=f"{now:%Y%m%d-%H%M%S}-{model}-retrained-{made + 1}",
                    model=model,
                    dataset=dataset,
                    phase="requested",
                    state="open",
                    why=why,
                    reasons=[],
                    attempts=0,
                    incumbent=incumbent,
                    progress={},
                    phases={"requested": now.isoformat()},
                    created_at=now,
                    updated_at=now,
                )
                session.add(row)
                self._event(session, row, "requested", before=None, why=why)
            elif reopens and (row.state == "parked" or row.attempts >= MAX_ATTEMPTS):
                self._reopen(session, row)
            if also is not None:
                also(session, row.id)
            session.flush()
            return row.to_record()

    def take_up(self, run: RetrainingRun, lease: Lease) -> RetrainingRun:
        """Begin, or go on with, a run under a lease; counted until another phase is reached."""
        with self._ledger.session() as session:
            row = self._locked(session, run, lease)
            row.attempts += 1
            row.updated_at = self._ledger.clock.now()
            before = row.phase
            if row.phase == "requested":
                self._enter(row, "leased")
            self._event(session, row, "taken up", before=before, fence=lease.fence)
            return row.to_record()

    def reach(
        self,
        run: RetrainingRun,
        lease: Lease,
        phase: Phase,
        *,
        ends: Ending | None = None,
        **changes: Any,
    ) -> RetrainingRun:
        """Record that the run has reached a phase, with what it knows from there on.

        Where it `ends` there, state and reasons are of the same transaction: a process that is
        killed leaves no run that has its verdict and still is open.

        Raises:
            IllegalTransition: if it is not the phase after the one the run is in, or a phase
                before it.
            LeaseLost: if another process took over; nothing was written.
        """
        with self._ledger.session() as session:
            row = self._locked(session, run, lease)
            here, there = PHASES.index(run.phase), PHASES.index(phase)
            if row.phase != run.phase or there > here + 1:
                raise IllegalTransition(
                    f"Run {run.id} is in phase {row.phase}: it cannot go to {phase} now."
                )
            before = row.phase
            self._enter(row, phase)
            row.attempts, row.last_error = 1, None
            for name, value in changes.items():
                setattr(row, name, value)
            told = {k: v for k, v in changes.items() if k != "progress"}
            self._event(session, row, phase, before=before, **told)
            if ends is not None:
                self._end(session, row, ends)
            session.flush()
            return row.to_record()

    def tell(self, run: RetrainingRun, lease: Lease, progress: Progress) -> None:
        """Note how far training has come; the audit trail is spared.

        Raises:
            LeaseLost: if another process took over.
        """
        with self._ledger.session() as session:
            row = self._locked(session, run, lease)
            row.progress = progress.model_dump(mode="json")
            row.updated_at = self._ledger.clock.now()

    def end(
        self, run: RetrainingRun, lease: Lease, state: RunState, reasons: tuple[str, ...]
    ) -> RetrainingRun:
        """Finish or park a run, saying why."""
        with self._ledger.session() as session:
            row = self._locked(session, run, lease)
            self._end(session, row, (state, reasons))
            session.flush()
            return row.to_record()

    def fail(self, run: RetrainingRun, lease: Lease, error: str) -> RetrainingRun:
        """Note why an attempt did not end well; after MAX_ATTEMPTS of them the run is parked."""
        with self._ledger.session() as session:
            row = self._locked(session, run, lease)
            row.last_error = error
            row.updated_at = self._ledger.clock.now()
            self._event(session, row, "failed", before=row.phase, error=error)
            session.flush()
            failed = row.to_record()
        return self.park_if_spent(failed, lease)

    def park_if_spent(self, run: RetrainingRun, lease: Lease) -> RetrainingRun:
        """Park a run that was taken up too often without reaching another phase."""
        if run.state != "open" or run.attempts < MAX_ATTEMPTS:
            return run
        what = run.last_error or "each time its process was killed before it ended"
        reason = f"{_DOING[run.phase]} was tried {run.attempts} times and never ended well: {what}"
        return self.end(run, lease, "parked", (reason,))

    def give_back(self, run: RetrainingRun, lease: Lease) -> None:
        """Lay a run down on request, in good order: the attempt does not count."""
        with self._ledger.session() as session:
            row = self._locked(session, run, lease)
            row.attempts = max(row.attempts - 1, 0)
            self._event(session, row, "laid down", before=row.phase)

    def _end(self, session: Session, row: RetrainingRow, ending: Ending) -> None:
        row.state, row.reasons = ending[0], list(ending[1])
        row.updated_at = self._ledger.clock.now()
        self._event(session, row, row.state, before=row.phase, reasons=row.reasons)

    def _reopen(self, session: Session, row: RetrainingRow) -> None:
        row.state, row.reasons, row.attempts, row.last_error = "open", [], 0, None
        row.updated_at = self._ledger.clock.now()
        self._event(session, row, "reopened", before=row.phase)

    def _locked(self, session: Session, run: RetrainingRun, lease: Lease) -> RetrainingRow:
        self._leases.check(session, lease)
        return session.get_one(RetrainingRow, run.id, with_for_update=True, populate_existing=True)

    def _enter(self, row: RetrainingRow, phase: Phase) -> None:
        now = self._ledger.clock.now()
        row.phase, row.updated_at = phase, now
        row.phases = {**row.phases, phase: now.isoformat()}

    def _event(
        self, session: Session, row: RetrainingRow, what: str, *, before: str | None, **more: Any
    ) -> None:
        details: dict[str, Any] = {"model": row.model, "attempts": row.attempts, **more}
        moved: dict[str, Any] = {"before": before, "after": row.phase}
        entity = f"{_KIND}:{row.id}"
        self._ledger.record(session, what, who=self._who, entity=entity, **moved, **details)


def carried_run(session: Session, leases: Leases) -> str | None:
    """Id of the run that a process is at work on; None while nobody trains."""
    if leases.holder(session, LEASE) is None:
        return None
    query = sa.select(RetrainingRow.id).where(RetrainingRow.state == "open")
    return session.scalars(query.order_by(last_event(_KIND, RetrainingRow.id).desc())).first()


# What was being done in each phase when it went wrong.
_DOING: Final[Mapping[Phase, str]] = {
    "requested": "Starting",
    "leased": "Freezing the data set",
    "snapshot": "Preparing the training",
    "training": "Training and measuring",
    "evaluated": "Comparing with the live model",
    "gate": "Publishing",
    "published": "Going live",
    "activated": "Going live",
}
