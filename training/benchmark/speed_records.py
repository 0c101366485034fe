"""What a speed measurement leaves behind: times, in the same process and minutes, and where."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from pydantic import Field, ValidationError

from core.errors import DatasetError
from core.files import write_atomically
from core.records import Record
from core.types import Task

SPEED_FILE, PARITY_FILE = "speed.json", "parity.json"


class Timing(Record):
    """One contender on one subject, from encoded picture to finished answer."""

    contender: str
    n: int  # single pictures timed
    p50_ms: float
    p95_ms: float
    p99_ms: float
    images_per_s: float | None = None  # over a folder; None: not measured
    swept: int = 0  # pictures in that folder


class SubjectSpeed(Record):
    """Everyone on one network at one size."""

    model: str
    scale: str
    task: Task
    image_size: int  # px
    weights: str  # revision, or "random"
    timings: tuple[Timing, ...]
    missing: dict[str, str] = Field(default_factory=dict)  # contender -> why it could not run


class Growth(Record):
    """What a larger picture costs Rollmark."""

    model: str
    width: int  # px
    height: int
    tiles: int  # 1: looked at as a whole
    n: int
    p50_ms: float


class Clients(Record):
    """So many callers over HTTP, each asking again as soon as it has its answer."""

    clients: int
    requests: int
    errors: int
    first_error: str = ""
    p50_ms: float | None  # None: nobody got an answer
    p95_ms: float | None
    requests_per_s: float
    overhead_ms: float | None = None  # median of what is not the answering itself


class AppSpeed(Record):
    """The app as a process of its own, asked over HTTP on this machine."""

    model: str
    first_answer_s: float  # from start, nothing exported yet
    first_answer_again_s: float  # from start, exports in the cache
    models_loaded: int
    resident_mb: float  # all of them loaded, on OpenVINO
    all_models_s: float  # one picture, every model
    clients: tuple[Clients, ...]  # by POST /v1/inspect
    gradio_clients: tuple[Clients, ...] = ()  # by gradio_client


class SpeedRecord(Record):
    """One run of the speed benchmark."""

    machine: str
    cpus: int  # that everyone may use
    precision: str  # of Rollmark's exports
    versions: dict[str, str]
    git_commit: str
    measured_at: datetime
    quick: bool
    images: str  # which pictures
    load: tuple[float, float] | None = None  # processes that wanted a CPU before and after
    subjects: tuple[SubjectSpeed, ...]
    growth: tuple[Growth, ...] = ()
    app: AppSpeed | None = None


class Parity(Record):
    """One model's accuracy on validation, by where it runs."""

    model: str
    revision: str
    dataset: str
    protocol: str
    metric: str
    n: int
    values: dict[str, float]  # runtime -> value in [0, 1]


class ParityRecord(Record):
    """One run of the parity table."""

    machine: str
    measured_at: datetime
    rows: tuple[Parity, ...]


def save(record: SpeedRecord | ParityRecord, path: Path) -> None:
    """Write a record, for people to diff.

    Raises:
        OSError: if it cannot be written.
    """
    write_atomically(path, (record.model_dump_json(indent=1) + "\n").encode())


def read_speed(pages: Path) -> SpeedRecord | None:
    """The record beside the page, None where there is none.

    Raises:
        DatasetError: if it is damaged.
    """
    try:
        return SpeedRecord.model_validate_json((pages / SPEED_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as exc:
        raise DatasetError(f"{pages / SPEED_FILE} is damaged; measure again.") from exc


def read_parity(pages: Path) -> ParityRecord | None:
    """The accuracies beside the page, None where there are none.

    Raises:
        DatasetError: if they are damaged.
    """
    try:
        return ParityRecord.model_validate_json((pages / PARITY_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as exc:
        raise DatasetError(f"{pages / PARITY_FILE} is damaged; measure again.") from exc
