"""What the tests of this room share: the loopback Hub and an installation that publishes to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings import Settings
from tests.hub.hub_server import HubServer
from tests.hub.loopback import settings_for


@pytest.fixture
def hub(loopback_hub: HubServer) -> HubServer:
    """A Hub on the loopback in which `acme` (token hf_write) may write."""
    return loopback_hub


@pytest.fixture
def settings(hub: HubServer, tmp_path: Path) -> Settings:
    """An installation of acme's that reads and publishes at the loopback."""
    return settings_for(hub, tmp_path / "first")
