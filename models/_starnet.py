"""StarNet, the encoder of SME-DeepLabV3+.

Ma et al., "Rewrite the Stars", CVPR 2024: four stages of star blocks, each opened by a strided
convolution. Here without classification head and final norm, since only the feature maps are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn

from core.errors import ConfigError
from models._blocks import StarBlock, conv_bn

STEM_CHANNELS = 32  # of every variant


@dataclass(frozen=True, slots=True)
class StarNetSize:
    """Channels of the first stage (they double with each next one) and star blocks per stage."""

    base: int
    depths: tuple[int, int, int, int]


SIZES = {
    "starnet_s1": StarNetSize(24, (2, 2, 8, 3)),
    "starnet_s2": StarNetSize(32, (1, 2, 6, 2)),
    "starnet_s3": StarNetSize(32, (2, 2, 8, 4)),
    "starnet_s4": StarNetSize(32, (3, 3, 12, 5)),
}


class StarNet(nn.Module):
    """A stem at stride 2 and four stages of star blocks at strides 4, 8, 16 and 32.

    Args:
        size: channels and blocks per stage.
        drop_path: probability of skipping the last block; the others rise to it linearly from 0.
    """

    def __init__(self, size: StarNetSize, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.channels = (STEM_CHANNELS, *(size.base * 2**i for i in range(4)))
        self.stem = nn.Sequential(conv_bn(3, STEM_CHANNELS, 3, stride=2), nn.ReLU6(inplace=True))
        n_blocks = sum(size.depths)
        done = 0
        stages = []
        for (c_in, c_out), n in zip(pairwise(self.channels), size.depths, strict=True):
            rates = [drop_path * i / max(1, n_blocks - 1) for i in range(done, done + n)]
            blocks = (StarBlock(c_out, drop_path=rate) for rate in rates)
            stages.append(nn.Sequential(conv_bn(c_in, c_out, 3, stride=2), *blocks))
            done += n
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """The input (N, 3, H, W), the stem's map and each stage's, from stride 1 to the deepest."""
        features = [x, self.stem(x)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features

    def make_dilated(self, output_stride: int) -> None:
        """Stop shrinking at `output_stride` (16 or 8): later stages widen their kernels instead.

        A stage that would have reached stride s gets stride 1 and dilation s / `output_stride`, so
        that the kernels of its blocks still see the same part of the image; the convolution that
        opens it reads the finer map and sees up to twice as far as it did.

        Raises:
            ConfigError: for another stride.
        """
        if output_stride not in (8, 16):
            raise ConfigError(f"Output stride is {output_stride}: a dilated StarNet has 16 or 8.")
        for i, stage in enumerate(self.stages):
            dilation = 2 ** (i + 2) // output_stride
            if dilation < 2:
                continue
            for conv in (m for m in stage.modules() if isinstance(m, nn.Conv2d)):
                reach = dilation * (conv.kernel_size[0] // 2)
                conv.stride, conv.dilation, conv.padding = (1, 1), (dilation,) * 2, (reach,) * 2
