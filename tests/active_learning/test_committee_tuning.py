"""Choosing a committee: the search by a known worth, and on pictures with hand-made members."""

from dataclasses import replace

import numpy as np
import pytest

from active_learning.committee_tuning import (
    SAY,
    _ratios,
    fused_scenes,
    search,
    tune_committee,
)
from core.errors import DatasetError
from core.operating import parse_operating
from core.records import ReleaseConfig
from core.types import Detections, Provenance
from models import get_spec
from models._committee import CommitteeMember, CommitteeTuning, describe
from tests.demo import releases
from training.datasets import Dataset, write_index
from training.detection_metrics import Scene


def test_every_ratio_of_weights_is_tried_once_and_a_lone_member_never():
    ratios = list(_ratios(2))
    assert ratios[0] == (1, 1)
    assert len({a / b for a, b in ratios if b}) == len(ratios)
    assert sorted(ratios) == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)]
    assert max(SAY) == 3


def test_the_search_finds_the_best_weights_and_then_looks_at_the_overlap_again():
    def worth(weights, overlap):
        share = weights[0] / sum(weights)
        return 1 - abs(share - 0.75) - abs(overlap - (0.65 if weights != (1, 1) else 0.5)) / 10

    assert search(worth, 2) == ((3, 1), 0.65)


def test_of_choices_that_are_worth_the_same_the_simplest_is_taken():
    assert search(lambda weights, overlap: 1.0, 3) == ((1, 1, 1), 0.55)


def test_fused_scenes_keep_the_truth_and_leave_out_what_members_hardly_believe():
    truth, ids = np.array([[0.0, 0, 10, 10]]), np.array([2])
    one = Scene(truth, ids, np.array([[0.0, 0, 10, 10]]), np.array([0.9]), np.array([2]))
    other = Scene(truth, ids, np.array([[40.0, 0, 50, 10]]), np.array([0.009]), np.array([2]))
    (fused,) = fused_scenes([[one], [other]], (1, 1), 0.5)
    assert fused.truth is truth
    assert fused.boxes.tolist() == [[0, 0, 10, 10]]
    assert fused.scores.tolist() == pytest.approx([0.45])


class _Member:
    """Finds every true box, moved aside by `shift` px, or boxes nowhere."""

    def __init__(self, name, dataset, *, shift, score):
        self.spec, self.revision, self.labels = get_spec(name), "r", dataset.labels
        self._boxes = {s.sha256: s.boxes for s in dataset.samples}
        self._shift, self._score = shift, score

    def __call__(self, images, *, score_threshold):
        return [self._one(image) for image in images]

    def _one(self, image):
        boxes = self._boxes[image.sha256]
        xyxy = np.array([box for _, box in boxes], np.float32).reshape(-1, 4) + self._shift
        ids = np.array([self.labels.index(label) for label, _ in boxes], np.int64)
        source = Provenance(self.spec.name, "r", image.sha256, image.width, image.height, 1.0)
        scores = np.full(len(boxes), self._score, np.float32)
        return Detections(xyxy, scores, ids, self.labels, source)


@pytest.fixture
def configs(tmp_path, tiny_neu_det):
    found = []
    for name, weights in (("grace", "a"), ("da_yolo", "b")):
        config = releases.describe(tmp_path / name, name, task="detect", weights=weights * 64)
        run = config.run.model_copy(update={"dataset_id": tiny_neu_det.id})
        found.append(config.model_copy(update={"run": run}))
    return found


def test_the_better_member_gets_more_to_say_and_the_test_split_is_not_read(
    configs, tiny_neu_det, monkeypatch
):
    split = type(tiny_neu_det).split

    def only_val(self, protocol, name):
        assert name == "val"
        return split(self, protocol, name)

    monkeypatch.setattr(type(tiny_neu_det), "split", only_val)
    members = [
        _Member("grace", tiny_neu_det, shift=0, score=0.9),
        _Member("da_yolo", tiny_neu_det, shift=6, score=0.9),
    ]
    tuning = tune_committee(members, configs, tiny_neu_det)
    weights = {member.name: member.weight for member in tuning.members}
    assert weights["grace"] > weights["da_yolo"]
    assert (tuning.best_single, tuning.best_single_mAP50_95) == ("grace", pytest.approx(1.0))
    assert tuning.members[0].revision == "a" * 12
    assert tuning.n == len(split(tiny_neu_det, "leak-free", "val"))
    assert tuning.dataset == "neu-det"
    told = parse_operating(tuning.operating, "the committee")
    assert told is not None
    rates = told.at(tuning.score_threshold)
    assert rates is not None
    assert (rates.found, rates.wrong) == (1.0, 0.0)  # moved boxes still lie on their defects
    described = describe(configs, tuning.model_copy(update={"members": tuning.members}))
    assert described.operating == tuning.operating
    assert describe(configs, None).operating == {}


def test_a_tuning_without_counts_is_written_as_it_was_before_there_were_any():
    member = CommitteeMember(name="grace", revision="a" * 12, weight=1)
    bare = CommitteeTuning(
        members=(member,),
        iou_threshold=0.55,
        score_threshold=0.2,
        dataset="neu-det",
        protocol="leak-free",
        val_id="c" * 64,
        n=2,
        mAP50_95=0.5,
        best_single="grace",
        best_single_mAP50_95=0.5,
    )
    assert "operating" not in bare.model_dump()  # else its revision would be another


def test_members_of_another_data_set_or_protocol_are_refused(configs, tiny_neu_det, tmp_path):
    members = [_Member("grace", tiny_neu_det, shift=0, score=0.9)] * 2
    other = configs[1].model_copy(update={"protocol": "paper"})
    with pytest.raises(DatasetError, match="another's training images"):
        tune_committee(members, [configs[0], other], tiny_neu_det)
    # What they were trained on does not lie beside it, so nobody knows what has taught them.
    root = tmp_path / "elsewhere" / "neu-det"
    grown = replace(tiny_neu_det, root=root, samples=tiny_neu_det.samples[:-1])
    with pytest.raises(DatasetError, match="was trained on"):
        tune_committee(members, configs, grown)


def _retrained_on(version: Dataset, config: ReleaseConfig) -> ReleaseConfig:
    """The release as it is after it alone was retrained on a version that lies here."""
    root = version.root.parent / f"neu-det@{version.id[:12]}"
    root.mkdir(parents=True)
    write_index(replace(version, root=root), {})
    run = config.run.model_copy(update={"dataset_id": version.id})
    return config.model_copy(update={"run": run})


def test_a_member_that_was_retrained_alone_on_a_later_version_is_tuned_with_the_others(
    configs, tiny_neu_det, tmp_path
):
    base = replace(tiny_neu_det, root=tmp_path / "neu-det")
    taught = next(s for s in base.samples if s.splits["leak-free"] == "train")
    later = replace(base, samples=tuple(s for s in base.samples if s is not taught))
    retrained = _retrained_on(later, configs[0])
    members = [
        _Member("grace", base, shift=0, score=0.9),
        _Member("da_yolo", base, shift=6, score=0.9),
    ]
    tuning = tune_committee(members, [retrained, configs[1]], base)
    assert tuning.n == len(base.split("leak-free", "val"))


def test_a_member_that_has_learned_from_the_validation_images_is_refused(
    configs, tiny_neu_det, tmp_path
):
    base = replace(tiny_neu_det, root=tmp_path / "neu-det")
    first, *others = base.split("leak-free", "val")
    moved = replace(first, group="alone", splits={**first.splits, "leak-free": "train"})
    kept = tuple(moved if s is first else s for s in base.samples)
    retrained = _retrained_on(replace(base, samples=kept), configs[0])
    members = [_Member("grace", base, shift=0, score=0.9)] * 2
    told = f"1 of the {1 + len(others)} validation images of neu-det have taught grace aaaaaaaaaaaa"
    with pytest.raises(DatasetError, match=told):
        tune_committee(members, [retrained, configs[1]], base)
