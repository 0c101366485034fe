"""The loop killed, raced, refused and out of luck: every phase ends once, or with a reason."""

from __future__ import annotations

import errno
import os
import signal
import sys
from datetime import timedelta

import pytest
from pydantic import SecretStr

from active_learning import _retraining_steps, loop
from active_learning.leases import Leases
from active_learning.loop import Interrupted
from active_learning.retraining import LEASE, MAX_ATTEMPTS, PHASES, RetrainingRuns
from core.errors import ConfigError, DatasetError, LeaseHeld, LeaseLost, TrainingError
from core.settings import LabelStudioSettings
from hub.channel import activate, history
from hub.registry import resolve
from tests.active_learning.installation import MODEL, installation
from tests.databases import HandClock, in_children
from tests.records import make_run, write_folder

__all__ = ["installation"]

# What a pass goes through: each phase is begun and, once it is committed, reached.
POINTS = [
    f"{phase}:{moment}"
    for phase, moment in [
        *[(phase, "begin") for phase in PHASES[1:-1]],
        *[(phase, "reached") for phase in PHASES[2:]],
    ]
]


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
def ledger(installation, clock):
    opened = installation.ledger(clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def answered(installation, ledger):
    """Two reviews: enough to train."""
    installation.answer(installation.desk(ledger), 2)
    return installation


@pytest.mark.parametrize("busy", [LeaseHeld, LeaseLost])
def test_training_goes_on_while_another_process_fetches_the_answers(
    answered, ledger, monkeypatch, busy
):
    def fetch(settings, desk):
        raise busy("Another process fetches.")

    monkeypatch.setattr(loop, "fetch", fetch)
    studio = LabelStudioSettings(token=SecretStr("f" * 40))
    answered.settings = answered.settings.model_copy(update={"label_studio": studio})
    assert answered.go(ledger).verdict == "promoted"


def test_a_pass_goes_through_every_phase_and_the_candidate_is_live(answered, ledger):
    old = answered.live()
    report = answered.go(ledger)
    assert (report.verdict, report.phase) == ("promoted", "activated")
    run = answered.newest(ledger)
    assert (run.state, run.incumbent, run.candidate) == ("promoted", old, answered.live())
    assert list(run.phases) == list(PHASES)
    assert run.decision is not None
    assert run.decision.promote
    assert run.why == "2 of 2 newly reviewed images."
    assert report.reasons == run.decision.reasons
    [move] = history(MODEL, answered.settings.paths)
    assert (move.what, move.before, move.after) == ("promoted", old, run.candidate)
    assert move.why == report.reasons[0]


def test_a_pass_without_enough_reviews_says_so_and_trains_nothing(installation, ledger):
    report = installation.go(ledger)
    assert report.verdict == "not due"
    assert report.reasons == (f"{MODEL}: 0 of 2 newly reviewed images.",)
    assert installation.trained == 0


def test_what_a_model_was_trained_on_is_not_new_for_it_again(answered, ledger, clock):
    answered.go(ledger)
    clock.pass_s(25 * 3600)
    assert answered.go(ledger).reasons[0].endswith("0 of 2 newly reviewed images.")


def test_a_clock_that_was_ahead_has_no_model_trained_over_and_over(installation, ledger, clock):
    """The run of that time counted as the newest for a year: what later ones had learned from was
    new again at every pass.
    """
    desk, installation.candidate = installation.desk(ledger), {}  # never better
    installation.answer(desk, 2)
    clock.wall += timedelta(days=365)
    assert installation.go(ledger).verdict == "refused"
    clock.wall -= timedelta(days=365)
    installation.answer(desk, 4)
    assert installation.go(ledger).verdict == "refused"
    clock.pass_s(25 * 3600)
    report = installation.go(ledger)
    assert (report.verdict, report.reasons) == (
        "not due",
        ("mobilesteelnet: 0 of 2 newly reviewed images.",),
    )


@pytest.mark.parametrize("point", POINTS)
def test_killed_at_any_boundary_the_next_pass_finishes_it_once(answered, ledger, clock, point):
    ledger.close()

    def killed():
        own = answered.ledger(clock=clock)
        answered.go(
            own, on_point=lambda p: os.kill(os.getpid(), signal.SIGKILL) if p == point else None
        )

    assert in_children(killed) == [-9]
    clock.pass_s(181)  # the dead holder's lease has run out
    again = answered.ledger(clock=clock)
    report = answered.go(again) if point != "activated:reached" else None
    run = answered.newest(again)
    assert run.state == "promoted"
    assert report is None or report.verdict == "promoted"
    assert answered.live() == run.candidate
    moves = [m.what for m in history(MODEL, answered.settings.paths)]
    assert moves == ["promoted"]
    told = [e.what for e in again.events(f"retraining:{run.id}")]
    assert [what for what in told if what in PHASES[2:]] == list(PHASES[2:])
    again.close()


def test_killed_in_the_middle_of_training_it_goes_on_after_the_last_epoch(answered, ledger, clock):
    ledger.close()

    def killed():
        own = answered.ledger(clock=clock)
        answered.go(own, is_stopped=lambda: answered.trained == 2 and os.kill(os.getpid(), 9))

    assert in_children(killed) == [-9]
    clock.pass_s(181)
    again = answered.ledger(clock=clock)
    assert answered.go(again).verdict == "promoted"
    assert answered.trained == 1  # of three
    again.close()


def test_a_candidate_that_is_not_proven_better_is_refused_and_the_old_one_stays(answered, ledger):
    old, answered.candidate = answered.live(), {}
    report = answered.go(ledger)
    assert (report.verdict, report.phase) == ("refused", "gate")
    assert "the lower end must be above 0" in report.reasons[0]
    assert answered.live() == old
    run = answered.newest(ledger)
    assert run.decision is not None
    assert not run.decision.promote


def test_trials_on_different_test_splits_are_refused_for_good(answered, ledger):
    answered.candidate = {"resamples": (0.7, 0.7)}
    report = answered.go(ledger)
    assert report.verdict == "refused"
    assert "they must have the same number" in report.reasons[0]


def test_five_failures_park_it_with_the_reason_and_force_takes_it_up_again(answered, ledger):
    answered.failure = "the disk is full: free some space."
    for _ in range(MAX_ATTEMPTS - 1):
        with pytest.raises(TrainingError, match="the disk is full"):
            answered.go(ledger)
    report = answered.go(ledger)
    assert report.verdict == "parked"
    assert report.reasons == (
        "Training and measuring was tried 5 times and never ended well: "
        "the disk is full: free some space.",
    )
    assert answered.go(ledger).verdict == "parked"
    answered.failure = ""
    assert answered.go(ledger, model=MODEL, force=True).verdict == "promoted"


def test_golden_images_that_are_not_there_are_told_before_anything_is_trained(
    answered, ledger, tmp_path
):
    golden = tmp_path / "golden.txt"
    named = answered.settings.retraining.model_copy(update={"golden": golden})
    answered.settings = answered.settings.model_copy(update={"retraining": named})
    with pytest.raises(ConfigError, match=r"golden.txt, which cannot be read"):
        answered.go(ledger)
    golden.write_text("strip 7.jpg\n")
    with pytest.raises(DatasetError, match=r"golden image 'strip 7.jpg' is not in"):
        answered.go(ledger)
    assert answered.asked == {}


def test_a_full_disk_is_named_as_the_reason(answered, ledger):
    def full(point):
        if point == "training:begin":
            raise OSError(errno.ENOSPC, "No space left on device", "runs/last.pt")

    with pytest.raises(OSError, match="No space left"):
        answered.go(ledger, on_point=full)
    assert answered.newest(ledger).last_error == (
        "runs/last.pt cannot be used: No space left on device; make room, or name another place."
    )


def test_killed_five_times_it_is_parked_and_not_tried_for_ever(answered, ledger, clock):
    ledger.close()

    def killed():
        own = answered.ledger(clock=clock)
        answered.go(
            own,
            on_point=lambda p: os.kill(os.getpid(), 9) if p == "training:begin" else None,
        )

    for _ in range(MAX_ATTEMPTS):
        assert in_children(killed) == [-9]
        clock.pass_s(181)
    again = answered.ledger(clock=clock)
    report = answered.go(again)
    assert report.verdict == "parked"
    assert report.reasons[0].endswith("each time its process was killed before it ended")
    again.close()


def test_asked_to_stop_it_is_laid_down_after_the_epoch_and_that_does_not_count(answered, ledger):
    for _ in range(MAX_ATTEMPTS + 1):
        with pytest.raises(Interrupted):
            answered.go(ledger, is_stopped=lambda: answered.trained > 0)
        answered.trained = 0
        if answered.newest(ledger).progress.epoch == 3:
            break
    run = answered.newest(ledger)
    assert (run.state, run.phase, run.progress.epoch) == ("open", "training", 3)
    assert answered.go(ledger).verdict == "promoted"


def test_ended_at_once_by_its_service_manager_it_gives_way_and_that_does_not_count(
    answered, ledger
):
    for _ in range(MAX_ATTEMPTS + 1):
        with pytest.raises(SystemExit):
            answered.go(ledger, on_point=lambda p: sys.exit(143) if p == "training:begin" else None)
    run = answered.newest(ledger)
    assert (run.state, run.phase, run.attempts) == ("open", "training", 0)
    assert answered.go(ledger).verdict == "promoted"  # at once: the lease was given back


def test_the_time_budget_ends_training_early_and_the_best_so_far_is_judged(answered, ledger):
    # An epoch takes a minute: after the second there is no time for a third.
    budget = answered.settings.retraining.model_copy(update={"time_budget_min": 2.5})
    answered.settings = answered.settings.model_copy(update={"retraining": budget})
    assert answered.go(ledger).verdict == "promoted"
    assert answered.trained == 2


def test_only_one_process_trains_at_a_time(answered, ledger):
    with Leases(ledger).hold(LEASE, ttl_s=60), pytest.raises(LeaseHeld, match="Only one process"):
        answered.go(ledger)
    assert answered.trained == 0


def test_a_holder_that_was_silent_too_long_is_replaced_and_writes_no_more(answered, ledger, clock):
    def replaced(point):
        if point == "training:begin":
            clock.pass_s(181)
            Leases(ledger).acquire(LEASE, ttl_s=60)

    with pytest.raises(LeaseLost, match="was lost"):
        answered.go(ledger, on_point=replaced)
    run = answered.newest(ledger)
    assert (run.phase, run.progress.epoch) == ("training", 0)


def test_when_another_release_went_live_meanwhile_it_is_measured_against_that(
    answered, ledger, tmp_path
):
    paths = answered.settings.paths
    other = make_run(model=MODEL, dataset="neu-cls", labels=answered.labels)
    write_folder(tmp_path / "other", b"other weights", run=other, task="classify")
    moved = []

    def meanwhile(point):
        if point == "gate:begin" and not moved:
            moved.append(activate(tmp_path / "other", paths).config.revision)

    assert answered.go(ledger, on_point=meanwhile).verdict == "promoted"
    run = answered.newest(ledger)
    assert run.incumbent == moved[0]
    assert run.decision is not None
    assert run.decision.incumbent == moved[0]
    assert resolve(MODEL, paths).config.revision == run.candidate


def test_a_release_that_goes_live_in_the_last_moment_is_not_replaced_unmeasured(
    answered, ledger, tmp_path, monkeypatch
):
    paths = answered.settings.paths
    other = make_run(model=MODEL, dataset="neu-cls", labels=answered.labels)
    write_folder(tmp_path / "other", b"other weights", run=other, task="classify")
    moved = []

    def last_moment(folder, *rest, **how):
        if not moved:  # after it was asked what is live, before the candidate is put there
            moved.append(activate(tmp_path / "other", paths).config.revision)
        return activate(folder, *rest, **how)

    monkeypatch.setattr(_retraining_steps, "activate", last_moment)
    assert answered.go(ledger).verdict == "promoted"
    run = answered.newest(ledger)
    assert run.decision is not None
    assert run.decision.incumbent == moved[0]
    assert [move.before for move in history(MODEL, paths)][-1] == moved[0]


def test_forced_a_model_is_trained_without_anything_new(installation, ledger):
    report = installation.go(ledger, model=MODEL, force=True)
    assert report.verdict == "promoted"
    assert installation.newest(ledger).why == "asked for by hand"


def test_with_the_hub_switched_off_by_its_own_variable_it_goes_live_here_alone(
    answered, ledger, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub = answered.settings.hub.model_copy(update={"namespace": "acme"})
    answered.settings = answered.settings.model_copy(update={"hub": hub})
    assert answered.go(ledger).verdict == "promoted"
    assert answered.newest(ledger).published is None


def test_no_phase_can_be_skipped(answered, ledger):
    from core.errors import IllegalTransition

    runs = RetrainingRuns(ledger, who="tests")
    with Leases(ledger).hold(LEASE, ttl_s=60) as lease:
        run = runs.request(lease, model=MODEL, dataset="neu-cls", why="", incumbent="a")
        with pytest.raises(IllegalTransition, match="cannot go to training"):
            runs.reach(run, lease, "training")
