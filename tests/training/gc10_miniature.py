"""GC10-DET in miniature: its original layout with the faults users report, synthetic textures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 128, 62  # px; the originals are 2048 x 1000
NAMES = (
    "1_chongkong",
    "2_hanfeng",
    "3_yueyawan",
    "4_shuiban",
    "5_youban",
    "6_siban",
    "7_yiwu",
    "8_yahen",
    "9_zhehen",
    "10_yaozhe",
)
PER_CLASS = 4


def write_gc10(root: Path) -> Path:
    """Write folders 1 to 10 of images and `lable` with VOC XML below `root`.

    Four good images a class, and then: an image in two class folders, one without XML, one whose
    XML has no object, one whose object is called "d", one whose box sticks out, and one cut short.
    Class 10 is spelt `10_yaozhe`, `10_yaozhed` and `10_yaozhe(d)` in turn.
    """
    (root / "lable").mkdir(parents=True)
    for k, name in enumerate(NAMES, start=1):
        for i in range(PER_CLASS):
            spelling = name if k < 10 else name + ("", "d", "(d)", "")[i]
            _add(root, k, f"img_{k:02d}_4254_{i:05d}", [(spelling, (10 + i, 5, 60, 40))])
    twice = root / "1" / "img_01_4254_00000.jpg"
    (root / "2" / twice.name).write_bytes(twice.read_bytes())
    _add(root, 3, "img_03_no_xml_1", None)
    _add(root, 4, "img_04_no_object_1", [])
    _add(root, 5, "img_05_odd_name_1", [("5_youban", (1, 1, 20, 20)), ("d", (30, 30, 40, 40))])
    _add(root, 6, "img_06_outside_1", [("6_siban", (100, 50, WIDTH + 7, HEIGHT))])
    _add(root, 7, "img_07_cut_1", [("7_yiwu", (1, 1, 20, 20))])
    cut = root / "7" / "img_07_cut_1.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    return root


def jpeg(seed: int, *, width: int = WIDTH, height: int = HEIGHT) -> bytes:
    """A grey noise texture; different seeds give unrelated pictures."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4), np.uint8)
    texture = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    texture.save(out, "JPEG", quality=90)
    return out.getvalue()


def voc(
    objects: Sequence[tuple[str, tuple[int, int, int, int]]],
    *,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> bytes:
    """A VOC file; corners are 1-based and inclusive."""
    boxes = "".join(
        f"<object><name>{name}</name><bndbox><xmin>{x1}</xmin><ymin>{y1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for name, (x1, y1, x2, y2) in objects
    )
    size = f"<size><width>{width}</width><height>{height}</height><depth>1</depth></size>"
    return f"<annotation>{size}{boxes}</annotation>".encode()


def _add(
    root: Path,
    folder: int,
    stem: str,
    objects: Sequence[tuple[str, tuple[int, int, int, int]]] | None,
) -> None:
    image = root / str(folder) / f"{stem}.jpg"
    image.parent.mkdir(exist_ok=True)
    image.write_bytes(jpeg(seed=sum(stem.encode()) * 1000 + len(list(root.rglob("*.jpg")))))
    if objects is not None:
        (root / "lable" / f"{stem}.xml").write_bytes(voc(objects))
