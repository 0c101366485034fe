"""How far back the averaged weights of a detector look."""

from __future__ import annotations

import pytest

from training.detector_recipe import ema_decay


def test_the_average_spans_a_twentieth_of_the_run():
    decay = ema_decay(2000)  # window 2000 / 20 = 100 steps, d = 1 - 1/100
    assert decay(1) == pytest.approx(0.99 * 0.00995017)  # 1 - e^-0.01: all but the network itself
    assert decay(100) == pytest.approx(0.99 * (1 - 0.36787944))  # e^-1
    assert decay(1_000_000) == pytest.approx(0.99)


def test_a_very_long_run_keeps_the_usual_decay():
    assert ema_decay(10_000_000)(10_000_000) == pytest.approx(0.9999)  # not 1 - 1/500,000


def test_a_run_of_a_few_steps_keeps_the_network_as_it_is():
    assert ema_decay(3)(3) == 0.0  # a window of one step
