"""What the training page shows and does, without any component: runs, curves, orders, releases.

It reads the ledger and what a run has written into its folder. Nothing is trained by the app: what
a reviewer asks for is written into the ledger, where the next pass of retraining finds it.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from active_learning.desk import Desk
from active_learning.orders import Order, Orders
from active_learning.outlook import Outlook, outlook
from active_learning.overview import QueueReader
from active_learning.presence import Watcher, watchers
from active_learning.retraining import SHELF, RetrainingRun, RetrainingRuns
from core.errors import InputError
from core.logs import masked
from core.records import Channel, ReleaseConfig, Source
from core.settings import Settings
from core.verdicts import PRIMARY
from demo.committee import sits_untuned
from demo.service import Service
from demo.telling import without_places
from demo.words import short
from hub.channel import revisions
from hub.moves import promote, roll_back
from models._release import CONFIG_FILE, read_channel

_HISTORY: Final = 12  # runs listed
_LOG_LINES: Final = 20
_LOG_BYTES: Final = 8192  # read from the end of a run's log
_LOG: Final = "log.txt"
_METRICS: Final = "metrics.csv"


@dataclass(frozen=True, slots=True)
class Curve:
    """The deciding metric on the validation split, by epoch."""

    metric: str
    points: tuple[tuple[int, float], ...]  # epoch from 1, fraction


@dataclass(frozen=True, slots=True)
class Standby:
    """A release on this machine that is not live and could be."""

    revision: str
    folder: Path
    words: str  # what it is, for people
    refused: str = ""  # why the gate refused it; "" where it did not


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything the page shows about one model."""

    config: ReleaseConfig  # of the live release
    source: Source
    outlook: Outlook
    runs: tuple[RetrainingRun, ...]  # newest first
    is_carried: bool  # a process is at work on the newest run
    order: Order | None  # the newest one, open or not
    watchers: tuple[Watcher, ...]
    curve: Curve  # of the newest run
    log: tuple[str, ...]  # last lines of the newest run
    back_to: str | None  # revision that a roll-back returns to
    standby: tuple[Standby, ...]
    namespace: str | None  # on the Hub, where moves are made, too
    budget_min: float  # longest that a run may take
    is_untuned: bool = False  # it sits in a committee that was not tuned with it as it is

    @property
    def newest(self) -> RetrainingRun | None:
        """The run that the page tells of first."""
        return self.runs[0] if self.runs else None

    @property
    def waiting(self) -> Order | None:
        """The order that nobody has taken up yet."""
        return self.order if self.order is not None and self.order.state == "open" else None


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

    def title(self, model: str) -> str:
        """What people call a model."""
        return short(self._service.choose(model).config.title)

    def now(self) -> datetime:
        """The ledger's time."""
        return self._desk().ledger.clock.now()

    def mark(self, model: str) -> tuple[object, ...]:
        """Changes whenever the page of a model should; times on it are kept fresh each minute."""
        desk = self._desk()
        runs = RetrainingRuns(desk.ledger, who="app")
        run = next(iter(runs.newest(model=model, limit=1)), None)
        folder = self._settings.paths.runs / run.id if run else None
        return (
            model,
            self._reader.mark(desk),
            (run.updated_at, runs.is_carried(run)) if run else None,
            (_stamp(folder / _LOG), _stamp(folder / _METRICS)) if folder else None,
            tuple(watcher.name for watcher in watchers(desk.ledger)),
            self._service.choose(model).config.revision,
            self.now().replace(second=0, microsecond=0),
        )

    def picture(self, model: str) -> Picture:
        """One model.

        Raises:
            UnknownModelError: if no served model has that name.
            LedgerError: if the ledger cannot be read.
            WeightsError: if a release on this machine is damaged.
        """
        release = self._service.choose(model)
        desk, paths = self._desk(), self._settings.paths
        reader = RetrainingRuns(desk.ledger, who="app")
        runs = reader.newest(model=model, limit=_HISTORY)
        folder = paths.runs / runs[0].id if runs else None
        channel = read_channel(paths.releases / model)
        metric = PRIMARY[release.config.task]
        return Picture(
            config=release.config,
            source=release.source,
            outlook=outlook(self._settings, desk, release),
            runs=runs,
            is_carried=bool(runs) and reader.is_carried(runs[0]),
            order=self._orders().newest(model),
            watchers=watchers(desk.ledger),
            curve=Curve(metric, read_curve(folder, metric) if folder else ()),
            log=read_tail(folder, self._settings) if folder else (),
            back_to=channel.previous[0] if channel and channel.previous else None,
            standby=self._standby(model, release.config.revision, runs, channel),
            namespace=self._settings.hub.namespace,
            budget_min=self._settings.retraining.time_budget_min,
            is_untuned=sits_untuned(release, self._service.choices()),
        )

    def train(self, model: str, *, who: str) -> Order:
        """Ask for a run of a model, or for its parked one to be gone on with.

        Raises:
            UnknownModelError: if no served model has that name.
            IllegalTransition: if a process is at work on a run of it.
            LedgerError: if the ledger cannot be written.
        """
        return self._orders().train(self._service.choose(model).config.name, who=who)

    def stop(self, run_id: str, *, who: str) -> Order:
        """Ask for a run to end after the epoch in hand; raises as `Orders.stop`."""
        return self._orders().stop(run_id, who=who)

    def drop(self, run_id: str, *, who: str) -> Order:
        """Ask for a parked run to be given up; raises as `Orders.drop`."""
        return self._orders().drop(run_id, who=who)

    def take_back(self, order_id: int, *, who: str) -> Order:
        """Withdraw an order that nobody has taken up; raises as `Orders.withdraw`."""
        return self._orders().withdraw(order_id, who=who)

    def go_back(self, model: str, expected: str, *, who: str) -> tuple[str, str]:
        """Return to the release before the live one.

        Args:
            model: its name.
            expected: the revision that the person was told of; another one is not gone back to.
            who: the person.

        Returns:
            The revisions before and after.

        Raises:
            InputError: if the release before is another one by now, or there is none.
            UnknownModelError: if no served model has that name.
            HubError: if the Hub refuses; this machine has moved then.
            Overtaken: if somebody was faster by a moment; then nothing has changed.
            WeightsError: if the release before is damaged; then nothing has changed.
        """
        model = self._service.choose(model).config.name  # never a path
        channel = read_channel(self._settings.paths.releases / model)
        found = channel.previous[0] if channel and channel.previous else None
        if channel is None or found != expected:
            raise InputError(
                f"The release before is {found or 'none'} by now, not {expected}: look again."
            )
        why = f"asked for by {who} on the page"
        roll_back(model, self._settings, why=why, to=expected)  # two who ask at once go back one
        return channel.live, expected

    def put_live(self, model: str, revision: str, *, who: str) -> tuple[str, str]:
        """Make a release that stands by the live one.

        Returns:
            The revisions before and after.

        Raises:
            InputError: if no such release stands by.
            HubError: if the Hub refuses; this machine has moved then.
            WeightsError: if the release is damaged; then nothing has changed.
        """
        picture = self.picture(model)
        chosen = next((one for one in picture.standby if one.revision == revision), None)
        if chosen is None:
            there = ", ".join(one.revision for one in picture.standby) or "none"
            raise InputError(f"No release {revision[:20]!r} of {model} stands by. There: {there}.")
        against = ", against the gate" if chosen.refused else ""
        why = f"asked for by {who} on the page{against}"
        promote(picture.config.name, chosen.folder, self._settings, why=why)
        return picture.config.revision, revision

    def _standby(
        self,
        model: str,
        live: str,
        runs: tuple[RetrainingRun, ...],
        channel: Channel | None,
    ) -> tuple[Standby, ...]:
        """What could be put live: what lies with the releases, then refused candidates."""
        paths = self._settings.paths
        before = channel.previous if channel else ()
        found: dict[str, Standby] = {}
        for revision, folder in revisions(model, paths).items():
            words = "was live before" if revision in before else "was live once"
            if folder.parent == paths.bundled:
                words = "comes with the code"
            elif folder.parent.parent == paths.fetched:
                words = "from the Hub"
            found[revision] = Standby(revision, folder, words)
        for run in runs:
            shelf = paths.runs / run.id / SHELF
            if run.candidate and run.state == "refused" and (shelf / CONFIG_FILE).is_file():
                words = f"refused {run.updated_at:%-d %b %H:%M}"
                refused = Standby(run.candidate, shelf, words, " ".join(run.reasons))
                found.setdefault(run.candidate, refused)
        return tuple(one for revision, one in found.items() if revision != live)

    def _orders(self) -> Orders:
        return Orders(self._desk().ledger, lasts_h=self._settings.retraining.order_hours)

    def _desk(self) -> Desk:
        return self._service.review.open(self._service.releases())


def read_curve(folder: Path, metric: str) -> tuple[tuple[int, float], ...]:
    """Epochs and values of a metric from a run's metrics.csv; empty while there is none."""
    try:
        with (folder / _METRICS).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError:
        return ()
    return tuple((int(float(r["epoch"])), float(r[metric])) for r in rows if r.get(metric))


def read_tail(folder: Path, settings: Settings) -> tuple[str, ...]:
    """The last lines of a run's log without secrets and places; empty while there is none."""
    try:
        with (folder / _LOG).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ()
    return tuple(without_places(masked(text, settings)).splitlines()[-_LOG_LINES:])


def _stamp(file: Path) -> tuple[int, int]:
    """Changes whenever a file does."""
    try:
        found = file.stat()
    except OSError:
        return (0, 0)
    return (found.st_mtime_ns, found.st_size)
