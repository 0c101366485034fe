"""Which images are labelled next: quotas, the random share, and an order that holds."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from active_learning.query import Candidate, Ranked, classes_worth_a_label, rank
from core.errors import InputError

COMMON, RARE = "patches", "crazing"


def ids(ranked: list[Ranked]) -> list[str]:
    return [entry.id for entry in ranked]


def without_chance(pool, budget, **labelled_counts) -> list[Ranked]:
    return rank(pool, budget, labelled_counts=labelled_counts, random_share=0, seed=0)


# --- uncertainty -------------------------------------------------------------------------------


def test_the_most_uncertain_come_first():
    pool = [Candidate(name, u, (COMMON,)) for name, u in (("a", 0.1), ("b", 0.9), ("c", 0.5))]
    found = without_chance(pool, 2, patches=7)
    assert found == [
        Ranked("b", 1.0, "uncertainty 0.90; patches has 7 labels"),
        Ranked("c", 0.5, "uncertainty 0.50; patches has 7 labels"),
    ]


def test_an_image_that_is_there_twice_counts_once_with_its_higher_uncertainty():
    pool = [Candidate("a", 0.2), Candidate("b", 0.5), Candidate("a", 0.8)]
    assert ids(without_chance(pool, 5)) == ["a", "b"]


def test_an_image_without_a_class_says_so():
    [found] = without_chance([Candidate("a", 0.2)], 1)
    assert found.why == "uncertainty 0.20; no class was found in it"


# --- quotas ------------------------------------------------------------------------------------


def of_classes(**sizes: int) -> list[Candidate]:
    return [
        Candidate(f"{name}{k:03d}", 0.5, (name,)) for name, n in sizes.items() for k in range(n)
    ]


def taken(ranked: list[Ranked]) -> Counter[str]:
    return Counter(entry.id.rstrip("0123456789") for entry in ranked)


def test_a_class_short_of_labels_gets_the_larger_quota():
    # Weights 1/sqrt(3 + 1) and 1/sqrt(99 + 1) = 5 : 1 of 12 places.
    found = without_chance(of_classes(crazing=50, patches=50), 12, crazing=3, patches=99)
    assert taken(found) == {"crazing": 10, "patches": 2}


def test_a_class_that_was_never_labelled_weighs_most():
    # Weights 1 and 1/sqrt(8 + 1) = 3 : 1 of 8 places.
    assert taken(without_chance(of_classes(crazing=9, patches=9), 8, patches=8)) == {
        "crazing": 6,
        "patches": 2,
    }


def test_a_lesser_class_has_its_place_before_a_greater_one_has_two():
    # Weights 1 and 1/sqrt(5 + 1) = 0.41, which is more than 1 / 3.
    assert taken(without_chance(of_classes(crazing=9, patches=9), 2, patches=5)) == {
        "crazing": 1,
        "patches": 1,
    }


def test_places_that_one_class_cannot_fill_go_to_the_others():
    found = without_chance(of_classes(crazing=2, patches=50), 12, crazing=3, patches=99)
    assert taken(found) == {"crazing": 2, "patches": 10}


def test_an_image_of_two_classes_serves_the_one_short_of_labels():
    pool = [Candidate("both", 0.1, (COMMON, RARE)), Candidate("sure", 0.9, (COMMON,))]
    found = without_chance(pool, 1, patches=100, crazing=1)
    assert found == [Ranked("both", 1.0, "uncertainty 0.10; crazing has 1 label")]


def test_images_in_which_nothing_was_found_weigh_as_the_mean_class():
    # Weights 1, 1/sqrt(99 + 1) and their mean 0.55 = 20 : 2 : 11 of 33 places.
    pool = of_classes(crazing=40, patches=40) + [Candidate(f"none{k}", 0.5) for k in range(40)]
    found = without_chance(pool, 33, crazing=0, patches=99)
    assert taken(found) == {"crazing": 20, "patches": 2, "none": 11}


def test_an_image_of_two_classes_serves_the_one_that_was_never_labelled():
    [found] = without_chance([Candidate("both", 0.5, ("crazing", "scratches"))], 1, crazing=1)
    assert found.why == "uncertainty 0.50; scratches has 0 labels"


def test_of_two_classes_whose_turn_it_is_the_more_uncertain_image_comes_first():
    pool = [Candidate("a", 0.3, ("crazing",)), Candidate("b", 0.8, ("patches",))]
    assert ids(without_chance(pool, 2)) == ["b", "a"]


def test_every_beginning_of_the_list_is_balanced_too():
    found = without_chance(of_classes(crazing=50, patches=50), 12, crazing=3, patches=99)
    assert taken(found[:6]) == {"crazing": 5, "patches": 1}


# --- the random share --------------------------------------------------------------------------


def test_a_tenth_of_the_budget_is_random_and_says_so():
    pool = [Candidate(f"a{k:03d}", k / 1000) for k in range(500)]
    found = rank(pool, 50, labelled_counts={}, random_share=0.1, seed=3)
    drawn = [entry for entry in found if entry.why.startswith("drawn at random")]
    assert len(drawn) == 5
    # The other 45 are the most uncertain that chance has left.
    rest = set(ids(found)) - set(ids(drawn))
    expected = [c.id for c in reversed(pool) if c.id not in set(ids(drawn))][:45]
    assert rest == set(expected)


def test_the_random_share_is_spread_evenly_over_the_list():
    pool = [Candidate(f"a{k}", 0.5) for k in range(20)]
    found = rank(pool, 10, labelled_counts={}, random_share=0.2, seed=0)
    # Eight by turns of 1/8 from 1/16 on, and two at 1/4 and 3/4: behind the second and the sixth.
    assert [k for k, entry in enumerate(found) if entry.why.startswith("drawn")] == [2, 7]


def test_the_random_share_is_fair_to_sure_images():
    pool = [Candidate(f"a{k:03d}", k / 1000) for k in range(100)]
    seen = Counter(
        entry.id
        for seed in range(300)
        for entry in rank(pool, 10, labelled_counts={}, random_share=1, seed=seed)
    )
    # 300 draws of 10 in 100: 30 each, standard deviation sqrt(300 · 0.1 · 0.9) = 5.2.
    assert len(seen) == 100
    assert 30 - 5 * 5.2 < min(seen.values()) <= max(seen.values()) < 30 + 5 * 5.2


def test_another_seed_draws_other_images_and_the_same_seed_the_same():
    pool = [Candidate(f"a{k:03d}", 0.5) for k in range(500)]
    once, again, other = (
        rank(pool, 20, labelled_counts={}, random_share=1, seed=seed) for seed in (1, 1, 2)
    )
    assert once == again != other


# --- what a label may be about ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probabilities", "expected"),
    [
        ({"a": 0.6, "b": 0.3, "c": 0.1}, ("a", "b")),
        ({"b": 0.75, "a": 0.25}, ("b", "a")),
        ({"b": 0.9, "a": 0.06, "c": 0.04}, ("b",)),
        ({"a": 0.2, "b": 0.2}, ("a",)),
        ({}, ()),
        ({"a": 0.0}, ()),
    ],
    ids=["two possible", "only just", "one sure", "the best of the faint", "nothing", "ruled out"],
)
def test_a_label_may_be_about_the_best_class_and_those_that_are_possible(probabilities, expected):
    assert classes_worth_a_label(probabilities) == expected


# --- properties --------------------------------------------------------------------------------

candidates = st.builds(
    Candidate,
    id=st.integers(0, 30).map(str),
    uncertainty=st.floats(0, 1),
    classes=st.lists(st.sampled_from(["a", "b", "c"]), max_size=2).map(tuple),
)


@settings(max_examples=60)
@given(
    pool=st.lists(candidates, max_size=25),
    budget=st.integers(0, 40),
    share=st.floats(0, 1),
    seed=st.integers(0, 9),
)
def test_the_budget_is_used_up_nobody_comes_twice_and_order_does_not_matter(
    pool, budget, share, seed
):
    unlike = list({c.id: c for c in pool}.values())
    options = {"labelled_counts": {"a": 9}, "random_share": share, "seed": seed}
    found = rank(unlike, budget, **options)
    assert len(found) == len(set(ids(found))) == min(budget, len(unlike))
    assert set(ids(found)) <= {c.id for c in unlike}
    assert rank(unlike[::-1], budget, **options) == found
    random_places = sum(entry.why.startswith("drawn") for entry in found)
    assert abs(random_places - share * len(found)) <= 0.5
    steps = [entry.priority for entry in found]
    assert steps == pytest.approx([1 - k / len(found) for k in range(len(found))])


@pytest.mark.parametrize(
    ("pool", "budget", "share", "words"),
    [
        pytest.param([], -1, 0.1, "Budget is -1", id="budget"),
        pytest.param([], 1, 1.5, "Random share is 1.5", id="share"),
        pytest.param([Candidate("a", 1.2)], 1, 0, "Uncertainty of a is 1.2", id="uncertainty"),
        pytest.param([Candidate("a", math.nan)], 1, 0, "Uncertainty of a is nan", id="nan"),
    ],
)
def test_what_cannot_be_is_refused(pool, budget, share, words):
    with pytest.raises(InputError, match=words):
        rank(pool, budget, labelled_counts={}, random_share=share, seed=0)
