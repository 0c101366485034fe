"""What may stay: sizes by hand, the verdict, what a rule file may say."""

from __future__ import annotations

from pathlib import Path

import pytest

from active_learning.inspection import MAX_SEGMENTS
from active_learning.tolerance import Limit, Tolerances, read_tolerances
from core.errors import ConfigError
from core.pitch import PixelPitch
from core.records import Box, FoundBox, FoundSegment, ImageFacts, Inspection, Verdict

HALF_MM = PixelPitch(0.5, 0.5)
UP_TO_5_MM = Limit(up_to_mm=5)
SHORT, LONG = (50.0, 50.0, 54.0, 60.0), (50.0, 50.0, 54.0, 61.0)  # 10 px are 5 mm, 11 are 5.5


def seen(
    *found: tuple[str, float, Box], verdict: Verdict = "defect", reasons: tuple[str, ...] = ()
) -> Inspection:
    """What a detector says about 200 × 100 px."""
    boxes = tuple(FoundBox(label=n, score=p, probability=p, box=box) for n, p, box in found)
    return Inspection(
        model="grace",
        revision="0" * 12,
        task="detect",
        image=ImageFacts(sha256="0" * 64, width=200, height=100),
        detections=boxes,
        uncertainty=0.1,
        verdict=verdict,
        reasons=reasons,
        latency_ms=1.0,
    )


def staying(inspection: Inspection) -> list[bool]:
    return [found.tolerated for found in (*inspection.detections, *inspection.segments)]


def test_a_finding_as_long_as_the_limit_may_stay_and_a_longer_one_is_a_defect() -> None:
    rules = Tolerances({"scratches": UP_TO_5_MM}, HALF_MM)
    short = rules.judge(seen(("scratches", 0.9, SHORT), reasons=("scratches 0.90 is sure",)))
    assert (short.verdict, staying(short)) == ("accept", [True])
    assert short.reasons == (
        "scratches: 1 of 1 place within the tolerance of 5 mm",
        "scratches 0.90 is sure",
    )
    long = rules.judge(seen(("scratches", 0.9, LONG)))
    assert (long.verdict, staying(long), long.reasons) == ("defect", [False], ())
    both = rules.judge(seen(("scratches", 0.9, LONG), ("scratches", 0.8, SHORT)))
    assert (both.verdict, staying(both)) == ("defect", [False, True])
    assert both.reasons == ("scratches: 1 of 2 places within the tolerance of 5 mm",)


def test_the_two_directions_of_a_line_scan_camera_are_measured_each_by_its_own_pitch() -> None:
    rules = Tolerances({"scratches": UP_TO_5_MM}, PixelPitch(across_mm=0.1, down_mm=1.0))
    lying = rules.judge(seen(("scratches", 0.9, (20, 20, 70, 25))))  # 5 × 5 mm
    assert lying.verdict == "accept"
    assert rules.judge(seen(("scratches", 0.9, (20, 20, 25, 26)))).verdict == "defect"  # 6 mm


def test_a_class_without_a_limit_is_a_defect_at_any_size() -> None:
    rules = Tolerances({"scratches": Limit(up_to_px=50)})
    said = rules.judge(seen(("scratches", 0.9, SHORT), ("crazing", 0.9, (20, 20, 22, 22))))
    assert (said.verdict, staying(said)) == ("defect", [True, False])
    assert said.reasons == ("scratches: 1 of 1 place within the tolerance of 50 px",)


def test_more_places_than_may_be_are_a_defect_all_of_them() -> None:
    rules = Tolerances({"scratches": Limit(up_to_px=10, at_most=2)})
    places = [("scratches", 0.9, (x, 50.0, x + 8, 55.0)) for x in (20.0, 60.0, 100.0)]
    two, three = rules.judge(seen(*places[:2])), rules.judge(seen(*places))
    assert (two.verdict, staying(two)) == ("accept", [True, True])
    assert (three.verdict, staying(three)) == ("defect", [False] * 3)
    assert three.reasons == ("scratches: 3 places within 10 px, only 2 may be",)
    # What is in doubt makes no defect and is not counted.
    doubtful = rules.judge(seen(*places[:2], ("scratches", 0.4, (100, 50, 108, 55))))
    assert (doubtful.verdict, staying(doubtful)) == ("accept", [True, True, False])


@pytest.mark.parametrize(
    "box",
    [(2, 50, 8, 55), (50, 1, 56, 7), (192, 50, 198, 55), (50, 92, 56, 98)],
    ids=["left", "top", "right", "bottom"],
)
def test_what_the_edge_of_the_picture_cuts_off_is_a_defect(box: Box) -> None:
    rules = Tolerances({"scratches": Limit(up_to_px=10)})
    said = rules.judge(seen(("scratches", 0.9, box)))
    assert (said.verdict, staying(said)) == ("defect", [False])
    assert said.reasons == ("scratches: 1 place cut off by the picture's edge, size not known",)
    inside = tuple(50.0 + edge - box[k % 2] for k, edge in enumerate(box))
    assert rules.judge(seen(("scratches", 0.9, inside))).verdict == "accept"


def test_a_doubt_is_still_a_persons_and_comes_first() -> None:
    rules = Tolerances({"scratches": Limit(up_to_px=10)})
    asked = seen(("scratches", 0.9, SHORT), verdict="review", reasons=("crazing 0.50 is in doubt",))
    said = rules.judge(asked)
    assert (said.verdict, staying(said)) == ("review", [True])
    assert said.reasons[0] == "crazing 0.50 is in doubt"


def test_regions_of_a_mask_are_judged_like_boxes_and_specks_decide_nothing() -> None:
    picture = seen()
    regions = (
        FoundSegment(label="patches", area_px=60, box=(20, 20, 30, 30), score=0.9),
        FoundSegment(label="patches", area_px=9, box=(60, 60, 63, 63), score=0.9),  # of 20,000: 10
    )
    masks = picture.model_copy(update={"task": "segment", "segments": regions})
    said = Tolerances({"patches": Limit(up_to_px=10)}).judge(masks)
    assert (said.verdict, staying(said)) == ("accept", [True, False])
    assert said.reasons == ("patches: 1 of 1 place within the tolerance of 10 px",)


def test_a_picture_of_which_not_all_regions_are_listed_is_a_defect() -> None:
    region = FoundSegment(label="patches", area_px=60, box=(20, 20, 30, 30), score=0.9)
    rules = Tolerances({"patches": Limit(up_to_px=10)})
    whole = seen().model_copy(update={"segments": (region,) * (MAX_SEGMENTS - 1)})
    assert rules.judge(whole).verdict == "accept"
    cut = seen().model_copy(update={"segments": (region,) * MAX_SEGMENTS})
    assert rules.judge(cut) is cut


def test_an_answer_without_a_size_stays_as_it_is() -> None:
    rules = Tolerances({"scratches": Limit(up_to_px=1000)})
    whole = seen().model_copy(update={"task": "classify", "probabilities": {"scratches": 0.9}})
    assert rules.judge(whole) is whole
    nothing = seen(verdict="accept")
    assert rules.judge(nothing) is nothing


def test_what_may_stay_is_written_only_where_it_does() -> None:
    said = Tolerances({"scratches": Limit(up_to_px=10)}).judge(
        seen(("scratches", 0.9, SHORT), ("scratches", 0.8, LONG))
    )
    first, second = said.model_dump(mode="json")["detections"]
    assert first["tolerated"] is True
    assert set(second) == {"label", "score", "probability", "box"}
    assert Inspection.model_validate_json(said.model_dump_json()) == said


def test_a_rule_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "tolerances.toml"
    file.write_text(
        "[scratches]\nup_to_mm = 5\nat_most = 3\n['rolled-in_scale']\nup_to_px = 12.5\n"
    )
    rules = read_tolerances(file, HALF_MM)
    assert rules is not None
    assert rules.labels == ("scratches", "rolled-in_scale")
    assert rules.judge(seen(("scratches", 0.9, SHORT))).verdict == "accept"
    assert rules.judge(seen(("rolled-in_scale", 0.9, (20, 20, 33, 33)))).verdict == "defect"
    assert read_tolerances(None, None) is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(
            "[scratches]\nup_to_mm = -1",
            r"wrong at scratches\.up_to_mm: Input should be greater than 0; a class has up_to_mm",
            id="negative",
        ),
        pytest.param("scratches = 5", r"wrong at scratches: Input should be a valid", id="bare"),
        pytest.param("[scratches]\nat_most = 2", r"either up_to_mm or up_to_px", id="no size"),
        pytest.param(
            "[scratches]\nup_to_mm = 1\nup_to_px = 1",
            r"either up_to_mm or up_to_px",
            id="two sizes",
        ),
        pytest.param(
            "[scratches]\nup_to_m = 1", r"scratches\.up_to_m: Extra inputs", id="misspelt"
        ),
        pytest.param(
            "[scratches]\nup_to_px = nan", r"should be a finite number", id="not a number"
        ),
        pytest.param("[scratches", r"are no TOML: ", id="no TOML"),
        pytest.param("[scratches]\nup_to_mm = 5", r"MM_PER_PX does not say", id="no pitch"),
    ],
)
def test_a_rule_file_that_says_nothing_clear_is_refused(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = tmp_path / "tolerances.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence) as caught:
        read_tolerances(file, None)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_rule_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file or directory\."):
        read_tolerances(tmp_path / "none.toml", None)
    with pytest.raises(ConfigError, match=r"Is a directory\."):
        read_tolerances(tmp_path, None)
