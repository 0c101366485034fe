"""How far people agree: places, pixels and choices counted by hand."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from active_learning.__main__ import app
from active_learning.agreement import Agreement, ClassAgreement, agreement, in_words, summary
from active_learning.desk import open_desk
from active_learning.inbox import Arrival, Inbox
from active_learning.labelling import NO_DEFECT
from core.geometry import mask_record
from core.records import Annotation, Box
from core.settings import load_settings

AT = datetime(2026, 5, 4, tzinfo=UTC)
MASKS = ("patches", "scratches")
TEN: Box = (10, 10, 20, 20)
NEAR: Box = (10, 10, 20, 18)  # of TEN 80 of 100 px: IoU 0.8
FAR: Box = (60, 60, 70, 70)


def says(who: str, *boxes: tuple[str, Box], image: int = 0, **more: Any) -> Annotation:
    return Annotation(
        image_sha256=f"{image:064d}",
        width=100,
        height=100,
        boxes=boxes,
        annotator=who,
        **{"created_at": AT, **more},
    )


def brushed(who: str, rows: slice, label: str = "scratches") -> Annotation:
    """Whole rows of 100 px of one class."""
    class_map = np.zeros((100, 100), np.uint8)
    class_map[rows] = MASKS.index(label) + 1
    return says(who, mask=mask_record(class_map, len(MASKS)), mask_labels=MASKS)


def of(found: Agreement) -> dict[tuple[str, str], ClassAgreement]:
    return {(one.how, one.label): one for one in found.classes}


@pytest.fixture
def desk_of_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands' own desk, at which two people have answered one image."""
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path))
    answers = (says("ann", ("scratches", TEN)), says("bea", ("scratches", NEAR)))
    with closing(open_desk(load_settings()).ledger) as ledger:
        inbox = Inbox(ledger, project="Rollmark", who="pull")
        inbox.take(
            [
                Arrival(1, k, AT, "annotated", said.image_sha256, said)
                for k, said in enumerate(answers)
            ]
        )


def test_boxes_agree_where_they_mark_one_place() -> None:
    ann = says("ann", ("scratches", TEN), ("scratches", FAR), ("patches", FAR))
    bea = says("bea", ("scratches", NEAR), ("patches", FAR))
    found = agreement([[ann, bea]])
    assert (found.images, found.people, found.swapped) == (1, 2, ())
    assert [one.label for one in found.classes] == ["scratches", "patches"]  # least agreed first
    scratches = of(found)["boxes", "scratches"]
    assert scratches.agreement == pytest.approx(2 / 3)  # 2 · 1 / (2 + 1)
    assert scratches.overlap == pytest.approx(0.8)
    assert (scratches.images, scratches.low, scratches.high) == (1, None, None)
    patches = of(found)["boxes", "patches"]
    assert (patches.agreement, patches.overlap) == (1.0, 1.0)


def test_one_box_marks_one_place_and_the_pairs_overlap_most_in_all() -> None:
    wide: Box = (10, 10, 20, 24)  # over TEN 100 of 140: 0.71; over NEAR 80 of 140: 0.57
    found = agreement(
        [[says("ann", ("scratches", TEN), ("scratches", NEAR)), says("bea", ("scratches", wide))]]
    )
    scratches = of(found)["boxes", "scratches"]
    assert scratches.agreement == pytest.approx(2 / 3)
    assert scratches.overlap == pytest.approx(100 / 140)


def test_pairs_that_mark_two_places_do_not_part_one_that_marks_the_same() -> None:
    def at(x: float) -> tuple[str, Box]:
        return "scratches", (x, 10, x + 10, 20)

    # 20 and 22.5 overlap by 7.5 of 12.5; either and its other neighbour by 6.2 of 13.8 only.
    ann, bea = says("ann", at(20), at(26.3)), says("bea", at(22.5), at(16.2))
    scratches = of(agreement([[ann, bea]]))["boxes", "scratches"]
    assert scratches.agreement == pytest.approx(0.5)  # 2 · 1 / (2 + 2)
    assert scratches.overlap == pytest.approx(0.6)


def test_one_place_of_two_classes_is_told_as_swapped() -> None:
    found = agreement(
        [
            [says("ann", ("scratches", TEN)), says("bea", ("inclusion", NEAR))],
            [says("ann", ("inclusion", FAR), image=1), says("bea", ("scratches", FAR), image=1)],
            [says("ann", ("patches", TEN), image=2), says("bea", ("crazing", FAR), image=2)],
        ]
    )
    assert found.swapped == (("inclusion", "scratches", 2),)
    assert {label: one.agreement for (_, label), one in of(found).items()} == {
        "scratches": 0,
        "inclusion": 0,
        "patches": 0,
        "crazing": 0,
    }


def test_who_sees_nothing_disagrees_and_who_only_chose_a_class_says_nothing_of_places() -> None:
    ann = says("ann", ("scratches", TEN))
    assert of(agreement([[ann, says("bea")]]))["boxes", "scratches"].agreement == 0
    sound = says("bea", label=NO_DEFECT)
    assert of(agreement([[ann, sound]]))["boxes", "scratches"].agreement == 0
    assert agreement([[ann, says("bea", label="scratches")]]).classes == ()
    assert agreement([[ann, brushed("bea", slice(0, 10), "patches")]]).classes == ()
    both = says("bea", ("scratches", TEN), label="patches")  # patches are there, nobody knows where
    marked = says("ann", ("scratches", TEN), ("patches", FAR))
    assert of(agreement([[marked, both]])).keys() == {("boxes", "scratches")}


def test_regions_agree_pixel_by_pixel() -> None:
    found = agreement([[brushed("ann", slice(0, 20)), brushed("bea", slice(10, 20))]])
    assert of(found).keys() == {("regions", "scratches")}
    scratches = of(found)["regions", "scratches"]
    assert scratches.agreement == pytest.approx(2 / 3)  # 2 · 1000 / (2000 + 1000)
    assert scratches.overlap == pytest.approx(0.5)  # 1000 of 2000
    nothing = agreement([[brushed("ann", slice(0, 20)), says("bea")]])
    assert of(nothing)["regions", "scratches"].agreement == 0
    assert of(nothing)["regions", "scratches"].overlap == 0


def test_choices_agree_image_by_image() -> None:
    def pair(image: int, first: str, second: str) -> list[Annotation]:
        return [says("ann", image=image, label=first), says("bea", image=image, label=second)]

    found = agreement(
        [
            pair(0, "scratches", "scratches"),
            pair(1, "scratches", "inclusion"),
            pair(2, NO_DEFECT, NO_DEFECT),
        ]
    )
    choices = {label: one.agreement for (how, label), one in of(found).items() if how == "choice"}
    assert choices == {"scratches": pytest.approx(2 / 3), "inclusion": 0, NO_DEFECT: 1}
    assert found.swapped == (("inclusion", "scratches", 1),)


def test_each_pair_of_three_people_counts_and_nobody_is_compared_with_himself() -> None:
    ann, bea, carl = (says(who, ("scratches", TEN)) for who in ("ann", "bea", "carl"))
    dora = says("carl", ("scratches", FAR), created_at=AT + timedelta(1))  # carl, once more
    found = agreement([[ann, bea, carl, dora]])
    # ann and bea agree; carl's newest answer agrees with neither: 2 · 1 / (2 + 2 + 2)
    assert (found.people, of(found)["boxes", "scratches"].agreement) == (3, pytest.approx(1 / 3))
    assert agreement([[ann], [carl, dora]]) == Agreement(0, 0, (), ())


def test_five_images_have_an_interval_over_images() -> None:
    alike = [[says(who, ("scratches", TEN), image=k) for who in ("ann", "bea")] for k in range(5)]
    assert of(agreement(alike[:4]))["boxes", "scratches"].low is None
    scratches = of(agreement(alike))["boxes", "scratches"]
    assert (scratches.low, scratches.high, scratches.images) == (1.0, 1.0, 5)
    mixed = [*alike[:4], [says("ann", ("scratches", TEN), image=4), says("bea", image=4)]]
    scratches = of(agreement(mixed))["boxes", "scratches"]
    assert scratches.agreement == pytest.approx(8 / 9)  # 2 · 4 / (5 + 4)
    assert scratches.low is not None
    assert scratches.high == 1.0
    assert 0 < scratches.low < 8 / 9


def test_the_figures_are_told_in_words() -> None:
    one = ClassAgreement("boxes", "rolled-in_scale", 12, 2 / 3, 0.41, 0.86, 0.8)
    assert in_words(one) == (
        "rolled-in scale, boxes: 0.67 (0.41 to 0.86) on 12 images, what both drew overlaps by 0.80"
    )
    told = summary(Agreement(2, 3, (one,), (("inclusion", "scratches", 1),)))
    assert told == (
        "inclusion to one and scratches to the other: 1 time",
        "2 images answered by two people or more, 3 in all",
    )


@pytest.mark.usefixtures("desk_of_two", "logging_as_before")
def test_the_command_tells_it() -> None:
    words = CliRunner().invoke(app, ["agreement"])
    assert words.stdout.splitlines() == [
        "scratches, boxes: 1.00 on 1 image, what both drew overlaps by 0.80",
        "1 image answered by two people or more, 2 in all",
    ]
    told = json.loads(CliRunner().invoke(app, ["agreement", "--json"]).stdout)
    assert (told["images"], told["people"], told["swapped"]) == (1, 2, [])
    assert told["classes"][0]["overlap"] == pytest.approx(0.8)
