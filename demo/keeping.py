"""The app's data across restarts of a machine that forgets: brought back first, copied last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from core.settings import PathSettings


@contextmanager
def kept(paths: PathSettings) -> Iterator[None]:
    """Bring back what is missing, copy what is new every minute and at the end.

    Without `paths.keep` nothing happens.

    Raises:
        ConfigError: if the folder is not there, or no copy of the ledger is sound.
    """
    if paths.keep is None:
        yield
        return
    from hub.keep import Keeper

    keeper = Keeper(paths)
    keeper.restore()
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()
