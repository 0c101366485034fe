"""`make label-studio`: where it listens, and with which credentials."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from active_learning import serve_label_studio
from active_learning.serve_label_studio import HOST, main
from tests.ports import free_port


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


def test_a_label_studio_that_ends_by_itself_is_told(tmp_path, monkeypatch):
    program = tmp_path / "label-studio"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "from http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "class Healthy(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200)\n"
        "        self.end_headers()\n"
        "HTTPServer(('127.0.0.1', int(sys.argv[4])), Healthy).handle_request()\n"
        "sys.exit(3)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(serve_label_studio, "_PROGRAM", program)
    monkeypatch.setattr(serve_label_studio, "_prepare", lambda *_: "Ready.")
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path / "data"))
    app = typer.Typer()
    app.command()(main)
    with free_port() as port:
        told = CliRunner().invoke(app, ["--port", str(port)])
    assert told.exit_code == 1
    assert told.stderr == (
        "Label Studio ended by itself with code 3; "
        f"{tmp_path / 'data' / 'label-studio' / 'server.log'} says more.\n"
    )


def test_a_label_studio_that_does_not_hear_is_ended_all_the_same(monkeypatch):
    monkeypatch.setattr(serve_label_studio, "_STOP_S", 0.1)
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True)"
    server = subprocess.Popen(
        [sys.executable, "-c", f"{deaf}; time.sleep(600)"], stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    server.stdout.readline()
    serve_label_studio._end(server)
    server.stdout.close()
    assert server.returncode == -signal.SIGKILL


def test_credentials_that_a_kill_left_empty_are_drawn_anew_for_their_owner_alone(tmp_path):
    (tmp_path / "credentials").touch(0o644)
    password, token = serve_label_studio._credentials(tmp_path)
    assert len(password) == 16
    assert len(token) == 40
    assert serve_label_studio._credentials(tmp_path) == (password, token)
    assert stat.S_IMODE((tmp_path / "credentials").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["credentials"]
