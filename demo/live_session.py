"""One live view: pictures come as fast as they come, the newest is looked at, the rest is counted.

Nothing waits: while a model is busy, a newer picture takes the place of the one that waits, and
the one it replaced is counted as dropped. So what is shown is never old, and what was not looked at
is never hidden.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core.errors import InputError, RollmarkError
from core.types import DecodedImage
from demo.handlers import draw_tile
from demo.samples import picture_address
from demo.service import Look, Service
from demo.words import headline

logger = logging.getLogger(__name__)

STRIP: Final = 8  # answers kept to be shown
_RATE_WINDOW_S: Final = 10.0
_LEAST_S: Final = 1.0  # what was answered in less is not made a larger rate
_IDLE_S: Final = 60.0  # without a visitor's page asking, a view ends

Offered = DecodedImage | Path
Feed = Callable[["LiveView"], None]


@dataclass(frozen=True, slots=True)
class Past:
    """An answer in small; the picture itself, which may be large, is not kept for it."""

    tile: str  # address of the drawn picture
    text: str  # what was found


@dataclass(frozen=True, slots=True)
class Seen:
    """How a live view stands."""

    offered: int
    answered: int
    dropped: int
    unreadable: int
    per_s: float  # answers, of late or just before the end
    newest: Look | None  # None before the first answer
    strip: tuple[Past, ...]  # the newest first
    error: str  # the last thing that went wrong; "" if nothing did
    is_over: bool  # nothing more will be offered, and all is answered


class LiveView:
    """Looks at what is offered in a thread of its own until it is closed or forgotten.

    Args:
        service: what inspects.
        model: name of a served model, or `auto`.
        feed: offers pictures in a second thread until it returns or `is_closed`; None: the page
            offers them.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        service: Service,
        model: str,
        feed: Feed | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service, self._model, self._clock = service, model, clock
        self._newest: Offered | None = None
        self._condition = threading.Condition()
        self._offered = self._answered = self._dropped = self._unreadable = 0
        self._last: Look | None = None
        self._strip: deque[Past] = deque(maxlen=STRIP)
        self._times: deque[float] = deque()  # of the answers in the window
        self._began: float | None = None  # with the first picture
        self._ended: float | None = None
        self._error = ""
        self._closed = self._fed = self._busy = False
        self._asked = clock()
        threading.Thread(target=self._look, name="live-look", daemon=True).start()
        if feed is not None:
            threading.Thread(target=self._feed, args=(feed,), name="live-feed", daemon=True).start()

    @property
    def is_closed(self) -> bool:
        """Whether it has ended, or its page has gone away."""
        return self._closed or self._clock() - self._asked > _IDLE_S

    def offer(self, picture: Offered) -> None:
        """Have a picture looked at next; the one that waits is dropped and counted."""
        with self._condition:
            if self._newest is not None:
                self._dropped += 1
            self._offered += 1
            self._newest = picture
            if self._began is None:
                self._began = self._clock()
            self._condition.notify()

    def seen(self) -> Seen:
        """How it stands; asking keeps it alive."""
        with self._condition:
            self._asked = self._clock()
            return Seen(
                self._offered,
                self._answered,
                self._dropped,
                self._unreadable,
                self._rate(),
                self._last,
                tuple(reversed(self._strip)),
                self._error,
                self._closed or (self._fed and self._newest is None and not self._busy),
            )

    def _rate(self) -> float:
        """Answers per second of the time that passed, so that it falls while nothing is answered.

        Gaps between answers would leave out the wait for the first, and all that was dropped since.
        """
        end = self._clock() if self._ended is None else self._ended
        while self._times and self._times[0] <= end - _RATE_WINDOW_S:
            self._times.popleft()
        passed = end - self._began if self._began is not None else 0.0
        return len(self._times) / max(min(passed, _RATE_WINDOW_S), _LEAST_S)

    def fail(self, sentence: str) -> None:
        """Say what went wrong with the feed."""
        with self._condition:
            self._error = sentence

    def close(self) -> None:
        """End it."""
        with self._condition:
            self._closed = True
            self._condition.notify()

    def _feed(self, feed: Feed) -> None:
        try:
            feed(self)
        except RollmarkError as exc:
            self.fail(str(exc))
        except Exception:
            logger.exception("the feed of a live view failed")
            self.fail("The source of the pictures failed; the server's log says why.")
        with self._condition:
            self._fed = True
            self._condition.notify()

    def _look(self) -> None:
        while True:
            with self._condition:
                self._busy = False
                while self._newest is None and not self.is_closed:
                    if self._fed:
                        self._ended = self._clock()
                        return
                    self._condition.wait(timeout=1.0)
                if self.is_closed:
                    self._closed = True
                    self._ended = self._clock()
                    return
                picture, self._newest, self._busy = self._newest, None, True
            if picture is not None:
                self._answer(picture)

    def _answer(self, picture: Offered) -> None:
        try:
            look = self._service.inspect(picture, self._model)
            past = Past(picture_address(draw_tile(look)), headline(look.inspection).text)
        except RollmarkError as exc:
            with self._condition:
                self._unreadable += isinstance(exc, InputError)
                self._error = str(exc)
            return
        except Exception:
            logger.exception("a live picture failed")
            self.fail("A picture failed; the server's log says why.")
            return
        with self._condition:
            self._answered += 1
            self._times.append(self._clock())
            self._last = look
            self._strip.append(past)


class LiveViews:
    """The live views of all visitors; the one that was asked for longest ago makes room.

    Args:
        service: what inspects.
        most: views at a time.
    """

    def __init__(self, service: Service, *, most: int = 4) -> None:
        self._service, self._most = service, most
        self._views: OrderedDict[str, LiveView] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, model: str, feed: Feed | None = None) -> str:
        """Begin a view; its ID cannot be guessed.

        Raises:
            UnknownModelError: if no served model has that name.
        """
        chosen = self._service.choose(model).config.name
        view_id = secrets.token_urlsafe(12)
        with self._lock:
            for past in [k for k, view in self._views.items() if view.is_closed]:
                self._views.pop(past).close()
            while len(self._views) >= self._most:
                self._views.popitem(last=False)[1].close()
            self._views[view_id] = LiveView(self._service, chosen, feed)
        return view_id

    def view(self, view_id: str) -> LiveView | None:
        """The view of that ID, if it is still there."""
        with self._lock:
            found = self._views.get(view_id)
            if found is not None:
                self._views.move_to_end(view_id)
            return found

    def close(self, view_id: str) -> None:
        """End a view; one that is not there any more is no error."""
        with self._lock:
            view = self._views.get(view_id)
        if view is not None:
            view.close()
