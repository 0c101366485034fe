"""People who ask without a pause while something changes behind them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any


class Clients:
    """So many of them: which revision each answer came from, and when.

    Args:
        ask: asks once and says the answer's revision; called from several threads.
        count: of the clients.
        pause_s: between an answer and the next question of the same client.
    """

    def __init__(self, ask: Callable[[], str], *, count: int, pause_s: float = 0.0) -> None:
        self.answers: list[tuple[datetime, str]] = []
        self.failures: list[BaseException] = []
        self._ask, self._pause_s = ask, pause_s
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._go_on, daemon=True) for _ in range(count)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _go_on(self) -> None:
        while not self._over.wait(self._pause_s):
            try:
                revision = self._ask()
                self.answers.append((datetime.now(UTC), revision))
            except BaseException as exc:
                self.failures.append(exc)

    def wait_for(
        self, revision: str, *, n: int = 1, since: datetime | None = None, patience_s: float = 120
    ) -> datetime:
        """Until n answers came from a revision after a moment; when the first of them did."""
        deadline = time.monotonic() + patience_s
        while True:
            found = [
                at
                for at, name in list(self.answers)
                if name == revision and (since is None or at > since)
            ]
            if len(found) >= n:
                return found[0]
            if time.monotonic() > deadline:
                raise TimeoutError(f"{revision} did not answer {n} times: {self.failures[-1:]}")
            self._over.wait(0.01)
