"""The review queue: one item an image, legal moves only, one pusher, and no kill loses anything."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import weakref
from contextlib import closing
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest
import sqlalchemy as sa

from active_learning._review_rows import EDGES, dedupe_key, locked, move
from active_learning.choosing import Waiting
from active_learning.leases import Leases
from active_learning.outbox import pushing
from active_learning.queue import ReviewQueue
from core.errors import IllegalTransition, InputError, LeaseHeld, LeaseLost, LedgerError
from core.images import ImageStore
from core.ledger import open_ledger
from core.records import REVIEW_STATES, ImageFacts, Inspection, ReviewItem
from tests.databases import HandClock, in_children

STEEL = b"bytes of a steel image"


def add(queue, image=STEEL, *, reasons=("unsure",), priority=0.5, **more):
    return queue.add(
        image, inspections=more.pop("inspections", ()), reasons=reasons, priority=priority, **more
    )


def inspection(model, image=STEEL, *, uncertainty=0.5):
    return Inspection(
        model=model,
        revision="abc",
        task="detect",
        image=ImageFacts(sha256=hashlib.sha256(image).hexdigest(), width=8, height=8),
        uncertainty=uncertainty,
        verdict="review",
        latency_ms=1.0,
    )


def bring_to(state, queue, outbox):
    """An item in that state, by legal moves."""
    item = add(queue)
    if state != "pending":
        outbox.claim(1)
    match state:
        case "sent":
            outbox.mark_sent(item.id, task_id=7)
        case "verified":
            outbox.mark_sent(item.id, task_id=7)
            outbox.mark_verified(item.id)
        case "parked":
            outbox.park(item.id, reason="400: unknown label")
        case "unknown":
            outbox.mark_unknown(item.id, error="timeout")
    assert queue.get(item.id).state == state
    return item.id


# --- in ----------------------------------------------------------------------------------------


def test_an_added_image_is_one_pending_item_and_on_disk(queue, images, clock):
    item = add(queue, inspections=[inspection("grace")], note=" look here ", priority=0.25)
    sha256 = hashlib.sha256(STEEL).hexdigest()
    assert images.get(sha256) == STEEL
    assert queue.get(item.id) == queue.find(item.dedupe_key) == item
    assert (item.state, item.image_sha256, item.priority) == ("pending", sha256, 0.25)
    assert (item.reasons, item.note, item.attempts) == (("unsure",), "look here", 0)
    assert item.predictions == (inspection("grace"),)
    assert item.created_at == item.updated_at == clock.wall


def test_the_dedupe_key_is_the_hash_of_image_project_and_configuration():
    expected = hashlib.sha256(b"abc\nRollmark\nc1").hexdigest()
    assert dedupe_key("abc", "Rollmark", "c1") == expected


def test_the_same_image_is_the_same_item_with_all_reasons_and_the_higher_priority(queue):
    first = add(queue, reasons=["unsure"], priority=0.7, note="edge")
    again = add(queue, reasons=["models disagree", "unsure"], priority=0.3, note="edge")
    third = add(queue, reasons=["flagged"], priority=0.9, note="new kind")
    assert first.id == again.id == third.id
    assert (again.reasons, again.priority, again.note) == (
        ("unsure", "models disagree"),
        0.7,
        "edge",
    )
    assert (third.priority, third.note) == (0.9, "edge\nnew kind")
    assert queue.counts()["pending"] == 1


def test_the_items_of_a_page_of_tasks_are_found_in_one_question(queue, ledger):
    added = [add(queue, b"steel %d" % k) for k in range(3)]
    asked: list[str] = []
    sa.event.listen(
        ledger._engine, "before_cursor_execute", lambda *told: asked.append(str(told[2]))
    )
    found = queue.find_all([*(item.dedupe_key for item in added), "of another project"])
    assert found == {item.dedupe_key: item for item in added}
    assert len([words for words in asked if "SELECT" in words]) == 1


def test_the_same_image_under_a_new_configuration_is_another_item(queue, ledger, images):
    newer = ReviewQueue(ledger, images, project="Rollmark", config_revision="c2", who="app")
    assert add(queue).id != add(newer).id


def test_the_last_word_of_each_model_is_kept_until_the_item_is_sent(queue):
    add(queue, inspections=[inspection("grace", uncertainty=0.1), inspection("da_yolo")])
    item = add(queue, inspections=[inspection("grace", uncertainty=0.9)])
    assert [(said.model, said.uncertainty) for said in item.predictions] == [
        ("da_yolo", 0.5),
        ("grace", 0.9),
    ]
    with pushing(queue) as outbox:
        outbox.claim(1)
    item = add(queue, inspections=[inspection("grace", uncertainty=0.2)], reasons=["late"])
    assert item.predictions[1].uncertainty == 0.9
    assert item.reasons == ("unsure", "late")


@pytest.mark.parametrize("state", REVIEW_STATES)
def test_adding_again_never_changes_the_state(queue, state):
    with pushing(queue) as outbox:
        item_id = bring_to(state, queue, outbox)
    assert add(queue).id == item_id
    assert queue.get(item_id).state == state


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"priority": 1.5}, r"Priority is 1\.5: it must lie in \[0, 1\]"),
        ({"priority": float("nan")}, "Priority is nan"),
        ({"reasons": []}, "A reason is missing"),
        ({"reasons": ["ok", " "]}, "A reason is missing"),
        ({"inspections": [inspection("grace", b"other")]}, "grace inspected image d9298a10d1b0"),
    ],
    ids=["priority", "nan", "none", "blank", "stranger"],
)
def test_what_cannot_be_reviewed_is_refused_before_anything_is_kept(queue, images, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        add(queue, **wrong)
    assert queue.items() == ()
    assert not images.root.exists()


def test_four_processes_adding_the_same_image_make_one_item(queue, ledger_url, images):
    def adds(n):
        mine = ReviewQueue(
            open_ledger(ledger_url), images, project="Rollmark", config_revision="c1", who="app"
        )
        add(mine, reasons=[f"reason {n}"])

    assert in_children(*(partial(adds, n) for n in range(4))) == [0, 0, 0, 0]
    [item] = queue.items()
    assert sorted(item.reasons) == ["reason 0", "reason 1", "reason 2", "reason 3"]


# --- legal and illegal moves -------------------------------------------------------------------

LEGAL = {
    ("pending", "sending"),
    *(("sending", after) for after in ("sent", "pending", "parked", "unknown")),
    *(("unknown", after) for after in ("sent", "pending", "parked")),
    *(("sent", after) for after in ("verified", "parked")),
    ("parked", "pending"),
    ("verified", "pending"),
}


@pytest.mark.parametrize("before", REVIEW_STATES)
def test_only_legal_edges_can_be_taken(ledger, images, before):
    for after in REVIEW_STATES:
        queue = ReviewQueue(ledger, images, project=after, config_revision="c1", who="app")
        with pushing(queue) as outbox:
            item_id = bring_to(before, queue, outbox)

        def moves(queue=queue, item_id=item_id, after=after):
            with ledger.session() as session:
                row = locked(session, queue.project, item_id, verb="try", origins=REVIEW_STATES)
                move(ledger, session, row, after, what="tried", who="test")

        if (before, after) in LEGAL:
            moves()
            event = ledger.events(f"review_item:{item_id}")[-1]
            assert (event.what, event.before, event.after) == ("tried", before, after)
        else:
            with pytest.raises(IllegalTransition, match=f"is {before} and cannot become {after}"):
                moves()
            assert ledger.events(f"review_item:{item_id}")[-1].what != "tried"
        assert queue.get(item_id).state == (after if (before, after) in LEGAL else before)


MOVES = {
    "mark_sent": (lambda o, i: o.mark_sent(i, task_id=9), {"sending": "sent"}),
    "mark_verified": (lambda o, i: o.mark_verified(i), {"sent": "verified"}),
    "send_again": (lambda o, i: o.send_again(i), {"verified": "pending"}),
    "park": (
        lambda o, i: o.park(i, reason="no"),
        {"sending": "parked", "unknown": "parked", "sent": "parked"},
    ),
    "retry_later": (lambda o, i: o.retry_later(i, error="503"), {"sending": "pending"}),
    "mark_unknown": (lambda o, i: o.mark_unknown(i, error="cut"), {"sending": "unknown"}),
    "found": (lambda o, i: o.resolve_unknown(i, task_id=9), {"unknown": "sent"}),
    "not found": (lambda o, i: o.resolve_unknown(i, task_id=None), {"unknown": "pending"}),
    "ask_later": (lambda o, i: o.ask_later(i, error="503"), {"unknown": "unknown"}),
    "reopen": (lambda o, i: o._queue.reopen(i), {"parked": "pending"}),
}


@pytest.mark.parametrize("verb", MOVES)
def test_each_verb_starts_from_its_own_states_and_no_others(queue, ledger, verb):
    call, ways = MOVES[verb]
    for n, state in enumerate(REVIEW_STATES):
        mine = ReviewQueue(ledger, queue.images, project=f"P{n}", config_revision="c1", who="app")
        with pushing(mine) as outbox:
            item_id = bring_to(state, mine, outbox)
            if state in ways:
                assert call(outbox, item_id) == mine.get(item_id)
            else:
                with pytest.raises(IllegalTransition):
                    call(outbox, item_id)
        assert mine.get(item_id).state == ways.get(state, state), state


def test_an_unknown_id_is_told(queue):
    with pushing(queue) as outbox, pytest.raises(IllegalTransition, match="has the id 'nobody'"):
        outbox.park("nobody", reason="no")
    assert queue.get("nobody") is None


def test_a_reopened_item_starts_afresh(queue):
    with pushing(queue) as outbox:
        item_id = bring_to("parked", queue, outbox)
    assert queue.get(item_id).parked_reason == "400: unknown label"
    item = queue.reopen(item_id)
    assert (item.state, item.parked_reason, item.attempts) == ("pending", None, 0)


@pytest.mark.parametrize("step", ["add", "claim", "mark_sent"])
def test_a_change_and_its_event_are_written_together_or_not_at_all(queue, ledger, images, step):
    def fails(point):
        if point == f"{step}:written":
            raise InputError(point)

    failing = ReviewQueue(
        ledger, images, project="Rollmark", config_revision="c1", who="app", on_point=fails
    )

    def run():
        add(failing)
        with pushing(failing) as outbox:
            [item] = outbox.claim(1)
            outbox.mark_sent(item.id, task_id=1)

    with pytest.raises(InputError, match=f"{step}:written"):
        run()
    before = {"add": None, "claim": "pending", "mark_sent": "sending"}[step]
    assert [item.state for item in queue.items()] == ([before] if before else [])
    last = [e.after for e in ledger.events() if e.entity.startswith("review_item")][-1:]
    assert last == ([before] if before else [])


# --- claiming, waiting, asking -----------------------------------------------------------------


def test_the_highest_priority_goes_first_then_the_oldest(queue, clock):
    names: dict[str, str] = {}
    for name, priority in (("a", 0.2), ("b", 0.9), ("c", 0.2), ("d", 0.5)):
        names[add(queue, name.encode(), priority=priority, reasons=[name]).id] = name
        clock.pass_s(1)
    with pushing(queue) as outbox:
        assert [names[item.id] for item in outbox.due()] == ["b", "d", "a", "c"]
        first = outbox.claim(2)
        assert [(item.reasons[0], item.state, item.attempts) for item in first] == [
            ("b", "sending", 1),
            ("d", "sending", 1),
        ]
        c = next(item for item in outbox.due() if names[item.id] == "c")
        assert outbox.claim(5, ids=[c.id])[0].id == c.id
        assert [item.reasons[0] for item in outbox.claim(5)] == ["a"]


def test_what_models_said_of_all_that_waits_is_never_in_memory_together(queue, monkeypatch):
    for seed in range(9):
        add(queue, bytes([seed]))
    read: list[weakref.ref[ReviewItem]] = []
    together = []

    def of(item: ReviewItem) -> Waiting:
        read.append(weakref.ref(item))
        together.append(sum(one() is not None for one in read))
        return Waiting(item.id, item.dedupe_key, item.priority, (), frozenset())

    monkeypatch.setattr(Waiting, "of", of)
    with pushing(queue) as outbox:
        assert len(outbox.due()) == 9
    assert max(together) <= 2  # one goes when the next is there


def test_a_queue_moves_only_items_of_its_own_project(queue, ledger, images):
    other = ReviewQueue(ledger, images, project="Other", config_revision="c1", who="app")
    item = add(other)
    with pushing(queue) as outbox:
        assert outbox.claim(5) == ()
        with pytest.raises(IllegalTransition, match="No review item of project 'Rollmark'"):
            outbox.mark_sent(item.id, task_id=1)
    assert queue.counts()["pending"] == 0


class Chance(random.Random):
    """Draws the same point of every range: 0 its lower end, 1 its upper end."""

    def __init__(self, point):
        super().__init__(0)
        self.point = point

    def uniform(self, a, b):
        return a + self.point * (b - a)


@pytest.mark.parametrize(
    ("point", "waits_s"),
    [
        (0.0, [0.0] * 12),
        (0.5, [2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 1800, 1800]),
        (1.0, [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]),
    ],
    ids=["shortest", "middle", "longest"],
)
def test_each_wait_is_drawn_from_nothing_to_twice_the_longest_before(queue, clock, point, waits_s):
    add(queue)
    found = []
    with pushing(queue, jitter=Chance(point), lease_s=100_000) as outbox:
        for _ in waits_s:
            [item] = outbox.claim(1)
            later = outbox.retry_later(item.id, error="503")
            found.append((later.next_attempt_at - clock.wall).total_seconds())
            clock.pass_s(3600)
    assert found == waits_s


def test_an_item_waits_as_long_as_the_labelling_tool_asked_but_an_hour_at_most(queue, clock):
    with pushing(queue, lease_s=10_000) as outbox:
        item_id = bring_to("sending", queue, outbox)
        outbox.retry_later(item_id, error="429", retry_after_s=120)
        clock.pass_s(119)
        assert outbox.claim(1) == ()
        clock.pass_s(1)
        assert [item.attempts for item in outbox.claim(1)] == [2]
        item = outbox.retry_later(item_id, error="429", retry_after_s=1e9)
        assert item.next_attempt_at - clock.wall == timedelta(hours=1)
        assert item.last_error == "429"


def test_a_clock_set_back_does_not_strand_a_waiting_item(queue, clock):
    with pushing(queue) as outbox:
        item_id = bring_to("sending", queue, outbox)
        outbox.retry_later(item_id, error="503", retry_after_s=60)
        clock.wall -= timedelta(days=30)
        assert len(outbox.claim(1)) == 1


def test_an_unknown_item_is_asked_about_only_when_its_request_must_have_ended(queue, clock):
    with pushing(queue, settle_s=60, lease_s=1000) as outbox:
        item_id = bring_to("unknown", queue, outbox)
        clock.pass_s(59)
        assert outbox.due_unknown() == ()
        clock.pass_s(1)
        assert [item.id for item in outbox.due_unknown()] == [item_id]
        outbox.ask_later(item_id, error="tool is down")
        assert outbox.due_unknown() == ()
        clock.pass_s(60)
        item = outbox.resolve_unknown(item_id, task_id=31)
        assert (item.state, item.task_id) == ("sent", 31)


def test_counts_name_every_state_and_ages_every_state_that_has_items(queue, clock):
    with pushing(queue, lease_s=1000) as outbox:
        bring_to("verified", queue, outbox)
        clock.pass_s(30)
        add(queue, b"second")
        clock.pass_s(10)
        add(queue, b"third")
        clock.pass_s(2)
    assert queue.counts() == {
        "pending": 2,
        "sending": 0,
        "sent": 0,
        "verified": 1,
        "parked": 0,
        "unknown": 0,
    }
    assert queue.ages_s() == {"pending": 12, "verified": 42}


def test_items_are_filtered_by_state_and_task(queue, clock):
    with pushing(queue) as outbox:
        sent = bring_to("sent", queue, outbox)
    clock.pass_s(1)
    other = add(queue, b"second")
    assert [item.id for item in queue.items(state="sent")] == [sent]
    assert [item.id for item in queue.items(task_id=7)] == [sent]
    assert [item.id for item in queue.items(limit=1, offset=1)] == [other.id]


# --- one pusher --------------------------------------------------------------------------------


def test_a_second_pusher_is_told_who_pushes(queue):
    with (
        pushing(queue),
        pytest.raises(LeaseHeld, match=rf"Only one process may push Rollmark .*:{os.getpid()}:"),
        pushing(queue),
    ):
        pass
    with pushing(queue):  # given back
        pass


def test_of_four_processes_racing_for_the_lease_exactly_one_wins(queue, ledger_url, tmp_path):
    def races():
        ledger = open_ledger(ledger_url)
        try:
            lease = Leases(ledger).acquire("push", ttl_s=600)
        except LeaseHeld:
            return
        with (tmp_path / "winners").open("a") as file:
            file.write(f"{lease.fence}\n")

    assert in_children(races, races, races, races) == [0, 0, 0, 0]
    assert (tmp_path / "winners").read_text() == "1\n"


def test_a_pusher_that_slept_past_its_lease_can_write_nothing(queue, clock, ledger):
    item = add(queue)
    with pushing(queue, lease_s=60) as old:
        old.claim(1)
        clock.pass_s(60)
        with pushing(queue, lease_s=60) as new:
            assert queue.get(item.id).state == "unknown"  # recovered from the sleeper
            for write in (
                lambda: old.mark_sent(item.id, task_id=1),
                lambda: old.claim(1),
                lambda: old.ask_later(item.id, error="x"),
                lambda: old.recover(),
                lambda: old.renew(),
            ):
                with pytest.raises(LeaseLost, match="number 1 was lost to"):
                    write()
            assert queue.get(item.id).state == "unknown"
            new.resolve_unknown(item.id, task_id=1)
    fences = [e.details["fence"] for e in ledger.events() if e.what in ("claimed", "resolved")]
    assert fences == [1, 2]


def test_a_sleeper_gives_back_nothing_that_is_no_longer_its_own(queue, clock):
    with pushing(queue, lease_s=60):
        clock.pass_s(60)
        stolen = Leases(queue.ledger).acquire("push Rollmark", ttl_s=60)
    with pytest.raises(LeaseHeld):
        Leases(queue.ledger).acquire("push Rollmark", ttl_s=60)
    Leases(queue.ledger).renew(stolen)


def test_every_write_keeps_the_lease(queue, clock):
    add(queue)
    with pushing(queue, lease_s=60) as outbox:
        clock.pass_s(50)
        outbox.claim(1)
        clock.pass_s(50)
        with pytest.raises(LeaseHeld), pushing(queue):
            pass
        clock.pass_s(10)
        with pushing(queue):
            pass


@pytest.mark.parametrize("hours", [1, -1])
def test_a_jump_of_the_wall_clock_neither_frees_a_lease_nor_prolongs_it(queue, clock, hours):
    leases = Leases(queue.ledger)
    leases.acquire("push", ttl_s=60)
    clock.wall += timedelta(hours=hours)
    clock.steady += 59
    with pytest.raises(LeaseHeld):
        leases.acquire("push", ttl_s=60)
    clock.steady += 1
    assert leases.acquire("push", ttl_s=60).fence == 2


def test_after_a_restart_the_wall_clock_decides(queue, clock):
    leases = Leases(queue.ledger)
    leases.acquire("push", ttl_s=60)
    clock.boot, clock.steady = "second-boot", 1.0
    clock.wall += timedelta(seconds=59)
    with pytest.raises(LeaseHeld):
        leases.acquire("push", ttl_s=60)
    clock.wall += timedelta(seconds=1)
    assert leases.acquire("push", ttl_s=60).fence == 2


def test_a_lease_without_length_is_refused(queue):
    with pytest.raises(LedgerError, match="use more than 0 s"):
        Leases(queue.ledger).acquire("push", ttl_s=0)


# --- kill -9 -----------------------------------------------------------------------------------

POINTS = (
    "add:stored",
    "add:written",
    "add:committed",
    "recover:written",
    "recover:committed",
    "claim:written",
    "claim:committed",
    "tool:before",
    "tool:after",
    "mark_sent:written",
    "mark_sent:committed",
    "mark_verified:written",
    "mark_verified:committed",
)


class Tool:
    """A labelling tool reduced to what matters here: it makes a task each time it is told to."""

    def __init__(self, file):
        self.file = file

    def create(self, key):
        with self.file.open("a") as file:
            file.write(f"{key}\n")
        return self.keys().index(key) + 1

    def keys(self):
        return self.file.read_text().split() if self.file.exists() else []


def one_pass(queue, tool, acknowledged, reached=lambda point: None):
    """Two images flagged, then everything sent: as `push` does it."""
    for image in (b"first", b"second"):
        item = add(queue, image)
        with acknowledged.open("a") as file:
            file.write(f"{item.id}\n")
    with pushing(queue, settle_s=0) as outbox:
        for item in outbox.due_unknown():
            tasks = [n for n, key in enumerate(tool.keys(), 1) if key == item.dedupe_key]
            outbox.resolve_unknown(item.id, task_id=tasks[0] if tasks else None)
        for item in outbox.claim(10):
            reached("tool:before")
            task_id = tool.create(item.dedupe_key)
            reached("tool:after")
            outbox.mark_sent(item.id, task_id=task_id)
        for item in queue.items(state="sent"):
            assert tool.keys()[item.task_id - 1] == item.dedupe_key
            outbox.mark_verified(item.id)


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_any_point_loses_and_doubles_nothing(ledger_url, tmp_path, point):
    tool, acknowledged = Tool(tmp_path / "tool"), tmp_path / "acknowledged"
    images = ImageStore(tmp_path / "images")

    def passes(clock, reached):
        with closing(open_ledger(ledger_url, clock=clock)) as ledger:
            queue = ReviewQueue(
                ledger,
                images,
                project="Rollmark",
                config_revision="c1",
                who="app",
                on_point=reached,
            )
            one_pass(queue, tool, acknowledged, reached)

    def dies(here):
        if here == point:
            os.kill(os.getpid(), signal.SIGKILL)

    assert in_children(lambda: passes(HandClock(), dies)) == [-signal.SIGKILL]
    later = HandClock()
    later.pass_s(3600)
    passes(later, lambda here: None)

    ledger = open_ledger(ledger_url)
    queue = ReviewQueue(ledger, images, project="Rollmark", config_revision="c1", who="test")
    items = {item.id: item for item in queue.items()}
    assert set(acknowledged.read_text().split()) == set(items)
    assert queue.counts()["verified"] == len(items) == 2
    assert sorted(tool.keys()) == sorted(item.dedupe_key for item in items.values())
    for item in items.values():
        assert images.get(item.image_sha256) in (b"first", b"second")
        path = [event.after for event in ledger.events(f"review_item:{item.id}")]
        assert path[0] == "pending"
        assert path[-1] == "verified"
        assert all(step in EDGES or step[0] == step[1] for step in pairwise(path))
    ledger.close()
