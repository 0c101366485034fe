"""Where a network runs: torch, on a CPU or a CUDA device, in the precision that suits it.

`models._openvino` is the other place. Both answer the same call, and either can take over from the
other between two batches.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from models._features import WithFeatures

_BF16_FROM_PX = 64


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("amx_tile"))


def is_safe_in_bf16(batch: Tensor) -> bool:
    """Whether a CPU may compute pictures (N, 3, H, W) in bfloat16: those of 64 px and more.

    oneDNN's strided bf16 convolution on AMX (in torch 2.11 and OpenVINO 2026.4) answers with
    whatever lay in memory where a map is two columns wide and taller; an input 32 px wide comes to
    that.
    """
    return min(batch.shape[-2:]) >= _BF16_FROM_PX


class Runtime(Protocol):
    """Where a trained network runs; safe to call from any thread."""

    name: str  # in words: library, precision, device
    device: torch.device

    @property
    def network(self) -> nn.Module:
        """The network in torch, as it runs: fused, frozen, perhaps in half precision."""
        ...

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Run (N, 3, H, W) float32 through the network.

        Returns:
            Its first output, and one vector per image (N, D); both float32 on the CPU.
        """
        ...


def prepare(network: nn.Module, fold: Callable[[Any], None] | None = None) -> nn.Module:
    """Make a trained network ready to answer, in place: no gradients, normalisations folded.

    Args:
        network: on the CPU.
        fold: `ModelSpec.fold`, for what ultralytics' own fusing does not know.
    """
    network.eval().requires_grad_(False)
    if fold is not None:
        fold(network)
    fuse = getattr(network, "fuse", None)
    if callable(fuse):
        fuse(verbose=False)
    return network


def halve(network: nn.Module) -> nn.Module:
    """The same network in fp16, its batch norms in fp32: their variances may be beyond 65504."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [{k: v.clone() for k, v in norm.state_dict().items()} for norm in norms]
    network.half()
    for norm, state in zip(norms, kept, strict=True):
        norm.float().load_state_dict(state)
    return network


class TorchRuntime:
    """A frozen network on one device; one forward pass at a time.

    Fused where it can be, channels_last, fp16 on CUDA, bf16 autocast on a CPU that has it, fp32
    elsewhere and for pictures under 64 px. A detector's boxes are decoded in fp32 everywhere.

    Args:
        network: trained network; it is changed (evaluation mode, fused, moved) and owned from here.
        device: "cpu" or "cuda:N".
        feature_layer: whose pooled map is an image's vector; see `WithFeatures`.
        fold: `ModelSpec.fold`.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        device: str = "cpu",
        feature_layer: str = "",
        fold: Callable[[Any], None] | None = None,
    ) -> None:
        prepare(network, fold)
        self.device = torch.device(device)
        self._half = self.device.type == "cuda"
        self._bf16 = self.device.type == "cpu" and cpu_has_bf16()
        precision = "fp16" if self._half else "bf16" if self._bf16 else "fp32"
        self.name = f"torch {precision} on {device}"
        if self._half:
            halve(network)
        exact = getattr(network, "decode_in_fp32", None)
        if callable(exact) and (self._half or self._bf16):
            exact()
        self._network: nn.Module = network.to(  # type: ignore[call-overload]
            self.device, memory_format=torch.channels_last
        )
        self._both = WithFeatures(self._network, feature_layer)
        self._lock = threading.Lock()  # ultralytics' head caches its anchors by shape

    @property
    def network(self) -> nn.Module:
        """The network itself."""
        return self._network

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Run (N, 3, H, W) float32 through the network.

        Returns:
            Its first output, and one vector per image (N, D); both float32 on the CPU.
        """
        if self._half:
            batch = batch.half()  # before it travels: half the bytes
        batch = batch.to(self.device, memory_format=torch.channels_last)
        with self._lock, torch.inference_mode():
            bf16 = self._bf16 and is_safe_in_bf16(batch)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                output, features = self._both(batch)
        return output.float().cpu(), features.float().cpu()
