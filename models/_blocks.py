"""Blocks that more than one of the papers uses: the star block and two pooled attention gates.

Written from the equations: the star operation is Ma et al., "Rewrite the Stars", CVPR 2024; the two
gates are the channel and spatial attention of Woo et al., "CBAM", ECCV 2018, without its product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_bn(
    c_in: int,
    c_out: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Sequential:
    """A "same"-padded convolution followed by batch normalisation, with no activation.

    StarNet keeps the convolution's bias although the normalisation makes it redundant; `bias=False`
    drops it.
    """
    return nn.Sequential(
        nn.Conv2d(
            c_in,
            c_out,
            kernel,
            stride,
            dilation * (kernel // 2),
            dilation,
            groups=groups,
            bias=bias,
        ),
        nn.BatchNorm2d(c_out),
    )


class StarBlock(nn.Module):
    """Two pointwise projections multiplied element by element, between two depthwise 7×7.

    u = BN(DW7(x)); v = ReLU6(A u) ⊙ B u; y = x + drop_path(DW7(BN(G v))), where A and B widen the
    channels by `ratio` and G brings them back. Shape-preserving: (N, dim, H, W) -> (N, dim, H, W).

    StarNet uses ratio 4 and a bias in every convolution (`conv_bias=True`); GMS2-YOLO uses ratio 3
    and no bias in the two convolutions that are followed by a normalisation. `drop_path` is the
    probability in [0, 1) that an image skips the block while training.
    """

    def __init__(
        self, dim: int, ratio: int = 4, *, conv_bias: bool = True, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        hidden = ratio * dim
        self.dw_in = conv_bn(dim, dim, 7, groups=dim, bias=conv_bias)
        self.a = nn.Conv2d(dim, hidden, 1)
        self.b = nn.Conv2d(dim, hidden, 1)
        self.project = conv_bn(hidden, dim, 1, bias=conv_bias)
        self.dw_out = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.drop_path = drop_path

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, of the shape of `x`."""
        u = self.dw_in(x)
        v: Tensor = self.dw_out(self.project(F.relu6(self.a(u)) * self.b(u)))
        return x + drop_images(v, self.drop_path, training=self.training)


def drop_images(x: Tensor, probability: float, *, training: bool) -> Tensor:
    """Zero whole images of a batch at random and scale the others so that the mean stays."""
    if not training or probability == 0.0:
        return x
    keep = 1.0 - probability
    mask = x.new_empty(x.shape[0], 1, 1, 1).bernoulli_(keep)
    return x * mask / keep


class PooledChannelGate(nn.Module):
    """Weight of each channel: σ(M(GAP(x)) + M(GMP(x))), with one shared two-layer M.

    (N, C, H, W) -> (N, C, 1, 1), each in (0, 1); the caller multiplies. M is two 1×1 convolutions
    without bias, C -> C / ratio -> C, with a ReLU between them.
    """

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        hidden = max(1, channels // ratio)
        self.mlp = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        """The gate (N, C, 1, 1), not the gated map."""
        mean = self.mlp(x.mean((2, 3), keepdim=True))
        peak = self.mlp(x.amax((2, 3), keepdim=True))
        return torch.sigmoid(mean + peak)


class SpatialGate(nn.Module):
    """Weight of each position: σ(Conv([mean_C(x); max_C(x)])), a bias-free `kernel`×`kernel`.

    (N, C, H, W) -> (N, 1, H, W), each in (0, 1); the caller multiplies.
    """

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The gate (N, 1, H, W), not the gated map."""
        pooled = torch.cat((x.mean(1, keepdim=True), x.amax(1, keepdim=True)), dim=1)
        return torch.sigmoid(self.conv(pooled))
