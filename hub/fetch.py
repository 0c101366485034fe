"""Fetching what the Hub has live, in the background; whatever happens, the last good one stays.

`fetched/<model>/` has the layout of promoted releases: `channel.json` names the folder that counts
and each folder, named by its commit, holds one release. A release is downloaded beside it, checked
against the SHA-256 of every file, and only then renamed into place and named. `asked.json` says
when the Hub was asked last and how that went.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import tempfile
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from core.errors import (
    HubError,
    HubUnavailable,
    RollmarkError,
    WeightsError,
    WeightsNotFoundError,
)
from core.files import remove_stale, write_atomically
from core.records import Channel, Record
from core.settings import Settings
from hub.remote import (
    CHANNEL,
    MAIN,
    HubRelease,
    connect,
    is_offline,
    mapped,
    parse_channel,
    read_file,
    repository,
)
from hub.shelf import read_whole
from models import names
from models._release import CHANNEL_FILE, read_channel

if TYPE_CHECKING:
    from huggingface_hub import HfApi

logger = logging.getLogger(__name__)

ASKED_FILE: Final = "asked.json"
_LEAST_S: Final = 60  # between two questions about one model, whoever asks
_REFUSED_S: Final = 3600  # until what was refused is fetched once more


class Asked(Record):
    """When the Hub was asked about one model, and how that went."""

    at: datetime
    etag: str | None = None  # of the channel file that was followed
    refused: str | None = None  # identity of a channel file whose release was not what it said
    refused_at: datetime | None = None  # when that was found; older notes do not know
    failed: str = ""  # why the answer could not be had or used; empty: all is well


def refresh(settings: Settings, *, verify: bool = False) -> tuple[str, ...]:
    """Follow what the Hub has live for every model; at most one question a minute and model.

    A Hub that is away, refuses, or has something damaged changes nothing: it is one line in the
    log, and `hub.registry.resolve` marks the release as `hub-cached`.

    Args:
        settings: namespace, address and token of the Hub, and where releases lie.
        verify: read what was fetched before again and fetch it anew where it fails its hash.

    Returns:
        Names of the models whose live release on the Hub is another one now.
    """
    root, namespace = settings.paths.fetched, settings.hub.namespace
    if root is None or namespace is None:
        return ()
    if is_offline(settings.hub):
        for name in names():
            _note(root / name, name, failed="it is switched off")
        return ()
    api, changed = connect(settings.hub), []
    away = ""
    for name in names():
        known = read_asked(root / name)
        if known is not None and 0 <= (_now() - known.at).total_seconds() < _LEAST_S:
            continue
        if away:  # do not wait for the same silence once a model
            _note(root / name, name, failed=away)
            continue
        try:
            if _follow(api, repository(namespace, name), name, root / name, verify=verify):
                changed.append(name)
        except HubUnavailable as exc:
            away = str(exc)
            _note(root / name, name, failed=away)
        except (RollmarkError, OSError) as exc:
            _note(root / name, name, failed=str(exc))
    return tuple(changed)


def watch(settings: Settings, stop: threading.Event) -> None:
    """Refresh now and every `hub.check_min` minutes until `stop` is set; for a thread of the app.

    Raises:
        Nothing: what cannot be done is in the log.
    """
    verify = True
    while True:
        try:
            refresh(settings, verify=verify)
        except Exception:  # a thread that dies would leave the app behind for good
            logger.exception("the Hub could not be looked at")
        verify = False
        if stop.wait(settings.hub.check_min * 60):
            return


def read_asked(folder: Path) -> Asked | None:
    """What is known about the last question, or None: never asked, or not readable any more."""
    try:
        return Asked.model_validate_json((folder / ASKED_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def _follow(api: HfApi, repo: str, name: str, folder: Path, *, verify: bool) -> bool:
    """Look at a model's channel on the Hub and fetch what it names; whether that was news."""
    seen = _channel_of(api, repo)
    if seen is None:
        _note(folder, name, failed="")
        return False
    head, etag = seen
    known = read_asked(folder)
    current = _current(folder)
    if known is not None and known.refused == etag and not verify and not _is_stale(known):
        # The commit stays as it is; the way here, this disk or this version may get better.
        _note(folder, name, failed=known.failed, refused=etag, refused_at=known.refused_at)
        return False
    if known is not None and known.etag == etag and current is not None:
        if not verify or _is_sound(current):
            _note(folder, name, etag=etag, failed="")
            return False
        logger.warning("what was fetched of %s is damaged and is fetched again", name)
        shutil.rmtree(current)
    with mapped(f"fetch {repo}"):
        data = read_file(api, repo, CHANNEL, head)
    if data is None:
        raise HubError(f"{repo} is changing at this moment.")  # it alone: the others are asked
    live = parse_channel(data, repo).live
    commit = live.commit or head
    is_news = current is None or current.name != commit
    if (folder / commit).is_dir() and not _is_sound(folder / commit):
        shutil.rmtree(folder / commit)
    if not (folder / commit).is_dir():
        try:
            _fetch(api, repo, name, live, commit, folder)
        except (WeightsError, WeightsNotFoundError) as exc:
            _note(folder, name, failed=str(exc), refused=etag, refused_at=_now())
            return False
    _adopt(folder, commit)
    _note(folder, name, etag=etag, failed="")
    if is_news:
        logger.info("%s %s is live on the Hub (%s, %s)", name, live.revision, repo, commit[:12])
    return is_news


def _channel_of(api: HfApi, repo: str) -> tuple[str, str] | None:
    """Commit and identity of a repository's channel file; None: nothing is published there."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    with mapped(f"look at {repo}"):
        try:
            facts = api.get_hf_file_metadata(
                url=hf_hub_url(repo, CHANNEL, revision=MAIN, endpoint=api.endpoint)
            )
        except GatedRepoError:
            raise
        except (EntryNotFoundError, RepositoryNotFoundError):
            return None
    if facts.commit_hash is None or facts.etag is None:
        raise HubError(f"{api.endpoint} does not answer as a Hub does: set the right address.")
    return facts.commit_hash, facts.etag


def _fetch(api: HfApi, repo: str, name: str, live: HubRelease, commit: str, folder: Path) -> None:
    """Download one release into `folder/commit`, there only once every file is what it should be.

    Raises:
        HubError: if the Hub refuses.
        HubUnavailable: if the Hub is away.
        WeightsNotFoundError: if a file is missing that the release names.
        WeightsError: if a file fails its hash or the release is not one of this model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_stale(folder, ".*")  # downloads of who was killed
    staging = Path(tempfile.mkdtemp(prefix=f".{commit}.", dir=folder))
    try:
        for file, digest in live.files.items():
            with mapped(f"fetch {file} of {repo}"):
                data = read_file(api, repo, file, commit)
            if data is None:
                raise WeightsError(f"{repo} has no {file} at commit {commit[:12]}.")
            found = hashlib.sha256(data).hexdigest()
            if found != digest:
                raise WeightsError(
                    f"{file} of {repo} at {commit[:12]} has SHA-256 {found[:12]}…, but its channel "
                    f"promises {digest[:12]}…: it is not used."
                )
            write_atomically(staging / file, data)
        config, _ = read_whole(staging)
        if (config.name, config.revision) != (name, live.revision):
            raise WeightsError(
                f"{repo} holds {config.name} {config.revision} at commit {commit[:12]}, not "
                f"{name} {live.revision}: it is not used."
            )
        staging.chmod(0o755)  # mkdtemp makes it private to the owner
        if not (folder / commit).exists():  # another process may have been faster
            staging.rename(folder / commit)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _adopt(folder: Path, commit: str) -> None:
    """Let a fetched release count; it and the one before stay, older ones go."""
    before = read_channel(folder)
    if before is not None and before.live == commit:
        return
    previous = (before.live,) if before is not None else ()
    channel = Channel(live=commit, previous=previous)
    write_atomically(folder / CHANNEL_FILE, channel.model_dump_json().encode())
    for old in folder.iterdir():
        if old.is_dir() and old.name[0] != "." and old.name not in (commit, *previous):
            shutil.rmtree(old, ignore_errors=True)


def _current(folder: Path) -> Path | None:
    """The fetched release that counts, if it is still there."""
    try:
        channel = read_channel(folder)
    except WeightsError:
        return None
    if channel is None or not (folder / channel.live).is_dir():
        return None
    return folder / channel.live


def _is_sound(folder: Path) -> bool:
    try:
        read_whole(folder)
    except (RollmarkError, OSError):
        return False
    return True


def _is_stale(known: Asked) -> bool:
    """Whether a refusal is old enough to look once more."""
    if known.refused_at is None:
        return True
    return not 0 <= (_now() - known.refused_at).total_seconds() < _REFUSED_S


def _note(
    folder: Path,
    name: str,
    *,
    failed: str,
    etag: str | None = None,
    refused: str | None = None,
    refused_at: datetime | None = None,
) -> None:
    """Remember how asking went; what is new goes to the log, once.

    Where this cannot be written the Hub is asked once more: no reason to follow no other model.
    """
    known = read_asked(folder)
    if etag is None and known is not None:
        etag = known.etag
    if failed and (known is None or known.failed != failed):
        stays = "what was fetched before stays" if _current(folder) else "nothing was fetched yet"
        logger.warning("%s: the Hub cannot be followed, %s: %s", name, stays, failed)
    elif not failed and known is not None and known.failed:
        logger.info("%s: the Hub answers again", name)
    fresh = Asked(at=_now(), etag=etag, refused=refused, refused_at=refused_at, failed=failed)
    try:
        write_atomically(folder / ASKED_FILE, fresh.model_dump_json().encode())
    except OSError as exc:
        logger.warning("%s: how asking the Hub went cannot be noted: %s", name, exc)


def _now() -> datetime:
    return datetime.now(UTC)
