"""Whether the app can listen where its settings say, found out before anything is loaded."""

from __future__ import annotations

import errno
import os
import socket
from typing import Final

from core.errors import ConfigError
from core.settings import ServingSettings

_HERE: Final = "127.0.0.1"  # Gradio wants the port there, too, whatever the host


def check_address(serving: ServingSettings) -> None:
    """Make sure that nobody else listens there and that this machine has such an address.

    A Space says itself where to listen; there nothing is checked.

    Raises:
        ConfigError: with the setting to change.
    """
    if os.environ.get("SPACE_ID"):
        return
    for host in dict.fromkeys((serving.host, _HERE)):
        try:
            _bind(host, serving.port)
        except OSError as exc:
            raise ConfigError(_why(host, serving.port, exc)) from exc


def reach_itself(host: str) -> None:
    """Keep the requests that Gradio sends to this very app from a proxy for the world outside.

    It asks itself at its start, and no proxy finds the way back; `no_proxy` is widened by the host.
    """
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    ours = (part.strip() for part in (*known.split(","), _HERE, "localhost", host))
    os.environ["no_proxy"] = ",".join(dict.fromkeys(filter(None, ours)))


def in_address(host: str) -> str:
    """A host as it stands in an address, before a port: an IPv6 one in brackets."""
    return f"[{host}]" if ":" in host else host


def _bind(host: str, port: int) -> None:
    """Listen for a moment."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        # Or what an app that has just ended leaves behind would count as somebody.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def _why(host: str, port: int, exc: OSError) -> str:
    if exc.errno == errno.EADDRINUSE:
        return (
            f"Another program listens at {in_address(host)}:{port} already, perhaps Rollmark "
            "itself: end it, or set ROLLMARK_SERVING__PORT to another port."
        )
    if exc.errno in (errno.EACCES, errno.EPERM):
        return (
            f"This user may not listen on port {port}: set ROLLMARK_SERVING__PORT to one from 1024 "
            "on."
        )
    return (
        f"This machine has no address {host!r} ({exc.strerror}): set ROLLMARK_SERVING__HOST to one "
        "of its own, such as 127.0.0.1, or to 0.0.0.0 for all of them."
    )
