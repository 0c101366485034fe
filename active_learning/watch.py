"""The scheduler: a pass of the loop every few minutes, until it is told to stop.

The job lies in the ledger, so a watcher that is started again keeps the old one's hours; the lease
to train keeps two of them from training at once. SIGTERM and SIGINT end it in good order: training
stops after the epoch in hand, and the next watcher goes on from there.
"""

from __future__ import annotations

import logging
import signal
import threading
from typing import Any, Final

from active_learning.desk import open_desk
from active_learning.loop import Interrupted, run_once
from core.errors import LeaseHeld, RollmarkError
from core.ledger import migrate
from core.settings import Settings, load_settings

logger = logging.getLogger(__name__)

JOB: Final = "retraining"
_TABLE: Final = "scheduled_jobs"  # APScheduler's own, beside ours
_GRACE_S: Final = 24 * 3600  # a pass that came due while nobody watched is still made, once
_stop = threading.Event()  # of this process: a job is called by name and can be handed nothing


def watch(settings: Settings) -> None:
    """Make a pass now and every `retraining.poll_min` minutes; returns when told to stop.

    Raises:
        LedgerError: if the ledger cannot be opened.
    """
    from apscheduler.executors.pool import ThreadPoolExecutor
    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    migrate(settings.paths.ledger_url)  # also makes its folder
    _stop.clear()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ask_to_stop)
    scheduler = BackgroundScheduler(
        jobstores={"default": SQLAlchemyJobStore(url=settings.paths.ledger_url, tablename=_TABLE)},
        executors={"default": ThreadPoolExecutor(1)},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": _GRACE_S},
        timezone="UTC",
    )
    scheduler.start(paused=True)
    # Replaced rather than kept: the interval may have been changed. Its hour stays if it has one.
    before = scheduler.get_job(JOB)
    scheduler.add_job(
        one_pass,
        "interval",
        minutes=settings.retraining.poll_min,
        id=JOB,
        replace_existing=True,
        **({"next_run_time": before.next_run_time} if before and before.next_run_time else _now()),
    )
    scheduler.resume()
    logger.info("watching every %g min", settings.retraining.poll_min)
    _stop.wait()
    logger.info("stopping after the step in hand")
    scheduler.shutdown(wait=True)


def one_pass() -> None:
    """A pass with the settings as they are now; what goes wrong is for the log and the next."""
    if _stop.is_set():
        return
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


def _ask_to_stop(number: int, frame: Any) -> None:
    _stop.set()


def _now() -> dict[str, Any]:
    from datetime import UTC, datetime

    return {"next_run_time": datetime.now(UTC)}
