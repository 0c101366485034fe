"""How classes are named inside a sentence."""

import pytest

from active_learning.wording import named, told_apart


@pytest.mark.parametrize(
    ("label", "words"),
    [("rolled-in_scale", "rolled-in scale"), ("Riss_KTL", "Riss KTL"), ("kratzer_1", "kratzer 1")],
)
def test_a_class_stands_in_a_sentence_as_people_write_it(label, words):
    assert named(label) == words


@pytest.mark.parametrize(
    ("less", "more", "words"),
    [
        (0.8, 0.9, ("0.80", "0.90")),
        (0.1826, 0.185, ("0.183", "0.185")),
        (0.99, 0.994, ("0.990", "0.994")),
        (0.18501, 0.18502, ("0.18501", "0.18502")),
        (0.5, 0.5, ("0.50", "0.50")),
    ],
)
def test_what_is_below_a_limit_is_told_with_digits_that_show_it(less, more, words):
    assert told_apart(less, more) == words
