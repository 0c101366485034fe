"""When a model is trained again: one row a rule, and the reason it gives."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from active_learning.drift import Drift
from active_learning.schedule import State, is_due, short_of_labels
from core.settings import RetrainingSettings

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SETTINGS = RetrainingSettings(
    min_new_annotations=50,
    min_urgent_annotations=10,
    class_share=0.5,
    drift_threshold=0.25,
    min_hours=24,
    max_days=30,
)
# Equal parts would be 100 each: crazing is below half of that, and inclusion is not.
LABELS = {"crazing": 40, "inclusion": 60, "patches": 200}
DARK = Drift(n=400, psi={"brightness": 0.4, "contrast": 0.05})


def state(new=0, *, ago=None, **more):
    started = None if ago is None else NOON - ago
    return State(now=NOON, new_reviews=new, last_started=started, **more)


@pytest.mark.parametrize(
    ("given", "now", "why"),
    [
        (state(0), False, "0 of 50 newly reviewed images."),
        (state(12), False, "12 of 50 newly reviewed images."),
        (state(50), True, "50 of 50 newly reviewed images."),
        (
            state(60, ago=timedelta(hours=3)),
            False,
            "the last run started 3 h ago and 24 h must lie between two; "
            "60 of 50 newly reviewed images.",
        ),
        (state(60, ago=timedelta(hours=24)), True, "60 of 50 newly reviewed images."),
        (state(60, ago=timedelta(hours=-1)), True, "60 of 50 newly reviewed images."),
        (
            state(10, training_labels=LABELS, new_labels={"crazing": 4}),
            True,
            "crazing is short of labels, and 10 newly reviewed images can help.",
        ),
        (
            state(9, training_labels=LABELS, new_labels={"crazing": 4}),
            False,
            "crazing is short of labels, but 9 of 10 reviews are there.",
        ),
        (
            state(10, training_labels=LABELS, new_labels={"patches": 10}),
            False,
            "10 of 50 newly reviewed images.",
        ),
        (
            state(10, drift=DARK),
            True,
            "the incoming images have drifted in brightness (PSI 0.40, threshold 0.25), "
            "and 10 newly reviewed images can help.",
        ),
        (state(0, drift=DARK), False, "0 of 50 newly reviewed images."),
        (
            state(10, drift=Drift(n=99, psi={"brightness": 0.4})),
            False,
            "10 of 50 newly reviewed images.",
        ),
        (
            state(1, ago=timedelta(days=30)),
            True,
            "the last run started 30 days ago; 1 of 50 newly reviewed images.",
        ),
        (
            state(0, ago=timedelta(days=90)),
            False,
            "0 of 50 newly reviewed images.",
        ),
    ],
    ids=[
        "nothing reviewed",
        "too few",
        "enough",
        "enough, but too soon",
        "enough, and a day has passed",
        "enough, and the clock was set back",
        "a few, for a short class",
        "too few even for a short class",
        "a few, but not of the short class",
        "a few, and it has become dark",
        "dark, but nothing reviewed",
        "dark, by too few images to tell",
        "one, after a month",
        "none, after three months",
    ],
)
def test_each_rule_says_why(given, now, why):
    due = is_due(given, SETTINGS)
    assert (due.now, due.why) == (now, why)


def test_a_class_is_short_below_a_share_of_an_equal_part():
    assert short_of_labels(LABELS, share=0.5) == ("crazing",)
    assert short_of_labels(LABELS, share=0.7) == ("crazing", "inclusion")
    assert short_of_labels({"a": 5, "b": 5}, share=1.0) == ()
    assert short_of_labels({}, share=0.5) == ()
