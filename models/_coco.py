"""Starting a detector from COCO: arrays of stock YOLO11, read and put where they fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.nn.modules.conv import Conv
from ultralytics.nn.tasks import DetectionModel, torch_safe_load

from core.errors import WeightsError
from models._ultralytics import DetectionNetwork, build_detector, yolo11_config
from models._widening import widen


@dataclass(frozen=True, slots=True)
class Lent:
    """Names of the arrays that a network took over, and whether they were a narrower scale's."""

    names: list[str]
    is_widened: bool


def fold_checkpoint(path: Path) -> dict[str, NDArray[np.float32]]:
    """Read what ultralytics saved, and fold each BatchNorm into the convolution before it.

    A checkpoint is a pickle. It is read by torch's restricted unpickler, which makes nothing but
    tensors and the layers that ultralytics and torch themselves declare.

    Args:
        path: a detector's .pt file, such as the published yolo11n.pt.

    Returns:
        Its parameters, as `load_coco_npz` takes them from a file.

    Raises:
        WeightsError: if there is no such file, it is damaged, holds anything else than layers and
            tensors, or is no detector.
    """
    if not path.is_file():  # else ultralytics would look for it on the network
        raise WeightsError(
            f"No checkpoint at {path}: give the .pt file of an ultralytics detector."
        )
    try:
        checkpoint, _ = torch_safe_load(path, safe_only=True)
    except Exception as exc:  # hostile or damaged pickles fail in any way there is
        raise WeightsError(
            f"{path} cannot be read as an ultralytics checkpoint: it is damaged, or it holds more "
            "than the layers of a network."
        ) from exc
    network = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(network, DetectionModel):
        raise WeightsError(f"{path} holds no detector: give one such as yolo11n.pt.")
    folded = network.float().eval().fuse(verbose=False)
    return {name: value.detach().numpy() for name, value in folded.state_dict().items()}


def renamed(tensors: Mapping[str, Tensor], layers: Mapping[int, int] | None) -> dict[str, Tensor]:
    """Stock YOLO11's tensors by the names they have in a network whose layers sit elsewhere.

    Args:
        tensors: by their names in the stock network.
        layers: `ModelSpec.coco_layers`; None where all sit where they were.
    """
    if layers is None:
        return dict(tensors)
    places: dict[int, list[int]] = {}
    for ours, stock in layers.items():
        places.setdefault(stock, []).append(ours)
    renamed = {}
    for name, tensor in tensors.items():
        prefix, index, rest = name.split(".", 2)
        for ours in places.get(int(index), ()):
            renamed[f"{prefix}.{ours}.{rest}"] = tensor
    return renamed


def _normalised_convs(network: nn.Module) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    for name, module in network.named_modules():
        if isinstance(module, Conv) and isinstance(getattr(module, "bn", None), nn.BatchNorm2d):
            yield name, module.conv, module.bn


@torch.no_grad()
def load_coco_npz(
    network: DetectionNetwork,
    path: Path,
    images: Tensor,
    *,
    layers: Mapping[int, int] | None = None,
) -> Lent:
    """Start a network from YOLO11 COCO arrays whose BatchNorm was folded into the convolutions.

    A stock network of the same scale and classes takes the arrays first, see `_unfold`. What fits
    by name and shape the network takes from it: convolutions, each with the weight and bias of the
    BatchNorm behind it. So a lent layer's maps are as large as in YOLO11, whatever stands before
    it. Settled on the network's own maps it would be shut behind blocks that begin anew: in eval
    mode those fade to nothing, and a weight √(v + ε) of 0.03 lets nothing pass, in training either.
    Means and variances are then measured in the network itself.

    Arrays of a narrower scale are widened first: each channel is repeated, see `models._widening`.

    Args:
        network: to be changed in place; its mode is kept.
        path: npz of float32 arrays keyed like a fused stock YOLO11.
        images: (N, 3, H, W) in [0, 1], a large batch of the images to be trained on.
        layers: our layer index → stock layer index; None when they are the same.

    Raises:
        WeightsError: if the file cannot be read or nothing in it fits.
    """
    if not path.is_file():
        raise WeightsError(f"No arrays at {path}: `python -m training convert` makes them.")
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {k: torch.from_numpy(file[k]) for k in file.files}
    except Exception as exc:  # damaged and hostile archives fail in any way there is
        raise WeightsError(f"{path} is not a readable npz of YOLO11 arrays.") from exc
    with torch.random.fork_rng(devices=[]):  # its random weights are no part of the run's chance
        stock = build_detector(yolo11_config(network.yaml["scale"]), network.yaml["nc"])
    is_widened = _is_narrower(arrays, stock)
    if is_widened:
        arrays = widen(arrays, _folded_shapes(stock))
    own = dict(network.named_parameters())
    fits = {
        name: tensor
        for name, tensor in renamed(_unfold(stock, arrays, images), layers).items()
        if name in own and own[name].shape == tensor.shape
    }
    lent = {name: tensor for name, tensor in fits.items() if _convolution(name) in fits}
    if not lent:
        raise WeightsError(f"Nothing in {path} fits this network.")
    for name, tensor in lent.items():
        own[name].copy_(tensor)
    _settle(network, images, {})
    names = sorted(n.replace(".bn.", ".conv.") for n in lent if not n.endswith(".bn.weight"))
    return Lent(names, is_widened)


def _is_narrower(arrays: Mapping[str, Tensor], stock: DetectionNetwork) -> bool:
    """Whether folded arrays are of a scale with fewer channels than the stock network's."""
    first = arrays.get("model.0.conv.weight")
    return first is not None and len(first) < stock.model[0].conv.out_channels


def _folded_shapes(stock: DetectionNetwork) -> dict[str, torch.Size]:
    """Shapes of a stock network's arrays once each BatchNorm is folded into its convolution."""
    shapes = {n: tensor.shape for n, tensor in stock.named_parameters() if ".bn." not in n}
    for name, conv, _ in _normalised_convs(stock):
        shapes[f"{name}.conv.bias"] = conv.weight.shape[:1]
    return shapes


def _convolution(name: str) -> str:
    """The weight of the convolution that a BatchNorm's parameter goes with; others are their own.

    A BatchNorm that fits where its convolution does not belongs to another layer.
    """
    layer, _, _ = name.rpartition(".bn.")
    return f"{layer}.conv.weight" if layer else name


def _unfold(
    stock: DetectionNetwork, arrays: Mapping[str, Tensor], images: Tensor
) -> dict[str, Tensor]:
    """Put folded arrays into a stock network; gives its parameters that come of them, by name.

    Each BatchNorm behind a convolution is set so that the layer computes what the folded one did on
    `images`: with mean m and variance v of its input there, running_mean = m, running_var = v,
    weight = √(v + ε), bias = b_folded + m.
    """
    own = dict(stock.named_parameters())
    taken: list[str] = []
    folded_biases: dict[nn.Module, Tensor] = {}
    for name, conv, norm in _normalised_convs(stock):
        weight, bias = arrays.get(f"{name}.conv.weight"), arrays.get(f"{name}.conv.bias")
        if weight is None or bias is None or weight.shape != conv.weight.shape:
            continue
        conv.weight.copy_(weight)
        folded_biases[norm] = bias
        taken += [f"{name}.conv.weight", f"{name}.bn.weight", f"{name}.bn.bias"]
    for name, array in arrays.items():  # convolutions without BatchNorm: the last of a head branch
        parameter = own.get(name)
        if name in taken or parameter is None or parameter.shape != array.shape:
            continue
        if not name.endswith("dfl.conv.weight"):
            parameter.copy_(array)
            taken.append(name)
    _settle(stock, images, folded_biases)
    return {name: own[name] for name in taken}


def _settle(
    network: DetectionNetwork, images: Tensor, folded_biases: Mapping[nn.Module, Tensor]
) -> None:
    """Let every BatchNorm take mean and variance of its input on `images`, one after the other."""
    hooks = [
        norm.register_forward_pre_hook(_calibrate(folded_biases.get(norm)))
        for norm in network.modules()
        if isinstance(norm, nn.BatchNorm2d)
    ]
    was_training = network.training
    network.eval()
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
        network.train(was_training)


def _calibrate(folded_bias: Tensor | None) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
    def hook(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        x = inputs[0].float()
        mean = x.mean((0, 2, 3))
        variance = x.var((0, 2, 3), unbiased=False)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        if folded_bias is not None:
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(folded_bias.to(mean) + mean)

    return hook
