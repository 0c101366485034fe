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
from core.types import Detections, Provenance
from models import get_spec
from tests.demo import releases
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


def test_members_of_another_data_set_or_protocol_are_refused(configs, tiny_neu_det):
    members = [_Member("grace", tiny_neu_det, shift=0, score=0.9)] * 2
    other = configs[1].model_copy(update={"protocol": "paper"})
    with pytest.raises(DatasetError, match="another's training images"):
        tune_committee(members, [configs[0], other], tiny_neu_det)
    grown = replace(tiny_neu_det, samples=tiny_neu_det.samples[:-1])
    with pytest.raises(DatasetError, match="was trained on"):
        tune_committee(members, configs, grown)
