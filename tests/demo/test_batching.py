"""Pictures from many callers in common passes: who is answered when, and with whom."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from core.errors import InputError
from core.types import Classification, DecodedImage, Prediction, Provenance
from demo.batching import Batcher
from models._steps import tell, told_to

BAD = 13  # width of a picture that cannot be looked at


class Eye:
    """Notes every pass; can be kept from answering until it is let go."""

    spec: Any = None
    revision, labels = "r", ("a",)

    def __init__(self) -> None:
        self.passes: list[tuple[int, ...]] = []  # widths of the pictures of each
        self.started, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        self.passes.append(tuple(image.width for image in images))
        self.started.set()
        assert self.go_on.wait(60)
        if any(image.width == BAD for image in images):
            raise InputError("This one cannot be looked at.")
        return [_answer(image) for image in images]


def _picture(width: int) -> DecodedImage:
    return DecodedImage(np.zeros((4, width, 3), np.uint8), sha256="0" * 64)


def _answer(image: DecodedImage) -> Prediction:
    source = Provenance("m", "r", image.sha256, image.width, image.height, 1.0)
    return Classification(np.ones(1, np.float32), ("a",), source)


def _ask(batcher: Batcher, width: int, threshold: float = 0.1) -> int:
    [answer] = batcher([_picture(width)], score_threshold=threshold)
    return answer.source.width


def _queued(batcher: Batcher, count: int) -> None:
    """Return when that many requests wait."""
    deadline = time.monotonic() + 60
    with batcher._changed:
        while len(batcher._waiting) < count:
            assert time.monotonic() < deadline
            batcher._changed.wait(0.1)


def _while_one_is_looked_at(
    batcher: Batcher, eye: Eye, widths: Sequence[int], thresholds: Sequence[float] | None = None
) -> list[Any]:
    """Answers, or errors, of requests that all arrive during the pass of another one."""
    eye.go_on.clear()
    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(_ask, batcher, 1)
        assert eye.started.wait(60)
        asked = []
        for number, width in enumerate(widths):
            threshold = 0.1 if thresholds is None else thresholds[number]
            asked.append(pool.submit(_ask, batcher, width, threshold))
            _queued(batcher, number + 1)
        eye.go_on.set()
        assert first.result(60) == 1
        return [future.exception(60) or future.result() for future in asked]


def test_a_request_that_comes_alone_is_answered_at_once() -> None:
    eye = Eye()
    batcher = Batcher(eye, max_wait_s=30)
    started = time.monotonic()
    assert [_ask(batcher, 5), _ask(batcher, 6)] == [5, 6]
    assert time.monotonic() - started < 15
    assert eye.passes == [(5,), (6,)]


def test_what_arrives_during_a_pass_shares_the_next_and_each_gets_its_own_answer() -> None:
    eye = Eye()
    batcher = Batcher(eye)
    assert _while_one_is_looked_at(batcher, eye, [2, 3, 4]) == [2, 3, 4]
    assert eye.passes == [(1,), (2, 3, 4)]


def test_a_pass_has_at_most_so_many_pictures() -> None:
    eye = Eye()
    batcher = Batcher(eye, max_tiles=2)
    assert _while_one_is_looked_at(batcher, eye, [2, 3, 4, 5, 6]) == [2, 3, 4, 5, 6]
    assert eye.passes == [(1,), (2, 3), (4, 5), (6,)]


def test_a_pass_is_bounded_by_the_tiles_in_it() -> None:
    """Widths stand for tiles here: 9 and 5 fit into 16, the 3 after them does not."""
    eye = Eye()
    batcher = Batcher(eye, tiles=lambda image: image.width, max_tiles=16)
    assert _while_one_is_looked_at(batcher, eye, [9, 5, 3, 2]) == [9, 5, 3, 2]
    assert eye.passes == [(1,), (9, 5, 2), (3,)]


def test_a_small_picture_waits_for_one_strip_and_not_for_all_that_came_before_it() -> None:
    eye = Eye()
    batcher = Batcher(eye, tiles=lambda image: image.width, max_tiles=16)
    strips = [240] * 16
    assert _while_one_is_looked_at(batcher, eye, [*strips, 2, 3]) == [*strips, 2, 3]
    assert eye.passes == [(1,), (240,), (2, 3), *[(240,)] * 15]


def test_small_pictures_that_keep_coming_let_a_strip_have_its_turn() -> None:
    eye = Eye()
    batcher = Batcher(eye, tiles=lambda image: image.width, max_tiles=2)
    asked = [240, 250, 1, 1, 1, 1, 1]
    assert _while_one_is_looked_at(batcher, eye, asked) == asked
    assert eye.passes == [(1,), (240,), (1, 1), (250,), (1, 1), (1,)]


def test_one_bad_picture_fails_alone() -> None:
    eye = Eye()
    batcher = Batcher(eye)
    good, bad, other = _while_one_is_looked_at(batcher, eye, [2, BAD, 4])
    assert (good, other) == (2, 4)
    assert isinstance(bad, InputError)
    assert eye.passes == [(1,), (2, BAD, 4), (2,), (BAD,), (4,)]
    assert _ask(batcher, 7) == 7


def test_different_thresholds_are_different_passes() -> None:
    eye = Eye()
    batcher = Batcher(eye)
    found = _while_one_is_looked_at(batcher, eye, [2, 3, 4], thresholds=[0.1, 0.5, 0.1])
    assert found == [2, 3, 4]
    assert eye.passes == [(1,), (2, 4), (3,)]


def test_after_a_shared_pass_the_next_waits_a_moment_for_those_who_shared_it() -> None:
    eye = Eye()
    batcher = Batcher(eye, max_wait_s=30)
    _while_one_is_looked_at(batcher, eye, [2, 3])
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(_ask, batcher, 8)
        _queued(batcher, 1)
        other = pool.submit(_ask, batcher, 9)
        assert (one.result(60), other.result(60)) == (8, 9)
    assert eye.passes[2:] == [(8, 9)]


def test_those_who_do_not_come_back_are_not_waited_for_long() -> None:
    eye = Eye()
    batcher = Batcher(eye, max_wait_s=0.01)
    _while_one_is_looked_at(batcher, eye, [2, 3])
    assert _ask(batcher, 8) == 8
    assert eye.passes[2:] == [(8,)]


def test_a_batch_already_made_is_one_pass() -> None:
    eye = Eye()
    found = Batcher(eye)([_picture(2), _picture(3)], score_threshold=0.1)
    assert [one.source.width for one in found] == [2, 3]
    assert eye.passes == [(2, 3)]


def test_many_callers_all_get_their_own_answer() -> None:
    eye = Eye()
    batcher = Batcher(eye)
    widths = [20 + i for i in range(200)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda width: _ask(batcher, width), widths)) == widths
    assert sorted(width for one in eye.passes for width in one) == widths


@pytest.mark.parametrize("name", ["spec", "revision", "labels"])
def test_a_batcher_is_the_predictor_to_everyone_else(name: str) -> None:
    eye = Eye()
    assert getattr(Batcher(eye), name) is getattr(eye, name)


class Telling(Eye):
    """Says after every pass how many pictures it had."""

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        answers = super().__call__(images, score_threshold=score_threshold)
        tell(images[0].width)
        return answers


def _told(batcher: Batcher, eye: Eye, heard: dict[int, list[int]]) -> None:
    """A picture of 20 px is looked at, and two more wait; each caller notes what it hears."""
    eye.go_on.clear()

    def ask(width: int) -> int:
        with told_to(heard[width].append):
            return _ask(batcher, width)

    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, 20)
        assert eye.started.wait(60)
        others = [pool.submit(ask, width) for width in (30, 40)]
        _queued(batcher, 2)
        eye.go_on.set()
        assert [first.result(60), *(other.result(60) for other in others)] == [20, 30, 40]


def test_each_caller_hears_of_its_own_picture_whoever_looks_at_it() -> None:
    eye, heard = Telling(), {20: list[int](), 30: list[int](), 40: list[int]()}
    _told(Batcher(eye, tiles=lambda image: 100, max_tiles=16), eye, heard)  # each alone
    assert heard == {20: [20], 30: [30], 40: [40]}


def test_nobody_hears_of_a_pass_that_several_share() -> None:
    eye, heard = Telling(), {20: list[int](), 30: list[int](), 40: list[int]()}
    _told(Batcher(eye), eye, heard)
    assert eye.passes == [(20,), (30, 40)]
    assert heard == {20: [20], 30: [], 40: []}
