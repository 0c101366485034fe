"""How a retraining is trained: from the live weights with care, and to its end as it was begun."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from core.settings import RetrainingSettings
from hub.registry import Release
from training.runs import RunFolder

if TYPE_CHECKING:
    from models._spec import ModelSpec

# Fine-tuning starts from weights that are good already: a tenth of the usual rate moves them
# without forgetting, and every old image stays in the training split.
FINE_TUNING_RATE: Final = 0.1
MEASURED_BEST: Final = "auto"  # the setting that leaves the balancing method to the measurements


def choices(
    run: RunFolder, spec: ModelSpec, live: Release, settings: RetrainingSettings
) -> dict[str, Any]:
    """What to call `training.launch.start_run` with, beside where and on what.

    A run that is under way goes on as it was begun, though settings, the live release or the usual
    recipe are others by now. One that has no checkpoint yet has nothing to lose: it begins anew.

    Args:
        run: its folder, which may hold a run or nothing.
        spec: of the model.
        live: the release that a new run starts from.
        settings: how long a new run is, and what it does about rare classes.
    """
    from training.launch import begun_as

    if run.is_under_way():
        return begun_as(run.load_record())
    run.forget_record()
    config = live.config
    batch = int(config.run.recipe.get("batch", spec.recipe.batch))
    return {
        "protocol": "leak-free",
        "scale": config.scale,
        "epochs": settings.epochs,
        "image_size": config.image_size,
        "batch": batch,
        "initial_weights": live.folder,
        "overrides": fine_tuning(spec, settings, batch=batch, before=config.run.recipe),
    }


def fine_tuning(
    spec: ModelSpec, settings: RetrainingSettings, *, batch: int, before: Mapping[str, Any]
) -> Mapping[str, Any]:
    """What a fine-tuning run does otherwise than a run from the beginning.

    Args:
        spec: of the model.
        settings: how long, and what is done about rare classes.
        batch: images a step.
        before: recipe of the live release. A model keeps its loss: one that learned with
            YOLO11's would begin anew with its paper's, and the other way round.
    """
    from training.balance import UNRECORDED, retraining_method
    from training.launch import recipe_of

    usual = recipe_of(spec, epochs=settings.epochs, batch=batch)
    overrides: dict[str, Any] = {"lr0": usual["lr0"] * FINE_TUNING_RATE}
    method = settings.balance
    if method == MEASURED_BEST:
        method = retraining_method(spec.task)
    if method != usual["balance"]:
        overrides["balance"] = method
    if "loss" in usual:
        learned_with = before.get("loss", UNRECORDED["loss"])
        if learned_with != usual["loss"]:
            overrides["loss"] = learned_with
    return overrides
