"""Running a plan row by row: train or go on, measure once, record. Every step may be run twice.

A row's folder is an ordinary run folder, `runs/benchmark/ROW`; a killed row goes on from its
checkpoint. `evaluation.json` beside it says that the test split was read, once. Several processes
may work on one plan: a row is locked by the one that runs it, and the lock dies with the process.
"""

from __future__ import annotations

import fcntl
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from core.errors import DatasetError, RollmarkError, TrainingError
from core.files import write_atomically
from models import get_spec, load
from training.benchmark.matching import adopted_row, differences, open_row
from training.benchmark.records import UNIT, RowRecord, load_records, save_record
from training.benchmark.rows import Row
from training.datasets import open_dataset
from training.launch import start_run
from training.runs import RUN_FILE, RunFolder

logger = logging.getLogger(__name__)

FOLDER = "benchmark"  # of the rows' runs, in the folder of all runs
EVALUATION_FILE = "evaluation.json"
# The metrics of which tables show differences, and whose bootstrap is therefore kept.
COMPARED = {"detect": ("mAP50",), "segment": ("mIoU",), "classify": ("accuracy", "macro_F1")}
RESAMPLES = 1000
BOOTSTRAP_SEED = 0  # one for all rows: they draw the same images


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows are run and recorded, and with what."""

    data_root: Path
    runs_root: Path
    pages: Path
    device: str
    init: Path | None = None  # COCO arrays
    workers: int = 2

    def folder(self, row: Row) -> RunFolder:
        """The run folder of a row; it need not exist."""
        return RunFolder(self.runs_root / FOLDER / row.id)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the rows of a plan ended."""

    done: tuple[str, ...]
    busy: tuple[str, ...]  # being run by another process
    failed: tuple[tuple[str, str], ...]  # row, reason


def run_rows(
    rows: Sequence[Row],
    place: Place,
    *,
    tell: Callable[[str], None],
    after: Callable[[Row], object],
) -> Outcome:
    """Run each row that has no record yet; one that fails does not stop the others.

    Args:
        rows: in the order of running.
        place: where.
        tell: says which row begins, and how long the rest may take.
        after: called when a row's record was written.

    Raises:
        DatasetError: before anything is run, if a data set is not prepared.
    """
    for name in dict.fromkeys(row.data for row in rows):
        open_dataset(name, place.data_root)
    collect(rows, place)
    recorded = load_records(place.pages)
    left = [row for row in rows if not _is_row(recorded.get(row.id), row)]
    done = [row.id for row in rows if row not in left]
    busy: list[str] = []
    failed: list[tuple[str, str]] = []
    seconds: list[float] = []
    for k, row in enumerate(left):
        rest = ""
        if seconds:
            hours = sum(seconds) / len(seconds) * (len(left) - k) / 3600
            rest = f", about {hours:.1f} h left for the {len(left) - k} that remain"
        tell(f"row {len(done) + len(failed) + len(busy) + 1} of {len(rows)}: {row.id}{rest}")
        with _lock(place.folder(row)) as mine:
            if not mine:
                busy.append(row.id)
                tell(f"{row.id} is being run by another process")
                continue
            try:
                record = run_row(row, place)
            except RollmarkError as exc:
                logger.error("row %s failed: %s", row.id, exc)
                failed.append((row.id, str(exc)))
                continue
        seconds.append(record.run.wall_time_s)
        done.append(row.id)
        after(row)
    return Outcome(tuple(done), tuple(busy), tuple(failed))


def run_row(row: Row, place: Place) -> RowRecord:
    """Train a row or go on with it, measure it on the test split, and record it.

    Raises:
        TrainingError: if it starts from COCO arrays and none were given, or the folder of the row
            holds a run that was begun with other choices.
        RollmarkError: as training and measuring do.
    """
    run = place.folder(row)
    if (run.root / EVALUATION_FILE).is_file():  # adopted, or killed just before its record
        return _record(row, run, place)
    if row.coco and place.init is None and not run.last.is_file():
        raise TrainingError(
            f"Row {row.id} starts from COCO arrays: give them by --init FILE.npz, or choose other "
            "rows by --rows."
        )
    start_run(
        get_spec(row.model),
        open_row(row, place.data_root),
        runs_root=run.root.parent,
        run_id=row.id,
        protocol=row.protocol,
        scale=row.scale,
        epochs=row.setting.epochs,
        image_size=row.setting.image_size,
        batch=row.setting.batch,
        seed=row.seed,
        device=place.device,
        initial_weights=place.init if row.coco else None,
        overrides=row.overrides,
        workers=place.workers,
        go_on=True,
    )
    _measure(row, run, run.release, place)
    return _record(row, run, place)


def adopt(folder: Path, rows: tuple[Row, ...], place: Place) -> Row:
    """Take a finished run made elsewhere for the row that it is, and measure it.

    Raises:
        DatasetError: if it is no row of the plan, or not finished.
        TrainingError: if the folder is no run, or the row is being run by another process.
    """
    theirs = RunFolder(folder)
    record = theirs.load_record()
    row = adopted_row(record, rows, data_root=place.data_root, init=place.init)
    ours = place.folder(row)
    with _lock(ours) as mine:
        if not mine:
            raise TrainingError(f"Row {row.id} is being run by another process: adopt it later.")
        if not (ours.root / EVALUATION_FILE).is_file():
            if ours.has_record() and ours.load_record().id != record.id:
                raise TrainingError(
                    f"{ours.root} already holds a run of row {row.id}: remove it to adopt "
                    f"{record.id} in its place."
                )
            shutil.copytree(theirs.release, ours.release, dirs_exist_ok=True)
            write_atomically(ours.root / RUN_FILE, record.model_dump_json(indent=2).encode())
            _measure(row, ours, ours.release, place)
        _record(row, ours, place)
    logger.info("adopted run %s as row %s", record.id, row.id)
    return row


def collect(rows: Sequence[Row], place: Place) -> None:
    """Write the records of rows that were measured, here or by another process."""
    recorded = load_records(place.pages)
    for row in rows:
        measured = (place.folder(row).root / EVALUATION_FILE).is_file()
        if measured and not _is_row(recorded.get(row.id), row):
            try:
                _record(row, place.folder(row), place)
            except DatasetError as exc:  # of an older plan: running the row says so again
                logger.warning("%s", exc)


def _is_row(record: RowRecord | None, row: Row) -> bool:
    return record is not None and not differences(row, record.run)


def _measure(row: Row, run: RunFolder, release: Path, place: Place) -> None:
    """Read the test split once, and keep what was found beside the run."""
    from training.evaluate import measure

    dataset = open_row(row, place.data_root)
    measured = measure(
        load(release, device=place.device),
        dataset,
        protocol=row.protocol,
        split="test",
        seed=BOOTSTRAP_SEED,
        resamples=RESAMPLES,
    )
    found = RowRecord(
        row=row.id,
        run=run.load_record(),
        evaluation=measured.evaluation,
        resamples={
            name: tuple(round(UNIT * float(value)) for value in measured.resamples[name])
            for name in COMPARED[dataset.task]
            if not any(map(math.isnan, measured.resamples[name]))
        },
    )
    write_atomically(run.root / EVALUATION_FILE, found.model_dump_json().encode())


def _record(row: Row, run: RunFolder, place: Place) -> RowRecord:
    """Put a measured row among the records of the pages.

    Raises:
        DatasetError: if what was measured is not this row.
    """
    path = run.root / EVALUATION_FILE
    try:
        record = RowRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as exc:
        raise DatasetError(
            f"{path} is not the record of a row: remove it to measure anew."
        ) from exc
    told = differences(row, record.run)
    if told:
        raise DatasetError(
            f"{run.root} holds another run than row {row.id}: {told[0]}; remove the folder to run "
            "the row anew."
        )
    save_record(record, place.pages)
    return record


@contextmanager
def _lock(run: RunFolder) -> Iterator[bool]:
    """Hold the row's lock if no other process does; yields whether it is ours."""
    path = run.root.with_name(f".{run.id}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
