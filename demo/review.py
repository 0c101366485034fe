"""The app's side of the review queue: put an image in by hand, say how the queue stands."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final, Literal, get_args

from active_learning.choosing import BY_HAND
from active_learning.desk import Desk, open_desk
from core.errors import InputError
from core.records import Inspection, ReviewItem, ReviewState
from core.settings import Settings
from hub.registry import Release

Reason = Literal["wrong", "missed", "new_defect"]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
MAX_NOTE: Final = 500  # characters
_IN_WORDS: Final[Mapping[Reason, str]] = {
    "wrong": "a person says that the answer is wrong",
    "missed": "a person says that a defect was missed",
    "new_defect": "a person says that this is a new kind of defect",
}


class ReviewDesk:
    """Opens the desk when it is first needed, so that an app nobody flags in keeps no ledger.

    Args:
        settings: where the ledger and the images lie.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._desk: tuple[object, Desk] | None = None

    def flag(
        self,
        image: bytes,
        inspection: Inspection,
        releases: tuple[Release, ...],
        *,
        reason: str,
        note: str,
    ) -> ReviewItem:
        """Put an image into the queue; one that is there already stays the same item.

        Args:
            image: the encoded bytes, as they came.
            inspection: the answer that a person does not trust.
            releases: all that are served; their classes are what a person may choose from.
            reason: wrong, missed or new_defect.
            note: in the person's own words.

        Raises:
            InputError: if there is no such reason, or the note is too long or no text.
            LedgerError: if the item cannot be stored.
        """
        if reason not in REASONS:
            raise InputError(f"Unknown reason {reason[:60]!r}. Available: {', '.join(REASONS)}.")
        if len(note) > MAX_NOTE:
            raise InputError(f"The note has {len(note)} characters; at most {MAX_NOTE} are kept.")
        if not _is_text(note):
            raise InputError("The note holds signs that are no text; write it anew without them.")
        words = (_IN_WORDS[reason],)
        return self.add(image, [inspection], releases, reasons=words, priority=BY_HAND, note=note)

    def add(
        self,
        image: bytes,
        inspections: Sequence[Inspection],
        releases: tuple[Release, ...],
        *,
        reasons: Sequence[str],
        priority: float,
        note: str = "",
    ) -> ReviewItem:
        """Put an image into the queue; arguments as of `ReviewQueue.add`.

        Raises:
            InputError: if the image is another one than was inspected.
            LedgerError: if the item cannot be stored.
        """
        return self.open(releases).queue.add(
            image, inspections=inspections, reasons=reasons, priority=priority, note=note
        )

    def counts(self, releases: tuple[Release, ...]) -> dict[ReviewState, int]:
        """Items per state.

        Raises:
            LedgerError: if the ledger cannot be read.
        """
        return self.open(releases).queue.counts()

    def open(self, releases: tuple[Release, ...]) -> Desk:
        """The desk for the classes that are served now; a promotion may have brought new ones.

        Args:
            releases: the sound ones that are served; a damaged one of another model costs nothing.

        Raises:
            LedgerError: if the ledger cannot be opened.
            WeightsNotFoundError: if no model is served.
        """
        classes = tuple((r.config.name, r.config.task, r.config.labels) for r in releases)
        with self._lock:
            if self._desk is None or self._desk[0] != classes:
                self._desk = (classes, open_desk(self._settings, releases))
            return self._desk[1]


def _is_text(note: str) -> bool:
    """Whether every database keeps it: none takes half of a pair of UTF-16, and not each a NUL."""
    return "\0" not in note and not any("\ud800" <= sign <= "\udfff" for sign in note)
