"""Layouts of the public archives: which image goes with which annotation, class, part and group.

Two kinds are understood: an archive with a MANIFEST.csv (path, sha256, class, group, scene, part),
and the layouts in which the sets were first published. What sets of one's own have in common with
them is here, too: manifest, names, copies. Nothing is decoded here.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import PurePosixPath

from core.errors import DatasetError, InputError
from core.images import SUFFIXES
from training._archive import Archive, composed
from training._catalogue import Entry
from training._pairing import beside
from training._report import Fault

MANIFEST = "MANIFEST.csv"
_LONGEST = 255  # bytes of a file name
_MASK_FOLDERS = frozenset(
    {"annotations", "masks", "mask", "labels", "segmentationclass", "segmentationobject"}
)


@dataclass(frozen=True, slots=True)
class Found:
    """One image of a source with what belongs to it, all as member names of the archive.

    `file` is the name it gets in the prepared set; `group` is "" where the source gives none.
    """

    member: str
    file: str
    label: str | None = None
    annotation: str | None = None
    mask: str | None = None
    part: str = ""
    group: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything a source holds, sorted by target file name."""

    found: tuple[Found, ...]
    has_groups: bool
    faults: tuple[Fault, ...]


def read_layout(entry: Entry, archive: Archive) -> Layout:
    """Find images, annotations, masks, classes and groups in a source.

    Raises:
        DatasetError: if no image is found, or the manifest cannot be read.
    """
    names = [name for name in archive.names() if not is_hidden(name)]
    manifest = read_manifest(archive, names)
    images = [name for name in names if is_image(name) and not _is_mask(entry, name)]
    if not images:
        raise DatasetError(
            f"No images of {entry.name} were found: give the zip or folder of the public set."
        )
    faults = [
        Fault("missing-image", name, f"listed in {MANIFEST}, not in the archive")
        for name in sorted(manifest.keys() - set(images))
    ]
    annotations = beside(images, (n for n in names if n.lower().endswith(".xml")))
    masks = beside(images, (n for n in names if is_image(n) and _is_mask(entry, n)))
    found = [_found(entry, n, manifest.get(n, {}), annotations, masks) for n in images]
    unique, copies = unique_targets(found, archive)
    unique.sort(key=lambda f: f.file)
    has_groups = bool(manifest) and all(f.group for f in unique)
    return Layout(tuple(unique), has_groups, (*faults, *kept_once(copies)))


def read_manifest(archive: Archive, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """Rows of MANIFEST.csv by full member name; empty without one.

    Raises:
        DatasetError: if it is no table in UTF-8 with a column "path", or a row names none.
    """
    at = next((n for n in names if PurePosixPath(n).name == MANIFEST), None)
    if at is None:
        return {}
    try:
        text = composed(archive.read(at).decode("utf-8-sig"))
        head, _, body = text.partition("\n")
        # spreadsheets that write 0,5 for a half put semicolons between columns
        separator = max(",;\t", key=head.count)
        columns = [name.strip(' \r"').lower() for name in head.split(separator)]
        rows = list(csv.DictReader(io.StringIO(body), columns, delimiter=separator))
    except UnicodeDecodeError as exc:
        raise DatasetError(f"{at} is not UTF-8: save it as “CSV UTF-8”.") from exc
    except (InputError, csv.Error) as exc:
        raise DatasetError(f"{at} cannot be read as a table: {exc}.") from exc
    if "path" not in columns:
        raise DatasetError(f"{at} has no column 'path', its first line is {head.strip()[:80]!r}.")
    manifest: dict[str, Mapping[str, str]] = {}
    for number, row in enumerate(rows, start=1):
        path = row["path"]
        if not any(
            "".join(value or "").strip() for value in row.values()
        ):  # spreadsheets leave rows of nothing but commas
            continue
        if not path:
            raise DatasetError(f"{at}: row {number} below the head has no path.")
        manifest[str(PurePosixPath(at).parent / path.replace("\\", "/"))] = row
    return manifest


def _found(
    entry: Entry,
    name: str,
    row: Mapping[str, str],
    annotations: Mapping[str, str],
    masks: Mapping[str, str],
) -> Found:
    path = PurePosixPath(name)
    label = entry.label(row.get("class") or "") or _label_from_path(entry, path)
    part = row.get("part") or next((p for p in path.parts if p in ("training", "test")), "")
    file = path.name
    if entry.task == "segment" and part:
        file = f"{part}_{path.name}"  # numbers repeat between the parts of NEU-Seg
    elif entry.name == "x-sdd":
        file = f"{path.parent.name}_{path.name}".replace(" ", "_")
    return Found(
        member=name,
        file=file,
        label=label,
        annotation=annotations.get(name),
        mask=masks.get(name),
        part=part,
        group=row.get("scene") or row.get("group") or "",
        sha256=row.get("sha256") or "",
    )


def _label_from_path(entry: Entry, path: PurePosixPath) -> str | None:
    """Class from `<class>_<n>.jpg`, else from the folder the image lies in."""
    prefix = re.fullmatch(r"(.+?)_?\d+", path.stem)
    # GC10-DET's file names (img_07_4406645900_00753) say nothing of the class
    from_file = entry.label(prefix.group(1)) if prefix else None
    return from_file or entry.label(path.parent.name)


def unique_targets(
    found: Sequence[Found], archive: Archive
) -> tuple[list[Found], list[tuple[Found, Found]]]:
    """Settle target names that occur twice: same bytes are kept once, others get their folder.

    Compared without their ending: masks and exported labels are named by the rest. A name that is
    taken all the same gets a number, one that no disk would take is cut.

    Returns:
        What is kept, and each copy that is not with the one that is kept of it.
    """
    by_target: dict[str, list[Found]] = defaultdict(list)
    for item in found:
        item = replace(item, file=_short(item.file))
        by_target[_stem(item.file)].append(item)
    taken = set(by_target)
    unique: list[Found] = []
    copies: list[tuple[Found, Found]] = []
    for items in by_target.values():
        seen: dict[str, Found] = {}
        for item in items:
            content = _digest_or_name(archive, item.member) if len(items) > 1 else ""
            if content in seen:
                copies.append((item, seen[content]))
                continue
            if seen:
                folder = "_".join(PurePosixPath(item.member).parts[:-1])
                wished = _short(f"{folder}_{item.file}".replace(" ", "_"))
                item = replace(item, file=_free(wished, taken))
                taken.add(_stem(item.file))
            seen[content] = item
            unique.append(item)
    return unique, copies


def kept_once(copies: Sequence[tuple[Found, Found]]) -> list[Fault]:
    """What is said of copies that are not kept."""
    return [
        Fault("duplicate-file", copy.member, f"same file as {kept.member}") for copy, kept in copies
    ]


def _stem(file: str) -> str:
    """What names are compared by: not all disks tell small letters from capitals."""
    return PurePosixPath(file).stem.lower()


def _short(file: str) -> str:
    """The name, cut where it is longer than disks take; what is cut off stays in a checksum."""
    if len(file.encode()) <= _LONGEST:
        return file
    path = PurePosixPath(file)
    told = f"-{hashlib.sha256(file.encode()).hexdigest()[:12]}{path.suffix}"
    kept = path.stem.encode()[: _LONGEST - len(told.encode())]
    return kept.decode("utf-8", "ignore") + told


def _free(file: str, taken: Collection[str]) -> str:
    """The name, or with a number where it is taken."""
    path = PurePosixPath(file)
    numbered = (_short(f"{path.stem}-{k}{path.suffix}") for k in count(2))
    return next(name for name in chain((file,), numbered) if _stem(name) not in taken)


def _digest_or_name(archive: Archive, name: str) -> str:
    """Content for comparison; an unreadable file equals only itself and is reported later."""
    try:
        return hashlib.sha256(archive.read(name)).hexdigest()
    except InputError:
        return name


def is_hidden(name: str) -> bool:
    """Whether a member is one of those that systems and tools leave in archives."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def is_image(name: str) -> bool:
    """Whether a member is called like an image."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _is_mask(entry: Entry, name: str) -> bool:
    return entry.task == "segment" and in_mask_folder(name)


def in_mask_folder(name: str) -> bool:
    """Whether a member lies in a folder that is called as folders of masks are."""
    folders = {part.lower() for part in PurePosixPath(name).parts[:-1]}
    return bool(folders & _MASK_FOLDERS)
