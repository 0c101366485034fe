"""Passes killed within a step, between what they did and what the ledger says of it.

`test_loop_phases` kills at the boundaries of phases; here the next pass meets what is half done,
what people have done meanwhile and what is set otherwise.
"""

from __future__ import annotations

import os
import signal

import pytest

from core.ledger import Ledger
from hub.channel import activate
from tests.active_learning.installation import MODEL, installation
from tests.databases import HandClock, in_children
from tests.records import make_run, write_folder
from training.runs import RunFolder

__all__ = ["installation"]


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


def other_release(made, folder, **changes):
    facts = {"model": MODEL, "scale": "light", "dataset": "neu-cls", "labels": made.labels}
    run = make_run(**facts, **changes)
    write_folder(folder, b"other weights", run=run, task="classify")
    return activate(folder, made.settings.paths, who="ann").config.revision


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
