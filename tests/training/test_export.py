from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import models._ultralytics  # noqa: F401  first: it sets ultralytics' environment
from core.errors import DatasetError
from core.images import decode
from training.datasets import Dataset, Sample
from training.export import to_yolo_folder

# isort: split
from ultralytics.utils.patches import imread


@pytest.fixture
def plates(tmp_path: Path) -> Dataset:
    """Two 200 x 100 images, one without a box."""
    root = tmp_path / "plates"
    (root / "images").mkdir(parents=True)
    samples = []
    for file, split, boxes in (
        ("a.jpg", "train", (("patches", (0.0, 0.0, 200.0, 50.0)),)),
        ("b.jpg", "val", ()),
    ):
        path = root / "images" / file
        Image.new("RGB", (200, 100)).save(path)
        splits = {"paper": split, "leak-free": split}
        samples.append(Sample(file, path, file, 200, 100, file, boxes, None, None, splits))
    return Dataset("plates", "detect", ("crazing", "patches"), root, tuple(samples))


def test_a_box_becomes_class_centre_and_size_as_fractions(plates: Dataset, tmp_path: Path) -> None:
    to_yolo_folder(plates, "paper", tmp_path / "yolo", splits=("train", "val"))

    # x: (0 + 200) / 2 / 200 = 0.5, y: (0 + 50) / 2 / 100 = 0.25, w: 200 / 200, h: 50 / 100
    text = (tmp_path / "yolo/labels/train/a.txt").read_text()
    assert text == "1 0.500000 0.250000 1.000000 0.500000\n"
    assert (tmp_path / "yolo/labels/val/b.txt").read_text() == ""


def test_joined_splits_become_one_folder(plates: Dataset, tmp_path: Path) -> None:
    to_yolo_folder(plates, "paper", tmp_path / "yolo", splits=("train", "val+test"))

    assert (tmp_path / "yolo/images/val+test/b.jpg").is_file()
    assert (tmp_path / "yolo/labels/val+test/b.txt").is_file()


def test_exporting_again_replaces_the_older_export(plates: Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "yolo"
    to_yolo_folder(plates, "paper", folder, splits=("train", "val"))
    to_yolo_folder(plates, "paper", folder, splits=("val",))

    assert sorted(p.name for p in (folder / "images").rglob("*.jpg")) == ["b.jpg"]


def test_an_export_leaves_the_prepared_set_as_it_was(plates: Dataset, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in plates.root.rglob("*")}

    to_yolo_folder(plates, "paper", tmp_path / "yolo")

    assert {path: path.stat().st_mtime_ns for path in plates.root.rglob("*")} == before


def test_a_jpeg_without_end_marker_is_copied_because_ultralytics_would_rewrite_it(
    plates: Dataset, tmp_path: Path
) -> None:
    whole, cut = (sample.path for sample in plates.samples)
    cut.write_bytes(cut.read_bytes()[:-2])

    to_yolo_folder(plates, "paper", tmp_path / "yolo")

    assert (tmp_path / "yolo/images/train/a.jpg").samefile(whole)
    assert not (tmp_path / "yolo/images/val/b.jpg").samefile(cut)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_a_picture_with_transparency_is_learned_from_as_it_is_inspected(
    suffix: str, tmp_path: Path
) -> None:
    """Half see-through black over white is 255 - 128 = 127; ultralytics would learn from black."""
    path = tmp_path / f"a{suffix}"
    Image.new("RGBA", (40, 40), (0, 0, 0, 128)).save(path, lossless=True)
    splits = {"paper": "train", "leak-free": "train"}
    sample = Sample(path.name, path, "a", 40, 40, "a", (), None, None, splits)
    dataset = Dataset("plates", "detect", ("patches",), tmp_path, (sample,))

    to_yolo_folder(dataset, "paper", tmp_path / "yolo", splits=("train",))

    seen = imread(str(tmp_path / "yolo/images/train" / path.name))
    assert seen is not None
    assert seen.shape == (40, 40, 3)
    assert set(seen.ravel().tolist()) == {127}
    assert set(decode(path).pixels.ravel().tolist()) == {127}


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".jpg"])
def test_a_turned_picture_is_learned_from_upright_as_it_is_labelled(
    suffix: str, tmp_path: Path
) -> None:
    path, turned = tmp_path / f"a{suffix}", Image.Exif()
    turned[0x0112] = 6  # to be shown a quarter turn clockwise
    picture = Image.new("RGB", (40, 20))
    picture.paste((255, 255, 255), (0, 0, 20, 20))  # its left half, which is shown on top
    picture.save(path, exif=turned, lossless=True)
    splits = {"paper": "train", "leak-free": "train"}
    sample = Sample(path.name, path, "a", 20, 40, "a", (), None, None, splits)
    dataset = Dataset("plates", "detect", ("patches",), tmp_path, (sample,))

    to_yolo_folder(dataset, "paper", tmp_path / "yolo", splits=("train",))

    seen = imread(str(tmp_path / "yolo/images/train" / path.name))
    assert seen is not None
    assert seen.shape == (40, 20, 3)
    assert seen[:15].min() > 240
    assert seen[25:].max() < 15


def test_a_segmentation_set_is_refused(tiny_neu_seg: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="neu-seg is a segment set"):
        to_yolo_folder(tiny_neu_seg, "paper", tmp_path)
