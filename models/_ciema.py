"""CIEMA, the attention of MobileSteelNet: channels first, groups of them in space, then a gate.

Written from a description of the paper's six steps and of the module that its authors published.
Paper, network and open choices: `models/mobilesteelnet.py`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from core.errors import ConfigError
from models._blocks import PooledChannelGate, conv_bn

Coord: TypeAlias = Literal["code", "paper"]

REDUCTION = 16  # r of the channel gate


class CoordinateAttention(nn.Module):
    """Directional gates and an instance norm, for one group of channels; CIEMA, step 2.

    Shape-preserving: (N, g, H, W). `coord="code"` runs one 1×1 convolution over both directions, as
    the published module does; "paper" is the formula: a ReLU behind it, then one more for each.
    """

    def __init__(self, channels: int, *, coord: Coord) -> None:
        super().__init__()
        self.shared = nn.Conv2d(channels, channels, 1)
        separate = coord == "paper"
        self.relu = nn.ReLU(inplace=True) if separate else nn.Identity()
        self.along_h = nn.Conv2d(channels, channels, 1) if separate else nn.Identity()
        self.along_w = nn.Conv2d(channels, channels, 1) if separate else nn.Identity()
        self.norm = nn.GroupNorm(channels, channels)  # one channel a group: instance norm

    def forward(self, x: Tensor) -> Tensor:
        """The gated and normalised map."""
        height, width = x.shape[-2:]
        by_row = x.mean(3, keepdim=True)  # (N, g, H, 1)
        by_column = x.mean(2, keepdim=True).transpose(2, 3)  # (N, g, W, 1)
        q = self.relu(self.shared(torch.cat((by_row, by_column), dim=2)))  # (N, g, H + W, 1)
        q_h, q_w = q.split((height, width), dim=2)
        gate_h = self.along_h(q_h).sigmoid()
        gate_w = self.along_w(q_w).sigmoid().transpose(2, 3)  # (N, g, 1, W)
        gated: Tensor = self.norm(x * gate_h * gate_w)
        return gated


class CrossScale(nn.Module):
    """Gated 1×1, 3×3 and 5×5 views plus a scaled shortcut ("CSL"); CIEMA, step 4.

    Shape-preserving: V = BN(Conv(A ⊙ Z)) + α Conv(U) with Z = [f1, f3, f5] and A = σ(BN(Conv(Z))).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.views = nn.ModuleList(
            nn.Conv2d(channels, channels, k, padding=k // 2, bias=False) for k in (1, 3, 5)
        )
        self.gate = conv_bn(3 * channels, 3 * channels, 1, bias=False)
        self.reduce = conv_bn(3 * channels, channels, 1, bias=False)
        self.shortcut = nn.Conv2d(channels, channels, 1, bias=False)
        self.alpha = nn.Parameter(torch.ones(()))

    def forward(self, u: Tensor) -> Tensor:
        """V, of the shape of `u`."""
        z = torch.cat([view(u) for view in self.views], dim=1)
        v: Tensor = self.reduce(self.gate(z).sigmoid() * z) + self.alpha * self.shortcut(u)
        return v


class CIEMA(nn.Module):
    """Channel interaction, grouped cross-spatial attention and a gate between the two.

    Shape-preserving: (N, C, H, W). The G groups of g channels share the weights of steps 2 to 5 and
    go through them as one batch of N·G. `csl_loop` runs CSL group by group as the published module
    does: the same outputs in eval mode; in training each group has its own batch statistics.
    With `parallel` steps 2 to 5 read X, as step 1 does, in place of its X1.

    Raises:
        ConfigError: if C is not a multiple of G.
    """

    def __init__(
        self,
        channels: int,
        groups: int,
        *,
        coord: Coord = "code",
        csl_loop: bool = False,
        parallel: bool = False,
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ConfigError(f"CIEMA cannot split {channels} channels into {groups} equal groups.")
        g = channels // groups
        self.groups, self.csl_loop, self.parallel = groups, csl_loop, parallel
        self.channel_gate = PooledChannelGate(channels, REDUCTION)
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.coordinate = CoordinateAttention(g, coord=coord)
        self.local = nn.Conv2d(g, g, 3, padding=1)
        self.csl = CrossScale(g)
        self.refine = nn.Sequential(
            *conv_bn(channels, channels // 4, 1, bias=False),
            nn.ReLU(inplace=True),
            *conv_bn(channels // 4, channels, 1, bias=False),
        )
        self.gate = conv_bn(2 * channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Step 6: Y = X1 ⊙ Gt + Xs ⊙ (1 − Gt), Gt read from Xs and its refinement."""
        by_channel = self.interact(x)
        by_place = self.attend(x if self.parallel else by_channel)
        gate = self.gate(torch.cat((by_place, self.refine(by_place)), dim=1)).sigmoid()
        return torch.lerp(by_place, by_channel, gate)

    def interact(self, x: Tensor) -> Tensor:
        """Step 1: X1 = X ⊙ a + Conv(X) ⊙ (1 − a), a one weight a channel."""
        return torch.lerp(self.mix(x), x, self.channel_gate(x))

    def attend(self, x: Tensor) -> Tensor:
        """Steps 2 to 5: Xs = x ⊙ S, S in (0, 1) being one map per group."""
        grouped = x.reshape(-1, x.shape[1] // self.groups, *x.shape[2:])  # (N·G, g, H, W)
        p = self._scan(self.coordinate(grouped))  # global branch
        q = self._scan(self.local(grouped))  # local branch
        weight_p = p.mean((2, 3)).softmax(dim=1)  # (N·G, g)
        weight_q = q.mean((2, 3)).softmax(dim=1)
        s = torch.einsum("nc,nchw->nhw", weight_p, q) + torch.einsum("nc,nchw->nhw", weight_q, p)
        return (grouped * s.sigmoid().unsqueeze(1)).reshape(x.shape)

    def _scan(self, u: Tensor) -> Tensor:
        if not self.csl_loop:
            v: Tensor = self.csl(u)
            return v
        by_group = u.reshape(-1, self.groups, *u.shape[1:]).unbind(1)  # G times (N, g, H, W)
        return torch.stack([self.csl(one) for one in by_group], dim=1).flatten(0, 1)
