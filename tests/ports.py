"""Ports for servers that tests start."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def free_port() -> Iterator[int]:
    """A port of this machine at which nobody listens but whom the test tells of it.

    It stays bound for the length of the block. One that is let go of is given away again before a
    server that takes its time has come to listen: to another test's server, or to a request that
    some process sends. A server may listen at one that is bound and not listened at, if it sets
    SO_REUSEADDR, as servers do that can be started again at once.
    """
    with socket.socket() as kept:
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]
