"""What the review page shows and does, without any component: queue, pictures, connection.

All methods may be called from any thread. Pictures leave the content-addressed store only as small
addresses that hold their own pixels; no file of the data folder is ever served.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from active_learning.agreement import Agreement, agreement
from active_learning.connection import Reach, reach
from active_learning.desk import Desk
from active_learning.overview import Entry, Overview, Place, QueueReader
from active_learning.recheck import Rechecked, confirm, recheck
from core.errors import ConfigError, InputError, RollmarkError
from core.ledger import Event
from core.records import Inspection, ReviewItem
from core.settings import Settings
from core.types import Image
from demo.draw import fitted, overlay, usual_layers
from demo.samples import as_address, picture_address, square
from demo.service import Service

THUMB_PX: Final = 72
PICTURE_PX: Final = 640  # the longer side of the picture beside the list
_SEEN_PX: Final = 320  # how long it is on the screen
_THUMBS: Final = 1024  # kept in memory, 3 kB each
_REACH_AGE_S: Final = 30.0  # for which one look at Label Studio serves every visitor
_HISTORY: Final = 12  # latest events of an item


@dataclass(frozen=True, slots=True)
class Listed:
    """One image of the list."""

    entry: Entry
    thumbnail: str  # data address, "" where the picture cannot be read


@dataclass(frozen=True, slots=True)
class Chosen:
    """The image that a person looks at."""

    entry: Entry
    picture: str  # data address, "" where the picture cannot be read
    why_no_picture: str  # one sentence
    task_address: str  # in Label Studio, "" where there is none yet
    history: tuple[Event, ...]  # oldest first
    titles: Mapping[str, str]  # what people call the models that are served, by their names


class Reviewing:
    """The review queue behind the page.

    Args:
        service: whose queue and models these are.
        settings: of this installation.
    """

    def __init__(self, service: Service, settings: Settings) -> None:
        self._service = service
        self._settings = settings
        self._reader = QueueReader()
        self._lock = threading.Lock()
        self._thumbs: OrderedDict[str, str] = OrderedDict()
        self._reach: tuple[float, Reach] | None = None
        self.courier = service.courier
        self.budget = settings.review.budget

    def now(self) -> datetime:
        """The ledger's time."""
        return self._desk().ledger.clock.now()

    def mark(self) -> int:
        """A number that grows whenever anything happens to the queue.

        Raises:
            RollmarkError: if the queue cannot be read; so does every method below.
        """
        return self._reader.mark(self._desk())

    def overview(self) -> Overview:
        """Counts of the whole queue, and what was learned since the newest release."""
        runs = [release.config.run for release in self._service.releases()]
        newest = max((run.finished_at or run.started_at for run in runs), default=None)
        return self._reader.overview(self._desk(), since=newest)

    def listed(self, place: Place | None, *, limit: int) -> tuple[Listed, ...]:
        """Images at a place, or at all, with their thumbnails."""
        desk = self._desk()
        entries = self._reader.entries(desk, place, limit=limit)
        return tuple(
            Listed(entry, self._thumbnail(desk, entry.item.image_sha256)) for entry in entries
        )

    def chosen(self, item_id: str) -> Chosen | None:
        """One image with all that is known about it; None if it is no longer in the queue."""
        desk = self._desk()
        entry = self._reader.entry(desk, item_id)
        if entry is None:
            return None
        item, why = entry.item, ""
        try:
            picture = picture_address(self._drawn(desk, item))
        except RollmarkError as exc:
            picture, why = "", str(exc)
        # The project may have been made after the last look.
        found = self.reach()
        if item.task_id is not None and not found.project_address:
            found = self.reach(again=True)
        history = desk.ledger.events(f"review_item:{item.id}", limit=_HISTORY)
        address, titles = found.task_address(item.task_id), self._service.titles()
        return Chosen(entry, picture, why, address, history, titles)

    def reach(self, *, again: bool = False) -> Reach:
        """What the last look at Label Studio found; it is not asked while a page refreshes.

        Args:
            again: look now, unless somebody did a moment ago.
        """
        with self._lock:
            known = self._reach
        if again and (known is None or time.monotonic() - known[0] > _REACH_AGE_S):
            return self.check()
        return known[1] if known else Reach(False, "")

    def check(self) -> Reach:
        """Look at Label Studio now; may take some seconds."""
        found = reach(self._settings.label_studio)
        with self._lock:
            self._reach = (time.monotonic(), found)
        if found.is_ready and self.courier.carried.fetch_error:
            self.courier.poll_now.set()  # or the failure would stand beside "Connected" for minutes
        return found

    def send(self, images: int) -> None:
        """Have images sent to Label Studio in the background.

        Raises:
            ConfigError: if there is no token.
            InputError: if there is nothing to send.
        """
        self.courier.send(min(images, self.budget))

    def fetch(self) -> None:
        """Have answers fetched now.

        Raises:
            ConfigError: if there is no token.
        """
        if not self.courier.is_employed:
            raise ConfigError(
                "Nothing can be fetched: Label Studio's token is missing in "
                "ROLLMARK_LABEL_STUDIO__TOKEN."
            )
        self.courier.start()
        self.courier.poll_now.set()

    def try_again(self, item_id: str) -> ReviewItem:
        """Let an image that was set aside wait to be sent once more.

        Raises:
            IllegalTransition: if it is not set aside any more.
        """
        return self._desk().queue.reopen(item_id)

    def recheck(self) -> tuple[Rechecked, dict[str, str]]:
        """Answers that a live model denies, and thumbnails by image; takes seconds to minutes."""
        desk = self._desk()
        found = recheck(self._settings, desk)
        images = [look.image_sha256 for look in found.doubted]
        return found, {image: self._thumbnail(desk, image) for image in images}

    def agreement(self) -> Agreement:
        """How far people agree who answered the same images."""
        return agreement(self._desk().inbox.answered_repeatedly())

    def confirm(self, task_id: int, *, who: str) -> None:
        """Say that an answer stands, after a second look.

        Raises:
            InputError: if nobody has answered such a task.
        """
        confirm(self._desk(), task_id, who=who)

    def _desk(self) -> Desk:
        return self._service.review.open(self._service.releases())

    def _thumbnail(self, desk: Desk, sha256: str) -> str:
        with self._lock:
            if sha256 in self._thumbs:
                self._thumbs.move_to_end(sha256)
                return self._thumbs[sha256]
        try:
            pixels = self._service.decode(desk.queue.images.get(sha256)).pixels
        except RollmarkError:
            return ""  # its row says why once it is chosen
        address = as_address(square(pixels, 2 * THUMB_PX), "WEBP", quality=70)
        with self._lock:
            self._thumbs[sha256] = address
            if len(self._thumbs) > _THUMBS:
                self._thumbs.popitem(last=False)
        return address

    def _drawn(self, desk: Desk, item: ReviewItem) -> Image:
        """The picture with what the surest model that marks places has marked."""
        pixels = self._service.decode(desk.queue.images.get(item.image_sha256)).pixels
        marking = marker(item.predictions)
        if marking is None:
            return fitted(pixels, PICTURE_PX)
        labels = desk.mask_labels.get(marking.model, ())
        if marking.mask is not None and len(labels) != len(marking.mask.counts):
            marking = marking.model_copy(update={"mask": None})  # of classes nobody serves now
        return overlay(
            pixels,
            marking,
            labels=labels,
            layers=usual_layers(marking),
            max_side_px=PICTURE_PX,
            seen_side_px=_SEEN_PX,
        )


def marker(predictions: Sequence[Inspection]) -> Inspection | None:
    """Whose marks are drawn: the surest detector's, else the surest segmenter's."""
    placing = [said for said in predictions if said.task != "classify"]
    return min(
        placing,
        key=lambda said: (said.task != "detect", said.uncertainty, said.model),
        default=None,
    )


def known_place(place: object) -> Place | None:
    """A place as a page sends it; None is all of them.

    Raises:
        InputError: if there is no such place.
    """
    if place in ("", None):
        return None
    if place in ("parked", "waiting", "there", "reviewed"):
        return place
    raise InputError(f"Unknown place {place!r:.40}.")
