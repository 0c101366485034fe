"""The public data sets: task, classes and their spellings, paper protocol, citation, cautions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.errors import DatasetError
from core.types import Task
from training.splits import Assignment, Item, Plan, few_shot, original_split, random_split, shares

MOBILESTEELNET_SEED = 42  # MobileSteelNet names its split seed; it is fixed whatever the run's is


@dataclass(frozen=True, slots=True)
class Entry:
    """One public data set.

    `spellings` maps what files and folders call a class, squeezed by `squeeze`, to our label;
    labels themselves need no entry. `overlaps` gives, for sets made of crops, the correlation from
    which two pictures of a class are taken for crops of one strip where no manifest says so.
    """

    name: str
    task: Task
    labels: tuple[str, ...]
    plan: Plan
    citation: str
    licence: str
    spellings: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    overlaps: Mapping[str, float] = field(default_factory=dict)

    def label(self, spelling: str) -> str | None:
        """Our name of a class however the source spells it; None if it is none of ours."""
        squeezed = squeeze(spelling)
        by_label = {squeeze(label): label for label in self.labels}
        return by_label.get(squeezed) or self.spellings.get(squeezed)


def squeeze(spelling: str) -> str:
    """Lower case, letters and digits only: `rolled-in_scale` and `Rolled in Scale` agree."""
    return re.sub(r"[^a-z0-9]", "", spelling.lower())


def entry(name: str) -> Entry:
    """The data set of that name.

    Raises:
        DatasetError: if there is none; the message lists what there is.
    """
    if name not in CATALOGUE:
        raise DatasetError(f"Unknown data set {name!r}. Available: {', '.join(sorted(CATALOGUE))}.")
    return CATALOGUE[name]


def _ten_per_cent_each(items: Sequence[Item], seed: int) -> Assignment:
    return random_split(items, shares(0.1, 0.1), seed=seed)


_NEU_LABELS = (
    "crazing",
    "inclusion",
    "patches",
    "pitted_surface",
    "rolled-in_scale",
    "scratches",
)
_NEU_SPELLINGS = {  # file-name prefixes of the classification release, Cr_1.bmp and so on
    "cr": "crazing",
    "in": "inclusion",
    "pa": "patches",
    "ps": "pitted_surface",
    "rs": "rolled-in_scale",
    "sc": "scratches",
}
# scratches are streaks along one direction, which correlate without being the same strip
_NEU_OVERLAPS = {label: 0.85 if label == "scratches" else 0.6 for label in _NEU_LABELS}
_NEU_CITATION = (
    "K. Song, Y. Yan, Applied Surface Science 285 (2013) 858-864; "
    "Y. He, K. Song, Q. Meng, Y. Yan, IEEE Trans. Instrum. Meas. 69(4) (2020) 1493-1504"
)
_NEU_LICENCE = "none stated; published by Northeastern University (China) for research use"
_NEU_TWINS = (
    "The inclusion, patches and scratches images of NEU-DET are, pixel for pixel, base images of "
    "NEU-Seg: do not tune on one set and test on their twins in the other."
)

_GC10_NAMES = {  # number of the class folder, pinyin name in the XML, our label
    "1chongkong": "punching_hole",
    "2hanfeng": "welding_line",
    "3yueyawan": "crescent_gap",
    "4shuiban": "water_spot",
    "5youban": "oil_spot",
    "6siban": "silk_spot",
    "7yiwu": "inclusion",
    "8yahen": "rolled_pit",
    "9zhehen": "crease",
    "10yaozhe": "waist_folding",
}


def _gc10_spellings() -> dict[str, str]:
    spellings = dict(_GC10_NAMES)
    for name, label in _GC10_NAMES.items():
        number, pinyin = re.fullmatch(r"(\d+)(\w+)", name).groups()  # type: ignore[union-attr]
        spellings[number] = spellings[pinyin] = label
    # a slip of the original annotation tool: `10_yaozhe(d)` and `10_yaozhed` in some files
    spellings["10yaozhed"] = "waist_folding"
    return spellings


_ENTRIES = (
    Entry(
        name="neu-det",
        task="detect",
        labels=_NEU_LABELS,
        plan=Plan(
            _ten_per_cent_each,
            "random image-wise 8:1:1, stratified by file-name class (DA-YOLO, GMS2-YOLO; for "
            "GRACE's 8:2 test on the joined split val+test)",
        ),
        citation=_NEU_CITATION,
        licence=_NEU_LICENCE,
        spellings=_NEU_SPELLINGS,
        notes=(_NEU_TWINS,),
        overlaps=_NEU_OVERLAPS,
    ),
    Entry(
        name="neu-cls",
        task="classify",
        labels=_NEU_LABELS,
        plan=Plan(
            lambda items, _: random_split(items, few_shot(15, 15), seed=MOBILESTEELNET_SEED),
            "random image-wise 5/5/90 % with seed 42: 15 train, 15 val and all other images of "
            "each class test (MobileSteelNet)",
        ),
        citation=_NEU_CITATION,
        licence=_NEU_LICENCE,
        spellings=_NEU_SPELLINGS,
        notes=("Same images and the same leak-free split as neu-det.", _NEU_TWINS),
        overlaps=_NEU_OVERLAPS,
    ),
    Entry(
        name="neu-seg",
        task="segment",
        labels=("inclusion", "patches", "scratches"),
        plan=Plan(
            lambda items, seed: original_split(items, val=0.1, seed=seed),
            "original division: its training part 9:1 into train and val, its test part as test "
            "(SME-DeepLabV3+); most test images have turned copies in training",
        ),
        citation="H. Dong, K. Song, Y. He, J. Xu, Y. Yan, Q. Meng, PGA-Net, "
        "IEEE Trans. Industrial Informatics 16(12) (2020) 7448-7458",
        licence=_NEU_LICENCE,
        notes=(_NEU_TWINS,),
    ),
    Entry(
        name="x-sdd",
        task="classify",
        labels=(
            "finishing roll printing",
            "iron sheet ash",
            "oxide scale of plate system",
            "oxide scale of temperature system",
            "red iron",
            "slag inclusion",
            "surface scratch",
        ),
        plan=Plan(
            lambda items, seed: random_split(items, shares(0.1, 0.2), seed=seed),
            "random image-wise 70/10/20 %, stratified by class (our choice: not stated by the "
            "paper)",
        ),
        citation="X. Feng, X. Gao, L. Luo, X-SDD: A New Benchmark for Hot Rolled Steel Strip "
        "Surface Defects Detection, Symmetry 13(4) (2021) 706",
        licence="Apache-2.0",
        spellings={"redironsheet": "red iron", "surfacescratches": "surface scratch"},
    ),
    Entry(
        name="gc10-det",
        task="detect",
        labels=tuple(_GC10_NAMES.values()),
        plan=Plan(
            _ten_per_cent_each, "random image-wise 8:1:1, stratified by class folder (DA-YOLO)"
        ),
        citation="X. Lv, F. Duan, J. Jiang, X. Fu, L. Gan, Deep Metallic Surface Defect Detection: "
        "The New Benchmark and Detection Network, Sensors 20(6) (2020) 1562",
        licence="CC BY 4.0",
        spellings=_gc10_spellings(),
    ),
)

CATALOGUE: Mapping[str, Entry] = {e.name: e for e in _ENTRIES}
