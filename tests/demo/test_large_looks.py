"""A look at a large picture: what is said of it while it lasts, and calling it off."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from core.errors import WeightsError
from demo import large_looks
from demo.large_looks import CalledOff, watch
from demo.waiting import Large
from models._steps import tell

STRIP = Large(80, "GRACE looks at 12,000 × 200 px in 80 tiles …")


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_looks, "_EVERY_S", 0.01)


def _all(steps: Any) -> tuple[list[str], Any]:
    said = []
    while True:
        try:
            said.append(next(steps))
        except StopIteration as end:
            return said, end.value


def test_how_far_it_has_come_is_said_and_the_answer_returned() -> None:
    told, go_on = threading.Event(), threading.Event()

    def look() -> str:
        tell(16)
        tell(32)
        told.set()
        assert go_on.wait(60)
        return "the answer"

    steps = watch(look, STRIP, lambda: True)
    next(steps)  # the thread may not have begun
    assert told.wait(60)
    said = next(steps)
    assert said.startswith("48 of 80 tiles, about ")
    assert said.endswith(" left")
    go_on.set()
    assert _all(steps)[1] == "the answer"


def test_nothing_is_said_before_the_first_pass_is_done() -> None:
    go_on = threading.Event()
    steps = watch(lambda: go_on.wait(60), STRIP, lambda: True)
    assert next(steps) == ""
    go_on.set()
    assert _all(steps)[1] is True


def test_a_look_that_is_not_wanted_any_longer_ends_after_its_pass() -> None:
    passes = []

    def look() -> None:
        for _ in range(5):
            passes.append(16)
            tell(16)

    with pytest.raises(CalledOff):
        _all(watch(look, STRIP, lambda: len(passes) < 2))
    assert passes == [16, 16]


def test_a_page_that_is_closed_calls_its_look_off() -> None:
    passes, closed = [], threading.Event()

    def look() -> None:
        for _ in range(5):
            passes.append(16)
            if len(passes) == 2:
                assert closed.wait(60)
            tell(16)

    steps = watch(look, STRIP, lambda: True)
    while len(passes) < 2:
        next(steps)
    threading.Timer(0.05, closed.set).start()
    steps.close()  # waits for the pass that is under way
    assert passes == [16, 16]


def test_what_goes_wrong_in_the_look_is_raised() -> None:
    def look() -> None:
        raise WeightsError("They are damaged.")

    with pytest.raises(WeightsError, match="They are damaged"):
        _all(watch(look, STRIP, lambda: True))


@pytest.mark.parametrize(
    ("done", "seconds", "text"),
    [
        (0, 3.0, ""),
        (20, 4.0, "20 of 80 tiles, about 12 s left"),  # 60 more at 5 a second
        (80, 4.0, "80 of 80 tiles"),
    ],
)
def test_the_time_left_is_what_the_rest_takes_at_this_rate(
    done: int, seconds: float, text: str
) -> None:
    assert large_looks._progress(done, 80, seconds) == text
