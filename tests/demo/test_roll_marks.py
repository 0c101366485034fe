"""What comes again along a strip is told above the findings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.pitch import PixelPitch
from core.records import Box, FoundBox, ImageFacts, Inspection
from demo import batch_markup, markup
from demo.batch_exports import batch_report
from demo.batch_jobs import Progress
from demo.batch_store import Answer, BatchStore
from demo.roll_marks import coming_again, coming_again_in
from tests.demo.inspections import LABELS, detection
from tests.demo.test_batches import by_hand

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
        for p, y in zip((0.9, 0.8, 0.7, 0.6), places, strict=False)
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
