"""Sizes in millimetres where it is known how much steel one pixel shows."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from core.pitch import PixelPitch
from core.records import Box
from core.settings import PathSettings, ServingSettings, Settings
from demo import batch_markup, markup
from demo.batch_exports import batch_csv
from demo.batch_view import rows
from demo.drawing import DrawingPanel
from demo.exports import Exports, as_csv, encode_comparison
from demo.handlers import Compared
from demo.service import Service
from demo.tabs import batch, compare, inspect
from demo.words import area, size
from tests.demo.inspections import LABELS, classification, detection, picture, segmentation
from tests.demo.releases import PICTURE, write
from tests.demo.test_batches import by_hand

# A line-scan camera: 0.1 mm from pixel to pixel of a line, 0.25 mm from line to line.
PITCH = PixelPitch(0.1, 0.25)
ANNA: Any = SimpleNamespace(session_hash="anna")


@pytest.mark.parametrize(
    ("serving", "pitch"),
    [
        pytest.param({}, None, id="not known"),
        pytest.param({"mm_per_px": 0.1}, PixelPitch(0.1, 0.1), id="square"),
        pytest.param({"mm_per_px": 0.1, "mm_per_px_down": 0.25}, PITCH, id="line-scan"),
    ],
)
def test_the_pitch_comes_from_the_settings(
    serving: dict[str, float], pitch: PixelPitch | None
) -> None:
    assert ServingSettings(**serving).pitch == pitch


def test_a_pitch_down_alone_is_refused() -> None:
    with pytest.raises(ValidationError, match="ROLLMARK_SERVING__MM_PER_PX is not"):
        ServingSettings(mm_per_px_down=0.25)


@pytest.mark.parametrize(
    ("box", "text"),
    [
        pytest.param((10, 20, 50, 40), "4.0 × 5.0 mm", id="40 by 20 px"),
        pytest.param((0, 0, 200, 99), "20 × 25 mm", id="whole numbers from ten on"),
        pytest.param((0, 0, 12_000, 39.8), "1,200 × 10 mm", id="9.95 is written as ten"),
        pytest.param((0, 0, 0.5, 2.6), "0.050 × 0.65 mm", id="two digits below"),
    ],
)
def test_a_size_is_told_in_millimetres(box: Box, text: str) -> None:
    assert size(box, PITCH) == text


def test_an_area_is_told_in_square_millimetres() -> None:
    assert area(800) == "800 px²"
    assert area(800, PITCH) == "20 mm²"  # 800 × 0.1 × 0.25
    assert area(80, PITCH) == "2.0 mm²"


def test_the_table_of_findings_has_millimetres() -> None:
    shown = markup.findings_table(segmentation(), can_pick=True, pitch=PITCH)
    assert "<span>4.0 × 5.0 mm</span> <span>(20 mm²)</span>" in shown  # each stays whole
    assert "x1, y1, x2, y2 in px: 10, 20, 50, 40" in shown  # of the picture, as in every file
    in_px = markup.findings_table(segmentation(), can_pick=True)
    assert "<span>40 × 20 px</span> <span>(800 px²)</span>" in in_px


def test_millimetres_stand_at_the_end_of_each_line_of_a_csv() -> None:
    head, mask = as_csv(segmentation(), PITCH).splitlines()
    assert head.endswith(",x1,y1,x2,y2,area_px,width_mm,height_mm,area_mm2")
    assert mask == "1,scratches,0.9,10.0,20.0,50.0,40.0,800,4.0,5.0,20.0"
    [_, box] = as_csv(detection(("scratches", 0.9, (0, 0, 33.333, 40))), PITCH).splitlines()
    assert box == "1,scratches,0.9,0.0,0.0,33.33,40.0,,3.333,10.0,"
    [_, named] = as_csv(classification(patches=0.97), PITCH).splitlines()
    assert named == "1,patches,0.97,,,,,,,,"


def test_millimetres_stand_at_the_end_of_each_line_of_a_batch_s_csv() -> None:
    head, clean, scratched, _, broken, mask = csv.reader(batch_csv(by_hand(), PITCH).splitlines())
    assert head[-4:] == ["error", "width_mm", "height_mm", "area_mm2"]
    assert {len(line) for line in (head, clean, scratched, broken, mask)} == {16}
    assert scratched[-3:] == ["2.0", "10.0", ""]
    assert mask[-3:] == ["4.0", "5.0", "20.0"]
    assert broken[-4:] == ["It is damaged inside its archive.", "", "", ""]


def test_the_comparison_s_csv_has_them_too() -> None:
    both = Compared("cached", "a.png", (segmentation(),), ("SME",), (LABELS,), {})
    head, line = encode_comparison("csv", picture(), both, PITCH).decode().splitlines()
    assert head.endswith("area_px,width_mm,height_mm,area_mm2")
    assert line.endswith(",800,4.0,5.0,20.0")


@pytest.fixture(scope="module")
def measuring(tmp_path_factory: pytest.TempPathFactory) -> Service:
    """An app of which it is known that a pixel shows 0.5 mm, and what may stay."""
    root = tmp_path_factory.mktemp("millimetres")
    write(root / "bundled" / "grace", "grace")
    paths = PathSettings(bundled=root / "bundled", data=root / "data")
    rules = root / "tolerances.toml"
    rules.write_text("[scratches]\nup_to_mm = 5\n")
    serving = ServingSettings(runtime="torch", mm_per_px=0.5, tolerances=rules)
    return Service(Settings(paths=paths, serving=serving))


def _downloaded(button: Any) -> str:
    return Path(
        button.value["path"] if isinstance(button.value, dict) else button.value
    ).read_text()


def test_every_page_takes_the_pitch_and_the_rules_from_the_settings(measuring: Service) -> None:
    from demo.latest import Latest

    exports = Exports()
    panel = object.__new__(DrawingPanel)
    panel._service, panel._exports = measuring, exports
    page: Any = SimpleNamespace(
        answers=Latest(), service=measuring, drawing=SimpleNamespace(buttons=[]), _working=str
    )
    *_, answer = inspect._Page.look(page, ANNA, str(PICTURE), "strip.jpg", "grace", 0.0)
    assert " mm</span></td>" in answer[3]
    assert "width_mm,height_mm,area_mm2,tolerated\n" in _downloaded(
        panel._hand_out(answer[0], [], "off", "csv")
    )

    compared = Compared(str(PICTURE), "a.jpg", (segmentation(),), ("SME",), (LABELS,), {})
    page = SimpleNamespace(service=measuring, exports=exports)
    assert "width_mm,height_mm,area_mm2,tolerated\n" in _downloaded(
        compare._Page.hand_out(page, compared, "csv")
    )

    progress = by_hand()
    batches = SimpleNamespace(progress=lambda job: progress, store=None)
    page = SimpleNamespace(service=measuring, exports=exports, batches=batches)
    assert "width_mm,height_mm,area_mm2,tolerated\n" in _downloaded(
        batch._Page.hand_out(page, "A" * 16, "csv")
    )
    [row] = [row for row in rows(progress, "arrival") if row.index == 3]
    assert "20 × 10 mm" in batch_markup.chosen(row, "", measuring.pitch)
