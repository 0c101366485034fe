"""Which of a visitor's wishes is the newest: answers to older ones come too late to be shown.

A page may ask for a second picture, model or row before the first is answered, and answers overtake
each other. Gradio's own modes would forget the second wish (`once`), or repeat the first one with
what belonged to its event (`always_last`).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from time import monotonic
from typing import Any, Final

_VISITORS: Final = 500  # that are remembered at a time
_TWICE_S: Final = 1.0  # within which a drop-down tells one choice twice


class Latest:
    """One for each place of a page that several wishes fill."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count()
        self._newest: OrderedDict[str, tuple[int, object, float | None]] = OrderedDict()
        self._told: OrderedDict[str, tuple[object, float]] = OrderedDict()

    def begin(
        self, request: Any, about: object = None, at: float | None = None
    ) -> Callable[[], bool]:
        """Take note of a wish.

        Args:
            request: a `gr.Request`, whose session is the visitor.
            about: what it is about, for a wish that says no more than "the same again".
            at: when it was made by the visitor's own clock, where the page tells: one that was
                made before the newest and arrives after it is not wanted from the start.

        Returns:
            Says whether the wish still is the visitor's newest.
        """
        visitor = str(request.session_hash)
        with self._lock:
            *_, before = self._newest.get(visitor, (0, None, None))
            if at is not None and before is not None and at < before:
                return lambda: False
            number = next(self._numbers)
            self._newest[visitor] = number, about, before if at is None else at
            self._newest.move_to_end(visitor)
            if len(self._newest) > _VISITORS:
                self._newest.popitem(last=False)
        return lambda: self._newest.get(visitor, (number,))[0] == number

    def about(self, request: Any) -> Any:
        """What the visitor's newest wish is about, answered or not; None without one.

        Args:
            request: a `gr.Request`, whose session is the visitor.
        """
        return self._newest.get(str(request.session_hash), (0, None, None))[1]

    def has_asked(self, request: Any) -> bool:
        """Whether the visitor has wished for anything yet.

        Args:
            request: a `gr.Request`, whose session is the visitor.
        """
        return str(request.session_hash) in self._newest

    def is_repeated(self, request: Any, wish: object) -> bool:
        """Whether the visitor wished the very same a moment ago: a drop-down tells a choice twice.

        Args:
            request: a `gr.Request`, whose session is the visitor.
            wish: what is compared.
        """
        visitor, now = str(request.session_hash), monotonic()
        with self._lock:
            before, at = self._told.pop(visitor, (None, -_TWICE_S))
            self._told[visitor] = wish, now
            if len(self._told) > _VISITORS:
                self._told.popitem(last=False)
        return wish == before and now - at < _TWICE_S
