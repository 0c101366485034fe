"""Drift of the incoming images: the index by hand, and what it sees and does not see."""

from __future__ import annotations

import numpy as np
import pytest

from active_learning.drift import (
    FEWEST,
    NOTHING,
    Drift,
    Reference,
    Seen,
    compare,
    describe,
    light,
    observe,
    psi,
    read_reference,
    strongest,
)
from core.errors import WeightsError
from tests.active_learning.answers import by_classifier, by_detector, by_segmenter
from tests.records import make_config

BOX = (1.0, 2.0, 30.0, 40.0)


def test_equal_shares_have_no_distance():
    assert psi([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]) == 0.0


def test_the_index_of_two_halves_that_became_three_quarters_and_one():
    # (0.75 - 0.5) ln 1.5 + (0.25 - 0.5) ln 0.5 = 0.25 * (0.405465 + 0.693147)
    assert psi([0.5, 0.5], [0.75, 0.25]) == pytest.approx(0.274653, abs=1e-6)


def test_a_bin_that_nothing_falls_into_counts_as_one_in_a_thousand():
    # (1 - 0.5) ln 2 + (0.001 - 0.5) ln 0.002 = 0.346574 + 3.101093
    assert psi([0.5, 0.5], [1.0, 0.0]) == pytest.approx(3.447667, abs=1e-5)


def test_brightness_and_contrast_are_the_mean_and_spread_of_grey():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 204  # 0.8 of full scale in one half
    brightness, contrast = light(pixels)
    assert brightness == pytest.approx(0.4)
    assert contrast == pytest.approx(0.4)


def test_light_is_read_from_about_128_pixels_along_the_longer_side_and_all_of_a_smaller_one():
    small = np.zeros((8, 8, 3), np.uint8)
    small[:, ::2] = 204
    assert light(small) == pytest.approx((0.4, 0.4))
    wide = np.zeros((64, 512, 3), np.uint8)
    wide[:, ::4] = 204  # 512 / 128: the others are not looked at
    assert light(wide) == pytest.approx((0.8, 0.0))


@pytest.mark.parametrize(
    ("inspection", "expected"),
    [
        (by_detector("m", ("crazing", 0.6, BOX), ("scratches", 0.9, BOX)), ("scratches", 0.9)),
        (by_detector("m", ("crazing", 0.4, BOX)), (NOTHING, 0.4)),
        (by_detector("m", ("crazing", 0.5, BOX)), ("crazing", 0.5)),
        (by_detector("m"), (NOTHING, 0.0)),
        (by_segmenter("m", ("patches", 0.7, BOX)), ("patches", 0.7)),
        (by_classifier("m", {"red iron": 0.8, "slag": 0.2}), ("red iron", 0.8)),
    ],
    ids=[
        *("the surer of two boxes", "below one half", "one half"),
        *("nothing", "a region", "a class"),
    ],
)
def test_an_image_has_the_class_of_its_strongest_finding(inspection, expected):
    assert strongest(inspection) == expected


def seen(n, *, seed=1, shift=0.0, label="crazing"):
    rng = np.random.default_rng(seed)
    values = rng.normal((0.5 + shift, 0.2, 0.8), 0.05, (n, 3))
    return [Seen(b, c, label, min(p, 1.0)) for b, c, p in values]


@pytest.fixture(scope="module")
def reference():
    rows = seen(1000, seed=0)
    return describe(
        [(s.brightness, s.contrast) for s in rows], [(s.label, s.probability) for s in rows]
    )


def test_images_like_those_of_training_have_not_drifted(reference):
    found = compare(reference, seen(400))
    assert found.is_known
    # By chance alone about 9 * (1 / 400 + 1 / 1000) = 0.03 for each of the numbers.
    assert max(found.psi.values()) < 0.1


def test_darker_images_drift_in_brightness_alone(reference):
    found = compare(reference, seen(400, shift=-0.05))
    assert found.worst()[0] == "brightness"
    assert found.psi["brightness"] > 0.25
    assert max(found.psi[k] for k in ("contrast", "probability", "class")) < 0.1


def test_another_mix_of_classes_is_drift_also_when_the_class_is_new(reference):
    found = compare(reference, seen(200) + seen(200, label=NOTHING))
    # crazing 1 -> 0.5 and nothing 0.001 -> 0.5: 0.5 ln 2 + 0.499 ln 500
    assert found.psi["class"] == pytest.approx(3.447667, abs=1e-5)


def test_a_class_that_comes_no_more_is_drift():
    reference = describe([(0.5, 0.2)], [("scratches", 0.9), ("crazing", 0.9)])
    assert list(reference.labels.items()) == [("crazing", 0.5), ("scratches", 0.5)]
    found = compare(reference, seen(20, label="crazing"))
    # crazing 0.5 -> 1 and scratches 0.5 -> 0.001, as above
    assert found.psi["class"] == pytest.approx(3.447667, abs=1e-5)


def test_a_few_images_tell_nothing(reference):
    assert not compare(reference, seen(FEWEST - 1)).is_known
    assert compare(reference, seen(FEWEST)).is_known
    assert compare(reference, []) == Drift(
        n=0, psi={"brightness": 0.0, "contrast": 0.0, "class": 0.0, "probability": 0.0}
    )


def test_a_value_that_is_two_deciles_has_a_bin_of_its_own_among_tenths():
    # Deciles of 20 values lie at 1.9, 3.8, 5.7 ... 17.1 of their places 0 to 19: the first two are
    # both 5, the third 6 + 0.7, the fourth (place 7.6) 8 + 0.6, and so on by 1.9.
    values = [0, 5, 5, 5, 5, *range(6, 21)]
    reference = describe([(v, 0.2) for v in values], [("crazing", 0.9)])
    edges = reference.brightness.edges
    assert edges == pytest.approx((5, 5, 6.7, 8.6, 10.5, 12.4, 14.3, 16.2, 18.1))
    assert edges[0] < edges[1]
    assert reference.brightness.shares == (0.05, 0.2, 0.05, *(0.1,) * 7)
    dark = compare(reference, [Seen(0.0, 0.2, "crazing", 0.9)])
    # 0.95 ln 20 + 0.199 ln 200 + 0.049 ln 50 + 7 * 0.099 ln 100
    assert dark.psi["brightness"] == pytest.approx(7.283383, abs=1e-5)


def test_a_number_that_is_mostly_zero_has_a_bin_for_zero_and_one_for_the_rest():
    rows = [("nothing", 0.0)] * 95 + [("crazing", 0.9)] * 5
    reference = describe([(0.5, 0.2)] * 100, rows)
    # Nothing lies below 0, where the first bin ends.
    assert reference.probability.shares == (0.0, 0.95, 0.05)
    faint = compare(reference, [Seen(0.5, 0.2, "nothing", 0.45)] * 100)
    # (0.001 - 0.95) ln (0.001 / 0.95) + (1 - 0.05) ln (1 / 0.05) = 6.50678 + 2.84595
    assert faint.psi["probability"] == pytest.approx(9.35273, abs=1e-4)
    kept = Reference.model_validate_json(reference.model_dump_json())
    assert kept == reference


def test_a_damaged_reference_is_told_from_none(reference):
    config = make_config()
    assert read_reference(config) is None
    kept = config.model_copy(update={"drift": reference.model_dump(mode="json")})
    assert read_reference(kept) == reference
    with pytest.raises(WeightsError, match=r"drift reference of grace .* is damaged"):
        read_reference(config.model_copy(update={"drift": {"n": 1}}))


def test_an_inspection_is_observed_whole():
    pixels = np.full((40, 60, 3), 51, np.uint8)
    found = observe(pixels, by_detector("m", ("crazing", 0.6, BOX)))
    assert found == Seen(pytest.approx(0.2), pytest.approx(0.0), "crazing", 0.6)
