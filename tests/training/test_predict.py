from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import InputError
from core.images import ImageLimits
from core.types import DecodedImage, Prediction
from tests.training.canned import Canned
from training import predict
from training.predict import predict_folder
from training.predictions import decode_file, write_document

LABELS = ("spot", "line")


def draw(folder: Path, *names: str, size: tuple[int, int] = (6, 4)) -> Path:
    """Images of width 6 and height 4, unless asked otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, name in enumerate(names):
        Image.fromarray(np.full((size[1], size[0]), index, np.uint8)).save(folder / name)
    return folder


def read(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / "predictions.json").read_text())
    return document


def test_detections_are_written_as_the_contract_says(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.jpg")
    predictor = Canned("detect", LABELS, [[(1, 0.75, 1, 0.5, 5, 4), (0, 0.25, 0, 0, 2, 2)]])
    assert predict_folder(predictor, images, tmp_path / "out", score_threshold=0.2) == (1, 0)
    assert read(tmp_path / "out") == {
        "task": "detect",
        "model": "grace",
        "revision": "canned",
        "labels": ["spot", "line"],
        "images": [
            {
                "file": "a.jpg",
                "width": 6,
                "height": 4,
                "detections": [
                    {"label": "line", "score": 0.75, "box": [1.0, 0.5, 5.0, 4.0]},
                    {"label": "spot", "score": 0.25, "box": [0.0, 0.0, 2.0, 2.0]},
                ],
            }
        ],
    }
    assert predictor.thresholds == [0.2]


def test_class_maps_are_index_masks_of_the_source_size(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.png")
    class_map = np.array([[0, 1, 2, 0, 0, 0]] * 4)
    predict_folder(Canned("segment", LABELS, [class_map]), images, tmp_path / "out")
    assert read(tmp_path / "out")["images"] == [
        {"file": "a.png", "width": 6, "height": 4, "mask": "masks/a.png"}
    ]
    with Image.open(tmp_path / "out" / "masks" / "a.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), class_map)


def test_probabilities_are_named(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.png")
    predict_folder(Canned("classify", LABELS, [(0.75, 0.25)]), images, tmp_path / "out")
    assert read(tmp_path / "out")["images"] == [
        {"file": "a.png", "width": 6, "height": 4, "probabilities": {"spot": 0.75, "line": 0.25}}
    ]


def test_an_unreadable_image_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.png", "c.png")
    (images / "b.png").write_bytes(b"not an image")
    (images / "d.jpg").write_bytes((images / "a.png").read_bytes()[:40])
    predictor = Canned("classify", LABELS, [(1, 0), (0, 1)])
    assert predict_folder(predictor, images, tmp_path / "out") == (4, 2)
    entries = read(tmp_path / "out")["images"]
    assert [entry["file"] for entry in entries] == ["a.png", "b.png", "c.png", "d.jpg"]
    assert [sorted(entry) for entry in entries[1::2]] == [["error", "file"]] * 2
    assert entries[2]["probabilities"] == {"spot": 0.0, "line": 1.0}


def test_a_link_that_leads_nowhere_is_told_as_an_unreadable_image(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.png")
    (images / "b.png").symlink_to("moved.png")
    assert predict_folder(Canned("classify", LABELS, [(1, 0)]), images, tmp_path / "out") == (2, 1)
    assert read(tmp_path / "out")["images"][1] == {
        "file": "b.png",
        "error": "'b.png' cannot be opened: it is not there; an image file is.",
    }


def test_images_of_the_longest_names_have_masks(tmp_path: Path) -> None:
    stem = "ü" * 125  # 250 bytes, of 255 that a name may have
    images = draw(tmp_path / "in", f"{stem}.bmp", f"{stem}.png")
    maps = [np.full((4, 6), index) for index in (1, 2)]
    assert predict_folder(Canned("segment", LABELS, maps), images, tmp_path / "out") == (2, 0)
    masks = [entry["mask"] for entry in read(tmp_path / "out")["images"]]
    assert masks == [f"masks/{'ü' * 120}.png", f"masks/{'ü' * 120}-2.png"]
    for mask, number in zip(masks, (1, 2), strict=True):
        with Image.open(tmp_path / "out" / mask) as picture:
            assert picture.getextrema() == (number, number)


def test_images_of_one_stem_get_masks_of_their_own(tmp_path: Path) -> None:
    names = ["A.bmp", "a.jpg", "a.png", "a.png.tif", "b.png"]
    images = draw(tmp_path / "in", *names)
    class_maps = [np.full((4, 6), index % 3) for index in range(5)]
    predict_folder(Canned("segment", LABELS, class_maps), images, tmp_path / "out")
    entries = read(tmp_path / "out")["images"]
    masks = [entry["mask"] for entry in entries]
    assert [entry["file"] for entry in entries] == names
    assert masks == [
        "masks/A.bmp.png",
        "masks/a.jpg.png",
        "masks/a.png.png",
        "masks/a.png-2.png",
        "masks/b.png",
    ]
    for mask, class_map in zip(masks, class_maps, strict=True):
        with Image.open(tmp_path / "out" / mask) as picture:
            assert np.array_equal(np.asarray(picture), class_map)


def test_more_images_than_one_batch_keep_their_order(tmp_path: Path) -> None:
    names = [f"{index:02}.png" for index in range(35)]
    images = draw(tmp_path / "in", *names)
    answers = {
        sha256((images / name).read_bytes()).hexdigest(): (index / 40, 1 - index / 40)
        for index, name in enumerate(names)
    }
    predict_folder(Canned("classify", LABELS, answers), images, tmp_path / "out")
    entries = read(tmp_path / "out")["images"]
    assert [entry["file"] for entry in entries] == names
    seen = [entry["probabilities"]["spot"] for entry in entries]
    assert seen == pytest.approx([index / 40 for index in range(35)])


def test_other_files_and_sub_folders_are_passed_over(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.PNG")
    draw(images / "inner.png", "b.png")
    (images / "notes.txt").write_text("")
    (images / "._a.PNG").write_bytes(b"\0\5\x16\7")  # a Mac's, beside the picture
    predict_folder(Canned("classify", LABELS, [(1, 0)]), images, tmp_path / "out")
    assert [entry["file"] for entry in read(tmp_path / "out")["images"]] == ["a.PNG"]


def test_an_earlier_file_stays_whole_until_the_new_one_is_done(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.png", "b.png")
    output = tmp_path / "out"
    predict_folder(Canned("classify", LABELS, [(1, 0)] * 2), images, output)
    before = (output / "predictions.json").read_bytes()
    with pytest.raises(IndexError):  # the predictor breaks at the second image
        predict_folder(Canned("classify", LABELS, [(0, 1)]), images, output)
    assert (output / "predictions.json").read_bytes() == before
    assert [path.name for path in output.iterdir()] == ["predictions.json"]


def test_an_earlier_file_whose_masks_are_written_over_is_no_longer_there(tmp_path: Path) -> None:
    """Killed half-way, another model's masks lay under the names of the one before."""
    images = draw(tmp_path / "in", "a.png", "b.png")
    output = tmp_path / "out"
    maps = [np.full((24, 32), k, np.uint8) for k in (0, 1)]
    predict_folder(Canned("segment", LABELS, maps[:1] * 2), images, output)
    with pytest.raises(IndexError):  # the predictor breaks at the second image
        predict_folder(Canned("segment", LABELS, maps[1:]), images, output)
    assert not (output / "predictions.json").exists()


def test_what_a_killed_prediction_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.png")
    (tmp_path / "out").mkdir()
    for name in (".predictions.json.a1b2c3_4", ".predictions.json.at_work_"):
        (tmp_path / "out" / name).write_text("[")
    os.utime(tmp_path / "out" / ".predictions.json.a1b2c3_4", (0, 0))
    predict_folder(Canned("classify", LABELS, [(1, 0)]), images, tmp_path / "out")
    left = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert left == [".predictions.json.at_work_", "predictions.json"]


def test_entries_reach_the_disk_as_they_come_and_make_one_json_document(tmp_path: Path) -> None:
    entries = [{"file": f"{k}.png", "detections": [{"label": "ö", "box": [1.5]}]} for k in range(3)]
    sizes: list[int] = []

    def coming():
        for entry in entries:
            [part] = tmp_path.glob(".predictions.json.*")
            sizes.append(part.stat().st_size)
            yield {**entry, "note": "x" * 20_000}  # more than a file's buffer holds

    tally = write_document(Canned("detect", ("ö",), []), coming(), tmp_path)
    assert tally == (3, 0)
    assert sizes[0] < sizes[1] < sizes[2]
    text = (tmp_path / "predictions.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1)
    assert [entry["file"] for entry in read(tmp_path)["images"]] == ["0.png", "1.png", "2.png"]


@pytest.mark.parametrize(
    ("images", "says"),
    [
        pytest.param("missing", "is not a folder", id="no folder"),
        pytest.param("empty", "holds no PNG, JPEG", id="no image"),
    ],
)
def test_without_images_there_is_one_sentence(tmp_path: Path, images: str, says: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=says):
        predict_folder(Canned("classify", LABELS, []), tmp_path / images, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.png")
    (tmp_path / "out").write_text("")
    with pytest.raises(InputError, match="Cannot write to"):
        predict_folder(Canned("classify", LABELS, [(1, 0)]), images, tmp_path / "out")


def test_an_image_beyond_the_limits_is_told_and_the_others_are_done(tmp_path: Path) -> None:
    images = draw(tmp_path / "in", "a.png")
    draw(tmp_path / "in", "b.png", size=(10, 10))
    predictor = Canned("classify", LABELS, [(0.25, 0.75)])
    limits = ImageLimits(max_pixels=99)
    assert predict_folder(predictor, images, tmp_path / "out", limits=limits) == (2, 1)
    first, second = read(tmp_path / "out")["images"]
    assert first["probabilities"] == {"spot": 0.25, "line": 0.75}
    assert second["file"] == "b.png"
    assert "10 × 10 =" in second["error"]


def test_the_next_images_are_decoded_while_a_batch_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = draw(tmp_path / "in", *(f"{i:02}.png" for i in range(17)))  # a batch of 16, and one
    decoded = threading.Event()

    def decode(file: Path, limits: ImageLimits) -> DecodedImage | InputError:
        found = decode_file(file, limits)
        if file.name == "16.png":
            decoded.set()
        return found

    monkeypatch.setattr(predict, "decode_file", decode)
    answers = Canned("classify", LABELS, [[0.5, 0.5]] * 17)

    class Waiting:
        spec, revision, labels = answers.spec, answers.revision, answers.labels

        def __call__(
            self, batch: Sequence[DecodedImage], *, score_threshold: float
        ) -> list[Prediction]:
            assert decoded.wait(60)  # the seventeenth, during the pass of the first sixteen
            return answers(batch, score_threshold=score_threshold)

    assert predict_folder(Waiting(), images, tmp_path / "out") == (17, 0)
    assert len(read(tmp_path / "out")["images"]) == 17
