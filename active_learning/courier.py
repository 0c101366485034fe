"""The app's own way to Label Studio and back: one thread that sends on request and fetches in time.

It fetches when a webhook hints at something new, and every few minutes anyway, because hints get
lost. It runs only where there is a token. It may be killed at any moment: both errands can be.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from active_learning.desk import Desk
from active_learning.errands import fetch, has_token, send
from active_learning.push import STOPPED, PushReport
from active_learning.wording import count
from core.errors import ConfigError, InputError, LeaseHeld, LeaseLost, RollmarkError
from core.settings import Settings

logger = logging.getLogger(__name__)

UNFORESEEN: Final = "Something failed on the server; its log says what."
_BURST_S: Final = 1.0  # answers come in bursts: one fetch takes what arrives within this time


@dataclass(frozen=True, slots=True)
class Carried:
    """What the courier is doing, and how its last errands ended."""

    sending: tuple[int, int] | None = None  # tasks made so far, images to send
    sent: str = ""  # how the last sending ended, a sentence; "" before the first
    is_sent_whole: bool = True  # it did all that it should have
    fetched_at: datetime | None = None  # the last fetch that went well
    fetch_error: str = ""  # why the one after it did not, a sentence


class Courier:
    """Carries images and answers between the ledger and Label Studio, in the background.

    Args:
        settings: of this installation.
        open_desk: the desk as it is now; a promotion may have brought new classes.
        burst_s: for how long hints are gathered before answers are fetched.
    """

    def __init__(
        self, settings: Settings, open_desk: Callable[[], Desk], *, burst_s: float = _BURST_S
    ) -> None:
        self.poll_now = threading.Event()  # a hint that there is something to fetch
        self._settings = settings
        self._open_desk = open_desk
        self._burst_s = burst_s
        self._lock = threading.Lock()
        self._carried = Carried()
        self._wanted = 0  # images to send, as a person has asked
        self._stop = threading.Event()  # sending
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_employed(self) -> bool:
        """Whether there is a token, without which there is nothing it could do."""
        return has_token(self._settings.label_studio)

    @property
    def carried(self) -> Carried:
        """How things stand."""
        with self._lock:
            return self._carried

    def start(self) -> None:
        """Begin; once, and only where there is a token."""
        if self.is_employed and self._thread is None:
            self._thread = threading.Thread(target=self._run, name="courier", daemon=True)
            self._thread.start()

    def close(self, *, timeout_s: float = 30.0) -> None:
        """End after the item or page in hand."""
        self._closing.set()
        self._stop.set()
        self.poll_now.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def send(self, images: int) -> None:
        """Ask for this many images to be sent; asked again meanwhile, it changes nothing.

        Raises:
            ConfigError: if there is no token.
            InputError: if there is nothing to send.
        """
        if images < 1:
            raise InputError("No image waits to be sent.")
        if not self.is_employed:
            raise ConfigError(
                "Nothing can be sent: Label Studio's token is missing in "
                "ROLLMARK_LABEL_STUDIO__TOKEN."
            )
        self.start()
        with self._lock:
            if self._carried.sending is None:
                self._wanted = images
                self._carried = replace(self._carried, sending=(0, images))
                self._stop.clear()
        self.poll_now.set()

    def stop_sending(self) -> None:
        """Send no more than the image in hand."""
        self._stop.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self.poll_now.clear()
            with self._lock:
                wanted, self._wanted = self._wanted, 0
            if wanted:
                self._send(wanted)
            self._fetch()
            if self.poll_now.wait(self._settings.label_studio.poll_min * 60):
                self._closing.wait(0 if self._wanted else self._burst_s)

    def _send(self, images: int) -> None:
        made = 0

        def count_tasks(point: str) -> None:
            nonlocal made
            if point == "push:created":
                made += 1
                self._tell(sending=(made, images))

        try:
            report = send(
                self._settings,
                self._open_desk(),
                budget=images,
                on_point=count_tasks,
                is_stopped=self._stop.is_set,
            )
            self._tell(sent=summary(report), is_sent_whole=is_whole(report))
        except RollmarkError as exc:
            logger.warning("sending to Label Studio failed: %s", exc)
            self._tell(sent=str(exc), is_sent_whole=False)
        except Exception:  # the thread has to live on
            logger.exception("sending to Label Studio failed")
            self._tell(sent=UNFORESEEN, is_sent_whole=False)
        finally:
            self._tell(sending=None)

    def _fetch(self) -> None:
        try:
            desk = self._open_desk()
            taken = fetch(self._settings, desk)
        except (LeaseHeld, LeaseLost):
            return  # another replica is at it, the second because this one was slow
        except RollmarkError as exc:
            if str(exc) != self.carried.fetch_error:  # an outage is told once
                logger.warning("fetching from Label Studio failed: %s", exc)
            self._tell(fetch_error=str(exc))
        except Exception:  # the thread has to live on
            logger.exception("fetching from Label Studio failed")
            self._tell(fetch_error=UNFORESEEN)
        else:
            if taken.applied or taken.deleted:
                logger.info("fetched %d answers, %d deleted", taken.applied, taken.deleted)
            self._tell(fetched_at=desk.ledger.clock.now(), fetch_error="")

    def _tell(self, **changes: object) -> None:
        with self._lock:
            self._carried = replace(self._carried, **changes)  # type: ignore[arg-type]


def is_whole(report: PushReport) -> bool:
    """Whether a sending did all that it should have."""
    return not (report.stopped or report.unknown or report.parked)


def summary(report: PushReport) -> str:
    """How a sending ended, in one sentence."""
    parts = [f"{count(report.sent, 'image')} sent to Label Studio"]
    if report.parked:
        parts.append(f"{report.parked} set aside for a person to look at")
    if report.unknown:
        parts.append(f"{report.unknown} of which Label Studio is asked again")
    said = ", ".join(parts) + "."
    if report.stopped == STOPPED:
        return f"Stopped: {said[:1].lower()}{said[1:]}"
    return f"{said} Stopped early: {report.stopped}" if report.stopped else said
