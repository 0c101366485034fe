"""Rows of the papers' ablations: a published model with some of its parts, as specs of their own.

A row is named PAPER.PART (`grace.lite_fen`), can be trained, released and loaded by that name, and
appears in no list of models: only the benchmark's plans name it. Whatever is not the row's part is
the baseline's, so that a difference in a table is the part's. The published figure of a row, where
there is one, is its first reported metric.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from models import da_yolo, gms2_yolo, grace, mobilesteelnet, sme_deeplabv3plus
from models._mask_losses import SegmentationLoss
from models._spec import ModelSpec, ReportedMetric
from models.sme_deeplabv3plus import SMEDeepLabV3Plus

Build = Callable[[int, str], nn.Module]


def _row(paper: ModelSpec, part: str, title: str, build: Build, **changes: Any) -> ModelSpec:
    plain: dict[str, Any] = {"reported": (), "departures": ()}
    return replace(paper, name=f"{paper.name}.{part}", title=title, build=build, **plain | changes)


def _published(paper: ModelSpec, name: str, where: str = "") -> tuple[ReportedMetric, ...]:
    """The paper's figure `name`, printed for the row `where`, under the plain metric's name."""
    return tuple(
        replace(figure, name=name.split()[0])
        for figure in paper.reported
        if figure.name == name and (not where or figure.where == where)
    )


# ----------------------------------------------------------------------------------- detectors


def _da_yolo(part: str, title: str, *, tdam: bool, amfem: bool, iaj: bool) -> ModelSpec:
    variant = da_yolo.Variant(tdam=tdam, amfem=amfem)
    return _row(
        da_yolo.SPEC,
        part,
        title,
        partial(_build_da_yolo, variant=variant),
        criterion=da_yolo.SPEC.criterion if iaj else None,
        coco_layers=da_yolo.coco_layers(variant),
    )


def _build_da_yolo(n_classes: int, scale: str, *, variant: da_yolo.Variant) -> nn.Module:
    return da_yolo.build_variant(n_classes, scale, variant=variant)


def _build_stock_grace(n_classes: int, scale: str) -> nn.Module:
    return grace.build_variant(n_classes, scale, placement="none")


def _gms2(part: str, title: str, *, wiou: bool = False, **parts: bool) -> ModelSpec:
    on = {name: parts.get(name, False) for name in ("ghgnet", "msnet", "sepbn")}
    return _row(
        gms2_yolo.SPEC,
        part,
        title,
        partial(gms2_yolo.build_variant, wiou=3 if wiou else None, **on),  # type: ignore[arg-type]
        coco_layers=gms2_yolo.coco_layers(**on),
    )


_DETECTORS = (
    _da_yolo("3dam", "YOLO11 + 3DAM", tdam=True, amfem=False, iaj=False),
    _da_yolo("amfem", "YOLO11 + AMFEM", tdam=False, amfem=True, iaj=False),
    _da_yolo("iaj", "YOLO11 + IAJ loss", tdam=False, amfem=False, iaj=True),
    _da_yolo("no_iaj", "YOLO11 + 3DAM + AMFEM", tdam=True, amfem=True, iaj=False),
    _row(grace.SPEC, "lite_fen", "YOLO11 + Lite-FEN", grace.build, sampler=None),
    _row(
        grace.SPEC,
        "dscbsm",
        "YOLO11 + DS-CBSM++",
        _build_stock_grace,
        on_epoch=None,
        coco_layers=None,
    ),
    _gms2("ghgnet", "YOLO11 + GHGNet", ghgnet=True),
    _gms2("msnet", "YOLO11 + MSNet", msnet=True),
    _gms2("sepbn", "YOLO11 + separate-BN head", sepbn=True),
    _gms2("wiou", "YOLO11 + Wise-IoU", wiou=True),
)


# ----------------------------------------------------------------------------------- segmenters


def _build_sme(n_classes: int, scale: str, *, parts: Mapping[str, bool]) -> nn.Module:
    if scale not in sme_deeplabv3plus.SCALES:
        return sme_deeplabv3plus.build(n_classes, scale)  # says that there is no such scale
    return SMEDeepLabV3Plus(n_classes, **{**sme_deeplabv3plus.SCALES[scale], **parts})


def _sme(part: str, title: str, **parts: bool) -> ModelSpec:
    on = {name: parts.get(name, False) for name in ("aspp", "msaa", "ela")}
    reported = _published(sme_deeplabv3plus.SPEC, "mIoU", title)
    build = partial(_build_sme, parts=on)
    return _row(sme_deeplabv3plus.SPEC, part, title, build, scales=("paper",), reported=reported)


def _sme_loss(part: str, terms: str, **weights: float) -> ModelSpec:
    def criterion(network: nn.Module) -> SegmentationLoss:
        return SegmentationLoss(**weights)

    return _row(
        sme_deeplabv3plus.SPEC,
        part,
        f"SME-DeepLabV3+, {terms}",
        sme_deeplabv3plus.build,
        criterion=criterion,
        losses={},
        recipe=replace(sme_deeplabv3plus.SPEC.recipe, in_short={}),  # its loss is what it is for
    )


_SEGMENTERS = (
    _sme("aspp", "StarNet + ASPP", aspp=True),
    _sme("msaa", "StarNet + MSAA", msaa=True),
    _sme("ela", "StarNet + ELA", ela=True),
    _sme_loss("ce", "CE", ce=1.0, focal=0.0, dice=0.0),
    _sme_loss("ce_focal", "CE + focal", ce=1.0, focal=1.0, dice=0.0),
    _sme_loss("ce_dice", "CE + Dice", ce=1.0, focal=0.0, dice=1.0),
    _sme_loss("focal_dice", "focal + Dice", ce=0.0, focal=1.0, dice=1.0),
    _sme_loss("border", "CE + focal + Dice + border F1", border=1.0),
)


# ----------------------------------------------------------------------------------- classifiers


def _steelnet(part: str, title: str, printed: str = "", **parts: Any) -> ModelSpec:
    options = {"msff": "none", "ciema": False, "act": "none", "strides": "paper", **parts}

    def build(n_classes: int, scale: str) -> nn.Module:
        if scale not in mobilesteelnet.SPEC.scales:
            return mobilesteelnet.build(n_classes, scale)  # says that there is no such scale
        return mobilesteelnet.build_variant(n_classes, **options)

    return _row(
        mobilesteelnet.SPEC,
        part,
        title,
        build,
        scales=("paper",),
        default_scale="paper",
        reported=_published(mobilesteelnet.SPEC, printed),
        feature_layer="trunk.s3",
    )


_CLASSIFIERS = (
    _steelnet("trunk", "MobileNetV1 as the paper wired it", "accuracy MobileNetV1"),
    _steelnet("trunk_relu", "the same with standard activations", act="relu"),
    _steelnet("msff", "MobileNetV1 + MSFF", "accuracy MobileNetV1 + MSFF", msff="largest"),
    _steelnet("ciema", "MobileNetV1 + CIEMA", "accuracy MobileNetV1 + CIEMA", ciema=True),
)

SPECS: dict[str, ModelSpec] = {
    spec.name: spec for spec in (*_DETECTORS, *_SEGMENTERS, *_CLASSIFIERS)
}
