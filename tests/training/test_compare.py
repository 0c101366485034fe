"""The lead of one model over another, resample by resample."""

import numpy as np
import pytest

from core.records import Evaluation, Metric
from training.compare import compare, differences
from training.evaluate import Measurement


def _measured(value, drawn, *, name="mAP50"):
    evaluation = Evaluation(
        model="m",
        revision="r",
        dataset="d",
        protocol="leak-free",
        split="val",
        test_id="t",
        metrics=(Metric(name=name, value=value, n=4),),
    )
    return Measurement(evaluation, {name: np.asarray(drawn, np.float64)}, {}, {})


def test_the_interval_is_of_the_paired_differences():
    # 0.3 − 0.2, 0.9 − 0.8, 0.5 − 0.4: always 0.1, however far the resamples lie apart.
    (found,) = differences(_measured(0.6, [0.3, 0.9, 0.5]), _measured(0.5, [0.2, 0.8, 0.4]))
    assert found.difference == pytest.approx(0.1)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.1))
    assert found.ahead == 1.0


def test_a_lead_that_some_resamples_turn_around_has_an_interval_with_zero_in_it():
    (found,) = differences(_measured(0.6, [0.3, 0.9, 0.1]), _measured(0.5, [0.2, 0.8, 0.4]))
    assert found.low < 0 < found.high
    assert found.ahead == pytest.approx(2 / 3)


def test_without_resamples_there_is_no_interval():
    (found,) = differences(_measured(0.6, []), _measured(0.5, []))
    assert (found.low, found.high, found.ahead) == (None, None, None)


def test_only_metrics_that_both_have_are_compared():
    assert differences(_measured(0.6, []), _measured(0.5, [], name="mIoU")) == ()


def test_a_model_is_exactly_as_good_as_itself(tiny_neu_det):
    from tests.active_learning.test_committee_tuning import _Member

    one = _Member("grace", tiny_neu_det, shift=3, score=0.9)
    found = compare(one, one, tiny_neu_det, protocol="leak-free", split="val", resamples=20)
    assert found.first == "grace r"
    assert found.n == len(tiny_neu_det.split("leak-free", "val"))
    assert {(d.difference, d.low, d.high) for d in found.differences} == {(0.0, 0.0, 0.0)}
