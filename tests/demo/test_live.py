"""Live views: the newest picture is looked at, what was dropped is counted, nothing piles up."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest

from core.errors import InputError
from core.images import ImageLimits
from demo.live_feeds import folder_feed, picture_of, video_feed
from demo.live_session import LiveView, LiveViews, Offered
from demo.service import Service
from demo.tabs.live import _NOTHING_TOLD, _Page, live_head
from tests.demo.releases import PICTURE


class Gate:
    """A service whose model looks only when it is let; it notes what it looked at."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.let = threading.Semaphore(0)
        self.busy = threading.Semaphore(0)
        self.looked_at: list[Offered] = []

    def inspect(self, source: Offered, model: str) -> Any:
        self.looked_at.append(source)
        self.busy.release()
        assert self.let.acquire(timeout=120)
        return self._service.inspect(source, model)


@pytest.fixture
def gate(service: Service) -> Gate:
    return Gate(service)


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def copies(tmp_path: Path, names: Sequence[str]) -> list[Path]:
    for name in names:
        (tmp_path / name).write_bytes(PICTURE.read_bytes())
    return [tmp_path / name for name in names]


def test_while_the_model_is_busy_only_the_newest_picture_waits(gate: Gate, tmp_path: Path) -> None:
    a, b, c, d = copies(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    view = LiveView(gate, "grace")  # type: ignore[arg-type]
    view.offer(a)
    assert gate.busy.acquire(timeout=120)
    for picture in (b, c, d):  # b and c are never looked at
        view.offer(picture)
    gate.let.release(2)
    wait(lambda: view.seen().answered == 2)
    seen = view.seen()
    assert gate.looked_at == [a, d]
    assert (seen.offered, seen.answered, seen.dropped) == (4, 2, 2)
    assert "Looked at 2 of 4 pictures, 2 dropped while the model was busy" in live_head(seen)
    view.close()


def test_an_unreadable_picture_is_counted_and_the_next_one_looked_at(
    gate: Gate, tmp_path: Path
) -> None:
    good, bad = copies(tmp_path, ["good.jpg", "bad.jpg"])
    bad.write_bytes(b"no picture")
    view = LiveView(gate, "grace")  # type: ignore[arg-type]
    gate.let.release(2)
    view.offer(bad)
    wait(lambda: view.seen().unreadable == 1)
    view.offer(good)
    wait(lambda: view.seen().answered == 1)
    assert "not an image file" in view.seen().error
    view.close()


def test_a_view_that_nobody_asks_for_ends(gate: Gate) -> None:
    now = [0.0]
    view = LiveView(gate, "grace", clock=lambda: now[0])  # type: ignore[arg-type]
    now[0] = 59.0
    assert not view.is_closed
    view.seen()  # asked at 59
    now[0] = 118.0
    assert not view.is_closed
    now[0] = 120.0
    assert view.is_closed


def test_the_rate_is_what_was_answered_in_the_time_that_passed(gate: Gate) -> None:
    now = [0.0]
    view = LiveView(gate, "grace", clock=lambda: now[0])  # type: ignore[arg-type]
    now[0] = 5.0  # until a camera is allowed, nothing could be looked at
    for answered, second in ((1, 12.9), (2, 13.0)):
        view.offer(PICTURE)
        assert gate.busy.acquire(timeout=120)
        now[0] = second
        gate.let.release()
        wait(lambda answered=answered: view.seen().answered == answered)  # type: ignore[misc]
    assert view.seen().per_s == pytest.approx(2 / 8)
    now[0] = 21.0  # both still within 10 s
    assert view.seen().per_s == pytest.approx(2 / 10)
    assert " · 0.2 per second" in live_head(view.seen())
    view.close()
    wait(lambda: view._ended is not None)
    now[0] = 60.0  # after the end it stays
    assert view.seen().per_s == pytest.approx(2 / 10)


def test_the_rate_falls_to_none_while_nothing_is_answered(gate: Gate) -> None:
    now = [0.0]
    view = LiveView(gate, "grace", clock=lambda: now[0])  # type: ignore[arg-type]
    gate.let.release()
    view.offer(PICTURE)
    wait(lambda: view.seen().answered == 1)
    assert view.seen().per_s == 1.0  # within the first second it claims no more
    now[0] = 11.0
    assert view.seen().per_s == 0
    assert "per second" not in live_head(view.seen())
    view.close()


def test_the_oldest_view_makes_room(service: Service) -> None:
    views = LiveViews(service, most=2)
    first, second = views.open("grace"), views.open("grace")
    kept = views.view(first)
    views.view(second)
    third = views.open("grace")
    assert kept is not None
    assert kept.is_closed
    assert views.view(first) is None
    assert views.view(second) is not None
    assert views.view(third) is not None


def test_an_answer_is_drawn_once_however_often_the_page_asks(
    service: Service, tmp_path: Path
) -> None:
    page: Any = SimpleNamespace(views=LiveViews(service))
    view_id = page.views.open("grace")
    view = page.views.view(view_id)
    told: Any = _NOTHING_TOLD
    for path in copies(tmp_path, ["a.jpg", "b.jpg"]):
        before = view.seen().answered
        view.offer(path)
        wait(partial(_is_answered, view, before + 1))
        _, large, strip, told = _Page._shown(page, view_id, told)
        assert (large[:18], strip[:17]) == ('<img class="large"', '<ul class="strip"')
        assert _Page._shown(page, view_id, told)[1:] == (gr.skip(),) * 3
    view.close()


def test_of_the_pictures_before_the_newest_only_their_tiles_are_kept(
    service: Service, tmp_path: Path
) -> None:
    """Eight large pictures of each of four views were gigabytes."""
    view = LiveView(service, "grace")
    held: list[Any] = []
    for n, path in enumerate(copies(tmp_path, ["a.jpg", "b.jpg"]), start=1):
        view.offer(path)
        wait(partial(_is_answered, view, n))
        newest = view.seen().newest
        assert newest is not None
        held.append(weakref.ref(newest.image.pixels))
        del newest
    seen = view.seen()
    assert [past.tile[:23] for past in seen.strip] == ["data:image/webp;base64,"] * 2
    wait(lambda: held[0]() is None)
    assert seen.newest is not None
    assert held[1]() is seen.newest.image.pixels
    view.close()


def _is_answered(view: LiveView, n: int) -> bool:
    return view.seen().answered == n


def test_every_frame_of_a_video_is_offered_at_its_own_pace(gate: Gate, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 64))
    for grey in range(5):
        writer.write(np.full((64, 64, 3), 40 * grey, np.uint8))
    writer.release()
    slept: list[float] = []
    gate.let.release(5)
    view = LiveView(
        gate,  # type: ignore[arg-type]
        "grace",
        video_feed(path, ImageLimits(), sleep=slept.append),
    )
    wait(lambda: view.seen().is_over)
    seen = view.seen()
    assert seen.offered == 5
    assert seen.answered + seen.dropped == 5
    assert len(slept) == 5
    assert max(slept) <= 0.4  # frame 4 is due 0.4 s after the first


def test_what_is_no_video_is_one_sentence(gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"nothing")
    view = LiveView(gate, "grace", video_feed(tmp_path / "v.mp4", ImageLimits()))  # type: ignore[arg-type]
    wait(lambda: view.seen().is_over)
    assert view.seen().error.startswith("This is no video that can be read")


def test_a_watched_folder_offers_what_is_new_and_whole(tmp_path: Path) -> None:
    copies(tmp_path, ["old.jpg"])
    offered: list[Offered] = []
    rounds = 0

    class View:
        is_closed = False

        def offer(self, picture: Offered) -> None:
            offered.append(picture)

    view = View()

    def step(_: float) -> None:
        nonlocal rounds
        rounds += 1
        new = tmp_path / "new.jpg"
        if rounds == 1:
            new.write_bytes(b"half")
        if rounds == 2:
            new.write_bytes(b"the whole")  # it grew: one more round is waited
        if rounds == 3:
            assert offered == []
        view.is_closed = rounds == 5

    folder_feed(tmp_path, sleep=step)(view)  # type: ignore[arg-type]
    assert offered == [tmp_path / "new.jpg"]


def test_a_watched_folder_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="The watched folder cannot be read"):
        folder_feed(tmp_path / "gone")(object())  # type: ignore[arg-type]


def test_a_frame_larger_than_the_caps_is_refused() -> None:
    with pytest.raises(InputError, match="megapixels"):
        picture_of(np.zeros((200, 200, 3), np.uint8), ImageLimits(max_pixels=10_000))


def test_a_frame_keeps_its_colours() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[0, 0] = (200, 100, 50)
    assert picture_of(frame, ImageLimits()).pixels[0, 0].tolist() == [200, 100, 50]
