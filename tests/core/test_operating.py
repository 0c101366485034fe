"""What a release finds and invents by threshold: rates worked by hand, and damaged counts."""

import pytest

from core.errors import WeightsError
from core.operating import OperatingCurve, read_operating
from tests.records import make_config

STORED = {
    "n": 4,
    "thresholds": [0.1, 0.5],
    "defects": {"crazing": 4, "scratches": 6},
    "found": {"crazing": [4, 0], "scratches": [6, 3]},
    "findings": {"crazing": [6, 0], "scratches": [10, 4]},
    "wrong": {"crazing": [2, 0], "scratches": [4, 0]},
}
CURVE = OperatingCurve.model_validate(STORED)


def test_rates_of_all_classes_are_of_the_counts_together():
    rates = CURVE.at(0.1)
    assert rates is not None
    assert rates.found == 1.0  # 10 of 10
    assert rates.wrong == pytest.approx(0.375)  # 6 of 16
    assert rates.wrong_per_image == 1.5  # 6 on 4 images


def test_rates_of_one_class():
    rates = CURVE.at(0.5, "scratches")
    assert rates is not None
    assert (rates.found, rates.wrong) == (0.5, 0.0)  # 3 of 6, 0 of 4
    none_shown = CURVE.at(0.5, "crazing")
    assert none_shown is not None
    assert (none_shown.found, none_shown.wrong) == (0.0, 0.0)  # no finding, so no wrong one


def test_between_two_thresholds_counts_are_interpolated_and_beyond_them_they_stay():
    half_way = CURVE.at(0.3)  # found 10 → 3: 6.5; findings 16 → 4: 10; wrong 6 → 0: 3
    assert half_way is not None
    assert half_way.found == pytest.approx(0.65)
    assert half_way.wrong == pytest.approx(0.3)
    assert half_way.wrong_per_image == pytest.approx(0.75)
    assert CURVE.at(0.0) == CURVE.at(0.1)
    assert CURVE.at(1.0) == CURVE.at(0.5)


def test_where_nothing_was_labelled_there_is_no_rate():
    bare = CURVE.model_copy(update={"defects": {"crazing": 0, "scratches": 6}})
    assert bare.at(0.1, "crazing") is None
    assert bare.at(0.1) is not None


def test_a_release_without_counts_has_no_curve():
    assert read_operating(make_config()) is None
    assert read_operating(make_config(operating=STORED)) == CURVE


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"n": 0}, "it needs images"),
        ({"thresholds": [0.5, 0.1]}, "thresholds that rise"),
        ({"found": {"crazing": [4, 0]}}, "classes are not the same"),
        ({"wrong": {"crazing": [2], "scratches": [4, 0]}}, "every threshold needs a count"),
        ({"more": 1}, "Extra inputs"),
    ],
)
def test_damaged_counts_are_refused(damage, said):
    config = make_config(operating=STORED | damage)
    with pytest.raises(WeightsError, match=f"grace .* by threshold is damaged.*{said}"):
        read_operating(config)
