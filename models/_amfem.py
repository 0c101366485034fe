"""AMFEM's blocks: the multi-scale decoder of DA-YOLO, after EMCAD.

MFEM refines one feature map, EUCB brings the level above to its size, LGAG lets that level gate it.
Written from descriptions of the blocks (Rahman et al., "EMCAD", CVPR 2024), without its code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models._blocks import PooledChannelGate, SpatialGate, conv_bn

# Of the normalisation after MSCB's last convolution, at first; not 0, so that gradients flow.
FIRST_SHARE = 0.01


class MSCB(nn.Module):
    """Inverted residual with parallel depthwise kernels, summed; EMCAD's multi-scale block.

    Y = X + BN(W2·shuffle(Σ_k ReLU6(BN(DW_k(u))))), u = ReLU6(BN(W1·X)). Shape-preserving.

    Args:
        channels: C.
        expansion: e, the hidden width is e·C; below 1 it is the "compress" of the paper's text.
        kernels: odd sizes of the depthwise convolutions.
    """

    def __init__(self, channels: int, *, expansion: float, kernels: Sequence[int]) -> None:
        super().__init__()
        hidden = int(expansion * channels)
        self.widen = nn.Sequential(conv_bn(channels, hidden, 1, bias=False), nn.ReLU6())
        self.scales = nn.ModuleList(
            nn.Sequential(conv_bn(hidden, hidden, k, groups=hidden, bias=False), nn.ReLU6())
            for k in kernels
        )
        self.groups = math.gcd(hidden, channels)
        self.project = conv_bn(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The refined map, of the shape of `x`."""
        u = self.widen(x)
        v = self.scales[0](u)
        for scale in self.scales[1:]:
            v = v + scale(u)
        refined: Tensor = self.project(channel_shuffle(v, self.groups))
        return x + refined


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of `groups` equal groups: (g, C/g) read out as (C/g, g)."""
    n, c, h, w = x.shape
    if x.is_contiguous(memory_format=torch.channels_last):
        # Kept as it lies in memory: layers behind it would otherwise train several times slower.
        last = x.permute(0, 2, 3, 1).reshape(n, h, w, groups, c // groups)
        return last.transpose(3, 4).reshape(n, h, w, c).permute(0, 3, 1, 2)
    return x.reshape(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class MFEM(nn.Module):
    """Channel attention, spatial attention, then `MSCB`; shape-preserving.

    Args:
        channels: C, of which the channel gate's hidden layer has a sixteenth.
        expansion: e of `MSCB`.
        kernels: kernel sizes of `MSCB`.
    """

    def __init__(
        self, channels: int, *, expansion: float = 2, kernels: Sequence[int] = (1, 3, 5)
    ) -> None:
        super().__init__()
        self.channel_gate = PooledChannelGate(channels, 16)
        self.spatial_gate = SpatialGate(7)
        self.mscb = MSCB(channels, expansion=expansion, kernels=kernels)
        init_decoder_block(self)
        # What the convolutions add begins small: noise of unit variance between pretrained layers
        # costs a short run more than half of what it could learn (docs/LOG.md).
        *_, norm = self.mscb.project
        nn.init.constant_(norm.get_parameter("weight"), FIRST_SHARE)

    def forward(self, x: Tensor) -> Tensor:
        """The enhanced map, of the shape of `x`."""
        x = x * self.channel_gate(x)
        x = x * self.spatial_gate(x)
        enhanced: Tensor = self.mscb(x)
        return enhanced


class EUCB(nn.Module):
    """Upsample ×2, depthwise 3×3, BN, ReLU, 1×1: (N, c_in, H, W) -> (N, c_out, 2H, 2W).

    EMCAD shuffles the channels before the 1×1 in c_in groups of one, which moves nothing; that step
    is left out.

    Args:
        c_in: channels of the input.
        c_out: channels of the output.
        interpolation: "bilinear" (the paper's text) or "nearest" (EMCAD's default).
    """

    def __init__(self, c_in: int, c_out: int, *, interpolation: str = "bilinear") -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode=interpolation)
        self.depthwise = conv_bn(c_in, c_in, 3, groups=c_in, bias=False)
        self.act = nn.ReLU()
        self.pointwise = nn.Conv2d(c_in, c_out, 1)
        init_decoder_block(self)

    def forward(self, x: Tensor) -> Tensor:
        """The map at twice the resolution."""
        out: Tensor = self.pointwise(self.act(self.depthwise(self.upsample(x))))
        return out


class LGAG(nn.Module):
    """Grouped attention gate: x ⊙ σ(BN(ψ(ReLU(BN(G_g(g)) + BN(G_x(x)))))), of the shape of x.

    Takes [g, x], both (N, channels, H, W): g from the level above opens or closes the positions of
    the skip x. The grouped convolutions see two input channels each.
    """

    def __init__(self, channels: int, *, kernel: int = 3) -> None:
        super().__init__()
        hidden = channels // 2
        self.from_gate = conv_bn(channels, hidden, kernel, groups=hidden)
        self.from_skip = conv_bn(channels, hidden, kernel, groups=hidden)
        self.act = nn.ReLU()
        self.psi = conv_bn(hidden, 1, 1)
        init_decoder_block(self)

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The gated skip."""
        g, x = inputs
        return x * torch.sigmoid(self.psi(self.act(self.from_gate(g) + self.from_skip(x))))


class Add(nn.Module):
    """Sum of two maps of one shape, in the place of a concatenation."""

    def forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The sum."""
        a, b = inputs
        return a + b


def init_decoder_block(block: nn.Module) -> None:
    """EMCAD's initialisation: convolution weights N(0, 0.02), biases 0."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
