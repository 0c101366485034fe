"""The imbalance toolbox: what a run does about rare classes, by one name for every trainer.

`METHODS` is the only list; `resolve` says what a method is for a task and how strong; the equations
below it are pure functions of class counts. The losses are in `_balanced_losses`, synthetic defects
in `synthesis`, DS-CBSM++ in `models/_dscbsm.py`. No torch: plans are checked and printed without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from core.errors import DatasetError, TrainingError
from core.types import Task

if TYPE_CHECKING:
    from models._spec import ModelSpec

Vector: TypeAlias = NDArray[np.float64]

Method = Literal[
    "paper",  # what the model's own paper does: GRACE samples by DS-CBSM++, the others do nothing
    "none",  # nothing, in GRACE too
    "class_weights",  # static loss weights, n^-strength
    "effective_number",  # static loss weights of class-balanced loss
    "repeat_factor",  # images of rare classes come more often
    "dscbsm",  # images by inverse frequency, confidence and gradient
    "focal",
    "balanced_softmax",
    "logit_adjustment",
    "synthesis",  # further training images of rare classes, see `training.synthesis`
]
METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT: Method = "paper"
# What scheduled retraining does to classifiers; docs/benchmarks/balance.md is where it was chosen.
RETRAINING: Method = "class_weights"
# What runs did whose record does not say: the options are younger than they are.
UNRECORDED: Mapping[str, Any] = {
    "loss": "paper",
    "balance": DEFAULT,
    "balance_strength": None,
    "view_px": None,
    "in_place": 0.0,
}


@dataclass(frozen=True, slots=True)
class Strength:
    """The one number of a method: what it is called, its default by task, and its bounds."""

    meaning: str
    default: Mapping[Task, float | None]
    low: float
    high: float


_WEIGHT_POWER = Strength(
    "the power p of weights n^-p", {"detect": 0.5, "segment": 0.5, "classify": 1.0}, 0.0, 1.0
)
# A method is offered for the tasks that its strength, or the set of names below, speaks of.
_STRENGTHS: Mapping[str, Strength] = {
    "class_weights": _WEIGHT_POWER,
    "effective_number": Strength("beta", {"classify": 0.999}, 0.0, 1.0 - 1e-9),
    # None: 1 / C, so that classes found on fewer images than an equal share are repeated
    "repeat_factor": Strength(
        "the threshold t on a class's share of the images",
        {"detect": None, "segment": None, "classify": None},
        1e-6,
        1.0,
    ),
    "focal": Strength("gamma", {"classify": 2.0}, 0.0, 10.0),
    "logit_adjustment": Strength("tau", {"classify": 1.0}, 0.0, 10.0),
    "synthesis": Strength(
        "the share of the most frequent class's images that every class is brought to",
        {"detect": 0.5, "segment": 0.5, "classify": 0.5},
        0.01,
        1.0,
    ),
}
_WITHOUT_STRENGTH: Mapping[str, frozenset[Task]] = {
    "paper": frozenset(("detect", "segment", "classify")),
    "none": frozenset(("detect", "segment", "classify")),
    "dscbsm": frozenset(("detect", "classify")),
    "balanced_softmax": frozenset(("classify",)),
}


def retraining_method(task: Task) -> Method:
    """What scheduled retraining does about rare classes unless it is told.

    Only for classifiers were the methods compared on a set that is really uneven; the others do as
    their papers say.
    """
    return RETRAINING if task == "classify" else DEFAULT


def methods_for(task: Task) -> tuple[Method, ...]:
    """The methods that have a meaning for a task, in the order of `METHODS`."""
    return tuple(m for m in METHODS if task in _tasks(m))


def _tasks(method: str) -> frozenset[Task]:
    if method in _STRENGTHS:
        return frozenset(_STRENGTHS[method].default)
    return _WITHOUT_STRENGTH[method]


def resolve(task: Task, method: str, strength: float | None) -> tuple[Method, float | None]:
    """Method and strength of a run, checked, the task's default strength filled in.

    Raises:
        TrainingError: if there is no such method, it means nothing for the task, or the strength
            is out of bounds or belongs to a method that has none.
    """
    if method not in METHODS:
        raise TrainingError(f"Unknown balance {method!r}. Available: {', '.join(METHODS)}.")
    if task not in _tasks(method):
        raise TrainingError(
            f"balance {method} means nothing for models that {task}; "
            f"they have: {', '.join(methods_for(task))}."
        )
    known = _STRENGTHS.get(method)
    if known is None:
        if strength is not None:
            raise TrainingError(
                f"balance {method} has no strength, but balance_strength is {strength}: leave it."
            )
        return method, None
    value = known.default[task] if strength is None else strength
    if value is not None and not (_is_number(value) and known.low <= value <= known.high):
        raise TrainingError(
            f"balance_strength is {value!r}: for {method} it is {known.meaning}, "
            f"in [{known.low:g}, {known.high:g}]."
        )
    return method, value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def detector_spec(
    spec: ModelSpec,
    method: str,
    strength: float | None,
    *,
    epoch_images: int,
    loss: str = "paper",
) -> ModelSpec:
    """The spec whose sampler is the method's; loss weights are ultralytics' `cls_pw` instead.

    Args:
        spec: of a detector.
        method: resolved.
        strength: resolved.
        epoch_images: images of an epoch, for a method that adds some.
        loss: "paper" keeps the spec's criterion, "stock" leaves it to the trainer.
    """
    if loss == "stock":
        spec = replace(spec, criterion=None)
    if method == "paper":
        return spec
    return replace(spec, sampler=_sampler(method, strength, epoch_images))


def _sampler(method: str, strength: float | None, epoch_images: int) -> Any:
    """What a trainer calls with labels per image, number of classes and seed; None: uniform."""
    if method == "repeat_factor":
        return partial(RepeatFactorSampler, threshold=strength)
    if method == "synthesis":  # all images alike, but no more of them an epoch than without
        return partial(RepeatFactorSampler, threshold=0.0, epoch_images=epoch_images)
    if method == "dscbsm":
        from models._dscbsm import ConfidenceGradientSampler

        return ConfidenceGradientSampler
    return None


def make_sampler(
    method: str,
    strength: float | None,
    labels_per_image: Sequence[Sequence[int]],
    n_classes: int,
    seed: int,
    *,
    epoch_images: int,
) -> Any:
    """The sampler of a method, following the protocol of `ConfidenceGradientSampler`, or None."""
    factory = _sampler(method, strength, epoch_images)
    return factory(labels_per_image, n_classes, seed) if factory else None


# ------------------------------------------------------------------------- functions of the counts


def inverse_frequency_weights(counts: Vector, *, power: float) -> Vector:
    """w_c = n_c^-p, then mean 1; the formula of ultralytics' `cls_pw`.

    Args:
        counts: (C,) of the training split; a class that is absent gets the others' mean.
        power: p; 0 weighs all alike, 1 is the inverse frequency.
    """
    return _mean_one(counts, np.maximum(counts, 1.0) ** -power)


def effective_number_weights(counts: Vector, *, beta: float) -> Vector:
    """w_c = (1 - β) / (1 - β^n_c), then mean 1.

    Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, eq. (2):
    n images of a class are worth (1 - β^n) / (1 - β) different ones.

    Args:
        counts: (C,) of the training split; a class that is absent gets the others' mean.
        beta: β in [0, 1); 0 weighs all alike, towards 1 it is the inverse frequency.
    """
    return _mean_one(counts, (1.0 - beta) / (1.0 - beta ** np.maximum(counts, 1.0)))


def _mean_one(counts: Vector, weights: Vector) -> Vector:
    present = counts > 0
    if not present.any():
        raise DatasetError("Balancing needs labelled images, but the training split has none.")
    filled = np.where(present, weights, weights[present].mean())
    mean_one: Vector = filled / filled.mean()
    return mean_one


def log_priors(counts: Vector) -> Vector:
    """log π_c of the training split; an absent class counts as one image."""
    n = np.maximum(counts, 1.0)
    priors: Vector = np.log(n / n.sum())
    return priors


def class_repeat_factors(frequencies: Vector, *, threshold: float) -> Vector:
    """r(c) = max(1, √(t / f(c))), f the share of the images that hold class c; 1 if none does.

    Gupta et al., "LVIS", CVPR 2019, section 6.
    """
    present = frequencies > 0
    f = np.where(present, frequencies, 1.0)
    factors: Vector = np.maximum(1.0, np.sqrt(threshold / f))
    return factors


def image_repeat_factors(
    labels_per_image: Sequence[Sequence[int]], n_classes: int, *, threshold: float
) -> Vector:
    """(N,) r_i = max r(c) over the classes of image i; an image without any has 1."""
    held = [sorted(set(labels)) for labels in labels_per_image]
    counts = np.zeros(n_classes)
    for classes in held:
        counts[classes] += 1
    factors = class_repeat_factors(counts / max(len(held), 1), threshold=threshold)
    return np.array([factors[classes].max() if classes else 1.0 for classes in held])


class RepeatFactorSampler:
    """Repeat-factor sampling as a torch sampler: rare classes come more often, epochs stay as long.

    Image i comes ⌊r_i⌋ times and once more with probability r_i - ⌊r_i⌋; of that list, shuffled, an
    epoch takes the first N (or `epoch_images`). So a run sees as many images as without it, and
    comparisons keep their budget. Indices follow from seed and epoch alone. The protocol is that of
    `ConfidenceGradientSampler`.

    Args:
        labels_per_image: class ids on each training image.
        n_classes: C.
        seed: of the draws.
        threshold: t, see `class_repeat_factors`; None is 1 / C, and 0 repeats nothing.
        epoch_images: indices of an epoch, at most N; None is N.

    Raises:
        DatasetError: if no image has a class, or a class id is not below `n_classes`.
    """

    def __init__(
        self,
        labels_per_image: Sequence[Sequence[int]],
        n_classes: int,
        seed: int,
        *,
        threshold: float | None = None,
        epoch_images: int | None = None,
    ) -> None:
        ids = [label for labels in labels_per_image for label in labels]
        if not ids:
            raise DatasetError(
                "Repeat-factor sampling needs labels, but no training image has one."
            )
        if min(ids) < 0 or max(ids) >= n_classes:
            raise DatasetError(
                f"Class ids span [{min(ids)}, {max(ids)}], but must lie in [0, {n_classes})."
            )
        t = 1 / n_classes if threshold is None else threshold
        self.factors = image_repeat_factors(labels_per_image, n_classes, threshold=t)
        self._seed, self._epoch = seed, 0
        self._length = len(self.factors) if epoch_images is None else epoch_images

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self._seed, self._epoch))
        whole = np.floor(self.factors)
        times = whole + (rng.random(len(whole)) < self.factors - whole)
        drawn = rng.permutation(np.repeat(np.arange(len(whole)), times.astype(np.int64)))
        yield from drawn[: len(self)].tolist()

    def attach(self, criterion: Any) -> None:
        """Nothing: the factors do not listen to the loss."""

    def on_batch_end(self) -> None:
        """Nothing: the factors do not change."""

    def on_epoch_end(self, epoch: int) -> None:
        """Move to the draws of the epoch after `epoch`."""
        self._epoch = epoch + 1

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"epoch": self._epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._epoch = state["epoch"]
