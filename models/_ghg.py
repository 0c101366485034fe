"""The blocks of GMS2-YOLO: GHGBlock for the backbone, MSNet for the neck, SepBNDetect as head.

Written from the published building blocks that the abstract names: HGBlock and GhostConv as in
ultralytics, the mixed aggregation of Hyper-YOLO's MANet, StarNet's star block, and the shared head
with separate normalisation per level. Paper, loss, and open choices: `models/gms2_yolo.py`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from ultralytics.nn.modules.conv import Conv, DWConv, GhostConv
from ultralytics.nn.modules.head import Detect
from ultralytics.utils.torch_utils import fuse_conv_and_bn

from models._blocks import StarBlock


class GHGBlock(nn.Module):
    """HGBlock whose light convolutions are ghost convolutions.

    (N, c_in, H, W) -> (N, c_out, H, W). A chain of `depth` convolutions k×k of `hidden` channels;
    the input and all their outputs are concatenated, squeezed to c_out / 2 and expanded to c_out.

    Args:
        c_in: input channels.
        hidden: channels of each convolution of the chain.
        c_out: output channels.
        kernel: k.
        depth: length of the chain.
        ghost: chain of GhostConv instead of Conv.
        shortcut: add the input, where c_in = c_out.
    """

    def __init__(
        self,
        c_in: int,
        hidden: int,
        c_out: int,
        *,
        kernel: int,
        depth: int,
        ghost: bool,
        shortcut: bool = False,
    ) -> None:
        super().__init__()
        act = nn.ReLU()
        conv = GhostConv if ghost else Conv
        self.chain = nn.ModuleList(
            conv(hidden if i else c_in, hidden, kernel, act=act) for i in range(depth)
        )
        self.squeeze = Conv(c_in + depth * hidden, c_out // 2, 1, act=act)
        self.expand = Conv(c_out // 2, c_out, 1, act=act)
        self.shortcut = shortcut and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, at the input's stride."""
        outputs = [x]
        for conv in self.chain:
            outputs.append(conv(outputs[-1]))
        y: Tensor = self.expand(self.squeeze(torch.cat(outputs, 1)))
        return x + y if self.shortcut else y


class MSNet(nn.Module):
    """Mixed aggregation of five kinds of features, its bottlenecks being star blocks.

    (N, c_in, H, W) -> (N, c_out, H, W). With y = Conv1×1(x) of 2c channels, c = c_out / 2, it
    concatenates a 1×1 projection of y, a depthwise separable one, both halves of y, and `depth`
    star blocks in a row on the second half.

    Args:
        c_in: input channels.
        c_out: output channels.
        depth: n, number of star blocks.
        expansion: p, widening of the depthwise path: 2c·p channels.
        kernel: k of the depthwise convolution.
        ratio: r of the star blocks.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        *,
        depth: int = 1,
        expansion: int = 2,
        kernel: int = 3,
        ratio: int = 3,
    ) -> None:
        super().__init__()
        c = c_out // 2
        wide = 2 * c * expansion
        self.enter = Conv(c_in, 2 * c, 1)
        self.pointwise = Conv(2 * c, c, 1)
        self.separable = nn.Sequential(
            Conv(2 * c, wide, 1), DWConv(wide, wide, kernel), Conv(wide, c, 1)
        )
        self.stars = nn.ModuleList(StarBlock(c, ratio, conv_bias=False) for _ in range(depth))
        self.leave = Conv((4 + depth) * c, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, at the input's stride."""
        y = self.enter(x)
        outputs = [self.pointwise(y), self.separable(y), *y.chunk(2, 1)]
        for star in self.stars:
            outputs.append(star(outputs[-1]))
        z: Tensor = self.leave(torch.cat(outputs, 1))
        return z


def _listed(modules: nn.Module) -> nn.ModuleList:
    """The inner list of a list of lists, which torch's types lose."""
    return cast(nn.ModuleList, modules)


class SepBNDetect(Detect):  # type: ignore[misc]  # ultralytics is untyped
    """Detection head whose convolutions are shared by all levels, with a normalisation of its own
    for each level and stage.

    Level l: its own 1×1 to `hidden` channels; two shared 3×3, each followed by BN_{l,j} and SiLU;
    a shared 1×1 for the box distribution, times a learnt scale s_l, and a shared 1×1 for the
    classes. Circulating versions index the normalisations by stage alone, which makes all levels
    share them; here `norms[level][stage]` is what it says.

    Args:
        nc: number of classes.
        hidden: channels inside the head.
        ch: channels of the levels.
        reg_max: bins of the distribution that each side of a box is predicted as.
    """

    STAGES = 2

    def __init__(self, nc: int, hidden: int, ch: Sequence[int], *, reg_max: int = 16) -> None:
        super().__init__(nc, reg_max, False, tuple(ch))
        self.cv2 = self.cv3 = None  # the stock branches; ultralytics asks whether they are there
        self.stems = nn.ModuleList(Conv(c, hidden, 1) for c in ch)
        # Their bias is redundant before a normalisation, and kept as in the published heads.
        self.shared = nn.ModuleList(
            nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(self.STAGES)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(hidden) for _ in range(self.STAGES)) for _ in ch
        )
        self.box = nn.Conv2d(hidden, 4 * reg_max, 1)
        self.cls = nn.Conv2d(hidden, nc, 1)
        # Named so that ultralytics' optimizer spares it weight decay, which would pull s to 0.
        self.logit_scale = nn.Parameter(torch.ones(len(ch)))
        self.folded: nn.ModuleList | None = None  # set by `fold_head`

    def _features(self, x: Tensor, level: int) -> Tensor:
        """Features (N, hidden, H, W) of a level, before the box and class convolutions."""
        z: Tensor = self.stems[level](x)
        if self.folded is not None:
            for conv in _listed(self.folded[level]):
                z = F.silu(conv(z))
            return z
        for conv, norm in zip(self.shared, _listed(self.norms[level]), strict=True):
            z = F.silu(norm(conv(z)))
        return z

    def forward_head(
        self,
        x: list[Tensor],
        box_head: nn.Module | None = None,
        cls_head: nn.Module | None = None,
    ) -> dict[str, Tensor | list[Tensor]]:
        """Raw outputs of all levels: boxes (N, 4·reg_max, A), scores (N, nc, A), input maps.

        The two heads are those of the stock class, which this one has not.
        """
        boxes, scores = [], []
        for level, maps in enumerate(x):
            z = self._features(maps, level)
            boxes.append((self.box(z) * self.logit_scale[level]).flatten(2))
            scores.append(self.cls(z).flatten(2))
        return {"boxes": torch.cat(boxes, -1), "scores": torch.cat(scores, -1), "feats": x}

    def bias_init(self) -> None:
        """Start at short sides and rare objects: about five per image at the middle stride."""
        stride = float(self.stride[self.nl // 2])
        nn.init.constant_(self.box.get_parameter("bias"), 1.0)
        rarity = math.log(5 / self.nc / (640 / stride) ** 2)
        nn.init.constant_(self.cls.get_parameter("bias"), rarity)


def fold_head(head: SepBNDetect) -> SepBNDetect:
    """A copy for inference that holds a folded copy of the shared convolutions for each level.

    Shared convolutions cannot absorb a normalisation that differs by level, copies can: the outputs
    are those of `head` in eval mode, with no normalisation left behind a 3×3 convolution.
    """
    copied: SepBNDetect = copy.deepcopy(head).eval()
    copied.folded = nn.ModuleList(
        nn.ModuleList(
            fuse_conv_and_bn(copy.deepcopy(conv), norm)
            for conv, norm in zip(copied.shared, _listed(norms), strict=True)
        )
        for norms in copied.norms
    )
    del copied.shared, copied.norms
    return copied


def fold_star_blocks(network: nn.Module) -> None:
    """Fold the normalisations of every star block into its convolutions, in place, for inference.

    Ultralytics' own `fuse` knows its `Conv` alone and leaves these standing.
    """
    for block in network.modules():
        if isinstance(block, StarBlock):
            for name in ("dw_in", "project"):
                pair = getattr(block, name)
                if isinstance(pair, nn.Sequential):
                    setattr(block, name, fuse_conv_and_bn(*pair))
