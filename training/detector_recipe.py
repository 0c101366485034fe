"""The training arguments of a detector: steel's defaults, the paper's recipe, the run's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from core.errors import TrainingError
from models._spec import ModelSpec
from training import balance

# What recipes rarely state, chosen for rolled steel: no up or down, no left or right, no colour.
STEEL = {
    "fliplr": 0.5,
    "flipud": 0.5,
    "hsv_h": 0.0,
    "hsv_s": 0.0,
    "mosaic": 1.0,
    "nbs": 64,  # images per optimiser step; smaller batches are accumulated
}
# For this share of the epochs, at the end, pictures are left whole and in place, only mirrored and
# made brighter or darker. Crazing and scale have no edges: where a person's box begins and ends
# follows from what the whole picture shows, which mosaics, zooms and shifts take away. Before that
# they teach the rest.
IN_PLACE = 0.4
CLOSE_MOSAIC = 0.2  # of the epochs, at the end, where pictures are zoomed and shifted to the last
# A paper's learning rate is tuned to its number of epochs. Runs shorter than half of that use
# this schedule, the same for every detector, so that they can be compared.
SHORT_SCHEDULE = {
    "optimizer": "SGD",
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 5e-4,
    "warmup_epochs": 1.0,
    "cos_lr": True,
    "nbs": 16,
}
# The averaged weights look back over this share of the run. Ultralytics' own average is meant for
# runs of 100,000 steps: after 3,000 it still forgets everything older than five.
EMA_SHARE, EMA_SLOWEST = 0.05, 0.9999
# Ours, not ultralytics': the schedule taken, how long pictures stay in place, whose loss, what is
# done about rare classes, and what is learnt from other detectors.
OURS = ("schedule", "in_place", "loss", "balance", "balance_strength", "teachers", "teaching")
SHARE = 0.5  # α: what teachers say counts as much as what labels say
LOSSES = ("paper", "stock")  # "stock": of YOLO11, whatever the paper proposes
# How the run is carried out, not what is learnt: not for overriding.
FIXED = {
    "mode": "train",
    "task": "detect",
    "val": True,
    "save": True,
    "plots": False,
    "verbose": False,
    "exist_ok": True,
    "amp": False,
    "cache": "ram",
    "pretrained": False,
}
# Of ultralytics' arguments, what a run decides itself or what would have it learn something else.
DECIDED = (
    "epochs",
    "batch",
    "imgsz",
    "seed",
    "device",
    "workers",
    "schedule",
    "time",
    "resume",
    "deterministic",
    "compile",
    "profile",
    "save_period",
    "quantize",
    "model",
    "data",
    "project",
    "name",
    "save_dir",
    "cfg",
    "source",
    "split",
    "distill_model",
    "rect",
    "single_cls",
    "classes",
)
OPTIMIZERS = ("SGD", "MuSGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "auto")


def make_recipe(
    spec: ModelSpec,
    *,
    epochs: int,
    batch: int,
    overrides: Mapping[str, Any] | None = None,
    teachers: Sequence[str] = (),
) -> dict[str, Any]:
    """Ultralytics' training arguments: steel's defaults, then the paper's, then `overrides`.

    The keys in `OURS` are not for ultralytics: "schedule" says which learning-rate schedule was
    taken, "paper" or "short"; "in_place" for what share of the epochs, the last ones, pictures are
    not zoomed, shifted or put together, for one at least unless it is 0; "loss" is one of `LOSSES`;
    "balance" and its strength are those of `training.balance`; "teachers" names the releases that
    teach and "teaching" is their share α of the loss (`training.distillation`), both only where
    there are some. On the short schedule `Recipe.in_short` stands between the paper's values and
    `overrides`.

    Raises:
        TrainingError: if an override is not a training argument, or decides what is fixed, or
            there is no such loss, the balancing method means nothing for a detector, or teachers
            have no share or a share has no teachers.
    """
    paper = spec.recipe
    short = paper.is_short(epochs)
    recipe: dict[str, Any] = {
        **STEEL,
        "optimizer": paper.optimizer,
        "lr0": paper.lr0,
        "lrf": paper.lrf,
        "momentum": paper.momentum,
        "weight_decay": paper.weight_decay,
        "warmup_epochs": paper.warmup_epochs,
        "cos_lr": paper.cosine,
        "patience": paper.patience or epochs,
        **paper.extra,
        **(SHORT_SCHEDULE if short else {}),
        "schedule": "short" if short else "paper",
        "epochs": epochs,
        "batch": batch,
    }
    chosen = {**(paper.in_short if short else {}), **(overrides or {})}
    recipe["balance"], recipe["balance_strength"] = balance.resolve(
        spec.task, chosen.pop("balance", balance.DEFAULT), chosen.pop("balance_strength", None)
    )
    recipe["in_place"] = _share(chosen.pop("in_place", IN_PLACE))
    if recipe["in_place"]:
        recipe["close_mosaic"] = max(1, round(recipe["in_place"] * epochs))
    else:
        recipe["close_mosaic"] = round(CLOSE_MOSAIC * epochs)
    recipe["loss"] = chosen.pop("loss", "paper")
    if recipe["loss"] not in LOSSES:
        raise TrainingError(f"loss is {recipe['loss']!r}: it must be {' or '.join(LOSSES)}.")
    share = chosen.pop("teaching", SHARE if teachers else None)
    if share is not None:
        recipe |= {"teachers": list(teachers), "teaching": _share_of(teachers, share)}
    if recipe["balance"] == "class_weights":
        recipe["cls_pw"] = recipe["balance_strength"]
    taken = {*DECIDED, *FIXED}
    if recipe["in_place"]:
        taken.add("close_mosaic")  # follows from it
    for name in chosen:
        if name in taken or not _is_argument(name):
            raise TrainingError(
                f"Cannot override {name!r}: it must be one of ultralytics' training arguments "
                f"that the run does not decide itself, such as lr0, optimizer, mosaic or degrees, "
                f"or in_place, loss, balance, balance_strength or teaching."
            )
        _check_value(name, chosen[name])
    return {**recipe, **chosen}


def _share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise TrainingError(f"in_place is {value!r}: it must be a share of the epochs, 0 to 1.")
    return float(value)


def _share_of(teachers: Sequence[str], share: object) -> float:
    if not teachers:
        raise TrainingError(f"teaching is {share!r}, but there are no teachers: give --teacher.")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise TrainingError(
            f"teaching is {share!r}: it must be a share of the loss between 0 and 1, such as 0.5."
        )
    return float(share)


def _is_argument(name: str) -> bool:
    import models._ultralytics  # noqa: F401  first: it sets ultralytics' environment

    # isort: split
    from ultralytics.utils import DEFAULT_CFG_DICT

    return name in DEFAULT_CFG_DICT


def check_freeze(freeze: Any, layers: int) -> None:
    """Refuse to freeze a network of so many layers whole, or what are no layers.

    Raises:
        TrainingError: if that is asked for.
    """
    if freeze is None:
        return
    numbers = freeze if isinstance(freeze, list) else [freeze]
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < layers for n in numbers):
        raise TrainingError(
            f"freeze is {freeze!r}: it must be how many of the {layers} layers stay as they are, "
            f"fewer than all, or a list of their numbers, 0 to {layers - 1}."
        )


def _check_value(name: str, value: Any) -> None:
    from ultralytics.cfg import check_cfg

    known = {known.lower() for known in OPTIMIZERS}
    if name == "optimizer" and str(value).lower() not in known:
        raise TrainingError(f"optimizer is {value!r}: it must be one of {', '.join(OPTIMIZERS)}.")
    try:
        check_cfg({name: value})
    except (TypeError, ValueError) as exc:
        reason = str(exc).splitlines()[0]
        raise TrainingError(f"{name} is {value!r}, which it cannot be: {reason}") from exc


def ema_decay(steps: int) -> Callable[[int], float]:
    """How much of the average each of a run's `steps` keeps, given its number, from 1.

    d(t) = d (1 - e^(-t / w)) with the window w = EMA_SHARE · steps and d = 1 - 1/w, at most
    EMA_SLOWEST: the average begins all but as the network itself and then spans a fixed share of
    the run.
    """
    window = max(EMA_SHARE * steps, 1.0)
    slowest = min(1 - 1 / window, EMA_SLOWEST)
    return lambda step: slowest * (1 - math.exp(-step / window))


def fitness(metrics: Mapping[str, float]) -> float:
    """By which the best epoch is chosen: 0.9 · mAP50_95 + 0.1 · mAP50."""
    return 0.9 * metrics["mAP50_95"] + 0.1 * metrics["mAP50"]
