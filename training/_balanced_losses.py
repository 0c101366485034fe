"""What a balancing method changes in the plain training loop: its loss, its order, its last layer.

Equations are with the class and the paper they come from. Counts are those of the training split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import TrainingError
from training import balance
from training.balance import Vector

if TYPE_CHECKING:
    from models._spec import ModelSpec
    from training.batches import Split
    from training.plan import Plan


class FocalLoss(nn.Module):
    """Mean of -(1 - p_t)^γ log p_t, p_t the softmax probability of the true class.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, eq. (4), without α.
    """

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits (N, C) and class ids (N,)."""
        cross_entropy = F.cross_entropy(logits, target, reduction="none")
        # 1 - p_t, exact where p_t is nearly 1; a root of 0 would have an infinite slope
        missing = (-torch.expm1(-cross_entropy)).clamp_min(1e-12)
        return (missing.pow(self.gamma) * cross_entropy).mean()


class BalancedSoftmaxLoss(nn.Module):
    """Cross-entropy of z + log π: the softmax learns what it would say if classes were equal.

    Ren et al., "Balanced Meta-Softmax for Long-Tailed Visual Recognition", NeurIPS 2020, eq. (3);
    the same as the logit-adjusted loss of Menon et al., ICLR 2021, eq. (10), with τ = 1.

    Args:
        log_priors: (C,) log π.
    """

    log_priors: Tensor

    def __init__(self, log_priors: Tensor) -> None:
        super().__init__()
        self.register_buffer("log_priors", log_priors)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits (N, C) and class ids (N,)."""
        return F.cross_entropy(logits + self.log_priors, target)


class HeardLoss(nn.Module):
    """A classifier's loss, unchanged, that lets DS-CBSM++ hear each class's loss and confidence.

    The sampler listens to a detector's binary class loss `bce`. Here that is fed the log odds
    y = log p - log(1 - p) of the softmax probability p: σ(y) is p, and the binary loss of the true
    class is -log p, the cross-entropy. What `bce` returns is not used.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        self.bce: nn.Module = nn.BCEWithLogitsLoss(reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of logits (N, C) and class ids (N,)."""
        if logits.requires_grad:
            truth = F.one_hot(target, logits.shape[1])[:, None]  # (N, 1, C): one anchor an image
            self.bce(log_odds(logits)[:, None], truth.to(logits.dtype))
        return self.loss(logits, target)


def log_odds(logits: Tensor) -> Tensor:
    """y = log p - log(1 - p) of the softmax p of each class: y_k = z_k - log Σ_{j≠k} exp z_j."""
    n = logits.shape[1]
    own = torch.eye(n, dtype=torch.bool, device=logits.device)
    others = logits[:, None].expand(-1, n, -1).masked_fill(own, -torch.inf)  # (N, C, C)
    return logits - others.logsumexp(2)


@dataclass(frozen=True)
class Balancing:
    """The loss to train with, the sampler if there is one, and the shift of the class scores.

    `shift` (C,) is added to the last layer's bias wherever the network is judged or kept; it is
    None but for `logit_adjustment`.
    """

    criterion: Callable[[Tensor, Tensor], Tensor]
    sampler: Any = None
    shift: Tensor | None = None


def balancing(
    spec: ModelSpec,
    plan: Plan,
    train: Split,
    *,
    classes: int,
    seed: int,
    network: nn.Module,
    epoch_images: int,
) -> Balancing:
    """What `plan.balance` means for this run.

    Post-hoc logit adjustment trains as usual and subtracts τ log π from the logits afterwards:
    Menon et al., "Long-Tail Learning via Logit Adjustment", ICLR 2021, eq. (9).

    Args:
        spec: a segmenter or a classifier.
        plan: with `balance` and `balance_strength`.
        train: the training split.
        classes: channels of the logits, background included.
        seed: of the sampler.
        network: already on its device.
        epoch_images: images of an epoch, for a method that adds some to the split.
    """
    stock: Any = spec.criterion(network) if spec.criterion else nn.CrossEntropyLoss()
    strength = plan.balance_strength
    place = next(network.parameters()).device

    def on_device(values: Vector) -> Tensor:
        return torch.from_numpy(values).float().to(place)

    match plan.balance:
        case "class_weights" | "effective_number":
            if not hasattr(stock, "weight"):
                raise TrainingError(
                    f"The loss of {spec.name} takes no class weights: balance it by repeat_factor."
                )
            stock.weight = on_device(_weights(plan, _counts(train, classes)))
            return Balancing(stock)
        case "focal":
            return Balancing(FocalLoss(float(strength or 0.0)))
        case "balanced_softmax":
            priors = on_device(balance.log_priors(_counts(train, classes)))
            return Balancing(BalancedSoftmaxLoss(priors).to(place))
        case "logit_adjustment":
            last_bias(network, classes)  # refuse now rather than after the first epoch
            shift = -float(strength or 0.0) * balance.log_priors(_counts(train, classes))
            return Balancing(stock, shift=on_device(shift))
        case "repeat_factor" | "dscbsm" | "synthesis":
            sampler = balance.make_sampler(
                plan.balance,
                strength,
                _classes_per_image(train),
                classes - (train.task == "segment"),
                seed,
                epoch_images=epoch_images,
            )
            criterion = HeardLoss(stock) if plan.balance == "dscbsm" else stock
            sampler.attach(criterion)
            return Balancing(criterion, sampler)
        case _:
            return Balancing(stock)


def _weights(plan: Plan, counts: Vector) -> Vector:
    strength = float(plan.balance_strength or 0.0)
    if plan.balance == "class_weights":
        return balance.inverse_frequency_weights(counts, power=strength)
    return balance.effective_number_weights(counts, beta=strength)


def _counts(train: Split, classes: int) -> Vector:
    """(C,) images of each class, or pixels of each class where every pixel has one."""
    counts = torch.zeros(classes, dtype=torch.int64)
    for target in train.targets:
        counts += torch.bincount(target.reshape(-1).long().cpu(), minlength=classes)
    return counts.numpy().astype(np.float64)


def _classes_per_image(train: Split) -> list[list[int]]:
    """Ids of what is on each image; background is on all of them and no class here."""
    if train.task == "classify":
        return [[int(target)] for target in train.targets]
    return [[int(k) - 1 for k in np.unique(target.cpu()) if k > 0] for target in train.targets]


def last_bias(network: nn.Module, classes: int) -> nn.Parameter:
    """The bias of the network's last linear layer.

    Raises:
        TrainingError: if there is none with one output a class.
    """
    linear = [m for m in network.modules() if isinstance(m, nn.Linear)]
    if not linear or linear[-1].out_features != classes or linear[-1].bias is None:
        raise TrainingError(
            "balance logit_adjustment needs a classifier that ends in a linear layer with a bias: "
            "use balanced_softmax instead."
        )
    return linear[-1].bias


@contextmanager
def shifted(network: nn.Module, shift: Tensor | None) -> Iterator[nn.Module]:
    """The network as it is kept: its class scores shifted while the block lasts, then as before."""
    if shift is None:
        yield network
        return
    bias = last_bias(network, len(shift))
    before = bias.detach().clone()
    with torch.no_grad():
        bias.add_(shift)
    try:
        yield network
    finally:
        with torch.no_grad():
            bias.copy_(before)
