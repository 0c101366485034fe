"""The app's data across restarts of a machine that forgets: brought back first, copied last."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from core.settings import PathSettings


@contextmanager
def kept(paths: PathSettings) -> Iterator[None]:
    """Bring back what is missing, copy what is new every minute and at the end.

    Without `paths.keep` nothing happens. With it, a request to end (SIGTERM, as a Space sends it)
    becomes an orderly one, so that the last copy is made.

    Raises:
        ConfigError: if the folder is not there, or no copy of the ledger is sound.
    """
    if paths.keep is None:
        yield
        return
    from hub.keep import Keeper

    keeper = Keeper(paths)
    keeper.restore()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _end)
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


def _end(_: int, __: FrameType | None) -> None:
    sys.exit(0)
