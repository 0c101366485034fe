"""Keeping up with the Hub while the app runs: a thread of its own, so nobody waits for a network.

The app starts with what lies on this machine. What the thread fetches is noticed by `demo.loaded`,
which swaps it in without dropping a request.
"""

from __future__ import annotations

import threading

from core.settings import Settings


def follow_hub(settings: Settings) -> threading.Event | None:
    """Begin to follow what the Hub has live, if a namespace is set.

    Returns:
        What ends it when set; None if there is nothing to follow.
    """
    if settings.hub.namespace is None:
        return None
    from hub.fetch import watch

    stop = threading.Event()
    threading.Thread(target=watch, args=(settings, stop), name="follow-hub", daemon=True).start()
    return stop
