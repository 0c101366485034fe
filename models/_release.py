"""A release on disk: `config.json` beside `model.safetensors`. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from core.errors import WeightsError, WeightsNotFoundError
from core.files import write_atomically
from core.records import Channel, ReleaseConfig

if TYPE_CHECKING:
    from torch import nn

CONFIG_FILE = "config.json"
CHANNEL_FILE = "channel.json"


def find_release(name: str, *, bundled: Path, releases: Path, fetched: Path | None = None) -> Path:
    """Folder of the release of `name` that is live: promoted here, fetched, or else the bundled.

    `releases/<name>/channel.json` names the live revision, whose folder lies beside it; a release
    that lies in `releases/<name>` itself is live, too. `fetched` has the same layout, kept by
    `hub.registry.refresh`; being a cache it may lose a folder, and then does not count. Without
    either the release that came with the code in `bundled/<name>` is live.

    Raises:
        WeightsNotFoundError: if there is none.
        WeightsError: if the channel file is damaged or names a revision that is not there.
    """
    channel = read_channel(releases / name)
    if channel is not None:
        folder = releases / name / channel.live
        if not (folder / CONFIG_FILE).is_file():
            raise WeightsError(
                f"The live revision {channel.live} of {name} is missing from {releases / name}."
            )
        return folder
    candidates = [releases / name, bundled / name]
    live = read_channel(fetched / name) if fetched is not None else None
    if fetched is not None and live is not None:
        candidates.insert(1, fetched / name / live.live)
    for folder in candidates:
        if (folder / CONFIG_FILE).is_file():
            return folder
    raise WeightsNotFoundError(
        f"No weights for {name}: none are bundled in {bundled} or promoted in {releases}."
    )


def read_channel(folder: Path) -> Channel | None:
    """Which revision of one model is live, or None when none was ever promoted.

    Raises:
        WeightsError: if the file is there and damaged, or cannot be read.
    """
    try:
        return Channel.model_validate_json((folder / CHANNEL_FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise _unreadable(folder / CHANNEL_FILE, exc) from exc
    except ValidationError as exc:
        raise WeightsError(f"{folder / CHANNEL_FILE} is damaged: {exc.errors()[0]['msg']}") from exc


def read_release(folder: Path) -> ReleaseConfig:
    """The description of the release in `folder`.

    Raises:
        WeightsNotFoundError: if there is no config.json.
        WeightsError: if it is not one of ours, or cannot be read.
    """
    path = folder / CONFIG_FILE
    try:
        return ReleaseConfig.model_validate_json(path.read_bytes())
    except FileNotFoundError as exc:
        raise WeightsNotFoundError(f"No release in {folder}: {CONFIG_FILE} is missing.") from exc
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise WeightsError(f"{path} is not a Rollmark release: {where}: {first['msg']}.") from exc


def _unreadable(path: Path, exc: OSError) -> WeightsError:
    return WeightsError(f"{path} cannot be read: {exc.strerror or exc}.")


def write_config(folder: Path, config: ReleaseConfig) -> None:
    """Put a description into the release in `folder`, whole or not at all."""
    text = config.model_dump_json(indent=2) + "\n"
    write_atomically(folder / CONFIG_FILE, text.encode())


def read_weights(folder: Path, config: ReleaseConfig) -> bytes:
    """The weights file of a release, its SHA-256 checked.

    Raises:
        WeightsNotFoundError: if the weights file is missing.
        WeightsError: if its hash is not the recorded one.
    """
    return read_side_file(folder, config.weights_file, config.weights_sha256)


def read_side_file(folder: Path, file: str, sha256: str) -> bytes:
    """A file that a release's config promises, its SHA-256 checked.

    Raises:
        WeightsNotFoundError: if the file is missing.
        WeightsError: if its hash is not the promised one.
    """
    path = folder / file
    if not path.is_file():
        raise WeightsNotFoundError(f"No weights in {folder}: {file} is missing.")
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise _unreadable(path, exc) from exc
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        raise WeightsError(
            f"{path} has SHA-256 {digest[:12]}…, but its config.json promises {sha256[:12]}…: "
            "fetch the release again."
        )
    return data


def load_weights(network: nn.Module, folder: Path, config: ReleaseConfig) -> None:
    """Fill `network` with the release's weights, after checking their SHA-256.

    Raises:
        WeightsNotFoundError: if the weights file is missing.
        WeightsError: if its hash is not the recorded one or the tensors do not fit.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_weights(folder, config)
    try:
        network.load_state_dict(load(data), strict=True)  # load_state_dict casts fp16 to fp32
    except (RuntimeError, SafetensorError) as exc:
        reason = str(exc).splitlines()[-1].strip().rstrip(".")
        raise WeightsError(f"The weights in {folder} do not fit {config.name}: {reason}.") from exc


def load_network(folder: Path, config: ReleaseConfig) -> nn.Module:
    """The network of a release with its verified weights, in torch, not yet fused or moved.

    Raises:
        WeightsNotFoundError: if the weights file is missing.
        WeightsError: if the weights fail their hash or do not fit.
        UnknownModelError: if the release names a model this code does not have.
    """
    from models import get_spec

    network = get_spec(config.name).build(len(config.labels), config.scale)
    load_weights(network, folder, config)
    return network
