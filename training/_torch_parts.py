"""Parts of the training loop that know torch and nothing of runs: precision, layout, optimiser."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from core.files import write_atomically
from models._runtime import cpu_has_bf16
from training.plan import Plan


def enlarge(logits: Tensor, target: Tensor) -> Tensor:
    """Logits (1, C, h, w) of the class probabilities at the size of the truth, (1, C, H, W)."""
    size = (int(target.shape[0]), int(target.shape[1]))
    probabilities = F.interpolate(logits.softmax(1), size, mode="bilinear", align_corners=False)
    return probabilities.clamp_min(1e-12).log()


def make_optimizer(network: nn.Module, plan: Plan) -> torch.optim.Optimizer:
    """The plan's optimiser; biases and normalisation weights do not decay."""
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in network.parameters() if p.ndim > 1],
            "weight_decay": plan.weight_decay,
        },
        {"params": [p for p in network.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if plan.optimizer == "SGD":
        return torch.optim.SGD(groups, lr=plan.lr0, momentum=plan.momentum, nesterov=plan.nesterov)
    kind = torch.optim.AdamW if plan.optimizer == "AdamW" else torch.optim.Adam
    return kind(groups, lr=plan.lr0, betas=(0.9, 0.999))


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of weights and buffers; its first update copies them."""
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(network, multi_avg_fn=average, use_buffers=True)


def save_weights(path: Path, network: nn.Module) -> None:
    """Store the state dict in full precision, whole or not at all."""
    from safetensors.torch import save

    state = {k: v.detach().cpu().contiguous().clone() for k, v in network.state_dict().items()}
    write_atomically(path, save(state))


def has_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return cpu_has_bf16()


def layout(device: torch.device) -> torch.memory_format:
    """The memory format in which the device convolves fastest."""
    fast = device.type == "cuda" or cpu_has_bf16()
    return torch.channels_last if fast else torch.contiguous_format


def autocast(device: torch.device, *, enabled: bool) -> AbstractContextManager[Any]:
    """bfloat16 where it is safe; weights, gradients and losses stay fp32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)
