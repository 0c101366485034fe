"""What is done with an answer after it was given: the drift window, and a candidate in the shadow.

One thread of its own takes answers from a short queue. Nobody waits for it: what does not fit is
dropped and counted, what fails is a line in the log. The pictures that come with the app tell
nothing about a mill and are left out.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from active_learning.drift import Seen, observe
from active_learning.incoming import Incoming
from core.errors import RollmarkError
from core.ledger import Ledger
from core.records import Inspection
from core.types import DecodedImage
from demo.doubts import sample_hashes

logger = logging.getLogger(__name__)

_WAITING: Final = 64  # answers that may wait; each holds its decoded picture
_BATCH: Final = 100  # inspections written in one transaction
_PAUSE_S: Final = 0.5  # after which fewer are written, too


@dataclass(frozen=True, slots=True)
class Answered:
    """An image, what was said of it, and its encoded bytes where they are known."""

    image: DecodedImage
    inspection: Inspection  # at the release's own score threshold
    data: bytes | None


_Noted = tuple[DecodedImage, Callable[[], Inspection], bytes | None]
_Told = tuple[str, str, Seen]  # by which model and revision


class Observer:
    """Looks at answers in the background.

    Args:
        ledger: opens the ledger; called in the background, when there is something to write.
        window: inspections of each model that are kept.
        beside: what else looks at an answer, such as a candidate in the shadow.
    """

    def __init__(
        self,
        ledger: Callable[[], Ledger],
        *,
        window: int,
        beside: Callable[[Answered], None] | None = None,
    ) -> None:
        self._ledger = ledger
        self._window = window
        self._beside = beside
        self._queue: queue.Queue[_Noted] = queue.Queue(_WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def note(
        self, image: DecodedImage, read: Callable[[], Inspection], data: bytes | None = None
    ) -> None:
        """Hand over an answer; returns at once and never raises.

        Args:
            image: that was looked at.
            read: the answer at the release's own score threshold, which references were made at:
                where somebody moved it, what is hidden by that is no drift.
            data: its encoded bytes, where they are known.
        """
        if image.sha256 in sample_hashes():
            return
        try:
            self._queue.put_nowait((image, read, data))
        except queue.Full:
            self.dropped += 1
        if self._thread is None:
            self._start()

    def settle(self) -> None:
        """Wait until everything that was handed over has been looked at."""
        self._queue.join()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="observer", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            seen = self._take()
            self._write([told for told in seen if told is not None])
            for _ in seen:
                self._queue.task_done()

    def _take(self) -> list[_Told | None]:
        """What one answer at least tells, and those that come within a moment; no picture."""
        seen = [self._look(self._queue.get())]
        while len(seen) < _BATCH:
            try:
                seen.append(self._look(self._queue.get(timeout=_PAUSE_S)))
            except queue.Empty:
                break
        return seen

    def _look(self, noted: _Noted) -> _Told | None:
        """What an answer tells; None where it cannot be read again."""
        image, read, data = noted
        try:
            answered = Answered(image, read(), data)
            said = answered.inspection
            told = said.model, said.revision, observe(image.pixels, said)
        except Exception:  # the thread has to live on
            logger.exception("an inspection is missing from the drift window")
            return None
        if self._beside is not None:
            try:
                self._beside(answered)
            except RollmarkError as exc:
                logger.error("an answer was not looked at beside: %s", exc)
            except Exception:  # the thread has to live on
                logger.exception("an answer was not looked at beside")
        return told

    def _write(self, seen: list[_Told]) -> None:
        if not seen:
            return
        try:
            Incoming(self._ledger(), window=self._window).add(seen)
        except RollmarkError as exc:
            logger.error("%d inspections are missing from the drift window: %s", len(seen), exc)
        except Exception:  # the thread has to live on
            logger.exception("%d inspections are missing from the drift window", len(seen))
