"""What remembering is worth: a picture is answered as the training image most like it."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as PILImage
from typer.testing import CliRunner

from core.errors import DatasetError
from core.images import decode
from core.records import Evaluation, Metric
from core.types import Detections, Segmentation, Task
from tests.training.row_records import record
from training.__main__ import app
from training._grouping import views
from training.benchmark.lookup_page import load_lookups, page_of, write_lookups
from training.benchmark.page import render
from training.benchmark.plans import plan, select
from training.benchmark.records import RowRecord
from training.benchmark.rows import Row
from training.benchmark.sheets import DETECT
from training.datasets import Dataset, Sample
from training.lookup import Lookup, look_up, view_back

BOX = (4.0, 2.0, 12.0, 6.0)
# Where that box of a picture 40 px wide and 20 px high lies in each of its eight orientations: four
# turns to the left, and each of them mirrored.
TURNED = (
    (4, 2, 12, 6),
    (2, 28, 6, 36),
    (28, 14, 36, 18),
    (14, 4, 18, 12),
    (28, 2, 36, 6),
    (14, 28, 18, 36),
    (4, 14, 12, 18),
    (2, 4, 6, 12),
)


def drawn(seed: int = 0) -> NDArray[np.uint8]:
    """A blotched strip, 40 px wide and 20 px high, with a bright place at BOX."""
    coarse = np.random.default_rng(seed).integers(20, 120, (5, 10), dtype=np.uint8)
    strip = np.kron(coarse, np.ones((4, 4), np.uint8))
    strip[2:6, 4:12] = 250
    return np.asarray(strip, np.uint8)


def write(
    root: Path, grey: NDArray[np.uint8], *, split: str, label: str, task: Task = "classify"
) -> Sample:
    root.mkdir(parents=True, exist_ok=True)
    path = root / f"{len(list(root.glob('*.png'))):02}.png"
    PILImage.fromarray(np.ascontiguousarray(grey)).save(path)
    mask = None
    if task == "segment":
        mask = root / f"mask-{path.name}"
        PILImage.fromarray((grey == 250).astype(np.uint8)).save(mask)
    return Sample(
        file=path.name,
        path=path,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        width=grey.shape[1],
        height=grey.shape[0],
        group=path.name,
        boxes=((label, BOX),) if task == "detect" else (),
        label=label if task == "classify" else None,
        mask=mask,
        splits={"paper": split, "leak-free": split},
    )


def set_of(root: Path, task: Task, samples: Sequence[Sample]) -> Dataset:
    return Dataset("drawn", task, ("dent", "scale"), root, tuple(samples))


@pytest.mark.parametrize("orientation", range(8))
def test_a_turned_view_is_turned_back(orientation: int) -> None:
    strip = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(view_back(views(strip)[orientation], orientation), strip)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("orientation", range(8))
def test_boxes_are_turned_and_enlarged_with_the_picture(
    tmp_path: Path, orientation: int, times: int
) -> None:
    samples = [
        write(tmp_path, drawn(1), split="train", label="dent", task="detect"),
        write(tmp_path, drawn(), split="train", label="scale", task="detect"),
    ]
    lookup = Lookup(set_of(tmp_path, "detect", samples), samples)
    large = np.kron(views(drawn())[orientation], np.ones((times, times), np.uint8))
    path = tmp_path / "asked.png"
    PILImage.fromarray(np.ascontiguousarray(large)).save(path)
    (found,) = lookup([decode(path)], score_threshold=0.001)
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.xyxy, [np.multiply(TURNED[orientation], times)], atol=1e-5)
    assert found.class_ids.tolist() == [1]
    assert found.scores[0] > 0.9  # an enlarged one is not quite the same at 24 px


def test_a_mask_is_turned_back_and_fits_the_picture(tmp_path: Path) -> None:
    (sample,) = [write(tmp_path, drawn(), split="train", label="dent", task="segment")]
    lookup = Lookup(set_of(tmp_path, "segment", [sample]), [sample])
    path = tmp_path / "asked.png"
    tall = np.repeat(np.rot90(drawn()), 2, axis=0)  # 20 px wide and 80 px high
    PILImage.fromarray(np.ascontiguousarray(tall)).save(path)
    (found,) = lookup([decode(path)], score_threshold=0.001)
    assert isinstance(found, Segmentation)
    expected = np.zeros((80, 20), np.uint8)
    expected[56:72, 2:6] = 1  # 28 to 36 px from above, twice as high
    np.testing.assert_array_equal(found.class_map, expected)


def test_what_looking_up_reaches_and_how_many_are_copies(tmp_path: Path) -> None:
    # Of three test images two are copies of training images; of these one is labelled otherwise.
    # The third is like neither, and nearest to the dent or the scale: it is labelled as neither is.
    samples = [
        write(tmp_path, drawn(), split="train", label="dent"),
        write(tmp_path, drawn(1), split="train", label="dent"),
        write(tmp_path, np.rot90(drawn()), split="test", label="dent"),
        write(tmp_path, np.fliplr(drawn(1)), split="test", label="scale"),
        write(tmp_path, drawn(2), split="test", label="scale"),
        write(tmp_path, drawn(2), split="val", label="scale"),  # is not looked up in
    ]
    measured = look_up(set_of(tmp_path, "classify", samples), protocol="paper", resamples=0)
    assert measured.model == "lookup"
    assert measured.metric("accuracy").value == pytest.approx(1 / 3)
    assert measured.settings["copies"] == 2
    assert measured.settings["on_copies"] == pytest.approx(1 / 2)


def test_a_picture_of_one_grey_is_like_nothing(tmp_path: Path) -> None:
    samples = [write(tmp_path, drawn(), split="train", label="dent", task="detect")]
    lookup = Lookup(set_of(tmp_path, "detect", samples), samples)
    path = tmp_path / "flat.png"
    PILImage.fromarray(np.full((20, 40), 90, np.uint8)).save(path)
    (found,) = lookup([decode(path)], score_threshold=0.001)
    assert isinstance(found, Detections)
    assert len(found) == 0
    assert not lookup.nearest(decode(path).pixels).is_copy


def test_where_nothing_is_a_copy_nothing_is_said_of_copies(tmp_path: Path) -> None:
    samples = [
        write(tmp_path, drawn(), split="train", label="dent"),
        write(tmp_path, drawn(1), split="test", label="dent"),
    ]
    measured = look_up(set_of(tmp_path, "classify", samples), protocol="paper", resamples=0)
    assert (measured.settings["copies"], "on_copies" in measured.settings) == (0, False)


def test_copies_that_all_show_sound_steel_have_no_labels_to_agree(tmp_path: Path) -> None:
    sound = write(tmp_path, drawn(), split="train", label="dent", task="detect")
    copy = write(tmp_path, np.fliplr(drawn()), split="test", label="dent", task="detect")
    samples = [
        replace(sound, boxes=()),
        replace(copy, boxes=()),
        write(tmp_path, drawn(1), split="test", label="dent", task="detect"),
    ]
    measured = look_up(set_of(tmp_path, "detect", samples), protocol="paper", resamples=0)
    assert measured.metric("mAP50").value == 0.0  # nothing to be remembered of the dent
    assert (measured.settings["copies"], "on_copies" in measured.settings) == (1, False)


def test_without_training_images_nothing_can_be_looked_up(tmp_path: Path) -> None:
    samples = [write(tmp_path, drawn(), split="test", label="dent")]
    with pytest.raises(DatasetError, match="drawn has no training image to look anything up in"):
        look_up(set_of(tmp_path, "classify", samples), protocol="paper")


# ------------------------------------------------------------------------------------- the pages


def looked_up(value: float, *, dataset: str = "neu-seg", protocol: str = "paper") -> Evaluation:
    metric = Metric(name="mIoU", value=value, low=value - 0.02, high=value + 0.02, n=585)
    return Evaluation(
        model="lookup",
        revision="lookup",
        dataset=dataset,
        protocol=protocol,
        split="test",
        test_id="t" * 64,
        metrics=(metric,),
        settings={"copies": 569, "on_copies": 0.913} if protocol == "paper" else {"copies": 0},
    )


def test_the_page_has_one_line_for_each_division_beside_what_is_published(tmp_path: Path) -> None:
    write_lookups([looked_up(0.5), looked_up(0.372, protocol="leak-free")], tmp_path)
    write_lookups([looked_up(0.896)], tmp_path)
    kept = load_lookups(tmp_path)
    assert [one.metrics[0].value for one in kept] == [0.372, 0.896]
    page = (tmp_path / "lookup.md").read_text()
    assert page == page_of(kept)
    assert [line for line in page.splitlines() if line.startswith("| neu-seg")] == [
        "| neu-seg | leak-free | test | 585 | 0 | mIoU | 37.2 (35.2–39.2) | – | – |",
        "| neu-seg | paper | test | 585 | 569 | mIoU | 89.6 (87.6–91.6) | 91.3 | "
        "SME-DeepLabV3+ (StarNet-S4, MSAA, ELA) 88.87 |",
    ]
    assert "benchmark lookup neu-seg --pages" in page


def test_of_very_few_copies_nothing_is_said_to_agree() -> None:
    few = looked_up(0.5).model_copy(update={"settings": {"copies": 29, "on_copies": 1.0}})
    assert "| 29 | mIoU | 50.0 (48.0–52.0) | – |" in page_of([few])


def test_a_file_that_holds_no_measurements_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lookup.json").write_text('[{"model": 1}]')
    with pytest.raises(DatasetError, match="is not a list of measurements"):
        load_lookups(tmp_path)


def _row_of(test_id: str) -> tuple[Row, RowRecord]:
    (row,) = select(plan("detect", setting="small", protocols=["paper"]), ["yolo11-n"])
    values = dict.fromkeys(("mAP50", "mAP50_95", "precision", "recall"), 0.7)
    return row, record(row, values, per_class={"mAP50": {"dent": 0.7}}, test_id=test_id)


@pytest.mark.parametrize(
    ("test_id", "protocol", "is_told"),
    [("t" * 64, "paper", True), ("u" * 64, "paper", False), ("t" * 64, "leak-free", False)],
    ids=["the same images", "other images", "another division"],
)
def test_an_accuracy_table_tells_what_is_reached_without_any_network(
    test_id: str, protocol: str, is_told: bool
) -> None:
    row, kept = _row_of(test_id)
    lookup = looked_up(0.111, dataset="neu-det", protocol=protocol)
    boxes = lookup.model_copy(
        update={"metrics": (lookup.metrics[0].model_copy(update={"name": "mAP50"}),)}
    )
    page = render(DETECT, (row,), {kept.row: kept}, lookups=[boxes])
    told = (
        "Without any network: each test image answered as the training image most like it is "
        "labelled, turned as it fits, has mAP50 11.1 (9.1–13.1) ([lookup.md](lookup.md)).\n"
    )
    assert (told in page) is is_told


def test_the_command_measures_both_divisions_and_writes_the_page(
    tiny_data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path / "data"))
    shutil.copytree(tiny_data_root / "x-sdd", tmp_path / "data" / "datasets" / "x-sdd")
    asked = ["benchmark", "lookup", "x-sdd", "--pages", str(tmp_path)]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(tmp_path / "lookup.md")
    assert [one.protocol for one in load_lookups(tmp_path)] == ["leak-free", "paper"]
    missing = CliRunner().invoke(app, ["benchmark", "lookup", "never-prepared"])
    assert missing.exit_code == 1
    assert "is not prepared" in missing.stderr
