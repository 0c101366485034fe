"""What a person sees of the queue: where images are, what is on them, what was learned."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from active_learning._review_rows import ReviewItemRow
from active_learning.desk import Desk
from active_learning.inbox import Arrival
from active_learning.outbox import pushing
from active_learning.overview import NO_FINDING, QueueReader
from core.records import Annotation, FoundBox
from tests.active_learning.review_desk import LABELLING, MASK_LABELS, inspections, picture
from tests.databases import HandClock

T0 = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def desk(queue, inbox, clock):
    queue.ledger.clock = clock
    return Desk(queue.ledger, queue, inbox, LABELLING, MASK_LABELS)


@pytest.fixture
def reader():
    return QueueReader()


def flag(desk, seed, *, priority=0.5, label="crazing", probability=0.9):
    """An item on which a detector sees one box of a class, or nothing."""
    image = picture(seed)
    [seen, *_] = inspections(image)
    box = FoundBox(label=label, score=0.9, probability=probability, box=(1, 1, 9, 9))
    seen = seen.model_copy(update={"detections": (box,) if label else ()})
    return desk.queue.add(image, inspections=[seen], reasons=["why"], priority=priority)


def deliver(desk, item, task_id):
    with pushing(desk.queue) as outbox:
        outbox.claim(1, ids=[item.id])
        outbox.mark_sent(item.id, task_id=task_id)
        outbox.mark_verified(item.id)


def park(desk, item):
    with pushing(desk.queue) as outbox:
        outbox.claim(1, ids=[item.id])
        outbox.park(item.id, reason="it does not fit")


def answer(desk, item, task_id, *, kind="annotated", at=T0, labels=("crazing",)):
    said = Annotation(
        image_sha256=item.image_sha256,
        width=60,
        height=40,
        boxes=tuple((label, (1.0, 1.0, 9.0, 9.0)) for label in labels),
        annotator="a person",
        created_at=at,
        task_id=task_id,
        annotation_id=task_id,
    )
    arrival = Arrival(
        task_id=task_id,
        annotation_id=task_id,
        updated_at=at,
        kind=kind,
        image_sha256=item.image_sha256,
        annotation=said if kind == "annotated" else None,
    )
    desk.inbox.take([arrival])


def test_every_image_is_at_one_of_four_places(desk, reader):
    waiting, there, answered, parked = (flag(desk, seed) for seed in range(4))
    deliver(desk, there, 11)
    deliver(desk, answered, 12)
    answer(desk, answered, 12)
    park(desk, parked)
    seen = reader.overview(desk, since=None)
    assert seen.places == {"parked": 1, "waiting": 1, "there": 1, "reviewed": 1}
    assert [(e.item.id, e.place) for e in reader.entries(desk, None, limit=9)] == [
        (parked.id, "parked"),
        (waiting.id, "waiting"),
        (there.id, "there"),
        (answered.id, "reviewed"),
    ]
    assert [e.item.id for e in reader.entries(desk, "there", limit=9)] == [there.id]


def test_a_task_of_another_server_with_the_same_number_is_not_answered_by_it(desk, reader):
    old, new = flag(desk, 1), flag(desk, 2)
    for item in (old, new):
        deliver(desk, item, 11)
    answer(desk, old, 11)
    assert reader.entry(desk, old.id).place == "reviewed"
    assert reader.entry(desk, new.id).place == "there"
    assert [e.item.id for e in reader.entries(desk, "there", limit=9)] == [new.id]


def test_what_is_most_urgent_is_listed_first_then_what_is_oldest(desk, reader, clock):
    ids = []
    for seed, priority in enumerate((0.2, 0.9, 0.2)):
        ids.append(flag(desk, seed, priority=priority).id)
        clock.pass_s(60)
    listed = [entry.item.id for entry in reader.entries(desk, "waiting", limit=2)]
    assert listed == [ids[1], ids[0]]


def test_an_image_whose_answer_was_taken_back_waits_for_a_person_again(desk, reader):
    item = flag(desk, 1)
    deliver(desk, item, 11)
    answer(desk, item, 11)
    assert reader.entry(desk, item.id).place == "reviewed"
    answer(desk, item, 11, kind="skipped", at=T0 + timedelta(minutes=1))
    assert reader.entry(desk, item.id).place == "there"
    assert reader.overview(desk, since=None).places["reviewed"] == 0


def test_open_images_are_counted_by_their_most_probable_class(desk, reader):
    flag(desk, 1, label="scratches")
    flag(desk, 2, label="scratches")
    flag(desk, 3, label="")
    park(desk, flag(desk, 4, label="crazing"))
    seen = reader.overview(desk, since=None)
    assert list(seen.classes.items()) == [("scratches", 2), (NO_FINDING, 1)]


def test_an_item_that_another_model_has_looked_at_is_counted_anew(desk, reader, clock):
    item = flag(desk, 1, label="crazing", probability=0.5)
    assert reader.overview(desk, since=None).classes == {"crazing": 1}
    clock.pass_s(1)
    image = desk.queue.images.get(item.image_sha256)
    [other, *_] = inspections(image)
    box = FoundBox(label="scratches", score=0.9, probability=0.9, box=(1, 1, 9, 9))
    other = other.model_copy(update={"model": "b", "detections": (box,)})
    desk.queue.add(image, inspections=[other], reasons=["why"], priority=0.5)
    assert reader.overview(desk, since=None).classes == {"scratches": 1}


def test_the_oldest_image_that_still_waits_for_a_person_tells_the_age(desk, reader, clock):
    first = flag(desk, 1)
    clock.pass_s(60)
    second = flag(desk, 2)
    deliver(desk, first, 11)
    assert reader.overview(desk, since=None).waiting_since == T0
    answer(desk, first, 11)
    assert reader.overview(desk, since=None).waiting_since == second.created_at


def test_what_was_put_off_is_not_sendable_until_its_time(desk, reader, clock):
    item = flag(desk, 1)
    with pushing(desk.queue) as outbox:
        outbox.claim(1, ids=[item.id])
        outbox.retry_later(item.id, error="busy", retry_after_s=30)
    assert reader.overview(desk, since=None).sendable == 0
    clock.pass_s(31)
    assert reader.overview(desk, since=None).sendable == 1


def test_learned_are_the_labels_of_answers_since_the_newest_release(desk, reader, clock):
    early, late = flag(desk, 1), flag(desk, 2)
    answer(desk, early, 11)
    clock.pass_s(60)
    answer(desk, late, 12, labels=("scratches", "scratches", "crazing"))
    learned = reader.overview(desk, since=T0 + timedelta(seconds=30)).learned
    assert (learned.images, list(learned.labels.items())) == (
        1,
        [("scratches", 2), ("crazing", 1)],
    )
    assert reader.overview(desk, since=None).learned.images == 2


def test_only_images_that_are_listed_are_loaded_and_each_answer_once(desk, reader, monkeypatch):
    """A queue holds a hundred thousand images, each with kilobytes of what models said."""
    loaded, read = [], []
    to_record, validate = ReviewItemRow.to_record, Annotation.model_validate
    monkeypatch.setattr(
        ReviewItemRow, "to_record", lambda row: loaded.append(row.id) or to_record(row)
    )
    monkeypatch.setattr(
        Annotation, "model_validate", lambda said: read.append(said["task_id"]) or validate(said)
    )
    items = [flag(desk, seed, priority=0.1 * seed) for seed in range(4)]
    for task_id, item in enumerate(items[:2], 11):
        deliver(desk, item, task_id)
        answer(desk, item, task_id)
    loaded.clear()
    read.clear()
    assert reader.overview(desk, since=None).learned.images == 2
    assert (loaded, sorted(read)) == ([], [11, 12])
    assert [e.item.id for e in reader.entries(desk, None, limit=1)] == [items[3].id]
    assert loaded == [items[3].id]
    answer(desk, items[2], 13)
    read.clear()
    assert reader.overview(desk, since=None).learned.images == 3
    assert read == [13]


def test_the_mark_grows_with_everything_that_happens_and_with_nothing_else(desk, reader):
    marks = [reader.mark(desk)]
    item = flag(desk, 1)
    marks.append(reader.mark(desk))
    assert reader.mark(desk) == marks[-1] == reader.overview(desk, since=None).mark
    answer(desk, item, 11)
    marks.append(reader.mark(desk))
    assert marks == sorted(set(marks))


@pytest.mark.parametrize("database", ["postgresql"])
def test_items_and_answers_are_matched_by_hash_where_nobody_has_counted_them(desk, reader):
    """As after a restore: PostgreSQL has no statistics yet, and takes each table for a few rows."""
    plans = []

    def explain(connection, cursor, statement, parameters, *_):
        if "row_number()" in statement and not statement.startswith("EXPLAIN"):
            asked = cursor.connection.cursor().execute(f"EXPLAIN {statement}", parameters)
            plans.append("\n".join(row[0] for row in asked.fetchall()))

    sa.event.listen(desk.ledger._engine, "after_cursor_execute", explain)
    reader.entries(desk, "there", limit=50)
    reader.entries(desk, "reviewed", limit=50)
    reader.overview(desk, since=None)
    joined = [plan for plan in plans if "review_items" in plan]
    assert len(joined) == 3
    assert not any("Nested Loop" in plan for plan in joined)


def test_an_empty_queue_is_all_zeros(desk, reader):
    seen = reader.overview(desk, since=None)
    assert (sum(seen.places.values()), seen.waiting_since, seen.classes) == (0, None, {})
    assert reader.entries(desk, None, limit=5) == ()
    assert reader.entry(desk, "0" * 32) is None
