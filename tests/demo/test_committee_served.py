"""The committee beside the served models: offered, answered, explained."""

from __future__ import annotations

import json

import pytest

from core.errors import InputError, UnknownModelError
from core.settings import PathSettings, Settings
from demo.committee import sits_untuned
from demo.service import Service
from tests.demo import releases
from tests.demo.fakes import Loader
from tests.demo.releases import PICTURE


def test_two_detectors_make_a_committee_that_may_be_chosen(service: Service) -> None:
    names = [release.config.name for release in service.choices()]
    assert names == ["da_yolo", "grace", "mobilesteelnet", "committee"]
    assert service.choose("committee").config.task == "detect"
    assert service.choose().config.name == "grace"  # never the automatic choice
    assert "committee" not in service.chosen(None)


def test_the_committee_answers_with_what_its_members_find(service: Service, loader: Loader) -> None:
    # Both members say the same: scratches 0.93, inclusion 0.30 above the release's 0.25.
    look = service.inspect(PICTURE, "committee")
    found = {d.label: d for d in look.inspection.detections}
    assert found["scratches"].score == pytest.approx(0.93)
    assert found["scratches"].box == (10, 20, 40, 190)
    assert look.inspection.model == "committee"
    assert look.inspection.revision == service.choose("committee").config.revision
    assert look.inspection.latency_ms == 24.0
    assert len(loader.loaded) == 2


def test_the_committee_is_shown_beside_its_detectors_and_has_no_vote_of_its_own(
    service: Service,
) -> None:
    alone = service.compare(PICTURE, ["da_yolo", "grace"]).committee
    beside = service.compare(PICTURE, ["da_yolo", "grace", "committee"])
    assert [look.inspection.model for look in beside.looks] == ["da_yolo", "grace", "committee"]
    assert beside.committee == alone
    assert beside.committee.sentence == "Both see scratches and inclusion."


def test_the_committee_votes_where_none_of_its_detectors_does(service: Service) -> None:
    with_classifier = service.compare(PICTURE, ["mobilesteelnet", "committee"]).committee
    assert with_classifier.sentence == "1 of 2 sees crazing; the detector says scratches."
    assert service.compare(PICTURE, ["committee"]).committee.sentence == (
        "The detector sees scratches and inclusion."
    )


def test_other_weights_of_a_member_are_another_revision(
    service: Service, paths: PathSettings
) -> None:
    before = service.choose("committee").config.revision
    releases.promote(paths.releases, "grace", task="detect", weights="e" * 64)
    assert service.choose("committee").config.revision != before


def test_a_committee_says_so_where_it_was_not_tuned_with_its_members(
    service: Service, paths: PathSettings
) -> None:
    def title() -> str:
        return service.titles()["committee"]

    assert title() == "Committee of the detectors, not tuned"
    sitting = [service.choose(name) for name in ("da_yolo", "grace")]
    assert [sits_untuned(one, service.choices()) for one in sitting] == [True, True]
    members = [{"name": r.config.name, "revision": r.config.revision, "weight": 1} for r in sitting]
    chosen = {"iou_threshold": 0.6, "score_threshold": 0.2, "dataset": "neu-det", "n": 9}
    measured = {"mAP50_95": 0.4, "best_single": "grace", "best_single_mAP50_95": 0.4}
    tuning = {"members": members, "protocol": "leak-free", "val_id": "f" * 64}
    (paths.bundled / "committee").mkdir()
    file = paths.bundled / "committee" / "committee.json"
    file.write_text(json.dumps(tuning | chosen | measured))
    assert title() == "Committee of the detectors"
    assert not sits_untuned(sitting[0], service.choices())
    releases.promote(paths.releases, "grace", task="detect", weights="e" * 64)
    assert title() == "Committee of the detectors, not tuned"
    assert sits_untuned(service.choose("da_yolo"), service.choices())
    assert not sits_untuned(service.choose("mobilesteelnet"), service.choices())


def test_one_detector_offers_no_committee(paths: PathSettings) -> None:
    releases.describe(paths.bundled / "grace", "grace", task="detect")
    service = Service(Settings(paths=paths))
    with pytest.raises(UnknownModelError, match=r"Available: auto, grace\."):
        service.choose("committee")


def test_a_damaged_tuning_costs_the_tuning_and_not_the_answer(
    service: Service, paths: PathSettings, caplog: pytest.LogCaptureFixture
) -> None:
    (paths.bundled / "committee").mkdir()
    (paths.bundled / "committee" / "committee.json").write_text("{")
    assert service.inspect(PICTURE, "committee").inspection.detections
    assert "no tuning of a committee" in caplog.text


def test_the_committee_has_no_heat_map(service: Service) -> None:
    answer = service.inspect(PICTURE, "committee")
    with pytest.raises(InputError, match="choose one of its members"):
        service.heat(answer.image, answer.inspection, "layer")
