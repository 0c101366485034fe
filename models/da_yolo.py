"""DA-YOLO: YOLO11 with tri-directional attention, a multi-scale decoder and an IoU-aware loss.

Paper: Liu, Li, Chen, "DA-YOLO", Advances in Mechanical Engineering (2026), doi
10.1177/16878132261442325. Its equations, tables and figures are not in the available text and no
code was published: the blocks are written from descriptions of what the text names (multi-
dimensional collaborative attention for 3DAM, the EMCAD decoder for AMFEM). AMFEM's blocks
are in `_amfem.py`, the loss in `_iaj_loss.py`. What we had to choose is listed in SPEC.departures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from models._amfem import EUCB, LGAG, MFEM, Add
from models._iaj_loss import IAJLoss
from models._spec import ModelSpec, Paper, Recipe, ReportedMetric
from models._ultralytics import (
    DetectionNetwork,
    build_detector,
    finish,
    replace_layer,
    width,
    yolo11_config,
)

SCALES = ("n", "s", "m")
LEVELS = ("P3", "P4", "P5")

Residual: TypeAlias = Literal["unit", "zero"]
Fuse: TypeAlias = Literal["concat", "add"]
Width: TypeAlias = Callable[[int], int]


# ------------------------------------------------------------------------------------------ blocks


def channel_kernel(channels: int) -> int:
    """Odd kernel of the convolution along the channel axis: 3 for 64 and 128, 5 up to 1024."""
    t = round(abs(math.log2(channels) - 1) / 1.5)
    return t if t % 2 else t - 1


class DirectionGate(nn.Module):
    """Gate along one axis from its mean and spread; one branch of 3DAM.

    s = ½(μ + δ) + σ(p)·μ + σ(q)·δ and A = σ(conv1d(s)), with the statistics taken over `reduced`.
    (N, C, H, W) -> (N, D), where D is the size of the axis that is left.
    """

    def __init__(self, kernel: int, reduced: tuple[int, int]) -> None:
        super().__init__()
        self.reduced = reduced
        self.p = nn.Parameter(torch.rand(()))
        self.q = nn.Parameter(torch.rand(()))
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gate (N, D), in (0, 1)."""
        variance, mean = torch.var_mean(x, dim=self.reduced, correction=0)
        n = x.shape[self.reduced[0]] * x.shape[self.reduced[1]]
        # Bessel's n / (n − 1). The tiny term makes one element's variance 0 instead of 0/0, and
        # the one below the root keeps the gradient finite there.
        deviation = torch.sqrt(variance * (n / (n - 1 + 1e-12)) + 1e-6)
        squeezed = (0.5 + self.p.sigmoid()) * mean + (0.5 + self.q.sigmoid()) * deviation
        gate: Tensor = self.conv(squeezed.unsqueeze(1)).squeeze(1).sigmoid()
        return gate


class TriDirectionalAttention(nn.Module):
    """3DAM: gates along height, width and channels, mixed by a softmax and added to the input.

    Y = X + ρ·Σ β_d·X ⊙ A_d with β = softmax(θ). Shape-preserving: (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        residual: "unit" fixes ρ = 1; "zero" learns ρ from 0, so that the block starts as the
            identity and leaves pretrained layers behind it undisturbed.
    """

    def __init__(self, channels: int, *, residual: Residual = "unit") -> None:
        super().__init__()
        self.height = DirectionGate(3, (1, 3))
        self.width = DirectionGate(3, (1, 2))
        self.channel = DirectionGate(channel_kernel(channels), (2, 3))
        self.theta = nn.Parameter(torch.zeros(3))
        self.rho = nn.Parameter(torch.zeros(())) if residual == "zero" else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """The attended map, of the shape of `x`."""
        beta = self.theta.softmax(0)
        plane = beta[0] * self.height(x)[:, None, :, None] + beta[1] * self.width(x)[:, None, None]
        gate = plane + beta[2] * self.channel(x)[..., None, None]  # (N, C, H, W)
        attended: Tensor = x + self.rho * gate * x
        return attended


# ----------------------------------------------------------------------------------------- network


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """Which parts of the paper a network has; the defaults are variant A, the whole of it.

    Variant B of the ablations is `mfem_levels=("P5",)`: the decoder gates raw skips.

    Raises:
        ConfigError: if a level or a way of fusing does not exist.
    """

    tdam: bool = True
    amfem: bool = True
    tdam_levels: tuple[str, ...] = LEVELS
    mfem_levels: tuple[str, ...] = LEVELS
    fuse: Fuse = "concat"  # "add": EMCAD's u + gated skip, on half the channels
    expansion: float = 2
    kernels: tuple[int, ...] = (1, 3, 5)
    lgag_kernel: int = 3
    interpolation: str = "bilinear"
    residual: Residual = "unit"

    def __post_init__(self) -> None:
        unknown = {*self.tdam_levels, *self.mfem_levels} - {*LEVELS}
        if unknown:
            raise ConfigError(f"Unknown level {min(unknown)!r}. Use {', '.join(LEVELS)}.")
        for name, value, known in (
            ("fuse", self.fuse, ("concat", "add")),
            ("interpolation", self.interpolation, ("bilinear", "nearest")),
            ("residual", self.residual, ("unit", "zero")),
        ):
            if value not in known:
                raise ConfigError(f"Unknown {name} {value!r}. Use {' or '.join(known)}.")


@dataclass(slots=True)
class _Plan:
    """The layers of a network in order: stock rows, and places where own modules go."""

    rows: list[tuple[int | list[int], int | list[Any]]] = field(default_factory=list)
    own: dict[int, tuple[Callable[[Width], nn.Module], list[int]]] = field(default_factory=dict)
    coco_layers: dict[int, int] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """Index of the layer appended last."""
        return len(self.rows) - 1

    def stock(self, row: int, source: int | list[int] = -1) -> int:
        """Append a row of stock YOLO11, read from `source`; gives our index of it."""
        self.coco_layers[len(self.rows)] = row
        self.rows.append((source, row))
        return self.last

    def custom(
        self,
        make: Callable[[Width], nn.Module],
        inputs: Sequence[int],
        placeholder: tuple[str, list[Any]] = ("nn.Identity", []),
    ) -> int:
        """Append an own module; the placeholder reads the last input and has its channels."""
        self.own[len(self.rows)] = (make, list(inputs))
        self.rows.append((inputs[-1], [1, *placeholder]))
        return self.last


def _attend(plan: _Plan, variant: Variant, level: str, channels: int) -> int:
    if not variant.tdam or level not in variant.tdam_levels:
        return plan.last
    return plan.custom(
        lambda c: TriDirectionalAttention(c(channels), residual=variant.residual), [plan.last]
    )


def _enhance(plan: _Plan, variant: Variant, level: str, channels: int, source: int) -> int:
    if not variant.amfem or level not in variant.mfem_levels:
        return source
    return plan.custom(
        lambda c: MFEM(c(channels), expansion=variant.expansion, kernels=variant.kernels), [source]
    )


def _ascend(
    plan: _Plan, variant: Variant, level: str, *, channels: int, skip: int, rows: Sequence[int]
) -> int:
    """One step up the decoder: AMFEM, or stock upsampling and concatenation."""
    upsample, concat, merge = rows
    if not variant.amfem:
        plan.stock(upsample)
        plan.stock(concat, [-1, skip])
        return plan.stock(merge)
    up = plan.custom(
        lambda c: EUCB(c(channels), c(512), interpolation=variant.interpolation),
        [plan.last],
        ("nn.ConvTranspose2d", [512, 2, 2]),
    )
    enhanced = _enhance(plan, variant, level, 512, skip)
    gated = plan.custom(lambda c: LGAG(c(512), kernel=variant.lgag_kernel), [up, enhanced])
    if variant.fuse == "concat":
        plan.stock(concat, [up, gated])
    else:
        plan.custom(lambda c: Add(), [up, gated])
    return plan.stock(merge)


def _plan(variant: Variant) -> _Plan:
    """Where each layer goes; channels are given before width scaling."""
    plan = _Plan()
    for row in range(5):
        plan.stock(row)
    p3 = _attend(plan, variant, "P3", 512)
    for row in (5, 6):
        plan.stock(row)
    p4 = _attend(plan, variant, "P4", 512)
    for row in (7, 8):
        plan.stock(row)
    _attend(plan, variant, "P5", 1024)
    plan.stock(9)
    _enhance(plan, variant, "P5", 1024, plan.last)
    p5 = plan.stock(10)
    middle = _ascend(plan, variant, "P4", channels=1024, skip=p4, rows=(11, 12, 13))
    p3_out = _ascend(plan, variant, "P3", channels=512, skip=p3, rows=(14, 15, 16))
    plan.stock(17)
    plan.stock(18, [-1, middle])
    p4_out = plan.stock(19)
    plan.stock(20)
    plan.stock(21, [-1, p5])
    p5_out = plan.stock(22)
    plan.stock(23, [p3_out, p4_out, p5_out])
    return plan


def coco_layers(variant: Variant) -> dict[int, int]:
    """Layer index of the variant -> index of the stock YOLO11 layer it is, for COCO weights."""
    return _plan(variant).coco_layers


def build_variant(n_classes: int, scale: str, *, variant: Variant) -> DetectionNetwork:
    """A network with the chosen parts and random weights; images of any multiple of 32 px.

    Raises:
        ConfigError: if the scale is not n, s or m.
    """
    if scale not in SCALES:
        raise ConfigError(f"Unknown scale {scale!r}. DA-YOLO has: {', '.join(SCALES)}.")
    plan = _plan(variant)
    config = yolo11_config(scale)
    stock = config["backbone"] + config["head"]
    rows = [
        [source, *(stock[row][1:] if isinstance(row, int) else row)] for source, row in plan.rows
    ]
    config["backbone"], config["head"] = rows[:-1], rows[-1:]
    network = build_detector(config, n_classes)
    for index, (make, inputs) in plan.own.items():
        source = inputs[0] if len(inputs) == 1 else inputs
        replace_layer(network, index, make(partial(width, config)), inputs=source)
    return finish(network)


def build(n_classes: int, scale: str) -> DetectionNetwork:
    """The whole of the paper, variant A, with random weights."""
    return build_variant(n_classes, scale, variant=Variant())


COCO_LAYERS = coco_layers(Variant())

SPEC_TAU = 5.0  # of ten positives an object about five keep a high target: Σ exp(−r/5) = 4.77

SPEC = ModelSpec(
    name="da_yolo",
    title="DA-YOLO (YOLO11 + 3DAM + AMFEM, IAJ loss)",
    task="detect",
    image_size=640,
    build=build,
    scales=SCALES,
    default_scale="n",
    criterion=partial(IAJLoss, tau=SPEC_TAU),
    recipe=Recipe(
        epochs=300,
        batch=16,
        optimizer="SGD",
        lr0=0.01,
        cosine=True,
        in_short={"loss": "stock"},  # 24 epochs of IAJ end 21 points lower (docs/LOG.md)
    ),
    paper=Paper(
        title="DA-YOLO",
        authors="Liu, Li, Chen",
        venue="Advances in Mechanical Engineering",
        year=2026,
        doi="10.1177/16878132261442325",
        code="none published",
    ),
    reported=(
        ReportedMetric("mAP50 gain over YOLO11m", 0.0542, dataset="gc10-det", where="text"),
        ReportedMetric("mAP50 gain over YOLO11m", 0.0405, dataset="neu-det", where="text"),
        ReportedMetric(
            "mAP50 gain over YOLO11m, 3DAM alone", 0.0238, dataset="gc10-det", where="ablation"
        ),
        ReportedMetric("mAP50 with IAJ loss", 0.7783, dataset="gc10-det", where="ablation"),
        ReportedMetric(
            "mAP50 gain over YOLO11m, AMFEM and IAJ", 0.031, dataset="neu-det", where="ablation"
        ),
    ),
    departures=(
        "The paper's equations are not in the available text: the blocks follow the public "
        "descriptions of the modules it names, at the places that agree with its wording.",
        "3DAM mixes its directions by a softmax that starts equal and adds the result unscaled.",
        "MFEM expands channels twofold where the text says it compresses them, as its source does; "
        "its convolutions begin by adding a hundredth, so that pretrained weights are not drowned.",
        "The decoder concatenates as YOLO11 does (the source adds) and upsamples bilinearly.",
        "IA-BCE and Focal-EIoU use the constants of their sources (α 0.25, γ 2; γ 0.5), and "
        "YOLO11's loss gains; the paper's are lost.",
        "τ is 5, not a source's 1.5: that leaves about two of an object's ten positives a high "
        "target, and a short run had not learnt to tell classes apart with it (docs/LOG.md).",
        "Runs of less than half of 300 epochs take YOLO11's loss unless told otherwise.",
        "Learning rate, epochs, batch and momentum are YOLO11's, and so is augmentation, but that "
        "images are turned upside down as well, and for the last 40 % of the epochs not zoomed, "
        "shifted or put together; the text gives SGD with cosine annealing only.",
        "Accuracy is claimed for scale m and cost (6.9 GFLOPs, 15 MB) fits scale n only; the "
        "default is n, whose exact cost is neither.",
        "GC10-DET counts 6380 images in the paper against about 2300 in the public set; splits "
        "here are made on originals before any augmentation.",
    ),
    feature_layer="model.23",  # what the finest head map is made of
    coco_layers=COCO_LAYERS,
)
