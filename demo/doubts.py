"""Unsure answers on their way into the review queue, beside the path of the answer itself.

An answer waits a moment for its place in the queue and never longer: what takes more time goes on
without it, and what fails is one sentence in the log and a mark on the page.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Final

from active_learning.committee import Committee
from active_learning.uncertainty import ASK_FROM
from active_learning.wording import number
from core.errors import RollmarkError
from core.records import Inspection, ReviewItem
from core.settings import ReviewSettings
from demo.review import ReviewDesk
from demo.samples import samples
from demo.words import short
from hub.registry import Release

logger = logging.getLogger(__name__)

QUEUED: Final = "in the review queue"
ON_ITS_WAY: Final = "on its way into the review queue"
NOT_QUEUED: Final = "not in the review queue: storing it failed, the server's log says why"
BUSY: Final = "not in the review queue: too many images are on their way into it"
WAIT_S: Final = 0.25  # that an answer waits for its item; storing one takes a tenth of it
_ON_THE_WAY: Final = 8  # images at a time, each as large as an upload may be
_REMEMBERED: Final = 4096  # answers that are in the queue already


@dataclass(frozen=True, slots=True)
class Queued:
    """What became of an unsure answer; nothing of a sure one."""

    item: str | None = None  # id of the review item, once it is known
    words: str = ""  # for the page, "" where there is nothing to say


@dataclass(frozen=True, slots=True)
class Doubt:
    """Why a person should look at an image, and how soon."""

    reasons: tuple[str, ...]
    priority: float  # in [0, 1]


class Doubts:
    """Puts what models are unsure of into the review queue, each image once.

    Args:
        desk: whose queue it is.
        settings: whether images are queued, and from which disagreement on.
        wait_s: that an answer waits for its item.
    """

    def __init__(
        self, desk: ReviewDesk, settings: ReviewSettings, *, wait_s: float = WAIT_S
    ) -> None:
        self._desk = desk
        self._settings = settings
        self._wait_s = wait_s
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="doubts")
        self._room = threading.BoundedSemaphore(_ON_THE_WAY)
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, ...], str] = OrderedDict()

    def get_ready(self, releases: tuple[Release, ...]) -> None:
        """Open the queue before the first doubt comes, whose answer would wait for that."""
        if self._settings.queue_unsure:
            self._writer.submit(self._open, releases)

    def settle(
        self,
        source: Path | bytes,
        inspections: Sequence[Inspection],
        releases: tuple[Release, ...],
        *,
        committee: Committee | None = None,
    ) -> Queued:
        """Queue an image if a person should look at it; never raises.

        Args:
            source: the encoded image, or the file that holds it.
            inspections: of this image, by one or several models.
            releases: all that are served; their classes are what a person may choose from.
            committee: what several models say together.
        """
        if not self._settings.queue_unsure or not inspections:
            return Queued()
        image = inspections[0].image.sha256
        titles = {r.config.name: short(r.config.title) for r in releases}
        asked_from = self._settings.review_threshold
        threshold = ASK_FROM if asked_from is None else asked_from
        doubt = doubt_of(inspections, committee, threshold, titles=titles)
        if doubt is None or image in sample_hashes():
            return Queued()
        key = (image, *(f"{i.model} {i.revision}" for i in inspections))
        with self._lock:
            known = self._known.get(key)
        if known is not None:
            return Queued(known, QUEUED)
        if not self._room.acquire(blocking=False):
            logger.warning("image %s is not queued: %d are on the way", image[:12], _ON_THE_WAY)
            return Queued(None, BUSY)
        written = self._writer.submit(self._store, key, source, inspections, releases, doubt)
        return self._outcome(written)

    def _open(self, releases: tuple[Release, ...]) -> None:
        try:
            self._desk.open(releases)
        except RollmarkError as exc:
            logger.error("the review queue cannot be opened: %s", exc)

    def _outcome(self, written: Future[ReviewItem | None]) -> Queued:
        try:
            item = written.result(timeout=self._wait_s)
        except NotYet:
            return Queued(None, ON_ITS_WAY)
        return Queued(item.id, QUEUED) if item else Queued(None, NOT_QUEUED)

    def _store(
        self,
        key: tuple[str, ...],
        source: Path | bytes,
        inspections: Sequence[Inspection],
        releases: tuple[Release, ...],
        doubt: Doubt,
    ) -> ReviewItem | None:
        """The item of an image; None where it could not be stored, which the log then tells."""
        try:
            data = source.read_bytes() if isinstance(source, Path) else source
            item = self._desk.add(
                data, inspections, releases, reasons=doubt.reasons, priority=doubt.priority
            )
        except (RollmarkError, OSError) as exc:
            logger.error("image %s is not queued for review: %s", key[0][:12], exc)
            return None
        except Exception:
            logger.exception("image %s is not queued for review", key[0][:12])
            return None
        finally:
            self._room.release()
        with self._lock:
            self._known[key] = item.id
            if len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        logger.info("queued %s for review: %s", key[0][:12], item.id)
        return item


def marked(inspection: Inspection, queued: Queued) -> Inspection:
    """The same answer with the id of its review item, if it has one."""
    if queued.item is None:
        return inspection
    return inspection.model_copy(update={"review_item": queued.item})


def doubt_of(
    inspections: Sequence[Inspection],
    committee: Committee | None,
    threshold: float,
    *,
    titles: Mapping[str, str],
) -> Doubt | None:
    """Why a person should look at an image; None where nobody has to.

    Args:
        inspections: of one image.
        committee: what they say together, where there are several.
        threshold: disagreement from which on a person should look, in [0, 1].
        titles: what people call each model, by its name.
    """
    unsure = [i for i in inspections if i.verdict == "review"]
    doubt = Doubt((), max((i.uncertainty for i in unsure), default=0.0))
    if committee is not None and committee.disagreement >= threshold:
        words = committee.reasons or (f"the models disagree by {number(committee.disagreement)}",)
        doubt = Doubt(words, max(doubt.priority, committee.disagreement))
    elif not unsure:
        return None
    is_alone = len(inspections) == 1
    own = [
        words
        for i in unsure
        for words in _own_words(i, "" if is_alone else titles.get(i.model, i.model))
    ]
    return replace(doubt, reasons=tuple(dict.fromkeys([*doubt.reasons, *own])))


def _own_words(inspection: Inspection, called: str) -> tuple[str, ...]:
    """What one model doubts; where it is one of several, its strongest doubt, and who doubts."""
    reasons = inspection.reasons or (f"uncertainty {number(inspection.uncertainty)}",)
    return (f"{called}: {reasons[0]}",) if called else reasons


@cache
def sample_hashes() -> frozenset[str]:
    """SHA-256 of the pictures that come with the app: nobody has to review those."""
    return frozenset(sha256(sample.path.read_bytes()).hexdigest() for sample in samples())
