"""Passes killed within a step, between what they did and what the ledger says of it.

`test_loop_phases` kills at the boundaries of phases; here the next pass meets what is half done,
what people have done meanwhile and what is set otherwise.
"""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta

import pytest

from active_learning.orders import Orders
from active_learning.retraining import RetrainingRow, RetrainingRuns
from core.ledger import Ledger
from hub.channel import activate, history, make_move, rollback, tell_ledger
from tests.active_learning.installation import MODEL, installation
from tests.databases import HandClock, in_children
from tests.records import make_run, write_folder
from training.runs import RunFolder

__all__ = ["installation"]

# What a pass writes into the audit trail, in this order.
WRITES = (
    "lease:acquired",
    "retraining:requested",
    "retraining:taken up",
    "dataset:grown",
    "retraining:snapshot",
    "retraining:training",
    "retraining:evaluated",
    "retraining:gate",
    "retraining:published",
    "model:promoted",
    "retraining:activated",
    "retraining:promoted",
    "lease:released",
)


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def answered(installation, clock):
    """Two reviews: enough to train."""
    ledger = installation.ledger(clock=clock)
    installation.answer(installation.desk(ledger), 2)
    ledger.close()
    return installation


@pytest.fixture
def ledger(answered, clock):
    """For what comes after the kill."""
    opened = answered.ledger(clock=clock)
    yield opened
    opened.close()


def kill_as_it_writes(made, clock, event):
    """A pass in a process of its own, killed within the transaction that tells of an event."""
    kind, what = event.split(":")
    record = Ledger.record

    def dying(self, session, said, *, entity, **more):
        if said == what and entity.startswith(f"{kind}:"):
            os.kill(os.getpid(), signal.SIGKILL)
        record(self, session, said, entity=entity, **more)

    def killed():
        Ledger.record = dying
        made.go(made.ledger(clock=clock))

    assert in_children(killed) == [-9]
    clock.pass_s(181)  # the dead holder's lease has run out


def change(made, **settings):
    """Other settings of retraining from now on."""
    retraining = made.settings.retraining.model_copy(update=settings)
    made.settings = made.settings.model_copy(update={"retraining": retraining})


def moves(made):
    return [move.what for move in history(MODEL, made.settings.paths)]


def other_release(made, folder, **changes):
    facts = {"model": MODEL, "scale": "light", "dataset": "neu-cls", "labels": made.labels}
    run = make_run(**facts, **changes)
    write_folder(folder, b"other weights", run=run, task="classify")
    return activate(folder, made.settings.paths, who="ann").config.revision


# ------------------------------------------------------------------------------ killed anywhere


def test_a_pass_writes_what_is_killed_at_below(answered, ledger):
    before = len(ledger.events())
    answered.go(ledger)
    told = [f"{event.entity.split(':')[0]}:{event.what}" for event in ledger.events()[before:]]
    assert tuple(told) == WRITES


@pytest.mark.parametrize("event", WRITES)
def test_killed_within_any_step_it_goes_live_once(answered, ledger, clock, event):
    kill_as_it_writes(answered, clock, event)
    answered.go(ledger)
    [run] = RetrainingRuns(ledger, who="tests").newest()
    assert run.state == "promoted"
    assert answered.live() == run.candidate
    assert moves(answered) == ["promoted"]


@pytest.mark.parametrize(
    "event", ["retraining:evaluated", "retraining:gate", "retraining:refused", "lease:released"]
)
def test_killed_within_any_step_a_refused_candidate_never_goes_live(answered, ledger, clock, event):
    old, answered.candidate = answered.live(), {}  # not better
    kill_as_it_writes(answered, clock, event)
    answered.go(ledger)
    run = answered.newest(ledger)
    assert (run.state, run.phase, run.published) == ("refused", "gate", None)
    assert "the lower end must be above 0" in run.reasons[0]
    assert (answered.live(), moves(answered)) == (old, [])


# ------------------------------------------------------- what an older release may have left open


def set_state(ledger, state):
    """Bring the newest run into a state in which the ledger was left once."""
    with ledger.session() as session:
        row = session.query(RetrainingRow).one()
        row.state, row.reasons = state, []


@pytest.mark.parametrize("phase", ["gate", "published"])
def test_a_refused_candidate_that_is_still_open_is_not_put_live(answered, ledger, phase):
    old, answered.candidate = answered.live(), {}
    answered.go(ledger)
    set_state(ledger, "open")
    with ledger.session() as session:
        session.query(RetrainingRow).one().phase = phase
    report = answered.go(ledger)
    assert report.verdict == "refused"
    assert "the lower end must be above 0" in report.reasons[0]
    assert (answered.live(), moves(answered)) == (old, [])


def test_a_run_that_is_live_and_still_open_is_promoted(answered, ledger):
    reasons = answered.go(ledger).reasons
    set_state(ledger, "open")
    report = answered.go(ledger)
    assert (report.verdict, report.reasons) == ("promoted", reasons)
    assert moves(answered) == ["promoted"]


@pytest.mark.parametrize("phase", ["published", "activated"])
def test_a_run_whose_candidate_is_live_is_not_called_refused_when_it_is_given_up(
    answered, ledger, phase
):
    reasons = answered.go(ledger).reasons
    set_state(ledger, "parked")
    with ledger.session() as session:
        session.query(RetrainingRow).one().phase = phase
    run = answered.newest(ledger)
    Orders(ledger, lasts_h=24).drop(run.id, who="ann")
    answered.go(ledger)
    run = answered.newest(ledger)
    assert run.state == "promoted"
    assert run.reasons == (*reasons, "Given up by ann when it was live already.")


# ----------------------------------------------------------------- what people did after the kill


@pytest.mark.parametrize("event", ["model:promoted", "retraining:activated"])
def test_a_rollback_after_a_kill_is_not_undone(answered, ledger, clock, event):
    old = answered.live()
    kill_as_it_writes(answered, clock, event)
    candidate = answered.live()
    assert candidate != old
    rollback(MODEL, answered.settings.paths, who="ann", why="misses scratches.")
    report = answered.go(ledger)
    assert report.verdict == "refused"
    assert report.reasons == (
        f"{candidate} was live already and was rolled back by ann: misses scratches.",
    )
    assert (answered.live(), moves(answered)) == (old, ["promoted", "rolled back"])


@pytest.mark.parametrize("event", ["model:promoted", "retraining:activated"])
def test_a_rollback_is_not_undone_that_a_clock_set_back_dates_before_the_run(
    answered, ledger, clock, event
):
    old = answered.live()
    clock.wall = datetime.now(UTC) + timedelta(days=365)  # the channel goes by the machine's clock
    kill_as_it_writes(answered, clock, event)
    candidate = answered.live()
    assert candidate != old
    rollback(MODEL, answered.settings.paths, who="ann")
    report = answered.go(ledger)
    assert report.reasons == (f"{candidate} was live already and was rolled back by ann.",)
    assert (answered.live(), moves(answered)) == (old, ["promoted", "rolled back"])


def test_a_release_that_somebody_put_live_instead_stays(answered, ledger, clock, tmp_path):
    kill_as_it_writes(answered, clock, "retraining:activated")
    candidate, other = answered.live(), other_release(answered, tmp_path / "other")
    report = answered.go(ledger)
    assert report.verdict == "refused"
    assert report.reasons == (f"{candidate} was live already and was replaced by {other} by ann.",)
    assert answered.live() == other


def test_a_rollback_that_was_itself_taken_back_stands_in_no_way(answered, ledger, clock):
    kill_as_it_writes(answered, clock, "retraining:activated")
    paths = answered.settings.paths
    candidate = answered.live()
    rollback(MODEL, paths, who="ann")
    activate(paths.releases / MODEL / candidate, paths, who="ann")
    assert answered.go(ledger).verdict == "promoted"
    assert moves(answered) == ["promoted", "rolled back", "promoted"]


def test_a_release_that_was_rolled_back_on_the_hub_is_not_published_again(answered, ledger, clock):
    old = answered.live()
    kill_as_it_writes(answered, clock, "retraining:published")
    candidate = answered.newest(ledger).candidate
    move = make_move("rolled back", candidate, old, "ann", "misses scratches")
    tell_ledger(MODEL, answered.settings.paths, move, where="acme/rollmark@0123456789ab")
    report = answered.go(ledger)
    assert report.reasons == (
        f"{candidate} was live on the Hub already and was rolled back by ann: misses scratches.",
    )
    assert (report.verdict, answered.live()) == ("refused", old)


def test_weights_that_an_earlier_run_lost_again_may_be_learned_and_proven_anew(
    answered, ledger, clock
):
    answered.go(ledger)
    candidate = answered.live()
    rollback(MODEL, answered.settings.paths, who="ann")
    clock.wall = datetime.now(UTC) + timedelta(days=1)  # the channel goes by the machine's clock
    assert answered.go(ledger, model=MODEL, force=True).verdict == "promoted"
    assert answered.live() == candidate


# --------------------------------------------------------------- what was set otherwise meanwhile


def kill_after_two_epochs(made, clock):
    def killed():
        own = made.ledger(clock=clock)
        made.go(own, is_stopped=lambda: made.trained == 2 and os.kill(os.getpid(), 9))

    assert in_children(killed) == [-9]
    clock.pass_s(181)


def test_a_run_goes_on_as_it_was_begun_whatever_is_set_and_live_now(
    answered, ledger, clock, tmp_path
):
    kill_after_two_epochs(answered, clock)
    change(answered, epochs=7, balance="dscbsm")
    other_release(answered, tmp_path / "other", image_size=128, recipe={"batch": 4})
    assert answered.go(ledger).verdict == "promoted"
    assert answered.trained == 1  # of three
    asked = answered.asked
    assert (asked["epochs"], asked["batch"], asked["image_size"]) == (3, 32, 320)
    assert asked["overrides"]["balance"] == "class_weights"
    assert "initial_weights" not in asked  # they are in its checkpoint


def test_a_run_that_has_learned_is_measured_though_more_epochs_are_set_now(answered, ledger, clock):
    kill_as_it_writes(answered, clock, "retraining:evaluated")
    change(answered, epochs=7)
    assert answered.go(ledger).verdict == "promoted"
    assert answered.trained == 0


def test_a_run_without_a_checkpoint_begins_anew_from_what_is_live_now(
    answered, ledger, clock, tmp_path
):
    kill_as_it_writes(answered, clock, "retraining:evaluated")
    run = answered.newest(ledger)
    folder = RunFolder(answered.settings.paths.runs / run.id)
    folder.last.unlink()
    folder.update_record(epochs=0, finished_at=None)
    change(answered, epochs=2)
    other = other_release(answered, tmp_path / "other", recipe={"batch": 4})
    assert answered.go(ledger).verdict == "promoted"
    assert answered.trained == 2
    assert (answered.asked["epochs"], answered.asked["batch"]) == (2, 4)
    assert answered.asked["initial_weights"].name == other
    assert folder.load_record().recipe["batch"] == 4
