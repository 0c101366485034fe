"""The only file that knows how ultralytics builds a network: build, swap a layer, load COCO arrays.

A YOLO variant is described by the YAML dictionary ultralytics understands, with harmless
placeholders where a paper puts its own block; `replace_layer` then swaps them by index. The parser
itself is neither patched nor copied. Importing this file switches off ultralytics' telemetry; what
else it does on its own account is switched off by the package, before any file imports it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.nn.modules.conv import Conv
from ultralytics.nn.modules.head import Detect
from ultralytics.nn.tasks import DetectionModel, torch_safe_load
from ultralytics.utils import SETTINGS, YAML
from ultralytics.utils.checks import check_yaml
from ultralytics.utils.loss import v8DetectionLoss

from core.errors import ConfigError, WeightsError

if SETTINGS.get("sync", True):  # "sync" is ultralytics' switch for analytics and crash reports
    SETTINGS.update({"sync": False})

# Conv.default_act is process-wide state of the parser: two threads must not build at once.
_BUILD_LOCK = threading.Lock()


class InFp32(nn.Module):
    """A module that computes in fp32 inside a network that does not, halved or under autocast."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.float()

    def forward(self, x: Tensor) -> Tensor:
        """What the module makes of `x`, in fp32."""
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.module(x.float())
        return out


class DetectionNetwork(DetectionModel):  # type: ignore[misc]
    """An ultralytics `DetectionModel` whose loss can be chosen by the paper.

    Attributes:
        criterion_factory: called with the network when the first loss is asked for, by the trainer
            and again by the validator's averaged copy; None keeps ultralytics' `v8DetectionLoss`.
        autocast_dtype: reduced precision of the forward pass in training on a CPU that has it.
        soft_loss: called with predictions, batch, strides and loss in training, for the loss that
            is minimised; None minimises the criterion's own.
    """

    criterion_factory: Callable[[DetectionNetwork], Any] | None = None
    autocast_dtype: torch.dtype | None = None
    soft_loss: Callable[[Any, Mapping[str, Any], Tensor, Tensor], Tensor] | None = None

    def decode_in_fp32(self) -> None:
        """From here on boxes are decoded in fp32, whatever the network computes in; call it last.

        In fp16 a coordinate beyond 512 px has steps of 0.5 px, in bf16 of 4 px. Anchors of pictures
        of up to 1024 px are exact in both; from the distances on, everything is promoted.
        """
        head = self.model[-1]
        if not isinstance(head.dfl, InFp32):
            head.dfl = InFp32(head.dfl)

    def init_criterion(self) -> Any:
        """The loss of this network."""
        if self.criterion_factory is None:
            return v8DetectionLoss(self)
        return self.criterion_factory(self)

    def loss(self, batch: dict[str, Any], preds: Any = None) -> Any:
        """Loss of a batch; the forward pass runs in `autocast_dtype`, the loss itself in fp32."""
        if preds is None and self.autocast_dtype is not None:
            with torch.autocast("cpu", dtype=self.autocast_dtype):
                preds = self.forward(batch["img"])
            preds = _to_float(preds)
        if not self.training or self.soft_loss is None:
            return super().loss(batch, preds)
        preds = self.forward(batch["img"]) if preds is None else preds
        loss, told = super().loss(batch, preds)
        return self.soft_loss(preds, batch, self.stride, loss), told


def _to_float(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {k: _to_float(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to_float(v) for v in value)
    return value


def yolo11_config(scale: str) -> dict[str, Any]:
    """The stock YOLO11 description at scale n, s, m, l or x; a fresh copy to edit.

    Raises:
        ConfigError: if there is no such scale.
    """
    config: dict[str, Any] = YAML.load(check_yaml("yolo11.yaml"))
    if scale not in config["scales"]:
        raise ConfigError(f"Unknown scale {scale!r}. YOLO11 has: {', '.join(config['scales'])}.")
    config["scale"] = scale
    return config


def width(config: Mapping[str, Any], channels: int) -> int:
    """Channels after width scaling: C(c) = 8·ceil(min(c, max)·w / 8)."""
    _, factor, most = config["scales"][config["scale"]]
    return int(-(-min(channels, most) * factor // 8) * 8)


def build_detector(config: Mapping[str, Any], n_classes: int) -> DetectionNetwork:
    """Build a network with random weights from a YAML-like description that names its scale."""
    with _BUILD_LOCK:
        return DetectionNetwork({**config, "nc": n_classes}, ch=3, verbose=False)


def replace_layer(
    network: DetectionNetwork,
    index: int,
    module: nn.Module,
    *,
    inputs: int | Sequence[int] | None = None,
) -> None:
    """Swap layer `index` for `module`, which takes over its place in the graph.

    Args:
        network: the network to change.
        index: position in `network.model`.
        module: the replacement.
        inputs: layer or layers it reads, in the parser's convention (-1 = the one before);
            None keeps those of the layer it replaces.
    """
    old = network.model[index]
    source = old.f if inputs is None else (inputs if isinstance(inputs, int) else list(inputs))
    # The forward pass of ultralytics finds its way by these attributes.
    module.i, module.f = index, source  # type: ignore[assignment]
    module.type = f"{type(module).__module__}.{type(module).__name__}"  # type: ignore[assignment]
    module.np = sum(p.numel() for p in module.parameters())  # type: ignore[assignment]
    network.model[index] = module
    sources = [source] if isinstance(source, int) else source
    network.save = sorted({*network.save, *(s % index for s in sources if s != -1)})


def finish(network: DetectionNetwork) -> DetectionNetwork:
    """Settle what ultralytics settles last: strides, head biases, BatchNorm constants."""
    from ultralytics.utils.torch_utils import initialize_weights

    head = network.model[-1]
    if not isinstance(head, Detect):
        raise ConfigError("The last layer of a detector must be a Detect head.")
    side = 256
    network.eval()
    head.training = True  # the raw outputs carry the feature maps whose sizes give the strides
    with torch.no_grad():
        features = network.forward(torch.zeros(1, 3, side, side))["feats"]
    head.stride = torch.tensor([side / f.shape[-2] for f in features])
    network.stride = head.stride
    network.train()
    head.bias_init()
    initialize_weights(network)
    return network


# ------------------------------------------------------------------------------ COCO initialisation


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


def _renamed(
    arrays: Mapping[str, NDArray[np.float32]], layers: Mapping[int, int] | None
) -> dict[str, NDArray[np.float32]]:
    """Give stock-named arrays the names they have in a network whose layers sit elsewhere."""
    if layers is None:
        return dict(arrays)
    places: dict[int, list[int]] = {}
    for ours, stock in layers.items():
        places.setdefault(stock, []).append(ours)
    renamed = {}
    for name, array in arrays.items():
        prefix, index, rest = name.split(".", 2)
        for ours in places.get(int(index), ()):
            renamed[f"{prefix}.{ours}.{rest}"] = array
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
) -> list[str]:
    """Start a network from YOLO11 COCO arrays whose BatchNorm was folded into the convolutions.

    The convolutions take the weights that fit by name and shape. Each BatchNorm behind one is then
    set so that the layer computes what the folded one did on `images`: with mean m and variance v
    of its input there, running_mean = m, running_var = v, weight = √(v + ε), bias = b_folded + m.
    Every other BatchNorm takes m and v alone. Were it left at 0 and 1, maps would fade from layer
    to layer behind untrained convolutions, and what is lent behind them would be set to v ≈ 0: to
    a constant, in training as well, where those maps do not fade.

    Args:
        network: to be changed in place; its mode is kept.
        path: npz of float32 arrays keyed like a fused stock YOLO11.
        images: (N, 3, H, W) in [0, 1], a large batch of the images to be trained on.
        layers: our layer index → stock layer index; None when they are the same.

    Returns:
        Names of the arrays that were taken over.

    Raises:
        WeightsError: if the file cannot be read or nothing in it fits.
    """
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = _renamed({k: file[k] for k in file.files}, layers)
    except Exception as exc:  # damaged and hostile archives fail in any way there is
        raise WeightsError(f"{path} is not a readable npz of YOLO11 arrays.") from exc
    own = dict(network.named_parameters())
    taken: list[str] = []
    folded_biases: dict[nn.Module, Tensor] = {}
    for name, conv, norm in _normalised_convs(network):
        weight, bias = arrays.get(f"{name}.conv.weight"), arrays.get(f"{name}.conv.bias")
        if weight is None or bias is None or weight.shape != tuple(conv.weight.shape):
            continue
        conv.weight.copy_(torch.from_numpy(weight))
        folded_biases[norm] = torch.from_numpy(bias)
        taken += [f"{name}.conv.weight", f"{name}.conv.bias"]
    for name, array in arrays.items():  # convolutions without BatchNorm: the last of a head branch
        parameter = own.get(name)
        if name not in taken and parameter is not None and parameter.shape == array.shape:
            if name.endswith("dfl.conv.weight"):
                continue
            parameter.copy_(torch.from_numpy(array))
            taken.append(name)
    if not taken:
        raise WeightsError(f"Nothing in {path} fits this network.")
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
    return sorted(taken)


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
