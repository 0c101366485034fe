"""Back from Label Studio: what people answered, each answer applied once.

`pull` reads what changed since the cursor; it may read a change twice and miss none. Label Studio
does not tell of everything that is deleted, and not in what order its own transactions ended;
`sweep` reads the whole project instead, applies what is missing and reports where we differ.

Two things may be wrong over there without a word. A clock that is ahead would take the cursor past
answers that are yet to come: what is dated after our own now is applied and does not move it. And a
server that was set up anew, or another one, lacks every task: answers are withdrawn only by the
project they came from, and all of them only if a person says so.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from active_learning.inbox import CLOCKS_APART, Arrival, Cursor, Inbox, Live, Taken
from active_learning.label_format import to_annotation
from active_learning.label_studio import LabelStudio, Project
from active_learning.labelling import Labelling
from active_learning.outbox import LEASE_S, SETTLE_S, pushing
from active_learning.queue import OnPoint, ReviewQueue
from active_learning.shown_image import shown_image
from active_learning.wording import count
from core.errors import InputError, LabelFormatError
from core.records import ImageFacts, ReviewItem

logger = logging.getLogger(__name__)

# A transaction over there may become visible after one that carries a later time.
OVERLAP: Final = timedelta(minutes=5)
_BATCH: Final = 50  # tasks taken in one transaction
_START: Final = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """Where Label Studio and we differed, after what could be applied was applied."""

    taken: Taken
    tasks: int  # of ours in the project
    merged: int  # second tasks of an item, without answers, that were deleted
    duplicates: int  # second tasks that stay because people answered them
    missing: int  # items that were verified, and whose task is gone
    resent: int  # items whose task was gone, and that wait to be sent again
    foreign: int  # tasks that are not ours
    elsewhere: int  # answers that stand and came from another project or server

    @property
    def divergence(self) -> int:
        """How much is left that a person may want to look at; 0 is as it should be."""
        return self.duplicates + self.missing


def pull(
    queue: ReviewQueue,
    inbox: Inbox,
    studio: LabelStudio,
    *,
    labelling: Labelling,
    on_point: OnPoint | None = None,
) -> Taken:
    """Apply what changed since the last time: new, edited, skipped and deleted annotations.

    Args:
        queue: of the project.
        inbox: of the project.
        studio: where from.
        labelling: classes the project has to offer.
        on_point: called with `pull:read` before and `pull:taken` after each transaction.

    Raises:
        LabelStudioError: if Label Studio cannot be asked; what was applied before stays.
        LedgerError: if the ledger cannot be written.
    """
    reached = on_point or (lambda point: None)
    project = studio.project(queue.project, labelling)
    cursor = inbox.cursor(project.origin)
    since = cursor.updated_at - OVERLAP if cursor else _START
    known = inbox.live(project.origin)
    now = inbox.ledger.clock.now()
    taken = Taken()
    for tasks in _batches(studio.tasks_changed_since(project.id, since)):
        items = _items(queue, tasks)
        arrivals = [a for task in tasks for a in _arrivals(queue, project, task, items, known)]
        reached("pull:read")
        taken += inbox.take(arrivals, cursor=_read_to(tasks, now), origin=project.origin)
        reached("pull:taken")
    return taken


def _read_to(tasks: Iterable[Mapping[str, Any]], now: datetime) -> Cursor | None:
    """How far a batch takes the cursor; None if all of it is dated after our now.

    Such changes are read again until our clock has passed them, be theirs ahead or ours behind.
    """
    places = [Cursor(datetime.fromisoformat(task["updated_at"]), int(task["id"])) for task in tasks]
    ahead = [place for place in places if place.updated_at > now + CLOCKS_APART]
    if ahead:
        logger.warning(
            "Label Studio dates %d changes up to %s, and here it is %s: one of the clocks is wrong",
            *(len(ahead), max(ahead).updated_at.isoformat(), now.isoformat()),
        )
    return max((place for place in places if place.updated_at <= now), default=None)


def sweep(
    queue: ReviewQueue,
    inbox: Inbox,
    studio: LabelStudio,
    *,
    labelling: Labelling,
    withdraw: bool = False,
    resend: bool = False,
    lease_s: float = LEASE_S,
    settle_s: float = SETTLE_S,
) -> SweepReport:
    """Compare everything with everything: for every night, and after an accident.

    Nobody pushes meanwhile. A second task of an item is deleted unless somebody answered it; what
    people said is never deleted. Answers whose tasks were deleted are withdrawn.

    Args:
        queue: of the project.
        inbox: of the project.
        studio: where from.
        labelling: classes the project has to offer.
        withdraw: withdraw every answer whose task is not there, also if none is, and also those
            that came from another project or server.
        resend: have every item whose task is not there, and that nobody answered, sent again.
        lease_s: of `outbox.pushing`.
        settle_s: of `outbox.pushing`.

    Raises:
        InputError: if not one answered task is there, and neither `withdraw` nor `resend` is said;
            what was there is applied and nothing is withdrawn.
        LeaseHeld: if another process is pushing.
        LabelStudioError: if Label Studio cannot be asked.
        LedgerError: if the ledger cannot be written.
    """
    with pushing(queue, lease_s=lease_s, settle_s=settle_s) as outbox:
        project = studio.project(queue.project, labelling)
        everything, known = inbox.live(), inbox.live(project.origin)
        taken = Taken()
        of_key: dict[str, dict[int, bool]] = defaultdict(dict)  # task id → somebody answered it
        here: set[tuple[int, str]] = set()  # task and the image it shows
        foreign = 0
        for tasks in _batches(studio.all_tasks(project.id)):
            arrivals = []
            items = _items(queue, tasks)
            for task in tasks:
                item = items.get(_key(task))
                if item is None:
                    foreign += 1
                    continue
                here.add((int(task["id"]), item.image_sha256))
                arrivals += _arrivals(queue, project, task, items, known)
                answered = bool(task["annotations"] or task.get("drafts"))
                of_key[_key(task)][int(task["id"])] = answered
            taken += inbox.take(arrivals)
            outbox.renew()
        is_another = bool(everything) and here.isdisjoint(everything)  # server or project
        if is_another and not (withdraw or resend):
            raise InputError(_none_is_there(everything, project))
        told = everything if withdraw else {} if is_another else known
        gone = told.keys() - here
        taken += inbox.take(
            _deleted(task_id, annotation_id, image, project)
            for task_id, image in sorted(gone)
            for annotation_id in sorted(told[task_id, image])
        )
        merged, duplicates = _merge(queue, studio, of_key)
        missing = [i for i in _verified(queue) if (i.task_id, i.image_sha256) not in here]
        again = _unanswered(missing, inbox.live()) if resend else []
        for item in again:
            outbox.send_again(item.id)
    report = SweepReport(
        taken=taken,
        tasks=len(here) - merged,
        merged=merged,
        duplicates=duplicates,
        missing=len(missing) - len(again),
        resent=len(again),
        foreign=foreign,
        elsewhere=sum(len(everything[place]) for place in everything.keys() - here - gone),
    )
    logger.info(
        "swept project %d: %s, %d gone, %d merged, %d not ours",
        *(project.id, count(report.tasks, "task"), len(missing), merged, foreign),
    )
    return report


def _arrivals(
    queue: ReviewQueue,
    project: Project,
    task: Mapping[str, Any],
    items: Mapping[str, ReviewItem],
    known: Live,
) -> list[Arrival]:
    """What a task says now: one arrival per annotation, and one per annotation that is gone."""
    item = items.get(_key(task))
    if item is None:
        return []
    task_id = int(task["id"])
    arrivals = [_arrival(queue, project, item, raw) for raw in task["annotations"]]
    image = item.image_sha256
    gone = known.get((task_id, image), frozenset()) - {a.annotation_id for a in arrivals}
    return arrivals + [_deleted(task_id, number, image, project) for number in sorted(gone)]


def _arrival(
    queue: ReviewQueue, project: Project, item: ReviewItem, raw: Mapping[str, Any]
) -> Arrival:
    try:
        annotation = to_annotation(raw, image=_facts(queue, item), labelling=project.labelling)
    except LabelFormatError as exc:
        # It says nothing until the person corrects it, and then it arrives as a new state.
        logger.warning("annotation %s of task %s says nothing: %s", raw["id"], raw["task"], exc)
        annotation = None
    return Arrival(
        task_id=int(raw["task"]),
        annotation_id=int(raw["id"]),
        updated_at=datetime.fromisoformat(raw["updated_at"]),
        kind="skipped" if annotation is None else "annotated",
        image_sha256=item.image_sha256,
        annotation=annotation,
        origin=project.origin,
    )


def _deleted(task_id: int, annotation_id: int, image_sha256: str, project: Project) -> Arrival:
    return Arrival(
        task_id=task_id,
        annotation_id=annotation_id,
        updated_at=datetime.now(UTC),
        kind="deleted",
        image_sha256=image_sha256,
        origin=project.origin,
    )


def _none_is_there(answered: Live, project: Project) -> str:
    return (
        f"None of the answered tasks ({len(answered)}) is in project {project.title!r} of this "
        "Label Studio: is ROLLMARK_LABEL_STUDIO__URL another server, or was this one set up anew? "
        "The answers stay; `python -m active_learning pull --full --withdraw` takes them back, and "
        "`--resend` has the images that nobody answered sent again."
    )


def _merge(
    queue: ReviewQueue, studio: LabelStudio, of_key: Mapping[str, Mapping[int, bool]]
) -> tuple[int, int]:
    """Delete second tasks of an item that nobody answered; (deleted, left)."""
    merged = left = 0
    for key, tasks in of_key.items():
        if len(tasks) == 1:
            continue
        item = queue.find(key)
        kept = item.task_id if item and item.task_id in tasks else min(tasks)
        for task_id, answered in tasks.items():
            if task_id == kept:
                continue
            now = {} if answered else studio.task(task_id)  # somebody may be answering right now
            if answered or now["annotations"] or now["drafts"]:
                left += 1
                continue
            studio.delete_task(task_id)
            logger.warning("deleted task %d: task %s is the same image", task_id, kept)
            merged += 1
    return merged, left


def _unanswered(items: Sequence[ReviewItem], answers: Live) -> list[ReviewItem]:
    """The items of whose task no answer stands."""
    return [item for item in items if (item.task_id, item.image_sha256) not in answers]


def _verified(queue: ReviewQueue) -> Iterator[ReviewItem]:
    offset = 0
    while items := queue.items(state="verified", limit=500, offset=offset):
        yield from items
        offset += len(items)


def _items(queue: ReviewQueue, tasks: Iterable[Mapping[str, Any]]) -> dict[str, ReviewItem]:
    """The items that tasks were made for, by key; a task that is not ours has none."""
    return queue.find_all({_key(task) for task in tasks} - {""})


def _key(task: Mapping[str, Any]) -> str:
    """The dedupe key that a task carries, "" where it is not ours."""
    key = task["data"].get("dedupe_key")
    return key if isinstance(key, str) else ""


def _facts(queue: ReviewQueue, item: ReviewItem) -> ImageFacts:
    """Size of an item's image; of one that no model has looked at it is read from the image."""
    if item.predictions:
        return item.predictions[0].image
    try:
        return shown_image(queue.images.get(item.image_sha256)).facts
    except InputError as exc:
        raise LabelFormatError(f"Its image cannot be read: {exc}") from exc


def _batches(tasks: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    batch: list[dict[str, Any]] = []
    for task in tasks:
        batch.append(task)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
