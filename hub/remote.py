"""The Hugging Face Hub as Rollmark sees it: one repository a model, one small file that decides.

`channel.json` on `main` names the release that is live, with the commit and the SHA-256 of each of
its files, and those before it. It is committed together with the weights it names, so no reader
ever finds one without the other. This file is the door to huggingface_hub: its errors leave here
as ours, and a token never enters a message.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import StringConstraints, ValidationError

from core.errors import ConfigError, HubError, HubUnavailable
from core.records import Record
from core.scratch import scratch
from core.settings import HubSettings

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CHANNEL: Final = "channel.json"
MAIN: Final = "main"
_BUSY: Final = frozenset({408, 409, 412, 423, 429})  # 409, 412: another commit came first
_MAX_WAIT_S: Final = 300.0  # the Hub counts requests in windows of five minutes

# What a hostile channel could name is bounded by its grammar: no folders, no programs.
FileName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}\.(safetensors|json)$")
]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Revision = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{12}$")]


class HubRelease(Record):
    """One release in a model's repository.

    `commit` is None for the live release that was committed together with the channel file itself:
    a commit cannot name its own hash, and whoever reads the file knows at which commit.
    """

    revision: Revision
    commit: Commit | None
    files: dict[FileName, Digest]


class HubChannel(Record):
    """Which release of a model is live on the Hub, and which were before it, newest first."""

    format: Literal[1] = 1
    live: HubRelease
    previous: tuple[HubRelease, ...] = ()


def repository(namespace: str, model: str) -> str:
    """Name of a model's repository: `acme/rollmark-grace`, `acme/rollmark-da-yolo`."""
    return f"{namespace}/rollmark-{model.replace('_', '-')}"


def is_offline(hub: HubSettings) -> bool:
    """Whether the Hub must not be asked, by our setting or by HF_HUB_OFFLINE."""
    if hub.offline:
        return True
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def refuse_half_a_name(what: str, name: str) -> None:
    """Refuse what the Hub would take for something of whoever the token belongs to.

    Raises:
        ConfigError: if the name is not NAMESPACE/NAME.
    """
    if name.count("/") != 1 or not all(name.split("/")):
        raise ConfigError(f"The {what} is {name!r}; NAMESPACE/NAME is needed.")


def connect(hub: HubSettings) -> HfApi:
    """The Hub's client with the settings' address and token.

    Raises:
        ConfigError: if the token could not travel in a header.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()  # they would fill the app's log
    # A secret out of a file ends in a line's end, and what a header refuses would be in the error.
    token = hub.token.get_secret_value().strip() if hub.token is not None else ""
    if not (token.isascii() and token.isprintable()):
        raise ConfigError(
            "ROLLMARK_HUB__TOKEN is no token of the Hub, it holds characters that none has: copy "
            "it anew from the settings of your account there."
        )
    return HfApi(endpoint=hub.endpoint, token=token or None, library_name="rollmark")


def make_repository(
    api: HfApi, repo: str, *, private: bool, kind: Literal["model", "space"] = "model"
) -> None:
    """Make a repository unless it is there: a token may write into one and create none.

    The client is not asked to create what may exist: refused that, it takes an address of one's
    own for none of the Hub's.

    Raises:
        HubError: if the Hub refuses.
        HubUnavailable: if it does not answer.
    """
    with mapped(f"create {'the Space ' if kind == 'space' else ''}{repo}"):
        if not api.repo_exists(repo, repo_type=kind):
            sdk = "gradio" if kind == "space" else None
            api.create_repo(repo, repo_type=kind, space_sdk=sdk, private=private, exist_ok=True)


def read_channel(api: HfApi, repo: str, head: str) -> HubChannel | None:
    """The channel file of a repository at a commit, or None if it has none.

    Raises:
        HubError: if the file is damaged or of a later format.
        HubUnavailable: if the Hub does not answer.
    """
    with mapped(f"read {repo}"):
        data = read_file(api, repo, CHANNEL, head)
    return None if data is None else parse_channel(data, repo)


def parse_channel(data: bytes, repo: str) -> HubChannel:
    """The channel that a file describes; HubError if it describes none."""
    try:
        return HubChannel.model_validate_json(data)
    except ValidationError as exc:
        first = exc.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise HubError(
            f"{CHANNEL} of {repo} cannot be used ({where}: {first['msg']}): it is damaged, or a "
            "newer Rollmark wrote it."
        ) from exc


def read_file(api: HfApi, repo: str, name: str, commit: str) -> bytes | None:
    """A file at a commit, or None if it is not there; raises huggingface_hub's errors."""
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with tempfile.TemporaryDirectory(prefix="hub-", dir=scratch()) as folder:
        try:
            path = api.hf_hub_download(repo, name, revision=commit, local_dir=folder)
        except LocalEntryNotFoundError:
            raise  # the Hub is away; only its own word makes a file missing
        except EntryNotFoundError:
            return None
        return Path(path).read_bytes()


def head_of(api: HfApi, repo: str, *, kind: str = "model") -> str:
    """The commit that `main` of a repository points to."""
    with mapped(f"read {repo}"):
        return str(api.repo_info(repo, repo_type=kind, revision=MAIN).sha)


def blob_ids(data: bytes) -> frozenset[str]:
    """What the Hub may call these bytes: the SHA-256 of a large file, the git hash of a small."""
    git = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False)
    return frozenset({hashlib.sha256(data).hexdigest(), git.hexdigest()})


def verify(
    api: HfApi, repo: str, commit: str, files: Mapping[str, bytes], *, kind: str = "model"
) -> None:
    """Read back from the Hub what a commit holds.

    Raises:
        HubError: if a file is missing or is not what was sent.
        HubUnavailable: if the Hub does not answer.
    """
    with mapped(f"read {repo} back"):
        found = api.get_paths_info(repo, list(files), revision=commit, repo_type=kind)
    held: dict[str, Any] = {entry.path: entry for entry in found}
    for name, data in files.items():
        entry = held.get(name)
        if entry is None:
            raise HubError(f"{repo} was committed as {commit[:12]} without {name}: publish again.")
        theirs = entry.lfs.sha256 if entry.lfs is not None else entry.blob_id
        if theirs not in blob_ids(data):
            raise HubError(
                f"{name} of {repo} reads back as {theirs[:12]}… from commit {commit[:12]}, which "
                "is not what was sent: publish again."
            )


@contextmanager
def mapped(what: str) -> Iterator[None]:
    """Turn huggingface_hub's errors into ours, whose text says what could not be done and why."""
    import huggingface_hub.errors as theirs
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # its own, on purpose

    try:
        yield
    except HubError:
        raise
    except theirs.OfflineModeIsEnabled as exc:
        raise HubUnavailable(f"Cannot {what}: HF_HUB_OFFLINE is set; unset it.") from exc
    except (theirs.HFValidationError, theirs.FileMetadataError) as exc:
        raise HubError(f"Cannot {what}: {_reason(exc)}.") from exc
    except (OSError, RuntimeError, ValueError, httpx.HTTPError) as exc:
        # Several uploads at once, and a download that looked into a cache as well, wrap the answer.
        cause = exc if isinstance(exc, theirs.HfHubHTTPError) else exc.__cause__
        if isinstance(cause, theirs.HfHubHTTPError):
            raise _answered(what, cause) from exc
        if isinstance(exc, ValueError):
            raise HubError(f"Cannot {what}: {_reason(exc)}.") from exc
        raise HubUnavailable(f"Cannot {what}: {_reason(cause or exc)}.") from exc


def _answered(what: str, exc: Any) -> HubError:
    """Our error for an answer of the Hub that is not a yes."""
    import huggingface_hub.errors as theirs

    status = int(exc.response.status_code)
    if status == 401 and "Authorization header" in str(
        exc.response.headers.get("x-error-message", "")
    ):
        return HubError(f"Cannot {what}: the Hub does not know this token; set another one.")
    if isinstance(exc, theirs.GatedRepoError):
        return HubError(f"Cannot {what}: it is gated; ask its owner for access.")
    if status == 401 or isinstance(exc, theirs.RepositoryNotFoundError):
        return HubError(
            f"Cannot {what}: it does not exist, or the token (ROLLMARK_HUB__TOKEN) may not see it."
        )
    if status == 403:
        return HubError(
            f"Cannot {what}: the token (ROLLMARK_HUB__TOKEN) has no permission for that; it needs "
            "one to write."
        )
    said = str(exc.server_message or "").strip().rstrip(".").splitlines()
    why = f"{status} {said[0] if said else exc.response.reason_phrase}".strip()
    if status in _BUSY or status >= 500:
        wait = str(exc.response.headers.get("retry-after", ""))
        seconds = min(float(wait), _MAX_WAIT_S) if wait.isdigit() else 0.0
        return HubUnavailable(f"Cannot {what}: the Hub answered {why}.", retry_after_s=seconds)
    return HubError(f"Cannot {what}: the Hub answered {why}.")


def _reason(exc: BaseException) -> str:
    """The first line of an error, without its full stop; its kind where it says nothing."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[0] if lines else type(exc).__name__).rstrip(".")[:300]
