"""A mill's own pictures as a data set: whatever a labelling tool wrote, found and understood.

What is in a source is decided by what lies in it; what it is for, boxes, areas or classes, is said
by whoever prepares it. Clean pictures stay in: a detector that never saw sound steel finds defects
everywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from core import taxonomy
from core.errors import DatasetError
from core.types import Task
from training._annotations import SourceSet
from training._archive import Archive
from training._catalogue import CATALOGUE, Entry
from training._own_formats import (
    NAME_FILES,
    CocoFiles,
    FileEach,
    Format,
    YoloFiles,
    class_list,
    coco_content,
    voc_classes,
)
from training._readers import (
    Found,
    Layout,
    by_stem,
    in_mask_folder,
    is_hidden,
    is_image,
    nearest,
    read_manifest,
    unique_targets,
)
from training._report import Fault
from training.splits import Assignment, Item, Plan, random_split, shares

MOST_CLASSES: Final = 200  # a mask holds 255, a page far fewer
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_NAME: Final = 40
# Folders, or words of a COCO file's name, by which tools say how a set is divided.
_PARTS: Final = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_GROUPS_NOTE: Final = (
    "Pictures of one coil, strip or casting belong together: name it in a MANIFEST.csv with the "
    "columns path and group, and none will be on both sides of the leak-free split."
)


def read_own_set(name: str, task: Task, rename: Mapping[str, str], archive: Archive) -> SourceSet:
    """Find images, annotations, classes, parts and groups in a source.

    Args:
        name: the set is to have.
        task: it is for.
        rename: spelling in the source -> name of the class here; several may become one.
        archive: where from.

    Raises:
        DatasetError: if the name cannot be, the source has no images or annotations for the task,
            or a class has a name that cannot be shown everywhere.
    """
    _check_name(name)
    names = [member for member in archive.names() if not is_hidden(member)]
    pictures = [member for member in names if is_image(member)]
    images = [m for m in pictures if task != "segment" or not in_mask_folder(m)]
    if not images:
        raise DatasetError("No images were found in the source: give a zip or a folder of some.")
    manifest = read_manifest(archive, names)
    source: Format = FileEach(archive, sorted({_folder_class(m, manifest) for m in images} - {""}))
    beside: Mapping[str, Sequence[str]] = {}
    if task != "classify":
        source, beside = _format(task, archive, names, images)
    spellings = source.spellings
    labels = _labels(spellings, rename)
    if task == "classify" and len(labels) < 2:
        raise DatasetError(
            f"All pictures with a class are {labels[0]!r}: a classifier needs two classes or more, "
            "each in a folder of its own."
        )
    entry = Entry(
        name=name,
        task=task,
        plan=Plan(_as_divided, "as the source divides; where it does not, 70/10/20 % at random"),
        citation="",
        licence="",
        own_classes={spelling: rename.get(spelling, spelling) for spelling in spellings},
    )
    found = [_found(member, entry, manifest.get(member, {}), beside) for member in images]
    layout = _layout(found, archive, manifest)
    if not layout.has_groups:
        entry = replace(entry, notes=(_GROUPS_NOTE,))
    return SourceSet(entry, layout, source.annotations(labels, entry.label))


def _check_name(name: str) -> None:
    if name in CATALOGUE:
        raise DatasetError(f"{name} is a public set whose task is known: leave --task out.")
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise DatasetError(
            f"A set cannot be called {name!r}: small letters, digits and single hyphens can, "
            f"{_LONGEST_NAME} at most, such as mill-a."
        )


def _format(
    task: Task, archive: Archive, names: Sequence[str], images: Sequence[str]
) -> tuple[Format, Mapping[str, Sequence[str]]]:
    """The one format the source is in, and its files by the stem of the image they lie beside."""
    stems = {PurePosixPath(image).stem for image in images}
    xmls = [n for n in names if n.lower().endswith(".xml")]
    texts = [n for n in names if n.lower().endswith(".txt") and PurePosixPath(n).stem in stems]
    texts = [n for n in texts if PurePosixPath(n).name not in NAME_FILES]
    jsons = {n: c for n in names if n.lower().endswith(".json") and (c := coco_content(archive, n))}
    masks = [n for n in names if is_image(n) and in_mask_folder(n)] if task == "segment" else []
    kinds = {"COCO (.json)": jsons, "YOLO (.txt)": texts}
    kinds |= {"Pascal VOC (.xml)": xmls} if task == "detect" else {"masks (.png)": masks}
    seen = [kind for kind, files in kinds.items() if files]
    if len(seen) != 1:
        told = f"Annotations were found as {' and as '.join(seen)}: leave" if seen else "No "
        told += " one of them." if seen else f"annotations were found: give {', '.join(kinds)}."
        raise DatasetError(told)
    if jsons:
        return CocoFiles(archive, jsons, images), {}
    if texts:
        return YoloFiles(archive, names), by_stem(texts)
    if xmls and task == "detect":
        return FileEach(archive, voc_classes(archive, xmls)), by_stem(xmls)
    return FileEach(archive, class_list(archive, names)), by_stem(masks)


def _labels(spellings: Sequence[str], rename: Mapping[str, str]) -> tuple[str, ...]:
    """Our names of the classes, in the source's order.

    Raises:
        DatasetError: see `read_own_set`.
    """
    strangers = rename.keys() - set(spellings)
    if strangers:
        raise DatasetError(
            f"--rename names {', '.join(sorted(strangers))}, but the source has the classes "
            f"{', '.join(spellings) or 'none'}."
        )
    labels = tuple(dict.fromkeys(rename.get(s, s) for s in spellings))
    for label in labels:
        if not taxonomy.CLASS_NAME.fullmatch(label):
            raise DatasetError(
                f"A class cannot be called {label!r}: {taxonomy.CLASS_NAME_WORDS}. Give it another "
                f'name by --rename "{label}=NAME".'
            )
        if label == taxonomy.NO_DEFECT:
            raise DatasetError(
                f"{label!r} is what reviewers say of every kind of picture: give the class another "
                f'name by --rename "{label}=ok".'
            )
    if not labels or len(labels) > MOST_CLASSES:
        raise DatasetError(f"The source has {len(labels)} classes: 1 to {MOST_CLASSES} can be.")
    return labels


def _found(
    member: str,
    entry: Entry,
    row: Mapping[str, str],
    beside: Mapping[str, Sequence[str]],
) -> Found:
    path = PurePosixPath(member)
    nearby = nearest(path, beside.get(path.stem, ()))
    spelling = _folder_class(member, {member: row}) if entry.task == "classify" else ""
    return Found(
        member=member,
        file=path.name,
        label=entry.label(spelling) if spelling else None,
        annotation=nearby,
        mask=nearby,
        part=row.get("part") or _part(path),
        group=row.get("group") or row.get("scene") or "",
        sha256=row.get("sha256") or "",
    )


def _layout(
    found: Sequence[Found], archive: Archive, manifest: Mapping[str, Mapping[str, str]]
) -> Layout:
    unique, clashes = unique_targets(found, archive)
    unique.sort(key=lambda item: item.file)
    lost = [
        Fault("missing-image", name, "listed in MANIFEST.csv, not in the source")
        for name in sorted(manifest.keys() - {item.member for item in found})
    ]
    has_groups = bool(manifest) and all(item.group for item in unique)
    return Layout(tuple(unique), has_groups, (*lost, *clashes))


def _folder_class(member: str, manifest: Mapping[str, Mapping[str, str]]) -> str:
    """A picture's class as the manifest has it, else the folder it lies in; "" without one."""
    given = manifest.get(member, {}).get("class")
    folder = PurePosixPath(member).parent.name
    return (given or ("" if folder.lower() in _PARTS else folder)).strip()


def _part(path: PurePosixPath) -> str:
    return next((_PARTS[p.lower()] for p in path.parts[:-1] if p.lower() in _PARTS), "")


def _as_divided(items: Sequence[Item], seed: int) -> Assignment:
    """The source's own division; what it lacks is drawn from what it calls training.

    Images of no part belong to training where others have one.
    """
    test = [item for item in items if item.part == "test"]
    val = [item for item in items if item.part == "val"]
    rest = [item for item in items if item.part not in ("test", "val")]
    quota = shares(0.0 if val else 0.1, 0.0 if test else 0.2)
    assignment = random_split(rest, quota, seed=seed) if rest else {}
    assignment.update({item.key: "test" for item in test})
    assignment.update({item.key: "val" for item in val})
    return assignment
