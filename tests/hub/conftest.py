"""What the tests of this room share: the loopback Hub and an installation that publishes to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from core.settings import Settings
from tests.hub.hub_server import HubServer
from tests.hub.loopback import settings_for
from tests.records import write_folder


@pytest.fixture
def hub(loopback_hub: HubServer) -> HubServer:
    """A Hub on the loopback in which `acme` (token hf_write) may write."""
    return loopback_hub


@pytest.fixture
def settings(hub: HubServer, tmp_path: Path) -> Settings:
    """An installation of acme's that reads and publishes at the loopback."""
    return settings_for(hub, tmp_path / "first")


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., Path]:
    """Writes a release whose weights are the given bytes; the folder."""

    def write(weights: bytes, **changes: object) -> Path:
        folder = tmp_path / "runs" / weights.decode()
        write_folder(folder, weights, **changes)
        return folder

    return write
