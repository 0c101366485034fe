"""The work of each phase of a retraining run: what `loop` conducts, one step at a time.

A step may be killed and done again. It looks at what the ledger and the run's folder hold, does
what is missing, and records the next phase as its last act.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from active_learning.desk import Desk
from active_learning.fine_tuning import choices
from active_learning.going_live import taken_back
from active_learning.leases import Lease
from active_learning.outlook import versions_of
from active_learning.retraining import SHELF, Progress, RetrainingRun, RetrainingRuns
from core.errors import DatasetError, LedgerError, Overtaken, WeightsError
from core.files import write_atomically
from core.records import Evaluation, Record, RunRecord
from core.settings import RetrainingSettings, Settings
from core.verdicts import Decision, Trial
from hub.channel import activate
from hub.promote import GateRules, gate
from hub.registry import Release, resolve
from hub.remote import is_offline
from hub.shelf import shelve
from training.runs import RunFolder

if TYPE_CHECKING:
    from training.datasets import Dataset

logger = logging.getLogger(__name__)

TRIALS_FILE: Final = "trials.json"


class Interrupted(Exception):
    """The process was asked to stop; the run is laid down and goes on in the next pass."""


class Trials(Record):
    """What the gate is given, kept in the run's folder."""

    candidate: Trial
    incumbent: Trial
    validation: Evaluation  # of the candidate


class Steps:
    """The steps of one pass.

    Args:
        settings: of this installation.
        desk: of its labelling project.
        runs: where phases are recorded.
        lease: under which this process writes.
        is_stopped: whether the process was asked to stop.
    """

    def __init__(
        self,
        settings: Settings,
        desk: Desk,
        runs: RetrainingRuns,
        lease: Lease,
        *,
        is_stopped: Callable[[], bool],
    ) -> None:
        self.is_stopped = is_stopped
        self._settings = settings
        self._desk = desk
        self._runs = runs
        self._lease = lease

    def next(self, run: RetrainingRun) -> RetrainingRun:
        """Do what leads to the phase after the one a run is in.

        Raises:
            RollmarkError: whatever stands in the way.
            Interrupted: if the process was asked to stop.
        """
        match run.phase:
            case "leased":
                return self._freeze(run)
            case "snapshot":
                progress = Progress(epochs=self._settings.retraining.epochs)
                told = progress.model_dump(mode="json")
                return self._runs.reach(run, self._lease, "training", progress=told)
            case "training":
                return self._train_and_measure(run)
            case "evaluated":
                return self._judge(run)
            case "gate":
                return self._publish(run)
            case "published":
                return self._go_live(run)
            case "activated":  # left by an older release, which ended a run in a step of its own
                return self._runs.end(run, self._lease, "promoted", self._verdict(run).reasons)
            case _:
                raise LedgerError(f"Run {run.id} is open in phase {run.phase}, which cannot be.")

    def _freeze(self, run: RetrainingRun) -> RetrainingRun:
        version = versions_of(self._settings, self._desk).next_version(run.dataset)
        return self._runs.reach(run, self._lease, "snapshot", version=version.id)

    def _train_and_measure(self, run: RetrainingRun) -> RetrainingRun:
        from active_learning.trial import compare_trials, read_golden, refuse_strangers
        from models import choose_device, use_threads

        settings = self._settings
        use_threads(settings.serving.threads)
        device = choose_device(settings.serving.device)
        dataset = self._dataset(run)
        incumbent = resolve(run.model, settings.paths)
        # told before hours of training, and read again after them
        refuse_strangers(read_golden(settings.retraining.golden), dataset)
        self._train(run, incumbent, dataset, device)
        folder = RunFolder(settings.paths.runs / run.id)
        validation = describe_release(folder.release, dataset, device=device)
        candidate, live = compare_trials(
            folder.release,
            incumbent.folder,
            dataset,
            golden=read_golden(settings.retraining.golden),
            device=device,
        )
        trials = Trials(candidate=candidate, incumbent=live, validation=validation)
        write_atomically(folder.root / TRIALS_FILE, trials.model_dump_json().encode())
        return self._runs.reach(
            run,
            self._lease,
            "evaluated",
            candidate=candidate.evaluation.revision,
            incumbent=incumbent.config.revision,
        )

    def _train(self, run: RetrainingRun, incumbent: Release, dataset: Dataset, device: str) -> None:
        """Fine-tune the incumbent in the run's folder, or go on with it there."""
        from models import get_spec
        from training.launch import start_run

        spec, folder = get_spec(run.model), RunFolder(self._settings.paths.runs / run.id)
        if folder.has_record() and folder.load_record().finished_at is not None:
            return
        start_run(
            spec,
            dataset,
            runs_root=self._settings.paths.runs,
            run_id=run.id,
            device=device,
            workers=0 if spec.task == "detect" else 2,
            go_on=True,
            watch=lambda record: self._look_at(run, record),
            **choices(folder, spec, incumbent, self._settings.retraining),
        )

    def _look_at(self, run: RetrainingRun, record: RunRecord) -> bool:
        """After each epoch: tell how far it is, and whether the time is up."""
        budget_s = 60 * self._settings.retraining.time_budget_min
        epoch_s = record.wall_time_s / max(record.epochs, 1)
        left_s = min(
            epoch_s * (record.epochs_planned - record.epochs), budget_s - record.wall_time_s
        )
        progress = Progress(
            epoch=record.epochs, epochs=record.epochs_planned, left_s=max(left_s, 0.0)
        )
        self._runs.tell(run, self._lease, progress)
        if self.is_stopped():
            raise Interrupted
        return record.wall_time_s + epoch_s > budget_s

    def _judge(self, run: RetrainingRun) -> RetrainingRun:
        """Put the candidate's release together, also for a person to look at, and compare."""
        trials = self._trials(run)
        folder = RunFolder(self._settings.paths.runs / run.id)
        shelve(
            folder.release, folder.root / SHELF, (trials.candidate.evaluation, trials.validation)
        )
        decision = gate(
            trials.candidate, trials.incumbent, rules=rules_of(self._settings.retraining)
        )
        return self._runs.reach(
            run,
            self._lease,
            "gate",
            ends=None if decision.promote else ("refused", decision.reasons),
            decision=decision.model_dump(mode="json"),
        )

    def _publish(self, run: RetrainingRun) -> RetrainingRun:
        """With a namespace, put the release onto the Hub, read back."""
        if (turned := self._turned_away(run, self._verdict(run))) is not None:
            return turned
        hub, commit = self._settings.hub, None
        if hub.namespace and not is_offline(hub):
            from hub.publish import publish

            commit = publish(self._settings.paths.runs / run.id / SHELF, hub).commit
        return self._runs.reach(run, self._lease, "published", published=commit)

    def _go_live(self, run: RetrainingRun) -> RetrainingRun:
        decision = self._verdict(run)
        if (turned := self._turned_away(run, decision)) is not None:
            return turned
        shelf = self._settings.paths.runs / run.id / SHELF
        who = f"retraining@{socket.gethostname()}:{os.getpid()}"
        try:
            activate(
                shelf, self._settings.paths, who=who, why=decision.reasons[0], over=run.incumbent
            )
        except Overtaken:  # in the moment since it was asked
            return self._measure_again(run)
        run = self._runs.reach(run, self._lease, "activated", ends=("promoted", decision.reasons))
        logger.info(
            "promoted %s %s -> %s %s %.4f -> %.4f",
            *(run.model, decision.incumbent, decision.candidate),
            *(decision.metric, decision.before, decision.after),
        )
        return run

    def _verdict(self, run: RetrainingRun) -> Decision:
        if run.decision is None:
            raise LedgerError(
                f"Run {run.id} is in phase {run.phase} without a verdict of the gate."
            )
        return run.decision

    def _turned_away(self, run: RetrainingRun, decision: Decision) -> RetrainingRun | None:
        """The run in another phase or ended, if its candidate may not go out; None if it may.

        Asked before every step outwards: a pass that was killed may have got as far already, and
        people have gone on meanwhile.
        """
        if not decision.promote:
            return self._runs.end(run, self._lease, "refused", decision.reasons)
        why = taken_back(run, self._settings.paths, self._desk.ledger)
        if why is not None:
            return self._runs.end(run, self._lease, "refused", (why,))
        return self._measure_again(run) if self._is_outdated(run) else None

    def _is_outdated(self, run: RetrainingRun) -> bool:
        """Whether another release went live since the two were compared."""
        live = resolve(run.model, self._settings.paths).config.revision
        return live not in (run.incumbent, run.candidate)

    def _measure_again(self, run: RetrainingRun) -> RetrainingRun:
        logger.warning("%s is compared again: another release went live meanwhile", run.id)
        return self._runs.reach(run, self._lease, "training")

    def _dataset(self, run: RetrainingRun) -> Dataset:
        versions = versions_of(self._settings, self._desk)
        version = versions.get(run.version or "")
        if version is None:
            raise LedgerError(f"Run {run.id} names version {run.version}, which is not there.")
        return versions.open(version)

    def _trials(self, run: RetrainingRun) -> Trials:
        file = self._settings.paths.runs / run.id / TRIALS_FILE
        try:
            return Trials.model_validate_json(file.read_bytes())
        except (OSError, ValueError) as exc:
            raise WeightsError(
                f"{file} cannot be read: run `python -m active_learning run {run.model} --force`."
            ) from exc


def describe_release(release: Path, dataset: Dataset, *, device: str) -> Evaluation:
    """Teach a fresh release what it needs to be served: thresholds, probabilities, references.

    Everything is fitted on training and validation images; the test split is not read.

    Returns:
        Its evaluation on the validation split.
    """
    from active_learning.calibrate import calibrate
    from active_learning.novelty_fitting import fit_novelty
    from active_learning.ordinary import fit_ordinary
    from active_learning.thresholds import fit_thresholds
    from models import load
    from models._release import read_release
    from training.evaluate import evaluate

    if dataset.task == "segment":  # first: the rest is of what they decide
        fit_thresholds(release, dataset, device=device)
    calibrate(release, dataset, device=device)
    validation = evaluate(
        load(release, device=device),
        dataset,
        protocol=read_release(release).protocol,
        split="val",
        resamples=0,
    )
    fit_ordinary(release, dataset, device=device)
    try:
        fit_novelty(release, dataset, device=device)
    except DatasetError as exc:  # too few images; the release then knows of nothing unlike them
        logger.warning("%s", exc)
    return validation


def rules_of(settings: RetrainingSettings) -> GateRules:
    """The gate's rules as the settings have them."""
    return GateRules(
        epsilon=settings.epsilon,
        class_margin=settings.class_margin,
        min_support=settings.min_class_images,
        calibration_margin=settings.calibration_margin,
        latency_factor=settings.latency_factor,
    )
