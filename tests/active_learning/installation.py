"""A whole installation in a folder: a served classifier, its data set, an answer to learn from.

Training and measuring are stood in for, so that everything around them can be killed and repeated
within a second; `tests/test_loop.py` goes round with the real ones.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from active_learning import _retraining_steps as steps
from active_learning import trial as trial_module
from active_learning.desk import Desk
from active_learning.inbox import Arrival, Inbox
from active_learning.labelling import labelling_of
from active_learning.loop import PassReport, run_once
from active_learning.queue import ReviewQueue
from active_learning.retraining import RetrainingRun, RetrainingRuns
from core.errors import TrainingError
from core.images import ImageStore
from core.ledger import Ledger, open_ledger
from core.records import Annotation, RunRecord
from core.settings import PathSettings, RetrainingSettings, Settings
from hub.registry import resolve
from tests.databases import HandClock
from tests.hub.trials import trial
from tests.records import make_evaluation, make_run, write_folder
from training import launch
from training._beginning import check_begin
from training.datasets import open_dataset
from training.runs import RunFolder

MODEL, DATASET = "mobilesteelnet", "neu-cls"
BETTER: dict[str, Any] = {"value": 0.72, "resamples": (0.71, 0.72, 0.72, 0.73)}


@dataclass
class Installation:
    """What a test holds in its hands."""

    settings: Settings
    base_id: str
    labels: tuple[str, ...]
    images: list[str]  # SHA-256 of training images
    candidate: dict[str, Any] = field(default_factory=lambda: dict(BETTER))
    failure: str = ""  # what training says instead of training
    trained: int = 0  # epochs in this process
    asked: dict[str, Any] = field(default_factory=dict)  # of the training that was begun last

    def ledger(self, *, clock: HandClock) -> Ledger:
        return open_ledger(self.settings.paths.ledger_url, clock=clock)

    def desk(self, ledger: Ledger) -> Desk:
        labelling = labelling_of([("classify", self.labels)])
        queue = ReviewQueue(
            ledger,
            ImageStore(self.settings.paths.images),
            project="Rollmark",
            config_revision=labelling.revision,
            who="tests",
        )
        inbox = Inbox(ledger, project="Rollmark", who="tests")
        return Desk(ledger, queue, inbox, labelling, {})

    def answer(self, desk: Desk, n: int, *, label: str = "crazing") -> None:
        """A person says what the first n training images are."""
        for number, sha256 in enumerate(self.images[:n], start=1):
            said = Annotation(
                image_sha256=sha256,
                width=200,
                height=200,
                label=label,
                annotator="ann",
                created_at=datetime(2026, 5, 4, tzinfo=UTC),
            )
            desk.inbox.take(
                [
                    Arrival(
                        task_id=number,
                        annotation_id=number,
                        updated_at=datetime(2026, 5, 4, 1, number, tzinfo=UTC),
                        kind="annotated",
                        image_sha256=sha256,
                        annotation=said,
                    )
                ]
            )

    def go(self, ledger: Ledger, **more: Any) -> PassReport:
        return run_once(self.settings, self.desk(ledger), **more)

    def live(self) -> str:
        return resolve(MODEL, self.settings.paths).config.revision

    def newest(self, ledger: Ledger) -> RetrainingRun:
        return RetrainingRuns(ledger, who="tests").newest(limit=1)[0]


@pytest.fixture
def installation(
    tmp_path: Path, tiny_data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Installation:
    """One classifier on the twelve images of the fixtures; two reviews are enough to train it."""
    data = tmp_path / "data"
    shutil.copytree(tiny_data_root / DATASET, data / "datasets" / DATASET)
    dataset = open_dataset(DATASET, data / "datasets")
    paths = PathSettings(data=data, runs=tmp_path / "runs", bundled=tmp_path / "bundled")
    run = make_run(
        model=MODEL, scale="light", dataset=DATASET, dataset_id=dataset.id, labels=dataset.labels
    )
    write_folder(paths.bundled / MODEL, b"old weights", run=run, task="classify")
    made = Installation(
        Settings(
            paths=paths,
            retraining=RetrainingSettings(
                min_new_annotations=2, min_urgent_annotations=2, epochs=3
            ),
        ),
        base_id=dataset.id,
        labels=dataset.labels,
        images=[
            s.sha256 for s in dataset.split("leak-free", "train") if s.splits["paper"] != "test"
        ],
    )
    monkeypatch.setattr(launch, "start_run", _trainer(made))
    monkeypatch.setattr(steps, "describe_release", _description(made))
    monkeypatch.setattr(trial_module, "compare_trials", _comparison(made))
    return made


def _trainer(made: Installation) -> Callable[..., RunRecord]:
    """Stands in for training: epochs that are counted in the run's folder and nothing else.

    What may begin, and be gone on with, is decided as by the real ones.
    """

    def start_run(
        spec: Any,
        dataset: Any,
        *,
        run_id: str,
        watch: Any,
        go_on: bool,
        epochs: int,
        batch: int,
        overrides: dict[str, Any],
        seed: int = 0,
        **more: Any,
    ) -> RunRecord:
        if made.failure:
            raise TrainingError(made.failure)
        made.asked = {"epochs": epochs, "batch": batch, "overrides": overrides, **more}
        run = RunFolder(made.settings.paths.runs / run_id)
        asked = {
            **{name: more[name] for name in ("scale", "protocol", "image_size")},
            "model": spec.name,
            "dataset_id": dataset.id,
            "epochs_planned": epochs,
            "seed": seed,
            "recipe": launch.recipe_of(spec, epochs=epochs, batch=batch, overrides=overrides),
        }
        check_begin(spec, dataset, run=run, resume=go_on, asked=asked)
        if not run.has_record():
            run.root.mkdir(parents=True, exist_ok=True)
            run.save_record(
                make_run(
                    **asked,
                    id=run_id,
                    dataset=DATASET,
                    labels=made.labels,
                    epochs=0,
                    finished_at=None,
                    wall_time_s=0.0,
                )
            )
        while (done := run.load_record().epochs) < epochs:
            made.trained += 1
            run.last.write_bytes(b"")
            record = run.update_record(epochs=done + 1, wall_time_s=60.0 * (done + 1))
            if watch(record):
                break
        if not (run.release / "config.json").is_file():
            shutil.rmtree(run.release, ignore_errors=True)
            described = make_run(
                model=MODEL, dataset=DATASET, dataset_id=dataset.id, labels=made.labels
            )
            write_folder(run.release, b"new weights", run=described, task="classify")
        return run.update_record(finished_at=datetime(2026, 5, 4, 13, tzinfo=UTC))

    return start_run


def _description(made: Installation) -> Callable[..., Any]:
    def describe(release: Path, dataset: Any, *, device: str) -> Any:
        from models._release import read_release

        return make_evaluation(read_release(release), split="val")

    return describe


def _comparison(made: Installation) -> Callable[..., Any]:
    def compare(candidate: Path, incumbent: Path, dataset: Any, **more: Any) -> Any:
        from models._release import read_release

        def tried(folder: Path, **changes: Any) -> Any:
            facts = {
                "model": MODEL,
                "revision": read_release(folder).revision,
                "dataset": DATASET,
                "test_id": dataset.test_id("leak-free", "test"),
            }
            return trial(evaluation=facts, **changes)

        return tried(candidate, **made.candidate), tried(incumbent)

    return compare
