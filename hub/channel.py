"""Which release of a model is live on this machine: moved forward and back in one step.

`releases/<model>/<revision>/` keeps every release that was ever live here, side by side, so going
back copies and fetches nothing. `releases/<model>/channel.json` names the live one, those before
it, and every move that was made. The file is the truth and is replaced as a whole: a kill leaves
the old channel or the new one. Each move is also appended to the ledger's events.
"""

from __future__ import annotations

import getpass
import logging
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from core.errors import (
    LedgerError,
    Overtaken,
    UnknownModelError,
    WeightsError,
    WeightsNotFoundError,
)
from core.files import remove_stale, write_atomically
from core.records import Channel, ChannelMove, ReleaseConfig, SideFile
from core.settings import PathSettings
from hub.registry import Release, resolve
from hub.shelf import read_whole
from models import names
from models._release import CHANNEL_FILE, CONFIG_FILE, read_channel, read_release, write_config

logger = logging.getLogger(__name__)

_LOCK_WAIT_S = 60
HERE = "this machine"  # where a move was made, in the audit trail


def activate(
    release_folder: Path,
    paths: PathSettings,
    *,
    who: str | None = None,
    why: str = "",
    over: str | None = None,
) -> Release:
    """Make a release the live one on this machine; doing it again changes nothing.

    What was live until now is kept beside it, also when it came with the code or from the Hub, so
    that `rollback` returns to those very weights.

    Args:
        release_folder: `config.json`, weights and what else belongs to the release; it is copied.
        paths: where releases and the ledger lie.
        who: on whose behalf; by default the user and host of this process.
        why: in a person's words, for the history.
        over: the revision that it may replace; None: any.

    Returns:
        The live release, where it lies now.

    Raises:
        Overtaken: if another release than `over` is live; then nothing has changed.
        WeightsNotFoundError: if there is no release in the folder.
        WeightsError: if it is damaged, or the channel is.
    """
    config, _ = read_whole(release_folder)  # nothing damaged becomes live
    with _locked(paths.releases / config.name):
        channel = _present(config.name, paths)
        before = channel.live if channel is not None else None
        if over is not None and before not in (over, config.revision, None):
            raise Overtaken(f"{config.name} {before} is live, not {over}.")
        _keep(release_folder, paths.releases / config.name / config.revision)
        if channel is None or before != config.revision:
            move = make_move("promoted", before, config.revision, who, why)
            previous = (channel.live, *channel.previous) if channel is not None else ()
            moves = (*channel.moves, move) if channel is not None else (move,)
            # A revision stands once among those before: rolling back never meets it twice.
            previous = tuple(r for r in dict.fromkeys(previous) if r != config.revision)
            fresh = Channel(live=config.revision, previous=previous, moves=moves)
            _write(config.name, paths, fresh, move)
        elif _is_described_otherwise(config, paths):
            # The weights that came with the code or from the Hub, with another description: without
            # a channel theirs would stay the live one.
            move = make_move("promoted", before, config.revision, who, why)
            fresh = Channel(live=config.revision, moves=(move,))
            _write(config.name, paths, fresh, move)
        return resolve(config.name, paths)


def rollback(
    name: str,
    paths: PathSettings,
    *,
    who: str | None = None,
    why: str = "",
    to: str | None = None,
) -> Release:
    """Return to the release that was live before; again and again, to the first.

    Args:
        name: of the model.
        paths: where releases and the ledger lie.
        who: on whose behalf; by default the user and host of this process.
        why: in a person's words, for the history.
        to: the only revision that is returned to; None: whichever was before.

    Returns:
        The release that is live now.

    Raises:
        Overtaken: if another revision than `to` was before; then nothing has changed.
        UnknownModelError: if there is no such model.
        WeightsNotFoundError: if there is none before the live one.
        WeightsError: if the one before is damaged; then nothing has changed.
    """
    _check_name(name)
    with _locked(paths.releases / name):
        channel = read_channel(paths.releases / name)
        if channel is None:
            raise WeightsNotFoundError(
                f"No release of {name} was ever promoted on this machine: nothing to go back to."
            )
        if not channel.previous:
            raise WeightsNotFoundError(
                f"{name} {channel.live} is the oldest that this machine can go back to."
            )
        target, *older = channel.previous
        if to not in (target, None):
            raise Overtaken(f"The release before {name} {channel.live} is {target}, not {to}.")
        read_whole(paths.releases / name / target)
        move = make_move("rolled back", channel.live, target, who, why)
        fresh = Channel(live=target, previous=tuple(older), moves=(*channel.moves, move))
        _write(name, paths, fresh, move)
        return resolve(name, paths)


def history(name: str, paths: PathSettings) -> tuple[ChannelMove, ...]:
    """Every move of a model's channel on this machine, oldest first.

    Raises:
        UnknownModelError: if there is no such model.
        WeightsError: if the channel file is damaged.
    """
    _check_name(name)
    channel = read_channel(paths.releases / name)
    return () if channel is None else channel.moves


def find_revision(name: str, revision: str, paths: PathSettings) -> Path:
    """Folder of a revision that lies on this machine: kept, bundled or fetched from the Hub.

    Args:
        name: of the model.
        revision: all of it, or the first digits if only one revision begins with them.
        paths: where releases lie.

    Raises:
        UnknownModelError: if there is no such model.
        WeightsNotFoundError: if none or several fit; the message lists what there is.
    """
    _check_name(name)
    found = revisions(name, paths)
    fitting = [known for known in found if known.startswith(revision)]
    if len(fitting) != 1:
        there = ", ".join(sorted(found)) or "none"
        kind = "No revision" if not fitting else "More than one revision"
        raise WeightsNotFoundError(
            f"{kind} of {name} begins with {revision!r}. On this machine: {there}."
        )
    return found[fitting[0]]


def revisions(name: str, paths: PathSettings) -> dict[str, Path]:
    """Every revision of a model that lies on this machine, and its folder.

    Raises:
        WeightsError: if the description of one is damaged.
    """
    places = [*(paths.releases / name).glob("*"), paths.bundled / name]
    places += (paths.fetched / name).glob("*") if paths.fetched is not None else []
    return {
        read_release(folder).revision: folder
        for folder in reversed(places)  # what was live here before wins over a copy elsewhere
        if folder.name[0] != "." and (folder / CONFIG_FILE).is_file()
    }


def _check_name(name: str) -> None:
    """A misspelt model is not one that was never promoted."""
    if name not in names():
        raise UnknownModelError(name, names())


def _present(name: str, paths: PathSettings) -> Channel | None:
    """The channel as it is; before the first promotion, one whose live release is now kept here."""
    channel = read_channel(paths.releases / name)
    if channel is not None:
        return channel
    try:
        incumbent = resolve(name, paths)
        read_whole(incumbent.folder)
    except WeightsNotFoundError:
        return None
    except WeightsError as exc:
        logger.warning("%s cannot be kept to go back to: %s", name, exc)
        return None
    revision = incumbent.config.revision
    _keep(incumbent.folder, paths.releases / name / revision)
    return Channel(live=revision)


def _keep(source: Path, target: Path) -> None:
    """Copy a release; at every moment the target is missing, as it was, or complete."""
    if source.resolve() == target.resolve():
        return
    files = sorted(f for f in source.iterdir() if f.is_file() and not f.name.startswith("."))
    if target.is_dir():
        _describe_anew(source, target, files)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target.parent, ".*")  # copies of who was killed
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for file in files:
            write_atomically(staging / file.name, file.read_bytes())
        staging.chmod(0o755)  # mkdtemp makes it private to the owner
        staging.rename(target)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _describe_anew(source: Path, target: Path, files: Sequence[Path]) -> None:
    """Take another description of the same weights: a calibration, say.

    It goes last, and a side file whose content changed takes a name of its own: so the description
    that lies there, old or new, never speaks of a file that is missing or another one.
    """
    config, used = read_release(source), _side_files(target)
    side = config.novelty
    for file in files:
        data, name = file.read_bytes(), file.name
        if side is not None and name == side.file:
            if side.sha256 in used:
                name = used[side.sha256]
            elif _differs(target / name, data):
                name = f"{file.stem}-{side.sha256[:12]}{file.suffix}"
            config = config.model_copy(update={"novelty": SideFile(file=name, sha256=side.sha256)})
        if name != CONFIG_FILE:
            _replace(target / name, data)
    write_config(target, config)
    # What was described before is left to whoever reads by that description now.
    for left in target.glob("*.safetensors"):
        if left.name not in {config.weights_file, *used.values(), *_side_files(target).values()}:
            left.unlink()


def _side_files(folder: Path) -> dict[str, str]:
    """Names of a release's side files by their hash."""
    try:
        return {side.sha256: side.file for side in read_release(folder).side_files}
    except WeightsError:  # a damaged description is replaced
        return {}


def _differs(file: Path, data: bytes) -> bool:
    return file.is_file() and file.read_bytes() != data


def _is_described_otherwise(config: ReleaseConfig, paths: PathSettings) -> bool:
    """Whether no channel says so yet, and what is live otherwise says another thing of itself."""
    live = resolve(config.name, paths).folder
    kept = paths.releases / config.name / config.revision
    return live != kept and read_release(live) != read_release(kept)


def _replace(file: Path, data: bytes) -> None:
    if not file.is_file() or file.read_bytes() != data:
        write_atomically(file, data)


def make_move(what: str, before: str | None, after: str, who: str | None, why: str) -> ChannelMove:
    """The record of a move that is made now, by this process' user unless `who` says another."""
    fields = {"at": datetime.now(UTC), "who": who or operator(), "what": what, "why": why}
    return ChannelMove.model_validate({**fields, "before": before, "after": after})


def _write(name: str, paths: PathSettings, channel: Channel, move: ChannelMove) -> None:
    file = paths.releases / name / CHANNEL_FILE
    write_atomically(file, channel.model_dump_json(indent=2).encode())
    logger.info("%s %s %s -> %s by %s", move.what, name, move.before, move.after, move.who)
    tell_ledger(name, paths, move, where=HERE)


def tell_ledger(name: str, paths: PathSettings, move: ChannelMove, *, where: str) -> None:
    """Append a move to the audit trail; a ledger that is down must not keep a bad model live."""
    from core.ledger import open_ledger

    try:
        ledger = open_ledger(paths.ledger_url)
        try:
            with ledger.session() as session:
                ledger.record(
                    session,
                    move.what,
                    who=move.who,
                    entity=f"model:{name}",
                    before=move.before,
                    after=move.after,
                    why=move.why,
                    where=where,
                )
        finally:
            ledger.close()
    except LedgerError as exc:
        logger.error("the move of %s is in its channel file alone: %s", name, exc)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Only one process at a time moves a model's channel; the lock ends with its process."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=_LOCK_WAIT_S):
            yield
    except Timeout as exc:
        raise WeightsError(
            f"Another process has been moving the channel in {folder} for {_LOCK_WAIT_S} s: "
            "end it, or try again."
        ) from exc


def operator() -> str:
    """`user@host` of this process, on whose behalf it acts where nobody says another name."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a container whose user has no name
        return f"rollmark@{socket.gethostname()}"
