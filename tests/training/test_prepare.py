"""Faulty files, original layouts and archives from strangers: what preparing makes of them."""

from __future__ import annotations

import csv
import io
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.errors import DatasetError, InputError
from core.images import ImageLimits
from tests.conftest import FIXTURES
from tests.training.gc10_miniature import jpeg, voc, write_gc10
from training._archive import open_source
from training._checks import AnnotationError, read_mask, read_voc
from training._in_the_making import folder_in_the_making
from training.datasets import open_dataset, prepare
from training.export import to_yolo_folder

NEU = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")


def kinds(report: object) -> Counter[str]:
    return Counter(fault.kind for fault in report.faults)  # type: ignore[attr-defined]


@pytest.fixture
def neu_det_copy(tmp_path: Path) -> Path:
    """The fixture set without its manifest, free to be damaged."""
    folder = tmp_path / "NEU-DET"
    shutil.copytree(FIXTURES / "neu-det", folder)
    (folder / "MANIFEST.csv").unlink()
    return folder


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


def test_an_image_beyond_the_limits_is_reported(neu_det_copy: Path, tmp_path: Path) -> None:
    limits = ImageLimits(max_pixels=200 * 200 - 1)
    with pytest.raises(DatasetError, match="no usable image of neu-det"):
        prepare("neu-det", neu_det_copy, tmp_path / "none", limits=limits)
    large = neu_det_copy / "images" / "crazing_59.jpg"
    with Image.open(large) as image:
        image.resize((400, 400)).save(large)
    limits = ImageLimits(max_pixels=200 * 200)
    report = prepare("neu-det", neu_det_copy, tmp_path / "out", limits=limits)
    assert kinds(report) == {"unreadable-image": 1}


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
    assert "groups: image content" in text


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


def test_the_same_box_given_twice_is_kept_once_and_reported() -> None:
    told: list[str] = []
    same = ("patches", (158, 68, 200, 158))
    other_class = ("inclusion", (158, 68, 200, 158))

    boxes = read_voc(
        voc([same, other_class, same], width=200, height=200),
        size=(200, 200),
        label_of=lambda name: name,
        report=lambda k, _: told.append(k),
    )

    assert [label for label, _ in boxes] == ["patches", "inclusion"]
    assert told == ["duplicate-box"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xd8\xff", id="a JPEG"),
        pytest.param(b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', id="entities"),
        pytest.param(
            '<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'.encode("utf-16"), id="entities in UTF-16"
        ),
        pytest.param(b"<a>" + b" " * 1024**2 + b"</a>", id="over one MiB"),
        pytest.param(b'<?xml version="1.0" encoding="no-such"?><a/>', id="unknown encoding"),
    ],
)
def test_what_is_no_voc_file_is_refused(data: bytes) -> None:
    with pytest.raises(AnnotationError) as refusal:
        read_voc(data, size=(2, 2), label_of=str, report=lambda *_: None)
    assert refusal.value.kind == "unreadable-annotation"


def test_a_voc_file_in_utf_16_is_read() -> None:
    data = voc([("patches", (1, 1, 200, 100))], width=200, height=100).decode()

    boxes = read_voc(
        data.encode("utf-16"), size=(200, 100), label_of=lambda name: name, report=lambda *_: None
    )

    assert boxes == (("patches", (0.0, 0.0, 200.0, 100.0)),)


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


def test_the_same_bytes_share_a_group_whatever_the_manifest_says(tmp_path: Path) -> None:
    """Or one of the two might be trained on and the other tested with."""
    shutil.copytree(FIXTURES / "x-sdd", tmp_path / "x-sdd")
    manifest = tmp_path / "x-sdd" / "MANIFEST.csv"
    rows = list(csv.DictReader(manifest.read_text("utf-8").splitlines()))
    one, other = [row for row in rows if row["class"] == "red iron"][:2]
    assert one["group"] != other["group"]
    shutil.copyfile(tmp_path / "x-sdd" / one["path"], tmp_path / "x-sdd" / other["path"])
    other["sha256"] = one["sha256"]
    with manifest.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(one))
        writer.writeheader()
        writer.writerows(rows)

    report = prepare("x-sdd", tmp_path / "x-sdd", tmp_path / "out")

    assert kinds(report) == {"duplicate-image": 1}
    samples = open_dataset("x-sdd", tmp_path / "out").samples
    twins = [sample for sample in samples if sample.sha256 == one["sha256"]]
    assert [sample.group for sample in twins] == [one["group"]] * 2


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


def test_without_a_manifest_overlapping_crops_of_one_strip_share_a_group(tmp_path: Path) -> None:
    source = tmp_path / "NEU-CLS"
    source.mkdir()
    strip = Image.open(io.BytesIO(jpeg(1, width=280, height=240)))
    strip.crop((0, 0, 200, 200)).save(source / "crazing_1.png")
    strip.crop((80, 40, 280, 240)).save(source / "crazing_2.png")  # overlap 0.6 x 0.8 = 48 %
    (source / "crazing_3.jpg").write_bytes(jpeg(2, width=200, height=200))

    report = prepare("neu-cls", source, tmp_path / "out")

    groups = [sample.group for sample in open_dataset("neu-cls", tmp_path / "out").samples]
    assert groups == ["c-crazing_1.png", "c-crazing_1.png", "c-crazing_3.jpg"]
    assert "shift search" in report.grouping


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


def test_images_whose_names_differ_in_the_ending_alone_keep_their_own_labels(
    tmp_path: Path,
) -> None:
    for number, (folder, ending) in enumerate((("a", "jpg"), ("b", "png"), ("c", "jpg"))):
        (tmp_path / "in" / folder).mkdir(parents=True)
        picture = Image.open(io.BytesIO(jpeg(number, width=200, height=200)))
        name = "crazing_2" if folder == "c" else "crazing_1"
        picture.save(tmp_path / "in" / folder / f"{name}.{ending}")
        boxes = [("crazing", (1, 1, 10 + number, 20))]
        xml = voc(boxes, width=200, height=200)
        (tmp_path / "in" / folder / f"{name}.xml").write_bytes(xml)

    prepare("neu-det", tmp_path / "in", tmp_path / "out")

    dataset = open_dataset("neu-det", tmp_path / "out")
    to_yolo_folder(dataset, "paper", tmp_path / "yolo", splits=("all",))
    widths = {
        file.stem: round(200 * float(file.read_text().split()[3]))
        for file in (tmp_path / "yolo" / "labels" / "all").iterdir()
    }
    assert widths == {"crazing_1": 10, "b_crazing_1": 11, "crazing_2": 12}


# --- a set that is there already ------------------------------------------------------------------


class ToldToEnd(BaseException):
    """As SIGTERM raises it: no error, and at any moment."""


def test_told_to_end_between_two_renames_the_set_before_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = prepare("x-sdd", FIXTURES / "x-sdd", tmp_path).dataset_id
    rename = Path.rename

    def rename_or_end(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise ToldToEnd
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_or_end)
    with pytest.raises(ToldToEnd):
        prepare("x-sdd", FIXTURES / "x-sdd", tmp_path, seed=1)

    assert open_dataset("x-sdd", tmp_path).id == before
    assert [path.name for path in tmp_path.iterdir()] == ["x-sdd"]


def test_what_a_killed_process_left_is_put_back_and_removed(tmp_path: Path) -> None:
    before = prepare("x-sdd", FIXTURES / "x-sdd", tmp_path).dataset_id
    killed, others = tmp_path / ".x-sdd-a1b2c3d4", tmp_path / ".x-sdd-b-a1b2c3d4"
    killed.mkdir()
    others.mkdir()
    (tmp_path / "x-sdd").rename(killed / "old")

    with pytest.raises(DatasetError, match="no usable image"):
        prepare("x-sdd", _one_broken(tmp_path / "source"), tmp_path)

    assert open_dataset("x-sdd", tmp_path).id == before
    assert not killed.exists()
    assert others.exists()  # of a set called x-sdd-b


def test_two_processes_do_not_prepare_one_set_at_a_time(tmp_path: Path) -> None:
    with (
        folder_in_the_making(tmp_path, "x-sdd"),
        pytest.raises(DatasetError, match="x-sdd is being prepared by another process"),
    ):
        prepare("x-sdd", FIXTURES / "x-sdd", tmp_path)


def _one_broken(folder: Path) -> Path:
    folder.mkdir()
    (folder / "1.jpg").write_bytes(b"no picture")
    return folder


# --- archives from strangers ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["../out.jpg", "/etc/a.jpg", "a/../../b.jpg", "C:\\a.jpg", "..\\a"]
)
def test_a_zip_with_a_path_that_leaves_it_is_refused(path: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as archive:
        archive.writestr(path, jpeg(0))

    with pytest.raises(DatasetError, match="leaves the archive: pack it anew, or take it"):
        prepare("x-sdd", tmp_path / "bad.zip", tmp_path / "out")


def test_a_source_that_is_not_there_is_asked_for_whosever_pictures_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"No data at .*mill\.zip: give a zip or a folder\.$"):
        prepare("mill-a", tmp_path / "mill.zip", tmp_path / "out", task="detect")


def test_a_zip_with_a_member_that_is_no_name_holds_no_image(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "odd.zip", "w") as archive:
        archive.writestr(".", b"")

    with pytest.raises(DatasetError, match="No images of x-sdd"):
        prepare("x-sdd", tmp_path / "odd.zip", tmp_path / "out")


def test_a_zip_of_a_later_format_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "later.zip", "w") as archive:
        archive.writestr("a.jpg", jpeg(0))
    data = bytearray((tmp_path / "later.zip").read_bytes())
    data[data.index(b"PK\1\2") + 6] = 99  # version needed to extract: 9.9
    (tmp_path / "later.zip").write_bytes(data)

    with pytest.raises(DatasetError, match="cannot be opened as a zip"):
        open_source(tmp_path / "later.zip")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=["bzip2", "lzma"])
def test_a_member_that_would_unpack_at_once_is_reported_and_not_read(
    method: int, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "x-sdd.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"red iron/{number}.jpg", jpeg(number))
        archive.writestr("red iron/bomb.jpg", bytes(10_000_000), compress_type=method)

    assert kinds(prepare("x-sdd", tmp_path / "x-sdd.zip", tmp_path / "out")) == {
        "unreadable-image": 1
    }
    with pytest.raises(InputError, match="compressed in a way that is not read here"):
        open_source(tmp_path / "x-sdd.zip").read("red iron/bomb.jpg")


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


def test_a_file_name_that_is_no_text_is_named_and_refused(tmp_path: Path) -> None:
    """As from a disk of an older Windows; no list of files could hold it."""
    folder = tmp_path / "x-sdd"
    shutil.copytree(FIXTURES / "x-sdd", folder)
    (Path(os.fsdecode(bytes(folder) + b"/Fl\xe4che.jpg"))).write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"not UTF-8 \(1, the first 'Fl\\udce4che.jpg'\)"):
        prepare("x-sdd", folder, tmp_path / "out")


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
