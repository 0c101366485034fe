"""Answers that come too late are told apart from those that are still wanted."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from demo.latest import Latest

ANNA, BEN = SimpleNamespace(session_hash="anna"), SimpleNamespace(session_hash="ben")


def test_a_wish_is_the_newest_until_the_same_visitor_has_another() -> None:
    latest = Latest()
    first = latest.begin(ANNA)
    assert first()
    other = latest.begin(BEN)
    assert first()
    second = latest.begin(ANNA)
    assert (first(), second(), other()) == (False, True, True)


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
