"""Several calls at a time, their results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_order(
    work: Callable[[_Item], _Result], items: Sequence[_Item], *, at_once: int
) -> Iterator[_Result]:
    """The result of each item as soon as those of the items before it are there.

    Who stops reading waits for what has begun; what has not begun is left undone.

    Args:
        work: called from threads; what it raises is raised in its item's place.
        items: what it is called with.
        at_once: calls at a time, at least 1.
    """
    pool = ThreadPoolExecutor(at_once)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)
