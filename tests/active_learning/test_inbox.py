"""The inbox: each answer applied once, in whatever order and however often it is delivered."""

from __future__ import annotations

import weakref
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest

from active_learning import _answer_rows
from active_learning import inbox as inbox_module
from active_learning._answer_rows import AnnotationRow, to_annotation
from active_learning.inbox import Arrival, Cursor, Taken
from core.errors import InputError
from core.records import Annotation
from tests.databases import in_children

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


def arrival(annotation_id, minute, kind="annotated", *, image="a" * 64, label="scratches", task=1):
    at = NOON + timedelta(minutes=minute)
    said = Annotation(
        image_sha256=image,
        width=8,
        height=8,
        boxes=((label, (0.0, 0.0, 4.0, 4.0)),),
        annotator="ann",
        created_at=at,
        task_id=task,
        annotation_id=annotation_id,
    )
    return Arrival(task, annotation_id, at, kind, image, said if kind == "annotated" else None)


def labels(inbox):
    return [annotation.boxes[0][0] for annotation in inbox.current()]


def test_an_answer_delivered_twice_is_applied_once(inbox, ledger):
    assert inbox.take([arrival(5, 0)]) == Taken(seen=1, applied=1)
    assert inbox.take([arrival(5, 0), arrival(5, 0)]) == Taken(seen=2, repeated=2)
    assert inbox.current() == (arrival(5, 0).annotation,)
    assert [event.what for event in ledger.events("annotation:5")] == ["annotated"]


def test_an_edited_answer_replaces_the_old_one_in_any_order(inbox):
    edits = [arrival(5, n, label=f"label {n}") for n in range(3)]
    for order in permutations(edits):
        inbox.take(order)
        assert labels(inbox) == ["label 2"]
    assert inbox.counts() == {"annotated": 1, "skipped": 0, "deleted": 0}


def test_a_correction_counts_although_what_it_corrects_was_dated_by_a_clock_that_was_ahead(
    inbox, clock
):
    ahead = 365 * 24 * 60
    clock.pass_s(60 * ahead)
    inbox.take([arrival(5, ahead, label="wrong"), arrival(5, ahead + 1, "skipped")])
    clock.pass_s(-60 * ahead)
    corrected = arrival(5, 9, label="right")
    assert inbox.take([corrected]) == Taken(seen=1, applied=1)
    assert labels(inbox) == ["right"]
    assert inbox.take([corrected]) == Taken(seen=1, repeated=1)
    inbox.take([arrival(5, 10, label="right again")])
    assert labels(inbox) == ["right again"]
    assert inbox.times_answered() == {"a" * 64: 3}


def test_of_two_answers_about_one_image_the_newer_holds(inbox):
    inbox.take([arrival(5, 3, label="newer"), arrival(6, 1, label="older")])
    assert labels(inbox) == ["newer"]
    inbox.take([arrival(5, 4, "deleted")])
    assert labels(inbox) == ["older"]


def test_answers_can_be_read_with_a_few_in_memory_at_a_time(inbox, monkeypatch):
    inbox.take([arrival(n, n, image=f"{n:064d}", task=n) for n in range(1, 10)])
    monkeypatch.setattr(_answer_rows, "_AT_ONCE", 2)
    read: list[weakref.ref[AnnotationRow]] = []
    together = []

    def counted(row):
        read.append(weakref.ref(row))
        together.append(sum(one() is not None for one in read))
        return to_annotation(row)

    monkeypatch.setattr(inbox_module, "to_annotation", counted)
    assert [said.task_id for said in inbox.each()] == list(range(1, 10))
    assert max(together) <= 4  # two of this question, and two of the one before


def test_a_skipped_answer_says_nothing_until_it_is_given(inbox):
    assert inbox.take([arrival(5, 0, "skipped")]) == Taken(seen=1, skipped=1)
    assert inbox.current() == ()
    inbox.take([arrival(5, 1)])
    assert labels(inbox) == ["scratches"]


def test_a_deletion_counts_although_our_clock_is_behind_and_is_noted_once(inbox):
    inbox.take([arrival(5, 10)])
    assert inbox.live() == {(1, "a" * 64): {5}}
    assert inbox.take([arrival(5, 2, "deleted")]) == Taken(seen=1, deleted=1)
    assert inbox.take([arrival(5, 30, "deleted")]) == Taken(seen=1, repeated=1)
    assert (inbox.current(), inbox.live()) == ((), {})
    inbox.take([arrival(5, 40, label="restored")])
    assert labels(inbox) == ["restored"]


def test_answers_of_other_projects_are_not_seen(inbox, ledger):
    inbox.take([arrival(5, 0)], cursor=Cursor(NOON, 5))
    other = type(inbox)(ledger, project="Other", who="pull")
    assert (other.current(), other.cursor()) == ((), None)
    assert other.take([arrival(5, 0)]) == Taken(seen=1, applied=1)


def test_the_cursor_moves_forward_only(inbox, clock):
    clock.pass_s(3600)
    assert inbox.cursor() is None
    for minute, last_id, expected in (
        (5, 7, (5, 7)),
        (5, 6, (5, 7)),
        (4, 9, (5, 7)),
        (5, 8, (5, 8)),
        (6, 1, (6, 1)),
    ):
        inbox.take([], cursor=Cursor(NOON + timedelta(minutes=minute), last_id))
        assert inbox.cursor() == Cursor(NOON + timedelta(minutes=expected[0]), expected[1])


def test_a_cursor_ahead_of_our_clock_is_not_believed_and_may_move_back(inbox):
    inbox.take([], cursor=Cursor(NOON + timedelta(minutes=5), 1))
    assert inbox.cursor() == Cursor(NOON + timedelta(minutes=5), 1)  # clocks differ by so much
    inbox.take([], cursor=Cursor(NOON + timedelta(hours=6), 2))
    assert inbox.cursor() is None
    inbox.take([], cursor=Cursor(NOON - timedelta(minutes=1), 3))
    assert inbox.cursor() == Cursor(NOON - timedelta(minutes=1), 3)


def test_answers_of_several_people_stand_together_as_they_are_now(inbox):
    inbox.take(
        [
            arrival(5, 2, label="second"),
            arrival(6, 1, label="first"),
            arrival(7, 0, "skipped"),
            arrival(8, 0, task=2, image="b" * 64),  # alone
            arrival(9, 0, task=3, image="c" * 64),
            arrival(10, 1, "deleted", task=3, image="c" * 64),
        ]
    )
    inbox.take([arrival(6, 3, label="edited")])
    [answers] = inbox.answered_repeatedly()
    assert [said.boxes[0][0] for said in answers] == ["second", "edited"]  # the oldest first


def test_each_origin_is_read_with_a_cursor_of_its_own(inbox):
    inbox.take([], cursor=Cursor(NOON, 9), origin="3 then")
    assert (inbox.cursor("3 then"), inbox.cursor("3 now"), inbox.cursor()) == (
        Cursor(NOON, 9),
        None,
        None,
    )


@pytest.mark.parametrize("minutes", [0, 60], ids=["in the same microsecond", "later"])
def test_an_answer_with_the_ids_of_another_server_replaces_none(inbox, minutes):
    old = [arrival(n, 0, task=n, image=f"{n:064d}", label="crazing") for n in (1, 2, 3)]
    new = [arrival(n, minutes, task=n, image=f"{n:063d}f") for n in (1, 2)]
    inbox.take(old)
    assert inbox.take(new) == Taken(seen=2, applied=2)
    assert inbox.take([*new, *old]) == Taken(seen=5, repeated=5)
    assert sorted(labels(inbox)) == ["crazing"] * 3 + ["scratches"] * 2
    inbox.take([arrival(1, 90, "deleted", task=1, image=f"{1:063d}f")])
    assert sorted(labels(inbox)) == ["crazing"] * 3 + ["scratches"]
    assert inbox.counts() == {"annotated": 4, "skipped": 0, "deleted": 1}


def test_what_is_compared_with_a_project_came_from_it(inbox):
    inbox.take([replace(arrival(5, 0), origin="3 then")])
    inbox.take([replace(arrival(6, 0, task=2), origin="3 now")])
    inbox.take([arrival(7, 0, task=3)])  # taken before origins were kept
    then, now, unknown = ((task, "a" * 64) for task in (1, 2, 3))
    assert inbox.live() == {then: {5}, now: {6}, unknown: {7}}
    assert inbox.live("3 now") == {now: {6}, unknown: {7}}
    assert inbox.take([replace(arrival(7, 0, task=3), origin="3 then")]) == Taken(1, repeated=1)
    assert inbox.live("3 now") == {now: {6}}


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (Arrival(1, 5, NOON, "annotated", "a" * 64, None), "only an annotated one says something"),
        (
            Arrival(1, 5, NOON, "annotated", "b" * 64, arrival(5, 0).annotation),
            "is about image aaaaaaaaaaaa, but its task shows bbbbbbbbbbbb",
        ),
        (
            Arrival(1, 5, NOON.replace(tzinfo=None), "skipped", "a" * 64),
            "of no time zone; UTC is",
        ),
    ],
    ids=["empty", "stranger", "naive"],
)
def test_a_batch_with_a_contradiction_changes_nothing(inbox, wrong, sentence):
    with pytest.raises(InputError, match=sentence):
        inbox.take([arrival(4, 0), wrong], cursor=Cursor(NOON, 5))
    assert (inbox.current(), inbox.cursor()) == ((), None)


def test_three_processes_pulling_the_same_answers_apply_each_once(inbox, ledger_url, tmp_path):
    from core.ledger import open_ledger

    def pulls():
        mine = type(inbox)(open_ledger(ledger_url), project="Rollmark", who="pull")
        taken = mine.take([arrival(n, 0, task=n, image=f"{n:064d}") for n in range(1, 20)])
        with (tmp_path / "applied").open("a") as file:
            file.write(f"{taken.applied}\n")

    assert in_children(pulls, pulls, pulls) == [0, 0, 0]
    assert sum(map(int, (tmp_path / "applied").read_text().split())) == 19
    assert len(inbox.current()) == 19
