"""What the models doubt reaches the review queue by itself, and no answer waits for it or fails."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from active_learning.committee import Committee
from core.errors import LedgerError
from core.images import decode
from core.records import Inspection, ReviewItem
from core.settings import PathSettings, ReviewSettings, Settings
from demo import doubts as module
from demo.doubts import BUSY, NOT_QUEUED, ON_ITS_WAY, QUEUED, Doubts, doubt_of
from demo.service import Service
from tests.active_learning.answers import by_classifier, by_detector
from tests.active_learning.review_desk import picture
from tests.demo.releases import PICTURE

# Doubted by every detector of these tests: its inclusion is 0.30 probable, not sure begins at 0.25.
STRICT = ReviewSettings(review_threshold=0.05)
BOX = (10.0, 10.0, 50.0, 50.0)


@pytest.fixture
def strict(service: Service, paths: PathSettings) -> Service:
    doubting = Service(Settings(paths=paths, review=STRICT))
    doubting._doubts = Doubts(doubting.review, STRICT, wait_s=60)  # a busy machine is slow
    return doubting


def items(service: Service) -> tuple[ReviewItem, ...]:
    return service.review.open(service.releases()).queue.items()


def unsure(model: str = "grace") -> Inspection:
    return by_detector(model, ("inclusion", 0.5, BOX)).model_copy(
        update={"verdict": "review", "uncertainty": 0.7, "reasons": ("inclusion 0.50 is open",)}
    )


def test_an_unsure_answer_carries_the_item_that_it_became(strict: Service, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(picture())
    look = strict.inspect(file, "grace")
    assert look.inspection.verdict == "review"
    [item] = items(strict)
    assert (look.inspection.review_item, look.queued) == (item.id, "in the review queue")
    assert (item.state, item.reasons) == ("pending", look.inspection.reasons)
    assert item.priority == look.inspection.uncertainty
    assert strict.review.open(strict.releases()).queue.images.get(item.image_sha256) == picture()


def test_a_sure_answer_is_not_queued(service: Service, paths: PathSettings) -> None:
    relaxed = Service(Settings(paths=paths, review=ReviewSettings(review_threshold=1.0)))
    look = relaxed.inspect(picture(), "grace")
    assert (look.inspection.verdict, look.inspection.review_item, look.queued) == (
        *("defect", None, ""),
    )
    assert items(relaxed) == ()


def test_the_same_image_is_one_item_however_often_it_is_inspected(strict: Service) -> None:
    found = [strict.inspect(picture(), m).inspection.review_item for m in ("grace", "da_yolo")]
    found += [strict.inspect(picture(), "grace", score_threshold=0.2).inspection.review_item]
    [item] = items(strict)
    assert found == [item.id] * 3
    assert [said.model for said in item.predictions] == ["da_yolo", "grace"]
    entity = f"review_item:{item.id}"
    events = strict.review.open(strict.releases()).ledger.events(entity)
    assert [event.what for event in events] == ["added", "added again"]  # once a model


def test_sample_pictures_are_never_queued(strict: Service) -> None:
    assert strict.inspect(PICTURE, "grace").inspection.verdict == "review"
    assert strict.inspect(PICTURE.read_bytes(), "grace").queued == ""
    assert items(strict) == ()


def test_a_setting_switches_it_off(service: Service, paths: PathSettings) -> None:
    off = ReviewSettings(review_threshold=0.05, queue_unsure=False)
    public = Service(Settings(paths=paths, review=off))
    assert public.inspect(picture(), "grace").inspection.review_item is None
    assert items(public) == ()


def test_a_flagged_image_is_queued_for_the_person_s_reason_alone(strict: Service) -> None:
    strict.flag(picture(), "grace", reason="missed")
    [item] = items(strict)
    assert item.reasons == ("a person says that a defect was missed",)


def test_a_comparison_queues_its_image_once_with_every_opinion(strict: Service) -> None:
    comparison = strict.compare(picture())
    [item] = items(strict)
    assert {look.inspection.review_item for look in comparison.looks} == {item.id}
    assert [said.model for said in item.predictions] == ["da_yolo", "grace", "mobilesteelnet"]
    assert comparison.queued == QUEUED


def test_a_ledger_that_is_down_is_a_mark_on_the_page_and_one_line_in_the_log(
    strict: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise LedgerError("The ledger cannot be opened: the disk is full.")

    monkeypatch.setattr(strict.review, "add", fails)
    with caplog.at_level(logging.WARNING):
        look = strict.inspect(picture(), "grace")
    assert look.inspection.verdict == "review"
    assert (look.inspection.review_item, look.queued) == (None, NOT_QUEUED)
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().endswith("the disk is full.")


def test_a_slow_ledger_holds_no_answer_up_and_loses_nothing(
    strict: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, goes_on, is_stored = strict.review.add, threading.Event(), threading.Event()

    def slow(*args: Any, **more: Any) -> Any:
        assert goes_on.wait(30)
        item = add(*args, **more)
        is_stored.set()
        return item

    monkeypatch.setattr(strict.review, "add", slow)
    patient = Doubts(strict.review, STRICT, wait_s=0.0)
    releases = strict.releases()
    seen = [strict.inspect(decode(picture(seed)), "grace").inspection for seed in range(9)]
    told = [
        patient.settle(picture(seed), [inspection], releases).words
        for seed, inspection in enumerate(seen)
    ]
    assert told == [*[ON_ITS_WAY] * 8, BUSY]
    goes_on.set()
    patient._writer.shutdown(wait=True)
    assert is_stored.is_set()
    assert len(items(strict)) == 8


def test_disagreement_alone_asks_for_a_person() -> None:
    sure = [by_detector("grace", ("scratches", 0.9, BOX)), by_classifier("m", {"inclusion": 0.9})]
    split = Committee(0.5, ("classes disagree: scratches by grace, inclusion by m",), "…")
    doubt = doubt_of(sure, split, 0.5, titles={})
    assert doubt is not None
    assert (doubt.reasons, doubt.priority) == (split.reasons, 0.5)
    assert doubt_of(sure, split, 0.51, titles={}) is None


def test_one_of_several_models_doubts_under_its_own_name() -> None:
    both = [unsure(), by_classifier("m", {"inclusion": 0.9})]
    doubt = doubt_of(both, None, 0.5, titles={"grace": "GRACE"})
    assert doubt is not None
    assert (doubt.reasons, doubt.priority) == (("GRACE: inclusion 0.50 is open",), 0.7)


def test_the_samples_are_known_by_their_bytes() -> None:
    assert "883988251961da0342ce6f0b3d2a5658d77b78603c246c19f9b325b8b419cd14" in (
        module.sample_hashes()
    )
