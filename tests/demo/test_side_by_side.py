"""Several calls at a time, and their results in order."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from demo import side_by_side
from demo.side_by_side import in_order


def test_results_come_in_order_though_the_last_is_ready_first() -> None:
    ready = [threading.Event() for _ in range(3)]

    def work(number: int) -> int:
        if number < 2:
            assert ready[number + 1].wait(60)  # the one after it has to be done already
        ready[number].set()
        return 10 * number

    assert list(in_order(work, [0, 1, 2], at_once=3)) == [0, 10, 20]


def test_no_more_than_agreed_are_at_work() -> None:
    lock, at_work, most = threading.Lock(), 0, 0
    both = threading.Barrier(2, timeout=60)  # which two of six pass together, three times

    def work(_: int) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        both.wait()
        with lock:
            at_work -= 1

    list(in_order(work, range(6), at_once=2))
    assert most == 2


def test_an_error_is_raised_in_its_item_s_place() -> None:
    found = in_order(lambda n: 6 // n, [3, 0, 2], at_once=3)
    assert next(found) == 2
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_what_has_not_begun_is_left_undone_when_nobody_reads_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun: list[int] = []
    go = threading.Event()

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
            super().shutdown(wait=False, cancel_futures=cancel_futures)
            threading.Timer(0.05, go.set).start()  # not before the rest has been left
            super().shutdown(wait=wait)

    monkeypatch.setattr(side_by_side, "ThreadPoolExecutor", Pool)

    def work(number: int) -> int:
        begun.append(number)
        if number:
            go.wait(60)
        return number

    found = in_order(work, range(5), at_once=2)
    assert next(found) == 0
    found.close()
    assert set(begun) <= {0, 1, 2}
    assert go.is_set()  # what had begun was waited for
