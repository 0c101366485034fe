from __future__ import annotations

import csv
import io
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import DatasetError
from tests.conftest import FIXTURES, full_data_folder
from tests.training.gc10_miniature import jpeg, voc, write_gc10
from training._archive import open_source
from training._checks import AnnotationError, read_mask, read_voc
from training.datasets import Dataset, open_dataset, prepare

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


def kinds(report: object) -> Counter[str]:
    return Counter(fault.kind for fault in report.faults)  # type: ignore[attr-defined]


@pytest.fixture
def neu_det_copy(tmp_path: Path) -> Path:
    """The fixture set without its manifest, free to be damaged."""
    folder = tmp_path / "NEU-DET"
    shutil.copytree(FIXTURES / "neu-det", folder)
    (folder / "MANIFEST.csv").unlink()
    return folder


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

    sizes = [len(dataset.split(p, s)) for p in ("paper", "leak-free") for s in EXPECTED_SPLITS]
    # 1620 images: 8:1:1, and 70/10/20
    full, tiny = [1296, 162, 162, 1134, 162, 324], [10, 1, 1, 9, 1, 2]
    assert sizes == (full if HAS_FULL else tiny)


EXPECTED_SPLITS = ("train", "val", "test")


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


# --- faulty files --------------------------------------------------------------------------------


def test_a_broken_file_is_reported_and_nothing_else_is_lost(
    neu_det_copy: Path, tmp_path: Path
) -> None:
    images, annotations = neu_det_copy / "images", neu_det_copy / "annotations"
    cut = images / "crazing_59.jpg"
    cut.write_bytes(cut.read_bytes()[:500])
    (annotations / "inclusion_194.xml").write_text("<annotation><object>")
    (annotations / "patches_4.xml").unlink()
    (annotations / "scratches_125.xml").write_bytes(voc([], width=416, height=416))

    report = prepare("neu-det", neu_det_copy, tmp_path / "out")

    assert kinds(report) == {
        "unreadable-image": 1,
        "unreadable-annotation": 1,
        "missing-annotation": 1,
        "size-differs": 1,
    }
    assert report.images == 8  # 12 - 4
    assert len(open_dataset("neu-det", tmp_path / "out").samples) == 8


def test_an_image_that_differs_from_its_manifest_is_left_out(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "x-sdd", tmp_path / "x-sdd")
    (tmp_path / "x-sdd/images/red iron/2277.jpg").write_bytes(jpeg(1))
    (tmp_path / "x-sdd/images/red iron/2320.jpg").unlink()

    report = prepare("x-sdd", tmp_path / "x-sdd", tmp_path / "out")

    assert kinds(report) == {"checksum": 1, "missing-image": 1}
    assert report.images == 19


def test_masks_that_do_not_fit_are_left_out_with_their_images(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "neu-seg", tmp_path / "neu-seg")
    masks = tmp_path / "neu-seg" / "annotations" / "training"
    Image.fromarray(np.full((200, 200), 9, np.uint8)).save(masks / "001009.png")
    Image.fromarray(np.zeros((100, 200), np.uint8)).save(masks / "001472.png")
    (masks / "001538.png").unlink()
    (masks / "003626.png").write_bytes(b"not a mask")

    report = prepare("neu-seg", tmp_path / "neu-seg", tmp_path / "out")

    assert kinds(report) == {
        "mask-values": 1,
        "size-differs": 1,
        "missing-mask": 1,
        "unreadable-mask": 1,
    }
    assert report.images == 2


def test_the_report_is_a_table_with_counts_faults_and_what_was_done(
    neu_det_copy: Path, tmp_path: Path
) -> None:
    (neu_det_copy / "annotations" / "patches_4.xml").unlink()

    text = prepare("neu-det", neu_det_copy, tmp_path / "out").render()

    assert "neu-det: 11 images in 11 groups" in text
    assert "missing-annotation" in text
    assert "images/patches_4.jpg: no XML of that name" in text
    assert "overlapping crops" in text


# --- annotations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corners", "expected", "kind"),
    [
        # 1-based inclusive: x1 - 1, y1 - 1, x2, y2
        pytest.param((1, 1, 200, 100), (0, 0, 200, 100), None, id="whole image"),
        pytest.param((11, 21, 11, 21), (10, 20, 11, 21), None, id="one pixel"),
        pytest.param((0, 1, 10, 10), (0, 0, 10, 10), "box-clipped", id="left of the image"),
        pytest.param((191, 91, 210, 110), (190, 90, 200, 100), "box-clipped", id="sticks out"),
        pytest.param((201, 1, 220, 50), None, "box-dropped", id="outside"),
        pytest.param((50, 50, 20, 80), None, "box-dropped", id="inverted"),
        pytest.param((51, 50, 50, 80), None, "box-dropped", id="empty"),
        pytest.param(("nan", 50, 60, 80), None, "box-dropped", id="not a number"),
        pytest.param(("", 50, 60, 80), None, "box-dropped", id="no number"),
    ],
)
def test_voc_corners_become_pixel_edges_inside_the_image(
    corners: tuple[int, int, int, int],
    expected: tuple[float, float, float, float] | None,
    kind: str | None,
) -> None:
    told: list[str] = []
    data = voc([("patches", corners)], width=200, height=100)

    boxes = read_voc(
        data, size=(200, 100), label_of=lambda name: name, report=lambda k, _: told.append(k)
    )

    assert boxes == ((("patches", expected),) if expected else ())
    assert told == ([kind] if kind else [])


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xd8\xff", id="a JPEG"),
        pytest.param(b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', id="entities"),
        pytest.param(b"<a>" + b" " * 1024**2 + b"</a>", id="over one MiB"),
        pytest.param(b'<?xml version="1.0" encoding="no-such"?><a/>', id="unknown encoding"),
    ],
)
def test_what_is_no_voc_file_is_refused(data: bytes) -> None:
    with pytest.raises(AnnotationError) as refusal:
        read_voc(data, size=(2, 2), label_of=str, report=lambda *_: None)
    assert refusal.value.kind == "unreadable-annotation"


def test_a_palette_mask_gives_its_indices() -> None:
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    out = io.BytesIO()
    image.save(out, "PNG")

    assert read_mask(out.getvalue(), size=(2, 2), n_classes=3).tolist() == [[0, 1], [2, 3]]


# --- original layouts ----------------------------------------------------------------------------


def test_train_and_validation_folders_with_class_folders_are_read(tmp_path: Path) -> None:
    source = tmp_path / "NEU-DET"
    for image in sorted((FIXTURES / "neu-det" / "images").iterdir()):
        part = "validation" if image.stem in ("crazing_59", "patches_4") else "train"
        folder = source / part / "images" / image.stem.rsplit("_", 1)[0]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, folder)
        (source / part / "annotations").mkdir(exist_ok=True)
        xml = FIXTURES / "neu-det" / "annotations" / f"{image.stem}.xml"
        shutil.copy(xml, source / part / "annotations")

    report = prepare("neu-det", source, tmp_path / "out")

    assert (report.images, report.count("paper", "inclusion"), report.faults) == (12, 5, ())


def test_the_classification_release_with_its_prefixes_is_read(tmp_path: Path) -> None:
    source = tmp_path / "NEU-CLS"
    source.mkdir()
    for k, prefix in enumerate(("Cr", "In", "Pa", "PS", "RS", "Sc")):
        for i in (1, 2, 3):
            (source / f"{prefix}_{i}.jpg").write_bytes(jpeg(10 * k + i, width=64, height=64))

    report = prepare("neu-cls", source, tmp_path / "out")

    assert [report.count("paper", label) for label in NEU] == [3] * 6


def test_without_a_manifest_turned_and_mirrored_copies_share_a_group(tmp_path: Path) -> None:
    source = tmp_path / "X-SDD" / "datas" / "red iron sheet"
    source.mkdir(parents=True)
    picture = Image.open(io.BytesIO(jpeg(1, width=64, height=64)))
    picture.save(source / "1.png")
    picture.rotate(90).save(source / "2.png")
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(source / "3.png")
    picture.rotate(180).save(source / "4.jpg", quality=70)  # near, not identical
    (source / "5.jpg").write_bytes(jpeg(2, width=64, height=64))

    report = prepare("x-sdd", tmp_path / "X-SDD", tmp_path / "out")

    samples = open_dataset("x-sdd", tmp_path / "out").samples
    groups = [sample.group for sample in samples]
    assert groups[0] == groups[1] == groups[2] == groups[3] != groups[4]
    assert {sample.label for sample in samples} == {"red iron"}
    assert report.grouping.startswith("image content")


def test_gc10_is_read_in_its_original_layout_with_its_faults(tmp_path: Path) -> None:
    report = prepare("gc10-det", write_gc10(tmp_path / "gc10"), tmp_path / "out")

    assert kinds(report) == {
        "duplicate-file": 1,
        "missing-annotation": 1,
        "no-object": 1,
        "unknown-label": 1,
        "box-clipped": 1,
        "unreadable-image": 1,
    }
    assert report.images == 43  # 10 x 4, and no object, odd name, outside
    boxes = [report.count("paper", label) for label in report.labels]
    assert boxes == [4, 4, 4, 4, 5, 5, 4, 4, 4, 4]
    assert report.labels[-1] == "waist_folding"  # all three spellings of class 10


# --- archives from strangers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["../out.jpg", "/etc/a.jpg", "a/../../b.jpg", "C:\\a.jpg", "..\\a"]
)
def test_a_zip_with_a_path_that_leaves_it_is_refused(path: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(path, jpeg(0))

    with pytest.raises(DatasetError, match="leaves the archive"):
        prepare("x-sdd", tmp_path / "bad.zip", tmp_path / "out")


def test_a_zip_that_would_unpack_to_more_than_the_cap_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training._archive.MAX_TOTAL_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jpg", bytes(1001))

    with pytest.raises(DatasetError, match="would unpack to 1001 bytes; at most 1000"):
        open_source(tmp_path / "bomb.zip")


def test_a_member_with_a_wrong_checksum_is_reported_and_the_rest_kept(tmp_path: Path) -> None:
    packed = tmp_path / "x-sdd.zip"
    shutil.make_archive(str(packed.with_suffix("")), "zip", FIXTURES / "x-sdd")
    with zipfile.ZipFile(packed) as archive:
        offset = archive.getinfo("images/red iron/2277.jpg").header_offset
    data = bytearray(packed.read_bytes())
    data[offset + 4000] ^= 0xFF  # inside the member's compressed bytes
    packed.write_bytes(data)

    report = prepare("x-sdd", packed, tmp_path / "out")

    assert kinds(report) == {"unreadable-image": 1}
    assert report.images == 20


def test_a_link_that_leads_out_of_a_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(0))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.jpg").symlink_to(tmp_path / "secret.jpg")

    assert open_source(tmp_path / "set").names() == ()


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"PK but no more")

    with pytest.raises(DatasetError, match="cannot be opened as a zip"):
        open_source(tmp_path / "a.zip")


def test_a_manifest_without_paths_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "x-sdd", tmp_path / "x-sdd")
    with (tmp_path / "x-sdd" / "MANIFEST.csv").open("w") as file:
        csv.writer(file).writerows([["name"], ["a.jpg"]])

    with pytest.raises(DatasetError, match="column 'path'"):
        prepare("x-sdd", tmp_path / "x-sdd", tmp_path / "out")
