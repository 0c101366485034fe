"""The words of the four accuracy pages, and what was aimed at."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from core.taxonomy import words
from training.benchmark import targets
from training.benchmark.balance_choice import say_choice
from training.benchmark.page import percent
from training.benchmark.rows import Table
from training.benchmark.sheet import Block, Column, Section, Sheet
from training.benchmark.summary import Line

_HOW_TO_READ = (
    "A value of one seed stands with its 95 % bootstrap interval over {unit}; of several seeds, "
    "as mean ± standard deviation. *Against the baseline* is the difference in {primary} in "
    "points: of one seed with the interval of the paired bootstrap (both networks on the same "
    "resampled images), of several as mean ± standard deviation of the seeds' differences. "
    "*Published* is what the paper prints for its own data and split. The epoch is chosen on "
    "validation, and the test split is read once, after training."
)
_GROUPS = "images (paper protocol) or groups of related images (leak-free)"
_LEAK_FREE = (
    "Related images (overlapping crops, turned copies) are never on both sides: what to expect on "
    "new steel."
)

_BOXES = (
    Column("mAP50", "mAP50"),
    Column("mAP50_95", "mAP50_95"),
    Column("precision", "precision"),
    Column("recall", "recall"),
)
_AP50 = Column("AP50", "mAP50")
DETECT = Sheet(
    table="detect",
    stem="detection",
    title="Detectors",
    intro=(
        "The three papers' detectors beside YOLO11 of the same scale: same data, schedule, "
        "augmentation, first weights and seeds; only the network, its loss and its sampler differ. "
        + _HOW_TO_READ.format(unit=_GROUPS, primary="mAP50")
        + " Precision and recall are taken at IoU 0.5 and the confidence of the best mean F1. "
        "Scale n starts from COCO arrays, of which the papers' own layers take what fits. COCO "
        "arrays are at hand for n only: scale s starts from random weights, or, in a table of its "
        "own, from those of n with every channel doubled. What the bundled "
        "detectors lose, by kind of error, is shown in [mistakes-grace.md](mistakes-grace.md), "
        "[mistakes-gms2_yolo.md](mistakes-gms2_yolo.md) and "
        "[mistakes-da_yolo.md](mistakes-da_yolo.md); what they find as one, in "
        "[committee.md](../committee.md)."
    ),
    blocks={
        "networks": Block("Scale n", "Baseline: YOLO11, n.", _BOXES, _AP50),
        "in-place": Block(
            "Pictures kept in place",
            "Our augmentation, the default of `training train`: for the last 40 % of the epochs "
            "pictures are mirrored, made brighter or darker, and otherwise left alone. All other "
            "tables have ultralytics' zoom by a half and shift by a tenth to the last, four "
            "pictures in one until the last 20 %. Baseline: YOLO11, n, of the table above.",
            _BOXES,
            _AP50,
        ),
        "long": Block(
            "Twice the epochs, pictures kept in place",
            "Our augmentation as in the table of that name, over twice the epochs. Baseline: "
            "YOLO11, n, trained likewise.",
            _BOXES,
            _AP50,
        ),
        "recipes": Block(
            "Our recipes",
            "The papers' networks without one part of their training: GRACE without its sampler, "
            "DA-YOLO without its loss. Baseline: YOLO11, n, of the table above.",
            _BOXES,
            _AP50,
        ),
        "parts": Block(
            "Parts of the papers one by one",
            "Each row is YOLO11 n with one part of a paper. Baseline: YOLO11, n, of the table "
            "above.",
            _BOXES,
            _AP50,
        ),
        "unaided": Block(
            "Without COCO weights",
            "From random weights, as the papers' own layers always start: COCO arrays help the "
            "less the more of a network is a paper's. DA-YOLO has YOLO11's loss here. Baseline: "
            "YOLO11, n, from random weights.",
            _BOXES,
            _AP50,
        ),
        "scale-s": Block("Scale s", "From random weights. Baseline: YOLO11, s.", _BOXES, _AP50),
        "widened": Block(
            "Scale s, begun as scale n",
            "Every channel of YOLO11 n with its COCO arrays is doubled, so that YOLO11 s begins by "
            "computing what n computes (Net2Net); pictures are kept in place in the end. Baseline "
            "of the papers' networks: YOLO11, s, so begun; of that one: YOLO11, n, with pictures "
            "kept in place.",
            _BOXES,
            _AP50,
        ),
    },
    protocols={
        "leak-free": _LEAK_FREE,
        "paper": "Random, image by image, 8:1:1: comparable with published numbers, and optimistic "
        "because parts of one strip lie on both sides. GRACE publishes for 360 images on which it "
        "also chose its weights.",
    },
    pictures=(
        ("detection.png", "mAP50 on the test split with 95 % intervals; dashed: the baseline"),
    ),
    targets=targets.DETECTION,
)

_MASKS = (
    Column("mIoU", "mIoU"),
    Column("mIoU, defects", "mIoU_defects"),
    Column("precision", "precision"),
    Column("precision, defects", "precision_defects"),
    Column("recall", "recall"),
    Column("MPA", "MPA"),
    Column("MPA, defects", "MPA_defects"),
)
_IOU = Column("IoU", "mIoU")
SEGMENT = Sheet(
    table="segment",
    stem="segmentation",
    title="Segmenters",
    intro=(
        "SME-DeepLabV3+ beside DeepLabV3+ with stock encoders, its parts one by one, and its loss "
        "term by term; every network starts from random weights. "
        + _HOW_TO_READ.format(unit=_GROUPS, primary="mIoU")
        + " All metrics come from one confusion matrix over the whole test split, at the images' "
        "own size; *defects* leaves the background out. MPA is the mean recall of the classes, so "
        "it equals *recall*. What the bundled release does on easy and hard images is shown in "
        "[mistakes-sme_deeplabv3plus.md](mistakes-sme_deeplabv3plus.md)."
    ),
    blocks={
        "networks": Block("Networks", "Baseline: DeepLabV3+ with MobileNetV2.", _MASKS, _IOU),
        "variants": Block(
            "Variants beyond the paper",
            "Baseline: the paper's SME-DeepLabV3+.",
            _MASKS,
            _IOU,
        ),
        "losses": Block(
            "Losses",
            "SME-DeepLabV3+ with fewer terms than the paper's CE + focal + Dice, the baseline.",
            _MASKS,
            _IOU,
        ),
    },
    protocols={
        "leak-free": _LEAK_FREE,
        "paper": "The original division, on which the paper publishes 88.87 mIoU. Most of its test "
        "images are turned copies of training images, so it measures memory as much as sight.",
    },
    pictures=(
        ("segmentation.png", "mIoU on the test split with 95 % intervals; dashed: the baseline"),
        (
            "segmentation-cases.png",
            "Image, prediction and truth on the leak-free test split: three easy and three hard "
            "images, by the mean IoU of their classes",
        ),
        (
            "mistakes-sme_deeplabv3plus.png",
            "Image, prediction of the bundled release and truth on the leak-free test split: first "
            "easy, then hard images",
        ),
    ),
    targets=targets.SEGMENTATION,
)

_CLASSES = (
    Column("accuracy", "accuracy"),
    Column("macro F1", "macro_F1"),
    Column("precision", "precision"),
)
_RECALL = Column("Recall", "recall")


def _confusions(parts: Mapping[Section, tuple[Line, ...]]) -> list[str]:
    """Of each network the mistakes that it makes most, as shares of the true class."""
    text: list[str] = []
    for (_, _, setting, protocol), found in parts.items():
        for line in found:
            if not line.records:
                continue
            matrix = np.sum([np.array(r.evaluation.confusion) for r in line.records], axis=0)
            shares = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
            np.fill_diagonal(shares, 0.0)
            names = [words(label) for label in line.records[0].run.labels]
            worst = np.argsort(-shares, axis=None, kind="stable")[:3]
            told = [
                f"{names[i]} as {names[j]} {percent(shares[i, j])} %"
                for i, j in (divmod(int(k), len(names)) for k in worst)
                if shares[i, j] > 0
            ]
            text.append(
                f"- {protocol}, {setting}, {line.row.title}: {', '.join(told) or 'no mistake'}"
            )
    return ["## Most frequent confusions", "", *text, ""] if text else []


CLASSIFY = Sheet(
    table="classify",
    stem="classification",
    title="Classifiers from very few labels",
    intro=(
        "MobileSteelNet's parts one by one and stock networks, all from random weights on 90 "
        "labelled images. "
        + _HOW_TO_READ.format(unit=_GROUPS, primary="accuracy")
        + " What other papers call the accuracy of a class is its recall. The bundled release has "
        "learned from all labels; each of its mistakes is shown in "
        "[mistakes-mobilesteelnet.md](mistakes-mobilesteelnet.md)."
    ),
    blocks={
        "networks": Block(
            "Networks",
            "Baseline: the paper's trunk with the activations that MobileNetV1 has.",
            _CLASSES,
            _RECALL,
        )
    },
    protocols={
        "leak-free": f"{_LEAK_FREE} 15 labelled images a class in train and as many in val, drawn "
        "anew by each seed; the spread therefore includes which images were labelled.",
        "paper": "5/5/90 %: 15 images a class to train, 15 to choose the epoch, all others to "
        "test, one fixed division; seeds change first weights and order only. The paper publishes "
        "91.36 for one seed.",
    },
    pictures=(
        (
            "classification.png",
            "Accuracy on the test split, mean and standard deviation; dashed: the baseline",
        ),
        (
            "classification-confusion.png",
            "Confusion matrices, all seeds together, rows are true classes, in per cent",
        ),
    ),
    targets=targets.CLASSIFICATION,
    more=_confusions,
)

BALANCE = Sheet(
    table="balance",
    stem="balance",
    title="Rare classes",
    intro=(
        "What each balancing method does for classes with few images: on X-SDD, which has 57 to "
        "357 images a class, and on a NEU-DET made long-tailed. "
        + _HOW_TO_READ.format(unit="groups of related images", primary="the first metric")
        + " The methods are described in `training/balance.py`."
    ),
    blocks={
        "methods": Block(
            "MobileSteelNet, light, with each method",
            "Baseline: none.",
            (
                Column("macro F1", "macro_F1"),
                Column("accuracy", "accuracy"),
                Column("mean recall", "recall"),
                Column("mean precision", "precision"),
            ),
            _RECALL,
        ),
        "long-tail": Block(
            "YOLO11 n on a long-tailed NEU-DET",
            "Of crazing and scratches a tenth of the training images is left; validation and test "
            "are whole. All rows train for the same number of epochs, the first on all images. "
            "Baseline: none.",
            _BOXES,
            _AP50,
        ),
    },
    protocols={"leak-free": _LEAK_FREE, "paper": "Random, image by image."},
    pictures=(
        ("balance.png", "Each method on the test split, mean and standard deviation; dashed: none"),
    ),
    more=say_choice,
)

SHEETS: Mapping[Table, Sheet] = {s.table: s for s in (DETECT, SEGMENT, CLASSIFY, BALANCE)}
