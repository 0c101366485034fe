"""Layouts of the public archives: which image goes with which annotation, class, part and group.

Two kinds are understood: an archive with a MANIFEST.csv (path, sha256, class, group, scene, part),
and the layouts in which the sets were first published. Nothing is decoded here.
"""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from core.errors import DatasetError, InputError
from training._archive import Archive
from training._catalogue import Entry
from training._report import Fault

MANIFEST = "MANIFEST.csv"
_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"})
_MASK_FOLDERS = frozenset({"annotations", "masks", "mask", "labels"})


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
    annotations = by_stem(n for n in names if n.lower().endswith(".xml"))
    masks = by_stem(n for n in names if is_image(n) and _is_mask(entry, n))
    found = [_found(entry, n, manifest.get(n, {}), annotations, masks) for n in images]
    unique, clashes = unique_targets(found, archive)
    unique.sort(key=lambda f: f.file)
    has_groups = bool(manifest) and all(f.group for f in unique)
    return Layout(tuple(unique), has_groups, (*faults, *clashes))


def read_manifest(archive: Archive, names: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """Rows of MANIFEST.csv by full member name; empty without one.

    Raises:
        DatasetError: if it is no table with a column "path".
    """
    at = next((n for n in names if PurePosixPath(n).name == MANIFEST), None)
    if at is None:
        return {}
    try:
        text = archive.read(at).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text)))
        return {str(PurePosixPath(at).parent / row["path"]): row for row in rows}
    except (InputError, UnicodeDecodeError, csv.Error, KeyError) as exc:
        raise DatasetError(f"{at} cannot be read as a table with a column 'path': {exc}.") from exc


def _found(
    entry: Entry,
    name: str,
    row: Mapping[str, str],
    annotations: Mapping[str, Sequence[str]],
    masks: Mapping[str, Sequence[str]],
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
        annotation=nearest(path, annotations.get(path.stem, ())),
        mask=nearest(path, masks.get(path.stem, ())),
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


def nearest(image: PurePosixPath, candidates: Sequence[str]) -> str | None:
    """The candidate that shares most folder names with the image; names repeat between parts."""
    folders = set(image.parts[:-1])
    shared = [(len(folders & set(PurePosixPath(c).parts[:-1])), c) for c in candidates]
    return max(shared, key=lambda pair: (pair[0], pair[1]))[1] if shared else None


def unique_targets(found: Sequence[Found], archive: Archive) -> tuple[list[Found], list[Fault]]:
    """Settle target names that occur twice: same bytes are kept once, others get their folder.

    Compared without their ending: masks and exported labels are named by the rest.
    """
    by_target: dict[str, list[Found]] = defaultdict(list)
    for item in found:
        by_target[PurePosixPath(item.file).stem.lower()].append(item)
    unique: list[Found] = []
    faults: list[Fault] = []
    for items in by_target.values():
        seen: dict[bytes, Found] = {}
        for item in items:
            content = _bytes_or_name(archive, item.member) if len(items) > 1 else b""
            if content in seen:
                detail = f"same file as {seen[content].member}"
                faults.append(Fault("duplicate-file", item.member, detail))
                continue
            if seen:
                folder = "_".join(PurePosixPath(item.member).parts[:-1])
                item = replace(item, file=f"{folder}_{item.file}".replace(" ", "_"))
            seen[content] = item
            unique.append(item)
    return unique, faults


def _bytes_or_name(archive: Archive, name: str) -> bytes:
    """Content for comparison; an unreadable file equals only itself and is reported later."""
    try:
        return archive.read(name)
    except InputError:
        return name.encode()


def by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Member names by the file name without its ending."""
    stems: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stems[PurePosixPath(name).stem].append(name)
    return stems


def is_hidden(name: str) -> bool:
    """Whether a member is one of those that systems and tools leave in archives."""
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def is_image(name: str) -> bool:
    """Whether a member is called like an image."""
    return PurePosixPath(name).suffix.lower() in _IMAGE_SUFFIXES


def _is_mask(entry: Entry, name: str) -> bool:
    return entry.task == "segment" and in_mask_folder(name)


def in_mask_folder(name: str) -> bool:
    """Whether a member lies in a folder that is called as folders of masks are."""
    folders = {part.lower() for part in PurePosixPath(name).parts[:-1]}
    return bool(folders & _MASK_FOLDERS)
