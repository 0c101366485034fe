"""Requests that arrive together are answered together: several pictures in one forward pass.

No thread of its own: of those who wait, one looks at everybody's pictures and the others take their
answers. A request that comes alone is answered at once. Only right after a shared pass is the next
one held back, for a few milliseconds, so that the same callers can join it again.

Who came first is answered first, with one exception. A picture of hundreds of tiles fills many
passes and gains nothing from company: it is looked at alone, and after it those that fit into one
pass have their turn before the next of its kind. So a small picture waits for at most one large
one, and a large one for at most one pass of small ones before each that came before it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from core.types import DecodedImage, Prediction, Predictor
from models._steps import Listener, listener, told_to

if TYPE_CHECKING:
    from models._spec import ModelSpec

MAX_TILES = 16
MAX_WAIT_S = 0.004


@dataclass(slots=True, eq=False)
class _Request:
    image: DecodedImage
    score_threshold: float
    tiles: int
    listener: Listener | None = field(default_factory=listener)  # of the thread that asks
    answer: Prediction | None = None
    failure: Exception | None = None

    @property
    def is_done(self) -> bool:
        return self.answer is not None or self.failure is not None


class Batcher:
    """A predictor that answers pictures from many threads in common passes.

    Args:
        predictor: what answers.
        tiles: in how many tiles it looks at a picture, 1 for one that is not cut.
        max_tiles: in one pass; a picture of more is looked at alone.
        max_wait_s: longest time that a pass is held back for others.
    """

    def __init__(
        self,
        predictor: Predictor,
        *,
        tiles: Callable[[DecodedImage], int] = lambda _: 1,
        max_tiles: int = MAX_TILES,
        max_wait_s: float = MAX_WAIT_S,
    ) -> None:
        self.predictor = predictor
        self._tiles, self._max_tiles, self._max_wait_s = tiles, max_tiles, max_wait_s
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._is_looking = False
        self._together = 1  # pictures in the pass before
        self._was_large = False  # whether that was one that is looked at alone

    @property
    def spec(self) -> ModelSpec:
        """What the network is."""
        return self.predictor.spec

    @property
    def revision(self) -> str:
        """Which weights it carries."""
        return self.predictor.revision

    @property
    def labels(self) -> tuple[str, ...]:
        """Its classes, background left out."""
        return self.predictor.labels

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """Look at each image; whatever goes wrong with one is raised to its own caller alone."""
        if len(images) != 1:  # a batch already
            return self.predictor(images, score_threshold=score_threshold)
        request = _Request(images[0], score_threshold, self._tiles(images[0]))
        with self._changed:
            self._waiting.append(request)
            self._changed.notify_all()
        while (batch := self._my_turn(request)) is not None:
            try:
                self._look(batch)
            finally:
                with self._changed:
                    self._is_looking, self._together = False, len(batch)
                    self._changed.notify_all()
        if request.failure is not None:
            raise request.failure
        assert request.answer is not None  # for the type checker: a turn ends with one or the other
        return [request.answer]

    def _my_turn(self, request: _Request) -> list[_Request] | None:
        """The batch that this caller must look at now, or None when its own answer is there."""
        with self._changed:
            self._changed.wait_for(lambda: request.is_done or not self._is_looking)
            if request.is_done:
                return None
            self._is_looking = True
            if self._together > 1:
                wanted = min(self._together, self._max_tiles)
                self._changed.wait_for(
                    lambda: len(self._waiting) >= wanted, timeout=self._max_wait_s
                )
            batch = self._next()
            for taken in batch:
                self._waiting.remove(taken)
            self._was_large = batch[0].tiles > self._max_tiles
            return batch

    def _next(self) -> list[_Request]:
        """Whose turn it is, and those who came after and fit into the same pass."""
        first = self._waiting[0]
        if self._was_large:
            small = (r for r in self._waiting if r.tiles <= self._max_tiles)
            first = next(small, first)
        batch, tiles = [first], first.tiles
        for request in self._waiting:
            is_alike = request.score_threshold == first.score_threshold
            if request is not first and is_alike and tiles + request.tiles <= self._max_tiles:
                batch.append(request)
                tiles += request.tiles
        return batch

    def _look(self, batch: Sequence[_Request]) -> None:
        """Answer all; if they fail together, each by itself."""
        threshold = batch[0].score_threshold
        hears = batch[0].listener if len(batch) == 1 else None  # a large one is looked at alone
        try:
            with told_to(hears):
                answers = self.predictor([r.image for r in batch], score_threshold=threshold)
        except Exception as exc:
            if len(batch) == 1:
                batch[0].failure = exc
                return
            for request in batch:
                self._look([request])
            return
        for request, answer in zip(batch, answers, strict=True):
            request.answer = answer
