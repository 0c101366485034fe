"""A data set's labels looked at again by models that say what a test wrote down."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image as PILImage
from typer.testing import CliRunner

from core.errors import DatasetError
from tests.records import make_run, write_folder
from tests.training.canned import Canned
from tests.training.synthetic import draw_dataset
from training import served
from training.__main__ import app
from training._labels_command import _show as show_table
from training.datasets import Dataset
from training.label_check import LabelCheck, check_labels
from training.label_page import Checked, write_page
from training.label_places import Places, Share
from training.truth import read_mask

SPOT, LINE = 0, 1
FAR = (14.0, 14.0, 23.0, 23.0)


@pytest.fixture
def boxes(tmp_path: Path) -> Dataset:
    """A spot, a line, a spot and a line, each alone on its image; the first spot's strip is two."""
    drawn = draw_dataset(tmp_path / "drawn", "detect", parts=("val",) * 4)
    places = ((1, 1, 9, 9), (1, 0, 3, 24), (1, 1, 9, 9), (1, 0, 3, 24))
    samples = [
        dataclasses.replace(s, boxes=((s.boxes[0][0], tuple(map(float, place))),))
        for s, place in zip(drawn.samples, places, strict=True)
    ]
    return dataclasses.replace(drawn, samples=tuple(samples))


def detector(dataset: Dataset, rows: Sequence[Sequence[tuple[object, ...]]]) -> Canned:
    """Rows of class, score and box for each image in turn; a box of None is the label's."""
    answers = {
        sample.sha256: [(c, s, *(sample.boxes[0][1] if box is None else box)) for c, s, box in said]
        for sample, said in zip(dataset.samples, rows, strict=True)
    }
    return Canned("detect", dataset.labels, answers)


@pytest.fixture
def first(boxes: Dataset) -> Canned:
    """Right but for a surer spot where nothing is labelled, and blind to the second line."""
    return detector(
        boxes,
        [
            [(SPOT, 0.8, None)],
            [(LINE, 0.6, None)],
            [(SPOT, 0.6, None), (SPOT, 0.9, FAR)],
            [],
        ],
    )


def check(dataset: Dataset, *predictors: Canned) -> LabelCheck:
    return check_labels(predictors, dataset, protocol="leak-free", split="val", resamples=20)


def told(checked: LabelCheck) -> list[tuple[str, float, list[str]]]:
    return [
        (image.sample.file, round(image.quality, 6), [d.kind for d in image.doubts])
        for image in checked.images
    ]


def test_the_image_with_the_poorest_labels_comes_first(boxes: Dataset, first: Canned) -> None:
    # Spots that agree with a label score 0.8 and 0.6: sure is 0.7, and 0.9 is surer. Of two lines
    # one is seen.
    assert told(check(boxes, first)) == [
        ("02.png", 0.1, ["overlooked"]),
        ("03.png", 0.5, ["not seen"]),
        ("00.png", 1.0, []),
        ("01.png", 1.0, []),
    ]


def test_doubts_and_places_are_counted_class_by_class(boxes: Dataset, first: Canned) -> None:
    spot, line = check(boxes, first).classes
    assert (spot.label, spot.labels, spot.doubts) == ("spot", 2, {"overlooked": 1})
    assert (line.label, line.labels, line.doubts) == ("line", 2, {"not seen": 1})
    every, half = Share(1.0, 1.0, 1.0), Share(0.5, 0.0, 1.0)
    assert spot.places == Places(every, every, every)
    # Two lines of two strips: a resample may hold one of them twice.
    assert line.places == Places(half, half, half)


def test_a_label_that_any_model_finds_stands_and_only_all_together_are_sure(
    boxes: Dataset, first: Canned
) -> None:
    second = detector(
        boxes,
        [[(SPOT, 0.6, None)], [(LINE, 0.6, None)], [(SPOT, 0.6, None)], [(LINE, 0.6, None)]],
    )
    # Fused, the spots score 0.7 and 0.6, and the one that the first alone sees 0.45.
    assert [doubts for _, _, doubts in told(check(boxes, first, second))] == [[], [], [], []]


def test_a_finding_beside_its_label_is_told_with_what_they_share(boxes: Dataset) -> None:
    beside = detector(
        boxes,
        [[(SPOT, 0.8, (1, 1, 9, 5))], [(LINE, 0.6, None)], [(SPOT, 0.8, (1, 1, 9, 4))], []],
    )
    # 4 of 8 rows are IoU 0.5, the same place; 3 of 8 are not: 0.8 · (1 - 3/8) = 0.5.
    checked = check(boxes, beside)
    assert told(checked)[0] == ("02.png", 0.5, ["badly placed"])
    places = checked.classes[0].places
    assert places is not None
    assert [places.touched.value, places.placed.value, places.strictly.value] == [1.0, 0.5, 0.0]


def test_classes_are_doubted_by_the_mean_of_the_models(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path, "classify", parts=("val",) * 2)
    one = Canned("classify", dataset.labels, [(0.9, 0.1), (0.8, 0.2)])
    other = Canned("classify", dataset.labels, [(0.3, 0.7), (0.6, 0.4)])
    checked = check(dataset, one, other)
    # The spot keeps 0.6, the line is left 0.3.
    assert told(checked) == [("01.png", 0.3, ["swapped"]), ("00.png", 0.6, [])]
    assert [(c.labels, c.doubts, c.places) for c in checked.classes] == [
        (1, {}, None),
        (1, {"swapped": 1}, None),
    ]


def test_masks_are_doubted_where_every_segmenter_says_the_same_other_thing(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path, "segment", parts=("val",) * 2)
    truths = [read_mask(sample, dataset.labels) for sample in dataset.samples]
    blind = Canned("segment", dataset.labels, [np.zeros_like(mask) for mask in truths])
    # The spot is 8 × 8 px; the line is 2 px wide, an outline's width.
    assert told(check(dataset, blind)) == [("00.png", 0.0, ["not seen"]), ("01.png", 1.0, [])]
    blind.asked = 0
    knows = Canned("segment", dataset.labels, truths)
    assert [doubts for _, _, doubts in told(check(dataset, blind, knows))] == [[], []]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": "classify"}, "are checked by models that classify spot, line"),
        ({"labels": ("spot", "dent")}, "are checked by models that detect spot, dent"),
    ],
)
def test_a_model_of_another_task_or_other_classes_is_refused(
    boxes: Dataset, first: Canned, changes: Mapping[str, object], says: str
) -> None:
    with pytest.raises(DatasetError, match=says):
        check(dataclasses.replace(boxes, **changes), first)


def test_an_empty_split_and_nobody_to_ask_are_told(boxes: Dataset, first: Canned) -> None:
    with pytest.raises(DatasetError, match="has no test images"):
        check_labels([first], boxes, protocol="leak-free", split="test")
    with pytest.raises(DatasetError, match="There is no model to check the labels of drawn"):
        check(boxes)


# --- the page ----------------------------------------------------------------------------------


def page_of(dataset: Dataset, checked: LabelCheck, folder: Path) -> list[str]:
    asked = Checked(dataset, "leak-free", "val", ("grace 1",), "this command", "here", checked)
    return write_page(folder, asked).read_text().splitlines()


def test_the_page_counts_doubts_by_class_and_lists_the_images(
    boxes: Dataset, first: Canned, tmp_path: Path
) -> None:
    text = page_of(boxes, check(boxes, first), tmp_path / "pages")
    assert any("4 images, of which 2 have a label that is doubted" in line for line in text)
    assert "| class | labels | overlooked | swapped | badly placed | not seen |" in text
    assert "| spot | 2 | 1 | 0 | 0 | 0 |" in text
    assert "| together | 4 | 1 | 0 | 0 | 1 |" in text
    assert "| line | 2 | 50 (0–100) | 50 (0–100) | 50 (0–100) | 100 | 100 |" in text
    assert (
        "| 02 | 02.png | 0.10 | spot 0.90 is found and nothing is labelled | 14, 14, 23, 23 |"
        in text
    )
    assert "| 03 | 03.png | 0.50 | line is labelled and nobody finds it | 1, 0, 3, 24 |" in text
    with PILImage.open(tmp_path / "pages" / "labels-drawn.png") as picture:
        assert picture.format == "PNG"


def test_the_table_takes_the_names_of_strips_as_they_are(
    boxes: Dataset, first: Canned, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = [dataclasses.replace(sample, group="[/x]:smile:") for sample in boxes.samples]
    strange = dataclasses.replace(boxes, samples=tuple(odd))
    checked = check(strange, first)
    show_table(
        Checked(strange, "leak-free", "val", ("grace 1",), "this command", "here", checked), 5
    )
    assert "[/x]:smile:" in capsys.readouterr().out


def test_a_page_without_doubts_shows_no_picture(boxes: Dataset, tmp_path: Path) -> None:
    knows = detector(boxes, [[(k % 2, 0.9, None)] for k in range(4)])
    text = page_of(boxes, check(boxes, knows), tmp_path / "pages")
    assert any("of which 0 have a label that is doubted" in line for line in text)
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["labels-drawn.md"]


def test_a_page_of_classes_tells_no_places(tmp_path: Path) -> None:
    dataset = draw_dataset(tmp_path, "classify", parts=("val",) * 2)
    checked = check(dataset, Canned("classify", dataset.labels, [(0.9, 0.1), (0.8, 0.2)]))
    text = page_of(dataset, checked, tmp_path / "pages")
    assert "| line | 1 | 0 | 1 | 0 | 0 |" in text
    assert "## Where the labels of a class end" not in text
    assert "| 01 | 01.png | 0.20 | line is labelled and spot 0.80 is found | whole image |" in text


# --- the command -------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, tiny_neu_cls: Dataset, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny classes prepared, and a classifier served that takes everything for crazing."""
    data = tmp_path / "data"
    (data / "datasets").mkdir(parents=True)
    (data / "datasets" / "neu-cls").symlink_to(tiny_neu_cls.root)
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(data))
    monkeypatch.setenv("ROLLMARK_PATHS__BUNDLED", str(tmp_path / "bundled"))
    run = make_run(
        model="mobilesteelnet",
        dataset="neu-cls",
        dataset_id=tiny_neu_cls.id,
        labels=tiny_neu_cls.labels,
    )
    write_folder(tmp_path / "bundled" / "mobilesteelnet", run=run, task="classify")
    certain = np.eye(len(tiny_neu_cls.labels))[0]
    answers = {sample.sha256: certain for sample in tiny_neu_cls.samples}
    monkeypatch.setattr(
        served, "open_predictor", lambda *_: Canned("classify", tiny_neu_cls.labels, answers)
    )
    return tmp_path


def call(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["labels", "neu-cls", "--pages", str(home), *arguments])


def test_the_command_asks_whom_it_suits_and_writes_page_and_numbers(
    home: Path, tiny_neu_cls: Dataset
) -> None:
    done = call(home, "--json", str(home / "labels.json"))
    assert done.exit_code == 0, done.output
    images = tiny_neu_cls.split("leak-free", "val")
    wrong = sum(sample.label != "crazing" for sample in images)
    assert f"{wrong} of {len(images)} images have a label that is doubted by" in done.stdout
    assert (home / "labels-neu-cls.md").is_file()
    written = json.loads((home / "labels.json").read_text())
    assert written["models"] == ["mobilesteelnet canned"]
    assert sum(bool(image["doubts"]) for image in written["images"]) == wrong


def test_weights_are_those_of_one_model(home: Path) -> None:
    done = call(home, "--weights", str(home / "bundled" / "mobilesteelnet"))
    assert done.exit_code == 2
    assert "--weights" in done.stderr


def test_a_folder_with_a_blank_is_quoted_where_the_page_says_how_to_write_it_again(
    home: Path,
) -> None:
    folder = home / "bundled" / "mobilesteelnet"
    folder = folder.rename(home / "my weights")
    done = call(home, "--model", "mobilesteelnet", "--weights", str(folder))
    assert done.exit_code == 0, done.output
    assert f"--weights '{folder}' --split val`" in (home / "labels-neu-cls.md").read_text()


def test_the_command_refuses_who_has_learned_from_the_images(home: Path) -> None:
    done = call(home, "--split", "train", "--model", "mobilesteelnet")
    assert done.exit_code == 1
    assert "would repeat their labels" in done.stderr
    assert done.stderr.count("\n") == 1
