"""A candidate in the shadow: it answers beside the live model, unseen, for a number of images.

Where the two disagree the image goes into the review queue, with what each of them said; a person
then decides, and both learn from it. The candidate never answers anybody and cannot delay the
answer: it looks afterwards, in the background.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from active_learning.committee import compare
from active_learning.inspection import to_inspection
from active_learning.uncertainty import ACQUISITION_THRESHOLD, ASK_FROM
from core.records import Inspection, ReleaseConfig
from core.settings import Settings
from core.types import DecodedImage, Predictor
from demo.observing import Answered
from demo.words import short
from models import choose_device, load
from models._release import read_release

logger = logging.getLogger(__name__)

_SUFFIX: Final = " (candidate)"
# Given image, inspections, reasons and priority: puts an image into the review queue.
Queue = Callable[[bytes, tuple[Inspection, ...], tuple[str, ...], float], object]


def encoded(source: Path | bytes | DecodedImage, settings: Settings) -> bytes | None:
    """The bytes of a picture that a candidate in the shadow looks at, too; else nothing is read."""
    if settings.retraining.shadow is None or isinstance(source, DecodedImage):
        return None
    try:
        return source.read_bytes() if isinstance(source, Path) else source
    except OSError:  # cleared since it was decoded
        return None


class Shadow:
    """The candidate of the settings.

    Args:
        settings: where the candidate lies and for how many images it answers.
        queue: what becomes of a disagreement.
    """

    def __init__(self, settings: Settings, queue: Queue) -> None:
        self._settings = settings
        self._queue = queue
        self._predictor: Predictor | None = None
        self._config: ReleaseConfig | None = None
        self.looked = 0
        self.disagreed = 0

    def __call__(self, answered: Answered) -> None:
        """Look at an image that the live model has answered, if it is this candidate's model.

        Raises:
            WeightsError: if the candidate is damaged.
            WeightsNotFoundError: if there is none where the settings say.
            LedgerError: if a disagreement cannot be queued.
        """
        folder, most = self._settings.retraining.shadow, self._settings.retraining.shadow_images
        if folder is None or self.looked >= most:
            return
        predictor, config = self._opened(folder)
        if answered.inspection.model != config.name:
            return
        [prediction] = predictor([answered.image], score_threshold=ACQUISITION_THRESHOLD)
        said = to_inspection(
            prediction,
            release=config,
            review_threshold=self._settings.review.review_threshold,
            score_threshold=None,  # its own, as the live answer is told here at its own
        )
        self.looked += 1
        self._compare(answered, said.model_copy(update={"model": config.name + _SUFFIX}), config)
        if self.looked == most:
            logger.info(
                "%s %s has answered %d images in the shadow and disagreed on %d",
                *(config.name, config.revision, self.looked, self.disagreed),
            )

    def _compare(self, answered: Answered, said: Inspection, config: ReleaseConfig) -> None:
        live = answered.inspection
        taught = dict.fromkeys((live.model, said.model), config.labels)
        title = short(config.title)
        titles = {live.model: title, said.model: f"{title}{_SUFFIX}"}
        found = compare([live, said], labels=taught, titles=titles)
        asked_from = self._settings.review.review_threshold
        if found.disagreement < (ASK_FROM if asked_from is None else asked_from):
            return
        self.disagreed += 1
        if answered.data is None:
            return
        reason = f"the live {title} {live.revision} and the candidate {said.revision} disagree"
        self._queue(answered.data, (live,), (reason, *found.reasons), found.disagreement)

    def _opened(self, folder: Path) -> tuple[Predictor, ReleaseConfig]:
        if self._predictor is None or self._config is None:
            self._config = read_release(folder)
            device = choose_device(self._settings.serving.device)
            self._predictor = load(folder, device=device)
            logger.info("%s %s answers in the shadow", self._config.name, self._config.revision)
        return self._predictor, self._config
