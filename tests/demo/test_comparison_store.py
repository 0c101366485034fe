"""Comparisons that got a link are found again as they were, for as long as was promised."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from core.errors import InputError
from demo.comparison_store import Comparisons
from demo.handlers import Compared
from tests.demo.inspections import LABELS, detection

DAY_S = 86_400
SCRATCH = detection(("scratches", 0.93, (12, 3, 40, 99)))


@pytest.fixture
def comparisons(tmp_path: Path) -> Comparisons:
    return Comparisons(tmp_path / "comparisons", days=7)


@pytest.fixture
def seen(tmp_path: Path) -> Compared:
    path = tmp_path / "cached.png"
    path.write_bytes(b"a picture")
    return Compared(
        path=str(path),
        name="coil 7.png",
        inspections=(SCRATCH, SCRATCH),
        titles=("GRACE", "DA-YOLO"),
        labels=(LABELS, LABELS[:2]),
        committee={"disagreement": 0.25, "reasons": ["score"], "sentence": "Both see scratches."},
    )


def test_a_comparison_is_found_again_after_its_upload_was_cleared(
    comparisons: Comparisons, seen: Compared
) -> None:
    name = comparisons.keep(seen)
    Path(seen.path).unlink()
    found = comparisons.open(name)
    assert Path(found.path).read_bytes() == b"a picture"
    assert (found.name, found.titles, found.labels) == (seen.name, seen.titles, seen.labels)
    assert found.inspections == seen.inspections
    assert found.record() == seen.record()
    assert comparisons.keep(found) != name  # whoever opened it may pass on a link of their own


def test_a_comparison_whose_picture_was_cleared_cannot_be_kept(
    comparisons: Comparisons, seen: Compared, tmp_path: Path
) -> None:
    Path(seen.path).unlink()
    with pytest.raises(InputError, match=r"coil 7\.png has been cleared from the server"):
        comparisons.keep(seen)
    assert not (tmp_path / "comparisons").exists()


def test_a_disk_that_refuses_leaves_nothing_behind(
    comparisons: Comparisons, seen: Compared, tmp_path: Path
) -> None:
    (tmp_path / "comparisons").write_bytes(b"in the way")
    with pytest.raises(InputError, match="The comparison cannot be kept: Not a directory"):
        comparisons.keep(seen)


@pytest.mark.parametrize("name", ["", "x" * 16, "../comparisons0", "..", "a/b", "\0" * 16])
def test_an_unknown_link_is_one_sentence(comparisons: Comparisons, name: str) -> None:
    with pytest.raises(InputError, match="There is no such comparison any more"):
        comparisons.open(name)


def test_a_damaged_record_is_no_comparison(
    comparisons: Comparisons, seen: Compared, tmp_path: Path
) -> None:
    name = comparisons.keep(seen)
    (tmp_path / "comparisons" / name / "comparison.json").write_text("{")
    with pytest.raises(InputError, match="no such comparison"):
        comparisons.open(name)


def test_a_comparison_goes_after_the_days_that_were_promised(
    comparisons: Comparisons, seen: Compared, tmp_path: Path
) -> None:
    root = tmp_path / "comparisons"
    old, young = comparisons.keep(seen), comparisons.keep(seen)
    for name, age in ((old, 7.01 * DAY_S), (young, 6.9 * DAY_S)):
        then = time.time() - age
        os.utime(root / name / "comparison.json", (then, then))
    comparisons.forget_old()
    assert [folder.name for folder in root.iterdir()] == [young]
    comparisons.open(young)
