"""The app's way to Label Studio: what is asked for is sent, hints followed, failures told."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from pydantic import SecretStr

from active_learning import courier as courier_module
from active_learning.connection import reach
from active_learning.courier import Courier, summary
from active_learning.desk import Desk
from active_learning.leases import Leases
from active_learning.push import STOPPED, PushReport
from core.errors import ConfigError, InputError, LeaseLost
from core.settings import LabelStudioSettings, Settings
from tests.active_learning.review_desk import LABELLING, MASK_LABELS, open_test_desk
from tests.ports import free_port

pytestmark = pytest.mark.label_studio
WAIT_S = 200  # shorter than it rests by itself


@pytest.fixture
def ours(tmp_path, project_title):
    desk = open_test_desk(tmp_path, project_title)
    yield desk
    desk.ledger.close()


@pytest.fixture
def courier(ours, label_studio, project_title):
    settings = Settings(label_studio=label_studio.settings(project=project_title))
    desk = Desk(ours.ledger, ours.queue, ours.inbox, LABELLING, MASK_LABELS)
    courier = Courier(settings, lambda: desk, burst_s=0.0)
    yield courier
    courier.close()


@pytest.fixture
def away():
    """Address at which nobody listens."""
    with free_port() as port:
        yield f"http://127.0.0.1:{port}"


def until(courier, condition):
    """Wait until what the courier tells meets a condition."""
    never = threading.Event()
    for _ in range(WAIT_S * 20):
        if condition(courier.carried):
            return courier.carried
        never.wait(0.05)
    pytest.fail(f"After {WAIT_S} s the courier stands at {courier.carried}.")


def verdict(value):
    region = {"from_name": "verdict", "to_name": "image", "type": "choices"}
    return region | {"value": {"choices": [value]}}


def test_what_is_asked_for_is_sent_and_a_hint_fetches_the_answer(
    ours, courier, label_studio, project_title
):
    items = [ours.flag(1, priority=0.9), ours.flag(2, priority=0.1)]
    courier.send(1)
    told = until(courier, lambda carried: carried.sent)
    assert (told.sent, told.is_sent_whole) == ("1 image sent to Label Studio.", True)
    assert [ours.item(item.id).state for item in items] == ["verified", "pending"]

    until(courier, lambda carried: carried.fetched_at)
    task = ours.item(items[0].id).task_id
    label_studio.annotate(task, verdict("slag"))
    courier.poll_now.set()  # perhaps while it fetches and has seen no answer: it fetches again
    until(courier, lambda _: ours.inbox.current())
    assert [answer.label for answer in ours.inbox.current()] == ["slag"]


def test_two_replicas_do_not_fetch_at_once(ours, courier):
    with Leases(ours.ledger).hold(f"pull {ours.queue.project}", ttl_s=60):
        courier._fetch()
    assert (courier.carried.fetched_at, courier.carried.fetch_error) == (None, "")
    courier._fetch()
    assert courier.carried.fetched_at is not None


def test_who_was_slow_leaves_the_fetching_to_who_took_over(ours, monkeypatch):
    def fetch(settings, desk):
        raise LeaseLost("The lease to pull was lost.")

    monkeypatch.setattr(courier_module, "fetch", fetch)
    settings = Settings(label_studio=LabelStudioSettings(token=SecretStr("f" * 40)))
    slow = Courier(settings, lambda: Desk(ours.ledger, ours.queue, ours.inbox, LABELLING, {}))
    slow._fetch()
    assert (slow.carried.fetched_at, slow.carried.fetch_error) == (None, "")


def test_sending_stops_between_two_images_and_the_rest_waits(ours, courier):
    for seed in (1, 2, 3):
        ours.flag(seed)
    made = []
    tell = courier._tell

    def stop_after_the_first(**changes):
        tell(**changes)
        if changes.get("sending"):
            made.append(changes["sending"])
            courier.stop_sending()

    courier._tell = stop_after_the_first
    courier.send(3)
    told = until(courier, lambda carried: carried.sent)
    assert (told.sent, made) == ("Stopped: 1 image sent to Label Studio.", [(1, 3)])
    assert ours.queue.counts()["pending"] == 2


def test_a_label_studio_that_is_away_is_one_sentence_and_the_courier_lives_on(
    ours, label_studio, project_title, away
):
    settings = label_studio.settings(project=project_title, url=away, token="f" * 40)
    desk = Desk(ours.ledger, ours.queue, ours.inbox, LABELLING, MASK_LABELS)
    courier = Courier(Settings(label_studio=settings), lambda: desk, burst_s=0.0)
    ours.flag(1)
    courier.send(1)
    told = until(courier, lambda now: now.sent and now.sending is None and now.fetch_error)
    assert not told.is_sent_whole
    assert told.sent.startswith(f"Label Studio at {away} cannot be reached")
    assert told.fetch_error == told.sent
    assert courier._thread.is_alive()
    courier.close()
    assert ours.queue.counts()["pending"] == 1


def test_without_a_token_nothing_runs_and_sending_says_why(ours):
    courier = Courier(Settings(), lambda: pytest.fail("There is nothing to do."))
    courier.start()
    assert courier._thread is None
    with pytest.raises(ConfigError, match="ROLLMARK_LABEL_STUDIO__TOKEN"):
        courier.send(1)


def test_nothing_to_send_is_told_and_leaves_the_way_free(ours):
    settings = Settings(label_studio=LabelStudioSettings(token=SecretStr("f" * 40)))
    courier = Courier(settings, lambda: pytest.fail("There is nothing to do."))
    with pytest.raises(InputError, match="No image waits to be sent"):
        courier.send(0)
    assert courier.carried.sending is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        pytest.param({"sent": 2}, "2 images sent to Label Studio.", id="whole"),
        pytest.param(
            {"sent": 1, "parked": 1},
            "1 image sent to Label Studio, 1 set aside for a person to look at.",
            id="parked",
        ),
        pytest.param(
            {"unknown": 1, "stopped": "It is away."},
            "0 images sent to Label Studio, 1 of which Label Studio is asked again. "
            "Stopped early: It is away.",
            id="away",
        ),
        pytest.param(
            {"sent": 1, "stopped": STOPPED}, "Stopped: 1 image sent to Label Studio.", id="stopped"
        ),
    ],
)
def test_a_sending_is_told_in_one_sentence(changes, sentence):
    assert summary(replace(PushReport(), **changes)) == sentence


# --- connection --------------------------------------------------------------------------------


def test_a_working_connection_names_the_project_and_where_its_tasks_are(
    label_studio, project_title
):
    settings = label_studio.settings(project=project_title)
    before = reach(settings)
    assert (before.is_ready, before.task_address(7)) == (True, "")
    assert before.sentence.endswith("will be made with the first image that is sent.")
    with label_studio.client() as studio:
        project = studio.project(project_title, LABELLING)
    now = reach(settings)
    assert now.sentence == (
        f"Connected to Label Studio 1.23.2 at {label_studio.url}, project “{project_title}”."
    )
    assert now.task_address(7) == f"{label_studio.url}/projects/{project.id}/data?task=7"
    assert now.task_address(None) == ""


def test_each_way_to_fail_has_its_own_sentence(label_studio, away):
    found = [
        reach(LabelStudioSettings(url=label_studio.url)),
        reach(LabelStudioSettings(url=away, token=SecretStr("f" * 40))),
        reach(label_studio.settings(token="f" * 40)),
        reach(label_studio.settings(project="999999")),
    ]
    assert [each.is_ready for each in found] == [False] * 4
    starts = (
        "No token for Label Studio: copy one from Account & Settings",
        f"Label Studio at {away} cannot be reached",
        f"Label Studio at {label_studio.url} does not accept ROLLMARK_LABEL_STUDIO__TOKEN",
        f"Label Studio at {label_studio.url} has no such project",
    )
    for each, start in zip(found, starts, strict=True):
        assert each.sentence.startswith(start)
        assert "f" * 40 not in each.sentence
