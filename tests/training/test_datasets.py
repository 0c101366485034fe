from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import DatasetError
from tests.conftest import FIXTURES, full_data_folder
from training.datasets import Dataset, open_dataset, prepare
from training.splits import SPLITS

HAS_FULL = full_data_folder() is not None
NEU = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")

# name: images, groups, version. A change of version moves test images: every published number of
# that set would have to be measured again.
EXPECTED = {
    "neu-det": (1620, 680, "7022daea3f3e") if HAS_FULL else (12, 12, "b4222dd39a6e"),
    "neu-cls": (1620, 680, "eac03458b7f9") if HAS_FULL else (12, 12, "683c644405d1"),
    "neu-seg": (3324, 500, "262d8ae08d95") if HAS_FULL else (6, 6, "60cc2091c00d"),
    "x-sdd": (1225, 1206, "cbde9e0b8598") if HAS_FULL else (21, 21, "c289d1f47898"),
}


# --- the public sets -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_images_groups_and_frozen_splits_are_the_known_ones(
    name: str, full_dataset: Callable[[str], Dataset]
) -> None:
    dataset = full_dataset(name)
    images, groups, version = EXPECTED[name]

    assert len(dataset.samples) == images
    assert len({sample.group for sample in dataset.samples}) == groups
    assert dataset.id[:12] == version


@pytest.mark.parametrize("name", EXPECTED)
def test_no_group_and_no_picture_is_in_two_leak_free_splits(
    name: str, full_dataset: Callable[[str], Dataset]
) -> None:
    samples = full_dataset(name).samples

    for identity in ("group", "sha256"):
        pairs = {(getattr(s, identity), s.splits["leak-free"]) for s in samples}
        assert len(pairs) == len({getattr(s, identity) for s in samples})


def test_neu_det_boxes_are_those_of_its_readme(full_dataset: Callable[[str], Dataset]) -> None:
    boxes = Counter(label for s in full_dataset("neu-det").samples for label, _ in s.boxes)

    # README: 618, 921, 796, 387, 573, 504 = 3799; inclusion_62 and patches_198 repeat one box each
    full = dict(zip(NEU, (618, 920, 795, 387, 573, 504), strict=True))
    tiny = dict(zip(NEU, (2, 5, 5, 4, 4, 3), strict=True))
    assert boxes == (full if HAS_FULL else tiny)


def test_neu_det_splits_have_the_sizes_of_their_protocols(
    full_dataset: Callable[[str], Dataset],
) -> None:
    dataset = full_dataset("neu-det")

    sizes = [len(dataset.split(p, s)) for p in ("paper", "leak-free") for s in SPLITS]
    # 1620 images: 8:1:1, and 70/10/20
    full, tiny = [1296, 162, 162, 1134, 162, 324], [10, 1, 1, 9, 1, 2]
    assert sizes == (full if HAS_FULL else tiny)


def test_neu_cls_has_the_leak_free_split_of_neu_det(
    full_dataset: Callable[[str], Dataset],
) -> None:
    boxes, classes = full_dataset("neu-det"), full_dataset("neu-cls")

    assert [(s.sha256, s.splits["leak-free"]) for s in boxes.samples] == [
        (s.sha256, s.splits["leak-free"]) for s in classes.samples
    ]
    assert boxes.test_id("leak-free", "test") == classes.test_id("leak-free", "test")


def test_x_sdd_classes_are_those_of_its_readme(full_dataset: Callable[[str], Dataset]) -> None:
    counts = Counter(sample.label for sample in full_dataset("x-sdd").samples)

    full = (183, 110, 57, 183, 357, 214, 121)
    expected = dict(zip(full_dataset("x-sdd").labels, full if HAS_FULL else [3] * 7, strict=True))
    assert counts == expected


def test_neu_seg_paper_split_keeps_the_original_test_part(
    full_dataset: Callable[[str], Dataset],
) -> None:
    test = full_dataset("neu-seg").split("paper", "test")

    assert len(test) == (585 if HAS_FULL else 2)
    assert all(sample.file.startswith("test_") for sample in test)
    assert all(sample.mask is not None and sample.mask.is_file() for sample in test)


# --- opening -------------------------------------------------------------------------------------


def test_opening_a_set_that_is_not_prepared_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="python -m training prepare neu-det --source"):
        open_dataset("neu-det", tmp_path)


def test_opening_a_damaged_index_says_to_prepare_again(
    tiny_data_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_data_root / "neu-seg", tmp_path / "neu-seg")
    (tmp_path / "neu-seg" / "samples.jsonl").write_text('{"file": "a.jpg"}\n')

    with pytest.raises(DatasetError, match="prepare it again"):
        open_dataset("neu-seg", tmp_path)


def test_joined_splits_and_all_are_unions(tiny_neu_det: Dataset) -> None:
    assert len(tiny_neu_det.split("leak-free", "val+test")) == 3  # 1 + 2
    assert len(tiny_neu_det.split("leak-free", "all")) == 12


@pytest.mark.parametrize(
    ("protocol", "split", "message"),
    [
        pytest.param("random", "test", "Unknown protocol 'random'", id="protocol"),
        pytest.param("paper", "dev", "Unknown split 'dev'", id="split"),
        pytest.param("paper", "val+dev", r"Unknown split 'val\+dev'", id="joined split"),
    ],
)
def test_an_unknown_split_is_refused(
    tiny_neu_det: Dataset, protocol: str, split: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        tiny_neu_det.split(protocol, split)


def test_preparing_again_in_another_place_gives_the_same_version(
    tiny_neu_det: Dataset, tmp_path: Path
) -> None:
    first = prepare("neu-det", FIXTURES / "neu-det", tmp_path)
    second = prepare("neu-det", FIXTURES / "neu-det", tmp_path)

    assert first.dataset_id == second.dataset_id == tiny_neu_det.id
    assert [path.name for path in tmp_path.iterdir()] == ["neu-det"]


def test_a_zip_and_its_folder_give_the_same_version(tiny_x_sdd: Dataset, tmp_path: Path) -> None:
    packed = Path(shutil.make_archive(str(tmp_path / "x-sdd"), "zip", FIXTURES / "x-sdd"))

    assert prepare("x-sdd", packed, tmp_path / "out").dataset_id == tiny_x_sdd.id


def test_an_unknown_data_set_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="Available: gc10-det, neu-cls, neu-det"):
        prepare("neu", FIXTURES / "neu-det", tmp_path)


def test_a_source_without_images_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    with pytest.raises(DatasetError, match="No images of neu-det"):
        prepare("neu-det", tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out" / "neu-det").exists()
