"""Simulations of choosing what to label: rounds, resumption, savings worked by hand, the page."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from active_learning import embedding
from active_learning.__main__ import app
from active_learning.embedding import Embedder
from active_learning.simulate import labels_needed, open_pool, run, summarise
from active_learning.simulation import OURS, RANDOM, Ask, Plan, most, simulate
from active_learning.simulation_classes import MACRO_F1, ClassPool, fit_head, k_centre, macro_f1
from active_learning.simulation_page import conclusion, write_page
from core.errors import DatasetError, InputError
from tests.records import make_run, write_folder
from tests.training.canned import Canned

PLAN = Plan(first=4, step=4, rounds=3, random_share=0.25)
FACTS = {"dataset": "toy", "dataset_id": "0" * 64, "features": "a ruler"}
JUDGED = {"facts": FACTS, "split": "val", "metric": MACRO_F1}


def toy(n: int = 60) -> ClassPool:
    """Two classes that a line divides, the second one rare."""
    source = np.random.default_rng(0)
    truth = (np.arange(n) % 6 == 0).astype(np.int64)
    features = source.normal(size=(n, 3)) + 4 * truth[:, None]
    return ClassPool(features, truth, features[::2], truth[::2], ("common", "rare"), "val")


# --- the loop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ClassPool.strategies)
def test_a_strategy_labels_as_many_new_images_as_the_plan_says(name):
    outcomes = list(simulate(toy(), name, seed=0, plan=PLAN))
    assert [o.labels for o in outcomes] == [4, 8, 12, 16]
    chosen = [i for o in outcomes for i in o.chosen]
    assert len(set(chosen)) == 16
    assert all(0 <= o.scores["val macro-F1"] <= 1 for o in outcomes)


def test_every_strategy_begins_with_the_same_images_of_a_seed():
    starts = {
        name: next(simulate(toy(), name, seed=3, plan=PLAN)).chosen for name in ClassPool.strategies
    }
    assert len(set(starts.values())) == 1
    assert next(simulate(toy(), RANDOM, seed=4, plan=PLAN)).chosen != starts[RANDOM]


@pytest.mark.parametrize("name", ClassPool.strategies)
def test_a_run_that_goes_on_ends_as_if_it_had_never_stopped(name):
    whole = list(simulate(toy(), name, seed=1, plan=PLAN))
    rest = list(simulate(toy(), name, seed=1, plan=PLAN, done=whole[:2]))
    assert rest == whole[2:]


def test_a_strategy_never_sees_the_labels_it_has_not_paid_for():
    pool = toy()
    # Other labels on all images but those of the first draw: the first choice stays as it was.
    begun = next(simulate(pool, OURS, seed=0, plan=PLAN))
    turned = 1 - pool.truth
    turned[list(begun.chosen)] = pool.truth[list(begun.chosen)]
    other = dataclasses.replace(pool, truth=turned)
    first, second = (list(simulate(p, OURS, seed=0, plan=PLAN))[1].chosen for p in (pool, other))
    assert first == second


def test_a_plan_larger_than_its_pool_is_refused():
    with pytest.raises(InputError, match="The plan asks for 16 labels, the pool has 10 images"):
        next(simulate(toy(10), RANDOM, seed=0, plan=PLAN))


def test_a_class_without_a_label_gets_no_probability():
    head = fit_head(np.array([[0.0], [0.1], [5.0]]), np.array([0, 0, 2]), 3)
    p = head(np.array([[0.0], [5.0]]))
    assert p[:, 1].tolist() == [0.0, 0.0]
    assert p.argmax(axis=1).tolist() == [0, 2]
    assert fit_head(np.zeros((2, 1)), np.array([1, 1]), 3)(np.zeros((1, 1))).tolist() == [[0, 1, 0]]


def test_macro_f1_is_the_mean_over_the_classes_that_are_there():
    # Class 0: 2 right of 3, one of class 1 taken for it: 2·2 / (3 + 3). Class 1: 1 right of 2, one
    # of class 0 taken for it: 2·1 / (2 + 2). Class 2 is not there.
    said, true = np.array([0, 0, 1, 0, 1]), np.array([0, 0, 0, 1, 1])
    assert macro_f1(said, true, 3) == pytest.approx((4 / 6 + 2 / 4) / 2)


def test_k_centre_takes_what_is_furthest_from_all_that_is_known():
    # On the unit circle, known at 0°: of 10°, 90° and 180° the last is furthest, then 90°.
    angles = np.radians([10, 90, 180])
    members = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    assert k_centre(members, 2, np.array([[1.0, 0.0]])) == [2, 1]
    assert k_centre(members, 5, np.zeros((0, 2))) == [0, 2, 1]


def test_the_largest_doubts_come_first_and_ties_are_drawn():
    ask = Ask((), (7, 8, 9), 2, random_share=0.0, seed=0, learner_seed=0)
    assert most(np.array([0.1, 0.9, 0.5]), ask) == [8, 9]
    drawn = {tuple(most(np.zeros(3), dataclasses.replace(ask, seed=k))) for k in range(20)}
    assert len(drawn) > 1


# --- savings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "expected"),
    [(0.5, 10.0), (0.7, 15.0), (0.8, 20.0), (0.85, 27.5), (0.95, None)],
    ids=["at once", "half-way", "at a round", "past a dip", "never"],
)
def test_labels_needed_are_read_off_the_curve(target, expected):
    # The dip from 0.8 to 0.7 does not unlearn: 0.8 is held at 25, and 0.9 reached at 30.
    curve = np.array([0.6, 0.8, 0.7, 0.9])
    labels = (10, 20, 25, 30)
    assert labels_needed(curve, labels, target) == (
        None if expected is None else pytest.approx(expected)
    )


def test_a_run_is_kept_and_the_summary_compares_with_chance(tmp_path):
    pool = toy()
    first = run(pool, PLAN, seeds=2, records=tmp_path, identity=FACTS)
    (file,) = tmp_path.iterdir()
    lines = file.read_text().splitlines()
    assert len(lines) == len(first) == len(ClassPool.strategies) * 2 * 4
    file.write_text("\n".join(lines[:-5]) + "\n" + lines[-5][:40])  # cut off in a line
    again = run(pool, PLAN, seeds=2, records=tmp_path, identity=FACTS)
    assert sorted(map(str, again)) == sorted(map(str, first))
    assert len(file.read_text().splitlines()) == len(lines)
    found = summarise(again, pool, PLAN, **JUDGED)
    assert found.labels == (4, 8, 12, 16)
    assert found.pool_counts == {"common": 50, "rare": 10}
    assert found.savings[RANDOM].saved == 0.0
    assert found.target == pytest.approx(found.curves[RANDOM].median[-1], abs=1e-4)
    with pytest.raises(InputError, match="1 rounds of ours are missing"):
        summarise([o for o in again if o != again[0]], pool, PLAN, **JUDGED)


def test_another_plan_does_not_go_on_with_the_rounds_of_the_first(tmp_path):
    run(toy(), PLAN, seeds=1, records=tmp_path, identity=FACTS)
    run(toy(), dataclasses.replace(PLAN, step=5), seeds=1, records=tmp_path, identity=FACTS)
    assert len(list(tmp_path.iterdir())) == 2


# --- the page ------------------------------------------------------------------------------------


def _simulation(tmp_path, **ours):
    pool = toy()
    outcomes = run(pool, PLAN, seeds=2, records=tmp_path / "records", identity=FACTS)
    found = summarise(outcomes, pool, PLAN, **JUDGED)
    saving = found.savings[OURS].model_copy(update=ours)
    return found.model_copy(update={"target": 0.9, "savings": {**found.savings, OURS: saving}})


def test_the_conclusion_says_whether_the_target_is_reached(tmp_path):
    good = conclusion(_simulation(tmp_path, labels=8.0, saved=0.5, low=0.25, high=0.6))
    assert "needs 8: 50 % fewer labels (95 % of resampled seeds: at least 25 % fewer)" in good
    assert "The target of 30 % fewer is reached." in good
    poor = conclusion(_simulation(tmp_path, labels=14.4, saved=0.1, low=None, high=0.2))
    assert "at least none fewer). The target of 30 % fewer is not reached." in poor
    lost = conclusion(_simulation(tmp_path, labels=None, saved=None, low=None, high=None))
    assert "it chooses worse than chance" in lost


def test_a_second_simulation_joins_the_first_on_the_page(tmp_path):
    found = _simulation(tmp_path)
    write_page(tmp_path, [found], command="one", where="here")
    other = found.model_copy(update={"dataset": "other"})
    judged = other.model_copy(update={"split": "test", "metric": "mAP50"})
    page = write_page(tmp_path, [other, judged], command="two", where="here").read_text()
    write_page(tmp_path, [found], command="one", where="here")
    assert page.count("\n## ") == 5  # three simulations, what follows, what they do not say
    assert page.count("Written by `two`, here.") == 2
    assert sorted(json.loads((tmp_path / "active-learning.json").read_text())) == [
        "other, mAP50 on test",
        "other, macro-F1 on val",
        "toy, macro-F1 on val",
    ]
    assert (tmp_path / "active-learning.png").read_bytes().startswith(b"\x89PNG")


def test_more_labels_than_chance_needs_are_told_as_more(tmp_path):
    worse = conclusion(_simulation(tmp_path, labels=20.0, saved=-0.25, low=-0.5, high=0.0))
    assert "needs 20: 25 % more labels" in worse


# --- pools ---------------------------------------------------------------------------------------


class _Ruler(Canned):
    """Features that count how often it looked."""

    def _one(self, image):
        found = super()._one(image)
        rows = np.array([self.asked, image.width], np.float32)
        return dataclasses.replace(found, source=dataclasses.replace(found.source, features=rows))


@pytest.fixture
def embedder(tmp_path, monkeypatch, tiny_x_sdd):
    """Of a release that was trained on neu-cls."""
    run_record = make_run(model="mobilesteelnet", dataset="neu-cls", labels=tiny_x_sdd.labels)
    write_folder(tmp_path / "r", run=run_record, task="classify")
    asked = {sample.sha256: np.full(7, 1 / 7) for sample in tiny_x_sdd.samples}
    network = _Ruler("classify", tiny_x_sdd.labels, asked)
    monkeypatch.setattr(embedding, "load", lambda folder: network)
    made = Embedder(tmp_path / "r", cache=tmp_path / "cache")
    return made, network


def test_a_pool_is_the_training_split_with_its_features(embedder, tiny_x_sdd):
    pool = open_pool(tiny_x_sdd, embedder[0], protocol="leak-free", split="val")
    train = tiny_x_sdd.split("leak-free", "train")
    assert [tiny_x_sdd.labels[k] for k in pool.truth] == [s.label for s in train]
    assert pool.features.shape == (len(train), 2)
    assert len(pool.judged_truth) == len(tiny_x_sdd.split("leak-free", "val"))


def test_features_are_computed_once(embedder, tiny_x_sdd):
    made, network = embedder
    first = made.samples(tiny_x_sdd.samples)
    again = made.samples(tiny_x_sdd.samples)
    np.testing.assert_array_equal(first, again)
    assert network.asked == len(tiny_x_sdd.samples)


def test_features_at_another_size_are_not_those_that_were_kept(embedder, tmp_path, tiny_x_sdd):
    made, network = embedder
    made.samples(tiny_x_sdd.samples)
    run_record = make_run(model="mobilesteelnet", dataset="neu-cls", labels=tiny_x_sdd.labels)
    larger = 2 * run_record.image_size
    write_folder(tmp_path / "larger", run=run_record, task="classify", image_size=larger)
    Embedder(tmp_path / "larger", cache=tmp_path / "cache").samples(tiny_x_sdd.samples)
    assert network.asked == 2 * len(tiny_x_sdd.samples)


def test_features_that_were_learned_from_the_pool_are_refused(embedder, tiny_neu_cls):
    with pytest.raises(DatasetError, match="its features know the labels that the simulation hid"):
        open_pool(tiny_neu_cls, embedder[0], protocol="leak-free", split="val")


def test_the_command_tells_an_unprepared_set_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path))
    done = CliRunner().invoke(app, ["simulate", "x-sdd"])
    assert done.exit_code == 1
    assert "is not prepared" in done.stderr
