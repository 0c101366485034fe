"""The formats in which labelling tools hand over boxes, outlines, masks and classes.

| format | what is looked for | made by |
| --- | --- | --- |
| Pascal VOC | an XML of each image's name | LabelImg, CVAT, Label Studio |
| YOLO | a TXT of each image's name; data.yaml, classes.txt or obj.names | Ultralytics, CVAT, … |
| COCO | JSON with images, annotations and categories | CVAT, Label Studio, Roboflow, … |
| masks | index PNGs in a folder called masks, and classes.txt | scripts |

Each knows the classes before the first image is read, as the source spells and orders them. A line
that cannot be understood is reported, and costs the set no more than its picture.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import PurePosixPath
from typing import Any, Final, Protocol

import numpy as np
import yaml
from numpy.typing import NDArray

from core.errors import DatasetError, InputError
from core.records import Box
from training._annotations import Annotations, FilesBeside, read_member
from training._archive import Archive, composed
from training._checks import AnnotationError, LabelledBox, Report, parse_voc
from training._outlines import Drawn, Polygon, edges_of, polygon, to_boxes, to_class_map
from training._pairing import Listing, listed_members
from training._readers import Found

NAME_FILES: Final = ("classes.txt", "obj.names")
_MOST_TEXT: Final = 1024**2  # bytes of a list of classes

LabelOf = Callable[[str], str | None]


class Format(Protocol):
    """A source in one format, of which only the names have been read."""

    spellings: tuple[str, ...]  # of the classes, in their order

    def annotations(self, labels: Sequence[str], label_of: LabelOf) -> Annotations:
        """What the source says of its images, under our names of its classes."""
        ...


class FileEach:
    """A file or a folder for each image: Pascal VOC, index masks, or nothing but the class.

    Value k of a mask is the k-th of `spellings`.
    """

    def __init__(self, archive: Archive, spellings: Iterable[str]) -> None:
        self._archive = archive
        self.spellings = tuple(spellings)

    def annotations(self, labels: Sequence[str], label_of: LabelOf) -> FilesBeside:
        """See `Format`."""
        numbers = [1 + labels.index(label_of(s) or s) for s in self.spellings]
        return FilesBeside(self._archive, label_of=label_of, numbers=(0, *numbers))


class _Drawings:
    """Boxes or class maps of the objects that a format finds for an image."""

    def __init__(
        self,
        objects: Callable[[Found, tuple[int, int], Report], list[Drawn]],
        labels: Sequence[str],
    ) -> None:
        self._objects, self._labels = objects, tuple(labels)

    def boxes(
        self, found: Found, *, size: tuple[int, int], report: Report
    ) -> tuple[LabelledBox, ...]:
        """See `Annotations`."""
        return to_boxes(self._objects(found, size, report), size=size, report=report)

    def mask(
        self, found: Found, *, size: tuple[int, int], report: Report
    ) -> tuple[NDArray[np.uint8], bytes]:
        """See `Annotations`."""
        objects = self._objects(found, size, report)
        return to_class_map(objects, self._labels, size=size, report=report)


class YoloFiles:
    """One text for each image: `class cx cy w h`, or `class x1 y1 x2 y2 …` for outlines, in shares
    of the image's sides."""

    def __init__(self, archive: Archive, names: Sequence[str]) -> None:
        self._archive = archive
        self.spellings = class_list(archive, names)

    def annotations(self, labels: Sequence[str], label_of: LabelOf) -> _Drawings:
        """See `Format`."""
        return _Drawings(
            lambda found, size, report: self._read(found, size, report, label_of), labels
        )

    def _read(
        self, found: Found, size: tuple[int, int], report: Report, label_of: LabelOf
    ) -> list[Drawn]:
        if found.annotation is None:
            raise AnnotationError("missing-annotation", "no TXT of that name")
        data = read_member(self._archive, found.annotation, "unreadable-annotation")
        objects = []
        for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
            if not line.strip():
                continue
            try:
                objects.append(self._object(number, line.split(), size, label_of))
            except ValueError:
                report(
                    "unreadable-object", f"line {number}: {line.strip()!r:.40} is not all numbers"
                )
            except InputError as exc:
                report("unreadable-object", f"line {number}: {exc}")
        return objects

    def _object(
        self, number: int, words: Sequence[str], size: tuple[int, int], label_of: LabelOf
    ) -> Drawn:
        k, values = int(words[0]), [float(word) for word in words[1:]]
        if not 0 <= k < len(self.spellings):
            raise InputError(f"class {k} of {len(self.spellings)}")
        label = label_of(self.spellings[k])
        if label is None:
            raise InputError(f"class {self.spellings[k]!r} has no name here")
        if not all(map(math.isfinite, values)):
            raise InputError("a value is no number")
        width, height = size
        if len(values) in (4, 5):  # a fifth is a predictor's confidence
            cx, cy, w, h = values[:4]
            edges = (
                *((cx - w / 2) * width, (cy - h / 2) * height),
                *((cx + w / 2) * width, (cy + h / 2) * height),
            )
            return Drawn(number, label, _rounded(edges))
        outline = polygon(values) * (width, height)
        return Drawn(number, label, edges_of([outline]), (outline,))


class CocoFiles:
    """One or several JSON files with images, annotations and categories.

    Raises:
        DatasetError: if one lacks a part, or they number their classes differently.
    """

    def __init__(
        self, archive: Archive, files: Mapping[str, Mapping[str, Any]], images: Iterable[str]
    ) -> None:
        self._sizes: dict[str, tuple[Any, Any]] = {}
        self._objects: dict[str, list[tuple[str, Mapping[str, Any]]]] = defaultdict(list)
        spellings: dict[int, str] = {}
        listed: dict[str, dict[Any, Listing]] = {}
        for file, content in files.items():
            with _as_published(file):
                listed[file] = {
                    image["id"]: _listing(file, composed(str(image["file_name"])))
                    for image in content["images"]
                }
        members = listed_members([one for ids in listed.values() for one in ids.values()], images)
        for file, content in files.items():
            with _as_published(file):
                own = {k: members[one] for k, one in listed[file].items() if one in members}
                self._add(content, own, spellings)
        self.spellings = tuple(dict.fromkeys(name for _, name in sorted(spellings.items())))

    def _add(
        self,
        content: Mapping[str, Any],
        members: Mapping[Any, str],
        spellings: dict[int, str],
    ) -> None:
        names = {int(c["id"]): str(c["name"]).strip() for c in content["categories"]}
        for k, name in names.items():
            if spellings.setdefault(k, name) != name:
                raise ValueError(f"class {k} is {name!r} here and {spellings[k]!r} elsewhere")
        for image in content["images"]:
            if image["id"] in members:
                self._sizes[members[image["id"]]] = (image.get("width"), image.get("height"))
        for annotation in content["annotations"]:
            if annotation["image_id"] in members:
                label = names[int(annotation["category_id"])]
                self._objects[members[annotation["image_id"]]].append((label, annotation))

    def annotations(self, labels: Sequence[str], label_of: LabelOf) -> _Drawings:
        """See `Format`."""
        return _Drawings(
            lambda found, size, report: self._read(found, size, report, label_of), labels
        )

    def _read(
        self, found: Found, size: tuple[int, int], report: Report, label_of: LabelOf
    ) -> list[Drawn]:
        if found.member not in self._sizes:
            raise AnnotationError("missing-annotation", "no JSON lists it, and it alone")
        stated = self._sizes[found.member]
        if all(stated) and stated != size:
            told = f"the JSON says {stated[0]} x {stated[1]}, the image is {size}"
            raise AnnotationError("size-differs", told)
        objects = []
        for number, (spelling, annotation) in enumerate(self._objects[found.member], start=1):
            label = label_of(spelling)
            if annotation.get("iscrowd") and annotation.get("segmentation") is None:
                report("crowd", f"object {number}")
            elif label is None:
                report("unknown-label", f"object {number} is called {spelling!r}")
            else:
                try:
                    objects.append(_coco_object(number, label, annotation, size))
                except (InputError, TypeError, ValueError, KeyError) as exc:
                    report("unreadable-object", f"object {number}: {exc}")
        return objects


@contextmanager
def _as_published(file: str) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as exc:
        raise DatasetError(f"{file} is not COCO as it is published: {exc!r}.") from exc


def _listing(file: str, image: str) -> Listing:
    return Listing(PurePosixPath(file), PurePosixPath(image.replace("\\", "/")))


def _coco_object(
    number: int, label: str, annotation: Mapping[str, Any], size: tuple[int, int]
) -> Drawn:
    outline = annotation.get("segmentation") or ()
    polygons: tuple[Polygon, ...] = ()
    runs: str | tuple[int, ...] | None = None
    if isinstance(outline, Mapping):
        height, width = outline["size"]
        if (width, height) != size:
            raise InputError(f"its run lengths are of {width} x {height}")
        counts = outline["counts"]
        runs = counts if isinstance(counts, str) else tuple(map(int, counts))
    else:
        polygons = tuple(polygon(numbers) for numbers in outline)
    if annotation.get("bbox"):
        x, y, w, h = map(float, annotation["bbox"])
        edges: Box = (x, y, x + w, y + h)
    else:
        edges = edges_of(polygons)
    return Drawn(number, label, edges, polygons, runs)


def class_list(archive: Archive, names: Sequence[str]) -> tuple[str, ...]:
    """Classes in the order of their numbers, from a YAML with `names`, classes.txt or obj.names.

    Raises:
        DatasetError: if there is none, or two that disagree.
    """
    lists: dict[str, tuple[str, ...]] = {}
    for name in names:
        path = PurePosixPath(name)
        if path.name in NAME_FILES:
            lines = _text(archive, name).splitlines()
            lists[name] = tuple(line.strip() for line in lines if line.strip())
        elif path.suffix.lower() in (".yaml", ".yml") and (listed := _yaml_names(archive, name)):
            lists[name] = listed
    if not lists:
        raise DatasetError(
            "Nothing names the classes: put a classes.txt beside the annotations, one name a line, "
            "in the order of their numbers."
        )
    if len(set(lists.values())) > 1:
        raise DatasetError(f"{', '.join(sorted(lists))} name different classes: leave one of them.")
    return next(iter(lists.values()))


def coco_content(archive: Archive, name: str) -> Mapping[str, Any] | None:
    """A JSON file's content if it is COCO, else None."""
    try:
        content = json.loads(archive.read(name))
    except (InputError, ValueError, RecursionError):
        return None
    wanted = ("images", "annotations", "categories")
    if isinstance(content, dict) and all(isinstance(content.get(part), list) for part in wanted):
        return content
    return None


def voc_classes(archive: Archive, files: Iterable[str]) -> tuple[str, ...]:
    """Classes that Pascal-VOC files name, sorted; one that cannot be read names none, and is
    reported with its image."""
    found: set[str] = set()
    for name in files:
        with suppress(InputError):
            root = parse_voc(archive.read(name))
            found |= {(element.findtext("name") or "").strip() for element in root.iter("object")}
    return tuple(sorted(found - {""}))


def _yaml_names(archive: Archive, name: str) -> tuple[str, ...]:
    try:
        # every scalar as the text that it is: YAML itself would take yes and no for truth values
        content = yaml.load(_text(archive, name), Loader=yaml.BaseLoader)
        names = (content or {}).get("names") or []
    except (yaml.YAMLError, AttributeError, RecursionError) as exc:
        raise DatasetError(f"{name} cannot be read as YAML.") from exc
    if isinstance(names, dict):
        if set(names) != {str(k) for k in range(len(names))}:
            raise DatasetError(f"{name} does not number its classes from 0 without a gap.")
        names = [names[str(k)] for k in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise DatasetError(f"{name} lists classes that are no names: give names: [dent, scratch].")
    return tuple(n.strip() for n in names)


def _text(archive: Archive, name: str) -> str:
    try:
        data = archive.read(name)
        if len(data) > _MOST_TEXT:
            raise InputError(f"it has {len(data)} bytes, at most {_MOST_TEXT} are read")
        return data.decode("utf-8-sig")
    except (InputError, UnicodeDecodeError) as exc:
        raise DatasetError(f"{name} cannot be read as text: {exc}.") from exc


def _rounded(edges: Sequence[float]) -> Box:
    """Edges to a hundredth of a pixel: text in shares of a side carries no more."""
    x1, y1, x2, y2 = (round(value, 2) for value in edges)
    return x1, y1, x2, y2
