"""Where the app finds its models: the release that is live for each name.

A release is a folder of `config.json`, `model.safetensors` and `README.md`, the same whether it was
bundled with the code, promoted on this machine, or downloaded from the Hugging Face Hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.errors import UnknownModelError, WeightsNotFoundError
from core.records import ReleaseConfig, ServedModel, Source
from core.settings import PathSettings
from hub.fetch import ASKED_FILE, read_asked
from models import names
from models._release import CHANNEL_FILE, CONFIG_FILE, find_release, read_release


@dataclass(frozen=True, slots=True)
class Release:
    """A release on disk, ready to be loaded."""

    folder: Path
    config: ReleaseConfig
    source: Source

    def served(self) -> ServedModel:
        """The line of `/models` about this release."""
        test = self.config.tested
        return ServedModel(
            name=self.config.name,
            title=self.config.title,
            task=self.config.task,
            revision=self.config.revision,
            labels=self.config.labels,
            metrics=test.metrics if test else (),
            protocol=test.protocol if test else None,
            source=self.source,
            parameters=self.config.parameters,
        )


def resolve(name: str, paths: PathSettings) -> Release:
    """The live release of a model: promoted here, else fetched from the Hub, else bundled.

    Only this machine's disk is read; what the Hub has is fetched by `hub.fetch.refresh`, so that
    nobody ever waits for a network here.

    Raises:
        UnknownModelError: if there is no such model.
        WeightsNotFoundError: if no release of it exists.
        WeightsError: if the one that should be live is damaged.
    """
    try:
        folder = find_release(
            name, bundled=paths.bundled, releases=paths.releases, fetched=paths.fetched
        )
    except WeightsNotFoundError as exc:
        if name not in names():
            raise UnknownModelError(name, names()) from exc
        raise
    return Release(folder=folder, config=read_release(folder), source=_source(folder, paths))


def switches(name: str, paths: PathSettings) -> tuple[Path, ...]:
    """The files whose change may mean that another release of a model is live, or newly marked."""
    files = [
        paths.releases / name / CHANNEL_FILE,
        paths.releases / name / CONFIG_FILE,
        paths.bundled / name / CONFIG_FILE,
    ]
    if paths.fetched is not None:
        files += [paths.fetched / name / CHANNEL_FILE, paths.fetched / name / ASKED_FILE]
    return tuple(files)


def _source(folder: Path, paths: PathSettings) -> Source:
    if folder.parent == paths.bundled:
        return "bundled"
    if paths.fetched is None or paths.fetched not in folder.parents:
        return "local"
    asked = read_asked(folder.parent)
    return "hub" if asked is not None and not asked.failed else "hub-cached"


def resolve_all(paths: PathSettings) -> tuple[Release, ...]:
    """The live release of every published model that has one, in the order of their names."""
    found = []
    for name in names():
        try:
            found.append(resolve(name, paths))
        except WeightsNotFoundError:
            continue
    return tuple(found)
