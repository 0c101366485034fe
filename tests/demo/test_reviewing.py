"""What the review page shows and does, without a browser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest

from active_learning.connection import Reach
from active_learning.courier import Carried
from active_learning.outbox import pushing
from active_learning.overview import Learned, Overview
from core.errors import ConfigError, InputError, LedgerError
from core.records import ReviewItem
from core.settings import PathSettings, Settings
from demo import review_markup as markup
from demo.reviewing import Reviewing, known_place, marker
from demo.samples import square
from demo.service import Service
from demo.tabs.review import Told, _Page
from demo.words import age
from tests.active_learning.answers import by_classifier, by_detector
from tests.active_learning.review_desk import picture

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.fixture
def settings(paths: PathSettings) -> Settings:
    return Settings(paths=paths)


@pytest.fixture
def reviewing(service: Service, settings: Settings) -> Reviewing:
    return Reviewing(service, settings)


@pytest.fixture
def page(reviewing: Reviewing) -> _Page:
    return _Page(reviewing)


def flag(service: Service, seed: int = 1, reason: str = "wrong", note: str = "") -> ReviewItem:
    return service.flag(picture(seed), "grace", reason=reason, note=note)


def park(service: Service, item: ReviewItem, reason: str = "it does not fit") -> None:
    with pushing(service.review.open(service.releases()).queue) as outbox:
        outbox.claim(1, ids=[item.id])
        outbox.park(item.id, reason=reason)


def overview(**changes: Any) -> Overview:
    places = dict.fromkeys(("parked", "waiting", "there", "reviewed"), 0)
    usual: dict[str, Any] = {
        "mark": 1,
        "places": places | changes.pop("places", {}),
        "sendable": 0,
        "waiting_since": None,
        "classes": {},
        "learned": Learned(None, 0, {}),
    }
    return Overview(**usual | changes)


def is_kept(told: Sequence[Any]) -> list[bool]:
    """Which parts of the page a handler leaves as they are."""
    return [part == gr.skip() for part in told]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "under 1 min"),
        (59, "under 1 min"),
        (60, "1 min"),
        (3599, "59 min"),
        (7200, "2 h"),
        (172799, "47 h"),
        (172800, "2 days"),
    ],
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, words: str) -> None:
    assert age(seconds) == words


def test_an_image_is_listed_with_a_picture_that_needs_no_file(
    reviewing: Reviewing, service: Service
) -> None:
    item = flag(service)
    [listed] = reviewing.listed(None, limit=9)
    assert listed.entry.item.id == item.id
    assert listed.thumbnail.startswith("data:image/webp;base64,")
    assert reviewing.listed("parked", limit=9) == ()


def test_a_picture_that_is_damaged_costs_its_own_row_alone(
    reviewing: Reviewing, service: Service
) -> None:
    item, other = flag(service, 1), flag(service, 2)
    images = service.review.open(service.releases()).queue.images
    images.path(item.image_sha256).write_bytes(b"not what it was")
    shown = {one.entry.item.id: bool(one.thumbnail) for one in reviewing.listed(None, limit=9)}
    assert shown == {item.id: False, other.id: True}
    chosen = reviewing.chosen(item.id)
    assert chosen is not None
    assert chosen.picture == ""
    assert "is damaged" in chosen.why_no_picture


def test_the_surest_detector_s_marks_are_drawn_before_anyone_else_s() -> None:
    box = (1.0, 1.0, 9.0, 9.0)
    unsure = by_detector("a", ("inclusion", 0.4, box)).model_copy(update={"uncertainty": 0.9})
    sure = by_detector("b", ("inclusion", 0.9, box)).model_copy(update={"uncertainty": 0.1})
    classifier = by_classifier("c", {"inclusion": 1.0})
    assert marker([classifier, unsure, sure]) is sure
    assert marker([classifier]) is None


def test_a_thumbnail_is_the_middle_of_the_picture() -> None:
    import numpy as np

    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, 10:20] = 255
    assert np.asarray(square(wide, 10)).min() == 255


def test_a_place_from_outside_has_to_be_one() -> None:
    assert known_place("") is None
    assert known_place("there") == "there"
    with pytest.raises(InputError, match=r"Unknown place '<b>'"):
        known_place("<b>")


def test_acting_without_a_token_says_what_is_missing(reviewing: Reviewing) -> None:
    for act in (lambda: reviewing.send(3), reviewing.fetch):
        with pytest.raises(ConfigError, match="ROLLMARK_LABEL_STUDIO__TOKEN"):
            act()
    assert reviewing.check().sentence.startswith("No token for Label Studio")


# --- the page's handlers -----------------------------------------------------------------------


def test_entering_chooses_the_image_that_needs_a_hand_first(page: _Page, service: Service) -> None:
    flag(service, 1)
    parked = flag(service, 2)
    park(service, parked)
    selected, *told = page.enter((None, 24), "")
    assert selected == parked.id
    assert "1 image waits for a person" in told[1]
    assert "1 image is set aside." in told[1]


def test_a_page_that_knows_everything_is_told_nothing(page: _Page, service: Service) -> None:
    item = flag(service)
    first = page.fill(Told(), (None, 24), item.id)
    again = page.fill(first[0], (None, 24), item.id)
    if first[0].minute == page.reviewing.now().minute:  # a new minute tells the counts once more
        assert all(is_kept(again))
    assert is_kept(again)[3] is True  # the list stays untouched under the reader's hands


def test_whatever_happens_is_told(page: _Page, service: Service) -> None:
    item = flag(service, 1)
    told = page.fill(Told(), (None, 24), item.id)
    flag(service, 2)
    fresh = page.fill(told[0], (None, 24), item.id)
    assert "2 images wait" in fresh[1]
    assert fresh[3].count('class="entry') == 2


def test_a_ledger_that_is_down_is_said_once_and_leaves_the_page(
    page: _Page, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    item = flag(service)
    told = page.fill(Told(), (None, 24), item.id)

    def fails(*_: Any) -> Any:
        raise LedgerError("The ledger cannot be read: the disk is gone.")

    monkeypatch.setattr(service.review, "open", fails)
    failed = page.fill(told[0], (None, 24), item.id)
    assert "the disk is gone" in failed[1]
    assert all(is_kept(failed[2:]))
    assert all(is_kept(page.fill(failed[0], (None, 24), item.id)))
    monkeypatch.undo()
    assert "1 image waits" in page.fill(failed[0], (None, 24), item.id)[1]


def test_an_image_that_was_set_aside_offers_another_try_and_only_such_a_one(
    page: _Page, service: Service
) -> None:
    item = flag(service)
    assert page.show(item.id, is_new=True)[1].visible is False
    park(service, item)
    assert page.show(item.id, is_new=True)[1].visible is True
    shown, again, _, told = page.try_again(item.id)
    assert "Waits to be sent" in shown
    assert again.visible is False
    assert "waits to be sent again" in told
    assert "parked" in page.try_again(item.id)[3]  # it is not any more, and says so


def test_an_open_question_survives_a_refresh(page: _Page, service: Service) -> None:
    item = flag(service)
    park(service, item)
    assert is_kept(page.show(item.id))[2:] == [True, True]
    assert page.enter((None, 24), item.id)[-3].visible is True  # another try is offered at once


def test_more_images_and_other_places_are_asked_for(page: _Page) -> None:
    assert page.show_more(("parked", 24)) == ("parked", 48)
    assert to_place(page, "", "waiting")[0] == ("waiting", 24)


def to_place(page: _Page, selected: str, place: str) -> tuple[Any, ...]:
    return page.choose_place(selected, SimpleNamespace(place=place))  # type: ignore[arg-type]


def test_another_list_leaves_no_image_chosen_that_is_not_in_it(
    page: _Page, service: Service
) -> None:
    waiting, parked = flag(service, 1), flag(service, 2)
    park(service, parked)
    view, selected, shown, *_ = to_place(page, waiting.id, "reviewed")
    assert (view, selected) == (("reviewed", 24), "")
    assert "The chosen image is shown here" in shown
    assert to_place(page, waiting.id, "parked")[1] == parked.id
    for place in ("", "waiting"):  # it is listed there, and stays
        _, selected, *details = to_place(page, waiting.id, place)
        assert selected == waiting.id
        assert all(is_kept(details))


def test_an_unknown_image_is_no_error(page: _Page, service: Service) -> None:
    flag(service)
    assert "The chosen image is shown here" in page.show("0" * 32)[0]


# --- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        pytest.param(overview(), "The review queue is empty.", id="empty"),
        pytest.param(overview(places={"reviewed": 2}), "No image waits for a person.", id="done"),
        pytest.param(
            overview(places={"waiting": 9, "there": 3}, waiting_since=NOW - timedelta(minutes=3)),
            "12 images wait for a person, 3 of them in Label Studio; the oldest for ",
            id="usual",
        ),
        pytest.param(
            overview(places={"there": 1}), "1 image waits for a person, all of them", id="all there"
        ),
        pytest.param(overview(places={"parked": 2}), "2 images are set aside.", id="parked"),
    ],
)
def test_the_queue_stands_in_one_line(seen: Overview, words: str) -> None:
    assert words in markup.sentence(seen, NOW)


def test_a_moment_is_an_age_with_the_exact_time_on_hover() -> None:
    assert markup.moment(NOW - timedelta(minutes=3), NOW) == (
        '<time datetime="2026-05-04T11:57:00+00:00" title="2026-05-04 11:57:00 UTC" '
        'data-age=" ago">3 min ago</time>'
    )


def test_what_people_write_is_shown_and_never_run(reviewing: Reviewing, service: Service) -> None:
    item = flag(service, note="<img src=x onerror=alert(1)>")
    park(service, item, reason="<script>alert(2)</script>")
    listed = markup.queue(reviewing.listed(None, limit=9), None, 1, selected="", now=NOW)
    chosen = markup.chosen(reviewing.chosen(item.id), NOW)
    assert "<script" not in listed + chosen
    assert "<img src=x" not in listed + chosen
    assert "&lt;img src=x" in chosen


def test_a_model_is_called_by_its_title_and_an_unsure_one_says_what_it_leans_to(
    reviewing: Reviewing, service: Service
) -> None:
    shown = reviewing.chosen(flag(service).id)
    assert shown is not None
    box = (0.0, 0.0, 9.0, 9.0)
    sure = by_detector("grace", ("scratches", 0.9, box))
    torn = by_detector("da_yolo", ("inclusion", 0.6, box)).model_copy(update={"verdict": "review"})
    item = shown.entry.item.model_copy(update={"predictions": (sure, torn)})
    titles = {"grace": service.titles()["grace"], "da_yolo": "DA-YOLO"}
    markings = replace(shown, entry=replace(shown.entry, item=item), titles=titles)
    facts = markup.chosen(markings, NOW)
    assert "<dt>GRACE</dt><dd>Scratches, 0.90 probable · 1 place</dd>" in facts
    assert "<dt>DA-YOLO</dt><dd>Most likely Inclusion, 0.60 probable · 1 place</dd>" in facts


def test_the_button_for_more_says_how_many_it_brings(
    reviewing: Reviewing, service: Service
) -> None:
    flag(service)
    two_pages = reviewing.listed(None, limit=1) * 48
    assert "Show 24 more of 52 images" in markup.queue(two_pages, None, 100, selected="", now=NOW)
    assert "Show 2 more of 2 images" in markup.queue(two_pages, None, 50, selected="", now=NOW)


def test_bars_are_as_long_as_their_numbers() -> None:
    shown = markup.bars("By class", {"scratches": 4, "": 1}, "nothing")
    assert 'style="width:100%;background:#D55E00"></span></span>4' in shown
    assert 'style="width:25%;background:var(--neutral-500)"></span></span>1' in shown
    assert "No finding" in shown
    assert "nothing" in markup.bars("By class", {}, "nothing")


def test_sending_is_counted_and_a_failure_stays_on_the_page() -> None:
    fine = Reach(True, "Connected.")
    assert "Sending: 3 of 12 images" in markup.connection(fine, Carried(sending=(3, 12)), NOW)
    failed = Carried(sent="It is away.", is_sent_whole=False, fetch_error="It is away.")
    told = markup.connection(Reach(False, "It is away."), failed, NOW)
    assert told.count("is-wrong") == 2  # the connection, and what became of the sending


def test_answers_are_fetched_again_once_label_studio_is_back(
    reviewing: Reviewing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the failure to fetch them would stand beside “Connected” until the next fetch."""
    courier = reviewing.courier
    monkeypatch.setattr("demo.reviewing.reach", lambda _: Reach(True, "Connected."))
    reviewing.check()
    assert not courier.poll_now.is_set()  # nothing had failed
    monkeypatch.setattr(courier, "_carried", Carried(fetch_error="It is away."))
    reviewing.check()
    assert courier.poll_now.is_set()
