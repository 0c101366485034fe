"""What of a network a checkpoint holds: tensors, apart from those of its loss."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def network_state(network: nn.Module) -> dict[str, Tensor]:
    """State dict without the loss, which may be a submodule of a trained network."""
    return {k: v for k, v in network.state_dict().items() if not k.startswith("criterion.")}


def modules_of(criterion: Any) -> dict[str, nn.Module]:
    """The parts of a loss that may hold state, such as a running mean of IoU."""
    if isinstance(criterion, nn.Module):
        return {"": criterion}
    return {name: part for name, part in vars(criterion).items() if isinstance(part, nn.Module)}
