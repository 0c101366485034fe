"""`python -m active_learning.serve_label_studio`: a local Label Studio, ready for Rollmark.

Label Studio runs from an environment of its own, `.venv-label-studio`, because it pins what ours
must not carry. It listens on this machine alone, keeps everything in one folder, and sends nothing
to anyone: error reports, analytics and the look for updates are switched off.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer

from core.ending import end_on_sigterm
from core.errors import ConfigError, LabelStudioError, WeightsNotFoundError

HOST: Final = "127.0.0.1"
_PORT: Final = 8080
USER: Final = "rollmark@localhost.local"
_ROOT: Final = Path(__file__).resolve().parent.parent
_PROGRAM: Final = _ROOT / ".venv-label-studio" / "bin" / "label-studio"
_START_S: Final = 600.0  # the first start makes the database, which takes minutes on a slow disk
_STOP_S: Final = 30.0
_QUIET: Final = {
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
}


def start(
    data: Path,
    *,
    port: int,
    password: str,
    token: str,
    environment: Mapping[str, str] | None = None,
    log: int | None = None,
) -> subprocess.Popen[bytes]:
    """Start a server; it answers some time later, see `wait_until_up`.

    Args:
        data: folder for its database and uploads.
        port: TCP port on this machine.
        password: of the user `USER`, made at the first start.
        token: legacy token of that user, 40 hexadecimal digits.
        environment: variables on top of ours.
        log: file descriptor for its output; by default ours.

    Raises:
        ConfigError: if Label Studio is not installed.
    """
    if not _PROGRAM.exists():
        raise ConfigError(
            f"Label Studio is not installed in {_PROGRAM.parents[1]}: run `make label-studio`."
        )
    data.mkdir(parents=True, exist_ok=True)
    command = [str(_PROGRAM), "start", "--no-browser", "--port", str(port)]
    command += ["--internal-host", HOST, "--username", USER, "--enable-legacy-api-token"]
    ours = {**_QUIET, "LABEL_STUDIO_BASE_DATA_DIR": str(data)}
    # Not as arguments: those can be read by every user of the machine.
    ours |= {"LABEL_STUDIO_PASSWORD": password, "LABEL_STUDIO_USER_TOKEN": token}
    return subprocess.Popen(
        command,
        env={**os.environ, **ours, **(environment or {})},
        cwd=data,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
    )


def wait_until_up(
    server: subprocess.Popen[bytes], url: str, *, timeout_s: float = _START_S
) -> None:
    """Wait for a server's first answer.

    Raises:
        LabelStudioError: if it ends or says nothing in time.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise LabelStudioError(
                f"Label Studio ended with code {server.returncode} at its start."
            )
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise LabelStudioError(
        f"Label Studio at {url} did not answer within {timeout_s:.0f} s; started again, it goes on "
        "where it was."
    )


def main(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="TCP port; default: ROLLMARK_LABEL_STUDIO__URL's."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of its data; default: label-studio in ours.")
    ] = None,
) -> None:
    """Start a local Label Studio with a project for Rollmark, and say how to connect."""
    from core.errors import RollmarkError
    from core.settings import load_settings

    try:
        settings = load_settings()
        port = port or _port_of(settings.label_studio.url)
        _refuse_taken(port)
        folder = (data or settings.paths.data / "label-studio").resolve()
        password, token = _credentials(folder)
        url = f"http://{HOST}:{port}"
        with (folder / "server.log").open("ab") as log:
            server = start(folder, port=port, password=password, token=token, log=log.fileno())
        try:
            typer.echo(f"Starting Label Studio at {url}; its log is {folder / 'server.log'}.")
            wait_until_up(server, url)
            project = settings.label_studio.project
            typer.echo(f"Up. In a browser: {url}, user {USER}, password {password}")
            typer.echo(_prepare(url, token, project))
            typer.echo(
                f"To connect Rollmark, put these lines into .env:\n"
                f"ROLLMARK_LABEL_STUDIO__URL={url}\n"
                f"ROLLMARK_LABEL_STUDIO__TOKEN={token}\n"
                "and start the app again. Stop Label Studio with Ctrl+C."
            )
            code = server.wait()
            raise LabelStudioError(
                f"Label Studio ended by itself with code {code}; {folder / 'server.log'} says more."
            )
        except KeyboardInterrupt:
            typer.echo("Stopped.")
        finally:
            _end(server)
    except RollmarkError as exc:
        typer.echo(" ".join(str(exc).split()), err=True)
        raise typer.Exit(1) from exc


def _end(server: subprocess.Popen[bytes]) -> None:
    """End a server, by force where it does not hear."""
    server.terminate()
    try:
        server.wait(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _port_of(url: str) -> int:
    """The port at which the settings look for a server on this machine; 8080 where elsewhere."""
    address = urlsplit(url)
    here = address.scheme == "http" and address.hostname in (HOST, "localhost")
    return (address.port or _PORT) if here else _PORT


def _refuse_taken(port: int) -> None:
    """Refuse a port at which something listens, before a database is made in vain.

    Raises:
        ConfigError: if it is taken.
    """
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            raise ConfigError(
                f"Something listens at {HOST}:{port} already; if it is no Label Studio that you "
                "started, take another port: "
                "`.venv/bin/python -m active_learning.serve_label_studio --port N`."
            )


def _prepare(url: str, token: str, project: str) -> str:
    """Make the project that Rollmark sends to; what became of it in a sentence."""
    from pydantic import SecretStr

    from active_learning.desk import served_classes
    from active_learning.label_studio import LabelStudio
    from core.settings import LabelStudioSettings, load_settings

    try:
        labelling, _ = served_classes(load_settings())
    except WeightsNotFoundError:
        return "No model is here yet; the project is made with the first image that is sent."
    settings = LabelStudioSettings(url=url, token=SecretStr(token), project=project)
    with LabelStudio(settings) as studio:
        made = studio.project(project, labelling)
    return f"Project {made.title!r} is ready: {url}/projects/{made.id}"


def _credentials(folder: Path) -> tuple[str, str]:
    """Password and token of this folder's server, drawn at its first start; for its owner alone."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "credentials"
    try:
        password, token = file.read_text(encoding="ascii").split()
    except (FileNotFoundError, ValueError):  # one that was cut off has started no server yet
        password, token = secrets.token_urlsafe(12), secrets.token_hex(20)
        handle, name = tempfile.mkstemp(prefix=".credentials.", dir=folder)  # its owner's alone
        with os.fdopen(handle, "w", encoding="ascii") as out:
            out.write(f"{password}\n{token}\n")
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(file)
    return password, token


if __name__ == "__main__":
    end_on_sigterm()  # or Label Studio would stay behind
    typer.run(main)
