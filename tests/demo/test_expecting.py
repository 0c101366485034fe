"""What the page says a threshold costs: sentences worked by hand."""

from __future__ import annotations

import pytest

from demo.expecting import Expectation, expect
from tests.records import make_config

COUNTED = {
    "n": 50,
    "thresholds": [0.1, 0.5],
    "defects": {"crazing": 40, "scratches": 60, "patches": 0},
    "found": {"crazing": [36, 2], "scratches": [58, 50], "patches": [0, 0]},
    "findings": {"crazing": [60, 2], "scratches": [80, 58], "patches": [10, 0]},
    "wrong": {"crazing": [3, 0], "scratches": [12, 3], "patches": [10, 0]},
}


def test_both_rates_are_told_with_the_class_that_is_found_least() -> None:
    told = expect(make_config(operating=COUNTED), 0.1)
    # 94 of 100 defects; 25 of 150 findings, on 50 pictures. Of patches none was there to be missed.
    assert told.brief == "Finds 94 % of defects; 17 % of its findings are none"
    assert told.full == (
        "From a score of 0.10 on it found 94 % of the 100 labelled defects in its 50 validation "
        "pictures, Crazing least (90 %); 17 % of its findings were none, 0.50 a picture. On other "
        "steel it may differ."
    )


def test_a_higher_threshold_is_told_by_its_own_rates() -> None:
    told = expect(make_config(operating=COUNTED), 0.5)
    assert told.brief == "Finds 52 % of defects; 5 % of its findings are none"
    assert "Crazing least (5 %)" in told.full


def test_a_release_that_has_counted_nothing_promises_nothing() -> None:
    assert expect(make_config(), 0.1) == Expectation("", "")


def test_damaged_counts_promise_nothing_and_are_told_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    damaged = make_config(operating=COUNTED | {"thresholds": []})
    assert expect(damaged, 0.1) == Expectation("", "")
    assert "by threshold is damaged" in caplog.text
