"""From which uncertainty on a release asks: at most a quarter of its validation images reach it."""

import pytest

from active_learning.asking import ask_from


@pytest.mark.parametrize(
    ("uncertainties", "expected"),
    [
        ([0.1, 0.2, 0.9, 0.3], 0.5),  # one of four asks already: one half stays
        ([0.6, 0.7, 0.8, 0.9], 0.801),  # only 0.9 may; 0.8 is the first that must not
        ([0.6, 0.8, 0.8, 0.9], 0.801),
        ([0.8, 0.8, 0.8, 0.8], 0.801),  # a quarter of equals is none of them
        ([1.0, 1.0, 0.2, 0.1], 1.0),  # two cannot be told apart: there is nothing above 1
        ([0.7, 0.6], 0.701),
        ([], 0.5),
    ],
)
def test_at_most_a_quarter_of_the_images_reaches_the_threshold(uncertainties, expected):
    assert ask_from(uncertainties) == expected
