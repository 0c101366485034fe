"""One pass of retraining, the conductor of the whole circle; run it as often as you like.

    pull → is a model due? → lease → snapshot → training → evaluated → gate → published → activated

What each phase found out is in the ledger or in the run's folder before the next begins, so a pass
that was killed anywhere is gone on with by the next one. Only the holder of the lease to train
writes; a holder that was replaced finds out at its next write. What goes wrong is noted with the
run, tried again in the next pass, and after five times left to a person, with the reason.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from active_learning._retraining_steps import Interrupted as Interrupted
from active_learning._retraining_steps import Steps
from active_learning.desk import Desk
from active_learning.errands import fetch, has_token
from active_learning.going_live import given_up
from active_learning.leases import Lease, Leases
from active_learning.orders import Order, Orders
from active_learning.outlook import Outlook, outlook, outlooks
from active_learning.retraining import LEASE, RetrainingRun, RetrainingRuns
from core.errors import (
    LabelStudioError,
    LeaseHeld,
    LeaseLost,
    PromotionRefused,
    RollmarkError,
)
from core.files import refusal
from core.settings import Settings
from hub.registry import resolve

logger = logging.getLogger(__name__)

LEASE_S: Final = 180.0  # a holder that is silent for so long is replaced
PassVerdict = Literal["promoted", "refused", "not due", "parked"]


@dataclass(frozen=True, slots=True)
class PassReport:
    """What a pass did; `run` and `phase` are empty where none was begun."""

    run: str
    phase: str
    verdict: PassVerdict
    reasons: tuple[str, ...]


def run_once(
    settings: Settings,
    desk: Desk,
    *,
    model: str | None = None,
    force: bool = False,
    on_point: Callable[[str], None] | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    lease_s: float = LEASE_S,
) -> PassReport:
    """Fetch answers, and train, prove and promote the model that is due, if one is.

    Args:
        settings: of this installation.
        desk: of its labelling project.
        model: which model; None: one that a person has asked for, else one with an open run, else
            the due one with most new reviews.
        force: train although nothing is due, and take a parked run up again.
        on_point: called with `<phase>:begin` before a phase's work and `<phase>:reached` after
            its commit.
        is_stopped: looked at after every epoch and between phases.
        lease_s: after how many seconds of silence another process may take over.

    Raises:
        Interrupted: if `is_stopped`; the run goes on in the next pass.
        LeaseHeld: if another process is training.
        LeaseLost: if this one was replaced.
        RollmarkError: why the run did not get further this time.
    """
    _pull(settings, desk)
    orders = Orders(desk.ledger, lasts_h=settings.retraining.order_hours)
    orders.close_stale()
    _drop(settings, desk, orders, lease_s=lease_s)
    order = orders.open_order("train", model=model)
    chosen, verdict = _choose(settings, desk, model=model, force=force, order=order)
    if chosen is None:
        return verdict
    order = order if order is not None and order.model == chosen.model else None
    leases, runs = Leases(desk.ledger), RetrainingRuns(desk.ledger, who=desk.queue.who)
    with leases.hold(LEASE, ttl_s=lease_s) as lease, _heartbeat(leases, lease, every_s=lease_s / 4):
        run = runs.request(
            lease,
            model=chosen.model,
            dataset=chosen.dataset,
            why=_why(chosen, order, force=force),
            incumbent=chosen.revision,
            reopens=force or order is not None,
            also=orders.taking(order) if order else None,
        )
        run = runs.park_if_spent(run, lease)
        if run.state == "parked":
            return _report(run)
        run = runs.take_up(run, lease)
        steps = Steps(
            settings,
            desk,
            runs,
            lease,
            is_stopped=lambda: is_stopped() or orders.asks_to_stop(run.id) is not None,
        )
        try:
            return _carry(run, steps, runs, lease, on_point or (lambda point: None))
        except Interrupted:
            return _lay_down(run, runs, lease, orders)
        except (KeyboardInterrupt, SystemExit):  # told to end at once: no fault of the run's
            runs.give_back(run, lease)
            raise


def _lay_down(run: RetrainingRun, runs: RetrainingRuns, lease: Lease, orders: Orders) -> PassReport:
    """Let go of a run that was stopped: until a person goes on with it, or until the next pass.

    Raises:
        Interrupted: if it was the process that was asked to stop, and no person stopped the run.
    """
    order = orders.asks_to_stop(run.id)
    if order is None:
        runs.give_back(run, lease)
        raise Interrupted
    progress = (runs.get(run.id) or run).progress
    far = f"after epoch {progress.epoch} of {progress.epochs}" if progress.epoch else "early"
    reason = f"Stopped by {order.who} {far}; what was done is kept, and it goes on from there."
    run = runs.end(run, lease, "parked", (reason,))
    orders.obeyed(order, f"run {run.id} was stopped")
    return _report(run)


def _drop(settings: Settings, desk: Desk, orders: Orders, *, lease_s: float) -> None:
    """Give up the parked runs that people have asked to be given up."""
    leases, runs = Leases(desk.ledger), RetrainingRuns(desk.ledger, who=desk.queue.who)
    while (order := orders.open_order("drop")) is not None:
        with leases.hold(LEASE, ttl_s=lease_s) as lease:
            run = runs.get(order.run or "")
            if run is not None and run.state == "parked":
                runs.end(run, lease, *given_up(run, order.who, settings.paths))
            orders.obeyed(order, f"run {order.run} was given up")


def _carry(
    run: RetrainingRun,
    steps: Steps,
    runs: RetrainingRuns,
    lease: Lease,
    reached: Callable[[str], None],
) -> PassReport:
    """From the phase a run is in to its end, or to what stops it."""
    try:
        while run.state == "open":
            if steps.is_stopped():
                raise Interrupted
            reached(f"{run.phase}:begin")
            run = steps.next(run)
            logger.info("%s reached %s", run.id, run.phase)
            reached(f"{run.phase}:reached")
    except (Interrupted, LeaseLost):
        raise
    except PromotionRefused as exc:  # candidate and incumbent cannot be compared, now or ever
        return _report(runs.end(run, lease, "refused", (str(exc),)))
    except RollmarkError as exc:
        run = runs.fail(run, lease, str(exc))
        if run.state == "parked":
            return _report(run)
        raise
    except Exception as exc:
        refused = refusal(exc) if isinstance(exc, OSError) else None
        runs.fail(run, lease, refused or f"unforeseen {type(exc).__name__}; the log says more.")
        raise
    return _report(run)


def _report(run: RetrainingRun) -> PassReport:
    verdict: PassVerdict = "refused"
    if run.state in ("promoted", "parked"):
        verdict = run.state
    logger.info("%s %s: %s", run.id, verdict, " ".join(run.reasons))
    return PassReport(run.id, run.phase, verdict, run.reasons)


def _choose(
    settings: Settings, desk: Desk, *, model: str | None, force: bool, order: Order | None
) -> tuple[Outlook | None, PassReport]:
    """The model to train, or the report of a pass that trains none."""
    if model is not None:
        views: Sequence[Outlook] = [outlook(settings, desk, resolve(model, settings.paths))]
    else:
        views = outlooks(settings, desk)
    asked = [v for v in views if order is not None and v.model == order.model]
    if asked:
        return asked[0], _nothing(views)
    open_views = [v for v in views if v.open_run and (v.open_run.state == "open" or force)]
    due = [v for v in views if v.due.now]
    if open_views:
        return open_views[0], _nothing(views)
    if due or (force and views):
        return max(due or views, key=lambda v: v.new_reviews), _nothing(views)
    return None, _nothing(views)


def _why(chosen: Outlook, order: Order | None, *, force: bool) -> str:
    """Why a run is begun, in the words that the page shows."""
    if order is not None:
        return f"asked for by {order.who} on the page."
    return "asked for by hand" if force and not chosen.due.now else chosen.due.why


def _nothing(views: Sequence[Outlook]) -> PassReport:
    """Why nothing is trained, model by model; a parked run is the first to be told."""
    parked = [v.open_run for v in views if v.open_run and v.open_run.state == "parked"]
    if parked:
        run = parked[0]
        return PassReport(run.id, run.phase, "parked", run.reasons)
    return PassReport("", "", "not due", tuple(f"{v.model}: {v.due.why}" for v in views))


def _pull(settings: Settings, desk: Desk) -> None:
    """Fetch answers where there is a token; training waits for no Label Studio that is down."""
    if not has_token(settings.label_studio):
        return
    try:
        fetch(settings, desk)
    except (LabelStudioError, LeaseHeld, LeaseLost) as exc:  # the app may be fetching, too
        logger.warning("answers were not fetched: %s", exc)


@contextmanager
def _heartbeat(leases: Leases, lease: Lease, *, every_s: float) -> Iterator[None]:
    """Renew the lease from a thread of its own while a phase takes its time."""
    over = threading.Event()

    def beat() -> None:
        while not over.wait(every_s):
            try:
                leases.renew(lease)
            except LeaseLost:
                return  # the next write of the main thread says so
            except RollmarkError as exc:
                logger.warning("the lease could not be renewed: %s", exc)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
