"""The round trip behind docs/benchmarks, small: real images to a person and back."""

from __future__ import annotations

import pytest

from core.settings import PathSettings
from tests.active_learning.drill_results import Result, section, with_section
from tests.active_learning.round_trip import round_trip


@pytest.mark.label_studio
def test_real_images_go_to_a_person_and_come_back_as_the_next_version(
    label_studio, tiny_neu_det, tmp_path
):
    bundled = PathSettings().bundled
    (tmp_path / "bundled").mkdir()
    (tmp_path / "bundled" / "grace").symlink_to(bundled / "grace")
    found = round_trip(
        label_studio,
        tmp_path / "mill",
        tiny_neu_det,
        images=4,
        bundled=tmp_path / "bundled",
        model="grace",
    )
    assert set(found.wrong.values()) == {0}, found.wrong
    told = {name: found.numbers[name] for name in ("images queued", "answers applied")}
    assert told == {"images queued": 4, "answers applied": 4}
    # Three of train, which come in anew, and one of test, which is never learned from.
    assert found.numbers["images before"] == 9
    assert found.numbers["images in the next version"] == 12
    assert float(str(found.numbers["largest deviation of a box from the truth, px"])) < 0.01


def test_a_section_takes_the_place_of_its_older_self():
    page = "# Page\n\nHead.\n\n## One\n\n1\n\n## Two\n\n2\n"
    assert section(page, "One") == "## One\n\n1"
    assert section(page, "Three") == ""
    renewed = with_section(page, Result("One", {"a": 1}))
    assert renewed == (
        "# Page\n\nHead.\n\n## Two\n\n2\n\n## One\n\n| what | number |\n| --- | ---: |\n| a | 1 |\n"
    )
    assert with_section(renewed, Result("One", {"a": 1})) == renewed
