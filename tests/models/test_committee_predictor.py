"""Detectors fused into one predictor, and the file that says how."""

import numpy as np
import pytest
from pydantic import ValidationError

from core.errors import ConfigError, WeightsError, WeightsNotFoundError
from core.settings import PathSettings
from core.types import DecodedImage, Detections, Provenance
from models import get_spec, names
from models._committee import (
    Committee,
    CommitteeMember,
    CommitteeTuning,
    describe,
    detectors,
    open_committee,
    read_tuning,
    revision,
)
from tests.demo import releases
from training.served import open_predictor

LABELS = ("a", "b")
IMAGE = DecodedImage(np.zeros((20, 20, 3), np.uint8), sha256="0" * 64)


class _Member:
    """Finds one box of class a."""

    def __init__(self, name, box, score, *, labels=LABELS):
        self.spec, self.revision, self.labels = get_spec(name), f"{name}-1", labels
        self.box, self.score, self.asked = box, score, None

    def __call__(self, images, *, score_threshold):
        self.asked = score_threshold
        source = Provenance(self.spec.name, self.revision, "0" * 64, 20, 20, 7.0)
        return [
            Detections(
                np.array([self.box], np.float32),
                np.array([self.score], np.float32),
                np.array([0]),
                self.labels,
                source,
            )
            for _ in images
        ]


def _tuning(**changes):
    members = (
        CommitteeMember(name="grace", revision="grace-1", weight=3),
        CommitteeMember(name="da_yolo", revision="da_yolo-1", weight=1),
    )
    values = {
        "members": members,
        "iou_threshold": 0.5,
        "score_threshold": 0.2,
        "dataset": "neu-det",
        "protocol": "leak-free",
        "val_id": "a" * 64,
        "n": 10,
        "mAP50_95": 0.4,
        "best_single": "grace",
        "best_single_mAP50_95": 0.39,
    }
    return CommitteeTuning.model_validate(values | changes)


def _members():
    return [_Member("grace", (0, 0, 10, 10), 0.8), _Member("da_yolo", (2, 0, 12, 10), 0.8)]


def test_the_committee_is_no_published_model_and_its_members_are_the_detectors():
    assert "committee" not in names()
    assert detectors() == ("da_yolo", "gms2_yolo", "grace")


def test_members_are_fused_with_the_weights_they_were_tuned_to_have():
    committee = Committee(_members(), _tuning())
    (found,) = committee([IMAGE], score_threshold=0.1)
    np.testing.assert_allclose(found.xyxy, [[0.5, 0, 10.5, 10]], rtol=1e-6)  # 3 : 1
    assert found.scores.tolist() == pytest.approx([0.8])
    assert (found.source.model, found.source.revision) == ("committee", committee.revision)
    assert found.source.latency_ms == 14.0  # the members' together
    assert committee.spec.name == "committee"
    assert committee.spec.task == "detect"


def test_other_weights_than_the_tuned_ones_make_all_members_equal():
    members = _members()
    members[1].revision = "da_yolo-2"
    (found,) = Committee(members, _tuning())([IMAGE], score_threshold=0.1)
    np.testing.assert_allclose(found.xyxy, [[1, 0, 11, 10]], rtol=1e-6)


def test_what_members_are_asked_for_does_not_depend_on_the_threshold_shown():
    members = _members()
    committee = Committee(members, _tuning())
    assert len(committee([IMAGE], score_threshold=0.9)[0]) == 0
    assert [m.asked for m in members] == [0.01, 0.01]
    committee([IMAGE], score_threshold=0.001)
    assert members[0].asked == 0.001


def test_the_revision_changes_with_any_weights_and_with_the_tuning():
    one, two = ("grace", "1"), ("da_yolo", "1")
    assert revision([one, two], None) == revision([two, one], None)
    assert revision([one, two], None) != revision([one, ("da_yolo", "2")], None)
    assert revision([one, two], None) != revision([one, two], _tuning())


def test_members_that_know_different_classes_cannot_sit_together():
    members = [_members()[0], _Member("da_yolo", (0, 0, 1, 1), 0.5, labels=("a", "c"))]
    with pytest.raises(WeightsError, match="know the same classes"):
        Committee(members, None)


def test_one_detector_is_no_committee(tmp_path):
    with pytest.raises(WeightsNotFoundError, match="two detectors or more, there are 1"):
        open_committee(_members()[:1], tmp_path, tmp_path)


@pytest.mark.parametrize("weights", [(0, 0), (2, -1)], ids=["all 0", "one below 0"])
def test_a_tuning_in_which_no_member_or_less_than_none_has_a_say_is_refused(weights):
    members = [
        {"name": name, "revision": "1", "weight": weight}
        for name, weight in zip(("grace", "da_yolo"), weights, strict=True)
    ]
    with pytest.raises(ValidationError, match="weight"):
        _tuning(members=members)


def test_a_committee_file_without_any_say_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "committee" / "committee.json"
    _lay(tmp_path, _tuning())
    text = path.read_text()
    path.write_text(
        text.replace('"weight":3.0', '"weight":0').replace('"weight":1.0', '"weight":0')
    )
    with pytest.raises(WeightsError) as caught:
        read_tuning(tmp_path, tmp_path / "none", [("grace", "grace-1"), ("da_yolo", "da_yolo-1")])
    assert str(caught.value) == (
        f"{path} is no tuning of a committee: no member has a weight above 0, "
        "so it would find nothing."
    )


def _lay(folder, tuning):
    (folder / "committee").mkdir(parents=True, exist_ok=True)
    (folder / "committee" / "committee.json").write_text(tuning.model_dump_json())


def test_a_tuning_of_this_machine_comes_before_the_bundled_one(tmp_path):
    bundled, own = tmp_path / "bundled", tmp_path / "releases"
    members = [(m.name, m.revision) for m in _tuning().members]
    assert read_tuning(bundled, own, members) is None
    _lay(bundled, _tuning(n=1))
    _lay(own, _tuning(n=2))
    assert read_tuning(bundled, own, members).n == 2
    (own / "committee" / "committee.json").write_text("{}")
    with pytest.raises(WeightsError, match="no tuning of a committee"):
        read_tuning(bundled, own, members)


def test_a_tuning_that_fits_comes_before_a_newer_one_of_other_weights(tmp_path, caplog):
    bundled, own = tmp_path / "bundled", tmp_path / "releases"
    fits = _tuning(n=1)
    members = [(m.name, m.revision) for m in fits.members]
    [first, *others] = fits.members
    trained_since = (first.model_copy(update={"revision": "f" * 12}), *others)
    _lay(bundled, fits)
    _lay(own, fits.model_copy(update={"n": 2, "members": trained_since}))
    assert read_tuning(bundled, own, members).n == 1
    assert caplog.text == ""
    stranger = [("grace", "0123456789ab"), *members[1:]]
    for _ in range(2):  # as an app does with every answer
        assert read_tuning(bundled, own, stranger) is None
    assert caplog.text.count("all members have an equal say") == 1
    assert "grace 0123456789ab" in caplog.text


def test_a_description_adds_up_the_cost_and_takes_the_tuned_threshold(tmp_path):
    configs = [
        releases.describe(tmp_path / n, n, task="detect", weights=w * 64, validated=v)
        for n, w, v in (("grace", "a", 0.5), ("da_yolo", "b", 0.4))
    ]
    plain = describe(configs, None)
    assert plain.parameters == 2 * 2_600_000
    assert (plain.name, plain.calibration, plain.evaluations) == ("committee", {}, ())
    members = tuple(CommitteeMember(name=c.name, revision=c.revision, weight=1) for c in configs)
    tuned = describe(configs, _tuning(members=members, score_threshold=0.31))
    assert tuned.score_threshold == 0.31
    assert tuned.revision != plain.revision


def test_the_commands_open_the_committee_by_name(tmp_path, monkeypatch):
    paths = PathSettings(bundled=tmp_path / "bundled", data=tmp_path / "data")
    for name in ("grace", "da_yolo"):
        releases.describe(paths.bundled / name, name, task="detect")
    opened = {}

    def load(folder, **how):
        opened[folder.name] = _Member(folder.name, (0, 0, 5, 5), 0.5)
        return opened[folder.name]

    monkeypatch.setattr("training.served.load", load)
    predictor = open_predictor("committee", None, "cpu", paths)
    assert isinstance(predictor, Committee)
    assert set(opened) == {"grace", "da_yolo"}
    mirrored = open_predictor("committee", None, "cpu", paths, tta=True)
    assert mirrored.revision == predictor.revision
    with pytest.raises(ConfigError, match="no weights of its own"):
        open_predictor("committee", tmp_path, "cpu", paths)
