"""What people ask of retraining: taken up once, never lost, and told when nobody hears it."""

from __future__ import annotations

import os
import signal
from datetime import timedelta

import pytest

from active_learning.leases import Leases
from active_learning.loop import Interrupted
from active_learning.orders import Orders
from active_learning.presence import Presence, watchers
from active_learning.retraining import LEASE, RetrainingRuns
from core.errors import IllegalTransition
from core.ledger import open_ledger
from hub.channel import history
from tests.active_learning.installation import MODEL, installation
from tests.databases import HandClock, in_children

__all__ = ["installation"]


@pytest.fixture
def orders(ledger):
    return Orders(ledger, lasts_h=24)


def begun(ledger, lease, model="grace", **more):
    runs = RetrainingRuns(ledger, who="tests")
    facts = {"dataset": "neu-cls", "why": "", "incumbent": "a" * 12}
    return runs.request(lease, model=model, **facts, **more)


def told(ledger, order):
    return [(e.who, e.what) for e in ledger.events(f"order:{order.id}")]


# --- in the ledger, on both databases ----------------------------------------------------------


def test_two_clicks_are_one_order_and_it_says_who_gave_it(orders, ledger):
    first = orders.train("grace", who="ann")
    assert orders.train("grace", who="ben") == first
    assert (first.who, first.state, first.run) == ("ann", "open", None)
    assert first.expires_at == first.created_at + timedelta(hours=24)
    assert orders.train("da_yolo", who="ben").id != first.id
    assert told(ledger, first) == [("ann", "ordered")]


def test_four_processes_that_click_at_once_give_one_order(ledger_url):
    def click():
        ledger = open_ledger(ledger_url)
        Orders(ledger, lasts_h=24).train("grace", who="ann")
        ledger.close()

    assert in_children(*[click] * 4) == [0] * 4
    ledger = open_ledger(ledger_url)
    assert [e.what for e in ledger.events()] == ["ordered"]
    ledger.close()


def test_an_order_is_taken_up_with_the_run_that_it_leads_to_and_only_once(orders, ledger):
    order = orders.train("grace", who="ann")
    with Leases(ledger).hold(LEASE, ttl_s=60) as lease:
        run = begun(ledger, lease, also=orders.taking(order))
        taken = orders.newest("grace")
        assert (taken.state, taken.run, taken.reason) == ("taken", run.id, f"run {run.id}")
        assert orders.open_order("train") is None
        with pytest.raises(IllegalTransition, match=f"grace is taken .run {run.id}.: nothing was"):
            begun(ledger, lease, "da_yolo", also=orders.taking(order))
    assert RetrainingRuns(ledger, who="tests").newest(model="da_yolo") == ()
    assert told(ledger, order) == [("ann", "ordered"), ("ann", "taken")]


def test_an_order_can_be_taken_back_until_it_is_taken_up(orders, ledger):
    order = orders.train("grace", who="ann")
    assert orders.withdraw(order.id, who="ben").reason == "taken back by ben"
    assert orders.open_order("train") is None
    with pytest.raises(IllegalTransition, match=r"already \(taken back by ben\)"):
        orders.withdraw(order.id, who="ann")
    with Leases(ledger).hold(LEASE, ttl_s=60) as lease, pytest.raises(IllegalTransition):
        begun(ledger, lease, also=orders.taking(order))
    assert RetrainingRuns(ledger, who="tests").newest() == ()


def test_an_order_that_nobody_hears_in_time_expires_and_says_so(orders, clock):
    order = orders.train("grace", who="ann")
    clock.pass_s(24 * 3600 - 1)
    assert orders.open_order("train") == order
    clock.pass_s(1)
    assert orders.open_order("train") is None
    told = orders.newest("grace")  # before any pass: there may be nobody to make one
    orders.close_stale()
    late = orders.newest("grace")
    for one in (told, late):
        assert (one.state, one.reason) == ("expired", "nobody made a pass within 24 h")
    assert orders.train("grace", who="ann").id != order.id


def test_a_new_order_takes_the_place_of_one_that_is_out_of_time(orders, clock):
    order = orders.train("grace", who="ann")
    clock.pass_s(24 * 3600)
    assert orders.train("grace", who="ben").id != order.id


def test_a_run_that_is_laid_down_may_be_hurried_while_another_models_is_in_hand(
    orders, ledger, clock
):
    with Leases(ledger).hold(LEASE, ttl_s=60) as lease:
        begun(ledger, lease)
        clock.pass_s(1)
        begun(ledger, lease, "da_yolo")
        assert orders.train("grace", who="ann").state == "open"
        with pytest.raises(IllegalTransition, match="of da_yolo is under way"):
            orders.train("da_yolo", who="ann")


def test_a_run_in_hand_is_not_begun_again_and_one_laid_down_may_be_hurried(orders, ledger):
    leases = Leases(ledger)
    with leases.hold(LEASE, ttl_s=60) as lease:
        begun(ledger, lease)
        with pytest.raises(IllegalTransition, match="of grace is under way: stop it, or wait"):
            orders.train("grace", who="ann")
    assert orders.train("grace", who="ann").state == "open"


def test_only_a_run_that_goes_on_can_be_stopped_and_its_end_closes_the_order(orders, ledger):
    with pytest.raises(IllegalTransition, match="Run none is unknown: there is nothing to stop"):
        orders.stop("none", who="ann")
    runs = RetrainingRuns(ledger, who="tests")
    with Leases(ledger).hold(LEASE, ttl_s=60) as lease:
        run = begun(ledger, lease)
        order = orders.stop(run.id, who="ann")
        assert orders.stop(run.id, who="ben") == order
        assert orders.asks_to_stop(run.id) == order
        runs.end(run, lease, "refused", ("not better",))
    orders.close_stale()
    assert orders.asks_to_stop(run.id) is None
    assert orders.newest("grace").reason == "the run is refused"
    with pytest.raises(IllegalTransition, match="is refused: there is nothing to stop"):
        orders.stop(run.id, who="ann")


def test_a_watcher_counts_as_there_for_a_minute_after_it_was_heard(ledger, clock):
    first, second = (Presence(ledger, poll_min=15) for _ in range(2))
    first.beat()
    second.beat()
    assert [w.poll_min for w in watchers(ledger)] == [15, 15]
    first.leave()
    clock.pass_s(59)
    assert len(watchers(ledger)) == 1
    clock.pass_s(1)
    assert watchers(ledger) == ()
    second.beat()
    assert watchers(ledger)[0].seen_at == clock.now()


def test_a_watcher_that_died_before_the_clock_was_set_back_is_not_there(ledger, clock):
    Presence(ledger, poll_min=15).beat()
    clock.wall -= timedelta(hours=1)
    assert watchers(ledger) == ()
    Presence(ledger, poll_min=5).beat()
    assert [w.poll_min for w in watchers(ledger)] == [5]


# --- through the loop --------------------------------------------------------------------------


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def home(installation, clock):
    """An installation in which nothing is due, its ledger and its orders."""
    ledger = installation.ledger(clock=clock)
    yield installation, ledger, Orders(ledger, lasts_h=24)
    ledger.close()


def test_what_was_asked_for_is_trained_although_nothing_is_due(home):
    made, ledger, orders = home
    orders.train(MODEL, who="ann")
    assert made.go(ledger).verdict == "promoted"
    run = made.newest(ledger)
    assert run.why == "asked for by ann on the page."
    assert orders.newest(MODEL).run == run.id
    assert made.go(ledger).verdict == "not due"


@pytest.mark.parametrize("point", ["leased:begin", "training:begin", "published:reached"])
def test_killed_after_the_take_up_one_order_is_one_run(home, clock, point):
    made, ledger, orders = home
    orders.train(MODEL, who="ann")
    ledger.close()

    def killed():
        own = made.ledger(clock=clock)
        made.go(own, on_point=lambda p: os.kill(os.getpid(), signal.SIGKILL) if p == point else 0)

    assert in_children(killed) == [-9]
    clock.pass_s(181)
    assert made.go(ledger).verdict == "promoted"
    assert len(RetrainingRuns(ledger, who="tests").newest()) == 1
    assert [move.what for move in history(MODEL, made.settings.paths)] == ["promoted"]


def test_killed_before_the_take_up_the_order_stands(home, clock, monkeypatch):
    made, ledger, orders = home
    orders.train(MODEL, who="ann")
    ledger.close()

    def killed():
        monkeypatch.setattr(Leases, "hold", lambda *_, **__: os.kill(os.getpid(), 9))
        made.go(made.ledger(clock=clock))

    assert in_children(killed) == [-9]
    assert orders.open_order("train") is not None
    assert made.go(ledger).verdict == "promoted"
    assert orders.open_order("train") is None


def test_killed_within_the_transaction_of_the_take_up_nothing_of_it_was_done(home, clock):
    made, ledger, orders = home
    orders.train(MODEL, who="ann")
    ledger.close()

    def killed():
        own = made.ledger(clock=clock)
        made.desk(own)
        with Leases(own).hold(LEASE, ttl_s=60) as lease:
            begun(own, lease, MODEL, also=lambda *_: os.kill(os.getpid(), 9))

    assert in_children(killed) == [-9]
    assert orders.open_order("train") is not None
    assert RetrainingRuns(ledger, who="tests").newest() == ()


def test_a_run_that_was_stopped_waits_for_a_person_and_goes_on_after_its_last_epoch(home):
    made, ledger, orders = home
    made.answer(made.desk(ledger), 2)

    def stop_after_one_epoch():
        if made.trained == 1 and orders.newest(MODEL) is None:
            orders.stop(made.newest(ledger).id, who="ann")
        return False

    report = made.go(ledger, is_stopped=stop_after_one_epoch)
    assert (report.verdict, report.phase) == ("parked", "training")
    assert report.reasons == (
        "Stopped by ann after epoch 1 of 3; what was done is kept, and it goes on from there.",
    )
    assert orders.newest(MODEL).state == "taken"
    assert made.go(ledger).verdict == "parked"  # nobody has asked for it to go on
    orders.train(MODEL, who="ben")
    assert made.go(ledger).verdict == "promoted"
    assert made.trained == 3  # no epoch was trained twice
    assert made.newest(ledger).id == report.run


def test_a_stop_that_came_too_late_does_not_stop_the_run_when_it_is_taken_up_again(home):
    made, ledger, orders = home
    made.answer(made.desk(ledger), 2)
    with pytest.raises(Interrupted):
        made.go(ledger, is_stopped=lambda: made.trained == 1)
    orders.stop(made.newest(ledger).id, who="ann")
    assert made.go(ledger).verdict == "parked"
    orders.train(MODEL, who="ann")
    assert made.go(ledger).verdict == "promoted"


def test_a_parked_run_is_tried_again_when_somebody_asks(home):
    made, ledger, orders = home
    made.answer(made.desk(ledger), 2)
    with Leases(ledger).hold(LEASE, ttl_s=60) as lease:
        run = begun(ledger, lease, MODEL)
        RetrainingRuns(ledger, who="tests").end(run, lease, "parked", ("the disk is full",))
    assert made.go(ledger).verdict == "parked"
    orders.train(MODEL, who="ann")
    assert made.go(ledger).verdict == "promoted"
    assert made.newest(ledger).id == run.id


def test_a_parked_run_that_is_given_up_keeps_its_model_from_nothing(home):
    made, ledger, orders = home
    runs = RetrainingRuns(ledger, who="tests")
    with Leases(ledger).hold(LEASE, ttl_s=60) as lease:
        run = begun(ledger, lease, MODEL)
        with pytest.raises(IllegalTransition, match="is open: there is nothing to drop"):
            orders.drop(run.id, who="ann")
        runs.end(run, lease, "parked", ("the disk is full",))
    made.answer(made.desk(ledger), 2)
    orders.drop(run.id, who="ann")
    made.settings = made.settings.model_copy(
        update={"retraining": made.settings.retraining.model_copy(update={"min_hours": 0})}
    )
    assert made.go(ledger).verdict == "promoted"  # of another run, for two reviews are new
    given_up = runs.get(run.id)
    assert (given_up.state, given_up.reasons) == ("refused", ("Given up by ann.",))
    assert orders.newest(MODEL).reason == f"run {run.id} was given up"


def test_an_order_waits_for_its_own_model(home):
    made, ledger, orders = home
    orders.train("grace", who="ann")  # which is not served here
    assert made.go(ledger).verdict == "not due"
    assert made.go(ledger, model=MODEL).verdict == "not due"
    assert orders.open_order("train", model="grace") is not None
