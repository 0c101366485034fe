"""The predictor that a command means: the named model with given weights, or those being served."""

from __future__ import annotations

from pathlib import Path

from core.errors import WeightsError
from core.settings import PathSettings
from core.types import Predictor
from models import choose_device, get_spec, load
from models._release import find_release
from training.initial import release_folder


def open_predictor(model: str, weights: Path | None, device: str, paths: PathSettings) -> Predictor:
    """The named model with the given weights, or with those that the app would serve.

    Args:
        model: its name.
        weights: a release folder or the weights file in one.
        device: auto, cpu or cuda:N.
        paths: where releases lie.

    Raises:
        UnknownModelError: if there is no such model.
        WeightsNotFoundError: if it has no release.
        WeightsError: if the weights are damaged, or another model's.
    """
    spec = get_spec(model)
    if weights is None:
        folder = find_release(
            spec.name, bundled=paths.bundled, releases=paths.releases, fetched=paths.fetched
        )
    else:
        folder = release_folder(weights)
    predictor = load(folder, device=choose_device(device))
    if predictor.spec.name != spec.name:
        raise WeightsError(f"{folder} holds weights of {predictor.spec.name}, not of {spec.name}.")
    return predictor
