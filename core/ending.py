"""SIGTERM, heard: how containers, service managers and schedulers ask a process to end.

By itself SIGTERM ends a Python process on the spot: no lease is given back, no temporary folder
removed. And the first process of a container does not hear it at all, for the kernel spares that
one every signal that it has not asked for; it is killed when the grace is over.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from types import FrameType
from typing import Final, NoReturn

from core.scratch import forget_scratch

CUT_SHORT: Final = 128 + signal.SIGTERM  # what a shell, too, says of a process that it ended


def end_on_sigterm(status: int = CUT_SHORT) -> None:
    """Let SIGTERM end the main thread as an exception does, through every `finally`.

    Args:
        status: exit code of a process that ends by it.
    """

    def end(_: int, __: FrameType | None) -> None:
        raise SystemExit(status)

    signal.signal(signal.SIGTERM, end)


def end_undisturbed() -> None:
    """Ignore further SIGTERMs, so that none of them breaks off what the first one began."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def leave(status: int) -> NoReturn:
    """End this process now: Python itself would wait for its threads, and one may take minutes.

    What they write is written so that it may be cut off anywhere.
    """
    forget_scratch()
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)
