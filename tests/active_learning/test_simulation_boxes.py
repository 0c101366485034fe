"""A simulated pool of boxes: what each strategy picks from canned findings, how it is judged."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from active_learning.simulate import simulate_dataset
from active_learning.simulation import OURS, RANDOM, Ask, Plan, simulate
from active_learning.simulation_boxes import COMMITTEE, LEAST_CONFIDENCE, BoxPool
from core.errors import InputError
from core.settings import load_settings
from training import head_trainer

BOX = (10.0, 10.0, 60.0, 60.0)
# What the first and the second member find in each image of the pool, and in any other image:
# (class id, score).
FIRST = {0: [(0, 0.9)], 1: [(0, 0.6)], 2: [(1, 0.8)], 3: []}
SECOND = {0: [(0, 0.9)], 1: [(0, 0.6)], 2: [(2, 0.8)], 3: []}


@dataclasses.dataclass
class CannedMaps:
    samples: tuple

    def __len__(self) -> int:
        return len(self.samples)


class CannedTrainer:
    """Heads are numbers: 0 for the first member of a committee, 1 for the second."""

    def __init__(self, arrays, labels, samples):
        self.pool = samples
        self.trained: list[tuple] = []

    def maps(self, samples, *, mirrored=False):
        return CannedMaps(tuple(samples))

    def train(self, views, rows, *, seed, steps):
        self.trained.append((tuple(rows), seed, steps))
        return int(seed >= 500_000)

    def look(self, head, maps, rows, *, threshold):
        assert len(rows) == 0 or max(rows) < len(maps)
        is_pool = maps.samples == self.pool
        found = []
        for k in rows:
            said = (FIRST, SECOND)[head].get(k, []) if is_pool else [(0, 0.5)]
            boxes = np.array([BOX] * len(said), np.float32).reshape(-1, 4)
            scores = np.array([score for _, score in said], np.float32)
            found.append((boxes, scores, np.array([c for c, _ in said], np.int64)))
        return found


@pytest.fixture
def pool(tiny_neu_det, monkeypatch, tmp_path):
    """Five images to choose from; no image of another split shows anything of class 0."""
    monkeypatch.setattr(head_trainer, "HeadTrainer", CannedTrainer)
    samples = []
    for k, sample in enumerate(tiny_neu_det.samples):
        split = "train" if k < 5 else ("val", "test")[k % 2]
        boxes = (("crazing" if k < 5 else "patches", BOX),)
        samples.append(dataclasses.replace(sample, splits={"leak-free": split}, boxes=boxes))
    dataset = dataclasses.replace(tiny_neu_det, samples=tuple(samples))
    return BoxPool(dataset, tmp_path / "coco.npz", protocol="leak-free", judged=("test",))


def asked(size: int, *labelled: int) -> Ask:
    rest = tuple(k for k in range(4) if k not in labelled)
    return Ask(labelled, rest, size, random_share=0.0, seed=1, learner_seed=0)


def test_the_least_confident_image_has_the_weakest_best_box(pool):
    # Nothing in 3, then 0.6 in 1, 0.8 in 2 and 0.9 in 0. Nothing is learned of the scores: val
    # shows no class that is found there, so they stay as they are.
    assert pool.choose(LEAST_CONFIDENCE, asked(3, 4)) == [3, 1, 2]


def test_the_committee_asks_where_its_members_contradict_each_other(pool):
    # Class 1 against class 2 in image 2; elsewhere they agree.
    assert pool.choose(COMMITTEE, asked(1, 4)) == [2]
    rows, seeds, steps = zip(*pool._trainer.trained, strict=True)
    assert rows == ((4,), (4,))
    assert seeds == (0, 500_000)
    assert steps == (head_trainer.STEPS, head_trainer.STEPS // 2)


def test_ours_gives_every_class_its_quota(pool):
    # Labelled: one of crazing, class 0. Weights: 1/sqrt(2) = 0.71 for it, 1 for class 1, which was
    # never labelled, and their mean 0.85 for "nothing found": two places go to the latter two.
    assert sorted(pool.choose(OURS, asked(2, 4))) == [2, 3]


def test_random_choice_looks_at_nothing(pool):
    assert len(set(pool.choose(RANDOM, asked(2, 4)))) == 2
    assert pool._trainer.trained == []


def test_a_learner_is_trained_once_for_all_that_is_asked_of_it(pool):
    outcomes = {
        name: list(simulate(pool, name, seed=0, plan=Plan(2, 1, 1, 0.0)))
        for name in (LEAST_CONFIDENCE, RANDOM)
    }
    trained = [rows for rows, _, _ in pool._trainer.trained]
    assert len(trained) == len(set(trained)) <= 3  # the first draw, and one round of each
    # One box of patches an image; crazing is found instead, so nothing is right.
    for outcome in outcomes[RANDOM]:
        assert outcome.scores == {
            f"{split} {metric}": 0.0
            for split in ("val", "test")
            for metric in ("mAP50", "mAP50_95")
        }


def test_judging_finds_what_is_there(pool, monkeypatch):
    right = {"patches": 2}
    monkeypatch.setattr(
        CannedTrainer,
        "look",
        lambda self, head, maps, rows, *, threshold: [
            (np.array([BOX], np.float32), np.array([0.9], np.float32), np.array([right["patches"]]))
            for _ in rows
        ],
    )
    assert pool.labels[2] == "patches"
    assert pool.judge([0, 1], seed=0)["test mAP50_95"] == pytest.approx(1.0)


def test_the_pool_tells_its_size_and_its_boxes(pool):
    assert len(pool) == 5
    assert pool.counts["crazing"] == 5
    assert sum(pool.counts.values()) == 5
    assert pool.judged == {"val": 3, "test": 4}


def test_a_set_of_boxes_wants_coco_arrays(tiny_data_root, tmp_path, monkeypatch):
    (tmp_path / "datasets").symlink_to(tiny_data_root)
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"neu-det is a set of boxes: .*give their \.npz"):
        simulate_dataset(
            "neu-det", tmp_path, load_settings(), seeds=1, sizes=(2, 1, 1), split="val"
        )
