"""SME-DeepLabV3+: DeepLabV3+ with a StarNet-S4 encoder, MSAA in place of ASPP, ELA on the skip.

Zhang et al., "Steel surface defect segmentation with SME-DeeplabV3+", PLoS ONE 20(8), 2025. The
authors' repository holds no code. What the paper leaves open was settled by building the
candidates: this network has the published number of parameters to the last printed digit, and the
published number of operations within 0.011 %, in three configurations.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from models._blocks import PooledChannelGate, SpatialGate, conv_bn
from models._mask_losses import SegmentationLoss
from models._spec import ModelSpec, Paper, Recipe, ReportedMetric
from models._starnet import SIZES, StarNet

HIGH, SKIP, MERGED = 256, 48, 256  # channels: high-level map, reduced skip, decoder
ASPP_DILATIONS = (6, 12, 18)


class MSAA(nn.Module):
    """Multi-scale attention aggregation: 3×3, 5×5 and 7×7 convolutions, gated in space and channel.

    (N, in_channels, H, W) -> (N, out_channels, H, W). Everything happens on out_channels / `factor`
    channels; there is neither norm nor activation inside.
    """

    def __init__(
        self, in_channels: int = 3 * HIGH, out_channels: int = HIGH, factor: int = 4
    ) -> None:
        super().__init__()
        d = out_channels // factor
        self.reduce = nn.Conv2d(in_channels, d, 1)
        self.channel_gate = PooledChannelGate(d, 4)
        self.scales = nn.ModuleList(nn.Conv2d(d, d, k, padding=k // 2) for k in (3, 5, 7))
        self.spatial_gate = SpatialGate()
        self.expand = nn.Conv2d(d, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Y = expand(s ⊙ m(s) + z ⊙ c(z)), z the reduced input, s the sum of the three scales."""
        z = self.reduce(x)
        s = self.scales[0](z) + self.scales[1](z) + self.scales[2](z)
        out: Tensor = self.expand(s * self.spatial_gate(s) + z * self.channel_gate(z))
        return out


class ELA(nn.Module):
    """Efficient local attention: one gate per row, one per column, of each channel.

    Shape-preserving. One depthwise 1-D convolution and group norm serve both directions, so that
    transposing the image transposes the answer. The defaults are the published variant B.
    """

    def __init__(self, channels: int, kernel: int = 7, groups: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv1d(
            channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False
        )
        self.norm = nn.GroupNorm(groups, channels)

    def forward(self, x: Tensor) -> Tensor:
        """x ⊙ T(mean over W) ⊙ T(mean over H), with T = sigmoid(GN(Conv1d))."""
        rows = self._gate(x.mean(3))  # (N, C, H)
        columns = self._gate(x.mean(2))  # (N, C, W)
        return x * rows[..., None] * columns[:, :, None, :]

    def _gate(self, strip: Tensor) -> Tensor:
        return torch.sigmoid(self.norm(self.conv(strip)))


def conv_bn_relu(c_in: int, c_out: int, kernel: int = 1, *, dilation: int = 1) -> nn.Sequential:
    """A shape-preserving convolution with bias, batch norm and ReLU: the decoder's and ASPP's."""
    return conv_bn(c_in, c_out, kernel, dilation=dilation).append(nn.ReLU(inplace=True))


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling, which MSAA replaces; kept for the paper's ablation rows.

    (N, channels, H, W) -> the same: a 1×1, three dilated 3×3 and the image's mean, merged by 1×1.
    """

    def __init__(self, channels: int = HIGH) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(channels, channels),
                *(conv_bn_relu(channels, channels, 3, dilation=d) for d in ASPP_DILATIONS),
            ]
        )
        self.pooled = conv_bn_relu(channels, channels)
        self.merge = conv_bn_relu(5 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """The merged five views of `x`."""
        views = [branch(x) for branch in self.branches]
        views.append(resize(self.pooled(x.mean((2, 3), keepdim=True)), x))
        out: Tensor = self.merge(torch.cat(views, dim=1))
        return out


def resize(x: Tensor, like: Tensor) -> Tensor:
    """`x` at the height and width of `like`, bilinear, corners on corners."""
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=True)


class SMEDeepLabV3Plus(nn.Module):
    """Images (N, 3, H, W) in [0, 1], of any size, to logits (N, 1 + n_classes, H, W).

    Channel 0 is the background. The defaults are the paper's full model.

    Args:
        n_classes: defect classes, background not counted.
        aspp: put ASPP before MSAA (or alone, with `msaa=False`).
        msaa: aggregate the high-level map by MSAA.
        ela: gate the low-level map by ELA.
        multiscale: feed MSAA with stages 2, 3 and 4 instead of three copies of stage 4.
        high_up: enlargement of stage 4 before ASPP and MSAA.
        output_stride: stride of stage 4: 32, or 16 or 8 with dilated kernels.
        drop_path: probability that training skips the encoder's last block (see StarNet).

    Raises:
        ConfigError: for another stride, or `multiscale` without MSAA.
    """

    def __init__(
        self,
        n_classes: int,
        *,
        aspp: bool = False,
        msaa: bool = True,
        ela: bool = True,
        multiscale: bool = False,
        high_up: int = 4,
        output_stride: int = 32,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        if multiscale and not msaa:
            raise ConfigError("multiscale=True feeds MSAA, but msaa=False: switch both on.")
        self.output_stride = output_stride
        self.encoder = StarNet(SIZES["starnet_s4"], drop_path=drop_path)
        if output_stride != 32:
            self.encoder.make_dilated(output_stride)
        _, low, mid2, mid3, _ = self.encoder.channels
        self.upsample = (
            nn.Upsample(scale_factor=high_up, mode="bilinear", align_corners=True)
            if high_up > 1
            else nn.Identity()
        )
        self.aspp = ASPP() if aspp else nn.Identity()
        self.projections = nn.ModuleList(
            nn.Conv2d(c, HIGH, 1, bias=False) for c in ((mid2, mid3) if multiscale else ())
        )
        self.msaa = MSAA() if msaa else None
        self.ela = ELA(low) if ela else nn.Identity()
        self.skip = conv_bn_relu(low, SKIP)
        self.merge = nn.Sequential(
            conv_bn_relu(HIGH + SKIP, MERGED, 3),
            nn.Dropout(0.5),
            conv_bn_relu(MERGED, MERGED, 3),
            nn.Dropout(0.1),
        )
        self.classify = nn.Conv2d(MERGED, 1 + n_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the images' own size."""
        height, width = images.shape[-2:]
        # Padding, rather than stretching odd maps, keeps every map's grid aligned with the image's.
        bottom, right = -height % self.output_stride, -width % self.output_stride
        padded = F.pad(images, (0, right, 0, bottom), mode="replicate")  # no branch: traceable
        _, _, f1, f2, f3, f4 = self.encoder(padded)
        high = self.aspp(self.upsample(f4))
        if self.msaa is not None:
            high = self.msaa(torch.cat((*self._companions(f2, f3, high), high), dim=1))
        low = self.skip(self.ela(f1))
        merged = self.merge(torch.cat((resize(high, low), low), dim=1))
        return resize(self.classify(merged), padded)[..., :height, :width]

    def _companions(self, f2: Tensor, f3: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The two maps that MSAA sees beside `high`: copies of it, or projected stages 2 and 3."""
        if not self.projections:
            return high, high
        first, second = (
            resize(project(f), high) for project, f in zip(self.projections, (f2, f3), strict=True)
        )
        return first, second


SCALES: dict[str, dict[str, Any]] = {
    "paper": {},
    "os16": {"output_stride": 16, "high_up": 2},
    "multiscale": {"multiscale": True},
}


def build(n_classes: int, scale: str) -> nn.Module:
    """The network with random weights.

    Raises:
        ConfigError: if there is no such scale.
    """
    if scale not in SCALES:
        raise ConfigError(f"Unknown scale {scale!r} of SME-DeepLabV3+: use {', '.join(SCALES)}.")
    return SMEDeepLabV3Plus(n_classes, **SCALES[scale])


def criterion(network: nn.Module) -> Callable[..., Tensor]:
    """The paper's loss, weights (1, 1, 1); called with (logits, target, ignore_index)."""
    return SegmentationLoss()


def border_criterion(network: nn.Module) -> Callable[..., Tensor]:
    """The paper's loss and how well borders meet, for thin scratches; weights (1, 1, 1, 1)."""
    return SegmentationLoss(border=1.0)


def _reported(name: str, value: float, where: str) -> ReportedMetric:
    return ReportedMetric(name, value, dataset="neu-seg", split="test", where=where)


SPEC = ModelSpec(
    name="sme_deeplabv3plus",
    title="SME-DeepLabV3+ (StarNet-S4, MSAA, ELA)",
    task="segment",
    image_size=512,
    build=build,
    scales=tuple(SCALES),
    default_scale="paper",
    criterion=criterion,
    losses={"border": border_criterion},
    # Stated: SGD, 300 epochs, flips and rotations. The rest is the base repository's habit.
    recipe=Recipe(
        epochs=300,
        batch=16,
        optimizer="SGD",
        lr0=7e-3,
        momentum=0.9,
        weight_decay=1e-4,
        cosine=True,
        extra={"nesterov": True},
        # After 8 epochs 1.6 and 1.0 points of mIoU higher on validation (docs/LOG.md).
        in_short={"loss": "border", "in_place": 0.4},
    ),
    paper=Paper(
        title="Steel surface defect segmentation with SME-DeeplabV3+",
        authors="Zhang et al.",
        venue="PLoS ONE 20(8): e0329628",
        year=2025,
        doi="10.1371/journal.pone.0329628",
        code="a README without code",
        caveat="The paper's figures are of NEU-Seg's original division. Of 585 of its test images, "
        "measured here, 569 are copies of training images, most of them turned; answering each "
        "with the mask of the training image most like it, without any network, has mIoU 89.6.",
    ),
    reported=(
        _reported("mIoU", 0.8887, "full model, section 4.6"),
        _reported("precision", 0.9272, "full model, section 4.6 (0.9217 in section 4.5, item 1)"),
        _reported("MPA", 0.9610, "full model, section 4.6"),
        _reported("mIoU", 0.8722, "unnamed baseline, from the stated gain of 1.65 points"),
        _reported("mIoU", 0.8877, "StarNet + ASPP"),
        _reported("mIoU", 0.8852, "StarNet + MSAA"),
        _reported("mIoU", 0.8857, "StarNet + ELA"),
        _reported("parameters_M", 8.928, "full model"),
        _reported("GFLOPs", 56.845, "full model, 2 × MAC at 512 × 512"),
    ),
    departures=(
        "The encoder is StarNet-S4 and stage 4 is enlarged 4 times before MSAA: neither is stated, "
        "both follow from the published parameter and operation counts.",
        "MSAA receives stage 4 three times, as the only map of 256 channels; scale 'multiscale' "
        "feeds it stages 2, 3 and 4.",
        "ELA is variant B (kernel 7, 16 groups); the text's 3×3 and 7×7 kernels belong to MSAA.",
        "The three losses are summed with equal weights; the paper gives none.",
        "Adaptive weight initialisation and dynamic threshold adjustment have neither equation nor "
        "code, and are left out; the encoder starts from random weights.",
        "Scale 'os16' keeps stage 4 at stride 16 with dilated kernels: real resolution instead of "
        "interpolated.",
        "Sizes that are no multiple of the stride are padded with their border and cropped back.",
        "Learning rate, momentum, weight decay, batch and schedule are the base code's defaults; "
        "the paper states only SGD and 300 epochs.",
        "Views are zoomed, shifted, brightened and darkened, too; the paper names flips and "
        "rotation alone.",
        "Runs of less than half the paper's epochs add a term to the loss, how well borders meet, "
        "and leave views in place for the last 40 % of the epochs; `loss=paper` and `in_place=0` "
        "do not.",
    ),
    feature_layer="merge",  # the encoder's depths know defects only: all else looks alike there
    explained_layers=("encoder.stages.0", "encoder.stages.3"),  # what the decoder reads
)
