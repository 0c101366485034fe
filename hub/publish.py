"""Releases on the Hugging Face Hub: published, moved and rolled back, each by one atomic commit.

A commit carries weights, description, card and `channel.json` together and names its parent, so it
happens as a whole or not at all, and never on top of a commit that was not read. What lost a race
or met a busy Hub reads the head again and tries anew; an answer that was lost shows as a channel
that already says what was wanted. Success is what the Hub reads back.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import ConfigError, HubError, HubUnavailable, UnknownModelError
from core.records import ReleaseConfig
from core.settings import HubSettings
from hub.card import write_card
from hub.remote import (
    CHANNEL,
    MAIN,
    HubChannel,
    HubRelease,
    connect,
    head_of,
    is_offline,
    make_repository,
    mapped,
    read_channel,
    repository,
    verify,
)
from hub.shelf import CARD_FILE, read_whole
from models import get_spec, names

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from tenacity import RetryCallState, Retrying

logger = logging.getLogger(__name__)

_KINDS: Final = frozenset({".safetensors", ".json"})
_ATTEMPTS: Final = 6
_LONGEST_PAUSE_S: Final = 30.0
_REMEMBERED: Final = 20  # releases that the channel can go back to


@dataclass(frozen=True, slots=True)
class Shipment:
    """A release as it is sent: every file's bytes, the card among them."""

    config: ReleaseConfig
    files: Mapping[str, bytes]

    def digests(self) -> dict[str, str]:
        """SHA-256 of what a reader fetches: all but the card, which may be edited on the Hub."""
        return {
            name: hashlib.sha256(data).hexdigest()
            for name, data in self.files.items()
            if name != CARD_FILE
        }


@dataclass(frozen=True, slots=True)
class Published:
    """What is live in a model's repository after a command."""

    repo: str
    revision: str
    commit: str  # where its files are
    before: str | None  # the revision that was live until then
    is_new: bool  # whether a commit was made


def pack(folder: Path) -> Shipment:
    """Everything of a release folder that belongs on the Hub, its card written anew.

    Raises:
        WeightsNotFoundError: if there is no release, or one of its files is missing.
        WeightsError: if a file fails its hash.
    """
    config, files = read_whole(folder)
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.suffix in _KINDS and file.name[0] != ".":
            files.setdefault(file.name, file.read_bytes())
    files.pop(CHANNEL, None)
    files[CARD_FILE] = write_card(config, get_spec(config.name)).encode()
    return Shipment(config, files)


def publish(folder: Path, hub: HubSettings, *, private: bool = False) -> Published:
    """Make a release the live one of its repository; what is live already makes no new commit.

    Args:
        folder: of the release.
        hub: namespace, address and token.
        private: whether a repository made for it is private; one that exists stays as it is.

    Raises:
        ConfigError: if there is no namespace, or the Hub is switched off.
        HubError: if the Hub refuses; then what was live there still is.
        HubUnavailable: if it did not answer well in several attempts.
        WeightsError: if the weights fail their hash.
    """
    shipment = pack(folder)
    name, digests = shipment.config.name, shipment.digests()
    api, repo = _open(hub, name)
    patiently()(make_repository, api, repo, private=private)

    def step(
        channel: HubChannel | None, head: str
    ) -> tuple[HubChannel, Mapping[str, bytes]] | None:
        if channel is not None and channel.live.files == digests:
            return None
        fresh = HubRelease(revision=shipment.config.revision, commit=None, files=digests)
        return _forward(channel, fresh, head), shipment.files

    return _move(api, repo, step, f"Release {name} {shipment.config.revision}")


def withdraw(name: str, hub: HubSettings, *, to: str | None = None) -> Published:
    """Take a model's repository back to the release before the live one.

    Args:
        name: of the model.
        hub: namespace, address and token.
        to: revision to go back to, one of those before; None: the latest of them.

    Raises:
        ConfigError: if there is no namespace, or the Hub is switched off.
        HubError: if nothing is published, none was before, or the Hub refuses.
        HubUnavailable: if it did not answer well in several attempts.
    """
    api, repo = _open(hub, name)
    target = to

    def step(channel: HubChannel | None, _: str) -> tuple[HubChannel, Mapping[str, bytes]] | None:
        nonlocal target
        if channel is None:
            raise HubError(f"Nothing is published in {repo}: there is nothing to go back to.")
        if channel.live.revision == target:  # also when only the answer to our commit was lost
            return None
        older = [release.revision for release in channel.previous]
        if target is None and older:
            target = older[0]
        if target not in older:
            known = ", ".join(older) or "none"
            asked = "a release before" if target is None else target
            raise HubError(f"{repo} has no {asked} {channel.live.revision}; before it: {known}.")
        at = older.index(target)
        return HubChannel(live=channel.previous[at], previous=channel.previous[at + 1 :]), {}

    return _move(api, repo, step, f"Roll {name} back")


def live_on_hub(name: str, hub: HubSettings) -> HubChannel | None:
    """The channel of a model's repository, every commit filled in; None: nothing is published.

    Raises:
        ConfigError: if there is no namespace, or the Hub is switched off.
        HubError: if the Hub refuses, or the channel is damaged.
        HubUnavailable: if the Hub does not answer.
    """
    from huggingface_hub.errors import RepositoryNotFoundError

    api, repo = _open(hub, name)
    try:
        head = head_of(api, repo)
    except HubError as exc:
        if isinstance(exc.__cause__, RepositoryNotFoundError):
            return None
        raise
    channel = read_channel(api, repo, head)
    if channel is None or channel.live.commit is not None:
        return channel
    live = channel.live.model_copy(update={"commit": head})
    return channel.model_copy(update={"live": live})


_Step = Callable[[HubChannel | None, str], tuple[HubChannel, Mapping[str, bytes]] | None]


def _move(api: HfApi, repo: str, step: _Step, message: str) -> Published:
    """Read the head, commit what `step` makes of it, read it back; again while the Hub is busy.

    Args:
        api: the Hub's client.
        repo: of one model.
        step: (channel, head) → the next channel with the files beside it, or None: as wanted.
        message: of the commit.
    """
    before: list[str | None] = []  # what was live when the first attempt looked
    sent: dict[str, bytes] = {}  # by an attempt before; its answer was lost, or no yes

    def attempt() -> Published:
        from huggingface_hub import CommitOperationAdd

        head = head_of(api, repo)
        channel = read_channel(api, repo, head)
        if not before:
            before.append(channel.live.revision if channel is not None else None)
        planned = step(channel, head)
        if planned is None:
            if channel is None:
                raise HubError(f"{repo} has no channel after it was written: publish again.")
            if sent:
                verify(api, repo, head, sent)
            live, commit = channel.live, channel.live.commit or head
            return Published(repo, live.revision, commit, before[0], is_new=bool(sent))
        fresh, files = planned
        sent.clear()
        sent.update({**files, CHANNEL: (fresh.model_dump_json(indent=2) + "\n").encode()})
        adds = [CommitOperationAdd(path_in_repo=n, path_or_fileobj=d) for n, d in sent.items()]
        with mapped(f"commit to {repo}"):
            made = api.create_commit(
                repo, adds, commit_message=message, parent_commit=head, revision=MAIN
            )
        commit = str(made.oid)
        verify(api, repo, commit, sent)
        logger.info("%s: %s is live at %s", message, fresh.live.revision, commit[:12])
        live = fresh.live
        return Published(repo, live.revision, live.commit or commit, before[0], is_new=True)

    return patiently()(attempt)


def _forward(channel: HubChannel | None, fresh: HubRelease, head: str) -> HubChannel:
    """A channel with one more release; what was live is found at the head that it is built on."""
    if channel is None:
        return HubChannel(live=fresh)
    replaced = channel.live
    if replaced.commit is None:
        replaced = replaced.model_copy(update={"commit": head})
    older = [r for r in (replaced, *channel.previous) if r.revision != fresh.revision]
    return HubChannel(live=fresh, previous=tuple(older[:_REMEMBERED]))


def _open(hub: HubSettings, name: str) -> tuple[HfApi, str]:
    if hub.namespace is None:
        raise ConfigError(
            "No namespace is set: give --namespace, or set ROLLMARK_HUB__NAMESPACE to your user or "
            "organisation on the Hub."
        )
    if is_offline(hub):
        raise ConfigError(
            "The Hub is switched off: unset ROLLMARK_HUB__OFFLINE and HF_HUB_OFFLINE to publish."
        )
    if name not in names():  # a misspelt model is told here, not by a missing repository
        raise UnknownModelError(name, names())
    return connect(hub), repository(hub.namespace, name)


def patiently() -> Retrying:
    """Calls a function again while the Hub is busy, and lets its last error through."""
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt

    return Retrying(
        retry=retry_if_exception_type(HubUnavailable),
        wait=_pause,
        stop=stop_after_attempt(_ATTEMPTS),
        before_sleep=_say,
        reraise=True,
    )


def _pause(state: RetryCallState) -> float:
    """Seconds before the next attempt: what the Hub asked for, and jitter that parts rivals."""
    from tenacity import wait_random_exponential

    failure = state.outcome.exception() if state.outcome is not None else None
    asked = failure.retry_after_s if isinstance(failure, HubUnavailable) else 0.0
    return asked + wait_random_exponential(multiplier=0.5, max=_LONGEST_PAUSE_S)(state)


def _say(state: RetryCallState) -> None:
    failure = state.outcome.exception() if state.outcome is not None else None
    logger.warning("attempt %d of %d: %s", state.attempt_number, _ATTEMPTS, failure)
