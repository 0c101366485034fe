"""The only file that knows how ultralytics builds a network: build it, swap a layer.

A YOLO variant is described by the YAML dictionary ultralytics understands, with harmless
placeholders where a paper puts its own block; `replace_layer` then swaps them by index. The parser
itself is neither patched nor copied. Importing this file switches off ultralytics' telemetry; what
else it does on its own account is switched off by the package, before any file imports it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.head import Detect
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import SETTINGS, YAML
from ultralytics.utils.checks import check_yaml
from ultralytics.utils.loss import v8DetectionLoss

from core.errors import ConfigError

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
