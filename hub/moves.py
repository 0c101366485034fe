"""A promotion and its undoing, on this machine and on the Hub, as one act of one person.

This machine moves first: it is instant and needs nobody. If the Hub then refuses, the message says
what is done, what is not, and the one command that finishes it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigError, HubError, WeightsError, WeightsNotFoundError
from core.records import Channel, Evaluation
from core.scratch import scratch
from core.settings import PathSettings, Settings
from hub.channel import activate, find_revision, make_move, rollback, tell_ledger
from hub.publish import Published, live_on_hub, publish, withdraw
from hub.registry import resolve
from hub.remote import is_offline
from hub.shelf import shelve
from models._release import read_channel, read_release


@dataclass(frozen=True, slots=True)
class Moved:
    """What a command did; None where it did nothing."""

    local: tuple[str | None, str] | None  # revision before and after on this machine
    hub: Published | None
    is_hub_left: bool = False  # because it is switched off

    def lines(self, name: str) -> list[str]:
        """Old → new, for people."""
        said = []
        if self.local is not None:
            said.append(f"{name} on this machine: {self.local[0] or 'none'} → {self.local[1]}")
        if self.hub is not None:
            before = self.hub.before or "none"
            said.append(
                f"{name} on the Hub: {before} → {self.hub.revision} "
                f"({self.hub.repo} at {self.hub.commit[:12]})"
            )
        if self.is_hub_left and self.local is not None:
            said.append(
                f"The Hub is switched off and stays as it was. {_to_finish(name, self.local[1])}"
            )
        return said


def promote(
    name: str,
    release: str | Path,
    settings: Settings,
    *,
    evaluations: Sequence[Evaluation] = (),
    why: str = "",
    here: bool = False,
) -> Moved:
    """Make a release the live one, here and, with a namespace, on the Hub; twice is once.

    Args:
        name: of the model.
        release: a revision that lies on this machine, or a release folder.
        settings: where releases lie, and the Hub's namespace.
        evaluations: of a release fresh from training, which nobody has described yet.
        why: for the history.
        here: leave the Hub as it is.

    Raises:
        HubError: if the Hub refuses; this machine has moved then.
        UnknownModelError: if there is no such model.
        WeightsNotFoundError: if there is no such release.
        WeightsError: if it is damaged or one of another model, or an evaluation is of others.
    """
    paths = settings.paths
    folder = release if isinstance(release, Path) else find_revision(name, release, paths)
    found = read_release(folder).name
    if found != name:
        raise WeightsError(f"{folder} holds a release of {found}, not of {name}.")
    before = _live(name, paths)
    with _described(folder, evaluations) as whole:
        after = activate(whole, paths, why=why).config.revision
    if here or settings.hub.namespace is None:
        return Moved((before, after), None)
    if is_offline(settings.hub):
        return Moved((before, after), None, is_hub_left=True)
    try:
        # Also what was live there before: it may have been described anew since.
        moved = publish(paths.releases / name / after, settings.hub)
    except (HubError, ConfigError) as exc:
        raise _half_done(exc, name, after) from exc
    _tell(name, paths, "promoted", moved, why)
    return Moved((before, after), moved)


@contextmanager
def _described(folder: Path, evaluations: Sequence[Evaluation]) -> Iterator[Path]:
    """The release with what was measured on it and its card; as it lies where nothing was."""
    if not evaluations:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="promote-", dir=scratch()) as place:
        shelve(folder, Path(place) / "release", evaluations)
        yield Path(place) / "release"


def roll_back(
    name: str, settings: Settings, *, why: str = "", here: bool = False, to: str | None = None
) -> Moved:
    """Return to the release before the live one, here and, with a namespace, on the Hub.

    A machine that never promoted this model follows the Hub; then the Hub's channel moves alone.

    Args:
        name: of the model.
        settings: where releases lie, and the Hub's namespace.
        why: for the history.
        here: leave the Hub as it is.
        to: the only revision that this machine returns to; None: whichever was before.

    Raises:
        HubError: if the Hub refuses, or has nothing to go back to; this machine has moved then.
        Overtaken: if another revision than `to` was before; then nothing has changed.
        UnknownModelError: if there is no such model.
        WeightsNotFoundError: if there is no release before the live one.
        WeightsError: if the one before is damaged; then nothing has changed.
    """
    paths, with_hub = settings.paths, settings.hub.namespace is not None and not here
    channel: Channel | None = read_channel(paths.releases / name)
    if channel is None and with_hub:
        moved = withdraw(name, settings.hub)
        _tell(name, paths, "rolled back", moved, why)
        return Moved(None, moved)
    done = rollback(name, paths, why=why, to=to)
    local = (channel.live if channel is not None else None, done.config.revision)
    if not with_hub:
        return Moved(local, None)
    if is_offline(settings.hub):
        return Moved(local, None, is_hub_left=True)
    try:
        there = live_on_hub(name, settings.hub)
        if there is None:
            return Moved(local, None)
        known = (r.revision for r in (there.live, *there.previous))
        moved = (
            withdraw(name, settings.hub, to=local[1])
            if local[1] in known
            else publish(done.folder, settings.hub)
        )
    except (HubError, ConfigError) as exc:
        raise _half_done(exc, name, local[1]) from exc
    _tell(name, paths, "rolled back", moved, why)
    return Moved(local, moved)


def _live(name: str, paths: PathSettings) -> str | None:
    try:
        return resolve(name, paths).config.revision
    except WeightsNotFoundError:
        return None


def _tell(name: str, paths: PathSettings, what: str, moved: Published, why: str) -> None:
    if moved.is_new:
        move = make_move(what, moved.before, moved.revision, None, why)
        tell_ledger(name, paths, move, where=f"{moved.repo}@{moved.commit}")


def _half_done(exc: HubError | ConfigError, name: str, revision: str) -> HubError:
    return HubError(
        f"{name} {revision} is live on this machine, but the Hub is as it was: {exc} "
        f"{_to_finish(name, revision)}"
    )


def _to_finish(name: str, revision: str) -> str:
    return f"To finish: python -m hub promote {name} --revision {revision}"
