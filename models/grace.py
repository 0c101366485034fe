"""GRACE: YOLO11s with Lite-FEN attention before the P3 head input and DS-CBSM++ class sampling.

Chen et al., "Confidence-gradient reweighting and lightweight feature enhancement algorithm for
steel surface defect detection", Scientific Reports 16, 5676 (2026). No code of the authors was
found; the bodies of the equations are reconstructed from the text, and what the text leaves open is
listed in `SPEC.departures`. The loss itself stays ultralytics' own: only the odds of drawing each
training image change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from models._dscbsm import ConfidenceGradientSampler
from models._spec import ModelSpec, Paper, Recipe, ReportedMetric
from models._ultralytics import (
    DetectionNetwork,
    build_detector,
    finish,
    replace_layer,
    yolo11_config,
)

# ------------------------------------------------------------------------------------- Lite-FEN


def linear_ramp(epoch: int, *, base: float = 0.20, epochs: int = 30) -> float:
    """Strength s_e before clipping, for epochs counted from 0; eq. (12)."""
    return base * min(1.0, (epoch + 1) / epochs)


class LiteFEN(nn.Module):
    """Channel and spatial attention, added back as a bounded residual; eqs. (11)-(14).

    Shape-preserving: (N, C, H, W) -> (N, C, H, W). The strength ŝ is a buffer, not a parameter: it
    follows the epoch while training, is saved with the weights, and is a constant when exported.

    Args:
        channels: C.
        reduction: r, compression of the channel branch.
        law: epoch from 0 -> strength; a module-level function, since networks are deep-copied.
        low: s_min, least strength after clipping, eq. (13).
        high: s_max; it cannot bind with the default law, which ends at 0.20.
    """

    strength: Tensor

    def __init__(
        self,
        channels: int,
        *,
        reduction: int = 4,
        law: Callable[[int], float] = linear_ramp,
        low: float = 0.05,
        high: float = 0.30,
    ) -> None:
        super().__init__()
        hidden = channels // reduction
        self.channel = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            nn.SiLU(),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )
        self.spatial = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, 1, 1),
            nn.Sigmoid(),
        )
        self.law, self.low, self.high = law, low, high
        self.register_buffer("strength", torch.tensor(0.0))
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Set ŝ for an epoch counted from 0; eqs. (12) and (13)."""
        self.strength.fill_(min(max(self.law(epoch), self.low), self.high))

    def forward(self, x: Tensor) -> Tensor:
        """x + ŝ · x ⊙ ½ (CA(x) + SA(x)); |x| ≤ |y| ≤ (1 + ŝ)|x| with the sign kept."""
        attention = 0.5 * (self.channel(x) + self.spatial(x))  # (N, C, 1, 1) + (N, 1, H, W)
        y: Tensor = x + self.strength * (x * attention)
        return y


def on_epoch(network: nn.Module, epoch: int) -> None:
    """Set the strength of every Lite-FEN in `network` for an epoch counted from 0.

    To be called on the trained network and on its moving average: averaging the buffer instead
    would let validation lag behind.
    """
    for module in network.modules():
        if isinstance(module, LiteFEN):
            module.set_epoch(epoch)


# ------------------------------------------------------------------------------------- network

Placement: TypeAlias = Literal["neck-p3", "neck-all", "backbone-p3", "none"]
SCALES = ("n", "s", "m")

_BACKBONE_P3 = 4
_NECK = (16, 19, 22)  # outputs for P3, P4, P5 in the stock description

# Our layer index -> stock YOLO11 index, for starting from COCO arrays: only the head moved.
COCO_LAYERS: dict[int, int] = {**{i: i for i in range(23)}, 24: 23}


def build(n_classes: int, scale: str = "s") -> DetectionNetwork:
    """GRACE with random weights; scale s is the paper's."""
    return build_variant(n_classes, scale, placement="neck-p3")


def build_variant(
    n_classes: int, scale: str, *, placement: Placement, law: Callable[[int], float] = linear_ramp
) -> DetectionNetwork:
    """YOLO11 with Lite-FEN elsewhere than in the paper, or with another ramp of its strength.

    Args:
        n_classes: classes of the head.
        scale: n, s or m.
        placement: "neck-p3" is the paper's: between the neck's P3 and the head, so that the
            bottom-up path still reads the map without attention. "neck-all" does the same at P3 to
            P5, "backbone-p3" follows layer 4, "none" is stock YOLO11.
        law: see `LiteFEN`.

    Raises:
        ConfigError: if scale or placement is unknown.
    """
    if placement not in get_args(Placement):
        raise ConfigError(
            f"Unknown placement {placement!r}. Available: {', '.join(get_args(Placement))}."
        )
    if scale not in SCALES:
        raise ConfigError(f"Unknown scale {scale!r}. GRACE has: {', '.join(SCALES)}.")
    config = yolo11_config(scale)
    levels = {"neck-p3": 1, "neck-all": 3}.get(placement, 0)
    # The parser knows an identity; Lite-FEN takes its place below.
    rows = [[source, 1, "nn.Identity", []] for source in _NECK[:levels]]
    first = _NECK[-1] + 1
    inputs = [*range(first, first + levels), *_NECK[levels:]]
    config["head"][-1:] = [*rows, [inputs, 1, "Detect", ["nc"]]]
    network = build_detector(config, n_classes)
    for index in range(first, first + levels):
        channels = network.model[network.model[index].f].cv2.conv.out_channels
        replace_layer(network, index, LiteFEN(channels, law=law))
    if placement == "backbone-p3":
        stage = network.model[_BACKBONE_P3]
        attention = LiteFEN(stage.cv2.conv.out_channels, law=law)
        replace_layer(network, _BACKBONE_P3, nn.Sequential(stage, attention))
    return finish(network)


def _reported(dataset: str, split: str, where: str, **values: float) -> tuple[ReportedMetric, ...]:
    return tuple(
        ReportedMetric(name, value, dataset=dataset, split=split, where=where)
        for name, value in values.items()
    )


SPEC = ModelSpec(
    name="grace",
    title="GRACE (YOLO11 + Lite-FEN + DS-CBSM++)",
    task="detect",
    image_size=640,
    build=build,
    scales=SCALES,
    default_scale="s",
    recipe=Recipe(epochs=200, batch=16, optimizer="SGD", lr0=0.001),
    paper=Paper(
        title="Confidence–gradient reweighting and lightweight feature enhancement algorithm for "
        "steel surface defect detection",
        authors="Chen et al.",
        venue="Scientific Reports 16, 5676",
        year=2026,
        doi="10.1038/s41598-026-36543-w",
        code="promised by the authors; none found",
        caveat="The paper's figures for NEU-DET are of the 360 images on which it also chose its "
        "weights.",
    ),
    sampler=ConfidenceGradientSampler,
    on_epoch=on_epoch,
    reported=(
        *_reported(
            "neu-det",
            "val (360 images, no test split)",
            "NEU-DET results, GRACE; YOLO11s 74.69 / 42.66",
            mAP50=0.7588,
            mAP50_95=0.4366,
            precision=0.7362,
            recall=0.7233,
            F1=0.7297,
        ),
        *_reported(
            "gc10-det",
            "",
            "cross-dataset results, GRACE; YOLO11s 58.66 / 29.02",
            mAP50=0.6114,
            mAP50_95=0.3238,
            precision=0.5547,
            recall=0.6368,
            F1=0.5929,
        ),
        *_reported(
            "x-sdd",
            "",
            "cross-dataset results, GRACE; YOLO11s 64.84 / 36.19",
            mAP50=0.6514,
            mAP50_95=0.3303,
            precision=0.7468,
            recall=0.6089,
            F1=0.6708,
        ),
        ReportedMetric("parameters [M]", 9.56, dataset="neu-det", where="NEU-DET results"),
        ReportedMetric("latency [ms]", 16.93, dataset="neu-det", where="RTX 3070 Ti, NEU-DET"),
    ),
    departures=(
        "The paper counts 0.12 M more parameters than YOLO11s; the block as described adds 9 761.",
        "The length of Lite-FEN's ramp is not given: 30 epochs, as long as DS-CBSM++'s.",
        "The decay of the moving averages is not given: 0.9, every 20 batches.",
        "How class weights become image weights is not given: the mean over the image's boxes.",
        "Confidence and gradient surrogate are averaged over foreground anchors of the class.",
        "Momentum, weight decay and warm-up are ultralytics' defaults. Augmentation is ours: both "
        "mirrorings, brightness, zooms, shifts and mosaics, of which three of four tiles are drawn "
        "uniformly; for the last 40 % of the epochs the first two alone.",
        "The paper selects and reports on the same 360 images; we report on a leak-free test "
        "split.",
    ),
    feature_layer="model.23",
    coco_layers=COCO_LAYERS,
)
