"""What a model gets wrong, told strip by strip and shown beside what it was taken for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from typer.testing import CliRunner

from core.errors import DatasetError
from core.types import Classification, DecodedImage
from tests.training.canned import Canned
from training.__main__ import app
from training._cli import ProtocolName
from training.benchmark.box_mistakes import write_boxes
from training.benchmark.mistakes import (
    ClassStrips,
    Mistake,
    StripMistakes,
    by_strip,
    class_strips,
    find_mistakes,
)
from training.benchmark.mistakes_command import _command
from training.benchmark.mistakes_page import Asked, write_classes, write_masks
from training.datasets import Dataset, Sample
from training.truth import read_mask

LABELS = ("crazing", "patches", "pitted_surface")


class Feeling(Canned):
    """Answers with the features that a test wrote down, by SHA-256."""

    features: Mapping[str, Sequence[float] | None]

    def _one(self, image: DecodedImage) -> Classification:
        found = super()._one(image)
        row = self.features[image.sha256]
        vector = None if row is None else np.array(row, np.float32)
        source = dataclasses.replace(found.source, features=vector)
        return dataclasses.replace(found, source=source)


@pytest.fixture
def dataset(tiny_neu_cls: Dataset) -> Dataset:
    """Four training images and three test images; the two pitted ones are of one strip."""
    rows = (
        ("train", "patches", "a"),
        ("train", "crazing", "b"),
        ("train", "patches", "c"),
        ("train", "crazing", "b"),
        ("test", "pitted_surface", "s"),
        ("test", "crazing", "d"),
        ("test", "pitted_surface", "s"),
    )
    samples = [
        dataclasses.replace(sample, label=label, group=group, splits={"leak-free": split})
        for sample, (split, label, group) in zip(tiny_neu_cls.samples, rows, strict=False)
    ]
    return dataclasses.replace(tiny_neu_cls, labels=LABELS, samples=tuple(samples))


def predictor(
    dataset: Dataset, answers: Sequence[Sequence[float]], features: Sequence[Sequence[float] | None]
) -> Feeling:
    names = [sample.sha256 for sample in dataset.samples]
    made = Feeling("classify", LABELS, dict(zip(names, answers, strict=True)))
    made.features = dict(zip(names, features, strict=True))
    return made


@pytest.fixture
def mistaken(dataset: Dataset) -> Feeling:
    """Takes the first pitted image for patches and the second for crazing."""
    train = [(1.0, 0.0, 0.0)] * 4  # not asked for: only their features count
    test = [(0.1, 0.7, 0.2), (0.8, 0.1, 0.1), (0.5, 0.1, 0.4)]
    # Cosines of (2, 0.2) with the training images: 0.995, 0.100, 0.774, -0.995; of (0, 3): 0, 1,
    # 0.707, 0.
    features = [(1, 0), (0, 1), (5, 5), (-1, 0), (2, 0.2), (1, 1), (0, 3)]
    return predictor(dataset, [*train, *test], features)


def files(samples: Sequence[Sample]) -> list[str]:
    return [sample.file for sample in samples]


def test_a_mistake_stands_beside_the_training_images_whose_features_point_the_same_way(
    dataset: Dataset, mistaken: Feeling
) -> None:
    first, second = find_mistakes(mistaken, dataset, protocol="leak-free", split="test")
    train = files(dataset.samples[:4])
    assert (first.sample.file, second.sample.file) == tuple(files(dataset.samples[4::2]))
    assert (first.said, second.said) == ("patches", "crazing")
    assert (first.probability, first.of_truth) == pytest.approx((0.7, 0.2))
    assert files(first.alike) == [train[0], train[2], train[1]]
    assert files(second.alike) == [train[1], train[2], train[0]]


def test_a_split_without_mistakes_has_none_and_no_features_are_needed(dataset: Dataset) -> None:
    truth = np.eye(3)[[LABELS.index(s.label or "") for s in dataset.samples]]
    knows = predictor(dataset, truth.tolist(), [None] * 7)
    assert find_mistakes(knows, dataset, protocol="leak-free", split="test") == ()


def test_a_network_without_features_is_told(dataset: Dataset) -> None:
    blind = predictor(dataset, [(1.0, 0.0, 0.0)] * 7, [None] * 7)
    with pytest.raises(DatasetError, match="gives no features"):
        find_mistakes(blind, dataset, protocol="leak-free", split="test")


def test_strips_are_counted_class_by_class_and_the_worst_strip_comes_first(
    dataset: Dataset, mistaken: Feeling
) -> None:
    assert class_strips(dataset.samples) == {
        "crazing": ClassStrips(images=3, strips=2, largest=2),
        "patches": ClassStrips(images=2, strips=2, largest=1),
        "pitted_surface": ClassStrips(images=2, strips=1, largest=2),
    }
    found = find_mistakes(mistaken, dataset, protocol="leak-free", split="test")
    alone = dataclasses.replace(found[0], sample=dataset.samples[5])
    assert by_strip((alone, *found), dataset.split("leak-free", "test")) == (
        StripMistakes("s", "pitted_surface", 2, {"patches": 1, "crazing": 1}),
        StripMistakes("d", "crazing", 1, {"patches": 1}),
    )


def asked(dataset: Dataset, who: Canned, split: str = "test") -> Asked:
    return Asked(who, dataset, "leak-free", split, command="this command")


@pytest.mark.parametrize(
    ("data", "stem"),
    [("neu-cls", "mistakes-mobilesteelnet"), ("mill-a", "mistakes-mobilesteelnet-mill-a")],
)
def test_a_set_of_ones_own_does_not_overwrite_the_page_of_the_public_one(
    data: str, stem: str, dataset: Dataset, mistaken: Feeling
) -> None:
    assert asked(dataclasses.replace(dataset, name=data), mistaken).stem == stem


def heat(image: DecodedImage) -> np.ndarray:
    return np.zeros((image.height, image.width), np.float32)


def test_a_classifiers_page_tells_strips_and_images_and_shows_them(
    dataset: Dataset, mistaken: Feeling, tmp_path: Path
) -> None:
    found = find_mistakes(mistaken, dataset, protocol="leak-free", split="test")
    page = write_classes(tmp_path, asked(dataset, mistaken), found, heat=heat)
    text = page.read_text().splitlines()
    assert page.name == "mistakes-mobilesteelnet.md"
    assert any("3 images, 2 named wrongly, accuracy 33.3 %" in line for line in text)
    assert "| pitted surface | 0 / 0 / 0 | 0 / 0 / 0 | 2 / 1 / 2 | 2 | 1 |" in text
    assert "| crazing | 2 / 1 / 2 | 0 / 0 / 0 | 1 / 1 / 1 | 0 | 0 |" in text
    assert "| s | pitted surface | 2 | 2 | patches 1, crazing 1 |" in text
    name = Path(dataset.samples[4].file).stem
    alike = ", ".join(Path(dataset.samples[i].file).stem for i in (0, 2, 1))
    assert f"| {name} | s | pitted surface | patches | 0.70 | 0.20 | {alike} |" in text
    with PILImage.open(tmp_path / "mistakes-mobilesteelnet.png") as picture:
        assert picture.format == "PNG"


def test_a_page_without_mistakes_shows_no_picture(dataset: Dataset, tmp_path: Path) -> None:
    none: tuple[Mistake, ...] = ()
    knows = predictor(dataset, [(1.0, 0.0, 0.0)] * 7, [None] * 7)
    page = write_classes(tmp_path, asked(dataset, knows), none, heat=heat)
    assert "accuracy 100.0 %" in page.read_text()
    assert [path.name for path in tmp_path.iterdir()] == [page.name]


def test_a_segmenters_page_names_the_images_that_it_shows(
    tiny_neu_seg: Dataset, tmp_path: Path
) -> None:
    samples = tiny_neu_seg.split("leak-free", "test")
    truths = {s.sha256: read_mask(s, tiny_neu_seg.labels) for s in samples}
    knows = Canned("segment", tiny_neu_seg.labels, truths)
    page = write_masks(tmp_path, asked(tiny_neu_seg, knows))
    text = page.read_text()
    for sample in samples:
        assert f"| {Path(sample.file).stem} | {sample.group} | 100 |" in text
    assert "](mistakes-sme_deeplabv3plus.png)" in text
    assert (tmp_path / "mistakes-sme_deeplabv3plus.png").is_file()


def test_a_detectors_page_tells_what_it_loses_and_shows_labels_beside_findings(
    tiny_neu_det: Dataset, tmp_path: Path
) -> None:
    """All boxes are found but those of crazing, which are drawn at a quarter of their height."""
    answers = {}
    for sample in tiny_neu_det.samples:
        rows = []
        for name, (x1, y1, x2, y2) in sample.boxes:
            bottom = y1 + (y2 - y1) / 4 if name == "crazing" else y2
            rows.append((tiny_neu_det.labels.index(name), 0.9, x1, y1, x2, bottom))
        answers[sample.sha256] = rows
    knows = Canned("detect", tiny_neu_det.labels, answers)
    page = write_boxes(tmp_path, asked(tiny_neu_det, knows, "all"))
    text = page.read_text().splitlines()
    assert page.name == "mistakes-grace.md"
    assert any("12 images, mAP50 83.3 %." in line for line in text)  # five classes of six
    assert not any("nothing is chosen by it" in line for line in text)
    assert (
        "| class | AP50 (%) | place | class | class and place | twice | background | missed |"
        in text
    )
    assert "| crazing | 0.0 | 100.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 |" in text
    assert "| scratches | 100.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 | 0.0 |" in text
    assert any(line.startswith("| **mean** | 83.3 (") and "| 16.7 (" in line for line in text)
    hard = [s for s in tiny_neu_det.samples if s.boxes[0][0] == "crazing"]
    rows = [f"| {Path(s.file).stem} | {s.group} | 1 | 1 | 0 |" for s in hard]
    assert any(row in text for row in rows)
    # a tenth of twelve images is one, and one of each is shown
    assert any(line.startswith("The first is of the easiest tenth of the images") for line in text)
    with PILImage.open(tmp_path / "mistakes-grace.png") as picture:
        assert picture.format == "PNG"


def test_a_split_of_sound_steel_alone_has_nothing_that_a_detector_could_lose(
    tiny_neu_det: Dataset, tmp_path: Path
) -> None:
    sound = tuple(dataclasses.replace(sample, boxes=()) for sample in tiny_neu_det.samples)
    answers = {sample.sha256: [(0, 0.9, 10.0, 10.0, 50.0, 50.0)] for sample in sound}
    seen = asked(
        dataclasses.replace(tiny_neu_det, samples=sound),
        Canned("detect", tiny_neu_det.labels, answers),
    )
    with pytest.raises(DatasetError, match="neu-det has no defect in its test images under"):
        write_boxes(tmp_path, seen)


def test_a_model_of_another_task_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="a data set to classify: sme_deeplabv3plus is made to"):
        asked(dataset, Canned("segment", LABELS, {}))


def test_a_model_of_other_classes_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="canned knows crazing, dent; neu-cls has crazing, pat"):
        asked(dataset, Canned("classify", ("crazing", "dent"), {}))


def test_an_empty_split_is_refused(dataset: Dataset) -> None:
    with pytest.raises(DatasetError, match="neu-cls has no val images under protocol leak-free"):
        asked(dataset, Canned("classify", LABELS, {}), "val")


@pytest.mark.parametrize(
    ("protocol", "weights", "more"),
    [
        (ProtocolName.LEAK_FREE, None, ""),
        (ProtocolName.PAPER, None, " --protocol paper"),
        (ProtocolName.LEAK_FREE, Path("runs/my run/release"), " --weights 'runs/my run/release'"),
    ],
)
def test_the_command_on_the_page_writes_the_page_again(
    protocol: ProtocolName, weights: Path | None, more: str
) -> None:
    told = _command("grace", "neu-det", "val", protocol=protocol, weights=weights)
    usual = "python -m training benchmark mistakes grace --data neu-det --split val"
    assert told == usual + more


def test_the_command_tells_an_unprepared_set_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path))
    done = CliRunner().invoke(app, ["benchmark", "mistakes", "mobilesteelnet", "--data", "neu-cls"])
    assert done.exit_code == 1
    assert "is not prepared" in done.stderr
