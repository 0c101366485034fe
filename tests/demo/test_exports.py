"""Files to take away, and the source that is offered."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from core.pitch import PixelPitch
from core.scratch import scratch
from demo import source
from demo.draw import Layers, sheet
from demo.exports import Exports, as_csv, encode, encode_comparison, file_name
from demo.handlers import Compared
from tests.demo.inspections import (
    LABELS,
    classification,
    detection,
    picture,
    segmentation,
    tolerated,
)

SCRATCH = detection(("scratches", 0.93456, (12.3456, 3, 40, 99)))


def test_csv_has_one_line_a_finding() -> None:
    assert as_csv(SCRATCH) == (
        "number,class,probability,x1,y1,x2,y2,area_px\n1,scratches,0.9346,12.35,3.0,40.0,99.0,\n"
    )


def test_csv_of_a_mask_has_areas_and_of_a_classifier_no_boxes() -> None:
    assert as_csv(segmentation()).splitlines()[1] == "1,scratches,0.9,10.0,20.0,50.0,40.0,800"
    assert as_csv(classification(patches=0.97)).splitlines()[1] == "1,patches,0.97,,,,,"


def test_csv_says_what_may_stay_where_there_are_rules() -> None:
    two = detection(("scratches", 0.9, (10, 20, 30, 60)), ("patches", 0.8, (0, 5, 9, 8)))
    one_stays = tolerated(two, 0, verdict="defect")
    assert as_csv(one_stays, ruled=True).splitlines() == [
        "number,class,probability,x1,y1,x2,y2,area_px,tolerated",
        "1,scratches,0.9,10.0,20.0,30.0,60.0,,yes",
        "2,patches,0.8,0.0,5.0,9.0,8.0,,",
    ]
    [head, first, _] = as_csv(one_stays, PixelPitch(0.1, 0.1), ruled=True).splitlines()
    assert head.endswith("area_px,width_mm,height_mm,area_mm2,tolerated")  # mm where they were
    assert first == "1,scratches,0.9,10.0,20.0,30.0,60.0,,2.0,4.0,,yes"
    assert as_csv(one_stays) == as_csv(two)  # without rules nothing is told
    data = encode("csv", picture(), one_stays, labels=LABELS, layers=Layers(), ruled=True)
    assert data.decode() == as_csv(one_stays, ruled=True)


def test_json_is_the_answer_of_the_api() -> None:
    data = encode("json", picture(), SCRATCH, labels=LABELS, layers=Layers())
    assert json.loads(data) == SCRATCH.model_dump(mode="json")


def test_png_is_the_sheet_pixel_for_pixel() -> None:
    data = encode("png", picture(), SCRATCH, labels=LABELS, layers=Layers())
    page = sheet(picture(), SCRATCH, labels=LABELS)
    with PillowImage.open(io.BytesIO(data)) as image:
        assert (np.asarray(image) == page).all()


MASK = segmentation()
BOTH = Compared(
    path="cached",
    name="plate.png",
    inspections=(SCRATCH, MASK),
    titles=("GRACE", "SME"),
    labels=(LABELS, LABELS),
    committee={"disagreement": 0.5, "reasons": [], "sentence": "Both see scratches."},
)


def test_csv_of_a_comparison_says_which_model_found_what() -> None:
    data = encode_comparison("csv", picture(), BOTH).decode().splitlines()
    assert data == [
        "model,number,class,probability,x1,y1,x2,y2,area_px",
        f"{SCRATCH.model},1,scratches,0.9346,12.35,3.0,40.0,99.0,",
        f"{MASK.model},1,scratches,0.9,10.0,20.0,50.0,40.0,800",
    ]


def test_csv_of_a_comparison_says_what_may_stay_where_there_are_rules() -> None:
    stays = tolerated(detection(("scratches", 0.9, (10, 20, 30, 60))), 0)
    both = Compared("cached", "a.png", (stays, MASK), ("GRACE", "SME"), (LABELS, LABELS), {})
    assert encode_comparison("csv", picture(), both, ruled=True).decode().splitlines() == [
        "model,number,class,probability,x1,y1,x2,y2,area_px,tolerated",
        f"{stays.model},1,scratches,0.9,10.0,20.0,30.0,60.0,,yes",
        f"{MASK.model},1,scratches,0.9,10.0,20.0,50.0,40.0,800,",
    ]


def test_json_of_a_comparison_is_the_answer_of_the_api() -> None:
    assert json.loads(encode_comparison("json", picture(), BOTH)) == {
        "inspections": [seen.model_dump(mode="json") for seen in (SCRATCH, MASK)],
        "committee": BOTH.committee,
    }


def test_png_of_a_comparison_has_the_models_side_by_side() -> None:
    data = encode_comparison("png", picture(), BOTH)
    masks = Layers(boxes=False, mask=True, names=True)
    first = sheet(picture(), SCRATCH, labels=LABELS, max_side_px=800)
    second = sheet(picture(), MASK, labels=LABELS, layers=masks, max_side_px=800)
    with PillowImage.open(io.BytesIO(data)) as image:
        row = np.asarray(image)
    assert row.shape[0] == max(len(first), len(second))
    assert (row[: len(first), : first.shape[1]] == first).all()
    assert (row[: len(second), -second.shape[1] :] == second).all()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("plate 7.jpg", "plate_7_grace.png", id="blank"),
        pytest.param("../../etc/<b>.png", "_b__grace.png", id="hostile"),
        pytest.param("钢板.jpg", "___grace.png", id="not ASCII"),
        pytest.param("", "picture_grace.png", id="empty"),
    ],
)
def test_file_names_are_harmless(name: str, expected: str) -> None:
    assert file_name(name, "grace", "png") == expected


def test_old_files_are_forgotten() -> None:
    exports = Exports()
    paths = [exports.write("a.csv", b"x") for _ in range(17)]
    assert [path.exists() for path in paths] == [False, *[True] * 16]


def test_files_lie_where_no_other_user_looks_and_go_with_the_app() -> None:
    assert Exports().write("a.csv", b"x").is_relative_to(scratch())


def test_the_offered_source_holds_this_code_and_its_licence() -> None:
    with tarfile.open(fileobj=io.BytesIO(source.archive())) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"LICENSE", "app.py", "demo/source.py", "core/types.py", "requirements.txt"} <= names


def test_the_offered_source_holds_no_weights_settings_or_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".env", "core/a.py", "hub/bundled/x/model.safetensors", "data/b.py", "core/k.pem"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    monkeypatch.setattr(source, "ROOT", tmp_path)
    assert [str(path.relative_to(tmp_path)) for path in source.files()] == ["core/a.py"]
