from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from core.errors import DatasetError, TrainingError
from models import get_spec
from models._dscbsm import ConfidenceGradientSampler
from training.balance import (
    METHODS,
    RepeatFactorSampler,
    class_repeat_factors,
    detector_spec,
    effective_number_weights,
    image_repeat_factors,
    inverse_frequency_weights,
    log_priors,
    make_sampler,
    methods_for,
    resolve,
    retraining_method,
)
from training.detector_recipe import make_recipe
from training.plan import make_plan

# ------------------------------------------------------------------------------------- choosing


def test_each_task_has_the_methods_that_mean_something_for_it() -> None:
    assert set(methods_for("classify")) == set(METHODS)
    both = {"paper", "none", "class_weights", "repeat_factor"}
    assert both <= set(methods_for("segment")) <= set(METHODS)
    assert both | {"dscbsm"} <= set(methods_for("detect"))
    assert not {"focal", "balanced_softmax", "logit_adjustment"} & set(methods_for("detect"))


@pytest.mark.parametrize(
    ("task", "method", "given", "strength"),
    [
        pytest.param("classify", "class_weights", None, 1.0, id="inverse frequency"),
        pytest.param("detect", "class_weights", None, 0.5, id="its square root for boxes"),
        pytest.param("classify", "focal", None, 2.0, id="the paper's gamma"),
        pytest.param("segment", "class_weights", None, 0.5, id="and for masks"),
        pytest.param("classify", "effective_number", None, 0.999, id="the paper's beta"),
        pytest.param("classify", "logit_adjustment", None, 1.0, id="the paper's tau"),
        pytest.param("detect", "synthesis", None, 0.5, id="half of the most frequent class"),
        pytest.param("classify", "focal", 0.5, 0.5, id="a stated strength"),
        pytest.param("classify", "focal", 0.0, 0.0, id="the least"),
        pytest.param("classify", "focal", 10.0, 10.0, id="the most"),
        pytest.param("detect", "repeat_factor", None, None, id="an equal share"),
        pytest.param("classify", "balanced_softmax", None, None, id="no strength"),
    ],
)
def test_a_strength_not_stated_is_the_tasks_usual_one(
    task, method: str, given: float | None, strength: float | None
) -> None:
    assert resolve(task, method, given) == (method, strength)


@pytest.mark.parametrize(
    ("task", "method", "strength", "says"),
    [
        pytest.param("detect", "smote", None, "Unknown balance 'smote'. Available: paper", id="no"),
        pytest.param("detect", "focal", None, "means nothing for models that detect", id="task"),
        pytest.param("segment", "dscbsm", None, "means nothing for models that seg", id="masks"),
        pytest.param("classify", "none", 0.5, "has no strength", id="needless strength"),
        pytest.param("detect", "class_weights", 1.5, r"power p .* in \[0, 1\]", id="bounds"),
        pytest.param("classify", "focal", 10.5, r"gamma, in \[0, 10\]", id="above"),
        pytest.param("classify", "effective_number", 1.0, "beta", id="beta of 1 weighs nothing"),
        pytest.param("classify", "focal", True, "balance_strength is True", id="yes"),
        pytest.param("classify", "focal", "2", "balance_strength is '2'", id="no number"),
        pytest.param("classify", "focal", math.nan, "balance_strength is nan", id="nan"),
    ],
)
def test_what_cannot_be_is_refused_by_a_sentence(task, method, strength, says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        resolve(task, method, strength)


def test_plan_and_detector_recipe_record_method_and_strength() -> None:
    chosen = {"balance": "class_weights"}
    plan = make_plan(get_spec("mobilesteelnet"), epochs=2, batch=8, overrides=chosen)
    assert (plan.balance, plan.balance_strength) == ("class_weights", 1.0)
    recipe = make_recipe(get_spec("yolo11"), epochs=2, batch=8, overrides=chosen)
    assert (recipe["balance"], recipe["balance_strength"]) == ("class_weights", 0.5)
    assert recipe["cls_pw"] == 0.5


@pytest.mark.parametrize("make", [make_plan, make_recipe])
def test_what_nobody_chose_is_as_the_paper_does(make) -> None:
    spec = get_spec("grace" if make is make_recipe else "mobilesteelnet")
    made = make(spec, epochs=2, batch=8, overrides={})
    recipe = made if make is make_recipe else made.as_recipe()
    assert (recipe["balance"], recipe["balance_strength"]) == ("paper", None)
    assert "cls_pw" not in recipe


def test_a_detector_is_balanced_by_its_sampler() -> None:
    grace, yolo = get_spec("grace"), get_spec("yolo11")
    assert detector_spec(grace, "paper", None, epoch_images=4) is grace
    assert detector_spec(grace, "none", None, epoch_images=4).sampler is None
    assert detector_spec(grace, "class_weights", 0.5, epoch_images=4).sampler is None
    assert detector_spec(yolo, "dscbsm", None, epoch_images=4).sampler is ConfidenceGradientSampler
    sampler = detector_spec(yolo, "repeat_factor", 1.0, epoch_images=4).sampler(
        [[0], [0], [0], [1]], 2, 0
    )
    assert sampler.factors[3] == pytest.approx(2.0)  # sqrt(1 / 0.25)


def test_a_stock_loss_takes_the_papers_own_from_a_detector_and_nothing_else() -> None:
    da_yolo = get_spec("da_yolo")
    stock = detector_spec(da_yolo, "paper", None, epoch_images=4, loss="stock")
    assert da_yolo.criterion is not None
    assert stock == replace(da_yolo, criterion=None)


def test_retraining_balances_classifiers_alone() -> None:
    assert retraining_method("classify") == "class_weights"
    assert retraining_method("detect") == retraining_method("segment") == "paper"


# -------------------------------------------------------------------------------------- equations


def test_inverse_frequency_weights_have_mean_one() -> None:
    counts = np.array([4.0, 1.0])
    # 4^-1, 1^-1 = 0.25, 1 with mean 0.625; 4^-0.5, 1 = 0.5, 1 with mean 0.75
    assert inverse_frequency_weights(counts, power=1.0) == pytest.approx([0.4, 1.6])
    assert inverse_frequency_weights(counts, power=0.5) == pytest.approx([2 / 3, 4 / 3])
    assert inverse_frequency_weights(counts, power=0.0) == pytest.approx([1.0, 1.0])


def test_effective_number_weights_count_what_images_add() -> None:
    # beta 0.5: (1 - 0.5) / (1 - 0.5^n) is 1 for n = 1 and 2/3 for n = 2; their mean is 5/6
    weights = effective_number_weights(np.array([1.0, 2.0]), beta=0.5)
    assert weights == pytest.approx([1.2, 0.8])


def test_an_absent_class_weighs_as_the_mean_of_the_others() -> None:
    weights = inverse_frequency_weights(np.array([4.0, 0.0, 1.0]), power=1.0)
    assert weights == pytest.approx([0.4, 1.0, 1.6])


def test_weights_of_nothing_are_refused() -> None:
    with pytest.raises(DatasetError, match="training split has none"):
        inverse_frequency_weights(np.zeros(3), power=1.0)


def test_priors_are_the_shares_of_the_training_split() -> None:
    assert np.exp(log_priors(np.array([3.0, 1.0]))) == pytest.approx([0.75, 0.25])
    assert np.exp(log_priors(np.array([3.0, 0.0]))) == pytest.approx([0.75, 0.25])  # as one image


def test_class_repeat_factor_is_the_root_of_threshold_over_share() -> None:
    # sqrt(0.16 / 0.04) = 2; above the threshold 1; a class on no image 1
    factors = class_repeat_factors(np.array([0.5, 0.04, 0.0]), threshold=0.16)
    assert factors == pytest.approx([1.0, 2.0, 1.0])


def test_image_repeat_factor_is_that_of_its_rarest_class_however_many_boxes_it_has() -> None:
    # class 0 on 3 of 4 images, class 1 on 1 of 4 although it has three boxes: r = 1, sqrt(1 / 0.25)
    labels = [[0], [0, 0], [0, 1, 1, 1], []]
    factors = image_repeat_factors(labels, 2, threshold=1.0)
    common = math.sqrt(1 / 0.75)
    assert factors == pytest.approx([common, common, 2.0, 1.0])


# --------------------------------------------------------------------------------------- samplers

FEW = [[0]] * 27 + [[1]] * 3  # shares 0.9 and 0.1


def drawn(sampler, epochs: int) -> np.ndarray:
    """How often each image is drawn in that many epochs."""
    counts = np.zeros(len(sampler))
    for epoch in range(epochs):
        indices = list(sampler)
        assert len(indices) == len(sampler)
        counts += np.bincount(indices, minlength=len(sampler))
        sampler.on_epoch_end(epoch)
    return counts


def test_repeat_factor_sampling_draws_in_proportion_to_the_factors() -> None:
    sampler = RepeatFactorSampler(FEW, 2, 0)  # t = 1/2: r = 1 and sqrt(0.5 / 0.1) = 2.236
    assert sampler.factors[[0, 29]] == pytest.approx([1.0, math.sqrt(5)])
    counts = drawn(sampler, 400)
    share = counts[27:].sum() / counts.sum()
    # 3 · 2.236 of 27 + 3 · 2.236; uniform sampling would give 0.1
    assert share == pytest.approx(0.199, abs=0.005)


def test_repeat_factor_sampling_goes_on_as_it_would_have() -> None:
    whole, first = RepeatFactorSampler(FEW, 2, 7), RepeatFactorSampler(FEW, 2, 7)
    drawn(whole, 2), drawn(first, 2)
    resumed = RepeatFactorSampler(FEW, 2, 7)
    assert RepeatFactorSampler(FEW, 2, 7).state_dict() == {"epoch": 0}
    assert first.state_dict() == {"epoch": 2}
    resumed.load_state_dict(first.state_dict())
    expected = list(whole)
    assert list(resumed) == expected
    assert list(RepeatFactorSampler(FEW, 2, 7)) != expected  # epochs differ
    assert list(RepeatFactorSampler(FEW, 2, 8)) != list(RepeatFactorSampler(FEW, 2, 7))


def test_an_epoch_may_be_shorter_than_the_images() -> None:
    sampler = RepeatFactorSampler(FEW, 2, 0, threshold=0.0, epoch_images=20)
    assert sampler.factors.tolist() == [1.0] * 30  # no class is repeated
    indices = list(sampler)
    assert len(sampler) == len(indices) == len(set(indices)) == 20


def test_synthetic_images_leave_an_epoch_as_long_as_it_was_and_repeat_none() -> None:
    sampler = make_sampler("synthesis", 0.5, FEW, 2, 0, epoch_images=20)
    assert sampler.factors.tolist() == [1.0] * 30
    assert len(set(sampler)) == 20
    assert make_sampler("focal", 2.0, FEW, 2, 0, epoch_images=20) is None


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([[], []], "no training image has one"),
        ([[0], [2]], r"span \[0, 2\].*in \[0, 2\)"),
        ([[0], [-1]], r"span \[-1, 0\].*in \[0, 2\)"),
    ],
)
def test_repeat_factor_sampling_refuses_labels_it_cannot_use(labels, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        RepeatFactorSampler(labels, 2, 0)


def test_dscbsm_draws_follow_its_weights() -> None:
    """Pearson's chi-square of 200 epochs of draws against the weights, and against uniform."""
    sampler = ConfidenceGradientSampler(FEW, 2, 3)
    hard = np.array([[90.0, 10.0], [45.0, 40.0], [90.0, 10.0], [81.0, 1.0]])
    for _ in range(30):
        sampler.update(hard)  # class 1: loss 4 against 0.5, confidence 0.1 against 0.9
    for epoch in range(30):
        sampler.on_epoch_end(epoch)
    weights = sampler.weights
    assert weights[29] / weights[0] > 1.2  # the rare, hard class comes more often
    counts = np.zeros(len(FEW))
    for _ in range(200):  # the weights of an epoch do not change while it is iterated
        counts += np.bincount(list(sampler), minlength=len(FEW))
    expected = weights / weights.sum() * counts.sum()
    assert chisquare(counts, expected).pvalue > 0.01
    assert chisquare(counts).pvalue < 1e-6
