"""The public data sets: task, paper protocol, citation, cautions; classes: `core.taxonomy`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core import taxonomy
from core.errors import DatasetError
from core.types import Task
from training.splits import Assignment, Item, Plan, few_shot, original_split, random_split, shares

MOBILESTEELNET_SEED = 42  # MobileSteelNet names its split seed; it is fixed whatever the run's is


@dataclass(frozen=True, slots=True)
class Entry:
    """One data set: a public one, or with `own_classes` one of somebody's own.

    `overlaps` gives, for sets made of crops, the correlation from which two pictures of a class
    are taken for crops of one strip where no manifest says so. `own_classes` gives the name here
    of each class as the source spells it, in the source's order.
    """

    name: str
    task: Task
    plan: Plan
    citation: str
    licence: str
    notes: tuple[str, ...] = ()
    overlaps: Mapping[str, float] = field(default_factory=dict)
    own_classes: Mapping[str, str] | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Canonical class names in the order of their ids."""
        if self.own_classes is not None:
            return tuple(dict.fromkeys(self.own_classes.values()))
        return taxonomy.labels(self.name)

    @property
    def may_be_sound(self) -> bool:
        """Whether an image without any class stays in: steel without a defect."""
        return self.task == "segment" or (self.own_classes is not None and self.task == "detect")

    def label(self, spelling: str) -> str | None:
        """Our name of a class however the source spells it; None if it is none of ours."""
        if self.own_classes is not None:
            return self.own_classes.get(spelling)
        try:
            return taxonomy.normalise(spelling, self.name)
        except DatasetError:
            return None


def entry(name: str) -> Entry:
    """The data set of that name.

    Raises:
        DatasetError: if there is none; the message lists what there is.
    """
    if name not in CATALOGUE:
        raise DatasetError(
            f"Unknown data set {name!r}. Available: {', '.join(sorted(CATALOGUE))}; for a set of "
            "your own say by --task what it is for."
        )
    return CATALOGUE[name]


def _ten_per_cent_each(items: Sequence[Item], seed: int) -> Assignment:
    return random_split(items, shares(0.1, 0.1), seed=seed)


# scratches are streaks along one direction, which correlate without being the same strip
_NEU_OVERLAPS = {
    label: 0.85 if label == "scratches" else 0.6 for label in taxonomy.labels("neu-det")
}
_NEU_CITATION = (
    "K. Song, Y. Yan, Applied Surface Science 285 (2013) 858-864; "
    "Y. He, K. Song, Q. Meng, Y. Yan, IEEE Trans. Instrum. Meas. 69(4) (2020) 1493-1504"
)
_NEU_LICENCE = "none stated; published by Northeastern University (China) for research use"
_NEU_TWINS = (
    "The inclusion, patches and scratches images of NEU-DET are, pixel for pixel, base images of "
    "NEU-Seg: do not tune on one set and test on their twins in the other."
)

_ENTRIES = (
    Entry(
        name="neu-det",
        task="detect",
        plan=Plan(
            _ten_per_cent_each,
            "random image-wise 8:1:1, stratified by file-name class (DA-YOLO, GMS2-YOLO; for "
            "GRACE's 8:2 test on the joined split val+test)",
        ),
        citation=_NEU_CITATION,
        licence=_NEU_LICENCE,
        notes=(_NEU_TWINS,),
        overlaps=_NEU_OVERLAPS,
    ),
    Entry(
        name="neu-cls",
        task="classify",
        plan=Plan(
            lambda items, _: random_split(items, few_shot(15, 15), seed=MOBILESTEELNET_SEED),
            "random image-wise 5/5/90 % with seed 42: 15 train, 15 val and all other images of "
            "each class test (MobileSteelNet)",
        ),
        citation=_NEU_CITATION,
        licence=_NEU_LICENCE,
        notes=("Same images and the same leak-free split as neu-det.", _NEU_TWINS),
        overlaps=_NEU_OVERLAPS,
    ),
    Entry(
        name="neu-seg",
        task="segment",
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
        plan=Plan(
            lambda items, seed: random_split(items, shares(0.1, 0.2), seed=seed),
            "random image-wise 70/10/20 %, stratified by class (our choice: not stated by the "
            "paper)",
        ),
        citation="X. Feng, X. Gao, L. Luo, X-SDD: A New Benchmark for Hot Rolled Steel Strip "
        "Surface Defects Detection, Symmetry 13(4) (2021) 706",
        licence="Apache-2.0",
    ),
    Entry(
        name="gc10-det",
        task="detect",
        plan=Plan(
            _ten_per_cent_each, "random image-wise 8:1:1, stratified by class folder (DA-YOLO)"
        ),
        citation="X. Lv, F. Duan, J. Jiang, X. Fu, L. Gan, Deep Metallic Surface Defect Detection: "
        "The New Benchmark and Detection Network, Sensors 20(6) (2020) 1562",
        licence="CC BY 4.0",
    ),
)

CATALOGUE: Mapping[str, Entry] = {e.name: e for e in _ENTRIES}
