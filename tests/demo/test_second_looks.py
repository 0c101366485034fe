"""The panel with answers that a live model denies, without a browser."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from active_learning.connection import Reach
from active_learning.recheck import Rechecked, SecondLook
from core.errors import InputError, LedgerError
from demo import second_looks
from demo.second_looks import SHOWN, SecondLooksPanel, listing

THERE = Reach(True, "Connected", "http://studio:8080/projects/3")
AWAY = Reach(False, "Label Studio cannot be reached.")


@pytest.fixture(autouse=True)
def _signed_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_looks, "acting", lambda: "bea")


def look(task_id: int = 7, reason: str = "GRACE is sure (0.90) of crazing") -> SecondLook:
    return SecondLook("a" * 64, task_id, "ann", datetime(2026, 5, 4, tzinfo=UTC), (reason,), 0.9)


def found(*looks: SecondLook, images: int = 9, unable: tuple[str, ...] = ()) -> Rechecked:
    return Rechecked(images, looks, unable)


def panel(
    answer: Any, reached: list[Reach] | None = None, confirming: Exception | None = None
) -> SecondLooksPanel:
    """A panel over a queue whose `recheck` answers or raises this."""
    looks = iter(reached or [THERE])

    def recheck() -> tuple[Rechecked, dict[str, str]]:
        if isinstance(answer, Exception):
            raise answer
        return answer, {}

    def confirm(task_id: int, *, who: str) -> None:
        assert who == "bea"
        if confirming:
            raise confirming

    reviewing: Any = SimpleNamespace(
        recheck=recheck, confirm=confirm, reach=lambda again=False: next(looks)
    )
    return SecondLooksPanel(reviewing)


def test_an_image_is_listed_with_its_reason_and_the_way_to_its_task() -> None:
    html = listing(found(look()), {"a" * 64: "data:image/webp;base64,xyz"}, THERE)
    assert "<li>GRACE is sure (0.90) of crazing</li>" in html
    assert 'href="http://studio:8080/projects/3/data?task=7"' in html
    assert "Open task 7 in Label Studio" in html
    assert 'src="data:image/webp;base64,xyz"' in html
    assert "1 of 9 answers is denied" in html


def test_without_label_studio_the_number_of_the_task_is_told() -> None:
    html = listing(found(look()), {}, AWAY)
    assert "Task 7; Label Studio cannot be reached now" in html
    assert "href" not in html


def test_what_comes_from_outside_is_escaped() -> None:
    assert "&lt;b&gt;" in listing(found(look(reason="<b>")), {}, THERE)
    assert "<b>" not in listing(found(unable=("<b>",)), {}, THERE)


def test_no_more_than_a_page_is_listed_and_the_rest_is_told() -> None:
    html = listing(found(*(look(k) for k in range(SHOWN + 2)), images=99), {}, THERE)
    assert html.count("Open task") == SHOWN
    assert "2 more are told by" in html


@pytest.mark.parametrize(
    ("rechecked", "words"),
    [
        (found(), "9 answers looked through, and none is denied."),
        (found(images=0), "No answer is there that a live model is known not to have"),
        (found(images=0, unable=("Which images grace learned from",)), "Which images grace"),
    ],
)
def test_nothing_to_look_at_is_said(rechecked: Rechecked, words: str) -> None:
    html = listing(rechecked, {}, THERE)
    assert words in html
    assert "<ul" not in html


def test_the_heading_counts_and_the_address_is_asked_for_where_it_is_not_known() -> None:
    heading, html, _ = panel(found(look()), [AWAY, THERE]).look()
    assert heading.label == "Labels to look at again: 1"
    assert "Open task 7" in html
    assert panel(found()).look()[0].label == "Labels to look at again: 0"


def test_a_failure_is_one_sentence() -> None:
    heading, html, listed = panel(LedgerError("The ledger cannot be read.")).look()
    assert (heading, listed) == (gr.skip(), None)
    assert "The ledger cannot be read." in html


def test_an_answer_that_stands_leaves_the_list() -> None:
    shown = panel(found(look(7), look(8)))
    _, html, listed = shown.look()
    assert 'data-task="8"' in html
    assert listed is not None
    heading, html, _ = shown.keep(listed, SimpleNamespace(task="8"))  # type: ignore[arg-type]
    assert heading.label == "Labels to look at again: 1"
    assert "Open task 7" in html
    assert "Open task 8" not in html


def test_a_server_that_was_started_again_tells_that_the_answer_stands() -> None:
    heading, html, listed = panel(found()).keep(None, SimpleNamespace(task="8"))  # type: ignore[arg-type]
    assert (heading, listed) == (gr.skip(), None)
    assert "The answer of task 8 stands; look through the answers again" in html
    unknown = panel(found(), confirming=InputError("Nobody has answered a task 8."))
    _, html, _ = unknown.keep(None, SimpleNamespace(task="8"))  # type: ignore[arg-type]
    assert "Nobody has answered a task 8." in html


def test_an_answer_that_cannot_be_kept_stays_listed_with_the_reason() -> None:
    shown = panel(found(look(7)), confirming=InputError("Nobody has answered a task 7."))
    _, _, listed = shown.look()
    assert listed is not None
    heading, html, same = shown.keep(listed, SimpleNamespace(task="7"))  # type: ignore[arg-type]
    assert (heading, same) == (gr.skip(), listed)
    assert "Nobody has answered a task 7." in html
    assert "Open task 7" in html
