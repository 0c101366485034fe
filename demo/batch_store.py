"""Batches on disk: what was asked, the pictures, and every answer as it comes.

A batch is a folder `jobs/ID`: `job.json` (replaced whole), `pictures/` (numbered, never named from
outside), `answers.jsonl` (appended and synced, one line a picture; a half line left by a crash is
done again), `tiles/` (what the gallery shows) and `stop`, while somebody waits for it to stop. The
ID cannot be guessed; knowing it is the permission to see the batch.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import InputError
from core.files import remove_stale, write_atomically
from core.records import Inspection
from demo.unpack import Picture

JobState = Literal["waiting", "running", "stopped", "done"]
_ID: Final = re.compile(r"[A-Za-z0-9_-]{16}")
_JOB, _ANSWERS, _PICTURES, _TILES = "job.json", "answers.jsonl", "pictures", "tiles"
_STOP: Final = "stop"
UNFINISHED: Final[tuple[JobState, ...]] = ("waiting", "running")
_LEFT_OUT_NAMED: Final = 3
_FRESH: Final = ".new-"  # begins the name of a batch that is being unpacked


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Job(_Record):
    """A batch: what was asked and how it stands."""

    id: str
    title: str  # of what was dropped, for people
    model: str
    score_threshold: float | None
    names: tuple[str, ...]  # of the pictures, for people
    left_out: int  # files that were no pictures
    left_out_names: tuple[str, ...] = ()  # of the first of them, for people
    created_at: datetime
    finished_at: datetime | None = None
    state: JobState = "waiting"


class Answer(_Record):
    """What became of one picture."""

    index: int
    inspection: Inspection | None = None
    title: str = ""  # of the model
    labels: tuple[str, ...] = ()  # it can name
    queued: bool = False  # for review
    error: str | None = None


class BatchStore:
    """The batches of one installation.

    Args:
        root: folder of all batches; made when the first one is.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lock = threading.Lock()

    def create(
        self,
        pictures: Iterator[Picture],
        *,
        title: str,
        model: str,
        score_threshold: float | None,
        left_out: Sequence[str],
    ) -> Job:
        """Keep the pictures of a new batch; it appears whole or not at all.

        Args:
            pictures: as they come out of what was dropped.
            title: of the batch, for people.
            model: name of a served model.
            score_threshold: as for `Service.inspect`.
            left_out: names of the files that were no pictures.

        Raises:
            InputError: whatever the pictures raise, or if the disk refuses them.
        """
        job_id = secrets.token_urlsafe(12)
        fresh = self._root / f"{_FRESH}{job_id}"
        try:
            (fresh / _PICTURES).mkdir(parents=True)
            named: list[tuple[str, str]] = []
            refused: list[Answer] = []
            for index, picture in enumerate(pictures):
                named.append((picture.name, picture.place))
                if isinstance(picture.data, InputError):
                    refused.append(Answer(index=index, error=str(picture.data)))
                else:
                    (fresh / _PICTURES / f"{index:06}").write_bytes(picture.data)
            job = Job(
                id=job_id,
                title=title,
                model=model,
                score_threshold=score_threshold,
                names=_told_apart(named),
                left_out=len(left_out),
                left_out_names=tuple(left_out[:_LEFT_OUT_NAMED]),
                created_at=datetime.now(UTC),
            )
            lines = "".join(answer.model_dump_json() + "\n" for answer in refused)
            write_atomically(fresh / _ANSWERS, lines.encode())
            write_atomically(fresh / _JOB, job.model_dump_json().encode())
            fresh.rename(self._root / job_id)
        except OSError as exc:
            raise InputError(f"The batch cannot be kept: {exc.strerror or exc}.") from exc
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return job

    def job(self, job_id: str) -> Job:
        """The batch of that ID.

        Raises:
            InputError: if there is none, or none any more.
        """
        if _ID.fullmatch(job_id):
            with suppress(OSError, ValidationError):
                return Job.model_validate_json((self._root / job_id / _JOB).read_bytes())
        raise InputError("There is no such batch any more; drop the pictures again.")

    def jobs(self) -> Iterator[Job]:
        """Every batch that can be read, the oldest first."""
        found = []
        for path in self._root.glob(f"*/{_JOB}"):
            with suppress(InputError):
                found.append(self.job(path.parent.name))
        yield from sorted(found, key=lambda job: job.created_at)

    def save(self, job: Job) -> None:
        """Replace the record of a batch."""
        write_atomically(self._root / job.id / _JOB, job.model_dump_json().encode())

    def picture(self, job_id: str, index: int) -> Path:
        """The bytes of a picture, as they came."""
        return self._root / job_id / _PICTURES / f"{index:06}"

    def tile(self, job_id: str, index: int) -> Path:
        """Where the drawn picture for the gallery lies."""
        return self._root / job_id / _TILES / f"{index:06}.webp"

    def append(self, job_id: str, answer: Answer) -> None:
        """Keep an answer; when this returns it has reached the disk.

        Raises:
            OSError: if the disk refuses it; the answers before are as they were.
        """
        line = answer.model_dump_json().encode() + b"\n"
        with self._lock, (self._root / job_id / _ANSWERS).open("ab", buffering=0) as file:
            whole = file.tell()
            try:
                if file.write(line) < len(line):  # what a disk does on which a part found room
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)  # the next answer would be glued to half a line
                raise

    def size(self, job_id: str) -> int:
        """Length of the file of answers, in bytes: it grows with each."""
        try:
            return (self._root / job_id / _ANSWERS).stat().st_size
        except OSError:
            return 0

    def answers(self, job_id: str) -> dict[int, Answer]:
        """Every whole answer by the picture's index; one that is just being written is none yet."""
        found: dict[int, Answer] = {}
        with suppress(OSError):
            data = (self._root / job_id / _ANSWERS).read_bytes()
            for line in data[: data.rfind(b"\n") + 1].splitlines():
                with suppress(ValidationError):
                    answer = Answer.model_validate_json(line)
                    found[answer.index] = answer
        return found

    def ask_to_stop(self, job_id: str) -> None:
        """Have whichever app works on a batch stop after the picture in hand."""
        (self._root / job_id / _STOP).touch()

    def is_to_stop(self, job_id: str) -> bool:
        """Whether somebody has asked so, and nobody has heard it yet."""
        return (self._root / job_id / _STOP).exists()

    def is_heard(self, job_id: str) -> None:
        """Note that a batch was stopped, or goes on."""
        (self._root / job_id / _STOP).unlink(missing_ok=True)

    @contextmanager
    def alone(self, job_id: str) -> Iterator[bool]:
        """Whether this process alone works on a batch; a process that dies lets go."""
        with (self._root / job_id / ".lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                self._cut_off_torn(job_id)
                yield True

    def _cut_off_torn(self, job_id: str) -> None:
        """Remove half a line that a crash left: nothing may be glued to it.

        Only who works on the batch may: to anybody else a line that is just being written looks
        torn, and would be lost.
        """
        with suppress(FileNotFoundError), (self._root / job_id / _ANSWERS).open("r+b") as file:
            data = file.read()
            if not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)

    def forget_old(self, days: float) -> int:
        """Remove batches that were finished longer ago; how many. What a kill left goes, too.

        One that is still to be finished stays, however long no app was there to do it.
        """
        remove_stale(self._root, f"{_FRESH}*")
        limit = datetime.now(UTC) - timedelta(days=days)
        ended = (job for job in self.jobs() if job.state not in UNFINISHED)
        old = [j for j in ended if (j.finished_at or j.created_at) < limit]
        for job in old:
            self.forget(job.id)
        return len(old)

    def forget(self, job_id: str) -> None:
        """Remove a batch and its pictures."""
        shutil.rmtree(self._root / job_id, ignore_errors=True)


def _told_apart(named: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Name of each picture; its place where another has the name; a number where that is no help.

    A folder that was chosen in a browser arrives as files without their folders.
    """
    often = Counter(name for name, _ in named)
    told: dict[str, None] = {}
    for name, place in named:
        wanted = text = place if often[name] > 1 else name
        number = 1
        while text in told:
            number += 1
            text = f"{wanted} ({number})"
        told[text] = None
    return tuple(told)
