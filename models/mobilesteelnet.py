"""MobileSteelNet: image-level classification of steel defects from very few labelled images.

Zou et al., Sensors 26(3):1022 (2026): a MobileNetV1-like trunk, multi-scale feature fusion (MSFF)
and cross-interactive efficient multi-scale attention (CIEMA, in `_ciema.py`). Written from a
description of the paper and of the network its training script builds, which is scale "paper";
"light" has the same parts at a fortieth of the cost. `build_variant` builds every ablation row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from models._blocks import conv_bn
from models._ciema import CIEMA
from models._spec import ModelSpec, Paper, Recipe, ReportedMetric

Act: TypeAlias = Literal["none", "relu"]
Fusion: TypeAlias = Literal["none", "largest", "smallest", "projected"]
Strides: TypeAlias = Literal["paper", "stride32", "mobilenet_v1"]
Stage: TypeAlias = tuple[tuple[int, int, int], ...]  # (channels in, channels out, stride) each

GROUP_CHANNELS = 32  # g = C / G in both scales: 1024 / 32 and 256 / 8
_REPEAT = (512, 512, 1)
_S1: Stage = ((32, 64, 1), (64, 128, 2), (128, 128, 1))
_S2: Stage = ((256, 512, 2), _REPEAT, _REPEAT)
_S3: Stage = ((512, 1024, 2), (1024, 1024, 1))
_STAGES: dict[Strides, tuple[Stage, Stage, Stage]] = {  # total stride of F1, F2, F3; modules
    "paper": (_S1, ((128, 256, 1), *_S2), (_REPEAT, _REPEAT, *_S3)),  # 4, 8, 16; 11
    "stride32": (_S1, ((128, 256, 2), *_S2), (_REPEAT, _REPEAT, *_S3)),  # 4, 16, 32; 11
    # 4, 16, 32; 13, as in MobileNetV1
    "mobilenet_v1": (_S1, ((128, 256, 2), (256, 256, 1), *_S2, *(_REPEAT,) * 3), _S3),
}
# index of the map whose grid is common, channels that come out, channels of the projections
_FUSIONS: dict[Fusion, tuple[int, int, int | None]] = {
    "largest": (0, 1024, None),
    "smallest": (2, 1024, None),
    "projected": (1, 256, 256),
}


class DSConv(nn.Sequential):
    """Depthwise 3×3, then pointwise 1×1; (N, c_in, H, W) -> (N, c_out, ⌈H/s⌉, ⌈W/s⌉).

    `act="none"` is the published network: one normalisation at the end and no activation, so a row
    of such modules is affine. `act="relu"` is MobileNetV1: normalisation and ReLU behind both.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, *, act: Act) -> None:
        depthwise = nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in, bias=False)
        pointwise = nn.Conv2d(c_in, c_out, 1, bias=False)
        normalise = nn.BatchNorm2d(c_out)
        if act == "none":
            super().__init__(depthwise, pointwise, normalise)
        else:
            between = (nn.BatchNorm2d(c_in), nn.ReLU(inplace=True))
            super().__init__(depthwise, *between, pointwise, normalise, nn.ReLU(inplace=True))


class Trunk(nn.Module):
    """The convolutional trunk: (N, 3, H, W) -> F1 (128), F2 (512), F3 (1024 channels)."""

    channels = (128, 512, 1024)

    def __init__(self, strides: Strides, *, act: Act) -> None:
        super().__init__()
        self.init = nn.Sequential(
            nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True)
        )
        self.s1, self.s2, self.s3 = (
            nn.Sequential(*(DSConv(c_in, c_out, s, act=act) for c_in, c_out, s in stage))
            for stage in _STAGES[strides]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outputs of the three stages, finest first."""
        f1 = self.s1(self.init(x))
        f2 = self.s2(f1)
        return f1, f2, self.s3(f2)


class MSFF(nn.Module):
    """Multi-scale feature fusion: bring F1, F2, F3 to one grid, concatenate, mix by a 1×1.

    `grid` is the index of the map whose size is the common one; 0 is the paper's choice. `project`
    is the number of channels each map is reduced to before the concatenation; None leaves them.
    """

    def __init__(
        self, channels: Sequence[int], c_out: int, *, grid: int, project: int | None = None
    ) -> None:
        super().__init__()
        self.grid = grid
        self.projections = nn.ModuleList(
            nn.Identity() if project is None else _conv_bn_relu(c, project) for c in channels
        )
        total = sum(channels) if project is None else project * len(channels)
        self.fuse = _conv_bn_relu(total, c_out)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, c_out, H, W) on the common grid."""
        height, width = maps[self.grid].shape[-2:]
        aligned = []
        for x, project in zip(maps, self.projections, strict=True):
            # Finer maps are averaged (no aliasing) before the projection and coarser ones enlarged
            # after it, so that it runs on the smaller of the two sizes.
            small = F.adaptive_avg_pool2d(x, (height, width)) if x.shape[-2] > height else x
            y = project(small)
            if y.shape[-2:] != (height, width):
                y = F.interpolate(y, (height, width), mode="bilinear", align_corners=False)
            aligned.append(y)
        fused: Tensor = self.fuse(torch.cat(aligned, dim=1))
        return fused


def _conv_bn_relu(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(*conv_bn(c_in, c_out, 1, bias=False), nn.ReLU(inplace=True))


class MobileSteelNet(nn.Module):
    """Trunk, fusion, attention, pooled linear head: (N, 3, H, W) -> logits (N, n_classes)."""

    def __init__(
        self, trunk: Trunk, fusion: MSFF | None, attention: nn.Module, head: nn.Linear
    ) -> None:
        super().__init__()
        self.trunk, self.fusion, self.attention, self.head = trunk, fusion, attention, head

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, n_classes) of images (N, 3, H, W) normalised by ImageNet's mean and std."""
        maps = self.trunk(x)
        y = self.attention(maps[-1] if self.fusion is None else self.fusion(maps))
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits


def build_variant(
    n_classes: int,
    *,
    msff: Fusion,
    ciema: bool,
    act: Act,
    strides: Strides,
    parallel: bool = False,
) -> MobileSteelNet:
    """Build one row of the ablation.

    `msff` is "none", "largest" (the paper: 1024 channels on the grid of F1), "smallest" (the same,
    on the grid of F3) or "projected" (256-channel projections on the grid of F2). `DSConv` explains
    `act`, `CIEMA` `parallel`.
    """
    trunk = Trunk(strides, act=act)
    fusion, width = None, trunk.channels[-1]
    if msff != "none":
        grid, width, project = _FUSIONS[msff]
        fusion = MSFF(trunk.channels, width, grid=grid, project=project)
    groups = width // GROUP_CHANNELS
    attention = CIEMA(width, groups, parallel=parallel) if ciema else nn.Identity()
    return MobileSteelNet(trunk, fusion, attention, nn.Linear(width, n_classes))


def build(n_classes: int, scale: str) -> MobileSteelNet:
    """Build MobileSteelNet with random weights.

    Raises:
        ConfigError: if the scale is neither "light" nor "paper".
    """
    if scale not in SPEC.scales:
        raise ConfigError(f"Unknown scale {scale!r}. MobileSteelNet has: light, paper.")
    if scale == "paper":
        return build_variant(n_classes, msff="largest", ciema=True, act="none", strides="paper")
    return build_variant(
        n_classes, msff="projected", ciema=True, act="relu", strides="stride32", parallel=True
    )


_REPORTED = (  # name, value, data set, split, where; the test split has 270 images a class
    ("accuracy", 0.9136, "neu-cls", "test", "full model"),
    ("accuracy inclusion", 0.9481, "neu-cls", "test", "full model"),
    ("accuracy patches", 0.9370, "neu-cls", "test", "full model"),
    ("accuracy pitted_surface", 0.6827, "neu-cls", "test", "full model"),
    ("accuracy rolled-in_scale", 0.9815, "neu-cls", "test", "full model"),
    ("accuracy scratches", 0.9370, "neu-cls", "test", "full model"),
    ("accuracy MobileNetV1", 0.7952, "neu-cls", "test", "Table 7"),
    ("accuracy MobileNetV1 + MSFF", 0.8600, "neu-cls", "test", "Table 7"),
    ("accuracy MobileNetV1 + CIEMA", 0.9093, "neu-cls", "test", "Table 7"),
    ("size MB", 8.2, "neu-cls", "", "the network built has 33.8 MB"),
    ("GFLOPs", 0.93, "neu-cls", "", "equals MobileNetV1 + CIEMA without MSFF"),
    ("FPS", 52.04, "neu-cls", "", "RTX 3090, batch 1"),
)

SPEC = ModelSpec(
    name="mobilesteelnet",
    title="MobileSteelNet (MSFF + CIEMA)",
    task="classify",
    image_size=224,
    build=build,
    scales=("light", "paper"),
    default_scale="light",
    recipe=Recipe(
        epochs=200,
        batch=32,
        optimizer="Adam",
        lr0=1e-3,
        momentum=0.9,
        weight_decay=1e-4,
        warmup_epochs=5,
        cosine=True,
        patience=10,
    ),
    paper=Paper(
        title="MobileSteelNet: A Lightweight Steel Surface Defect Classification Network with "
        "Cross-Interactive Efficient Multi-Scale Attention",
        authors="Xiang Zou, Zhongming Liu, Chengjun Xu, Jiawei Zhang, Zhaoyu Li",
        venue="Sensors 26(3):1022",
        year=2026,
        doi="10.3390/s26031022",
        code="public, without a licence; three generations that disagree with each other",
    ),
    reported=tuple(ReportedMetric(*row) for row in _REPORTED),
    departures=(
        "Scale light, the default: stride 32, MobileNetV1's normalisations and activations, MSFF "
        "on 256-channel projections at stride 16, CIEMA of 256 channels in 8 groups, which reads X "
        "beside the channel interaction where the paper reads its X1; 3.79 M parameters, 0.78 GMAC "
        "at 224 px.",
        "Scale paper is the network of the published training script: 8.44 M parameters, 29.3 GMAC "
        "at 224 px. The 8.2 MB and 0.93 GFLOPs the paper prints fit no network with MSFF.",
        "CIEMA's groups go through CSL as one batch, so that its batch statistics pool them; its "
        "coordinate branch is the code's (one convolution, no ReLU), not the formula's.",
        "Warm-up of 5 epochs, then cosine, and weight decay 1e-4: the paper's figures are lost.",
        "The epoch that is kept, and from which patience counts, is the most accurate one on "
        "validation, the lower loss deciding between equals; the paper stops by the loss alone.",
        "Duplicate images are kept in one split; the paper splits 5/5/90 without that.",
    ),
    feature_layer="attention",
)
