"""One vector per image, taken from the forward pass that answers it anyway; or the answer alone.

The vector tells how alike two images look to a network: it finds images unlike any that the network
has learned from, and keeps a person from being asked twice about the same sight.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class WithFeatures(nn.Module):
    """A network that answers with its output and one vector per image: forward(x) -> (y, f).

    y is the network's first output, as it is; f (N, D) float32 is the mean over height and width of
    the layer's map (N, D, H, W). Where there is no such layer, or where its output is no map (a
    variant of a paper's network may have its head there), D is 0.

    Plain enough to be traced: `torch.jit.trace` and `openvino.convert_model(..., example_input=x)`
    see a module with two outputs, in this order. The hook stays on the layer; only one forward
    pass may run at a time.

    Args:
        network: in evaluation mode, and fused if it is to be: fusing replaces modules.
        layer: its dotted name in the network, `ModelSpec.feature_layer`; "" is no layer.
    """

    def __init__(self, network: nn.Module, layer: str) -> None:
        super().__init__()
        self.network = network
        self._map: Any = None
        named = dict(network.named_modules())
        if layer and layer in named:
            named[layer].register_forward_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        # Detached: somebody else may run the network with gradients, and no graph should stay.
        self._map = output.detach() if isinstance(output, Tensor) else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Answer (N, 3, H, W)."""
        self._map = None
        out = self.network(x)
        seen, self._map = self._map, None
        first = _first(out)
        if seen is None or seen.ndim != 4:
            return first, first.new_zeros((x.shape[0], 0)).float()
        return first, seen.float().mean((2, 3))


class FirstOutput(nn.Module):
    """A network of which only the first output is wanted."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Answer (N, 3, H, W)."""
        return _first(self.network(x))


def _first(out: Any) -> Tensor:
    first: Tensor = out[0] if isinstance(out, tuple | list) else out
    return first
