"""Defect classes of each public data set: names, titles, colours, spellings, and what equals what.

A canonical name is what is stored, trained on and sent; a title is what a person reads. `normalise`
turns any spelling found in the wild (folder names, VOC files, label configurations, the pinyin
names of GC10-DET) into the canonical name. Colours are fixed per class and never come alone: each
class of a data set also has a hatch and a dash pattern of its own.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from core.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Look:
    """How a class is drawn: a colour and two other signs that say the same."""

    colour: str  # "#RRGGBB"
    hatch: str  # matplotlib's sign for filled areas
    dash: tuple[int, ...]  # px on, off, … for lines; empty is solid


@dataclass(frozen=True, slots=True)
class DefectClass:
    """One class of defect as its data set names it."""

    name: str  # canonical
    title: str
    look: Look
    spellings: tuple[str, ...] = ()  # others than the canonical name and the title


# Okabe & Ito's colours without black; violet, maroon and mint keep their distance from them under
# simulated protanopia, deuteranopia and tritanopia (tested).
_ORANGE: Final = Look("#E69F00", "/", (12, 4))
_SKY: Final = Look("#56B4E9", "\\", (8, 3))
_GREEN: Final = Look("#009E73", "|", (2, 2))
_YELLOW: Final = Look("#F0E442", "+", (8, 3, 2, 3, 2, 3))
_BLUE: Final = Look("#0072B2", "o", (8, 3, 2, 3))
_VERMILION: Final = Look("#D55E00", "x", ())
_PURPLE: Final = Look("#CC79A7", "-", (4, 4))
_VIOLET: Final = Look("#8800FF", ".", (1, 3))
_MAROON: Final = Look("#661100", "*", (16, 4))
_MINT: Final = Look("#CCFFCC", "O", (16, 4, 4, 4))
_ALL_LOOKS: Final = (
    *(_ORANGE, _SKY, _GREEN, _YELLOW, _BLUE),
    *(_VERMILION, _PURPLE, _VIOLET, _MAROON, _MINT),
)

_INCLUSION: Final = DefectClass("inclusion", "Inclusion", _SKY, ("In",))
_PATCHES: Final = DefectClass("patches", "Patches", _GREEN, ("Pa", "patch"))
_SCRATCHES: Final = DefectClass("scratches", "Scratches", _VERMILION, ("Sc", "scratch"))
_NEU: Final = (
    DefectClass("crazing", "Crazing", _ORANGE, ("Cr",)),
    _INCLUSION,
    _PATCHES,
    DefectClass("pitted_surface", "Pitted surface", _BLUE, ("PS", "pitted")),
    DefectClass("rolled-in_scale", "Rolled-in scale", _PURPLE, ("RS", "rolled-in scales")),
    _SCRATCHES,
)
_X_SDD: Final = (
    DefectClass("finishing roll printing", "Finishing roll printing", _ORANGE),
    DefectClass("iron sheet ash", "Iron sheet ash", _GREEN),
    DefectClass("oxide scale of plate system", "Oxide scale of plate system", _BLUE),
    DefectClass("oxide scale of temperature system", "Oxide scale of temperature system", _PURPLE),
    DefectClass("red iron", "Red iron", _YELLOW, ("red iron sheet",)),
    DefectClass("slag inclusion", "Slag inclusion", _SKY, ("slag inclusions",)),
    DefectClass("surface scratch", "Surface scratch", _VERMILION, ("surface scratches",)),
)


def _gc10(name: str, look: Look, folder: str, *more: str) -> DefectClass:
    """A class of GC10-DET, whose files call it `4_shuiban`, `4` or `shuiban`."""
    number, pinyin = folder.split("_")
    title = name.replace("_", " ").capitalize()
    return DefectClass(name, title, look, (folder, number, pinyin, *more))


_GC10: Final = (
    _gc10("punching_hole", _ORANGE, "1_chongkong", "punching"),
    _gc10("welding_line", _GREEN, "2_hanfeng", "weld line"),
    _gc10("crescent_gap", _YELLOW, "3_yueyawan"),
    _gc10("water_spot", _BLUE, "4_shuiban"),
    _gc10("oil_spot", _PURPLE, "5_youban"),
    _gc10("silk_spot", _VIOLET, "6_siban"),
    _gc10("inclusion", _SKY, "7_yiwu"),
    _gc10("rolled_pit", _MAROON, "8_yahen"),
    _gc10("crease", _MINT, "9_zhehen"),
    # `10_yaozhed` is a slip in some of the original XML files.
    _gc10("waist_folding", _VERMILION, "10_yaozhe", "10_yaozhed", "waist folding line"),
)

CLASSES: Final[Mapping[str, tuple[DefectClass, ...]]] = MappingProxyType(
    {
        "neu-det": _NEU,
        "neu-cls": _NEU,
        "neu-seg": (_INCLUSION, _PATCHES, _SCRATCHES),
        "x-sdd": _X_SDD,
        "gc10-det": _GC10,
    }
)

# What a class may be called. Label Studio has had holes where a label's name became HTML.
CLASS_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_ -]{0,39}")
CLASS_NAME_WORDS: Final = "1 to 40 letters from A to Z or a to z, digits, blanks, '-' and '_' can"
NO_DEFECT: Final = "no defect"  # what a person says of an image without any; no class's name
# Squeezed names by which mills call steel without a defect, where that is a class of its own.
_SOUND: Final = frozenset(
    {"good", "ok", "okay", "normal", "sound", "clean", "nodefect", "nodefects", "defectfree"}
)

# Long side of a data set's pictures, in px: what a network trained on it takes for a close look.
_SIDE_PX: Final[Mapping[str, int]] = MappingProxyType(
    {"neu-det": 200, "neu-cls": 200, "neu-seg": 200, "x-sdd": 128, "gc10-det": 2048}
)

# Which classes of different data sets are one defect. Every change is a new version, because
# committee sentences and joined statistics that were stored mean the version of their day.
COMMON_DEFECT_VERSION: Final = 1
_COMMON_DEFECT: Final[tuple[Mapping[str, str], ...]] = (
    {name: "crazing" for name in ("neu-det", "neu-cls")},
    {name: "pitted_surface" for name in ("neu-det", "neu-cls")},
    {name: "rolled-in_scale" for name in ("neu-det", "neu-cls")},
    {name: "patches" for name in ("neu-det", "neu-cls", "neu-seg")},
    {name: "inclusion" for name in ("neu-det", "neu-cls", "neu-seg", "gc10-det")}
    | {"x-sdd": "slag inclusion"},
    {name: "scratches" for name in ("neu-det", "neu-cls", "neu-seg")}
    | {"x-sdd": "surface scratch"},
)


def classes(dataset: str) -> tuple[DefectClass, ...]:
    """The classes of a data set in the order of their ids.

    Raises:
        DatasetError: if there is no such data set; the message lists what there is.
    """
    if dataset not in CLASSES:
        raise DatasetError(f"Unknown data set {dataset!r}. Available: {', '.join(CLASSES)}.")
    return CLASSES[dataset]


def labels(dataset: str) -> tuple[str, ...]:
    """The canonical names of a data set in the order of their ids.

    Raises:
        DatasetError: if there is no such data set.
    """
    return tuple(entry.name for entry in classes(dataset))


def native_side(dataset: str) -> int | None:
    """Long side in px of a data set's pictures, None where it is not known.

    A set grown from a public one, `neu-det@3f2a91`, has the pictures of that one.
    """
    return _SIDE_PX.get(dataset.partition("@")[0])


def normalise(spelling: str, dataset: str) -> str:
    """The canonical name of a class however it is spelt; case, blanks, `-` and `_` do not matter.

    Raises:
        DatasetError: if the data set has no such class; the message lists what it has.
    """
    wanted = _squeeze(spelling)
    for entry in classes(dataset):
        if wanted in {_squeeze(name) for name in (entry.name, entry.title, *entry.spellings)}:
            return entry.name
    raise DatasetError(
        f"Unknown class {spelling!r} in {dataset}. Available: {', '.join(labels(dataset))}."
    )


def is_sound(label: str) -> bool:
    """Whether a class means that there is no defect: "ok", "good", "no defect", …"""
    return _squeeze(label) in _SOUND


def title(label: str) -> str:
    """What a person reads for a canonical name; a name of nobody's set is only tidied up.

    Its capitals stay: somebody meant them, as in `Riss KTL`.
    """
    if known := _BY_NAME.get(label):
        return known.title
    tidied = words(label).strip()
    return tidied if tidied != tidied.lower() else tidied.capitalize()


def words(label: str) -> str:
    """A class as a person reads it within a line."""
    return label.replace("_", " ")


def look(label: str) -> Look:
    """How a class is drawn, wherever it is drawn.

    A label of no known data set gets one of the looks by its name alone, so it is the same on every
    page and after every restart; two such labels may share one.
    """
    known = _BY_NAME.get(label)
    return known.look if known else _ALL_LOOKS[zlib.crc32(label.encode()) % len(_ALL_LOOKS)]


def translate(label: str, *, source: str, target: str) -> str | None:
    """The name in one data set of a class of another, by the common-defect table.

    Slag inclusions and surface scratches of X-SDD are those of another mill: alike enough to
    compare opinions, not to mix training labels.

    Args:
        label: canonical name in `source`.
        source: data set the label is from.
        target: data set whose name is wanted.

    Returns:
        The canonical name in `target`, None if it has no such class.

    Raises:
        DatasetError: if a data set or the label is unknown.
    """
    label = normalise(label, source)
    if source == target:
        return label
    classes(target)  # an unknown target is an error, not "no such class"
    for row in _COMMON_DEFECT:
        if row.get(source) == label and target in row:
            return row[target]
    return None


def _squeeze(spelling: str) -> str:
    return re.sub(r"[^a-z0-9]", "", spelling.lower())


# A name that two sets share (inclusion) has one title and one look in both (tested).
_BY_NAME: Final[Mapping[str, DefectClass]] = MappingProxyType(
    {entry.name: entry for entries in CLASSES.values() for entry in entries}
)
