"""How far a look at a large picture has come, told to whoever waits for it and may call it off.

The listener is of the thread that asks. A predictor that lets another thread look for it hands the
listener on, as `demo.batching` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int], None]
_LISTENER: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def told_to(listener: Listener | None) -> Iterator[None]:
    """Within it the listener hears, after every pass, how many tiles were looked at in that pass.

    What it raises ends the look and comes out of the predictor. None: nobody listens.
    """
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)


def listener() -> Listener | None:
    """Who listens in this thread."""
    return _LISTENER.get()


def tell(tiles: int) -> None:
    """Say that so many tiles more were looked at."""
    if hears := _LISTENER.get():
        hears(tiles)
