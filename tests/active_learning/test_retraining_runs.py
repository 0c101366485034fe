"""Retraining runs in the ledger, on both databases: phases, fences, counting, parking."""

from __future__ import annotations

from datetime import timedelta

import pytest

from active_learning.drift import Seen
from active_learning.incoming import Incoming
from active_learning.leases import Leases
from active_learning.retraining import MAX_ATTEMPTS, Progress, RetrainingRuns
from core.errors import IllegalTransition, LeaseLost
from tests.demo.retrained import decision


@pytest.fixture
def runs(ledger):
    return RetrainingRuns(ledger, who="tests")


@pytest.fixture
def lease(ledger):
    return Leases(ledger).acquire("train", ttl_s=60)


def requested(runs, lease, model="grace", **more):
    facts = {"dataset": "neu-det", "why": "enough", "incumbent": "a" * 12}
    return runs.request(lease, model=model, **facts, **more)


def test_a_model_has_one_open_run_at_a_time(runs, lease):
    first = requested(runs, lease)
    assert requested(runs, lease).id == first.id
    other = requested(runs, lease, "da_yolo")
    assert other.id != first.id
    runs.end(first, lease, "refused", ("not better",))
    assert requested(runs, lease).id != first.id


def test_runs_stand_in_the_order_in_which_they_were_asked_for_whatever_the_clock_said(
    runs, lease, clock
):
    clock.wall += timedelta(days=365)
    first = requested(runs, lease)
    other = runs.take_up(requested(runs, lease, "da_yolo"), lease)
    clock.wall -= timedelta(days=365)  # it was ahead
    runs.end(first, lease, "refused", ("not better",))
    second = runs.take_up(requested(runs, lease), lease)
    assert [run.id for run in runs.newest()] == [second.id, other.id, first.id]
    assert runs.is_carried(second)
    assert not runs.is_carried(other)


def test_what_a_run_finds_out_is_read_back_as_it_was_written(runs, lease, clock):
    run = runs.take_up(requested(runs, lease), lease)
    assert (run.phase, run.attempts) == ("leased", 1)
    clock.pass_s(60)
    for phase in ("snapshot", "training"):
        run = runs.reach(run, lease, phase)
    runs.tell(run, lease, Progress(epoch=2, epochs=9, left_s=70.5))
    run = runs.reach(run, lease, "evaluated", candidate="b" * 12)
    verdict = decision("grace", "a" * 12, "b" * 12, gain=0.12)
    run = runs.reach(run, lease, "gate", decision=verdict.model_dump(mode="json"))
    found = runs.get(run.id)
    assert found == run
    assert found.decision == verdict
    assert found.progress == Progress(epoch=2, epochs=9, left_s=70.5)
    assert found.phases["snapshot"] == clock.wall
    assert runs.newest() == (found,)


def test_every_move_is_an_event_and_every_attempt_is_counted(runs, lease, ledger):
    run = requested(runs, lease)
    for _ in range(MAX_ATTEMPTS):
        run = runs.take_up(run, lease)
    run = runs.fail(run, lease, "no luck")
    assert run.state == "parked"
    assert run.reasons == ("Freezing the data set was tried 5 times and never ended well: no luck",)
    told = [event.what for event in ledger.events(f"retraining:{run.id}")]
    assert told == ["requested", *["taken up"] * 5, "failed", "parked"]
    assert requested(runs, lease) == run
    reopened = requested(runs, lease, reopens=True)
    assert reopened.id == run.id
    assert (reopened.state, reopened.attempts, reopened.reasons) == ("open", 0, ())


def test_a_phase_that_ends_a_run_is_one_transaction(runs, lease, ledger):
    run = runs.take_up(requested(runs, lease), lease)
    for phase in ("snapshot", "training", "evaluated"):
        run = runs.reach(run, lease, phase)
    refused = runs.reach(run, lease, "gate", ends=("refused", ("not better",)))
    assert (refused.phase, refused.state, refused.reasons) == ("gate", "refused", ("not better",))
    told = [event.what for event in ledger.events(f"retraining:{run.id}")]
    assert told[-2:] == ["gate", "refused"]


def test_a_person_who_asks_for_a_spent_run_gets_it_tried_again(runs, lease):
    # Its fifth attempt was killed, and no pass has parked it yet.
    run = requested(runs, lease)
    for _ in range(MAX_ATTEMPTS):
        run = runs.take_up(run, lease)
    assert runs.park_if_spent(requested(runs, lease, reopens=True), lease).state == "open"


def test_a_run_can_go_back_a_phase_but_never_jump_ahead(runs, lease):
    run = runs.take_up(requested(runs, lease), lease)
    with pytest.raises(IllegalTransition, match="cannot go to evaluated"):
        runs.reach(run, lease, "evaluated")
    for phase in ("snapshot", "training", "evaluated"):
        run = runs.reach(run, lease, phase)
    assert runs.reach(run, lease, "training").phase == "training"
    with pytest.raises(IllegalTransition, match="is in phase training"):
        runs.reach(run, lease, "gate")  # what this process believes is out of date


def test_who_was_replaced_writes_nothing(runs, lease, ledger, clock):
    run = runs.take_up(requested(runs, lease), lease)
    clock.pass_s(61)
    Leases(ledger).acquire("train", ttl_s=60)
    for write in (
        lambda: runs.reach(run, lease, "snapshot"),
        lambda: runs.tell(run, lease, Progress(epoch=1)),
        lambda: runs.fail(run, lease, "late"),
        lambda: runs.end(run, lease, "promoted", ()),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert runs.get(run.id) == run


def test_a_run_is_carried_while_somebody_holds_the_lease_and_has_it_in_hand(runs, lease, clock):
    laid_down = runs.take_up(requested(runs, lease), lease)
    assert runs.is_carried(laid_down)
    clock.pass_s(1)
    other = runs.take_up(requested(runs, lease, "da_yolo"), lease)
    assert runs.is_carried(other)
    assert not runs.is_carried(laid_down)
    clock.pass_s(61)  # killed: the lease has run out
    assert not runs.is_carried(other)


def test_the_window_forgets_the_oldest_on_every_database(ledger):
    window = Incoming(ledger, window=2)
    window.add([("a", "1", Seen(k / 10, 0.0, "x", 0.0)) for k in range(4)])
    assert [s.brightness for s in window.latest("a", "1")] == [0.2, 0.3]
