"""What one run of the segmenter's and classifier's trainer does, resolved before it starts.

A plan is the spec's recipe with the run's own choices over it. It is stored whole in the run's
record, so that a resumed run follows the plan it began with. No torch: a plan can be checked and
printed by anyone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from core.errors import TrainingError
from core.types import Task
from models._spec import ModelSpec
from training import balance

PAPER = "paper"  # the loss that the spec has
OPTIMIZERS = ("SGD", "Adam", "AdamW")

_ABOVE_0, _BELOW_1 = math.nextafter(0.0, 1.0), math.nextafter(1.0, 0.0)
_FINITE = math.nextafter(math.inf, 0.0)
# What a number of a plan may be at least and at most, and how that is told.
_BOUNDS = {
    "lr0": (_ABOVE_0, _FINITE, "be above 0"),
    "lrf": (0.0, _FINITE, "be 0 or above"),
    "momentum": (0.0, _BELOW_1, "lie in [0, 1)"),
    "weight_decay": (0.0, _FINITE, "be 0 or above"),
    "warmup_epochs": (0.0, _FINITE, "be 0 or above"),
    "ema": (0.0, _BELOW_1, "lie in [0, 1)"),
    "clip_norm": (_ABOVE_0, math.inf, "be above 0"),
    "in_place": (0.0, 1.0, "be a share of the epochs, 0 to 1"),
}
_VIEW_BOUNDS = {
    "flip_horizontal": (0.0, 1.0, "be a probability, 0 to 1"),
    "flip_vertical": (0.0, 1.0, "be a probability, 0 to 1"),
    "rotation_deg": (0.0, _FINITE, "be 0 or above"),
    "crop": (_ABOVE_0, 1.0, "be a fraction of the side, above 0 to 1"),
    "aspect": (0.0, _FINITE, "be 0 or above"),
    "shift": (0.0, _FINITE, "be 0 or above"),
    "brightness": (0.0, 1.0, "lie in [0, 1]"),
    "contrast": (0.0, 1.0, "lie in [0, 1]"),
}


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How far random views may differ from their image; the defaults change nothing.

    `crop` is the side of the random crop as a fraction of the resized image, `zoom` the range of
    a magnification, `aspect` the half-range of the log of width over height, `shift` the largest
    displacement as a fraction of the view's side. Brightness and contrast are half-ranges around 1.
    """

    flip_horizontal: float = 0.0  # probability
    flip_vertical: float = 0.0  # probability
    quarter_turns: bool = False  # 0, 90, 180 or 270 degrees, equally likely
    rotation_deg: float = 0.0
    crop: float = 1.0
    zoom: tuple[float, float] = (1.0, 1.0)
    aspect: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0


# MobileSteelNet's published script: Resize 256, RandomCrop 224, flip, +-15 degrees, jitter 0.2,
# translate 0.1, scale 0.9-1.1. Its saturation and hue jitter do nothing on grey images: left out.
# SME-DeepLabV3+: "random flip, rotation"; quarter turns suit tiles cut without a fixed direction.
# The scale jitter is narrower than the 0.25-2 of the usual DeepLab script: tiles are 200 px small.
AUGMENTATIONS: dict[Task, Augmentation] = {
    "classify": Augmentation(
        flip_horizontal=0.5,
        rotation_deg=15.0,
        crop=224 / 256,
        zoom=(0.9, 1.1),
        shift=0.1,
        brightness=0.2,
        contrast=0.2,
    ),
    "segment": Augmentation(
        flip_horizontal=0.5,
        flip_vertical=0.5,
        quarter_turns=True,
        rotation_deg=10.0,
        zoom=(0.75, 1.5),
        aspect=0.1,
        shift=0.1,
        brightness=0.2,
        contrast=0.2,
    ),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Hyper-parameters of one run; `Recipe` explains those that bear its names."""

    epochs: int
    batch: int
    optimizer: str
    lr0: float
    lrf: float
    momentum: float
    weight_decay: float
    warmup_epochs: float
    cosine: bool
    patience: int | None
    nesterov: bool
    ema: float  # decay per step of the averaged weights that are kept; 0: keep the weights as is
    clip_norm: float  # largest gradient norm of a step
    loss: str  # "paper", or a name of `ModelSpec.losses`
    in_place: float  # share of the epochs, the last ones, whose views are not moved or zoomed
    view_px: int | None  # side of a training view; None: the size of the network's input
    balance: str  # what is done about rare classes: `training.balance.METHODS`
    balance_strength: float | None  # the method's one number; None where it has none
    augment: Augmentation

    def learning_rate(self, done: float) -> float:
        """The rate after `done` epochs, fractions included.

        A linear warm-up from a tenth of lr0, then a cosine or a straight line down to lr0 * lrf.
        A warm-up never takes more than a quarter of the run.
        """
        warmup = min(self.warmup_epochs, self.epochs / 4)
        if done < warmup:
            return self.lr0 * (0.1 + 0.9 * done / warmup)
        progress = min(1.0, (done - warmup) / (self.epochs - warmup))
        fall = (1 + math.cos(math.pi * progress)) / 2 if self.cosine else 1 - progress
        return self.lr0 * (self.lrf + (1 - self.lrf) * fall)

    def augmentation(self, done: int) -> Augmentation:
        """How views differ from their images after `done` epochs: in the end, in place."""
        if not self.in_place or done < self.epochs - max(1, round(self.in_place * self.epochs)):
            return self.augment
        return replace(
            self.augment, rotation_deg=0.0, crop=1.0, zoom=(1.0, 1.0), aspect=0.0, shift=0.0
        )

    def as_recipe(self) -> dict[str, Any]:
        """Plain values for the run's record; `make_plan` takes them back as overrides."""
        recipe = asdict(self)
        recipe["augment"]["zoom"] = list(self.augment.zoom)
        return recipe


def make_plan(spec: ModelSpec, *, epochs: int, batch: int, overrides: Mapping[str, Any]) -> Plan:
    """The spec's recipe with the run's choices over it.

    A run that is short for the recipe takes the recipe's options for short ones. A batch other than
    the recipe's scales the learning rate: in proportion for SGD, by the square root for Adam,
    unless `overrides` states lr0.

    Args:
        spec: a segmenter or a classifier.
        epochs: most epochs to train.
        batch: images a step.
        overrides: values of `Plan` by name; `augment` is a mapping of values of `Augmentation`.

    Raises:
        TrainingError: if a name is unknown or a value cannot be.
    """
    if spec.task == "detect":
        raise TrainingError(f"{spec.name} is a detector: it is trained by the detector's trainer.")
    recipe = spec.recipe
    ratio = batch / recipe.batch
    chosen: dict[str, Any] = {
        "optimizer": recipe.optimizer,
        "lr0": recipe.lr0 * (ratio if recipe.optimizer == "SGD" else math.sqrt(ratio)),
        "lrf": recipe.lrf,
        "momentum": recipe.momentum,
        "weight_decay": recipe.weight_decay,
        "warmup_epochs": recipe.warmup_epochs,
        "cosine": recipe.cosine,
        "patience": recipe.patience,
        "nesterov": False,
        "ema": 0.0,
        "clip_norm": 10.0,
        "loss": PAPER,
        "in_place": 0.0,
        "view_px": None,
        "balance": balance.DEFAULT,
        "balance_strength": None,
    }
    names = {field.name for field in fields(Plan)}
    chosen |= {name: value for name, value in recipe.extra.items() if name in names}
    unknown = sorted(set(overrides) - names)
    if unknown:
        raise TrainingError(
            f"{spec.name} has no training option {unknown[0]!r}; "
            f"it has: {', '.join(sorted(names))}."
        )
    for name, value in (("epochs", epochs), ("batch", batch)):
        if overrides.get(name, value) != value:
            raise TrainingError(
                f"{name} is {value} and {overrides[name]!r} among the settings: give --{name}."
            )
    chosen |= recipe.in_short if recipe.is_short(epochs) else {}
    chosen |= overrides
    if chosen["loss"] not in (losses := (PAPER, *spec.losses)):
        raise TrainingError(f"loss is {chosen['loss']!r}: {spec.name} has {', '.join(losses)}.")
    chosen |= {"epochs": epochs, "batch": batch}
    chosen["balance"], chosen["balance_strength"] = balance.resolve(
        spec.task, chosen["balance"], chosen["balance_strength"]
    )
    chosen["augment"] = _views(spec, overrides.get("augment", {}))
    try:
        plan = TypeAdapter(Plan).validate_python(chosen)
    except ValidationError as exc:
        first = exc.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"{name} is {first['input']!r}: {first['msg']}.") from exc
    _check(plan)
    return plan


def _views(spec: ModelSpec, changes: object) -> dict[str, Any]:
    """Values of `Augmentation`: the task's, the spec's over them, the run's over those."""
    if not isinstance(changes, Mapping):
        raise TrainingError(f"augment is {changes!r}: it must be names with values, in braces.")
    changed = {**spec.recipe.extra.get("augment", {}), **changes}
    values = asdict(AUGMENTATIONS[spec.task])
    unknown = sorted(changed.keys() - values.keys())
    if unknown:
        raise TrainingError(
            f"No augmentation is called {unknown[0]!r}; there are: {', '.join(sorted(values))}."
        )
    return values | changed


def _check(plan: Plan) -> None:
    for name in ("epochs", "batch"):
        if getattr(plan, name) < 1:
            raise TrainingError(f"{name} is {getattr(plan, name)}: it must be at least 1.")
    if plan.optimizer not in OPTIMIZERS:
        raise TrainingError(
            f"optimizer is {plan.optimizer!r}: it must be one of {', '.join(OPTIMIZERS)}."
        )
    for name, (low, high, says) in _BOUNDS.items():
        value = getattr(plan, name)
        if not low <= value <= high:  # nor what is no number
            raise TrainingError(f"{name} is {value}: it must {says}.")
    if plan.nesterov and plan.optimizer == "SGD" and not plan.momentum:
        raise TrainingError("nesterov needs a momentum above 0.")
    _check_views(plan.augment)
    if plan.view_px is not None and plan.view_px < 32:
        raise TrainingError(f"view_px is {plan.view_px}: it must be at least 32 px, or null.")
    if plan.patience is not None and plan.patience < 1:
        raise TrainingError(f"patience is {plan.patience}: it must be at least 1 epoch, or null.")


def _check_views(augment: Augmentation) -> None:
    for name, (low, high, says) in _VIEW_BOUNDS.items():
        value = getattr(augment, name)
        if not low <= value <= high:
            raise TrainingError(f"augment.{name} is {value}: it must {says}.")
    least, most = augment.zoom
    if not 0 < least <= most < math.inf:
        raise TrainingError(
            f"augment.zoom is {list(augment.zoom)}: it must be the least and the most, above 0."
        )
