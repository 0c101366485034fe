"""Which waiting items are sent when more wait than may be: by whom they were looked at decides."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from active_learning.choosing import BY_HAND, Waiting, choose, classes_seen
from core.records import FoundBox, ImageFacts, Inspection, ReviewItem
from core.types import Task

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def said(task: Task, **found: Any) -> Inspection:
    return Inspection(
        model=task,
        revision="0" * 12,
        task=task,
        image=ImageFacts(sha256="0" * 64, width=10, height=10),
        uncertainty=0.5,
        verdict="review",
        latency_ms=1.0,
        **found,
    )


def item(number: int, priority: float, *tasks: Task) -> ReviewItem:
    return ReviewItem(
        id=f"{number:032d}",
        image_sha256="0" * 64,
        project="Rollmark",
        config_revision="0",
        dedupe_key=f"key {number}",
        reasons=("doubted",),
        priority=priority,
        predictions=tuple(said(task) for task in tasks),
        state="pending",
        created_at=NOW,
        updated_at=NOW,
    )


def chosen(due: list[ReviewItem], budget: int, *, seed: int = 0) -> list[int]:
    options = {"labelled_counts": {}, "random_share": 0.0, "seed": seed}
    return [int(name) for name in choose([Waiting.of(one) for one in due], budget, **options)]


def test_all_are_sent_where_the_budget_allows():
    assert chosen([item(k, k / 10, "detect") for k in (2, 1)], 2) == [2, 1]


def test_the_most_uncertain_classified_images_are_sent():
    assert chosen([item(k, k / 100, "classify") for k in range(40)], 3) == [39, 38, 37]


def test_among_images_that_only_detectors_have_seen_chance_decides():
    due = [item(k, k / 100, "detect") for k in range(40)]
    first, again, other = (chosen(due, 10, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert len(set(first)) == 10
    assert set(first) != set(range(30, 40))  # nor is it the most uncertain


def test_what_a_person_has_flagged_goes_before_chance():
    due = [item(1, BY_HAND, "detect"), item(2, BY_HAND, "detect")]
    due += [item(k, 0.9, "detect") for k in range(3, 40)]
    assert chosen(due, 3)[:2] == [1, 2]
    assert len(chosen(due, 3)) == 3
    assert chosen(due, 1) == [1]


def test_what_a_person_has_flagged_goes_before_every_doubt_of_a_model():
    seen = said("classify", probabilities={"crazing": 0.9})
    due = [item(k, BY_HAND).model_copy(update={"predictions": (seen,)}) for k in range(1, 5)]
    due += [item(k, 0.99, "classify") for k in range(5, 40)]
    options = {"labelled_counts": {"crazing": 10_000}, "random_share": 0.2, "seed": 0}
    sent = choose([Waiting.of(one) for one in due], 5, **options)
    assert [int(name) for name in sent[:4]] == [1, 2, 3, 4]
    assert len(set(sent)) == 5


def test_one_classified_image_is_enough_for_a_ranking():
    due = [item(k, k / 100, "detect") for k in range(1, 40)] + [item(0, 0.0, "classify")]
    assert chosen(due, 2) == [39, 38]


def test_the_classes_of_an_item_are_those_that_any_model_sees():
    box = FoundBox(label="patches", score=0.5, probability=0.6, box=(0, 0, 5, 5))
    both = [said("detect", detections=(box,)), said("classify", probabilities={"crazing": 0.9})]
    assert classes_seen(both) == ("crazing", "patches")
