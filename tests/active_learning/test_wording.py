"""How classes are named inside a sentence."""

import pytest

from active_learning.wording import named


@pytest.mark.parametrize(
    ("label", "words"),
    [("rolled-in_scale", "rolled-in scale"), ("Riss_KTL", "Riss KTL"), ("kratzer_1", "kratzer 1")],
)
def test_a_class_stands_in_a_sentence_as_people_write_it(label, words):
    assert named(label) == words
