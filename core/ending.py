"""Told to end: by SIGTERM, as containers, service managers and schedulers do, or by Ctrl-C.

By itself SIGTERM ends a Python process on the spot: no lease is given back, no temporary folder
removed. And the first process of a container does not hear it at all, for the kernel spares that
one every signal that it has not asked for; it is killed when the grace is over.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Final, NoReturn

from core.scratch import forget_scratch

CUT_SHORT: Final = 128 + signal.SIGTERM  # what a shell, too, says of a process that it ended
_INTERRUPTED: Final = 128 + signal.SIGINT
_AGAIN_S: Final = 0.1


def run_command(command: Callable[[], object]) -> NoReturn:
    """Run a command; told to end, it is gone as soon as its `finally` clauses are done.

    Python would first take its modules apart: with torch and Ray loaded, for seconds.
    """
    end_on_sigterm()
    try:
        command()
    except SystemExit as end:
        if end.code not in (CUT_SHORT, _INTERRUPTED):
            raise
        leave(int(end.code))
    except KeyboardInterrupt:
        leave(_INTERRUPTED)
    sys.exit()


def end_on_sigterm(status: int = CUT_SHORT) -> None:
    """Let SIGTERM end the main thread as an exception does, through every `finally`.

    Ctrl-C does so by itself. Both are often sent to all processes of a group at once; that those
    which load images for torch end as well must not become an error of this one.

    Python passes over an exception that comes while it clears something away, as it does at every
    import: then the signal is sent once more.

    Args:
        status: exit code of a process that ends by it.
    """
    told: list[BaseException] = []

    def end(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGCHLD, _do_nothing)  # one may have come, which Python would tell of
        told[:] = [KeyboardInterrupt() if number == signal.SIGINT else SystemExit(status)]
        raise told[0]

    tell, again = sys.unraisablehook, threading.Timer(0, _do_nothing)

    def passed_over(found: sys.UnraisableHookArgs) -> None:
        nonlocal again
        if not told or found.exc_value is not told[0]:
            tell(found)
        elif not again.is_alive():  # or a second one would break off what the first one began
            number = signal.SIGINT if isinstance(told[0], KeyboardInterrupt) else signal.SIGTERM
            again = threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number))
            again.start()

    sys.unraisablehook = passed_over
    signal.signal(signal.SIGTERM, end)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, end)


def _do_nothing(_: int, __: FrameType | None) -> None: ...


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
