"""Depthwise convolutions whose weights learn quickly under bfloat16 on a CPU.

oneDNN has kernels for the output and the input gradient of a depthwise convolution in bfloat16, but
none for its weight gradient: it takes the one of grouped convolutions, which for SME-DeepLabV3+ is
more than half of a training step. In fp32 and channels_last the right kernel exists and takes a
fifth of the time, so that gradient alone is computed there, and is the more exact for it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models._runtime import cpu_has_bf16

_NOT_TRANSPOSED = (False, [0, 0])  # aten's "transposed" and "output_padding"


def quicken(network: nn.Module) -> int:
    """Let the depthwise convolutions of a network in training take their fast weight gradient.

    Parameters, buffers and their names stay as they are, and so does every answer; only a backward
    pass under autocast on a CPU takes another way. Does nothing on a CPU without bfloat16.

    Returns:
        How many convolutions were changed.
    """
    if not cpu_has_bf16():
        return 0
    found = [m for m in network.modules() if _is_depthwise(m)]
    for module in found:
        # A class, not a hook or a bound method: those do not survive the copy that is averaged.
        module.__class__ = _Depthwise
    return len(found)


def _is_depthwise(module: nn.Module) -> bool:
    return (
        type(module) is nn.Conv2d
        and 1 < module.groups == module.in_channels == module.out_channels
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
    )


class _Depthwise(nn.Conv2d):
    """A depthwise `Conv2d` that differs from it in how its weight gradient is computed."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        learns = torch.is_grad_enabled() and weight.requires_grad
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not learns:
            plain: Tensor = super()._conv_forward(input, weight, bias)
            return plain
        geometry = (list(self.stride), list(self.padding), list(self.dilation))
        out: Tensor = _Convolve.apply(input, weight, geometry, self.groups)  # type: ignore[no-untyped-call]
        return out if bias is None else out + bias.to(out.dtype).view(1, -1, 1, 1)


class _Convolve(torch.autograd.Function):
    """Depthwise convolution in the dtype of autocast, without bias; weight gradient in fp32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, geometry: tuple[list[int], ...], groups: int
    ) -> Tensor:
        low = torch.get_autocast_dtype("cpu")
        x, small = x.to(low), weight.to(low)
        ctx.save_for_backward(x, weight)
        ctx.geometry, ctx.groups = geometry, groups
        out: Tensor = torch.ops.aten.convolution(
            x, small, None, *geometry, *_NOT_TRANSPOSED, groups
        )
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        x, weight = ctx.saved_tensors
        grad_x = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_x = _gradients(ctx, grad, x, weight.to(x.dtype), of_weight=False)
        if ctx.needs_input_grad[1]:
            grad_weight = _gradients(ctx, _exact(grad), _exact(x), weight, of_weight=True)
        return grad_x, grad_weight, None, None


def _exact(t: Tensor) -> Tensor:
    return t.to(torch.float32).contiguous(memory_format=torch.channels_last)


def _gradients(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, *, of_weight: bool) -> Tensor:
    wanted = [not of_weight, of_weight, False]
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, *ctx.geometry, *_NOT_TRANSPOSED, ctx.groups, wanted
    )
    gradient: Tensor = found[1 if of_weight else 0]
    return gradient
