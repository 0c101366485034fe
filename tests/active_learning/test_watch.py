"""The watcher as a process: makes passes, keeps its hours, hears orders, ends on SIGTERM."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from active_learning import watch
from active_learning.orders import Orders
from active_learning.presence import Presence, watchers
from active_learning.retraining import RetrainingRuns
from core.errors import LedgerError
from core.ledger import open_ledger
from tests.active_learning.installation import MODEL, installation

__all__ = ["installation"]

WAIT_S = 300


def started(installation, log):
    paths = installation.settings.paths
    environment = {
        "ROLLMARK_PATHS__DATA": str(paths.data),
        "ROLLMARK_PATHS__BUNDLED": str(paths.bundled),
        "ROLLMARK_PATHS__RUNS": str(paths.runs),
        "OMP_NUM_THREADS": "1",
    }
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("ROLLMARK_")}
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-m", "active_learning", "watch"],
            env=inherited | environment,
            stdout=stream,
            stderr=stream,
        )


def wait_for(log, words, process):
    deadline = time.monotonic() + WAIT_S
    while words not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def test_a_watcher_makes_a_pass_at_once_hears_an_order_and_ends_when_told_to(
    installation, tmp_path
):
    log = tmp_path / "log.txt"
    log.touch()
    process = started(installation, log)
    try:
        wait_for(log, "not due", process)
        ledger = open_ledger(installation.settings.paths.ledger_url)
        [watcher] = watchers(ledger)
        assert watcher.poll_min == installation.settings.retraining.poll_min
        # The weights of this installation are none, so the run that was asked for cannot go far.
        Orders(ledger, lasts_h=24).train(MODEL, who="ann")
        wait_for(log, "the pass failed", process)
        [run] = RetrainingRuns(ledger, who="tests").newest()
        assert (run.why, run.attempts) == ("asked for by ann on the page.", 1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=WAIT_S) == 0, log.read_text()
    finally:
        process.kill()
    assert watchers(ledger) == ()
    ledger.close()
    assert "Traceback" not in log.read_text()
    assert f"{installation.settings.retraining.poll_min:g} min" in log.read_text()
    engine = sa.create_engine(installation.settings.paths.ledger_url)
    with engine.connect() as connection:
        jobs = connection.execute(sa.text("SELECT id, next_run_time FROM scheduled_jobs")).all()
    engine.dispose()
    [(name, next_time)] = jobs
    assert name == "retraining"
    assert next_time > time.time()  # in 15 min: a watcher started again keeps to it


class Hours:
    """A scheduler with one job; one that is put to another hour ends the watch."""

    def __init__(self, due):
        self.due = due

    def get_job(self, name):
        return SimpleNamespace(next_run_time=self.due)

    def modify_job(self, name, *, next_run_time):
        self.due = next_run_time
        watch._stop.set()


@pytest.mark.parametrize(
    ("ahead", "is_brought_forward"),
    [(timedelta(minutes=15), False), (timedelta(minutes=75), True)],
    ids=["its own hour", "the clock was set back an hour"],
)
def test_the_next_pass_is_never_more_than_an_interval_ahead(
    installation, ahead, is_brought_forward
):
    assert installation.settings.retraining.poll_min == 15
    hours = Hours(datetime.now(UTC) + ahead)
    watch._stop.clear()
    watch._keep_hours(hours, installation.settings)
    assert watch._stop.is_set() == is_brought_forward
    assert (hours.due <= datetime.now(UTC)) == is_brought_forward


def test_a_watcher_looks_at_its_hours_as_often_as_it_says_that_it_is_there(installation):
    ledger = open_ledger(installation.settings.paths.ledger_url)
    hours = Hours(datetime.now(UTC) + timedelta(hours=2))
    watch._stop.clear()
    late = threading.Timer(WAIT_S, watch._stop.set)  # or a watcher that does not look never ends
    late.start()
    watch._attend(hours, ledger, Presence(ledger, poll_min=15), installation.settings)
    late.cancel()
    assert hours.due <= datetime.now(UTC)
    ledger.close()


def test_a_ledger_that_fails_once_when_an_hour_is_noted_does_not_end_the_passes(
    installation, monkeypatch
):
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore

    made, failed = threading.Semaphore(0), threading.Event()
    note = SQLAlchemyJobStore.update_job

    def fails_once(self, job):
        if not failed.is_set():
            failed.set()
            raise OperationalError("UPDATE", {}, Exception("database is locked"))
        note(self, job)

    def counts():
        made.release()
        raise LedgerError("enough of this pass")

    monkeypatch.setattr(SQLAlchemyJobStore, "update_job", fails_once)
    monkeypatch.setattr(watch, "load_settings", counts)
    open_ledger(installation.settings.paths.ledger_url).close()
    watch._stop.clear()
    scheduler = watch._scheduler(installation.settings)
    try:
        assert made.acquire(timeout=WAIT_S)
        assert failed.wait(WAIT_S)
        time.sleep(0.5)  # in which the scheduler's thread would have ended
        scheduler.modify_job(watch.JOB, next_run_time=datetime.now(UTC))
        assert made.acquire(timeout=WAIT_S)
    finally:
        scheduler.shutdown(wait=True)
