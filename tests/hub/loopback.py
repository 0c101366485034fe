"""The loopback Hub, and a huggingface_hub that neither waits, nor uses Xet, nor knows a token."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from core.settings import HubSettings, PathSettings, Settings
from tests.hub.hub_server import HubServer, serve


@pytest.fixture
def loopback_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A Hub on the loopback in which `acme` (token hf_write) may write."""
    import huggingface_hub.constants as constants
    import huggingface_hub.file_download as downloads
    import huggingface_hub.utils._http as transport
    import tenacity.nap as pauses

    hurried = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
    for module in (transport, downloads, pauses):  # nobody waits between attempts
        monkeypatch.setattr(module, "time", hurried)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # the loopback stores by LFS
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serve() as server:
        yield server
    transport.close_session()


def settings_for(hub: HubServer, root: Path, **changes: object) -> Settings:
    """One more installation; `changes` replace fields of its Hub group."""
    fields = {"namespace": "acme", "token": "hf_write", "endpoint": hub.endpoint, **changes}
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        paths=PathSettings(data=root / "data", bundled=root / "bundled"),
        hub=HubSettings.model_validate(fields),
    )
