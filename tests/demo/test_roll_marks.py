"""What comes again along a strip is told above the findings."""

from __future__ import annotations

from typing import Any

import pytest

from core.pitch import PixelPitch
from core.records import Box, FoundBox, ImageFacts, Inspection
from demo import markup
from demo.roll_marks import coming_again
from tests.demo.inspections import detection

PLACES = (100, 1100, 2100, 4100)  # the one at 3100 was missed
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
        for p, y in zip((0.9, 0.8, 0.7, 0.6), places, strict=True)
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
