"""The app as a Hugging Face Space: a folder with all that serving needs, pushed in one commit.

What goes in is chosen by name: the rooms and their own files, the bundled releases, exact pins.
Nothing of the machine it is made on: no data, no runs, no `.env`, no token. The models that are
live on the Hub are named with their commit, so the Space downloads them while it is built.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.errors import ConfigError, HubError
from core.settings import Settings
from hub.publish import live_on_hub, patiently
from hub.remote import (
    MAIN,
    connect,
    head_of,
    is_offline,
    make_repository,
    mapped,
    refuse_half_a_name,
    repository,
    verify,
)
from models import names

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ROOT: Final = Path(__file__).resolve().parent.parent
# active_learning reads the records of training runs, and the source of all that runs is offered.
_ROOMS: Final = ("core", "models", "training", "hub", "active_learning", "demo")
_TOP: Final = ("app.py", "LICENSE", "pyproject.toml", "packages.txt", "ARCHITECTURE.md")
_WRITTEN: Final = ("README.md", "requirements.txt", ".env")
_KINDS: Final = frozenset(
    {".py", ".css", ".js", ".json", ".safetensors", ".jpg", ".png", ".md", ".mako", ".csv"}
)
_MOUNT: Final = "/data"
# What speaks to a PostgreSQL server: where a ledger has to lie that jobs write to (hub.jobs).
_SERVER_LEDGER: Final = ("psycopg", "psycopg-binary")
_README: Final = """---
{front}---

# Rollmark

Steel surface inspection: published defect models look at your picture, say what they see, where,
and how sure they are, and say plainly when a person should look. The code is AGPL-3.0; the app's
footer offers the source of the very version that runs.
"""


@dataclass(frozen=True, slots=True)
class Preload:
    """A model repository whose live files a Space downloads while it is built."""

    repo: str
    files: tuple[str, ...]
    commit: str

    def line(self) -> str:
        """As `preload_from_hub` wants it."""
        return f"{self.repo} {','.join(self.files)} {self.commit}"


def live_models(settings: Settings) -> tuple[Preload, ...]:
    """What of the namespace is live on the Hub, pinned; nothing without a namespace or offline.

    Raises:
        HubError: if the Hub refuses or does not answer.
    """
    hub = settings.hub
    if hub.namespace is None or is_offline(hub):
        return ()
    found = []
    for name in names():
        channel = live_on_hub(name, hub)
        if channel is not None and channel.live.commit is not None:
            files = tuple(sorted(channel.live.files))
            found.append(Preload(repository(hub.namespace, name), files, channel.live.commit))
    return tuple(found)


def prepare(
    output: Path,
    settings: Settings,
    *,
    preload: Sequence[Preload] = (),
    reviewers: Sequence[str] = (),
    keeps: bool = False,
) -> tuple[Path, ...]:
    """Write the Space's folder anew.

    Args:
        output: the folder; what an earlier call wrote there is replaced.
        settings: whose namespace the Space follows, and where bundled releases lie.
        preload: models that are downloaded while the Space is built.
        reviewers: names on the Hub of those who may act on its pages; none: signing in is off.
        keeps: whether its data is kept on a bucket that is mounted.

    Returns:
        Its files, relative to it, sorted.

    Raises:
        ConfigError: if the folder holds something else or cannot be written, or a reviewer's name
            is none.
    """
    for reviewer in reviewers:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,41}", reviewer):
            raise ConfigError(f"{reviewer!r} is no user of the Hub; names are like jane-doe.")
    front = _front_matter(preload, oauth=bool(reviewers))
    tested = _pins("requirements-dev.txt")
    pins = _pins() | {name: tested[name] for name in _SERVER_LEDGER}
    texts = {
        "README.md": _README.format(front=front),
        "requirements.txt": "".join(f"{name}=={pin}\n" for name, pin in pins.items()),
        ".env": _environment(settings, reviewers, keeps=keeps),
    }
    try:
        return _write_anew(output, settings.paths.bundled, texts)
    except OSError as exc:
        raise ConfigError(
            f"{output} cannot be written: {exc.strerror}; name another folder."
        ) from exc


def _write_anew(output: Path, bundled: Path, texts: Mapping[str, str]) -> tuple[Path, ...]:
    """Every file of the Space; ConfigError where the folder holds something else."""
    held = {path.name for path in output.iterdir()} if output.exists() else set()
    # A checkout has an app.py, too; it must not be taken for a Space and removed.
    if held and not {"app.py"} <= held <= {*_ROOMS, *_TOP, *_WRITTEN, "__pycache__"}:
        raise ConfigError(f"{output} is not empty and no Space: name another folder.")
    shutil.rmtree(output, ignore_errors=True)
    for source, place in _sources(bundled):
        target = output / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    for name, text in texts.items():
        (output / name).write_text(text, encoding="utf-8")
    found = (path.relative_to(output) for path in output.rglob("*") if path.is_file())
    return tuple(sorted(found))


def push(
    folder: Path,
    space: str,
    settings: Settings,
    *,
    private: bool = False,
    bucket: str | None = None,
) -> str:
    """Make a Space hold exactly what is in the folder, in one commit that is read back.

    Args:
        folder: what `prepare` wrote.
        space: NAMESPACE/NAME; it is made if it does not exist.
        settings: address and token of the Hub.
        private: whether a Space that is made for it is private.
        bucket: NAMESPACE/NAME of the storage bucket to mount; None: volumes stay as they are.

    Returns:
        The commit.

    Raises:
        ConfigError: if the Hub is switched off, or a name is not NAMESPACE/NAME.
        HubError: if the Hub refuses.
        HubUnavailable: if it did not answer well in several attempts.
    """
    if is_offline(settings.hub):
        raise ConfigError("The Hub is switched off: unset ROLLMARK_HUB__OFFLINE to push a Space.")
    refuse_half_a_name("Space", space)
    if bucket is not None:
        refuse_half_a_name("bucket", bucket)
    api = connect(settings.hub)
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    commit = patiently()(_push, api, space, files, private=private)
    if bucket is not None:
        patiently()(_mount, api, space, bucket)
    return commit


def _push(api: HfApi, space: str, files: Mapping[str, bytes], *, private: bool) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    make_repository(api, space, private=private, kind="space")
    head = head_of(api, space, kind="space")
    with mapped(f"push to the Space {space}"):
        held = api.list_repo_files(space, repo_type="space", revision=head)
        stale = [name for name in held if name not in files and name != ".gitattributes"]
        made = api.create_commit(
            space,
            [
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
                *(CommitOperationAdd(path_in_repo=n, path_or_fileobj=d) for n, d in files.items()),
            ],
            commit_message="Update Rollmark",
            repo_type="space",
            revision=MAIN,
            parent_commit=head,
        )
    verify(api, space, str(made.oid), files, kind="space")
    return str(made.oid)


def _mount(api: HfApi, space: str, bucket: str) -> None:
    from huggingface_hub import Volume

    with mapped(f"mount {bucket} into the Space {space}"):
        volume = Volume(type="bucket", source=bucket, mount_path=_MOUNT)
        api.set_space_volumes(space, volumes=[volume])


def _sources(bundled: Path) -> Iterator[tuple[Path, Path]]:
    """Every file that is copied, and its place in the Space."""
    yield from ((ROOT / name, Path(name)) for name in _TOP if (ROOT / name).is_file())
    for room in _ROOMS:
        for path in sorted((ROOT / room).rglob("*")):
            place = path.relative_to(ROOT)
            is_bundled = place.parts[:2] == ("hub", "bundled")
            if path.suffix in _KINDS and path.is_file() and not is_bundled:
                yield path, place
    for path in sorted(bundled.rglob("*")):
        if path.suffix in _KINDS and path.is_file():
            yield path, Path("hub", "bundled") / path.relative_to(bundled)


def _front_matter(preload: Sequence[Preload], *, oauth: bool) -> str:
    """The checkout's own, from its README.md, with what only a made Space has."""
    from huggingface_hub import SpaceCard, SpaceCardData

    ours: dict[str, Any] = {
        "sdk_version": _pins()["gradio"],
        "suggested_hardware": "zero-a10g",
        "models": [model.repo for model in preload] or None,
        "preload_from_hub": [model.line() for model in preload] or None,
        "hf_oauth": oauth or None,
    }
    front = SpaceCardData(**{**SpaceCard.load(ROOT / "README.md").data.to_dict(), **ours})
    return f"{front.to_yaml()}\n"


def _pins(file: str = "requirements.txt") -> dict[str, str]:
    """Every package of a file of requirements with its exact version."""
    try:
        text = (ROOT / file).read_text(encoding="utf-8")
    except OSError as exc:
        raise HubError(f"{ROOT / file} is missing: check out the release again.") from exc
    found = (re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", line) for line in text.splitlines())
    return {match[1]: match[2] for match in found if match}


def _environment(settings: Settings, reviewers: Sequence[str], *, keeps: bool) -> str:
    """The Space's settings that are no secrets; those are the Space's own secrets."""
    lines = []
    if settings.hub.namespace is not None:
        lines.append(f"ROLLMARK_HUB__NAMESPACE={settings.hub.namespace}")
    if reviewers:
        lines.append(f"ROLLMARK_SERVING__REVIEWERS={','.join(reviewers)}")
    if keeps:
        lines.append(f"ROLLMARK_PATHS__KEEP={_MOUNT}")
    return "".join(f"{line}\n" for line in lines)
