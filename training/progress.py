"""What a long run shows: a bar with loss and time left on a terminal, plain lines anywhere else.

Trainers log one line an epoch; this decides where the lines go. They always reach the run's
log.txt. They reach the screen through the entry point's handlers if it set any up, else directly.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

FORMAT = "%(asctime)s %(levelname)s %(message)s"


class TrainingProgress:
    """A bar over all batches of all epochs; silent where there is no terminal."""

    def __init__(self, *, epochs: int, batches: int, done: int, console: Console) -> None:
        self._batches = batches
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task(
            "train",
            total=epochs * batches,
            completed=done * batches,
            epoch=done,
            epochs=epochs,
            loss="–",
        )
        self._bar.start()

    def step(self, *, epoch: int, batch: int, loss: float) -> None:
        """Show that `batch` of `epoch`, both counted from 0, is done."""
        self._bar.update(
            self._task,
            completed=epoch * self._batches + batch + 1,
            epoch=epoch + 1,
            loss=f"{loss:.3f}",
        )

    def close(self) -> None:
        """Take the bar off the screen."""
        self._bar.stop()


@contextmanager
def run_log(path: Path, *, also: tuple[str, ...] = ()) -> Iterator[Console]:
    """While inside, INFO lines of `training` (and warnings of the loggers `also`) go to `path`.

    Yields:
        the console a `TrainingProgress` should draw on.
    """
    console = Console(stderr=True)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter(FORMAT))
    handlers: list[logging.Handler] = [file]
    ours = logging.getLogger("training")
    if not logging.getLogger().handlers and not ours.handlers:
        if console.is_terminal:
            screen: logging.Handler = RichHandler(console=console, show_path=False)
        else:
            screen = logging.StreamHandler()
            screen.setFormatter(logging.Formatter(FORMAT))
        handlers.append(screen)
    foreign = [logging.getLogger(name) for name in also]
    before = [(log, log.level, log.handlers[:]) for log in (ours, *foreign)]
    ours.setLevel(logging.INFO)
    for handler in handlers:
        ours.addHandler(handler)
    for log in foreign:  # theirs is not for the screen
        log.setLevel(logging.WARNING)
        log.handlers = [file]
    try:
        yield console
    finally:
        for log, level, old in before:
            log.setLevel(level)
            log.handlers = old
        file.close()
