"""A narrow network's tensors for a wide one that computes the same: Net2Net's wider transformation.

Every channel of the narrow network becomes twins in the wide one. Whatever reads them divides its
weights among them, each by its own share, so that the sum stays and yet no two twins are pushed the
same way in training (Chen, Goodfellow and Shlens, Net2Net, ICLR 2016).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from core.errors import WeightsError

# Channels of an attention head in YOLO11, in what each layer gives or reads; a wide network has
# more heads, not wider ones.
_HEADS: Final = {("attn.qkv.", 0): 128, ("attn.pe.", 0): 64, ("attn.proj.", 1): 64}
_LAYER: Final = re.compile(r"model\.(\d+)\.")
_LEAST_SHARE: Final = 0.2  # of a twin, before shares are divided by their sum


def widen(narrow: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Tensors of the wide network by name; those with fewer places there are left out.

    Names may be of a network with BatchNorm or of one that it was folded into. The first dimension
    of a weight counts what a layer gives, the second what it reads; layers that work channel by
    channel have 1 there in both networks.

    Args:
        narrow: tensors of the narrow network.
        shapes: of the wide network's tensors.

    Raises:
        WeightsError: if the networks differ in more than their width, or not by two throughout, as
            YOLO11's scales do but n and s, and GMS2-YOLO's, whose stem has 16 channels in one and
            24 in the other.
    """
    if narrow.keys() != shapes.keys() or _factors(narrow, shapes) != {2.0}:
        raise WeightsError(
            "The weights are of a network that differs in more than its width: of YOLO11's scales "
            "n can begin s, and no other another."
        )
    chance = torch.Generator().manual_seed(0)  # no part of the run's: it begins the same each time
    wide = {}
    for name, tensor in narrow.items():
        shape = shapes[name]
        if shape[2:] != tensor.shape[2:]:  # a kernel whose length follows from the channels
            continue
        if any(more < fewer for more, fewer in zip(shape, tensor.shape, strict=True)):
            continue
        if tensor.ndim and shape[0] != tensor.shape[0]:
            tensor = tensor[_twins(name, 0, tensor.shape[0], shape[0])]
        if tensor.ndim > 1 and shape[1] != tensor.shape[1]:
            tensor = _divided(tensor, _twins(name, 1, tensor.shape[1], shape[1]), chance)
        wide[name] = tensor
    return wide


def _factors(narrow: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> set[float]:
    """How many times as many channels the layers give whose channels are multiplied at all.

    The head is not asked: how many channels name the classes follows from the classes, too.
    """
    layers = {name: int(found[1]) for name in narrow if (found := _LAYER.match(name))}
    head = max(layers.values(), default=0)
    factors = {
        shapes[name][0] / len(narrow[name])
        for name, layer in layers.items()
        if layer < head and narrow[name].ndim
    }
    return factors - {1.0}


def _twins(name: str, dimension: int, narrow: int, wide: int) -> Tensor:
    """(wide,) the channel of the narrow network that each channel of the wide one repeats.

    Twins lie side by side, so that halves and joined maps of the wide network are those of the
    narrow one.
    """
    channels = torch.arange(wide)
    if wide % narrow:
        return channels % narrow  # in a branch of the head, where nothing is halved or joined
    for layer, head in _HEADS.items():
        if layer[0] in name and layer[1] == dimension:
            times = wide // narrow
            return channels // (head * times) * head + channels % head
    return channels // (wide // narrow)


def _divided(weight: Tensor, twins: Tensor, chance: torch.Generator) -> Tensor:
    """Weights (out, wide, …) that are `weight` (out, narrow, …) summed over twins."""
    rest = [1] * (weight.ndim - 2)
    shares = torch.rand((len(weight), len(twins)), generator=chance)
    shares = _LEAST_SHARE + (1 - 2 * _LEAST_SHARE) * shares
    whole = torch.zeros(weight.shape[:2]).index_add_(1, twins, shares)
    return weight[:, twins] * (shares / whole[:, twins]).reshape(*shares.shape, *rest)
