"""A mill's own pictures as a data set: whatever a labelling tool wrote, found and understood.

What is in a source is decided by what lies in it; what it is for, boxes, areas or classes, is said
by whoever prepares it. Clean pictures stay in: a detector that never saw sound steel finds defects
everywhere.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
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
from training._pairing import PARTS, beside, part_of
from training._readers import (
    MANIFEST,
    Found,
    Layout,
    in_mask_folder,
    is_hidden,
    is_image,
    kept_once,
    read_manifest,
    unique_targets,
)
from training._report import Fault
from training.splits import Assignment, Item, Plan, random_split, shares

MOST_CLASSES: Final = 200  # a mask holds 255, a page far fewer
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_LONGEST_NAME: Final = 40
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
    images = _without_masks(pictures, task)
    if not images:
        raise DatasetError("No images were found in the source: give a zip or a folder of some.")
    manifest = read_manifest(archive, names)
    source: Format = FileEach(archive, sorted({_folder_class(m, manifest) for m in images} - {""}))
    pairs: Mapping[str, str] = {}
    if task != "classify":
        source, pairs = _format(task, archive, names, images)
    spellings = source.spellings
    if task == "classify" and not spellings:
        raise DatasetError("No class was found: put the pictures of each into a folder of its own.")
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
    found = [
        _found(member, entry, manifest.get(member, {}), pairs.get(member)) for member in images
    ]
    layout = _layout(found, archive, manifest)
    if not layout.has_groups:
        entry = replace(entry, notes=(_GROUPS_NOTE,))
    return SourceSet(entry, layout, source.annotations(labels, entry.label))


def _without_masks(pictures: Sequence[str], task: Task) -> list[str]:
    """The pictures that show steel: where areas are not asked for, masks may lie beside them."""
    if task == "classify":
        return list(pictures)
    steel = [picture for picture in pictures if not in_mask_folder(picture)]
    if task == "segment":
        return steel
    stems = {PurePosixPath(picture).stem for picture in steel}
    return [p for p in pictures if not in_mask_folder(p) or PurePosixPath(p).stem not in stems]


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
) -> tuple[Format, Mapping[str, str]]:
    """The one format the source is in, and the file of each image that has one."""
    stems = {PurePosixPath(image).stem for image in images}
    xmls = [n for n in names if n.lower().endswith(".xml")]
    texts = [n for n in names if n.lower().endswith(".txt") and PurePosixPath(n).stem in stems]
    texts = [n for n in texts if PurePosixPath(n).name not in NAME_FILES]
    jsons = {n: c for n in names if n.lower().endswith(".json") and (c := coco_content(archive, n))}
    masks = [n for n in names if is_image(n) and in_mask_folder(n)] if task == "segment" else []
    kinds = {"COCO (.json)": jsons, "YOLO (.txt)": texts}
    kinds |= {"Pascal VOC (.xml)": xmls} if task == "detect" else {"masks (.png)": masks}
    seen = [kind for kind, files in kinds.items() if files]
    if not seen:
        raise DatasetError(f"No annotations were found: give {', '.join(kinds)}.")
    if len(seen) > 1:
        raise DatasetError(f"Annotations were found as {' and as '.join(seen)}: leave one of them.")
    if jsons:
        return CocoFiles(archive, jsons, images), {}
    if texts:
        return YoloFiles(archive, names), beside(images, texts)
    if xmls and task == "detect":
        return FileEach(archive, voc_classes(archive, xmls)), beside(images, xmls)
    classes = class_list(archive, names)
    if classes[0].lower() == "background":  # of masks, number 0 may be listed as well
        classes = classes[1:]
    return FileEach(archive, classes), beside(images, masks)


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
    nearby: str | None,
) -> Found:
    path = PurePosixPath(member)
    spelling = _folder_class(member, {member: row}) if entry.task == "classify" else ""
    return Found(
        member=member,
        file=path.name,
        label=entry.label(spelling) if spelling else None,
        annotation=nearby,
        mask=nearby,
        part=PARTS.get((row.get("part") or "").strip().lower()) or part_of(path),
        group=(row.get("group") or row.get("scene") or "").strip(),
        sha256=row.get("sha256") or "",
    )


def _layout(
    found: Sequence[Found], archive: Archive, manifest: Mapping[str, Mapping[str, str]]
) -> Layout:
    unique, copies = unique_targets(found, archive)
    torn = [
        Fault("copies-differ", copy.member, f"{copy.label} here, {kept.label} in {kept.member}")
        for copy, kept in copies
        if copy.label and kept.label and copy.label != kept.label
    ]
    unique.sort(key=lambda item: item.file)
    lost = [
        Fault("missing-image", name, "listed in MANIFEST.csv, not in the source")
        for name in sorted(manifest.keys() - {item.member for item in found})
    ]
    unique, shared = _without_shared(unique)
    has_groups = all(item.group for item in unique)
    faults = [*lost, *kept_once(copies), *torn, *shared, *_manifest_faults(unique, manifest)]
    return Layout(tuple(unique), has_groups, tuple(faults))


def _without_shared(found: Sequence[Found]) -> tuple[list[Found], list[Fault]]:
    """Take annotations away that pictures of different folders claim alike: whose is it?

    Of pictures in one folder that differ in their ending alone, it is all of theirs.
    """
    claims: dict[str, dict[PurePosixPath, str]] = defaultdict(dict)  # folder -> its picture
    for item in found:
        if item.annotation:
            claims[item.annotation][PurePosixPath(item.member).parent] = item.member
    own: list[Found] = []
    faults: list[Fault] = []
    for item in found:
        rivals = dict(claims[item.annotation]) if item.annotation else {}
        rivals.pop(PurePosixPath(item.member).parent, None)
        if rivals:
            told = f"{item.annotation} may as well be that of {min(rivals.values())}"
            faults.append(Fault("shared-annotation", item.member, told))
            item = replace(item, annotation=None, mask=None)
        own.append(item)
    return own, faults


def _manifest_faults(
    found: Sequence[Found], manifest: Mapping[str, Mapping[str, str]]
) -> Iterator[Fault]:
    """Pictures that the manifest forgets while it names the groups or parts of others."""
    if any(item.group for item in found):
        for item in found:
            if not item.group:
                yield Fault("no-group", item.member, f"{MANIFEST} names none")
    for item in found:
        part = (manifest.get(item.member, {}).get("part") or "").strip()
        if part and part.lower() not in PARTS:
            yield Fault("unknown-part", item.member, f"{part!r}; known are {', '.join(PARTS)}")


def _folder_class(member: str, manifest: Mapping[str, Mapping[str, str]]) -> str:
    """A picture's class as the manifest has it, else the folder it lies in; "" without one."""
    given = manifest.get(member, {}).get("class")
    folder = PurePosixPath(member).parent.name
    return (given or ("" if folder.lower() in PARTS else folder)).strip()


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
