"""The committee among the served models: offered as a release, answered by its members."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.errors import WeightsError
from core.settings import PathSettings
from core.types import Predictor
from hub.registry import Release
from models._committee import COMMITTEE, UNTUNED_TITLE, describe, read_tuning

if TYPE_CHECKING:
    from demo.loaded import LoadedModels
    from models._committee import CommitteeTuning

logger = logging.getLogger(__name__)


def with_committee(releases: Sequence[Release], paths: PathSettings) -> tuple[Release, ...]:
    """The releases and, where there are detectors to sit in it, the committee as one more."""
    sitting = _members(releases)
    if not sitting:
        return tuple(releases)
    return (*releases, _as_release(sitting, _tuning(sitting, paths), paths))


def sits_untuned(release: Release, offered: Sequence[Release]) -> bool:
    """Whether a release is a member of a committee that was not tuned with these very members."""
    return release.config.task == "detect" and any(
        one.config.name == COMMITTEE and one.config.title == UNTUNED_TITLE for one in offered
    )


def networks_of(release: Release, releases: Sequence[Release]) -> tuple[Release, ...]:
    """Whose networks answer for a release: its own, or those of the committee's members."""
    return _members(releases) if release.config.name == COMMITTEE else (release,)


def ready(
    release: Release, releases: Sequence[Release], loaded: LoadedModels, paths: PathSettings
) -> tuple[Release, Predictor]:
    """What answers for a release, and the release that it was really built from.

    Args:
        release: the one that was chosen.
        releases: all that are served.
        loaded: the networks.
        paths: where a committee's tuning lies.

    Raises:
        WeightsError: if weights are damaged, or members do not know the same classes.
    """
    if release.config.name != COMMITTEE:
        held = loaded.load(release)
        return held.release, held.predictor
    from models._committee import Committee

    sitting = [loaded.load(member) for member in networks_of(release, releases)]
    members = [held.release for held in sitting]
    tuning = _tuning(members, paths)
    answering = _as_release(members, tuning, paths)
    return answering, Committee([held.predictor for held in sitting], tuning)


def _members(releases: Sequence[Release]) -> tuple[Release, ...]:
    """The detectors, if there are two or more and they know the same classes."""
    found = tuple(r for r in releases if r.config.task == "detect")
    alike = len({r.config.labels for r in found}) == 1
    return found if len(found) > 1 and alike else ()


def _as_release(
    sitting: Sequence[Release], tuning: CommitteeTuning | None, paths: PathSettings
) -> Release:
    config = describe([release.config for release in sitting], tuning)
    return Release(folder=paths.bundled / COMMITTEE, config=config, source="local")


def _tuning(sitting: Sequence[Release], paths: PathSettings) -> CommitteeTuning | None:
    """What was tuned for them; a damaged file costs the tuning, not the answer."""
    members = [(release.config.name, release.config.revision) for release in sitting]
    try:
        return read_tuning(paths.bundled, paths.releases, members)
    except WeightsError as exc:
        logger.error("%s", exc)
        return None
