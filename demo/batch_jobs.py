"""Batches at work: one after the other in the background, stopped and gone on with at any picture.

The page may be closed and the app restarted: what is done is on disk, and the rest is done then. Of
several apps with one data folder each batch has one at work; what that leaves behind, another one
takes up within the hour.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from PIL import Image as PillowImage

from core.errors import InputError, RollmarkError
from core.settings import Settings
from core.types import Image
from demo.batch_store import UNFINISHED, Answer, BatchStore, Job
from demo.comparison_store import Comparisons
from demo.handlers import UNFORESEEN, Shown, draw_tile, image_of, tile
from demo.service import Service
from demo.unpack import BatchLimits, Picture, list_pictures, unpack
from demo.words import count

logger = logging.getLogger(__name__)

_TILE_QUALITY: Final = 80
_REMEMBERED: Final = 8  # batches whose answers stay in memory,
_MOST_ANSWERS: Final = 10_000  # but no more of them: those of a segmenter take some 50 kB each
_RATE_WINDOW: Final = 50  # pictures
_LOOK_ROUND_S: Final = 3600  # between two looks for batches that have had their time


@dataclass(frozen=True, slots=True)
class Progress:
    """How a batch stands."""

    job: Job
    answers: dict[int, Answer]
    seconds_left: float | None  # None: not known yet, or nothing is left

    @property
    def done(self) -> int:
        """Pictures that are finished, unreadable ones too."""
        return len(self.answers)

    @property
    def failed(self) -> int:
        """Pictures that could not be looked at."""
        return sum(answer.error is not None for answer in self.answers.values())

    @property
    def queued(self) -> int:
        """Pictures that went into the review queue."""
        return sum(answer.queued for answer in self.answers.values())


class Batches:
    """Takes batches and works through them, one at a time.

    Args:
        service: what inspects.
        settings: where batches are kept, how large they may be, and for how long.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._limits = BatchLimits.of(settings.serving)
        self.keep_days = settings.serving.keep_batches_days
        self.store = BatchStore(settings.paths.data / "jobs")
        self.comparisons = Comparisons(settings.paths.data / "comparisons", self.keep_days)
        self._answers: OrderedDict[str, _Remembered] = OrderedDict()
        self._in_hand: str | None = None  # the batch that this app works on
        self._waiting: deque[str] = deque()
        self._laid_down: set[str] = set()  # a full disk may refuse to note that
        self._times: deque[float] = deque(maxlen=_RATE_WINDOW)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._worker: threading.Thread | None = None

    def start(self) -> None:
        """Work in the background, first on what an earlier app left unfinished."""
        with self._lock:
            if self._worker is not None:
                return
            self._worker = threading.Thread(target=self._work, name="batches", daemon=True)
            self._worker.start()
        self._wake.set()

    def take(
        self, files: Sequence[tuple[Path, str]], *, model: str, score_threshold: float | None
    ) -> Job:
        """Keep what was dropped as a new batch and queue it.

        Args:
            files: path and name of each file: pictures and zip archives.
            model: name of a served model, or `auto`.
            score_threshold: as for `Service.inspect`.

        Raises:
            InputError: if there is no picture in it, or more than a batch may have.
            UnknownModelError: if no served model has that name.
        """
        chosen = self._service.choose(model).config.name
        pictures, left_out = list_pictures(files, self._limits)
        title = files[0][1] if len(files) == 1 else count(pictures, "picture")
        job = self.store.create(
            unpack(files, self._limits),
            title=title[:120],
            model=chosen,
            score_threshold=score_threshold,
            left_out=left_out,
        )
        logger.info("batch %s: %d pictures for %s", job.id[:6], len(job.names), chosen)
        self._queue(job.id)
        return job

    def keep(self, shown: Shown) -> Job:
        """Keep an answer that somebody is looking at as a batch of its own, so that it has a link.

        Raises:
            InputError: if its picture has been cleared from the server, or the disk refuses it.
        """
        image = image_of(self._service, shown)
        picture = Picture(shown.name, shown.name, Path(shown.path).read_bytes())
        seen = shown.inspection
        job = self.store.create(
            iter([picture]), title=shown.name, model=seen.model, score_threshold=None, left_out=()
        )
        answer = Answer(
            index=0,
            inspection=seen,
            title=shown.title,
            labels=shown.labels,
            queued=seen.review_item is not None,
        )
        try:
            self._save_tile(job.id, 0, tile(image, seen, shown.labels))
            self._keep(job.id, answer)
            job = job.model_copy(update={"state": "done", "finished_at": datetime.now(UTC)})
            self.store.save(job)
        except OSError as exc:
            self.store.forget(job.id)  # or it would wait to be looked at
            raise InputError(f"The answer cannot be kept: {exc.strerror or exc}.") from exc
        return job

    def stop(self, job_id: str) -> None:
        """Stop after the picture that is being looked at; the answers so far stay.

        Whichever app works on the batch, or has it in line: a page may be another app's.

        Raises:
            InputError: if there is none any more, or the disk refuses it.
        """
        try:
            with self.store.alone(self._job(job_id).id) as is_idle:
                job = self.store.job(job_id)
                if not is_idle:
                    self.store.ask_to_stop(job_id)
                elif job.state in UNFINISHED:
                    self.store.save(job.model_copy(update={"state": "stopped"}))
        except OSError as exc:
            raise InputError(f"The batch cannot be stopped: {exc.strerror or exc}.") from exc

    def go_on(self, job_id: str) -> None:
        """Queue a stopped batch again.

        Raises:
            InputError: if there is none any more, or the disk refuses it.
        """
        job = self._job(job_id)
        if job.state != "stopped":
            return
        try:
            self.store.is_heard(job.id)
            self.store.save(job.model_copy(update={"state": "waiting"}))
        except OSError as exc:
            raise InputError(f"The batch cannot go on: {exc.strerror or exc}.") from exc
        self._queue(job.id)

    def progress(self, job_id: str) -> Progress:
        """How a batch stands.

        Raises:
            InputError: if there is none, or none any more.
        """
        job = self._job(job_id)
        with self._lock:
            answers = dict(self._remember(job.id))
            times = list(self._times)
        left = len(job.names) - len(answers)
        seconds = None
        if job.id == self._in_hand and left and len(times) > 1:
            seconds = left * (times[-1] - times[0]) / (len(times) - 1)
        return Progress(job, answers, seconds)

    def _queue(self, job_id: str) -> None:
        with self._lock:
            self._laid_down.discard(job_id)
            if job_id not in self._waiting:
                self._waiting.append(job_id)
        self._wake.set()

    def _remember(self, job_id: str) -> dict[int, Answer]:
        """The answers of a batch, kept in memory; call it with the lock held."""
        known = self._answers.get(job_id)
        size = known.size if known and job_id == self._in_hand else self.store.size(job_id)
        if known is None or known.size != size:  # another app may be at work on it
            known = _Remembered(size, self.store.answers(job_id))
        self._answers[job_id] = known
        self._answers.move_to_end(job_id)
        while len(self._answers) > 1 and self._is_too_much():
            self._answers.popitem(last=False)
        return known.answers

    def _is_too_much(self) -> bool:
        answers = sum(len(known.answers) for known in self._answers.values())
        return len(self._answers) > _REMEMBERED or answers > _MOST_ANSWERS

    def _take_up_what_is_left(self) -> None:
        """Queue what an app that has ended left unfinished, however it ended."""
        for job in self.store.jobs():
            with self._lock:
                is_known = job.id in self._waiting or job.id in self._laid_down
                if job.state in UNFINISHED and not is_known:
                    self._waiting.append(job.id)

    def _look_round(self) -> None:
        """Forget what has had its time, and take up what was left unfinished."""
        try:
            self.store.forget_old(self.keep_days)
            self.comparisons.forget_old()
            self._take_up_what_is_left()
        except Exception:  # the thread has to live on: the folder may be another machine's
            logger.exception("the folders of batches and comparisons could not be looked through")

    def _work(self) -> None:
        while True:
            self._wake.wait(timeout=_LOOK_ROUND_S)
            self._wake.clear()
            self._look_round()
            while True:
                with self._lock:
                    if not self._waiting:
                        break
                    job_id = self._waiting.popleft()
                try:
                    self._work_on(job_id)
                except (RollmarkError, OSError) as exc:  # the disk, or a batch that was removed
                    logger.error("batch %s cannot go on: %s", job_id[:6], exc)
                    self._lay_down(job_id)
                except Exception:  # the thread has to live on
                    logger.exception("batch %s cannot go on", job_id[:6])
                    self._lay_down(job_id)
                finally:
                    self._in_hand = None

    def _job(self, job_id: str) -> Job:
        """A batch as it stands, whatever the disk could be told of it."""
        job = self.store.job(job_id)
        with self._lock:
            is_laid_down = job_id in self._laid_down
        return job.model_copy(update={"state": "stopped"}) if is_laid_down else job

    def _lay_down(self, job_id: str) -> None:
        """Let a batch that failed stand as stopped: a person sees it, and may have it go on."""
        with self._lock:  # or who lets it go on at once would be overwritten
            self._laid_down.add(job_id)
            with suppress(RollmarkError, OSError):
                self.store.save(self.store.job(job_id).model_copy(update={"state": "stopped"}))

    def _work_on(self, job_id: str) -> None:
        with self.store.alone(job_id) as is_ours:
            if not is_ours:
                logger.info("batch %s is being worked on by another app", job_id[:6])
                return
            job = self.store.job(job_id)
            if job.state not in UNFINISHED:  # it was queued twice, or another app was faster
                return
            job = job.model_copy(update={"state": "running"})
            self.store.save(job)
            with self._lock:
                done = set(self._remember(job_id))
                self._in_hand = job_id
                self._times.clear()
            for index in (k for k in range(len(job.names)) if k not in done):
                if self.store.is_to_stop(job_id):
                    self.store.save(job.model_copy(update={"state": "stopped"}))
                    self.store.is_heard(job_id)
                    return
                self._keep(job_id, self._look(job, index))
                with self._lock:
                    self._times.append(time.monotonic())
            finished = {"state": "done", "finished_at": datetime.now(UTC)}
            self.store.save(job.model_copy(update=finished))
            logger.info("batch %s is done", job_id[:6])

    def _keep(self, job_id: str, answer: Answer) -> None:
        self.store.append(job_id, answer)
        with self._lock:
            self._remember(job_id)[answer.index] = answer

    def _look(self, job: Job, index: int) -> Answer:
        """One picture; whatever is wrong with it is its own answer.

        Raises:
            OSError: if the disk refuses what is to be shown: no fault of this picture's.
        """
        path = self.store.picture(job.id, index)
        try:
            look = self._service.inspect(path, job.model, score_threshold=job.score_threshold)
            drawn = draw_tile(look)
        except InputError as exc:
            return Answer(index=index, error=str(exc))
        except RollmarkError as exc:
            logger.warning("batch %s, picture %d: %s", job.id[:6], index, exc)
            return Answer(index=index, error=str(exc))
        except Exception:
            logger.exception("batch %s, picture %d", job.id[:6], index)
            return Answer(index=index, error=UNFORESEEN)
        self._save_tile(job.id, index, drawn)
        return Answer(
            index=index,
            inspection=look.inspection,
            title=look.title,
            labels=look.prediction.labels,
            queued=look.inspection.review_item is not None,
        )

    def _save_tile(self, job_id: str, index: int, drawn: Image) -> None:
        path = self.store.tile(job_id, index)
        path.parent.mkdir(exist_ok=True)
        PillowImage.fromarray(drawn).save(path, "WEBP", quality=_TILE_QUALITY)


@dataclass(frozen=True, slots=True)
class _Remembered:
    """The answers of a batch, and how long their file was when they were read."""

    size: int  # bytes
    answers: dict[int, Answer]
