"""Where the app finds its models: the release that is live for each name.

A release is a folder of `config.json`, `model.safetensors` and `README.md`, the same whether it was
bundled with the code, promoted on this machine, or downloaded from the Hugging Face Hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.errors import WeightsNotFoundError
from core.records import ReleaseConfig, ServedModel, Source
from core.settings import PathSettings
from models import names
from models._release import find_release, read_release


@dataclass(frozen=True, slots=True)
class Release:
    """A release on disk, ready to be loaded."""

    folder: Path
    config: ReleaseConfig
    source: Source

    def served(self) -> ServedModel:
        """The line of `/models` about this release."""
        test = [e for e in self.config.evaluations if e.split == "test"]
        return ServedModel(
            name=self.config.name,
            title=self.config.title,
            task=self.config.task,
            revision=self.config.revision,
            labels=self.config.labels,
            metrics=test[0].metrics if test else (),
            source=self.source,
            parameters=self.config.parameters,
        )


def resolve(name: str, paths: PathSettings) -> Release:
    """The live release of a model.

    Raises:
        WeightsNotFoundError: if no release of that name exists.
        WeightsError: if the one that should be live is damaged.
    """
    folder = find_release(name, bundled=paths.bundled, releases=paths.releases)
    source: Source = "bundled" if folder.parent == paths.bundled else "local"
    return Release(folder=folder, config=read_release(folder), source=source)


def resolve_all(paths: PathSettings) -> tuple[Release, ...]:
    """The live release of every published model that has one, in the order of their names."""
    found = []
    for name in names():
        try:
            found.append(resolve(name, paths))
        except WeightsNotFoundError:
            continue
    return tuple(found)
