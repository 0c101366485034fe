"""A mill's own pictures in every format that is read: the same boxes and areas from each."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from core.errors import DatasetError
from core.geometry import encode_rle
from models import get_spec, load
from tests.training.gc10_miniature import jpeg, voc
from training.__main__ import app
from training.datasets import Dataset, open_dataset, prepare
from training.launch import start_run

WIDTH, HEIGHT = 100, 50  # px of every picture here
# The one object of a picture, in all formats: from column 20 to 60, from row 10 to 30.
EDGES = (20.0, 10.0, 60.0, 30.0)
YOLO_LINE = "0.4 0.4 0.4 0.4"  # centre (40, 20) and size 40 x 20 as shares of 100 x 50
YOLO_OUTLINE = "0.2 0.2 0.6 0.2 0.6 0.6 0.2 0.6"
COCO_BOX = [20, 10, 40, 20]
CORNERS = [20, 10, 60, 10, 60, 30, 20, 30]
AREA = np.zeros((HEIGHT, WIDTH), np.uint8)
AREA[10:30, 20:60] = 1  # 800 px


def picture(seed: int) -> bytes:
    return jpeg(seed, width=WIDTH, height=HEIGHT)


def write(root: Path, files: dict[str, bytes | str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def coco(
    objects: dict[str, list[dict[str, Any]]], names: dict[int, str], **more: Any
) -> dict[str, Any]:
    """COCO of images by name, each with its annotations."""
    numbered = list(enumerate(objects, start=1))
    return {
        "images": [
            {"id": k, "file_name": name, "width": WIDTH, "height": HEIGHT} for k, name in numbered
        ],
        "annotations": [
            {"id": 10 * k + i, "image_id": k, **annotation}
            for k, name in numbered
            for i, annotation in enumerate(objects[name])
        ],
        "categories": [{"id": k, "name": name} for k, name in names.items()],
        **more,
    }


def yolo(root: Path, lines: list[str], names: str = "names: [dent, scratch]") -> Path:
    """As many pictures as there are texts, in Ultralytics' layout."""
    files: dict[str, bytes | str] = {"data.yaml": names}
    for k, text in enumerate(lines):
        files |= {f"images/{k}.jpg": picture(k), f"labels/{k}.txt": text}
    return write(root, files)


def own(source: Path, out: Path, task: Any = "detect", **more: Any) -> tuple[Dataset, Counter[str]]:
    report = prepare("mill-a", source, out, task=task, **more)
    return open_dataset("mill-a", out), Counter(fault.kind for fault in report.faults)


def boxes(dataset: Dataset) -> dict[str, tuple[tuple[str, tuple[float, ...]], ...]]:
    return {sample.file: sample.boxes for sample in dataset.samples}


def class_map(dataset: Dataset, file: str) -> np.ndarray[Any, Any]:
    sample = next(sample for sample in dataset.samples if sample.file == file)
    assert sample.mask is not None
    return np.asarray(Image.open(sample.mask))


# --- boxes ---------------------------------------------------------------------------------------


def as_voc(root: Path) -> Path:
    # Pascal VOC counts pixels from 1 and includes the last: columns 21 to 60, rows 11 to 30.
    marked = voc([("dent", (21, 11, 60, 30))], width=WIDTH, height=HEIGHT)
    clean = voc([], width=WIDTH, height=HEIGHT)
    files = {"0.jpg": picture(0), "0.xml": marked, "1.jpg": picture(1), "1.xml": clean}
    return write(root, {**files, "2.jpg": picture(2)})


def as_yolo(root: Path) -> Path:
    source = yolo(root, [f"0 {YOLO_LINE}", ""])
    return write(source, {"images/2.jpg": picture(2)})


def as_coco(root: Path) -> Path:
    content = coco({"0.jpg": [{"category_id": 7, "bbox": COCO_BOX}], "1.jpg": []}, {7: "dent"})
    images = {f"images/{k}.jpg": picture(k) for k in range(3)}
    return write(root, {**images, "annotations/instances.json": json.dumps(content)})


@pytest.mark.parametrize("make", [as_voc, as_yolo, as_coco])
def test_every_format_gives_the_same_boxes_and_keeps_clean_steel(make: Any, tmp_path: Path) -> None:
    dataset, faults = own(make(tmp_path / "source"), tmp_path / "out")

    # of the third picture nobody has said that it is clean
    assert boxes(dataset) == {"0.jpg": (("dent", EDGES),), "1.jpg": ()}
    assert faults == {"no-object": 1, "missing-annotation": 1}
    assert (dataset.labels, dataset.task) == (("dent",), "detect")


def test_an_outline_serves_as_a_box_where_boxes_are_wanted(tmp_path: Path) -> None:
    of_yolo, _ = own(yolo(tmp_path / "y", [f"1 {YOLO_OUTLINE}"] * 3), tmp_path / "out-y")
    content = coco({"0.jpg": [{"category_id": 1, "segmentation": [CORNERS]}]}, {1: "scratch"})
    source = write(
        tmp_path / "c", {"0.jpg": picture(0), "_annotations.coco.json": json.dumps(content)}
    )
    of_coco, _ = own(source, tmp_path / "out-c")

    assert boxes(of_yolo)["0.jpg"] == boxes(of_coco)["0.jpg"] == (("scratch", EDGES),)


def test_a_zip_is_read_as_a_folder_is(tmp_path: Path) -> None:
    source = as_coco(tmp_path / "source")
    with zipfile.ZipFile(tmp_path / "mill.zip", "w") as file:
        for path in sorted(source.rglob("*.*")):
            file.write(path, path.relative_to(source))

    folder, _ = own(source, tmp_path / "a")
    packed, _ = own(tmp_path / "mill.zip", tmp_path / "b")

    assert packed.id == folder.id


def test_a_line_that_cannot_be_understood_leaves_the_picture_out(tmp_path: Path) -> None:
    """Its other boxes would say that the rest of the picture is sound."""
    bad = ["2 .5 .5 .1 .1", "x .5 .5 .1 .1", "0 nan .5 .1 .1", "0 .5 .5", "0 .1 .1 .9 .1 .5 .9 .2"]
    lost = "\n".join([*bad, f"0 {YOLO_LINE}", "0 2 2 .1 .1"])
    # the confidence behind a predictor's line is no coordinate: the same box twice
    whole = "\n".join([f"0 {YOLO_LINE}", f"0 {YOLO_LINE} 0.9", "", "0 .95 .4 .2 .4"])

    dataset, faults = own(yolo(tmp_path / "s", [lost, whole, "", ""]), tmp_path / "out")

    assert boxes(dataset) == {
        "1.jpg": (("dent", EDGES), ("dent", (85.0, 10.0, 100.0, 30.0))),
        "2.jpg": (),
        "3.jpg": (),
    }
    assert faults == {
        "unreadable-object": 5,
        "box-dropped": 1,
        "object-lost": 1,
        "duplicate-box": 1,
        "box-clipped": 1,
        "no-object": 2,
    }


def test_a_picture_whose_one_object_cannot_be_read_is_no_sound_steel(tmp_path: Path) -> None:
    source = yolo(tmp_path / "s", [f"0 {YOLO_LINE}", f"3 {YOLO_LINE}", ""])

    report = prepare("mill-a", source, tmp_path / "out", task="detect")

    assert list(boxes(open_dataset("mill-a", tmp_path / "out"))) == ["0.jpg", "2.jpg"]
    assert [(f.kind, f.file, f.detail) for f in report.faults] == [
        ("unreadable-object", "images/1.jpg", "line 1: class 3 of 2"),
        ("object-lost", "images/1.jpg", "objects of it that cannot be used: 1"),
        ("no-object", "images/2.jpg", "the annotation holds no object"),
    ]


def test_a_pascal_voc_box_without_a_name_leaves_the_picture_out(tmp_path: Path) -> None:
    unnamed = voc([("", (21, 11, 60, 30))], width=WIDTH, height=HEIGHT)
    source = write(as_voc(tmp_path / "s"), {"3.jpg": picture(3), "3.xml": unnamed})

    dataset, faults = own(source, tmp_path / "out")

    assert list(boxes(dataset)) == ["0.jpg", "1.jpg"]
    assert (faults["unknown-label"], faults["object-lost"]) == (1, 1)


def test_the_masks_of_a_pascal_voc_set_are_no_pictures(tmp_path: Path) -> None:
    box = voc([("dent", (21, 11, 60, 30))], width=WIDTH, height=HEIGHT)
    files = {f"JPEGImages/{k}.jpg": picture(k) for k in range(3)}
    files |= {f"SegmentationClass/{k}.png": picture(10 + k) for k in range(3)}
    files |= {f"Annotations/{k}.xml": box for k in range(3)}

    dataset, faults = own(write(tmp_path / "s", files), tmp_path / "out")

    assert list(boxes(dataset)) == ["0.jpg", "1.jpg", "2.jpg"]
    assert faults == {}


def test_boxes_alone_are_no_areas_and_that_is_said(tmp_path: Path) -> None:
    content = coco({"0.jpg": [{"category_id": 7, "bbox": COCO_BOX}]}, {7: "dent"})
    source = write(tmp_path / "s", {"0.jpg": picture(0), "a.json": json.dumps(content)})

    with pytest.raises(
        DatasetError, match=r"first is 0\.jpg, object 1: it has a box and no outline"
    ):
        own(source, tmp_path / "out", task="segment")


def test_coco_objects_that_cannot_be_used_are_reported_one_by_one(tmp_path: Path) -> None:
    objects = [
        {"category_id": 1, "bbox": COCO_BOX},
        {"category_id": 1, "bbox": COCO_BOX, "iscrowd": 1},
        {"category_id": 1, "bbox": [1, 2, 3]},
        {"category_id": 1, "bbox": ["a", 2, 3, 4]},
        {"category_id": 1},
        {"category_id": 1, "segmentation": [[1, 2, 3, 4]]},
        {"category_id": 1, "segmentation": {"size": [9, 9], "counts": [81]}},
    ]
    content = coco({"0.jpg": objects, "1.jpg": objects[:1], "lost.jpg": []}, {1: "dent"})
    images = {"0.jpg": picture(0), "1.jpg": picture(1)}
    source = write(tmp_path / "s", {**images, "a.json": json.dumps(content)})
    write(source, {"notes.json": '{"exporter": 3}'})  # Label Studio puts one beside

    dataset, faults = own(source, tmp_path / "out")

    assert boxes(dataset) == {"1.jpg": (("dent", EDGES),)}
    assert faults == {"crowd": 1, "unreadable-object": 4, "box-dropped": 1, "object-lost": 1}


def test_annotations_of_another_size_leave_the_picture_out(tmp_path: Path) -> None:
    content = coco({"0.jpg": [{"category_id": 1, "bbox": COCO_BOX}], "1.jpg": []}, {1: "dent"})
    content["images"][0]["width"] = 640
    files = {"0.jpg": picture(0), "1.jpg": picture(1), "a.json": json.dumps(content)}

    dataset, faults = own(write(tmp_path / "s", files), tmp_path / "out", rename={})

    assert list(boxes(dataset)) == ["1.jpg"]
    assert faults["size-differs"] == 1


# --- areas ---------------------------------------------------------------------------------------


def packed_runs() -> str:
    return encode_rle(AREA > 0)


def plain_runs() -> list[int]:
    """Down the columns: 20 whole ones and 10 px outside, then 40 times 20 inside and 30 outside."""
    return [20 * 50 + 10, *([20, 30] * 39), 20, 20 + 40 * 50]


@pytest.mark.parametrize(
    "outline",
    [
        [CORNERS],
        {"size": [HEIGHT, WIDTH], "counts": packed_runs()},
        {"size": [HEIGHT, WIDTH], "counts": plain_runs()},
    ],
    ids=["polygon", "packed", "plain"],
)
def test_coco_outlines_become_the_pixels_within(outline: Any, tmp_path: Path) -> None:
    content = coco({"0.jpg": [{"category_id": 3, "segmentation": outline}]}, {3: "dent"})
    source = write(tmp_path / "s", {"0.jpg": picture(0), "a.json": json.dumps(content)})

    dataset, faults = own(source, tmp_path / "out", task="segment")

    assert (class_map(dataset, "0.jpg") == AREA).all()
    assert not faults


def test_yolo_outlines_become_the_pixels_within_and_boxes_do_not(tmp_path: Path) -> None:
    lines = [f"1 {YOLO_OUTLINE}", f"0 {YOLO_LINE}\n1 {YOLO_OUTLINE}", "", ""]
    source = yolo(tmp_path / "s", lines)

    dataset, faults = own(source, tmp_path / "out", task="segment")

    assert (class_map(dataset, "0.jpg") == 2 * AREA).all()  # scratch is the second class
    assert dataset.labels == ("dent", "scratch")
    assert [sample.file for sample in dataset.samples] == ["0.jpg", "2.jpg", "3.jpg"]
    assert faults == {"unreadable-object": 1, "object-lost": 1, "no-object": 2}


def test_masks_are_named_by_a_list_and_may_be_renumbered(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    mixed = AREA.copy()
    mixed[10:30, 40:60] = 3  # the right half
    Image.fromarray(mixed).save(buffer, "PNG")
    files = {"images/0.jpg": picture(0), "masks/0.png": buffer.getvalue()}
    source = write(tmp_path / "s", {**files, "classes.txt": "dent\nrust\ndeep dent\n"})

    as_is, _ = own(source, tmp_path / "a", task="segment")
    merged, _ = own(source, tmp_path / "b", task="segment", rename={"deep dent": "dent"})

    assert (class_map(as_is, "0.jpg") == mixed).all()
    assert as_is.labels == ("dent", "rust", "deep dent")
    assert (class_map(merged, "0.jpg") == AREA).all()
    assert merged.labels == ("dent", "rust")


def test_a_list_that_names_the_background_of_masks_is_understood(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(AREA).save(buffer, "PNG")
    files = {"images/0.jpg": picture(0), "masks/0.png": buffer.getvalue()}
    source = write(tmp_path / "s", {**files, "classes.txt": "Background\ndent\n"})

    dataset, _ = own(source, tmp_path / "out", task="segment")

    assert dataset.labels == ("dent",)
    assert (class_map(dataset, "0.jpg") == AREA).all()


# --- classes, parts, groups ----------------------------------------------------------------------


def test_folders_are_classes_also_below_train_and_test(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {}
    for k, folder in enumerate(["train/ok", "train/dent", "valid/ok", "test/dent", "train"]):
        files |= {f"{folder}/{k}{i}.jpg": picture(10 * k + i) for i in range(3)}

    dataset, faults = own(write(tmp_path / "s", files), tmp_path / "out", task="classify")

    assert dataset.labels == ("dent", "ok")
    assert Counter(sample.label for sample in dataset.samples) == {"ok": 6, "dent": 6}
    assert faults == {"unknown-class": 3}
    divided = {sample.file[0]: sample.splits["paper"] for sample in dataset.samples}
    assert divided == {"0": "train", "1": "train", "2": "val", "3": "test"}


def test_classes_keep_their_order_and_those_that_never_occur_are_left_out(tmp_path: Path) -> None:
    names = "names:\n  0: rust\n  1: never\n  2: dent\n"

    dataset, _ = own(
        yolo(tmp_path / "s", [f"2 {YOLO_LINE}", f"0 {YOLO_LINE}"] * 3, names), tmp_path
    )

    assert dataset.labels == ("rust", "dent")


def test_classes_get_other_names_and_may_become_one(tmp_path: Path) -> None:
    source = yolo(
        tmp_path / "s", [f"0 {YOLO_LINE}", f"1 {YOLO_LINE}"] * 3, "names: [划痕, scratch]"
    )

    dataset, _ = own(source, tmp_path / "out", rename={"划痕": "scratch"})

    assert dataset.labels == ("scratch",)
    assert all(label == "scratch" for found in boxes(dataset).values() for label, _ in found)


def test_a_manifest_keeps_coils_together(tmp_path: Path) -> None:
    source = yolo(tmp_path / "s", [f"0 {YOLO_LINE}"] * 12)
    table = io.StringIO()
    rows = [{"path": f"images/{k}.jpg", "group": f"coil {k % 4}"} for k in range(12)]
    writer = csv.DictWriter(table, ["path", "group"])
    writer.writeheader()
    writer.writerows(rows)
    write(source, {"MANIFEST.csv": table.getvalue()})

    report = prepare("mill-a", source, tmp_path / "out", task="detect")
    dataset = open_dataset("mill-a", tmp_path / "out")

    assert report.groups == 4
    assert report.grouping == "the manifest of the source"
    assert not report.notes  # what it would advise has been done
    split_of = {(s.group, s.splits["leak-free"]) for s in dataset.samples}
    assert len(split_of) == 4


def test_without_a_manifest_it_is_told_what_one_is_good_for(tmp_path: Path) -> None:
    report = prepare(
        "mill-a", yolo(tmp_path / "s", [f"0 {YOLO_LINE}"] * 5), tmp_path, task="detect"
    )

    assert "MANIFEST.csv with the columns path and group" in report.notes[0]


def manifest(rows: list[dict[str, str]]) -> str:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return table.getvalue()


def test_one_picture_without_a_group_leaves_the_others_together(tmp_path: Path) -> None:
    rows = [{"path": f"images\\{k}.jpg", "group": f"coil {k % 3}"} for k in range(30)]
    source = yolo(tmp_path / "s", [f"0 {YOLO_LINE}"] * 30)
    write(source, {"MANIFEST.csv": manifest(rows[:-1])})
    # a copy of one of coil 0, which nobody has listed: it belongs to that coil
    write(source, {"images/29.jpg": picture(0) + b"\0"})

    report = prepare("mill-a", source, tmp_path / "out", task="detect")
    samples = open_dataset("mill-a", tmp_path / "out").samples

    groups = {s.file: s.group for s in samples}
    assert report.groups == 3
    assert len({groups[f"{k}.jpg"] for k in range(0, 30, 3)} | {groups["29.jpg"]}) == 1
    assert len({(s.group, s.splits["leak-free"]) for s in samples}) == 3
    told = [(f.kind, f.file) for f in report.faults]
    assert told == [("no-group", "images/29.jpg")]
    assert report.grouping.startswith("the manifest of the source, and for pictures of no group")


def test_parts_and_checksums_of_a_manifest_may_be_spelt_as_tools_do(tmp_path: Path) -> None:
    parts = ["training", "Valid", "TEST", "holdout"]
    rows = [
        {
            "path": f"images/{k}.jpg",
            "sha256": hashlib.sha256(picture(k)).hexdigest().upper(),
            "part": part,
        }
        for k, part in enumerate(parts)
    ]
    source = yolo(tmp_path / "s", [f"0 {YOLO_LINE}"] * 4)
    write(source, {"MANIFEST.csv": manifest(rows)})

    dataset, faults = own(source, tmp_path / "out")

    assert [s.splits["paper"] for s in dataset.samples] == ["train", "val", "test", "train"]
    assert faults == {"unknown-part": 1}


def test_a_row_of_a_manifest_without_a_path_is_named(tmp_path: Path) -> None:
    source = yolo(tmp_path / "s", [f"0 {YOLO_LINE}"] * 3)
    head = "group,path\ncoil 1,images/0.jpg\n"

    write(source, {"MANIFEST.csv": f"{head},,\n"})  # a spreadsheet's empty row
    assert own(source, tmp_path / "a")[1] == {"no-group": 2}
    write(source, {"MANIFEST.csv": f"{head}coil 2\n"})
    with pytest.raises(DatasetError, match=r"MANIFEST.csv: row 2 below the head has no path\."):
        own(source, tmp_path / "b")


@pytest.mark.parametrize(
    "head",
    ["path;group", '"Path";"Group"', "path; group", "path\tgroup", "\ufeffpath;group\r"],
)
def test_a_manifest_may_come_from_any_spreadsheet(head: str, tmp_path: Path) -> None:
    source = yolo(tmp_path / "s", [f"0 {YOLO_LINE}"] * 4)
    between = "\t" if "\t" in head else ";"
    lines = [f"images/{k}.jpg{between}coil {k % 2}" for k in range(4)]
    write(source, {"MANIFEST.csv": "\n".join([head, *lines])})

    dataset, faults = own(source, tmp_path / "out")

    assert {s.file: s.group for s in dataset.samples} == {
        f"{k}.jpg": f"coil {k % 2}" for k in range(4)
    }
    assert not faults


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (b"path,group\nGr\xf6\xdfe.jpg,1\n", "MANIFEST.csv is not UTF-8: save it as “CSV UTF-8”"),
        (b"file,group\n0.jpg,1\n", "has no column 'path', its first line is 'file,group'"),
    ],
)
def test_what_is_wrong_with_a_manifest_is_told(table: bytes, told: str, tmp_path: Path) -> None:
    source = yolo(tmp_path / "s", [f"0 {YOLO_LINE}"] * 2)
    write(source, {"MANIFEST.csv": table})

    with pytest.raises(DatasetError, match=told):
        own(source, tmp_path / "out")


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_names_that_a_mac_took_apart_are_those_that_were_typed(kind: str, tmp_path: Path) -> None:
    typed, apart = "Größe", unicodedata.normalize("NFD", "Größe")
    assert typed != apart
    listing = coco({f"{typed}.jpg": [{"bbox": COCO_BOX, "category_id": 1}]}, {1: "dent"})
    files: dict[str, bytes | str] = {
        f"{apart}.jpg": picture(0),
        "all.json": json.dumps(listing),
        "MANIFEST.csv": f"path,group\n{typed}.jpg,coil 1\n",
    }
    source = write(tmp_path / "s", files)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        source = tmp_path / "s.zip"

    dataset, faults = own(source, tmp_path / "out")

    assert [(s.file, s.group, len(s.boxes)) for s in dataset.samples] == [
        (f"{typed}.jpg", "coil 1", 1)
    ]
    assert not faults


def test_a_folder_of_a_class_is_renamed_as_it_is_typed(tmp_path: Path) -> None:
    apart = unicodedata.normalize("NFD", "Überwalzung")
    source = write(
        tmp_path / "s", {f"{c}/{k}.jpg": picture(k) for k, c in enumerate((apart, "ok"))}
    )

    dataset, _ = own(source, tmp_path / "out", task="classify", rename={"Überwalzung": "overlap"})

    assert sorted(dataset.labels) == ["ok", "overlap"]


def lit(seed: int, *, contrast: float) -> bytes:
    """Noise under a lamp: bright on the left, dark on the right."""
    noise = np.random.default_rng(seed).normal(0, contrast, (HEIGHT, WIDTH))
    grey = np.linspace(200, 60, WIDTH) + noise
    out = io.BytesIO()
    Image.fromarray(grey.clip(0, 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def test_pictures_that_a_lamp_makes_one_group_are_told(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"classes.txt": "dent"}
    for k in range(20):
        files |= {f"{k}.png": lit(k, contrast=8), f"{k}.txt": f"0 {YOLO_LINE}"}

    report = prepare("mill-a", write(tmp_path / "s", files), tmp_path / "out", task="detect")

    assert report.groups == 1
    assert report.notes[1:] == (
        "One group holds 20 of 20 pictures: either they show one piece of steel, or uneven "
        "lighting makes them look alike. A MANIFEST.csv that gives every picture its group "
        "decides.",
        "The leak-free split has no picture for val and test, for groups are never divided: more "
        "groups are needed.",
    )


# --- which annotation is whose -------------------------------------------------------------------


def test_labels_of_a_picture_elsewhere_are_nobody_elses(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {"data.yaml": "names: [dent]"}
    for k, part in enumerate(["train", "val"]):
        files |= {f"{part}/images/3.jpg": picture(k), f"{part}/images/{k}.jpg": picture(9 + k)}
        files |= {f"{part}/labels/{k}.txt": ""}
    files |= {"val/labels/3.txt": f"0 {YOLO_LINE}"}

    report = prepare("mill-a", write(tmp_path / "s", files), tmp_path / "out", task="detect")
    dataset = open_dataset("mill-a", tmp_path / "out")

    marked = {s.sha256: len(s.boxes) for s in dataset.samples}
    assert marked[hashlib.sha256(picture(1)).hexdigest()] == 1
    assert sorted(marked.values()) == [0, 0, 1]
    lost = [(f.kind, f.file) for f in report.faults if f.kind != "no-object"]
    assert lost == [("missing-annotation", "train/images/3.jpg")]


def test_an_annotation_that_may_be_either_pictures_is_given_to_none(tmp_path: Path) -> None:
    files = {"a/1.jpg": picture(0), "b/1.jpg": picture(1), "labels/1.txt": f"0 {YOLO_LINE}"}
    files |= {"a/2.jpg": picture(2), "labels/2.txt": "", "classes.txt": "dent"}

    report = prepare("mill-a", write(tmp_path / "s", files), tmp_path / "out", task="detect")

    assert list(boxes(open_dataset("mill-a", tmp_path / "out"))) == ["2.jpg"]
    assert [(f.file, f.detail) for f in report.faults if f.kind == "shared-annotation"] == [
        ("a/1.jpg", "labels/1.txt may as well be that of b/1.jpg"),
        ("b/1.jpg", "labels/1.txt may as well be that of a/1.jpg"),
    ]


@pytest.mark.parametrize(
    ("listed", "files", "marked"),
    [
        pytest.param(["train/1.jpg", "val/1.jpg"], ["val/1.jpg"], [1], id="the other is missing"),
        pytest.param(["train/1.jpg"], ["val/1.jpg"], None, id="another part"),
        pytest.param(["a/1.jpg", "b/1.jpg"], ["c/1.jpg"], None, id="either"),
        pytest.param(["a/1.jpg", "b/1.jpg"], ["x/b/1.jpg", "x/a/1.jpg"], [0, 1], id="below"),
        pytest.param(["images/1.jpg"], ["pictures/1.jpg"], [0], id="called otherwise"),
        pytest.param(["C:\\mill\\a\\1.jpg"], ["a/1.jpg"], [0], id="of another disk"),
        pytest.param(["1.jpg"], ["a/1.jpg", "b/1.jpg"], None, id="which of two"),
    ],
)
def test_a_coco_file_marks_the_pictures_it_means(
    listed: list[str], files: list[str], marked: list[int] | None, tmp_path: Path
) -> None:
    # the k-th listed image has k + 1 boxes, side by side; the pictures are seen in their order
    marks = {
        name: [{"category_id": 1, "bbox": [10 * i, 10 * k, 5, 5]} for i in range(k + 1)]
        for k, name in enumerate(listed)
    }
    content = coco(marks, {1: "dent"})
    images = {file: picture(k) for k, file in enumerate(files)}
    source = write(tmp_path / "s", {**images, "all.json": json.dumps(content)})

    if marked is None:
        with pytest.raises(DatasetError, match="no JSON lists it, and it alone"):
            own(source, tmp_path / "out")
        return
    dataset, _ = own(source, tmp_path / "out")

    assert [len(sample.boxes) - 1 for sample in dataset.samples] == marked


def test_the_lists_of_two_parts_mark_each_its_own_pictures(tmp_path: Path) -> None:
    files: dict[str, bytes | str] = {}
    for k, part in enumerate(["train", "val"]):
        content = coco({"1.jpg": [{"category_id": 1, "bbox": COCO_BOX}] * k}, {1: "dent"})
        files |= {f"images/{part}/1.jpg": picture(k)}
        files |= {f"annotations/instances_{part}.json": json.dumps(content)}

    dataset, _ = own(write(tmp_path / "s", files), tmp_path / "out")

    assert {s.splits["paper"]: len(s.boxes) for s in dataset.samples} == {"train": 0, "val": 1}


# --- names ---------------------------------------------------------------------------------------


def test_no_picture_takes_the_name_of_another(tmp_path: Path) -> None:
    names = ["crazing/1.jpg", "patches/1.jpg", "extra/patches_1.jpg", "a b/1.jpg", "a_b/1.jpg"]
    source = write(tmp_path / "s", {name: picture(k) for k, name in enumerate(names)})

    dataset, faults = own(source, tmp_path / "out", task="classify")

    assert {s.file: (s.label, s.sha256) for s in dataset.samples} == {
        file: (name.split("/")[0], hashlib.sha256(picture(k)).hexdigest())
        for k, (file, name) in enumerate(
            zip(
                ["crazing_1.jpg", "patches_1-2.jpg", "patches_1.jpg", "1.jpg", "a_b_1.jpg"],
                names,
                strict=True,
            )
        )
    }
    assert not faults


def test_a_name_that_no_disk_takes_is_cut(tmp_path: Path) -> None:
    folder = "ä" * 60  # 120 bytes
    files = {f"{folder}/{folder}/{k}/{folder}.jpg": picture(k) for k in range(3)}

    dataset, faults = own(write(tmp_path / "s", files), tmp_path / "out", task="classify")

    lengths = sorted(len(sample.file.encode()) for sample in dataset.samples)
    assert lengths[0] == 124
    assert 250 < lengths[1] <= lengths[2] <= 255
    assert not faults
    assert all(sample.path.is_file() for sample in dataset.samples)


def test_one_picture_in_two_class_folders_is_told(tmp_path: Path) -> None:
    files = {f"{folder}/{k}.jpg": picture(k) for k, folder in enumerate(["dent", "dent", "ok"])}
    files |= {"ok/7.jpg": picture(0), "ok/1.jpg": picture(1), "ok/9.jpg": picture(2)}

    report = prepare("mill-a", write(tmp_path / "s", files), tmp_path / "out", task="classify")

    told = [(f.file, f.detail) for f in report.faults if f.kind == "copies-differ"]
    assert told == [
        ("ok/1.jpg", "ok here, dent in dent/1.jpg"),
        ("ok/7.jpg", "ok here, dent in dent/0.jpg"),
    ]
    assert Counter(f.kind for f in report.faults) == {
        "copies-differ": 2,
        "duplicate-file": 1,
        "duplicate-image": 2,
    }


def test_webp_is_a_picture(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.open(io.BytesIO(picture(0))).save(out, "WEBP")
    files = {"0.webp": out.getvalue(), "0.txt": f"0 {YOLO_LINE}", "classes.txt": "dent"}

    assert boxes(own(write(tmp_path / "s", files), tmp_path)[0]) == {"0.webp": (("dent", EDGES),)}


def test_a_zip_of_windows_with_backslashes_is_read(tmp_path: Path) -> None:
    source = yolo(tmp_path / "s", [f"0 {YOLO_LINE}", ""])
    with zipfile.ZipFile(tmp_path / "mill.zip", "w") as file:
        for path in sorted(source.rglob("*.*")):
            name = str(path.relative_to(source)).replace("/", "\\")
            file.writestr(zipfile.ZipInfo(name), path.read_bytes())
        file.writestr(zipfile.ZipInfo("images\\"), b"")

    assert own(tmp_path / "mill.zip", tmp_path / "a")[0].id == own(source, tmp_path / "b")[0].id


def test_words_of_the_source_are_no_markup(tmp_path: Path) -> None:
    source = yolo(tmp_path / "s", ["[/x] 1 2", f"0 {YOLO_LINE}"])
    write(source, {"[bold]:smile:.jpg": picture(5)})

    text = prepare("mill-a", source, tmp_path / "out", task="detect").render(width=200)

    assert "images/0.jpg: line 1: '[/x] 1 2' is not all numbers" in text
    assert "[bold]:smile:.jpg: no TXT of that name" in text


def test_classes_called_yes_and_no_keep_their_names(tmp_path: Path) -> None:
    lines = [f"0 {YOLO_LINE}\n1 {YOLO_LINE}"] * 3

    assert own(yolo(tmp_path / "s", lines, "names: [yes, no]"), tmp_path)[0].labels == ("yes", "no")


# --- what cannot be ------------------------------------------------------------------------------


def errors(root: Path) -> dict[str, tuple[Path, dict[str, Any], str]]:
    """Sources and arguments, with what is said about each."""
    plain = yolo(root / "plain", [f"0 {YOLO_LINE}"] * 3)
    unnamed = write(root / "unnamed", {"0.jpg": picture(0), "0.txt": f"0 {YOLO_LINE}"})
    both = write(as_yolo(root / "both"), {"labels/0.xml": voc([], width=WIDTH, height=HEIGHT)})
    two = write(yolo(root / "two", ["0 .5 .5 .1 .1"]), {"classes.txt": "rust\n"})
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n"
    no_lists = json.dumps({"images": [1], "annotations": [], "categories": []})
    return {
        "no annotation": (
            write(root / "bare", {"0.jpg": picture(0)}),
            {},
            r"No annotations were found: give COCO \(.json\), YOLO \(.txt\), Pascal VOC \(.xml\)",
        ),
        "no picture": (write(root / "empty", {"a.txt": "x"}), {}, "No images were found"),
        "no names": (unnamed, {}, "put a classes.txt beside the annotations"),
        "two formats": (both, {}, r"as YOLO \(.txt\) and as Pascal VOC \(.xml\): leave one"),
        "two lists": (two, {}, "classes.txt, data.yaml name different classes"),
        "gap": (yolo(root / "gap", [""], "names: {0: a, 2: b}"), {}, "from 0 without a gap"),
        "bomb": (yolo(root / "bomb", [""], bomb), {}, "lists classes that are no names"),
        "number": (yolo(root / "n", [""], "names: 5"), {}, "lists classes that are no names"),
        "odd key": (yolo(root / "k", [""], "names: {0: a, b: c}"), {}, "from 0 without a gap"),
        "no YAML": (yolo(root / "yaml", [""], "names: ["), {}, "cannot be read as YAML"),
        "odd COCO": (
            write(root / "odd", {"0.jpg": picture(0), "a.json": no_lists}),
            {},
            "a.json is not COCO as it is published",
        ),
        "odd name": (plain, {"name": "Mill A"}, "cannot be called 'Mill A'"),
        "public name": (plain, {"name": "neu-det"}, "leave --task out"),
        "odd class": (
            yolo(root / "cls", [f"0 {YOLO_LINE}"], "names: ['<b>']"),
            {},
            'another name by --rename "<b>=NAME"',
        ),
        "reserved class": (
            yolo(root / "no", [f"0 {YOLO_LINE}"], "names: [no defect]"),
            {},
            'another name by --rename "no defect=ok"',
        ),
        "odd rename": (plain, {"rename": {"dint": "x"}}, "names dint, but the source has"),
        "umlaut": (
            yolo(root / "uml", [f"0 {YOLO_LINE}"], "names: [Überwalzung]"),
            {},
            "letters from A to Z or a to z",
        ),
        "no class": (
            write(root / "flat", {"0.jpg": picture(0)}),
            {"task": "classify"},
            "No class was found: put the pictures of each into a folder of its own",
        ),
        "one class": (plain, {"task": "classify"}, "'images': a classifier needs two classes"),
    }


@pytest.mark.parametrize(
    "case",
    [
        *("no annotation", "no picture", "no names", "two formats", "two lists", "gap", "bomb"),
        *(
            "number",
            "odd key",
            "no YAML",
            "odd COCO",
            "odd name",
            "public name",
            "odd class",
            "odd rename",
            "reserved class",
            "one class",
            "umlaut",
            "no class",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence_and_writes_nothing(
    case: str, tmp_path: Path
) -> None:
    source, arguments, told = errors(tmp_path)[case]
    arguments = {"name": "mill-a", "task": "detect", **arguments}

    with pytest.raises(DatasetError, match=told):
        prepare(arguments.pop("name"), source, tmp_path / "out", **arguments)

    assert not (tmp_path / "out" / "mill-a").exists()


def test_json_that_is_nested_without_end_is_no_coco(tmp_path: Path) -> None:
    source = as_yolo(tmp_path / "s")
    write(source, {"deep.json": "[" * 100_000})

    assert len(own(source, tmp_path / "out")[0].samples) == 2


# --- from the command line to an answer ----------------------------------------------------------


def test_the_command_prepares_a_set_that_a_network_learns_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path / "data"))
    source = yolo(tmp_path / "s", [f"0 {YOLO_LINE}", f"1 {YOLO_LINE}", ""] * 4)

    done = CliRunner().invoke(
        app,
        ["prepare", "mill-a", "--source", str(source), "--task", "detect", "--rename", "dent=bump"],
    )
    dataset = open_dataset("mill-a", tmp_path / "data" / "datasets")
    start_run(
        get_spec("yolo11"),
        dataset,
        runs_root=tmp_path / "runs",
        run_id="own",
        protocol="leak-free",
        scale="n",
        epochs=1,
        image_size=64,
        batch=4,
        device="cpu",
        workers=0,
    )
    predictor = load(tmp_path / "runs" / "own" / "release")

    assert done.exit_code == 0, done.output
    assert "mill-a: 12 images" in done.output
    assert dataset.labels == predictor.labels == ("bump", "scratch")
    # learned from pictures of 100 px: one of 150 px is looked at whole, one of 300 px in tiles
    assert predictor.native_px == WIDTH


def test_the_command_says_what_is_missing(tmp_path: Path) -> None:
    source = str(yolo(tmp_path / "s", [f"0 {YOLO_LINE}"]))
    run = CliRunner().invoke

    unknown = run(app, ["prepare", "mill-a", "--source", source])
    no_task = run(app, ["prepare", "neu-det", "--source", source, "--rename", "a=b"])
    no_pair = run(
        app, ["prepare", "mill-a", "--source", source, "--task", "detect", "--rename", "a"]
    )

    assert unknown.exit_code == 1
    assert "for a set of your own say by --task what it is for" in unknown.output
    assert (no_task.exit_code, no_pair.exit_code) == (2, 2)
    assert "say its --task" in no_task.output
    assert "is not OLD=NEW" in no_pair.output
