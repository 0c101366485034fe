"""What survives when the network lies and processes die: nothing lost, nothing sent twice."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta

import pytest

from active_learning import push as push_module
from active_learning.labelling import NO_DEFECT
from core.errors import LabelStudioError
from tests.active_learning.fault_proxy import (
    DONE,
    FAULTS,
    Fault,
    Request,
    drawn,
    fault_proxy,
    on_import,
)
from tests.active_learning.review_desk import LABELLING, Desk, open_test_desk
from tests.databases import in_children

pytestmark = pytest.mark.label_studio

LEASE_S = 0.2
STALLED_TIMEOUT_S = 12.0  # of one answer, where the proxy stalls; others come sooner
CHOICE = {
    "from_name": "verdict",
    "to_name": "image",
    "type": "choices",
    "value": {"choices": [NO_DEFECT]},
}
# What an import that met this fault leaves behind, by what our side can know of it.
CERTAINLY_NOT_DONE: frozenset[Fault] = frozenset({"429 with Retry-After"})
HARMLESS: frozenset[Fault] = frozenset({"slow drip", "delivered twice", "token run out"})
KILL_POINTS = (
    *("recover:written", "recover:committed", "claim:written", "claim:committed"),
    *("push:uploaded", "push:created", "mark_sent:written", "mark_sent:committed"),
    *("push:read back", "mark_verified:written", "mark_verified:committed"),
)


@pytest.fixture
def desk(tmp_path, project_title):
    desk = open_test_desk(tmp_path, project_title)
    yield desk
    desk.ledger.close()


def check_history(desk: Desk, label_studio, project_id: int, *, items: int) -> None:
    """The invariants: every item one task, every task one item, every step along an edge."""
    counts = desk.queue.counts()
    assert counts["verified"] == items, counts
    keys = Counter(task["data"]["dedupe_key"] for task in label_studio.tasks(project_id))
    found = desk.queue.items(state="verified", limit=10_000)
    assert {item.dedupe_key for item in found} == set(keys)  # none lost, none foreign
    assert set(keys.values()) <= {1}  # none twice
    by_key = {t["data"]["dedupe_key"]: t["id"] for t in label_studio.tasks(project_id)}
    assert all(item.task_id == by_key[item.dedupe_key] for item in found)
    for item in found:
        states = [
            (event.before, event.after)
            for event in desk.ledger.events(f"review_item:{item.id}")
            if event.before != event.after
        ]
        for (_, after), (before, _) in itertools.pairwise(states):
            assert after == before, states  # each step starts where the one before it ended


def project_of(desk: Desk, label_studio):
    return label_studio.client().project(desk.queue.project, LABELLING)


def push_until_done(desk: Desk, studio, *, patience_s: float = 300.0) -> int:
    """Passes as a schedule would make them, with a pause after each that failed; how many it took.

    A server that has only just come back refuses for a moment, so patience counts in seconds.
    """
    deadline = time.monotonic() + patience_s
    last = ""
    for number in itertools.count(1):
        try:
            report = desk.push(studio)
        except LabelStudioError as exc:
            last = str(exc)
        else:
            last = report.stopped
            counts = desk.queue.counts()
            unfinished = report.pending or report.unknown or report.stopped
            if not (unfinished or counts["sent"] or counts["sending"]):
                return number
        if time.monotonic() > deadline:
            break
        if last:
            time.sleep(0.2)
    raise AssertionError(f"not done after {number} passes: {desk.queue.counts()}; {last}")


@pytest.mark.parametrize("fault", FAULTS)
def test_an_import_that_meets_a_fault_becomes_exactly_one_task(desk, label_studio, fault):
    item = desk.flag(1)
    project = project_of(desk, label_studio)
    with fault_proxy(label_studio.port, on_import(fault)) as proxy:
        timeout_s = STALLED_TIMEOUT_S if fault.startswith("stall") else 30
        studio = label_studio.client(url=proxy.url, timeout_s=timeout_s)
        desk.push(studio)
        assert proxy.injected == {fault: 1}
        after = desk.item(item.id).state
        there = len(label_studio.tasks(project.id))
        if fault in HARMLESS:
            assert after == "verified"
        elif fault in CERTAINLY_NOT_DONE:
            assert (after, there) == ("pending", 0)
        else:
            assert (after, there) == ("unknown", 1 if fault in DONE else 0)
        proxy.plan = lambda request: None
        studio.close()
        calm = label_studio.client(url=proxy.url)
        if "Retry-After" in fault and after == "pending":
            return  # it waits as long as it was asked to: seven seconds, tested below
        push_until_done(desk, calm)
        desk.sweep(calm)
        calm.close()
    check_history(desk, label_studio, project.id, items=1)


@pytest.mark.parametrize("fault", ["HTML instead of JSON", "truncated JSON"])
def test_an_image_that_is_garbled_on_its_way_back_is_read_again_and_not_parked(
    desk, label_studio, fault
):
    item = desk.flag(1)
    garbled = []

    def first_reading(request):
        if "/data/upload/" in request.path and not garbled:
            garbled.append(request)
            return fault
        return None

    with fault_proxy(label_studio.port, first_reading) as proxy:
        desk.push(label_studio.client(url=proxy.url))
        assert proxy.injected == {fault: 1}
    assert desk.item(item.id).state == "verified"


def test_a_wait_that_was_asked_for_is_kept(tmp_path, label_studio, project_title, clock):
    desk = open_test_desk(tmp_path, project_title, clock=clock)
    item = desk.flag(1)
    project_of(desk, label_studio)
    with fault_proxy(label_studio.port, on_import("429 with Retry-After")) as proxy:
        studio = label_studio.client(url=proxy.url)
        desk.push(studio)
        assert desk.item(item.id).next_attempt_at == clock.now() + timedelta(seconds=7)
        imports = sum(request.imports_a_task for request in proxy.passed)
        clock.pass_s(6.5)
        assert desk.push(studio).pending == 1
        assert sum(request.imports_a_task for request in proxy.passed) == imports
        clock.pass_s(0.5)
        assert desk.push(studio).verified == 1
    desk.ledger.close()


def test_after_three_failures_in_a_row_label_studio_is_left_alone(desk, label_studio):
    for seed in range(6):
        desk.flag(seed)
    project_of(desk, label_studio)
    with fault_proxy(label_studio.port, on_import("502 without doing it", times=99)) as proxy:
        report = desk.push(label_studio.client(url=proxy.url))
        assert "502" in report.stopped
        assert (report.unknown, report.pending) == (3, 3)
        assert proxy.injected["502 without doing it"] == 3


def test_what_was_sent_and_could_not_be_read_back_is_read_by_the_next_pass(desk, label_studio):
    item = desk.flag(1)
    project_of(desk, label_studio)
    with fault_proxy(
        label_studio.port,
        lambda request: "502 without doing it" if "fields=all" in request.path else None,
    ) as proxy:
        assert desk.push(label_studio.client(url=proxy.url)).sent == 1
    assert desk.item(item.id).state == "sent"
    report = desk.push(label_studio.client())
    assert (report.sent, report.verified) == (0, 1)


def test_while_nobody_can_be_asked_for_the_keys_nothing_is_claimed(desk, label_studio, monkeypatch):
    monkeypatch.setattr(push_module, "AT_ONCE", 2)
    items = [desk.flag(seed) for seed in range(7)]
    project_of(desk, label_studio)
    with fault_proxy(
        label_studio.port,
        lambda request: "502 without doing it" if "dedupe_key" in request.path else None,
    ) as proxy:
        report = desk.push(label_studio.client(url=proxy.url))
    assert "502" in report.stopped
    assert proxy.injected == {"502 without doing it": 3}  # of four pairs; then it is left alone
    assert [(desk.item(i.id).state, desk.item(i.id).attempts) for i in items] == [
        ("pending", 0)
    ] * 7


def test_outcomes_that_nobody_could_be_asked_about_stay_unknown_and_are_asked_for_at_once(
    desk, label_studio
):
    items = [desk.flag(seed) for seed in range(2)]
    project = project_of(desk, label_studio)
    lost = on_import("answer lost after it was done", times=2)
    with fault_proxy(label_studio.port, lost) as proxy:
        studio = label_studio.client(url=proxy.url)
        assert desk.push(studio).unknown == 2
        proxy.plan = lambda r: "502 without doing it" if "dedupe_key" in r.path else None
        assert desk.push(studio).unknown == 2
        proxy.plan = lambda request: None
        before = len(proxy.passed)
        assert desk.push(studio).verified == 2
        asked = [r for r in proxy.passed[before:] if "dedupe_key" in r.path]
    assert len(asked) == 1
    assert all(desk.item(item.id).state == "verified" for item in items)
    check_history(desk, label_studio, project.id, items=2)


@pytest.mark.parametrize("seed", [1, 2])
def test_drawn_faults_in_every_request_lose_nothing_and_repeat_nothing(desk, label_studio, seed):
    items = 6
    for number in range(items):
        desk.flag(number)
    project = project_of(desk, label_studio)
    kinds = tuple(f for f in FAULTS if not f.startswith("stall") and "Retry-After" not in f)
    with fault_proxy(label_studio.port, drawn(seed, share=0.25, kinds=kinds)) as proxy:
        studio = label_studio.client(url=proxy.url, timeout_s=30)
        push_until_done(desk, studio)
        injected = sum(proxy.injected.values())
        studio.close()
    assert injected >= 5
    desk.sweep(label_studio.client())  # a request that was delivered twice made two tasks
    check_history(desk, label_studio, project.id, items=items)


@pytest.mark.parametrize("seed", [3])
def test_answers_arrive_once_through_a_faulty_network(desk, label_studio, seed):
    for number in range(5):
        desk.flag(number)
    project = project_of(desk, label_studio)
    desk.push(label_studio.client())
    for task in label_studio.tasks(project.id):
        label_studio.annotate(task["id"], CHOICE)
    kinds = tuple(f for f in FAULTS if not f.startswith("stall"))
    applied = 0
    with fault_proxy(label_studio.port, drawn(seed, share=0.3, kinds=kinds)) as proxy:
        studio = label_studio.client(url=proxy.url)
        for _ in range(12):
            try:
                applied += desk.pull(studio).applied
            except LabelStudioError:
                continue
    assert sum(proxy.injected.values()) >= 5
    assert applied <= 5  # a pass that failed late has applied answers without counting them
    assert len(desk.inbox.current()) == 5
    assert desk.sweep(label_studio.client()).taken.applied == 0
    assert desk.sweep(label_studio.client()).divergence == 0


def dying_at(point: str, occurrence: int = 1) -> Callable[[str], None]:
    """A hook that ends the process at a named point as `kill -9` does."""
    left = [occurrence]

    def on_point(reached: str) -> None:
        if reached == point:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return on_point


@pytest.mark.parametrize("point", KILL_POINTS)
def test_a_push_that_is_killed_goes_on_where_it_was(tmp_path, label_studio, project_title, point):
    desk = open_test_desk(tmp_path, project_title)
    for seed in range(2):
        desk.flag(seed)
    project = project_of(desk, label_studio)

    def push_and_die() -> None:
        hook = dying_at(point, occurrence=2 if point.startswith(("push", "mark")) else 1)
        mine = open_test_desk(tmp_path, project_title, on_point=hook)
        mine.push(label_studio.client(), on_point=hook, lease_s=LEASE_S)

    assert in_children(push_and_die) == [-9]
    assert sum(desk.queue.counts().values()) == 2
    time.sleep(LEASE_S)  # until the lease of the dead runs out
    push_until_done(desk, label_studio.client())
    check_history(desk, label_studio, project.id, items=2)
    desk.ledger.close()


@pytest.mark.parametrize("point", ["pull:read", "pull:taken"])
def test_a_pull_that_is_killed_applies_each_answer_once(
    tmp_path, label_studio, project_title, point
):
    desk = open_test_desk(tmp_path, project_title)
    for seed in range(3):
        desk.flag(seed)
    project = project_of(desk, label_studio)
    desk.push(label_studio.client())
    for task in label_studio.tasks(project.id):
        label_studio.annotate(task["id"], CHOICE)

    def pull_and_die() -> None:
        mine = open_test_desk(tmp_path, project_title)
        mine.pull(label_studio.client(), on_point=dying_at(point))

    assert in_children(pull_and_die) == [-9]
    taken = desk.pull(label_studio.client())
    assert taken.applied == (3 if point == "pull:read" else 0)
    assert len(desk.inbox.current()) == 3
    told = [event for event in desk.ledger.events() if event.what == "annotated"]
    assert len(told) == 3
    desk.ledger.close()


def test_a_label_studio_that_is_killed_costs_no_item(tmp_path, label_studio, project_title):
    desk = open_test_desk(tmp_path, project_title)
    for seed in range(4):
        desk.flag(seed)
    project = project_of(desk, label_studio)
    killed = []

    def kill_the_server(point: str) -> None:
        if point == "push:created" and not killed:
            killed.append(point)
            label_studio.stop(signal.SIGKILL)

    report = desk.push(label_studio.client(), on_point=kill_the_server)
    assert report.stopped
    assert report.verified == 0
    label_studio.start()
    push_until_done(desk, label_studio.client())
    check_history(desk, label_studio, project.id, items=4)
    desk.ledger.close()


def test_faults_repeat_with_their_seed():
    requests = [Request("GET", "/", number) for number in range(50)]
    first, second = drawn(7, share=0.5), drawn(7, share=0.5)
    faults = [first(request) for request in requests]
    assert faults == [second(request) for request in requests]
    assert len(set(faults)) > 8
