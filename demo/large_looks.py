"""A look at a large picture, watched from outside: how far it has come, and calling it off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from time import monotonic
from typing import Final, TypeVar

from core.errors import RollmarkError
from demo.waiting import Large
from demo.words import duration
from models._steps import told_to

_EVERY_S: Final = 0.5

T = TypeVar("T")


class CalledOff(RollmarkError):
    """Nobody waits for the answer any longer."""


def watch(
    look: Callable[[], T], large: Large, is_wanted: Callable[[], bool]
) -> Generator[str, None, T]:
    """Let a model look in a thread of its own, and say twice a second how far it has come.

    A generator that is closed calls the look off as well, after the pass that is under way.

    Args:
        look: asks the model.
        large: the picture and how much there is to do.
        is_wanted: whether somebody still waits for the answer.

    Yields:
        "48 of 80 tiles, about 12 s left"; "" before the first pass is done.

    Returns:
        What `look` returns.

    Raises:
        CalledOff: if it was not wanted before it was done.
        Exception: whatever `look` raises.
    """
    gone = threading.Event()
    began, done = monotonic(), 0

    def hear(tiles: int) -> None:
        nonlocal done
        done = min(done + tiles, large.tiles)
        if gone.is_set() or not is_wanted():
            raise CalledOff("It is not wanted any longer.")

    def listened() -> T:
        with told_to(hear):
            return look()

    with ThreadPoolExecutor(1, thread_name_prefix="large-look") as pool:
        asked = pool.submit(listened)
        try:
            while not wait([asked], timeout=_EVERY_S).done:
                yield _progress(done, large.tiles, monotonic() - began)
        finally:
            gone.set()
        return asked.result()


def _progress(done: int, tiles: int, seconds: float) -> str:
    if not done:
        return ""
    said = f"{done} of {tiles} tiles"
    left_ms = 1000 * seconds * (tiles - done) / done
    return f"{said}, about {duration(left_ms)} left" if left_ms else said
