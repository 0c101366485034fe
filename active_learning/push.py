"""Out to Label Studio: what waits in the review queue becomes tasks there, each exactly once.

An import that is sent twice makes two tasks, and an answer that is lost tells nothing. So every
item carries a key of its own, is sent once, and whenever its outcome is not certain, Label Studio
is asked for the key before anything is sent again. What it accepted is read back and compared,
because it also accepts what it will never show.

Keys are asked for, and tasks read back, many at once; sent they are one by one, or one lost answer
would leave many outcomes open. An answer about keys stays true until the items are sent: only the
holder of the push lease makes tasks, and claiming an item fails once another process has held it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

from active_learning.choosing import Waiting, choose
from active_learning.label_format import to_task_data
from active_learning.label_studio import LabelStudio, Project
from active_learning.labelling import Labelling
from active_learning.outbox import LEASE_S, SETTLE_S, Outbox, pushing
from active_learning.outgoing import Outgoing, difference
from active_learning.queue import OnPoint, ReviewQueue
from active_learning.shown_image import ShownImage
from core.errors import (
    InputError,
    LabelFormatError,
    LabelStudioError,
    LedgerError,
    OutcomeUnknown,
    RequestNotSent,
    RequestRefused,
)
from core.records import ReviewItem

logger = logging.getLogger(__name__)

STOPPED: Final = "It was stopped by hand."
PATIENCE: Final = 3  # failures in a row after which Label Studio is left alone until the next pass
AT_ONCE: Final = 20  # items asked about, or read back, in one request; a mask may take a megabyte
# Of these the item is innocent: the token, the permission or the project is at fault.
_NOT_THE_ITEM: Final = frozenset({401, 403, 404})
_Item = TypeVar("_Item", ReviewItem, Waiting)


@dataclass(frozen=True, slots=True)
class Ranking:
    """How a pass chooses when more waits than may be sent."""

    budget: int  # images in one pass
    random_share: float  # of the budget, drawn at random
    labelled_counts: Mapping[str, int]  # labels there are of each class
    seed: int


@dataclass(frozen=True, slots=True)
class PushReport:
    """What one pass did, and what it left."""

    sent: int = 0  # tasks that were made, or found to have been made
    verified: int = 0  # of all sent, those read back as they should be
    parked: int = 0  # items a person has to look at
    unknown: int = 0  # items whose outcome is still open, after the pass
    pending: int = 0  # items that still wait, after the pass
    stopped: str = ""  # why the pass ended early, one sentence; "" where it did not


def push(
    queue: ReviewQueue,
    studio: LabelStudio,
    *,
    labelling: Labelling,
    mask_labels: Mapping[str, Sequence[str]],
    ranking: Ranking,
    lease_s: float = LEASE_S,
    settle_s: float = SETTLE_S,
    jitter: random.Random | None = None,
    on_point: OnPoint | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> PushReport:
    """One pass: settle what is open, then send what is due, in the order of the ranking.

    Args:
        queue: of the project; its title names the project in Label Studio.
        studio: where to.
        labelling: classes the project has to offer.
        mask_labels: classes of each segmenter by its name, in the order of its mask.
        ranking: which items go first, and how many.
        lease_s: of `outbox.pushing`.
        settle_s: of `outbox.pushing`; longer than the time-out of `studio`.
        jitter: random numbers for waiting times.
        on_point: called with `push:uploaded`, `push:created` and `push:read back`, each after the
            answer arrived and before anything is written.
        is_stopped: asked before each item is sent; then the rest waits.

    Raises:
        LeaseHeld: if another process is pushing.
        LabelStudioError: if Label Studio refuses the token or the project.
        LedgerError: if the ledger cannot be written.
    """
    with pushing(queue, lease_s=lease_s, settle_s=settle_s, jitter=jitter) as outbox:
        project = studio.project(queue.project, labelling)
        push_pass = _Pass(queue, studio, outbox, project, mask_labels, on_point)
        stopped = push_pass.settle() or push_pass.verify() or push_pass.send(ranking, is_stopped)
        if push_pass.done.verified and not stopped:
            studio.follow_our_order(project)
    counts = queue.counts()
    return replace(
        push_pass.done, unknown=counts["unknown"], pending=counts["pending"], stopped=stopped
    )


class _Pass:
    """The three steps of a pass; each returns why it had to stop, "" where it did not."""

    def __init__(
        self,
        queue: ReviewQueue,
        studio: LabelStudio,
        outbox: Outbox,
        project: Project,
        mask_labels: Mapping[str, Sequence[str]],
        on_point: OnPoint | None,
    ) -> None:
        self.done = PushReport()
        self._queue = queue
        self._studio = studio
        self._outbox = outbox
        self._project = project
        self._outgoing = Outgoing(queue, project, mask_labels)
        self._reached = on_point or (lambda point: None)
        self._failures = 0  # in a row
        self._unread: list[ReviewItem] = []  # sent, and not read back yet

    def settle(self) -> str:
        """Ask for the items of which nobody knows whether they arrived."""
        for items in _batches(self._outbox.due_unknown()):
            try:
                found = self._tasks_of(items)
            except (RequestNotSent, OutcomeUnknown) as exc:
                for item in items:
                    self._outbox.ask_later(item.id, error=str(exc))
                if self._gives_up():
                    return str(exc)
                continue
            self._failures = 0
            for item in items:
                tasks = found.get(item.dedupe_key)
                self._outbox.resolve_unknown(item.id, task_id=tasks[0] if tasks else None)
                if tasks:
                    self.done = replace(self.done, sent=self.done.sent + 1)
                logger.info("item %s had %sarrived", item.id, "" if tasks else "not ")
        return ""

    def verify(self) -> str:
        """Read back what an earlier pass, or the first step of this one, has left as sent."""
        after = 0
        while items := self._queue.items(state="sent", limit=AT_ONCE, offset=after):
            stopped = self._read_back(items)
            if stopped:
                return stopped
            # What could not be read stays where it is; what was read is no longer listed.
            after += sum(self._is_still_sent(item) for item in items)
        return ""

    def send(self, ranking: Ranking, is_stopped: Callable[[], bool]) -> str:
        """Send what is due."""
        due = self._outbox.due()
        chosen = choose(
            due,
            ranking.budget,
            labelled_counts=ranking.labelled_counts,
            random_share=ranking.random_share,
            seed=ranking.seed,
        )
        known = {item.id: item for item in due}
        for items in _batches([known[item_id] for item_id in chosen]):
            try:
                made = self._tasks_of(items)
            except (RequestNotSent, OutcomeUnknown) as exc:  # none was claimed: they wait as before
                if self._gives_up():
                    return str(exc)
                continue
            self._unread = []
            stopped = self._send_all(items, made, is_stopped)
            if stopped in ("", STOPPED):  # else what arrived is read back by the next pass
                stopped = self._read_back(self._unread) or stopped
            if stopped:
                return stopped
        return ""

    def _send_all(
        self,
        items: Sequence[Waiting],
        made: Mapping[str, Sequence[int]],
        is_stopped: Callable[[], bool],
    ) -> str:
        """Send items one by one, each once it is claimed; `made`: the tasks there are, by key."""
        for item in items:
            if is_stopped():
                return STOPPED
            for claimed in self._outbox.claim(1, ids=[item.id]):
                stopped = self._send(claimed, made.get(item.dedupe_key, ()))
                if stopped:
                    return stopped
        return ""

    def _send(self, item: ReviewItem, made: Sequence[int]) -> str:
        try:
            shown, prediction = self._outgoing.prepare(item)
        except (InputError, LabelFormatError, LedgerError) as exc:
            self._park(item, exc)
            return ""
        if made:  # by an earlier life of this item
            self._sent(item, made[0])
            return ""
        try:
            url = self._upload(shown)
        except (RequestNotSent, OutcomeUnknown) as exc:  # at most an image too many was uploaded
            return self._put_off(item, exc)
        except RequestRefused as exc:
            return self._refused(item, exc)
        data = to_task_data(
            image_url=url, reasons=item.reasons, note=item.note, dedupe_key=item.dedupe_key
        )
        # Uploading may have outlasted the lease: its new holder asks for the key once, and would
        # not see a task that is made after that.
        self._outbox.renew()
        try:
            task_id = self._studio.create_task(self._project.id, data, prediction)
        except RequestNotSent as exc:
            return self._put_off(item, exc)
        except RequestRefused as exc:
            return self._refused(item, exc)
        except OutcomeUnknown as exc:
            self._outbox.mark_unknown(item.id, error=str(exc))
            return str(exc) if self._gives_up() else ""
        self._reached("push:created")
        self._sent(item, task_id)
        return ""

    def _tasks_of(self, items: Sequence[ReviewItem | Waiting]) -> dict[str, list[int]]:
        return self._studio.tasks_with(self._project.id, [item.dedupe_key for item in items])

    def _upload(self, shown: ShownImage) -> str:
        url = self._studio.upload(self._project.id, shown.name, shown.data, shown.mime)
        self._reached("push:uploaded")
        return url

    def _sent(self, item: ReviewItem, task_id: int) -> None:
        self._unread.append(self._outbox.mark_sent(item.id, task_id=task_id))
        self.done = replace(self.done, sent=self.done.sent + 1)
        self._failures = 0

    def _read_back(self, items: Sequence[ReviewItem]) -> str:
        """Compare tasks with what they should be, and park those that are not."""
        ids = [item.task_id for item in items if item.task_id is not None]
        try:
            tasks = self._studio.tasks(self._project.id, ids)
        except (RequestNotSent, OutcomeUnknown) as exc:  # they stay sent for the next pass
            return str(exc) if self._gives_up() else ""
        for item in items:
            stopped = self._compare(item, tasks)
            if stopped:
                return stopped
        return ""

    def _compare(self, item: ReviewItem, tasks: Mapping[int, Mapping[str, Any]]) -> str:
        if item.task_id is None:  # no edge leads here, but a hand in the database might
            self._park(item, LabelFormatError("It is marked as sent and has no task."))
            return ""
        try:
            shown, prediction = self._outgoing.prepare(item)
            # Before a task counts as gone it is asked for by itself: it may have been moved.
            task = tasks.get(item.task_id) or self._studio.task(item.task_id)
            wrong = difference(task, item, prediction)
            if not wrong and not self._shows(task["data"]["image"], shown):
                wrong = "the image there is another one"
        except (InputError, LabelFormatError, LedgerError) as exc:
            self._park(item, exc)
            return ""
        except RequestRefused as exc:
            if exc.status in (401, 403):
                raise
            wrong = "it is gone"
        except LabelStudioError as exc:  # it stays sent, and is read by the next pass
            return str(exc) if self._gives_up() else ""
        self._failures = 0
        self._reached("push:read back")
        if wrong:
            self._park(item, LabelFormatError(f"Task {item.task_id} is not as sent: {wrong}."))
        else:
            self._outbox.mark_verified(item.id)
            self.done = replace(self.done, verified=self.done.verified + 1)
        return ""

    def _shows(self, url: str, shown: ShownImage) -> bool:
        """Whether the image is there; read twice: what is on the way may garble one reading."""
        return any(self._studio.image(url) == shown.data for _ in range(2))

    def _is_still_sent(self, item: ReviewItem) -> bool:
        now = self._queue.get(item.id)
        return now is not None and now.state == "sent"

    def _park(self, item: ReviewItem, why: Exception) -> None:
        self._outbox.park(item.id, reason=str(why))
        self.done = replace(self.done, parked=self.done.parked + 1)
        logger.warning("parked item %s: %s", item.id, why)

    def _refused(self, item: ReviewItem, exc: RequestRefused) -> str:
        if exc.status in _NOT_THE_ITEM:
            self._outbox.retry_later(item.id, error=str(exc))
            raise exc
        self._park(item, exc)
        return ""

    def _put_off(self, item: ReviewItem, exc: LabelStudioError) -> str:
        wait_s = exc.retry_after_s if isinstance(exc, RequestNotSent) else 0.0
        self._outbox.retry_later(item.id, error=str(exc), retry_after_s=wait_s)
        return str(exc) if self._gives_up() else ""

    def _gives_up(self) -> bool:
        self._failures += 1
        return self._failures >= PATIENCE


def _batches(items: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), AT_ONCE):
        yield items[start : start + AT_ONCE]
