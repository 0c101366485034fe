"""Marks that come again along a strip: what is told, how sure it is, and how often chance is."""

import numpy as np
import pytest

import core.repeats
from core.repeats import MOST_MARKS, Mark, find_repeats, tail


def mark(along, across=250.0, label="inclusion", length=20.0, width=20.0):
    return Mark(label, along, across, length, width)


def repeats(marks, length=5000.0, width=500.0):
    return find_repeats(marks, length=length, width=width)


def test_marks_at_equal_distances_are_one_row_with_its_number_of_false_alarms():
    """Margin 10; three other marks in 5000: p = 1 - (1 - 20/5000)³ = 0.011952.

    Three places are tried, three hold a mark, ten pairs were compared, each with two margins:
    20 · p³ = 3.4146e-5.
    """
    [found] = repeats([mark(y) for y in (3100, 100, 4100, 1100, 2100)])
    assert found.label == "inclusion"
    assert found.period == pytest.approx(1000)
    assert found.deviation == pytest.approx(0, abs=1e-6)
    assert found.marks == (1, 3, 4, 0, 2)  # along the strip
    assert found.turns == 4
    assert found.diameter == pytest.approx(318.31, abs=0.01)
    assert found.false_alarms == pytest.approx(3.4146e-5, rel=1e-3)


@pytest.mark.parametrize("places", [(100, 1100, 3100, 4100, 5100), (100, 2100, 3100, 4100, 5100)])
def test_a_place_in_between_may_be_missed(places):
    """Four places are tried and three hold a mark; p = 1 - (1 - 20/5200)³ = 0.011494.

    20 · (4 p³ (1 - p) + p⁴) = 1.2044e-4.
    """
    [found] = repeats([mark(y) for y in places], length=5200)
    assert (found.turns, len(found.marks)) == (5, 5)
    assert found.period == pytest.approx(1000)
    assert found.false_alarms == pytest.approx(1.2044e-4, rel=1e-3)


def test_the_period_is_that_of_least_squares_with_its_standard_error():
    """Off by 0, 0, 0 and 4: slope + 6/5; residuals 0.8, -0.4, -1.6, 1.2: √(4.8 / 2 / 5)."""
    [found] = repeats([mark(y) for y in (50, 1050, 2050, 3054)], length=3500)
    assert found.period == pytest.approx(1001.2)
    assert found.deviation == pytest.approx(0.6928, abs=1e-4)


@pytest.mark.parametrize(
    "marks",
    [
        [mark(y) for y in (100, 1100, 2100)],  # three may be chance
        [mark(y) for y in (100, 1100, 2400, 3100)],  # no equal distances
        [mark(y, across=x) for y, x in ((100, 50), (1100, 250), (2100, 450), (3100, 150))],
        [mark(y, label=name) for y, name in zip((100, 1100, 2100, 3100), "abab", strict=True)],
        [mark(y) for y in (0, 1700, 3400, 5100)],  # fewer than three turns fit into the strip
        [mark(y, length=600) for y in (100, 1100, 2100, 3100, 4100)],  # covers more than half of it
        [mark(50 * k) for k in range(MOST_MARKS + 1)],  # so does this
        [mark(100)] * 4,
        [mark(y, length=0.1) for y in (100, 101, 102, 103, 104)],  # a roll of a third of a pixel
        [],
    ],
    ids=[
        "few",
        "uneven",
        "lanes",
        "classes",
        "long",
        "covered",
        "many",
        "one place",
        "tiny",
        "none",
    ],
)
def test_what_is_no_roll_mark(marks):
    assert repeats(marks) == ()


@pytest.mark.parametrize(
    ("length", "false_alarms"),
    [
        # Margin 50, half of the length: 20 · (1 - (1 - 100/5000)³)³ = 4.0676e-3.
        (100, 4.0676e-3),
        # Margin 25, an eighth: 20 · (1 - (1 - 50/5000)³)³ = 5.240e-4.
        (200, 5.240e-4),
    ],
)
def test_boxes_may_wander_by_a_share_of_their_length(length, false_alarms):
    """The third and the fifth are 15 px late: more than a hundredth of the period."""
    marks = [mark(y, length=length) for y in (100, 1100, 2115, 3100, 4115)]
    [found] = repeats(marks)
    assert len(found.marks) == 5
    assert found.false_alarms == pytest.approx(false_alarms, rel=1e-3)


@pytest.mark.parametrize(("length", "width"), [(20, 31), (31, 20), (13, 20), (20, 13)])
def test_marks_of_one_damage_are_alike_in_size(length, width):
    """At most one and a half times as long or wide: 30 of 20 would be, 31 is not."""
    marks = [mark(y) for y in (100, 1100, 2100)]
    others = [mark(y, length=length, width=width) for y in (3100, 4100)]
    assert repeats([*marks, *others]) == ()
    assert len(repeats([*marks, mark(3100, length=30, width=30), mark(4100)])[0].marks) == 5


def test_each_mark_belongs_to_one_row_and_the_surest_comes_first():
    first = [mark(y, across=100) for y in range(100, 5000, 700)]  # seven
    second = [mark(y, across=400) for y in range(300, 5000, 1000)]  # five
    other = [mark(y, label="scratches") for y in range(40, 5000, 600)]  # nine
    found = repeats([*second, *other, *first])
    assert [round(each.period) for each in found] == [600, 700, 1000]
    assert sorted(k for each in found for k in each.marks) == list(range(21))


def test_a_distance_of_whole_pictures_may_be_how_they_were_cut():
    """Margin 10: 1000 ± 10 px are one or two pictures of 500 px, 1021 px are not."""
    marks = [mark(y) for y in (100, 1100, 2100, 3100, 4100)]
    assert len(find_repeats(marks, length=5000, width=500, picture=700)) == 1
    for picture in (250, 500, 990.5, 1000, 1009.5):
        assert find_repeats(marks, length=5000, width=500, picture=picture) == ()
    assert len(find_repeats(marks, length=5000, width=500, picture=1010.5)) == 1


def test_a_lane_that_is_covered_is_left_out():
    """101 marks at equal distances are 5050 pairs; 100 are 4950."""
    marks = [mark(500 * k + 100, length=5) for k in range(101)]
    assert repeats(marks, length=51_000) == ()
    [found] = repeats(marks[:100], length=51_000)
    assert len(found.marks) == 100


def test_half_of_a_period_and_twice_a_period_are_not_told():
    [found] = repeats([mark(y) for y in range(10, 10_000, 500)], length=10_000)
    assert found.period == pytest.approx(500)
    assert len(found.marks) == 20


def test_lengths_may_be_in_any_unit():
    marks = [mark(y) for y in (100, 1100, 2100, 3100, 4100)]
    [px], [mm] = (
        repeats(marks),
        find_repeats(
            [Mark(m.label, m.along / 8, m.across / 8, m.length / 8, m.width / 8) for m in marks],
            length=625,
            width=62.5,
        ),
    )
    assert mm.period == pytest.approx(px.period / 8)
    assert mm.false_alarms == pytest.approx(px.false_alarms)


def test_lanes_beside_each_other_are_looked_at_once(monkeypatch):
    """Five lanes of six: 15 pairs each, with two margins. Each lane's row changes no other's."""
    looked = []
    row = core.repeats._row
    monkeypatch.setattr(core.repeats, "_row", lambda *given: looked.append(given) or row(*given))
    marks = [mark(700 * k + 100, across=100 * lane + 50) for k in range(6) for lane in range(5)]
    found = repeats(marks)
    assert [len(each.marks) for each in found] == [6] * 5
    assert len(looked) == 5 * 15 * 2


def test_a_strip_without_extent_is_refused():
    with pytest.raises(ValueError, match="length and a width"):
        find_repeats([], length=0, width=1)


@pytest.mark.parametrize(
    ("trials", "hits", "chance", "expected"),
    [
        *(
            (3, 2, 0.5, 0.5),
            (4, 0, 0.3, 1.0),
            (2, 3, 0.5, 0.0),
            (2, 1, 0.1, 0.19),
            (0, 0, 0.4, 1.0),
        ),
        *((3, 1, 0.0, 0.0), (3, 3, 1.0, 1.0)),
        (5000, 2500, 0.5, 0.50564),  # a half and half of P(2500) = 0.011284
    ],
)
def test_the_tail_of_the_binomial_distribution(trials, hits, chance, expected):
    assert tail(trials, hits, chance) == pytest.approx(expected, rel=1e-5)


def chance_marks(rng, n, length, width):
    return [
        mark(y, x, length=a, width=b)
        for y, x, a, b in zip(
            rng.uniform(0, length, n),
            rng.uniform(0, width, n),
            rng.uniform(10, 60, n),
            rng.uniform(10, 60, n),
            strict=True,
        )
    ]


@pytest.mark.parametrize(("n", "width"), [(10, 4096), (40, 4096), (20, 400)])
def test_of_a_hundred_strips_of_chance_at_most_one_is_told(n, width):
    rng = np.random.default_rng(0)
    told = sum(
        bool(repeats(chance_marks(rng, n, 16_000, width), 16_000, width)) for _ in range(200)
    )
    assert told <= 2


def test_a_roll_mark_is_found_among_other_findings():
    """Placed to 2 px, one in five missed, twenty others of its class in the strip."""
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(50):
        period, across = rng.uniform(600, 2500), rng.uniform(200, 3900)
        places = np.arange(rng.uniform(0, period), 16_000, period)
        marks = [mark(y + rng.normal(0, 2), across) for y in places if rng.random() > 0.2]
        told = repeats([*marks, *chance_marks(rng, 20, 16_000, 4096)], 16_000, 4096)
        found += bool(told) and abs(told[0].period - period) < 0.01 * period
    assert found >= 45
