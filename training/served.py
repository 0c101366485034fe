"""The predictor that a command means: the named model with given weights, or those being served."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from core.errors import ConfigError, WeightsError, WeightsNotFoundError
from core.records import ReleaseConfig
from core.settings import PathSettings
from core.types import Predictor
from models import choose_device, get_spec, load
from models._committee import COMMITTEE, detectors, open_committee
from models._flips import Flipped
from models._release import find_release, read_release
from training.initial import release_folder


def open_predictor(
    model: str,
    weights: Path | None,
    device: str,
    paths: PathSettings,
    *,
    tta: bool = False,
    runtime: str = "torch",
) -> Predictor:
    """The named model with the given weights, or with those that the app would serve.

    Args:
        model: its name, or "committee" for all detectors with weights, fused.
        weights: a release folder or the weights file in one.
        device: auto, cpu or cuda:N.
        paths: where releases lie.
        tta: look at mirrored pictures, too, at four times the cost.
        runtime: as for `models.load`; whatever it is, an export must be in the cache already.

    Raises:
        ConfigError: if weights are given for the committee, which has none of its own.
        UnknownModelError: if there is no such model.
        WeightsNotFoundError: if it has no release.
        WeightsError: if the weights are damaged, or another model's.
    """
    predictor = (
        _committee(weights, device, paths, runtime)
        if model == COMMITTEE
        else _model(model, weights, device, paths, runtime)
    )
    return Flipped(predictor) if tta else predictor


def _committee(weights: Path | None, device: str, paths: PathSettings, runtime: str) -> Predictor:
    if weights is not None:
        raise ConfigError("The committee has no weights of its own; leave --weights out.")
    members = []
    for name in detectors():
        try:
            members.append(_model(name, None, device, paths, runtime))
        except WeightsNotFoundError:
            continue
    return open_committee(members, paths.bundled, paths.releases)


def _model(
    model: str, weights: Path | None, device: str, paths: PathSettings, runtime: str
) -> Predictor:
    folder = served_release(model, weights, paths)
    return load(folder, device=choose_device(device), runtime=runtime, cache=paths.cache)


def served_release(model: str, weights: Path | None, paths: PathSettings) -> Path:
    """Folder of the given release, or of the one that the app would serve.

    Raises:
        UnknownModelError: if there is no such model.
        WeightsNotFoundError: if it has no release.
        WeightsError: if the release's description is damaged, or it is another model's.
    """
    name = get_spec(model).name
    folder = (
        find_release(name, bundled=paths.bundled, releases=paths.releases, fetched=paths.fetched)
        if weights is None
        else release_folder(weights)
    )
    held = read_release(folder).name
    if held != name:
        raise WeightsError(f"{folder} holds weights of {held}, not of {name}.")
    return folder


def releases_asked(
    model: str, weights: Path | None, paths: PathSettings
) -> tuple[ReleaseConfig, ...]:
    """The releases that `open_predictor` would open: one, or all of the committee's members.

    Raises:
        UnknownModelError: if there is no such model.
        WeightsNotFoundError: if it has no release.
        WeightsError: if a release is damaged.
    """
    if model != COMMITTEE:
        return (read_release(served_release(model, weights, paths)),)
    found = []
    for name in detectors():
        with suppress(WeightsNotFoundError):
            found.append(read_release(served_release(name, None, paths)))
    return tuple(found)
