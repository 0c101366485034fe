"""`make label-studio`: where it listens, and with which credentials."""

from __future__ import annotations

import socket
import stat

import pytest
import typer
from typer.testing import CliRunner

from active_learning import serve_label_studio
from active_learning.serve_label_studio import HOST, main


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://127.0.0.1:8085", 8085),
        ("http://localhost:8086/", 8086),
        ("http://127.0.0.1", 8080),
        ("https://labels.mill.example:8443", 8080),  # that of another machine says nothing
    ],
)
def test_it_listens_where_the_settings_will_look_for_it(url, port):
    assert serve_label_studio._port_of(url) == port


def test_a_port_that_is_taken_is_told_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path / "data"))
    app = typer.Typer()
    app.command()(main)
    with socket.create_server((HOST, 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setenv("ROLLMARK_LABEL_STUDIO__URL", f"http://{HOST}:{port}")
        told = CliRunner().invoke(app, [])
    assert told.exit_code == 1
    assert told.stderr == (
        f"Something listens at 127.0.0.1:{port} already; if it is no Label Studio that you "
        "started, take another port: "
        "`.venv/bin/python -m active_learning.serve_label_studio --port N`.\n"
    )
    assert not (tmp_path / "data").exists()


def test_credentials_that_a_kill_left_empty_are_drawn_anew_for_their_owner_alone(tmp_path):
    (tmp_path / "credentials").touch(0o644)
    password, token = serve_label_studio._credentials(tmp_path)
    assert len(password) == 16
    assert len(token) == 40
    assert serve_label_studio._credentials(tmp_path) == (password, token)
    assert stat.S_IMODE((tmp_path / "credentials").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["credentials"]
