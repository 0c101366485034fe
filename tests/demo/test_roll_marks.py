"""What comes again along a strip is told above the findings."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client, handle_file
from PIL import Image as Pillow
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.pitch import PixelPitch
from core.records import Box, FoundBox, FoundSegment, ImageFacts, Inspection, MaskRLE
from core.settings import ServingSettings
from demo import batch_markup, markup
from demo.batch_exports import batch_coco
from demo.batch_jobs import Progress
from demo.batch_report import batch_report
from demo.batch_store import Answer, BatchStore
from demo.direct import Direct
from demo.roll_marks import coming_again, coming_again_in, repeats_of, with_repeats
from tests.demo import fakes
from tests.demo.inspections import LABELS, detection
from tests.demo.strip_api import FOUND, PLACES, SCORES, strip_service
from tests.demo.test_batches import by_hand

IN_PX = (
    "Inclusion again every 1,000 ± 1 px along the strip, at 4 of 5 places (at 100; 1,100; 2,100; "
    "4,100 px). A damaged roll leaves such marks."
)


def _box(along: float, *, lies: bool = False) -> Box:
    """20 px along the strip, 30 px across it."""
    if lies:
        return (along - 10, 85, along + 10, 115)
    return (85, along - 10, 115, along + 10)


def strip(*places: float, width: int = 200, height: int = 4200, lies: bool = False) -> Inspection:
    found = tuple(
        FoundBox(label="inclusion", score=p, probability=p, box=_box(y, lies=lies))
        for p, y in zip(SCORES, places, strict=False)
    )
    return detection().model_copy(
        update={
            "detections": found,
            "image": ImageFacts(sha256="f" * 64, width=width, height=height),
        }
    )


@pytest.mark.parametrize(
    ("inspection", "pitch", "told"),
    [
        pytest.param(strip(*PLACES), None, (IN_PX,), id="px"),
        pytest.param(
            strip(*PLACES, width=4200, height=200, lies=True), None, (IN_PX,), id="a lying strip"
        ),
        pytest.param(
            strip(*PLACES),
            PixelPitch(0.1, 0.5),  # 500 mm a turn: 159 mm across
            (
                "Inclusion again every 500 ± 1 mm along the strip, at 4 of 5 places (at 100; "
                "1,100; 2,100; 4,100 px). A damaged roll leaves such marks; one of 159 mm in "
                "diameter turns once in that.",
            ),
            id="mm",
        ),
        pytest.param(strip(100, 1100, 2400, 3300), None, (), id="at no equal distances"),
        pytest.param(strip(*PLACES, width=2101), None, (), id="less than twice as long as wide"),
    ],
)
def test_what_comes_again_is_told_with_its_distance(
    inspection: Inspection, pitch: PixelPitch | None, told: tuple[str, ...]
) -> None:
    assert coming_again(inspection, pitch) == told


def test_places_are_told_along_the_strip_whatever_is_most_probable() -> None:
    [told] = coming_again(strip(*reversed(PLACES)))
    assert told == IN_PX


def test_no_more_than_twelve_places_are_listed() -> None:
    boxes = tuple(
        FoundBox(label="inclusion", score=0.9, probability=0.9, box=_box(100 + 500 * k))
        for k in range(14)
    )
    image = ImageFacts(sha256="f" * 64, width=200, height=7000)
    [told] = coming_again(detection().model_copy(update={"detections": boxes, "image": image}))
    assert "at 14 of 14 places (at 100; 600; " in told
    assert told.endswith("; 5,600 … px). A damaged roll leaves such marks.")


def test_it_stands_above_the_table_and_nowhere_else() -> None:
    shown = markup.findings_table(strip(*PLACES), can_pick=True)
    assert shown.startswith(f'<p class="again">{IN_PX}</p><div class="scroll"')
    once: Any = detection(("inclusion", 0.9, (10, 20, 50, 40)))
    assert 'class="again"' not in markup.findings_table(once, can_pick=True)


@pytest.mark.parametrize(
    ("inspection", "pitch", "axis", "distance_mm", "diameter_mm"),
    [
        pytest.param(strip(*PLACES), None, "y", None, None, id="px"),
        # 1,000 px of 0.5 mm each; 500 mm / π
        pytest.param(strip(*PLACES), PixelPitch(0.1, 0.5), "y", 500, 159.155, id="mm"),
        pytest.param(
            strip(*PLACES, width=4200, height=200, lies=True),
            PixelPitch(0.1, 0.5),
            *("x", 100, 31.831),
            id="a lying strip",
        ),
    ],
)
def test_an_answer_carries_what_comes_again(
    inspection: Inspection,
    pitch: PixelPitch | None,
    axis: str,
    distance_mm: float | None,
    diameter_mm: float | None,
) -> None:
    """Six pairs are alike, each is tried with two margins, both of 10 px.

    Two others in 4,200 px: p = 1 - (1 - 20/4200)² = 9.5011e-3. Three places are tried (-900 lies
    before the strip) and two hold a mark: 12 · (3 p² (1 - p) + p³) = 3.2291e-3.
    """
    [found] = with_repeats(inspection, pitch).model_dump(mode="json")["repeats"]
    assert found.pop("deviation_px") == pytest.approx(0, abs=1e-6)
    assert found.pop("false_alarms") == pytest.approx(3.2291e-3, rel=1e-3)
    assert found == {
        "label": "inclusion",
        "axis": axis,
        "distance_px": 1000,
        "distance_mm": distance_mm,
        "diameter_mm": diameter_mm,
        "places": 5,
        "findings": [0, 1, 2, 3],
    }


def test_findings_are_counted_as_the_answer_lists_them() -> None:
    """Along the strip, whatever is most probable; those of no series are counted, too."""
    answer = strip(*PLACES)
    first, *others = reversed(answer.detections)
    mixed = (first, answer.detections[0].model_copy(update={"label": "patches"}), *others)
    [found] = repeats_of(answer.model_copy(update={"detections": mixed}))
    assert found.findings == (4, 3, 2, 0)


def test_regions_of_a_mask_come_again_too() -> None:
    answer = strip(*PLACES)
    segments = tuple(
        FoundSegment(label=d.label, area_px=600, box=d.box, score=0.9) for d in answer.detections
    )
    masked = answer.model_copy(
        update={"task": "segment", "detections": (), "segments": segments[::-1]}
    )
    [found] = repeats_of(masked)
    assert (found.label, found.distance_px, found.findings) == ("inclusion", 1000, (3, 2, 1, 0))


def test_where_nothing_comes_again_an_answer_is_what_it_always_was() -> None:
    once = strip(100, 1100, 2400, 3300)
    assert with_repeats(once) is once
    assert "repeats" not in once.model_dump(mode="json")
    assert '"repeats"' not in once.model_dump_json()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    command = [sys.executable, "-m", "tests.demo.strip_api", str(tmp_path_factory.mktemp("strip"))]
    env = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            assert process.stdout is not None
            client = Client(process.stdout.readline().strip(), verbose=False, download_files=False)
            yield client
            client.close()
        finally:
            process.kill()


def _grey(width: int) -> bytes:
    file = io.BytesIO()
    Pillow.new("L", (width, 4200), 120).save(file, "PNG")
    return file.getvalue()


def test_programs_are_told_what_comes_again(api: Client, tmp_path: Path) -> None:
    (tmp_path / "strip.png").write_bytes(_grey(200))
    answer = api.predict(handle_file(str(tmp_path / "strip.png")), api_name="/inspect")
    assert Inspection.model_validate(answer).repeats[0].distance_mm == 500
    [found] = answer["repeats"]
    assert found.pop("false_alarms") == pytest.approx(3.2291e-3, rel=1e-3)
    assert found.pop("deviation_px") == pytest.approx(0, abs=1e-6)
    assert found == {
        "label": "scratches",
        "axis": "y",
        "distance_px": 1000,
        "distance_mm": 500,
        "diameter_mm": 159.155,
        "places": 5,
        "findings": [0, 1, 2, 3],
    }
    edges = [answer["detections"][k]["box"][1] for k in found["findings"]]
    assert edges == [90, 1090, 2090, 4090]


def test_a_comparison_tells_it_of_each_model(api: Client, tmp_path: Path) -> None:
    """Of two detectors; a classifier has no places."""
    (tmp_path / "strip.png").write_bytes(_grey(200))
    answer = api.predict(handle_file(str(tmp_path / "strip.png")), api_name="/compare")
    told = {seen["model"]: len(seen.get("repeats", ())) for seen in answer["inspections"]}
    assert told == {"da_yolo": 1, "grace": 1, "mobilesteelnet": 0}


def test_a_picture_that_is_no_strip_is_answered_as_ever(api: Client, tmp_path: Path) -> None:
    (tmp_path / "plate.png").write_bytes(_grey(2200))
    answer = api.predict(handle_file(str(tmp_path / "plate.png")), api_name="/inspect")
    assert len(answer["detections"]) == 4
    assert "repeats" not in answer


@pytest.mark.usefixtures("loader")
def test_one_request_tells_what_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fakes, "FOUND", FOUND)
    direct = Direct(strip_service(tmp_path), ServingSettings(), at_once=1)
    with TestClient(Starlette(routes=direct.routes())) as caller:
        kind = {"Content-Type": "image/png"}
        answer = caller.post("/v1/inspect", content=_grey(200), headers=kind).json()
    [found] = answer["repeats"]
    assert (found["label"], found["distance_mm"]) == ("scratches", 500)


def frames(*places: float) -> list[Inspection]:
    """Pictures of 200 × 300 px, as many as hold all places, with inclusions there."""
    seen = []
    for k in range(int(max(places) // 300) + 1):
        found = [strip(y - 300 * k, height=300) for y in places if y // 300 == k]
        seen.append(found[0] if found else strip(height=300))
    return seen


IN_PICTURES = (
    "Inclusion again every 750 ± 1 px along the strip, at 4 of 5 places (in pictures 1, 3, 6, 11). "
    "A damaged roll leaves such marks."
)


def test_pictures_that_follow_each_other_are_one_strip() -> None:
    """At 100, 850, 1600 and 3100 px, in pictures of 300 px."""
    assert coming_again_in(frames(100, 850, 1600, 3100)) == (IN_PICTURES,)
    [told] = coming_again_in(frames(100, 850, 1600, 3100), PixelPitch(0.1, 0.5))
    assert told.startswith("Inclusion again every 375 ± 1 mm along the strip")
    assert told.endswith("one of 119 mm in diameter turns once in that.")


def test_pictures_with_a_defect_in_the_middle_of_each_are_no_strip() -> None:
    assert coming_again_in(frames(*range(150, 3000, 300))) == ()


def test_pictures_of_several_sizes_or_two_of_them_are_no_strip() -> None:
    several = frames(100, 850, 1600, 3100)
    image = ImageFacts(sha256="f" * 64, width=201, height=300)
    several[4] = several[4].model_copy(update={"image": image})
    assert coming_again_in(several) == ()
    assert coming_again_in([strip(100, 400, 700, height=1000)] * 2) == ()


def progress(*inspections: Inspection | None, state: str = "done") -> Progress:
    given = by_hand()
    answers = {
        k: Answer(index=k, inspection=seen, labels=LABELS, error=None if seen else "Damaged.")
        for k, seen in enumerate(inspections)
    }
    job = given.job.model_copy(
        update={"names": [f"{k}.png" for k in range(len(answers))], "state": state}
    )
    return Progress(job=job, answers=answers, seconds_left=None)


def test_a_batch_tells_it_under_the_condition_that_its_pictures_follow_each_other(
    tmp_path: Path,
) -> None:
    seen = frames(100, 850, 1600, 3100)
    shown = batch_markup.classes(progress(*seen))
    assert shown.endswith(
        '<p class="again">If these pictures follow each other down the strip as they came: '
        f"{IN_PICTURES}</p>"
    )
    store = BatchStore(tmp_path)
    report = batch_report(progress(*seen), store)
    assert (
        f"<p>If these pictures follow each other down the strip as they came: {IN_PICTURES}</p>"
        in report
    )
    assert "again every 750 ± 1 mm" in batch_report(progress(*seen), store, PixelPitch(1, 1))
    unfinished = batch_markup.classes(progress(*seen, state="running"))
    damaged = batch_markup.classes(progress(*seen[:5], None, *seen[6:]))
    assert 'class="again"' not in unfinished + damaged


def test_coco_lists_what_comes_again_over_the_pictures() -> None:
    """At 100, 850, 1600 and 3100 px of pictures 300 px high: in the 1st, 3rd, 6th and 11th."""
    seen = frames(100, 850, 1600, 3100)
    [found] = batch_coco(progress(*seen), PixelPitch(0.1, 0.5))["repeats"]
    assert found.pop("false_alarms") < 0.01
    assert found.pop("deviation_px") == pytest.approx(0, abs=1e-6)
    assert found == {
        "label": "inclusion",
        "axis": "y",
        "distance_px": 750,
        "distance_mm": 375,
        "diameter_mm": 119.366,
        "places": 5,
        "over_images": True,
        "findings": [
            {"image_id": 1, "annotation_id": 1, "bbox": [85, 90, 30, 20]},
            {"image_id": 3, "annotation_id": 2, "bbox": [85, 240, 30, 20]},
            {"image_id": 6, "annotation_id": 3, "bbox": [85, 90, 30, 20]},
            {"image_id": 11, "annotation_id": 4, "bbox": [85, 90, 30, 20]},
        ],
    }
    assert "repeats" not in batch_coco(progress(*seen, state="running"))


def test_coco_lists_what_comes_again_in_one_picture() -> None:
    """Regions of a mask share the annotation of their class."""
    boxes, other = strip(*PLACES), detection(("inclusion", 0.9, (10, 20, 50, 40)))
    segments = tuple(
        FoundSegment(label=d.label, area_px=600, box=d.box, score=0.9) for d in boxes.detections
    )
    mask = MaskRLE(size=(4200, 200), counts=("", "", ""))
    masked = boxes.model_copy(
        update={"task": "segment", "detections": (), "segments": segments, "mask": mask}
    )
    document = batch_coco(progress(other, None, boxes, masked))
    found = [
        [(f["image_id"], f["annotation_id"]) for f in each["findings"]]
        for each in document["repeats"]
    ]
    assert found == [[(3, 2), (3, 3), (3, 4), (3, 5)], [(4, 6)] * 4]
    assert [each["over_images"] for each in document["repeats"]] == [False, False]
    assert {a["id"]: a["image_id"] for a in document["annotations"]} == {
        **{1: 1, 2: 3, 3: 3, 4: 3, 5: 3},
        6: 4,
    }
