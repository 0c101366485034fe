"""Predictions become verdicts with reasons that a person at the mill understands."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from active_learning.inspection import MAX_SEGMENTS, to_inspection
from core.errors import InputError, WeightsError
from core.geometry import class_map_from_record
from core.records import Inspection
from core.types import Classification, Detections, Prediction
from tests.active_learning.answers import SEEN, boxes, classes, mask, release

A, B = (10, 10, 50, 50), (110, 110, 150, 150)
SEG = ("inclusion", "patches", "scratches")


def inspect(prediction: Prediction, **changes: Any) -> Inspection:
    task = {"Detections": "detect", "Segmentation": "segment", "Classification": "classify"}
    options = {"score_threshold": None} | changes
    calibration, ask_from = options.pop("calibration", {}), options.pop("ask_from", None)
    config = release(task[type(prediction).__name__], calibration=calibration)
    config = config.model_copy(update={"ask_from": ask_from})
    return to_inspection(prediction, release=config, **options)


def rising(x: list[float], y: list[float]) -> dict[str, Any]:
    curve = {"method": "isotonic", "x": x, "y": y, "n": 100}
    fit = {"n": 100, "dece_before": 0.1, "dece_after": 0.0}
    return {"kind": "curves", "per_class": {}, "pooled": curve, **fit}


# --- boxes -------------------------------------------------------------------------------------


def test_a_sure_box_is_a_defect():
    found = inspect(boxes(("scratches", 0.93, A)))
    assert (found.verdict, found.uncertainty) == ("defect", 0.14)  # 1 - |2 · 0.93 - 1|
    assert found.reasons == ("scratches 0.93 is sure (0.75 or more)",)
    [box] = found.detections
    assert (box.label, box.score, box.probability, box.box) == ("scratches", 0.93, 0.93, A)


def test_no_box_at_all_is_accepted():
    found = inspect(boxes())
    assert (found.verdict, found.uncertainty, found.detections) == ("accept", 0.0, ())
    assert found.reasons == ("the model sees nothing that might be a defect",)


def test_an_open_box_asks_for_a_person_and_says_between_what():
    found = inspect(boxes(("rolled-in_scale", 0.43, A)))
    assert (found.verdict, found.uncertainty) == ("review", 0.86)
    assert found.reasons == ("rolled-in scale 0.43 is in doubt (0.25 to 0.75)",)


def test_what_is_said_of_the_one_open_box_is_said_once():
    found = inspect(boxes(("scratches", 0.26, A)), ask_from=0.9)
    assert (found.verdict, found.reasons) == (
        "accept",
        ("scratches 0.26 is in doubt (0.25 to 0.75)",),
    )


def test_two_classes_in_one_place_ask_for_a_person_and_say_where():
    found = inspect(boxes(("scratches", 0.9, A), ("inclusion", 0.8, (10, 10, 50, 46))))
    # 36 / 40 of the area shared; both serious; a sure pair leaves no other doubt.
    assert (found.verdict, found.uncertainty) == ("review", 0.9)
    assert found.reasons == (
        "two boxes of different classes overlap by 0.90 at (30, 29) px: "
        "scratches 0.90 and inclusion 0.80",
    )


def test_many_open_boxes_are_named_three_times_and_counted():
    found = inspect(boxes(*[("patches", s, (x, 0, x + 9, 9)) for x, s in open_row()]))
    assert found.reasons == (
        "patches 0.50 is in doubt (0.25 to 0.75)",
        "patches 0.55 is in doubt (0.25 to 0.75)",
        "patches 0.60 is in doubt (0.25 to 0.75)",
        "2 more boxes are in doubt",
        "there may be 1 to 6 defects",
    )


def open_row() -> list[tuple[int, float]]:
    return list(zip(range(0, 120, 20), (0.95, 0.66, 0.63, 0.6, 0.55, 0.5), strict=True))


def test_a_faint_box_is_not_shown_and_the_image_accepted():
    found = inspect(boxes(("crazing", 0.12, A)))
    assert (found.verdict, found.uncertainty, found.detections) == ("accept", 0.24, ())
    assert found.reasons == ("nothing is likely (0.25 or more): the best is crazing 0.12",)


def test_a_box_below_the_band_can_still_reach_a_strict_review_threshold():
    found = inspect(boxes(("crazing", 0.12, A)), review_threshold=0.2)
    assert found.verdict == "review"
    assert found.reasons == (
        "nothing is likely (0.25 or more): the best is crazing 0.12, "
        "yet uncertainty 0.24 reaches 0.20",
    )


def test_many_faint_boxes_together_are_no_reason_to_accept():
    scores = (0.2, 0.2, 0.15, 0.15)  # 1 - 0.8² · 0.85² = 0.5376
    found = inspect(
        boxes(*[("crazing", s, (20 * k, 0, 20 * k + 9, 9)) for k, s in enumerate(scores)])
    )
    assert (found.verdict, found.uncertainty) == ("review", 0.5376)
    assert found.reasons == (
        "4 faint boxes together make a defect 0.54 probable, the best is crazing 0.20",
    )


def test_a_likely_defect_is_never_hidden_silently():
    found = inspect(boxes(("scratches", 0.8, A)), score_threshold=0.9)
    assert (found.verdict, found.detections) == ("review", ())
    assert found.reasons == (
        "scratches is 0.80 probable but hidden: its score 0.80 is below the score threshold 0.90",
    )
    beside = inspect(boxes(("patches", 0.95, B), ("scratches", 0.8, A)), score_threshold=0.9)
    assert beside.verdict == "defect"  # the sheet's fate is the same


def test_the_score_threshold_is_compared_as_the_predictor_compares_it():
    # 0.7 is 0.69999999 in float32: a box that was predicted at 0.7 is shown at 0.7.
    prediction = boxes(("scratches", 0.7, A))
    assert len(inspect(prediction, score_threshold=0.7).detections) == 1
    assert len(inspect(prediction).detections) == 1  # the release's 0.25
    assert len(inspect(prediction, score_threshold=0.71).detections) == 0


def test_verdict_and_reasons_speak_of_probabilities_not_scores():
    # The score of 0.9 has earned 0.2: 0.1 + (0.9 - 0.8) / 0.2 · 0.2
    found = inspect(boxes(("scratches", 0.9, A)), calibration=rising([0.8, 1.0], [0.1, 0.3]))
    [box] = found.detections
    assert (box.score, box.probability) == (0.9, 0.2)
    assert (found.verdict, found.uncertainty) == ("accept", 0.4)
    assert found.reasons == ("nothing is likely (0.25 or more): the best is scratches 0.20",)


def test_what_a_verdict_does_not_rest_on_is_still_said():
    found = inspect(boxes(("scratches", 0.95, A), ("inclusion", 0.4, B)))
    assert found.verdict == "defect"
    assert found.reasons == (
        "scratches 0.95 is sure (0.75 or more)",
        "inclusion 0.40 is in doubt (0.25 to 0.75)",
    )


# --- masks -------------------------------------------------------------------------------------


def square(side: int, score: float = 0.99) -> Prediction:
    class_map = np.zeros((200, 200), np.uint8)
    class_map[20 : 20 + side, 30 : 30 + side] = 2
    return mask(class_map, np.full((200, 200), score), SEG)


def test_a_clear_region_is_a_defect_with_its_area_and_mask():
    found = inspect(square(40))
    assert (found.verdict, found.task) == ("defect", "segment")
    assert found.uncertainty == pytest.approx(0.0808, abs=1e-4)  # H(0.99) in bits
    assert found.reasons == ("1 region of defects, the largest patches of 1600 px at 0.99",)
    [region] = found.segments
    assert (region.label, region.area_px, region.box) == ("patches", 1600, (30, 20, 70, 60))
    assert found.mask is not None
    assert len(found.mask.counts) == 3
    assert class_map_from_record(found.mask).sum() == 2 * 1600


def test_a_blurred_outline_asks_for_a_person():
    found = inspect(square(40, score=0.75))
    assert (found.verdict, found.uncertainty) == ("review", 0.8113)
    assert set(found.reasons) == {
        "the outlines are blurred: 0.81 of 1",
        "a region may be missing, or be one too many: doubt 0.81 of 1",
    }


def test_an_unmarked_image_is_accepted():
    found = inspect(mask(np.zeros((200, 200)), np.full((200, 200), 0.999), SEG))
    assert (found.verdict, found.segments) == ("accept", ())
    assert found.reasons == ("no region of a defect is marked",)


def test_a_speck_is_shown_and_does_not_decide():
    # 20 px of 40 000 decide (0.0005); 16 do not.
    found = inspect(square(4), review_threshold=0.9)
    assert (found.verdict, len(found.segments)) == ("accept", 1)
    assert found.reasons[0] == "only specks are marked, the largest of 16 px: too few to decide"
    assert inspect(square(5), review_threshold=0.9).verdict == "defect"


def test_regions_below_the_score_threshold_are_left_out_of_the_list_not_of_the_mask():
    found = inspect(square(40), score_threshold=0.995)
    assert found.segments == ()
    assert class_map_from_record(found.mask).any()


def test_a_likely_region_is_never_hidden_silently():
    found = inspect(square(40), score_threshold=0.994)
    assert (found.verdict, found.segments) == ("review", ())
    assert found.reasons == (
        "patches of 1600 px is 0.990 probable but hidden: that is below the score threshold 0.994",
    )
    assert inspect(square(4), score_threshold=0.994).verdict == "accept"  # a speck decides nothing


def test_pixels_are_calibrated_before_regions_are_scored():
    found = inspect(square(40), calibration=rising([0.0, 1.0], [0.0, 0.5]))
    assert found.segments[0].score == pytest.approx(0.495)


def test_the_background_is_not_calibrated_by_the_curves_of_defects():
    unmarked = mask(np.zeros((200, 200)), np.full((200, 200), 0.95), SEG)
    found = inspect(unmarked, calibration=rising([0.0, 1.0], [0.0, 0.5]))
    assert found.uncertainty == pytest.approx(0.2864, abs=1e-4)  # H(0.95) in bits
    assert found.verdict == "accept"


def test_a_mask_of_specks_does_not_flood_the_answer():
    class_map = np.zeros((200, 200), np.uint8)
    class_map[::2, ::2] = 1  # 10 000 single pixels, each touching none
    found = inspect(mask(class_map, np.ones((200, 200)), SEG))
    assert len(found.segments) == MAX_SEGMENTS


# --- whole images ------------------------------------------------------------------------------


def test_a_leading_class_is_a_defect():
    found = inspect(classes(crazing=0.95, inclusion=0.03, patches=0.02))
    assert (found.verdict, found.uncertainty) == ("defect", 0.08)  # 1 - (0.95 - 0.03)
    assert found.reasons == ("crazing 0.95 leads inclusion 0.03",)
    assert found.probabilities == {"crazing": 0.95, "inclusion": 0.03, "patches": 0.02}


def test_two_close_classes_ask_for_a_person():
    found = inspect(classes(crazing=0.41, inclusion=0.48, patches=0.11))
    assert (found.verdict, found.uncertainty) == ("review", 0.93)
    assert found.reasons == ("inclusion 0.48 and crazing 0.41 are close",)


def test_temperature_cools_a_boastful_classifier():
    heat = {"kind": "temperature", "T": 2.0, "n": 9, "ece_before": 0.1, "ece_after": 0.0}
    found = inspect(classes(crazing=0.8, inclusion=0.2), calibration=heat)
    assert found.probabilities == {"crazing": 0.6667, "inclusion": 0.3333}
    assert found.verdict == "review"


def test_a_class_for_sound_steel_is_no_defect():
    found = inspect(classes(ok=0.95, inclusion=0.05))
    assert (found.verdict, found.reasons) == ("accept", ("ok 0.95 leads inclusion 0.05",))
    assert inspect(classes(ok=0.05, inclusion=0.95)).verdict == "defect"
    assert inspect(classes(ok=0.6, inclusion=0.4)).verdict == "review"


def test_a_classifier_of_one_class_is_sure():
    found = inspect(classes(crazing=1.0))
    assert (found.verdict, found.uncertainty) == ("defect", 0.0)
    assert found.reasons == ("crazing 1.00 is the only class",)


# --- all ---------------------------------------------------------------------------------------


def test_a_release_that_asks_later_does_so_for_its_own_doubts_alone():
    open_between_two = classes(crazing=0.6, inclusion=0.3, patches=0.1)  # 1 - (0.6 - 0.3) = 0.7
    assert inspect(open_between_two).verdict == "review"
    found = inspect(open_between_two, ask_from=0.701)
    assert (found.verdict, found.uncertainty) == ("defect", 0.7)
    assert inspect(open_between_two, ask_from=0.699).verdict == "review"
    assert inspect(open_between_two, ask_from=0.701, novelty=0.99).verdict == "review"
    assert inspect(open_between_two, ask_from=0.701, review_threshold=0.6).verdict == "review"


def test_an_image_unlike_anything_seen_asks_for_a_person_however_sure_the_model_is():
    # Further than 198 of 199 ordinary images and one more place: 198 / 200. 1 - 0.01 / 0.02 = 0.5.
    found = inspect(boxes(("scratches", 0.99, A)), novelty=0.99)
    assert (found.verdict, found.uncertainty) == ("review", 0.5)
    assert found.reasons == (
        "unlike anything seen in training: further from it than 99.0 % of ordinary images",
    )


@pytest.mark.parametrize("novelty", [None, 0.0, 0.6, 0.985])
def test_the_novelty_of_an_ordinary_image_is_no_reason(novelty):
    found = inspect(boxes(("scratches", 0.99, A)), novelty=novelty)
    assert found.verdict == "defect"
    assert not any("unlike" in reason for reason in found.reasons)


def test_identity_and_latency_come_from_the_prediction():
    found = inspect(boxes())
    assert (found.model, found.revision, found.latency_ms) == ("grace", "abcabcabcabc", 12.35)
    assert found.image.model_dump() == {"sha256": "0" * 64, "width": 200, "height": 200}
    assert found.review_item is None


@pytest.mark.parametrize("name", ["review_threshold", "score_threshold"])
def test_a_threshold_outside_0_to_1_is_refused(name):
    with pytest.raises(InputError, match=r"threshold is 1.5; it must lie in \[0, 1\]"):
        inspect(boxes(), **{name: 1.5})


def test_a_calibration_of_another_task_is_refused():
    with pytest.raises(WeightsError, match="kind 'temperature'"):
        inspect(classes(crazing=1.0), calibration=rising([0, 1], [0, 1]))


@pytest.mark.parametrize(
    "prediction",
    [
        Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), (), SEEN
        ),
        mask(np.zeros((1, 1)), np.full((1, 1), 0.2), SEG),
        Classification(np.full(6, 1 / 6, np.float32), tuple("abcdef"), SEEN),
    ],
    ids=["no labels", "one pixel", "uniform"],
)
def test_every_answer_is_json_within_range_and_has_a_reason(prediction):
    found = inspect(prediction)
    assert Inspection.model_validate_json(found.model_dump_json()) == found
    assert 0 <= found.uncertainty <= 1
    assert found.reasons
