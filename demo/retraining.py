"""What the training page shows and does, without any component: runs, curves, releases, roll-back.

It reads the ledger and what a run has written into its folder; nothing is trained by the app.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from active_learning.desk import Desk
from active_learning.outlook import Outlook, outlook
from active_learning.overview import QueueReader
from active_learning.retraining import RetrainingRun, RetrainingRuns
from core.errors import InputError
from core.records import ReleaseConfig
from core.settings import Settings
from core.verdicts import PRIMARY
from demo.service import Service
from hub.moves import roll_back
from models._release import read_channel

_HISTORY: Final = 12  # runs listed
_LOG_LINES: Final = 12
_LOG_BYTES: Final = 8192  # read from the end of a run's log


@dataclass(frozen=True, slots=True)
class Curve:
    """The deciding metric on the validation split, by epoch."""

    metric: str
    points: tuple[tuple[int, float], ...]  # epoch from 1, fraction


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything the page shows about one model."""

    config: ReleaseConfig  # of the live release
    source: str
    outlook: Outlook
    runs: tuple[RetrainingRun, ...]  # newest first
    curve: Curve  # of the newest run
    log: tuple[str, ...]  # last lines of the newest run
    back_to: str | None  # revision that a roll-back returns to

    @property
    def newest(self) -> RetrainingRun | None:
        """The run that the page tells of first."""
        return self.runs[0] if self.runs else None


class Retrainings:
    """Retraining behind the page; all methods may be called from any thread.

    Args:
        service: whose models and ledger these are.
        settings: of this installation.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._reader = QueueReader()

    def models(self) -> tuple[tuple[str, str], ...]:
        """Title and name of each served model; one with an open run or the latest run is first."""
        runs = RetrainingRuns(self._desk().ledger, who="app").newest(limit=1)
        first = runs[0].model if runs else ""
        served = [(r.config.title, r.config.name) for r in self._service.releases()]
        return tuple(sorted(served, key=lambda named: (named[1] != first, named[1])))

    def now(self) -> datetime:
        """The ledger's time."""
        return self._desk().ledger.clock.now()

    def mark(self, model: str) -> tuple[object, ...]:
        """Changes whenever the page of a model should; times on it are kept fresh each minute."""
        desk = self._desk()
        runs = RetrainingRuns(desk.ledger, who="app").newest(model=model, limit=1)
        at = runs[0].updated_at if runs else None
        live = self._service.choose(model).config.revision
        return (
            model,
            self._reader.mark(desk),
            at,
            live,
            self.now().replace(second=0, microsecond=0),
        )

    def picture(self, model: str) -> Picture:
        """One model.

        Raises:
            UnknownModelError: if no served model has that name.
            LedgerError: if the ledger cannot be read.
        """
        release = self._service.choose(model)
        desk = self._desk()
        runs = RetrainingRuns(desk.ledger, who="app").newest(model=model, limit=_HISTORY)
        folder = self._settings.paths.runs / runs[0].id if runs else None
        channel = read_channel(self._settings.paths.releases / model)
        metric = PRIMARY[release.config.task]
        return Picture(
            config=release.config,
            source=release.source,
            outlook=outlook(self._settings, desk, release),
            runs=runs,
            curve=Curve(metric, read_curve(folder, metric) if folder else ()),
            log=read_tail(folder) if folder else (),
            back_to=channel.previous[0] if channel and channel.previous else None,
        )

    def go_back(self, model: str, expected: str) -> tuple[str, str]:
        """Return to the release before the live one.

        Args:
            model: its name.
            expected: the revision that the person was told of; another one is not gone back to.

        Returns:
            The revisions before and after.

        Raises:
            InputError: if the release before is another one by now, or there is none.
            HubError: if the Hub refuses; this machine has moved then.
            WeightsError: if the release before is damaged; then nothing has changed.
        """
        channel = read_channel(self._settings.paths.releases / model)
        found = channel.previous[0] if channel and channel.previous else None
        if channel is None or found != expected:
            raise InputError(
                f"The release before is {found or 'none'} by now, not {expected}: look again."
            )
        roll_back(model, self._settings, why="asked for on the Training page")
        return channel.live, expected

    def _desk(self) -> Desk:
        return self._service.review.open(self._service.releases())


def read_curve(folder: Path, metric: str) -> tuple[tuple[int, float], ...]:
    """Epochs and values of a metric from a run's metrics.csv; empty while there is none."""
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return ()
    return tuple((int(float(r["epoch"])), float(r[metric])) for r in rows if r.get(metric))


def read_tail(folder: Path) -> tuple[str, ...]:
    """The last lines of a run's log; empty while there is none."""
    try:
        with (folder / "log.txt").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(text.splitlines()[-_LOG_LINES:])
