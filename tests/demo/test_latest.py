"""Answers that come too late are told apart from those that are still wanted."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from core.errors import WeightsError
from core.types import DecodedImage
from demo.latest import Latest
from demo.service import Service
from demo.tabs.inspect import _Page
from tests.demo.releases import PICTURE

ANNA, BEN = SimpleNamespace(session_hash="anna"), SimpleNamespace(session_hash="ben")


def test_a_wish_is_the_newest_until_the_same_visitor_has_another() -> None:
    latest = Latest()
    first = latest.begin(ANNA)
    assert first()
    other = latest.begin(BEN)
    assert first()
    second = latest.begin(ANNA)
    assert (first(), second(), other()) == (False, True, True)


def test_a_wish_that_arrives_after_a_later_one_is_not_wanted() -> None:
    latest = Latest()
    sixth = latest.begin(ANNA, "6th", at=30.0)
    third = latest.begin(ANNA, "3rd", at=20.0)  # its click was overtaken on the way
    assert (sixth(), third(), latest.about(ANNA)) == (True, False, "6th")
    again = latest.begin(ANNA, latest.about(ANNA))  # a page that tells no time
    assert not latest.begin(ANNA, "1st", at=10.0)()
    assert again()
    assert latest.begin(ANNA, "7th", at=40.0)()
    assert latest.begin(BEN, "1st", at=1.0)()


def test_the_first_sample_gives_way_to_a_picture_that_was_given_while_the_page_opened() -> None:
    page: Any = SimpleNamespace(
        answers=Latest(),
        samples=[SimpleNamespace(path=Path("first.png"))],
        look=lambda request, path, name, model, threshold: iter([(name, model)]),
        _unchanged=lambda: "what stands there stays",
    )
    page.answers.begin(ANNA)  # her picture, before the page had asked for its models
    assert list(_Page.open(page, ANNA, "grace")) == ["what stands there stays"]
    assert list(_Page.open(page, BEN, "grace")) == [("first.png", "grace")]


def test_a_picture_given_before_the_models_are_listed_is_looked_at_by_the_best(
    service: Service,
) -> None:
    page: Any = SimpleNamespace(
        answers=Latest(),
        service=service,
        drawing=SimpleNamespace(buttons=[]),
        _working=str,
        idle_buttons=tuple,
    )
    request: Any = ANNA
    *_, answer = _Page.look(page, request, str(PICTURE), "strip.jpg", None, None)
    assert answer[0].inspection.model == "grace"


def test_what_is_set_while_a_picture_is_looked_at_is_about_that_picture() -> None:
    page: Any = SimpleNamespace(
        answers=Latest(), look=lambda _, *asked, before, drawn: iter([asked])
    )
    page.again = partial(_Page.again, page)
    page.answers.begin(ANNA, ("new.png", "coil 7.png"))  # dropped, and not answered yet
    request: Any = ANNA
    assert list(_Page.adjust(page, None, "grace", 0.3, [], request)) == [
        ("new.png", "coil 7.png", "grace", 0.3)
    ]
    assert list(_Page.switch(page, None, "da_yolo", [], request)) == [
        ("new.png", "coil 7.png", "da_yolo", None)
    ]


def test_the_answer_about_a_picture_that_was_taken_away_comes_too_late(service: Service) -> None:
    page: Any = SimpleNamespace(
        answers=Latest(),
        drawing=SimpleNamespace(buttons=[]),
        idle_buttons=tuple,
        _unchanged=lambda: "what stands there stays",
    )
    page._blank = partial(_Page._blank, page)
    page._overtaken = partial(_Page._overtaken, page)
    request: Any = ANNA

    def decode(path: Path) -> DecodedImage:
        assert page.answers.about(ANNA) == (str(PICTURE), "strip.jpg")
        assert "Drop a picture" in _Page.empty(page, request)[2]
        return service.decode(path)

    page.service = SimpleNamespace(decode=decode, choose=service.choose, inspect=service.inspect)
    answers = list(_Page.look(page, request, str(PICTURE), "strip.jpg", None, None))
    assert answers == ["what stands there stays"]
    assert page.answers.about(ANNA) is None


def test_a_picture_stays_where_its_model_fails_and_another_one_is_asked_about_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(*_: Any, **__: Any) -> Any:
        raise WeightsError("The weights of grace are damaged; choose another model.")

    monkeypatch.setattr(service, "inspect", damaged)
    page: Any = SimpleNamespace(
        answers=Latest(),
        service=service,
        drawing=SimpleNamespace(buttons=[]),
        _working=str,
        idle_buttons=tuple,
    )
    page._blank = partial(_Page._blank, page)
    request: Any = ANNA
    *_, answer = _Page.look(page, request, str(PICTURE), "strip.jpg", "grace", None)
    shown, picture, verdict = answer[:3]
    assert shown is None
    assert picture.shape == (800, 800, 3)  # the 200 px of the picture, enlarged and bare
    assert "choose another model" in verdict
    assert page.answers.about(ANNA) == (str(PICTURE), "strip.jpg")


def test_a_choice_that_is_told_twice_at_once_is_one_choice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 10.0
    monkeypatch.setattr("demo.latest.monotonic", lambda: now)
    latest = Latest()
    assert not latest.is_repeated(ANNA, "grace")
    assert not latest.is_repeated(BEN, "grace")
    now = 10.9
    assert latest.is_repeated(ANNA, "grace")
    assert not latest.is_repeated(ANNA, "da_yolo")
    now = 12.0
    assert not latest.is_repeated(ANNA, "da_yolo")  # on purpose


def test_a_visitor_who_was_forgotten_among_many_still_gets_an_answer() -> None:
    latest = Latest()
    first = latest.begin(ANNA)
    for k in range(500):
        latest.begin(SimpleNamespace(session_hash=str(k)))
    assert first()


def test_a_cleared_page_leaves_the_picture_alone_that_may_have_been_dropped_since() -> None:
    page: Any = SimpleNamespace(answers=Latest(), idle_buttons=tuple)
    page._blank = partial(_Page._blank, page)
    request: Any = ANNA
    shown, picture, verdict, *_ = _Page.empty(page, request)
    assert (shown, picture) == (None, gr.skip())
    assert "Drop a picture" in verdict


def test_a_look_that_is_stopped_says_so_last_and_its_picture_can_be_looked_at_again() -> None:
    page: Any = SimpleNamespace(
        answers=Latest(), _working=lambda verdict: (verdict,), _unchanged=lambda: ("as it is",)
    )
    page._overtaken = partial(_Page._overtaken, page)
    request: Any = ANNA
    is_wanted = page.answers.begin(ANNA, ("strip.png", "strip.png"))
    [verdict] = _Page.halt(page, request)
    assert "Stopped. Press Inspect to look again." in verdict
    assert not is_wanted()
    assert page.answers.about(ANNA) == ("strip.png", "strip.png")
    assert page._overtaken(request) == (verdict,)  # whatever was on its way
    page.answers.begin(ANNA, ("other.png", "other.png"))
    assert page._overtaken(request) == ("as it is",)  # the other one fills the page
