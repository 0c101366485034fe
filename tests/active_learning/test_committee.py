"""What several models say together: disagreement worked by hand, reasons and the vote in words."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from active_learning.committee import Committee, common_name, compare
from core.errors import InputError
from core.records import ImageFacts, Inspection
from core.taxonomy import COMMON_DEFECT_VERSION
from tests.active_learning.answers import NEU, by_classifier, by_detector, by_segmenter

LEFT, RIGHT = (10, 10, 60, 60), (110, 110, 160, 160)
X_SDD = ("red iron", "slag inclusion", "surface scratch")
TAUGHT = {
    **dict.fromkeys(("da_yolo", "gms2_yolo", "grace", "mobilesteelnet"), NEU),
    "sme": ("inclusion", "patches", "scratches"),
    "x_classifier": X_SDD,
}


def judge(*inspections: Inspection) -> Committee:
    return compare(inspections, labels=TAUGHT)


def scratches(model: str = "grace", p: float = 0.9, box=LEFT) -> Inspection:
    return by_detector(model, ("scratches", p, box))


def test_models_that_say_the_same_in_the_same_place_do_not_disagree():
    found = judge(
        scratches("da_yolo"),
        scratches("grace"),
        by_segmenter("sme", ("scratches", 0.9, LEFT)),
        by_classifier("mobilesteelnet", {"scratches": 0.9, "inclusion": 0.1}),
    )
    assert found == Committee(0.0, (), "All 4 see scratches.", COMMON_DEFECT_VERSION)


def test_one_dissenting_classifier_of_five_is_named():
    found = judge(
        scratches("da_yolo"),
        scratches("gms2_yolo"),
        scratches("grace"),
        by_segmenter("sme", ("scratches", 0.9, LEFT)),
        by_classifier("mobilesteelnet", {"inclusion": 0.8, "scratches": 0.2}),
    )
    assert found.sentence == "4 of 5 see scratches; the classifier says inclusion."
    # 4 of 10 pairs conflict by min(0.9, 0.8); the other six agree.
    assert found.disagreement == pytest.approx(0.32)
    assert found.reasons == (
        "classes disagree: inclusion by mobilesteelnet, "
        "scratches by da_yolo, gms2_yolo, grace and sme",
    )


def test_a_classifier_that_calls_the_steel_sound_has_missed_what_others_find():
    taught = {**TAUGHT, "mill": ("ok", "scratches")}
    sound = by_classifier("mill", {"ok": 0.95, "scratches": 0.05})
    found = compare([scratches("grace"), sound], labels=taught)
    assert found.disagreement == pytest.approx(0.9)
    assert found.reasons == ("scratches 0.90 is found by grace and missed by mill",)
    assert found.sentence == "1 of 2 sees scratches; the classifier finds nothing."
    nothing = compare([by_detector("grace"), sound], labels=taught)
    assert (nothing.disagreement, nothing.sentence) == (0.0, "No model finds a defect.")


def test_a_defect_found_by_one_and_missed_by_the_others_is_told_once():
    found = judge(scratches("grace", 0.6), by_detector("da_yolo"), by_detector("gms2_yolo"))
    # Two of three pairs differ by 0.6; the two that found nothing agree.
    assert found.disagreement == pytest.approx(0.4)
    assert found.reasons == (
        "scratches 0.60 is found by grace and missed by da_yolo and gms2_yolo",
    )
    assert found.sentence == "1 of 3 sees scratches; da_yolo and gms2_yolo find nothing."


def test_boxes_of_one_class_in_different_places_weigh_half_of_a_class_conflict():
    # 50 x 50 and 50 x 50 shifted by 25: 1250 / 3750 = 1/3; half of 1 - 1/3.
    found = judge(scratches("grace"), scratches("da_yolo", box=(35, 10, 85, 60)))
    assert found.disagreement == pytest.approx(1 / 3, abs=1e-4)
    assert found.reasons == ("boxes of scratches by grace and da_yolo overlap by 0.33",)


def test_box_mismatch_is_the_mean_over_greedily_matched_boxes():
    # Left pair equal, right pair 1/3 as above: mean IoU 2/3, half of 1/3.
    found = judge(
        by_detector("grace", ("scratches", 0.9, LEFT), ("scratches", 0.9, RIGHT)),
        by_detector("da_yolo", ("scratches", 0.9, (135, 110, 185, 160)), ("scratches", 0.8, LEFT)),
    )
    assert found.disagreement == pytest.approx(1 / 6, abs=1e-4)
    assert found.reasons == ()  # too little to tell


def test_a_place_that_only_one_model_marks_counts_by_its_probability():
    found = judge(
        by_detector(
            "grace",
            *[("scratches", 0.9, LEFT), ("scratches", 0.7, RIGHT)],
            ("scratches", 0.3, (110, 10, 160, 60)),
        ),
        scratches("da_yolo"),
    )
    assert found.disagreement == pytest.approx(0.35)  # half of 0.7
    assert found.reasons == ("grace marks scratches 0.70 in a place where da_yolo does not",)


def test_one_long_box_and_its_three_thirds_are_one_finding():
    thirds = [("scratches", 0.9, (x, 0, x + 30, 20)) for x in (0, 30, 60)]
    found = judge(
        by_detector("grace", *thirds), by_detector("da_yolo", ("scratches", 0.9, (0, 0, 90, 20)))
    )
    # One third is matched, half of 1 - 1/3; the other two lie in the long box all the same.
    assert found.disagreement == pytest.approx(1 / 3, abs=1e-4)
    assert found.reasons == ("boxes of scratches by grace and da_yolo overlap by 0.33",)


def test_a_mask_and_a_box_are_compared_by_the_area_they_cover():
    # Boxes of regions: two halves cover the detector's box fully.
    halves = [("scratches", 0.9, (0, 0, 50, 20)), ("scratches", 0.9, (50, 0, 100, 20))]
    box = by_detector("grace", ("scratches", 0.9, (0, 0, 100, 20)))
    assert judge(by_segmenter("sme", *halves), box).disagreement == 0.0
    half = judge(by_segmenter("sme", halves[0]), box)
    assert half.disagreement == pytest.approx(0.25, abs=0.01)  # half of 1 - 0.5, on a grid
    assert half.reasons == ("sme and grace share 0.50 of the area they mark as scratches",)


def test_areas_are_those_of_an_oblong_image_too():
    oblong = {"image": ImageFacts(sha256="0" * 64, width=400, height=100)}
    half = by_segmenter("sme", ("scratches", 0.9, (300, 0, 400, 100)))
    whole = scratches("grace", box=(200, 0, 400, 100))
    found = judge(half.model_copy(update=oblong), whole.model_copy(update=oblong))
    assert found.disagreement == pytest.approx(0.25)  # half of 1 - 0.5


def test_of_several_boxes_of_a_class_the_most_probable_speaks_for_it():
    found = judge(
        by_detector("grace", ("scratches", 0.6, LEFT), ("scratches", 0.9, RIGHT)),
        by_detector("da_yolo"),
    )
    assert found.disagreement == pytest.approx(0.9)


def test_of_several_classes_that_contradict_another_the_most_probable_is_told():
    found = judge(
        by_detector("grace", ("inclusion", 0.5, LEFT), ("patches", 0.8, RIGHT)),
        scratches("da_yolo"),
    )
    assert found.disagreement == pytest.approx(0.8)
    assert found.reasons == ("classes disagree: patches by grace, scratches by da_yolo",)


def test_a_locator_misses_a_defect_whatever_else_it_sees():
    # The segmenter was never taught crazing, but it did not have to name anything.
    found = judge(
        by_segmenter("sme", ("scratches", 0.9, LEFT)), by_detector("grace", ("crazing", 0.9, LEFT))
    )
    assert found.reasons == ("scratches 0.90 is found by sme and missed by grace",)


def test_nobody_misses_what_it_was_never_taught():
    # The segmenter knows no crazing; the two detectors agree.
    crazing = [by_detector(name, ("crazing", 0.9, LEFT)) for name in ("grace", "da_yolo")]
    found = judge(*crazing, by_segmenter("sme"))
    assert found.sentence == "Both that know crazing see it."
    assert found.reasons == ()
    # It does know scratches, of which both see none: one pair each, all agreed.
    assert found.disagreement == 0.0


def test_classes_are_one_across_data_sets_by_the_common_table():
    found = judge(scratches(), by_classifier("x_classifier", {"surface scratch": 1.0}))
    assert (found.disagreement, found.sentence) == (0.0, "Both see scratches.")


def test_a_class_without_counterpart_never_counts():
    found = judge(scratches(), by_classifier("x_classifier", {"red iron": 0.99}))
    assert (found.disagreement, found.reasons) == (0.0, ())
    assert found.sentence == "1 of 2 sees scratches; the classifier says red iron."


def test_a_classifier_that_was_never_taught_the_defect_had_to_say_something():
    found = judge(
        by_detector("grace", ("crazing", 0.9, LEFT)),
        by_classifier("x_classifier", {"surface scratch": 0.9, "red iron": 0.1}),
    )
    assert found.disagreement == 0.0


def test_a_second_class_in_the_image_is_not_the_classifiers_business():
    found = judge(
        by_detector("grace", ("scratches", 0.9, LEFT), ("patches", 0.8, RIGHT)),
        by_classifier("mobilesteelnet", {"scratches": 0.9, "patches": 0.1}),
    )
    assert found.disagreement == 0.0
    assert found.sentence == "Both see scratches; 1 of 2 also sees patches."


def several(model: str, *names: str) -> Inspection:
    return by_detector(model, *((name, 0.9, LEFT) for name in names))


def test_classes_with_the_same_voters_are_told_together():
    both = ("crazing", "inclusion", "patches", "scratches")
    found = judge(several("grace", *both), several("da_yolo", *both))
    assert found.sentence == "Both see crazing, inclusion, patches and scratches."
    found = judge(several("grace", *NEU), several("da_yolo", *NEU))
    assert found.sentence == "Both see crazing, inclusion, patches and 3 more."


def test_classes_that_others_see_keep_a_part_of_their_own():
    found = judge(
        several("grace", "crazing", "inclusion", "patches"),
        several("da_yolo", "crazing", "scratches"),
        several("gms2_yolo", "crazing"),
    )
    assert found.sentence == (
        "All 3 see crazing; 1 of 3 also sees inclusion and patches; 1 of 3 also sees scratches."
    )


def test_several_classes_that_not_all_were_taught_are_named_once():
    found = judge(
        several("grace", "crazing", "pitted_surface"),
        several("da_yolo", "crazing", "pitted_surface"),
        by_segmenter("sme"),
    )
    assert found.sentence == "Both that know crazing and pitted surface see them."


def test_a_vote_names_the_one_model_that_was_taught_the_class():
    found = judge(by_segmenter("sme"), several("grace", "crazing"))
    assert found.sentence == "The detector sees crazing."


def test_a_second_class_that_not_all_were_taught_goes_on_in_the_same_sentence():
    found = judge(
        several("grace", "crazing", "scratches"),
        several("da_yolo", "crazing", "scratches"),
        by_segmenter("sme", ("scratches", 0.9, LEFT)),
    )
    assert found.sentence == "All 3 see scratches; both that know crazing also see it."


def test_who_sees_only_the_second_class_is_counted_there_and_not_named_again():
    found = judge(
        several("grace", "patches", "scratches"), scratches("da_yolo"), several("sme", "patches")
    )
    assert found.sentence == "2 of 3 see patches; 2 of 3 also see scratches."


def test_a_classifier_against_a_locator_that_found_nothing_counts():
    found = judge(by_detector("grace"), by_classifier("mobilesteelnet", {"crazing": 0.9}))
    assert found.disagreement == pytest.approx(0.9)
    assert found.reasons == ("crazing 0.90 is found by mobilesteelnet and missed by grace",)


def test_models_are_called_by_their_titles_where_these_are_given():
    titles = {"grace": "GRACE", "da_yolo": "DA-YOLO"}
    found = compare([scratches("grace", 0.6), by_detector("da_yolo")], titles=titles)
    assert found.reasons == ("scratches 0.60 is found by GRACE and missed by DA-YOLO",)
    assert found.sentence == "1 of 2 sees scratches; DA-YOLO finds nothing."


def test_without_class_lists_models_of_one_task_are_taken_to_know_the_same():
    found = compare([scratches("a", 0.6), by_detector("b"), by_segmenter("c")])
    assert found.disagreement == pytest.approx(0.6)  # a against b; c has named nothing


@pytest.mark.parametrize(
    ("inspections", "sentence"),
    [
        pytest.param([], "No model finds a defect.", id="nobody asked"),
        pytest.param([by_detector("grace")], "No model finds a defect.", id="nothing"),
        pytest.param([scratches()], "The detector sees scratches.", id="one"),
    ],
)
def test_a_committee_of_one_agrees_with_itself(inspections, sentence):
    assert judge(*inspections) == Committee(0.0, (), sentence)


def test_inspections_of_different_images_are_refused():
    other = scratches("da_yolo").model_copy(
        update={"image": ImageFacts(sha256="1" * 64, width=200, height=200)}
    )
    with pytest.raises(InputError, match="one image, got inspections of 2"):
        judge(scratches(), other)


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("slag inclusion", "inclusion"),
        ("surface scratch", "scratches"),
        ("inclusion", "inclusion"),
        ("crazing", "crazing"),
        ("oil_spot", "oil_spot"),
        ("a class of your own", "a class of your own"),
    ],
)
def test_common_name(label, expected):
    assert common_name(label) == expected


def test_disagreement_stays_within_0_and_1_and_does_not_depend_on_order():
    rng = random.Random(0)
    for _ in range(40):
        claims = [
            (rng.choice(NEU), round(rng.random(), 3), (x, x, x + rng.randint(1, 80), x + 40))
            for x in rng.sample(range(100), rng.randint(0, 4))
        ]
        parts = [claims[:k] for k in range(len(claims) + 1)]
        found = [by_detector(f"d{k}", *part) for k, part in enumerate(parts)]
        found.append(
            by_classifier("c", dict(zip(NEU, (0.5, 0.1, 0.1, 0.1, 0.1, 0.1), strict=True)))
        )
        forward = compare(found)
        assert 0 <= forward.disagreement <= 1
        assert compare(found[::-1]).disagreement == forward.disagreement
        pairs = [compare(pair).disagreement for pair in combinations(found, 2)]
        assert all(0 <= value <= 1 for value in pairs)
