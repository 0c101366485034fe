"""The scheduler: a pass of the loop every few minutes, until it is told to stop.

The job lies in the ledger, so a watcher that is started again keeps the old one's hours; the lease
to train keeps two of them from training at once. Every few seconds it says in the ledger that it is
there and looks for orders from the page, which bring the next pass forward; so does a clock that
was set back, or the next pass would be as much later. SIGTERM and SIGINT end
it in good order: training stops after the epoch in hand, and the next watcher goes on from there.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy.exc import SQLAlchemyError

from active_learning.desk import open_desk
from active_learning.loop import Interrupted, run_once
from active_learning.orders import Orders, What
from active_learning.presence import BEAT_S, Presence
from core.errors import LeaseHeld, RollmarkError
from core.ledger import Ledger, open_ledger
from core.settings import Settings, load_settings

logger = logging.getLogger(__name__)

JOB: Final = "retraining"
_TABLE: Final = "scheduled_jobs"  # APScheduler's own, beside ours
_GRACE_S: Final = 24 * 3600  # a pass that came due while nobody watched is still made, once
_LOOK_S: Final = 2.0  # between two looks for orders
_AGAIN_S: Final = 60.0  # between two passes for orders that could not be taken up
_HURRY: Final[tuple[What, ...]] = ("train", "drop")  # orders that need a pass
_stop = threading.Event()  # of this process: a job is called by name and can be handed nothing
_passing = threading.Event()  # while a pass is being made


def watch(settings: Settings) -> None:
    """Make a pass every `retraining.poll_min` minutes, the first at once where none was made yet;
    returns when told to stop.

    Raises:
        LedgerError: if the ledger cannot be opened.
    """
    ledger = open_ledger(settings.paths.ledger_url)  # also makes its folder and tables
    _stop.clear()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask_to_stop)
    scheduler = _scheduler(settings)
    logger.info("watching every %g min", settings.retraining.poll_min)
    presence = Presence(ledger, poll_min=settings.retraining.poll_min)
    _attend(scheduler, ledger, presence, settings)
    logger.info("stopping after the step in hand")
    scheduler.shutdown(wait=True)
    presence.leave()
    ledger.close()


def one_pass() -> None:
    """A pass with the settings as they are now; what goes wrong is for the log and the next."""
    if _stop.is_set():
        return
    _passing.set()
    try:
        settings = load_settings()
        desk = open_desk(settings)
        try:
            report = run_once(settings, desk, is_stopped=_stop.is_set)
        finally:
            desk.ledger.close()
        logger.info("%s %s: %s", report.run or "pass", report.verdict, " ".join(report.reasons))
    except Interrupted:
        logger.info("laid down; the next pass goes on")
    except LeaseHeld as exc:
        logger.info("%s", exc)
    except RollmarkError as exc:
        logger.error("the pass failed: %s", exc)
    except Exception:  # the scheduler has to live on
        logger.exception("the pass failed")
    finally:
        _passing.clear()


def _scheduler(settings: Settings) -> Any:
    """A running scheduler with the one job, which keeps its hour if it has one already."""
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    class Steady(BackgroundScheduler):  # type: ignore[misc]  # it comes without types
        """One whose thread outlives a ledger that fails just when an hour is noted.

        It guards itself against one that cannot be read only, and would watch on and pass no more.
        """

        def _process_jobs(self) -> Any:
            try:
                return super()._process_jobs()
            except SQLAlchemyError as exc:
                logger.warning("the hour of the next pass could not be noted: %s", exc)
                return self.jobstore_retry_interval

    # It warns of every pass that is left out because one still goes on, which is as it should be.
    logging.getLogger("apscheduler").setLevel(logging.ERROR)
    scheduler = Steady(
        jobstores={"default": SQLAlchemyJobStore(url=settings.paths.ledger_url, tablename=_TABLE)},
        executors={"default": ThreadPoolExecutor(1)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": _GRACE_S},
        timezone="UTC",
    )
    scheduler.start(paused=True)
    before = scheduler.get_job(JOB)
    now = datetime.now(UTC)
    due = before.next_run_time if before and before.next_run_time else now
    # Replaced rather than kept: the interval may have been changed.
    scheduler.add_job(
        one_pass,
        "interval",
        minutes=settings.retraining.poll_min,
        id=JOB,
        replace_existing=True,
        next_run_time=now if _is_too_late(due, now, settings) else due,
    )
    scheduler.resume()
    return scheduler


def _attend(scheduler: Any, ledger: Ledger, presence: Presence, settings: Settings) -> None:
    """Be there and bring passes forward for orders, until told to stop."""
    orders = Orders(ledger, lasts_h=settings.retraining.order_hours)
    beaten = hurried = -float("inf")  # seconds of the steady clock
    is_lost = False
    while not _stop.is_set():
        now = time.monotonic()
        try:
            if now - beaten >= BEAT_S:
                presence.beat()
                _keep_hours(scheduler, settings)
                beaten = now
            # What a pass could not take up, another model's or a broken one, is not tried at once.
            if now - hurried >= _AGAIN_S and not _passing.is_set() and _asked(orders):
                scheduler.modify_job(JOB, next_run_time=datetime.now(UTC))
                hurried = now
            is_lost = False
        except (RollmarkError, SQLAlchemyError) as exc:  # the second from the scheduler's own table
            if not is_lost:  # an outage is told once
                logger.warning("orders cannot be read: %s", exc)
            is_lost = True
        _stop.wait(_LOOK_S)


def _keep_hours(scheduler: Any, settings: Settings) -> None:
    """Make the next pass now if the clock was set back since its hour was noted."""
    job, now = scheduler.get_job(JOB), datetime.now(UTC)
    if job is not None and _is_too_late(job.next_run_time, now, settings):
        scheduler.modify_job(JOB, next_run_time=now)


def _is_too_late(due: datetime, now: datetime, settings: Settings) -> bool:
    """Whether an hour lies further ahead than any that was noted by this clock."""
    return due > now + timedelta(minutes=settings.retraining.poll_min, seconds=_LOOK_S)


def _asked(orders: Orders) -> bool:
    return any(orders.open_order(what) is not None for what in _HURRY)


def _ask_to_stop(number: int, frame: Any) -> None:
    _stop.set()
