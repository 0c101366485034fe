"""The only file that knows segmentation_models_pytorch' networks: stock DeepLabV3+ at any size.

Random weights only: the library fetches pretrained encoders over the network.
"""

from __future__ import annotations

import segmentation_models_pytorch as smp
from torch import Tensor, nn
from torch.nn import functional as F


class DeepLabV3Plus(nn.Module):
    """Chen et al., ECCV 2018, as the library builds it: (N, 3, H, W) -> logits (N, 1 + n, H, W).

    The library asks for sides that are multiples of the output stride, 16. Others are padded with
    their border and the logits cropped back. `encoder_name` is the library's name of the encoder.
    """

    output_stride = 16

    def __init__(self, n_classes: int, encoder_name: str) -> None:
        super().__init__()
        network = smp.DeepLabV3Plus(
            encoder_name=encoder_name,
            encoder_weights=None,
            encoder_output_stride=self.output_stride,
            classes=1 + n_classes,
        )
        self.encoder, self.decoder = network.encoder, network.decoder
        self.head = network.segmentation_head

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the images' own size."""
        height, width = images.shape[-2:]
        bottom, right = -height % self.output_stride, -width % self.output_stride
        if bottom or right:
            images = F.pad(images, (0, right, 0, bottom), mode="replicate")
        logits: Tensor = self.head(self.decoder(self.encoder(images)))
        return logits[..., :height, :width]
