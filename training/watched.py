"""A run that is looked at after every epoch, and can be ended early with the best it has so far.

Both trainers bring a run's record up to date once an epoch's checkpoint is on disk; that is the
moment at which somebody else may look at it, and at which nothing is lost by stopping.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.errors import TrainingError
from core.records import RunRecord
from models import get_spec
from training.runs import RunFolder

logger = logging.getLogger(__name__)

# Given the record after each epoch; True ends the run. What it raises stops the run as it is.
Watch = Callable[[RunRecord], bool]


class EnoughTrained(Exception):
    """The watch has asked for an end; not an error."""


@dataclass(frozen=True, slots=True)
class WatchedRun(RunFolder):
    """A run folder whose every new record is shown to `watch`."""

    watch: Watch

    def update_record(self, **changes: Any) -> RunRecord:
        """Change fields of run.json, then let the watch look at it.

        Raises:
            EnoughTrained: if the watch asks for an end.
        """
        record = RunFolder.update_record(self, **changes)
        if self.watch(record):
            raise EnoughTrained
        return record


def conclude(run: RunFolder) -> RunRecord:
    """End a run at its last checkpoint: the release of its best epoch; twice gives the same.

    Raises:
        TrainingError: if no epoch has ended yet.
    """
    from training.release import release_best

    record = run.load_record()
    if record.finished_at is not None:
        return record
    if not run.best.is_file():
        raise TrainingError(f"Run {run.id} has no finished epoch: there is nothing to release.")
    record = release_best(run, get_spec(record.model))
    shutil.rmtree(run.scratch, ignore_errors=True)  # a detector's exported images
    logger.info(
        "run %s was ended after epoch %d of %d", run.id, record.epochs, record.epochs_planned
    )
    return record
