"""GMS2-YOLO: YOLO11n with a GHGNet backbone, an MSNet neck, a separate-BN head, and Wise-IoU.

"GMS2-YOLO: a metal surface defect detection method integrating improved MANet and detection head",
Journal of Electronic Measurement and Instrumentation, manuscript B2508416. Only the abstract was
available: it names the components, and everything below those names is reconstructed from their
published primary sources (`SPEC.departures`). Wise-IoU is Tong et al., arXiv 2301.10051.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from ultralytics.utils.loss import v8DetectionLoss

from core.errors import ConfigError
from models._box_losses import EPS, PluggableBboxLoss, box_geometry
from models._ghg import GHGBlock, MSNet, SepBNDetect, fold_head, fold_star_blocks
from models._spec import ModelSpec, Paper, Recipe, ReportedMetric
from models._ultralytics import (
    DetectionNetwork,
    build_detector,
    finish,
    replace_layer,
    width,
    yolo11_config,
)

# ----------------------------------------------------------------------------------------- Wise-IoU

Version: TypeAlias = Literal[1, 2, 3]


class WiseIoU(nn.Module):
    """Wise-IoU loss of box pairs, (n, 4) and (n, 4) xyxy in one unit -> (n,).

    v1: R·(1 − IoU), where R in [1, e) grows with the distance of the centres.
    v2: √(L/m) · v1, which favours hard boxes; L = 1 − IoU without gradient.
    v3: r · v1 with r = β / (δ·a^(β − δ)), β = L/m: boxes of medium quality count most, for r falls
    to 0 at both ends and peaks at β = 1 / ln a.

    m, the running mean of L over positives, is a buffer: it is saved with the network, so that a
    resumed run goes on with it. It moves once per call that is part of training, after the loss of
    the batch was weighed with the old value.

    Args:
        version: 1, 2 or 3.
        a: base of the focusing of v3.
        delta: δ; where β = δ, r = 1.
        momentum: μ, weight of a batch in the running mean.
    """

    mean: Tensor

    def __init__(
        self, *, version: Version = 3, a: float = 1.7, delta: float = 2.7, momentum: float = 0.01
    ) -> None:
        super().__init__()
        self.version, self.a, self.delta, self.momentum = version, a, delta, momentum
        self.register_buffer("mean", torch.tensor(1.0))

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Loss of each pair (n,), float32; empty for no pairs."""
        pairs = box_geometry(pred, target)
        diagonal2 = pairs.enclosing_width.square() + pairs.enclosing_height.square()
        # The gradient stops in the denominator alone: R must not shrink by inflating the box.
        distance = torch.exp(pairs.centre_distance2 / (diagonal2.detach() + EPS))
        overlap_loss = 1 - pairs.iou
        quality = overlap_loss.detach() / self.mean.float()
        loss = distance * overlap_loss * self.focus(quality)
        if pred.requires_grad and len(pred):
            self.mean.lerp_(overlap_loss.detach().mean().to(self.mean), self.momentum)
        return loss

    def focus(self, quality: Tensor) -> Tensor:
        """Weight of a box from β, its loss over the running mean: 1, √β, or r(β)."""
        if self.version == 1:
            return torch.ones_like(quality)
        if self.version == 2:
            return quality.sqrt()
        return quality / (self.delta * self.a ** (quality - self.delta))


def criterion(network: DetectionNetwork) -> Any:
    """Ultralytics' detection loss; CIoU gives way to the network's Wise-IoU, if it carries one."""
    loss = v8DetectionLoss(network)
    wiou = getattr(network, "wiou", None)
    if wiou is not None:
        loss.bbox_loss = PluggableBboxLoss(wiou, reg_max=loss.reg_max)
    return loss


# ------------------------------------------------------------------------------------------ network

SCALES = ("n", "s", "m")
GhostStages: TypeAlias = Literal["deep", "all"]


def coco_layers(*, ghgnet: bool = True, msnet: bool = True, sepbn: bool = True) -> dict[int, int]:
    """Our layer index -> stock YOLO11 index, for what a network of these parts shares with it.

    With all of them that is SPPF, C2PSA and the two downsampling convolutions of the neck.
    """
    shift = 1 if ghgnet else 0  # GHGNet has one layer more than the stock backbone
    shared = {10: 9, 11: 10} if ghgnet else {i: i for i in range(11)}
    neck = (17, 20) if msnet else tuple(range(11, 23))
    head = () if sepbn else (23,)
    return shared | {i + shift: i for i in (*neck, *head)}


COCO_LAYERS = coco_layers()


def build(n_classes: int, scale: str = "n") -> DetectionNetwork:
    """GMS2-YOLO with random weights; scale n is the paper's."""
    return build_variant(n_classes, scale)


def build_variant(
    n_classes: int,
    scale: str,
    *,
    ghgnet: bool = True,
    msnet: bool = True,
    sepbn: bool = True,
    wiou: Version | None = 3,
    ghost_stages: GhostStages = "deep",
    c2psa: bool = True,
    expansion: int = 2,
    hidden: int | None = None,
    max_channels: int | None = None,
) -> DetectionNetwork:
    """GMS2-YOLO with parts switched off, for ablations; with all four off it is YOLO11.

    Args:
        n_classes: classes of the head.
        scale: n, s or m.
        ghgnet: GHGNet instead of the stock backbone.
        msnet: MSNet instead of C3k2 in the neck.
        sepbn: `SepBNDetect` instead of the stock head.
        wiou: version of Wise-IoU; None keeps CIoU.
        ghost_stages: GhostConv in stages 3 and 4 ("deep") or in all four.
        c2psa: keep YOLO11's C2PSA behind SPPF.
        expansion: p of MSNet.
        hidden: channels inside `SepBNDetect`; None: C(256), which scales with the width.
        max_channels: limit before width scaling; None: the scale's own. 2048 doubles the last
            stage of scales n and s.

    Raises:
        ConfigError: if there is no such scale.
    """
    if scale not in SCALES:
        raise ConfigError(f"Unknown scale {scale!r}. GMS2-YOLO has: {', '.join(SCALES)}.")
    config = yolo11_config(scale)
    if max_channels is not None:
        config["scales"][scale][2] = max_channels
    if ghgnet:
        config["backbone"] = _ghgnet_rows(config, c2psa=c2psa)
        config["head"] = [[_renumbered(row[0]), *row[1:]] for row in config["head"]]
    neck = [i for i, row in enumerate(config["head"]) if row[2] == "C3k2" and msnet]
    for i in neck:
        config["head"][i] = _placeholder(config["head"][i][3][0])
    network = build_detector(config, n_classes)
    if ghgnet:
        _place_ghg_blocks(network, config, ghost_everywhere=ghost_stages == "all")
    for i in neck:
        index = len(config["backbone"]) + i
        block = MSNet(*_channels(network.model[index]), expansion=expansion)
        replace_layer(network, index, block)
    if sepbn:
        stock = network.model[-1]
        levels = [branch[0].conv.in_channels for branch in stock.cv2]
        head = SepBNDetect(n_classes, hidden or width(config, 256), levels, reg_max=stock.reg_max)
        replace_layer(network, len(network.model) - 1, head)
    if wiou is not None:
        network.wiou = WiseIoU(version=wiou)
    return finish(network)


def fold_for_inference(network: DetectionNetwork) -> None:
    """Fold the normalisations that ultralytics' `fuse` cannot, in place; there is no way back.

    For export: outputs in eval mode stay the same. Those of the head go into copies of its shared
    convolutions, one for each level; those of star blocks into the convolutions before them.
    """
    head = network.model[-1]
    if isinstance(head, SepBNDetect) and head.folded is None:
        replace_layer(network, len(network.model) - 1, fold_head(head))
    fold_star_blocks(network)


class _Stage(NamedTuple):
    hidden: int  # channels before width scaling
    kernel: int
    deep: bool  # stages 3 and 4
    shortcut: bool


# GHGBlocks by layer index: HGNetV2-L's stages, each with six convolutions before depth scaling.
_STAGES = {
    1: _Stage(48, 3, deep=False, shortcut=False),
    3: _Stage(96, 3, deep=False, shortcut=False),
    5: _Stage(192, 5, deep=True, shortcut=False),
    6: _Stage(192, 5, deep=True, shortcut=True),
    7: _Stage(192, 5, deep=True, shortcut=True),
    9: _Stage(384, 5, deep=True, shortcut=False),
}
_STAGE_DEPTH = 6
_STOCK_TO_GHG = {4: 3, 6: 7, 10: 11}  # P3, P4, P5; the neck sits one layer later


def _placeholder(channels: int) -> list[Any]:
    """A row of the right channels, whose block is put in place after parsing."""
    return [-1, 1, "Conv", [channels, 1, 1]]


def _channels(placeholder: nn.Module) -> tuple[int, int]:
    conv = placeholder.conv
    assert isinstance(conv, nn.Conv2d)
    return conv.in_channels, conv.out_channels


def _ghgnet_rows(config: dict[str, Any], *, c2psa: bool) -> list[list[Any]]:
    """Backbone in the notation of ultralytics, its GHGBlocks being placeholders."""

    def downsample(channels: int) -> list[Any]:
        return [-1, 1, "DWConv", [channels, 3, 2, 1, False]]  # depthwise, no activation

    return [
        # the one module that the parser does not scale by width
        [-1, 1, "HGStem", [width(config, 32), width(config, 48)]],
        _placeholder(128),
        downsample(128),
        _placeholder(512),  # P3
        downsample(512),
        _placeholder(1024),
        _placeholder(1024),
        _placeholder(1024),  # P4
        downsample(1024),
        _placeholder(2048),
        [-1, 1, "SPPF", [1024, 5]],
        [-1, 2, "C2PSA", [1024]] if c2psa else [-1, 1, "nn.Identity", []],  # P5
    ]


def _renumbered(source: int | list[int]) -> int | list[int]:
    """Inputs of a stock neck row, behind GHGNet."""
    if isinstance(source, int):
        return source if source == -1 else _STOCK_TO_GHG.get(source, source + 1)
    return [i for s in source if isinstance(i := _renumbered(s), int)]


def _place_ghg_blocks(
    network: DetectionNetwork, config: dict[str, Any], *, ghost_everywhere: bool
) -> None:
    depth = max(round(_STAGE_DEPTH * config["scales"][config["scale"]][0]), 1)
    for index, stage in _STAGES.items():
        c_in, c_out = _channels(network.model[index])
        block = GHGBlock(
            c_in,
            width(config, stage.hidden),
            c_out,
            kernel=stage.kernel,
            depth=depth,
            ghost=stage.deep or ghost_everywhere,
            shortcut=stage.shortcut,
        )
        replace_layer(network, index, block)


SPEC = ModelSpec(
    name="gms2_yolo",
    title="GMS2-YOLO (GHGNet + MSNet + separate-BN head + Wise-IoU)",
    task="detect",
    image_size=640,
    build=build,
    scales=SCALES,
    default_scale="n",
    recipe=Recipe(epochs=300, batch=16, optimizer="SGD", lr0=0.01),
    paper=Paper(
        title="GMS2-YOLO: a metal surface defect detection method integrating improved MANet and "
        "detection head",
        authors="Wuhan University of Technology; Wuhan Koide Kokan",
        venue="Journal of Electronic Measurement and Instrumentation, manuscript B2508416",
        year=2025,
        code="none found",
    ),
    criterion=criterion,
    fold=fold_for_inference,
    reported=(
        ReportedMetric(
            "mAP50", 0.808, dataset="private Self-Dataset", where="abstract; YOLO11n 77.2"
        ),
        ReportedMetric(
            "mAP50_95", 0.535, dataset="private Self-Dataset", where="abstract; YOLO11n 45.0"
        ),
        ReportedMetric("AP50 crazing", 0.683, dataset="neu-det", where="abstract; YOLO11n 52.5"),
    ),
    departures=(
        "Only the abstract was available: blocks, sizes and recipe are reconstructed from the "
        "published sources of the components it names.",
        "The backbone is HGNetV2-L's layout scaled like YOLO11, with GhostConv in stages 3 and 4; "
        "SPPF and C2PSA stay.",
        "Normalisations of the head are separate by level and stage; circulating versions index "
        "them by stage alone and separate nothing.",
        "Wise-IoU v3 with a = 1.7, δ = 2.7, μ = 0.01; m is saved with the network.",
        "The recipe is ultralytics' default, from scratch, but that images are turned upside down "
        "as well, and for the last 40 % of the epochs not zoomed, shifted or put together; the "
        "paper states none.",
    ),
    feature_layer="model.17",
    coco_layers=COCO_LAYERS,
)
