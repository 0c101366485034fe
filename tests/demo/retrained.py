"""Retraining runs as they lie in a ledger, for pages that show them: one of every kind."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np

from active_learning._retraining_steps import rules_of
from active_learning.drift import Seen, describe
from active_learning.incoming import Incoming
from active_learning.leases import Lease, Leases
from active_learning.retraining import LEASE, PHASES, SHELF, Progress, RetrainingRun, RetrainingRuns
from core.ledger import Ledger
from core.settings import PathSettings, RetrainingSettings
from core.verdicts import PRIMARY, Decision
from hub.channel import activate
from hub.promote import gate
from hub.registry import resolve
from models._release import read_release, write_config
from tests.hub.trials import LABELS, World

NEU = dict(
    zip(
        LABELS,
        ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"),
        strict=True,
    )
)


class Retrained:
    """Writes runs under the lease, as the loop does."""

    def __init__(self, ledger: Ledger, paths: PathSettings) -> None:
        self.runs = RetrainingRuns(ledger, who="tests")
        self.leases = Leases(ledger)
        self.ledger, self.paths = ledger, paths

    def begin(self, lease: Lease, model: str, *, to: str) -> RetrainingRun:
        """A run of a model that has reached a phase."""
        live = resolve(model, self.paths).config
        run = self.runs.request(
            lease,
            model=model,
            dataset=live.dataset,
            why="52 of 50 newly reviewed images.",
            incumbent=live.revision,
        )
        run = self.runs.take_up(run, lease)
        for phase in PHASES[2 : PHASES.index(to) + 1]:
            run = self.runs.reach(run, lease, phase)  # type: ignore[arg-type]
        return run

    def promoted(self, model: str, *, candidate: Path, gain: float = 0.12) -> None:
        """A run whose candidate is live now."""
        with self.leases.hold("tests", ttl_s=60) as lease:
            run = self.begin(lease, model, to="evaluated")
            revision = read_release(candidate).revision
            verdict = decision(model, run.incumbent or "", revision, gain=gain)
            assert verdict.promote
            run = self.runs.reach(
                run, lease, "gate", decision=verdict.model_dump(mode="json"), candidate=revision
            )
            run = self.runs.reach(run, lease, "published")
            activate(candidate, self.paths, who="tests", why=verdict.reasons[0])
            run = self.runs.reach(run, lease, "activated")
            self.runs.end(run, lease, "promoted", verdict.reasons)
            self.curve(run, epochs=20)

    def refused(self, model: str, *, candidate: Path | None = None) -> None:
        """A run whose candidate has forgotten a class; its release lies there if one is given."""
        revision = read_release(candidate).revision if candidate else "f" * 12
        with self.leases.hold("tests", ttl_s=60) as lease:
            run = self.begin(lease, model, to="evaluated")
            verdict = decision(model, run.incumbent or "", revision, gain=0.1, broken="pitted")
            run = self.runs.reach(
                run, lease, "gate", decision=verdict.model_dump(mode="json"), candidate=revision
            )
            self.runs.end(run, lease, "refused", verdict.reasons)
        if candidate is not None:
            shutil.copytree(candidate, self.paths.runs / run.id / SHELF)

    def training(self, model: str) -> None:
        """A run in its third epoch of twenty, with a process at work on it for the next hour."""
        self.leases.acquire(LEASE, ttl_s=3600)
        with self.leases.hold("tests", ttl_s=60) as lease:
            run = self.begin(lease, model, to="training")
            self.runs.tell(run, lease, Progress(epoch=3, epochs=20, left_s=720.0))
            self.curve(run, epochs=3)

    def parked(self, model: str) -> None:
        """A run that failed five times."""
        with self.leases.hold("tests", ttl_s=60) as lease:
            run = self.begin(lease, model, to="training")
            for _ in range(4):
                self.runs.take_up(run, lease)
            self.runs.fail(run, lease, "the disk is full: free some space.")

    def curve(self, run: RetrainingRun, *, epochs: int) -> None:
        """What the run has written into its folder."""
        metric = PRIMARY[resolve(run.model, self.paths).config.task]
        curve(self.paths.runs / run.id, epochs=epochs, metric=metric)

    def drifted(self, model: str) -> None:
        """Inspections that are darker than what the release was trained on."""
        rng = np.random.default_rng(0)
        rows = [(float(b), float(c)) for b, c in rng.normal((0.5, 0.15), 0.05, (400, 2))]
        opinions = [(label, float(p)) for label in NEU.values() for p in rng.normal(0.8, 0.1, 50)]
        folder = resolve(model, self.paths).folder
        reference = describe(rows, opinions).model_dump(mode="json")
        config = read_release(folder).model_copy(update={"drift": reference})
        write_config(folder, config)
        seen = [
            Seen(float(b), float(c), label, float(p))
            for (b, c, p), label in zip(
                rng.normal((0.47, 0.155, 0.79), (0.05, 0.05, 0.1), (240, 3)),
                list(NEU.values()) * 40,
                strict=True,
            )
        ]
        told = [(model, config.revision, one) for one in seen]
        Incoming(self.ledger, window=500).add(told)


def decision(
    model: str, incumbent: str, candidate: str, *, gain: float, broken: str | None = None
) -> Decision:
    """What the gate says of a candidate truly better by `gain`, in the classes of NEU."""
    world = World(seed=3)
    old = world.model(revision=incumbent)
    new = world.model(gain=gain, broken=broken, revision=candidate)
    said = gate(new, old, rules=rules_of(RetrainingSettings()))
    classes = tuple(c.model_copy(update={"label": NEU[c.label]}) for c in said.classes)
    return said.model_copy(update={"model": model, "classes": classes})


def curve(folder: Path, *, epochs: int, metric: str) -> None:
    """metrics.csv and log.txt of a run that rises and levels off."""
    folder.mkdir(parents=True)
    rows = [f"epoch,train_loss,{metric}"]
    lines = []
    for epoch in range(1, epochs + 1):
        value = 0.44 - 0.16 * math.exp(-epoch / 5)
        rows.append(f"{epoch},{1.6 - value},{value:.4f}")
        lines.append(f"2026-11-21 10:{epoch:02}:00 INFO epoch {epoch}/20 {metric} {value:.4f}")
    (folder / "metrics.csv").write_text("\n".join(rows) + "\n")
    (folder / "log.txt").write_text("\n".join(lines) + "\n")
