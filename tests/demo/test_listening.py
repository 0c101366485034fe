"""Where the app listens is made sure of before anything is loaded."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from core.errors import ConfigError
from core.settings import ServingSettings
from demo.listening import check_address, in_address, reach_itself
from tests.demo.conftest import APP, served
from tests.ports import free_port

_BUSY = """
import httpx
def wait_in_vain(*_, **__):
    raise httpx.ReadTimeout("The read operation timed out")
httpx.head = wait_in_vain
"""


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_that_is_free_is_free_afterwards_too() -> None:
    with free_port() as port:
        for _ in range(2):
            check_address(ServingSettings(port=port))
            with socket.create_server(("127.0.0.1", port)):
                pass


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost", "127.0.0.2"])
def test_a_port_that_another_program_has_is_told_with_the_setting(taken: int, host: str) -> None:
    wanted = rf"listens at \S+:{taken} already, .* set ROLLMARK_SERVING__PORT to another port\.$"
    with pytest.raises(ConfigError, match=wanted):
        check_address(ServingSettings(port=taken, host=host))


def test_an_address_of_another_machine_is_told_with_the_setting() -> None:
    with pytest.raises(
        ConfigError, match=r"has no address '192\.0\.2\.7' .*ROLLMARK_SERVING__HOST"
    ):
        check_address(ServingSettings(host="192.0.2.7", port=50_000))


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_be_given_with_and_without_brackets(host: str) -> None:
    serving = ServingSettings(host=host)
    assert (serving.host, in_address(serving.host)) == ("::1", "[::1]")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"listens at \[::1\]:{port} already"):
            check_address(ServingSettings(host=host, port=port))
    check_address(ServingSettings(host=host, port=port))
    assert in_address("0.0.0.0") == "0.0.0.0"


def test_a_space_says_itself_where_to_listen(taken: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "acme/rollmark")
    check_address(ServingSettings(port=taken))


def test_a_second_app_ends_with_one_sentence(taken: int, tmp_path: Path) -> None:
    ours = {k: v for k, v in os.environ.items() if not k.startswith(("ROLLMARK_", "SPACE_"))}
    done = subprocess.run(
        [sys.executable, str(APP)],
        cwd=tmp_path,
        env=ours | {"ROLLMARK_SERVING__PORT": str(taken), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith(f"Another program listens at 127.0.0.1:{taken} already")


@pytest.mark.parametrize(
    ("known", "told"),
    [
        pytest.param({}, "127.0.0.1,localhost,::1", id="none"),
        pytest.param(
            {"NO_PROXY": "mill.example, localhost"},
            "mill.example,localhost,127.0.0.1,::1",
            id="others",
        ),
        pytest.param(
            {"NO_PROXY": "a.example", "no_proxy": "b.example"},
            "b.example,127.0.0.1,localhost,::1",
            id="the one that counts",
        ),
    ],
)
def test_the_app_is_no_address_for_a_proxy(
    known: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("no_proxy", "")  # so that it is put back
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    reach_itself("::1")
    assert os.environ["no_proxy"] == told


def test_the_app_starts_where_a_proxy_leads_out_of_the_mill(tmp_path: Path) -> None:
    """Nobody listens at the proxy; the app asks itself at its start, and must not ask there."""
    (tmp_path / "bundled").mkdir()
    proxy = {"http_proxy": "http://127.0.0.1:9", "no_proxy": "", "NO_PROXY": ""}
    with served(tmp_path, tmp_path / "bundled", **proxy) as address:
        assert address.startswith("http://127.0.0.1:")


def test_an_app_starts_that_is_too_busy_to_show_its_page_at_once(tmp_path: Path) -> None:
    """Gradio looked at it for three seconds, and then the app ended with a trace."""
    (tmp_path / "bundled").mkdir()  # no release, so that the start is quick
    (tmp_path / "sitecustomize.py").write_text(_BUSY)
    with served(tmp_path, tmp_path / "bundled", PYTHONPATH=str(tmp_path)) as address:
        assert requests.get(f"{address}/health", timeout=60).ok
