"""Stock networks that every paper is compared with, trained by the same code from random weights.

Nothing here is ours and nothing is tuned: each takes the schedule of the papers it stands beside,
so that a difference in a table is a difference between networks. Libraries load when one is built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from core.errors import ConfigError
from core.types import Task
from models._spec import ModelSpec, Paper, Recipe

if TYPE_CHECKING:
    from torch import nn

ONLY = ("standard",)  # the scales of a network that comes in one size

# ultralytics' own schedule, which DA-YOLO and GMS2-YOLO keep
DETECT = Recipe(epochs=300, batch=16, optimizer="SGD", lr0=0.01)
# that of SME-DeepLabV3+
SEGMENT = Recipe(
    epochs=300,
    batch=16,
    optimizer="SGD",
    lr0=7e-3,
    momentum=0.9,
    weight_decay=1e-4,
    cosine=True,
    extra={"nesterov": True},
)
# that of MobileSteelNet
CLASSIFY = Recipe(
    epochs=200,
    batch=32,
    optimizer="Adam",
    lr0=1e-3,
    momentum=0.9,
    weight_decay=1e-4,
    warmup_epochs=5,
    cosine=True,
    patience=10,
)


def _yolo11(n_classes: int, scale: str) -> nn.Module:
    from models._ultralytics import build_detector, yolo11_config

    return build_detector(yolo11_config(scale), n_classes)


def _deeplabv3plus(n_classes: int, scale: str) -> nn.Module:
    from models._smp import DeepLabV3Plus

    return DeepLabV3Plus(n_classes, scale)


def _mobilenet_v1(n_classes: int, scale: str) -> nn.Module:
    from models.mobilesteelnet import build_variant

    return build_variant(n_classes, msff="none", ciema=False, act="relu", strides="mobilenet_v1")


def _mobilenet_v2(n_classes: int, scale: str) -> nn.Module:
    from torchvision.models import mobilenet_v2

    network: nn.Module = mobilenet_v2(weights=None, num_classes=n_classes)
    return network


def _resnet50(n_classes: int, scale: str) -> nn.Module:
    from torchvision.models import resnet50

    network: nn.Module = resnet50(weights=None, num_classes=n_classes)
    return network


def _baseline(
    name: str,
    title: str,
    task: Task,
    build: Callable[[int, str], nn.Module],
    *,
    paper: Paper,
    feature_layer: str,
    scales: tuple[str, ...] = ONLY,
) -> ModelSpec:
    """A spec whose first scale is the default; `build` is only called with one of the scales."""

    def checked_build(n_classes: int, scale: str) -> nn.Module:
        if scale not in scales:
            raise ConfigError(f"Unknown scale {scale!r}. {title} has: {', '.join(scales)}.")
        return build(n_classes, scale)

    size, recipe = {
        "detect": (640, DETECT),
        "segment": (512, SEGMENT),
        "classify": (224, CLASSIFY),
    }[task]
    return ModelSpec(
        name=name,
        title=title,
        task=task,
        image_size=size,
        build=checked_build,
        scales=scales,
        default_scale=scales[0],
        recipe=recipe,
        paper=paper,
        feature_layer=feature_layer,
    )


_ALL = (
    _baseline(
        "yolo11",
        "YOLO11",
        "detect",
        _yolo11,
        scales=("n", "s", "m"),
        feature_layer="model.19",
        paper=Paper("Ultralytics YOLO11", "Jocher, Qiu", "software", 2024, code="AGPL-3.0"),
    ),
    _baseline(
        "deeplabv3plus",
        "DeepLabV3+",
        "segment",
        _deeplabv3plus,
        scales=("mobilenet_v2", "resnet18"),
        feature_layer="decoder.aspp",
        paper=Paper(
            "Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation",
            "Chen et al.",
            "ECCV",
            2018,
            doi="10.1007/978-3-030-01234-2_49",
        ),
    ),
    _baseline(
        "mobilenet_v1",
        "MobileNetV1",
        "classify",
        _mobilenet_v1,
        feature_layer="trunk.s3",
        paper=Paper(
            "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
            "Howard et al.",
            "arXiv:1704.04861",
            2017,
        ),
    ),
    _baseline(
        "mobilenet_v2",
        "MobileNetV2",
        "classify",
        _mobilenet_v2,
        feature_layer="features",
        paper=Paper(
            "MobileNetV2: Inverted Residuals and Linear Bottlenecks",
            "Sandler et al.",
            "CVPR",
            2018,
            doi="10.1109/CVPR.2018.00474",
        ),
    ),
    _baseline(
        "resnet50",
        "ResNet-50",
        "classify",
        _resnet50,
        feature_layer="layer4",
        paper=Paper(
            "Deep Residual Learning for Image Recognition",
            "He et al.",
            "CVPR",
            2016,
            doi="10.1109/CVPR.2016.90",
        ),
    ),
)

SPECS: dict[str, ModelSpec] = {spec.name: spec for spec in _ALL}
