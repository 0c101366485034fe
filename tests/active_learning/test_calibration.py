"""Scores become probabilities: applied, fitted, measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from active_learning.calibration import (
    Claimed,
    apply,
    apply_temperature,
    d_ece,
    diagram,
    ece,
)
from active_learning.calibration_fitting import Pairs, fit_detection, fit_temperature
from core.errors import InputError, WeightsError
from training.detection_metrics import Scene, rank

CURVES = {
    "kind": "curves",
    "per_class": {
        "scratches": {"method": "isotonic", "x": [0.2, 0.6], "y": [0.1, 0.9], "n": 100},
    },
    "pooled": {"method": "logistic", "x": [0.0, 1.0], "y": [0.0, 0.5], "n": 200},
    "n": 200,
    "dece_before": 0.2,
    "dece_after": 0.1,
}


# --- applying ----------------------------------------------------------------------------------


def test_a_curve_is_linear_between_its_knots_and_level_outside():
    # 0.1 + (0.4 - 0.2) / (0.6 - 0.2) · 0.8 = 0.5
    found = apply(CURVES, [0.0, 0.2, 0.4, 0.6, 1.0], "scratches")
    assert found == pytest.approx([0.1, 0.1, 0.5, 0.9, 0.9])


def test_each_box_takes_the_curve_of_its_class_and_others_the_pooled_one():
    found = apply(CURVES, [0.4, 0.4, 0.8], ["scratches", "crazing", "crazing"])
    assert found == pytest.approx([0.5, 0.2, 0.4])


def test_without_calibration_scores_stay_as_they_are():
    assert apply({}, [0.3, 0.7], ["a", "b"]).tolist() == [0.3, 0.7]
    assert apply_temperature({}, [0.3, 0.7]).tolist() == [0.3, 0.7]
    assert apply(CURVES, [], []).shape == (0,)


def temperature(t: float) -> dict[str, object]:
    return {"kind": "temperature", "T": t, "n": 9, "ece_before": 0.1, "ece_after": 0.0}


def test_temperature_two_takes_square_roots():
    # sqrt(0.8), sqrt(0.2) = 0.8944, 0.4472, over their sum: 2/3, 1/3
    assert apply_temperature(temperature(2), [0.8, 0.2]) == pytest.approx([2 / 3, 1 / 3])


def test_a_certain_class_stays_finite_under_any_temperature():
    found = apply_temperature(temperature(0.05), [1.0, 0.0, 0.0])
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        pytest.param({"kind": "magic"}, "damaged: calibration: .*magic", id="unknown kind"),
        pytest.param({"pooled": None}, "pooled", id="no pooled curve"),
        pytest.param(
            {"per_class": {"a": {"method": "isotonic", "x": [0.1], "y": [0.1, 0.2], "n": 1}}},
            "1 scores need as many probabilities, got 2",
            id="lengths differ",
        ),
        pytest.param(
            {"per_class": {"a": {"method": "isotonic", "x": [0, 1], "y": [0.9, 0.2], "n": 1}}},
            "must not fall",
            id="falling",
        ),
        pytest.param(
            {"per_class": {"a": {"method": "isotonic", "x": [0.5, 0.5], "y": [0, 1], "n": 1}}},
            "scores must ascend",
            id="two probabilities of one score",
        ),
        pytest.param(
            {"per_class": {"a": {"method": "isotonic", "x": [], "y": [], "n": 0}}},
            "per_class.a.x: Tuple should have at least 1 item",
            id="no point",
        ),
        pytest.param(
            {"per_class": {"a": {"method": "isotonic", "x": [0, 1], "y": [0.9, 1.2], "n": 1}}},
            r"lie in \[0, 1\]",
            id="above 1",
        ),
    ],
)
def test_a_damaged_calibration_is_refused_in_a_sentence(damage, words):
    with pytest.raises(WeightsError, match=words):
        apply(CURVES | damage, [0.5], "scratches")


def test_a_temperature_of_nothing_is_refused():
    with pytest.raises(WeightsError, match="T: Input should be greater than 0"):
        apply_temperature(temperature(0), [0.5, 0.5])


def test_a_calibration_of_the_other_kind_is_refused():
    with pytest.raises(WeightsError, match="kind 'curves'"):
        apply(temperature(2), [0.5], "scratches")
    with pytest.raises(WeightsError, match="kind 'temperature'"):
        apply_temperature(CURVES, [0.5, 0.5])


# --- measuring ---------------------------------------------------------------------------------


def test_a_diagram_holds_what_was_claimed_in_each_tenth_and_what_was_so():
    # 0.62 and 0.66: mean 0.64, one of two; 0.92 and 1.0: mean 0.96, both.
    assert diagram([0.62, 0.66, 0.92, 1.0], [True, False, True, True]) == (
        Claimed(tenth=6, claimed=0.64, right=0.5, n=2),
        Claimed(tenth=9, claimed=0.96, right=1.0, n=2),
    )
    assert diagram([], []) == ()


def test_d_ece_weighs_each_bin_by_its_detections():
    # Bin [0.6, 0.7): scores 0.62, 0.66, one right: |0.5 - 0.64| = 0.14, weight 2/4.
    # Bin [0.9, 1]: scores 0.92 and 1.0, both right: |1 - 0.96| = 0.04, weight 2/4.
    found = d_ece([0.62, 0.66, 0.92, 1.0], [True, False, True, True])
    assert found == pytest.approx(0.5 * 0.14 + 0.5 * 0.04)


def test_ece_looks_at_the_best_class_alone():
    # Right at 0.9 and wrong at 0.9 share a bin: |0.5 - 0.9|.
    rows = [[0.9, 0.1], [0.9, 0.1]]
    assert ece(rows, [0, 1]) == pytest.approx(0.4)


def test_errors_of_nothing_are_zero():
    assert d_ece([], []) == ece(np.empty((0, 3)), []) == 0.0


# --- fitting -----------------------------------------------------------------------------------


def overconfident(n: int, *, seed: int = 0, labels: tuple[str, ...] = ("a",)) -> Pairs:
    """Scores of which only the square is deserved: P(right | s) = s²; five boxes an image."""
    rng = np.random.default_rng(seed)
    scores = rng.uniform(0.05, 1, n)
    return Pairs(
        scores=scores,
        correct=rng.uniform(size=n) < scores**2,
        class_ids=np.arange(n) % len(labels),
        groups=np.arange(n) // 5,
        labels=labels,
    )


def test_isotonic_finds_the_precision_behind_each_score():
    fitted = fit_detection(overconfident(4000))
    assert fitted["per_class"]["a"]["method"] == "isotonic"
    # 0.3² = 0.09, 0.6² = 0.36, 0.9² = 0.81; a step holds about 150 boxes: ± 0.05 is one sigma.
    assert apply(fitted, [0.3, 0.6, 0.9], "a") == pytest.approx([0.09, 0.36, 0.81], abs=0.1)
    assert fitted["dece_before"] == pytest.approx(1 / 6, abs=0.02)  # mean of s - s² over [0, 1]
    assert fitted["dece_after"] < 0.2 * fitted["dece_before"]
    # Of scores in [0.5, 0.6) the mean of s² is 0.3033; 421 or so boxes: ± 0.022 is one sigma.
    [before] = [point for point in fitted["diagram_before"] if point["tenth"] == 5]
    assert (before["claimed"], before["right"]) == pytest.approx((0.55, 0.3033), abs=0.06)
    for after in fitted["diagram_after"]:
        assert after["right"] == pytest.approx(after["claimed"], abs=0.1)


def test_little_support_gets_a_logistic_curve_and_almost_none_the_pooled_one():
    many, some, few = overconfident(400), overconfident(60, seed=1), overconfident(15, seed=2)
    parts = (many, some, few)
    fitted = fit_detection(
        Pairs(
            scores=np.concatenate([p.scores for p in parts]),
            correct=np.concatenate([p.correct for p in parts]),
            class_ids=np.repeat([0, 1, 2], [400, 60, 15]),
            groups=np.arange(475),
            labels=("many", "some", "few"),
        )
    )
    methods = {label: curve["method"] for label, curve in fitted["per_class"].items()}
    assert methods == {"many": "isotonic", "some": "logistic"}
    assert fitted["pooled"]["method"] == "isotonic"
    assert apply(fitted, [0.4], "few") == apply(fitted, [0.4], "of another data set")


def outcomes(*claims: tuple[float, int, int]) -> Pairs:
    """Boxes of one class by score, how many of them right and how many wrong; each a strip."""
    scores = np.concatenate([np.full(right + wrong, score) for score, right, wrong in claims])
    correct = np.concatenate(
        [np.arange(right + wrong) < right for _, right, wrong in claims], dtype=np.bool_
    )
    return Pairs(scores, correct, np.zeros(len(scores), int), np.arange(len(scores)), ("a",))


@pytest.mark.parametrize(
    ("right", "wrong", "method"),
    [(9, 90, None), (10, 90, "logistic"), (90, 49, "logistic"), (90, 50, "isotonic")],
)
def test_the_rarer_outcome_decides_what_curve_a_class_can_carry(right, wrong, method):
    curves = fit_detection(outcomes((0.5, right, wrong)))["per_class"]
    assert [curve["method"] for curve in curves.values()] == ([method] if method else [])


def test_steps_that_fall_are_joined_by_how_many_boxes_each_holds():
    # 60 of 100 right at 0.3, but 10 of 50 at 0.5: together, with the right one added, 71 of 151.
    fitted = fit_detection(outcomes((0.3, 60, 40), (0.5, 10, 40), (0.9, 50, 0)))
    assert apply(fitted, [0.3, 0.5], "a") == pytest.approx([71 / 151] * 2, abs=1e-6)


def test_a_step_claims_no_more_than_its_own_boxes_prove():
    # 3 right at the top: 3 / 4, though 260 boxes lie below. One right at the top proves no more
    # than the step below it, 40 of 50: with the wrong one added, 41 of 52.
    three = fit_detection(outcomes((0.1, 10, 190), (0.5, 40, 20), (0.9, 3, 0)))
    assert apply(three, [0.5, 0.9], "a") == pytest.approx([40 / 60, 3 / 4], abs=1e-6)
    one = fit_detection(outcomes((0.1, 10, 190), (0.5, 40, 10), (0.9, 1, 0)))
    assert apply(one, [0.5, 0.9], "a") == pytest.approx([41 / 52] * 2, abs=1e-6)


def test_a_logistic_curve_goes_through_targets_drawn_in_from_0_and_1():
    # Platt's targets for 40 right and 40 wrong: 41/42 and 1/42. Their means are 11/42 at 0.2 and
    # 31/42 at 0.8, where logit(s) is -+ln 4: a = ln(31/11) / ln 4 = 0.7474, b = 0. At 0.9, whose
    # logit is 2.1972: sigmoid(0.7474 · 2.1972) = 0.8378.
    fitted = fit_detection(outcomes((0.2, 10, 30), (0.8, 30, 10)))
    found = apply(fitted, [0.2, 0.8, 0.9], "a")
    assert found == pytest.approx([11 / 42, 31 / 42, 0.8378], abs=1e-3)


def test_a_logistic_curve_rises_and_lies_near_the_truth():
    pairs = overconfident(140, seed=3)
    curve = fit_detection(pairs)["per_class"]["a"]
    assert curve["method"] == "logistic"
    assert np.interp([0.3, 0.8], curve["x"], curve["y"]) == pytest.approx([0.09, 0.64], abs=0.12)


def test_scores_that_mislead_become_one_precision_not_a_falling_curve():
    # The higher the score, the more often wrong: 30 right at 0.2, 30 wrong at 0.8.
    pairs = Pairs(
        scores=np.repeat([0.2, 0.8], 30),
        correct=np.repeat([True, False], 30),
        class_ids=np.zeros(60, np.int64),
        groups=np.arange(60),
        labels=("a",),
    )
    assert apply(fit_detection(pairs), [0.1, 0.5, 0.9], "a") == pytest.approx([0.5] * 3, abs=1e-3)


def test_no_finite_sample_makes_a_probability_certain():
    # 100 wrong at 0.1 and 100 right at 0.9: 100 / 101 at most, 1 / 101 at least.
    pairs = Pairs(
        scores=np.repeat([0.1, 0.9], 100),
        correct=np.repeat([False, True], 100),
        class_ids=np.zeros(200, np.int64),
        groups=np.arange(200),
        labels=("a",),
    )
    found = apply(fit_detection(pairs), [0.0, 1.0], "a")
    assert found == pytest.approx([1 / 101, 100 / 101], abs=1e-6)


def test_without_enough_boxes_the_calibration_changes_nothing():
    assert fit_detection(overconfident(0)) == {}
    assert apply(fit_detection(overconfident(12)), [0.37], "a") == pytest.approx([0.37])


def test_the_error_after_a_fit_is_measured_on_other_images():
    # Pure noise: every image has one outcome of its own for all its boxes. On the same boxes an
    # isotonic curve would look perfect on average; on others it cannot beat chance variation.
    rng = np.random.default_rng(0)
    images = np.repeat(np.arange(60), 10)
    pairs = Pairs(
        scores=np.repeat(rng.uniform(0.4, 0.6, 60), 10),
        correct=np.repeat(rng.uniform(size=60) < 0.5, 10),
        class_ids=np.zeros(600, np.int64),
        groups=images,
        labels=("a",),
    )
    fitted = fit_detection(pairs)
    seen = d_ece(apply(fitted, pairs.scores, "a"), pairs.correct)
    assert seen < 0.01 < 0.05 < fitted["dece_after"]


def test_a_strip_is_judged_by_curves_of_other_strips_alone():
    # Strips 0 to 3: 40 boxes of score 0.55 each, half of them right; strip 4: 80, all right.
    # With a right and a wrong one added, strip 4 is judged by the others' 81 / 162 = 0.5, each
    # other one by 141 / 202 = 0.698.
    strips = np.r_[np.repeat([0, 1, 2, 3], 40), np.full(80, 4)]
    pairs = Pairs(
        scores=np.full(240, 0.55),
        correct=np.r_[np.tile([True, False], 80), np.ones(80, bool)],
        class_ids=np.zeros(240, np.int64),
        groups=strips,
        labels=("a",),
    )
    fitted = fit_detection(pairs)
    assert fitted["diagram_after"] == [
        {"tenth": 5, "claimed": 0.5, "right": 1.0, "n": 80},
        {"tenth": 6, "claimed": 0.698, "right": 0.5, "n": 160},
    ]
    assert fitted["dece_after"] == pytest.approx((80 * 0.5 + 160 * (141 / 202 - 0.5)) / 240)
    assert apply(fitted, [0.55], "a") == pytest.approx([161 / 242], abs=1e-6)  # of all together


def test_the_temperature_of_a_strip_is_that_of_other_strips():
    # Four strips of 25 images claimed 0.6, 16 right; one of which all are. The last is judged by
    # the others, 64 / 100; each other one by (48 + 25) / 100.
    rows = np.tile([0.6, 0.4], (125, 1))
    truth = np.r_[np.tile([0] * 16 + [1] * 9, 4), np.zeros(25, int)]
    fitted = fit_temperature(rows, truth, np.repeat(list("abcde"), 25))
    assert [(p["tenth"], p["n"]) for p in fitted["diagram_after"]] == [(6, 25), (7, 100)]
    assert fitted["ece_after"] == pytest.approx((25 * 0.36 + 100 * 0.09) / 125, abs=1e-4)
    # Before: 0.6 claimed of all, 4 · 16 + 25 of 125 right.
    assert fitted["diagram_before"] == [{"tenth": 6, "claimed": 0.6, "right": 0.712, "n": 125}]


def test_pairs_come_from_the_same_matching_that_measures_map50():
    # One truth of class 0: the better box, of IoU 0.52, takes it; the second there is wrong.
    scene = Scene(
        truth=np.array([[0.0, 0, 10, 10]]),
        truth_ids=np.array([0]),
        boxes=np.array([[0.0, 0, 10, 10], [0, 0, 10, 5.2], [50, 50, 60, 60]]),
        scores=np.array([0.6, 0.9, 0.3]),
        class_ids=np.array([0, 0, 1]),
    )
    pairs = Pairs.from_rankings(rank([scene, scene], 2), ("a", "b"), ["strip 2", "strip 1"])
    assert pairs.scores.tolist() == [0.9, 0.9, 0.6, 0.6, 0.3, 0.3]
    assert pairs.correct.tolist() == [True, True, False, False, False, False]
    assert pairs.class_ids.tolist() == [0, 0, 0, 0, 1, 1]
    assert pairs.groups.tolist() == [1, 0, 1, 0, 1, 0]


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(InputError, match="2 scores need as many"):
        Pairs(np.ones(2), np.ones(1, bool), np.zeros(2, int), np.zeros(2, int), ("a",))


def test_temperature_is_found_again():
    # Truth drawn from the probabilities at T = 2.5, which the model claims at T = 1.
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (1500, 4))
    claimed = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    deserved = apply_temperature(temperature(2.5), claimed)
    truth = np.array([rng.choice(4, p=row) for row in deserved])
    fitted = fit_temperature(claimed, truth, np.arange(1500))
    assert fitted["T"] == pytest.approx(2.5, rel=0.1)
    assert fitted["ece_after"] < 0.3 * fitted["ece_before"]


def test_a_set_with_hardly_a_mistake_makes_no_model_surer():
    rows = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1))
    fitted = fit_temperature(rows, np.tile([0, 1], 10), np.arange(20))
    assert fitted["T"] == pytest.approx(1, abs=1e-4)


def test_enough_mistakes_may_make_a_timid_model_surer():
    # 0.6 claimed, 90 of 100 right: T with sigmoid(0.405 / T) = 0.9 is 0.405 / 2.197 = 0.185
    rows = np.tile([0.6, 0.4], (100, 1))
    truth = np.r_[np.zeros(90, int), np.ones(10, int)]
    assert fit_temperature(rows, truth, np.arange(100))["T"] == pytest.approx(0.185, abs=0.002)


def test_images_of_too_few_strips_give_no_temperature():
    rows, truth = np.tile([[0.9, 0.1], [0.1, 0.9]], (10, 1)), np.tile([0, 1], 10)
    assert fit_temperature(rows, truth, np.arange(20) % 4) == {}
    assert fit_temperature(rows, truth, np.arange(20) % 5) != {}


def test_what_was_fitted_survives_json():
    for fitted in (
        fit_detection(overconfident(300)),
        fit_temperature([[0.8, 0.2]] * 10, [0] * 7 + [1] * 3, np.arange(10)),
    ):
        assert json.loads(json.dumps(fitted)) == fitted


def test_scores_that_differ_by_less_than_what_is_stored_are_one_knot():
    # a wrong box and, 1e-7 above it, a right one: both ends of a step, equal once rounded
    scores = np.tile([0.3, 0.3000001, 0.7], 200)
    correct = np.tile([False, True, True], 200)
    pairs = Pairs(scores, correct, np.zeros(600, int), np.arange(600), ("scratches",))
    curve = fit_detection(pairs)["per_class"]["scratches"]
    assert curve["x"] == [0.3, 0.7]
    assert curve["y"][0] == pytest.approx(201 / 401, abs=1e-6)  # with the right one added
