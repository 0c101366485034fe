"""A test's port is that test's alone until its server listens, and afterwards."""

from __future__ import annotations

import socket
import struct

import pytest

from tests.ports import free_port

_IP_LOCAL_PORT_RANGE = 51  # of <linux/in.h>: which ports the system may choose from for a socket


def _only(port: int) -> socket.socket:
    """A socket for which the system has one port to choose."""
    chosen = socket.socket()
    try:
        chosen.setsockopt(
            socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, struct.pack("I", port | port << 16)
        )
    except OSError:
        chosen.close()
        pytest.skip("This system chooses ports as it likes.")
    return chosen


def test_nobody_listens_at_a_free_port_until_a_server_does() -> None:
    with free_port() as port:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        for _ in range(2):  # it may be started again
            with socket.create_server(("127.0.0.1", port)):
                socket.create_connection(("127.0.0.1", port)).close()


def test_a_free_port_is_given_to_nobody_else() -> None:
    with free_port() as port, socket.create_server(("127.0.0.1", 0)) as elsewhere:
        with _only(port) as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", 0))
        with _only(port) as request, pytest.raises(OSError, match="Cannot assign"):
            request.connect(elsewhere.getsockname())
