"""Which annotation belongs to which picture, told by their names and the folders they lie in.

Names repeat between parts and coils, so a name alone says little: an annotation belongs to the
picture it lies nearest to, and where another picture is nearer, or nobody can tell, it belongs to
none. A picture without an annotation is reported; one with another picture's would be learned.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

# Folders by which tools say how a set is divided.
PARTS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """An image as a list of images names it: the list's own path, and what stands in it."""

    file: PurePosixPath
    path: PurePosixPath


def part_of(path: PurePosixPath) -> str:
    """The part of a divided source that a member lies in; "" without one."""
    return next((PARTS[p.lower()] for p in path.parts[:-1] if p.lower() in PARTS), "")


def by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    """Member names by the file name without its ending."""
    stems: dict[str, list[str]] = defaultdict(list)
    for name in names:
        stems[PurePosixPath(name).stem].append(name)
    return stems


def beside(images: Iterable[str], annotations: Iterable[str]) -> dict[str, str]:
    """The annotation of each image that has one: of its name, and nearer to no other image.

    Near are those that share many folder names; of these, those in one and the same folder.
    """
    pairs: dict[str, str] = {}
    files = by_stem(annotations)
    for stem, pictures in by_stem(images).items():
        places = {
            name: PurePosixPath(name).parts[:-1] for name in (*pictures, *files.get(stem, ()))
        }
        nearest = {
            file: max(_nearness(places[p], places[file]) for p in pictures)
            for file in files.get(stem, ())
        }
        for picture in pictures:
            own = [
                (near, file)
                for file, near in nearest.items()
                if _nearness(places[picture], places[file]) == near
            ]
            if own:
                pairs[picture] = max(own)[1]
    return pairs


def listed_members(listings: Collection[Listing], images: Iterable[str]) -> dict[Listing, str]:
    """The image that each listing means, where that can be told.

    The folders of one must be the last folders of the other; where a name is listed once and found
    once they may be called otherwise, but not by another part. Of several listings the one that
    agrees furthest gets the image; where two agree alike, neither does.
    """
    found: dict[str, list[str]] = defaultdict(list)
    for image in images:
        found[PurePosixPath(image).name].append(image)
    named: dict[str, set[PurePosixPath]] = defaultdict(set)
    for listing in listings:
        named[listing.path.name].add(listing.file.parent / listing.path)
    claims: dict[str, list[tuple[tuple[int, int], Listing]]] = defaultdict(list)
    for listing in dict.fromkeys(listings):
        members = found.get(listing.path.name, [])
        is_alone = len(members) == len(named[listing.path.name]) == 1
        ranked = [
            (_agreement(listing, PurePosixPath(m)), m)
            for m in members
            if _may_mean(listing.path, PurePosixPath(m), is_alone=is_alone)
        ]
        furthest = max((rank for rank, _ in ranked), default=(0, 0))
        best = [m for rank, m in ranked if rank == furthest]
        if len(best) == 1:
            claims[best[0]].append((furthest, listing))
    meant: dict[Listing, str] = {}
    for member, rivals in claims.items():
        furthest = max(rank for rank, _ in rivals)
        winners = [listing for rank, listing in rivals if rank == furthest]
        if len({listing.path for listing in winners}) == 1:  # one image may be in several lists
            meant |= dict.fromkeys(winners, member)
    return meant


def _nearness(one: Sequence[str], other: Sequence[str]) -> tuple[int, bool]:
    """How many folder names two places share, and whether they are the same."""
    return len(set(one) & set(other)), one == other


def _may_mean(path: PurePosixPath, member: PurePosixPath, *, is_alone: bool) -> bool:
    parts = {part_of(path), part_of(member)} - {""}
    shorter = min(len(path.parts), len(member.parts))
    return len(parts) < 2 and (is_alone or path.parts[-shorter:] == member.parts[-shorter:])


def _agreement(listing: Listing, member: PurePosixPath) -> tuple[int, int]:
    """How many names agree from the end on, and how many folders are named by list or listing."""
    whole = listing.file.parent / listing.path
    alike = 0
    for ours, theirs in zip(reversed(whole.parts), reversed(member.parts), strict=False):
        if ours != theirs:
            break
        alike += 1
    words = {*whole.parts[:-1], *re.split(r"[\W_]+", listing.file.stem)}
    return alike, len(words & set(member.parts[:-1]))
