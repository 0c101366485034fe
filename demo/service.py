"""What the app can do, without any web page: list models, inspect an image, compare opinions.

All methods may be called from any thread.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

from active_learning.committee import Committee, compare
from active_learning.courier import Courier
from active_learning.inspection import to_inspection
from active_learning.novelty import novelty_of
from active_learning.status import last_run
from active_learning.tolerance import read_tolerances
from active_learning.uncertainty import ACQUISITION_THRESHOLD
from core.errors import InputError, RollmarkError
from core.images import decode
from core.records import REVIEW_STATES, Inspection, ReleaseConfig, ReviewItem, ServedModel
from core.settings import Settings
from core.types import DecodedImage, FloatArray, Prediction
from demo import choosing, gpu
from demo.committee import networks_of, ready, with_committee
from demo.doubts import Doubts, marked
from demo.heat import HeatMaps
from demo.loaded import LoadedModels
from demo.observing import Observer
from demo.review import ReviewDesk
from demo.roll_marks import with_repeats
from demo.shadow import Shadow, encoded
from demo.side_by_side import in_order
from demo.words import short
from hub.registry import Release
from models._committee import COMMITTEE

logger = logging.getLogger(__name__)

AUTO: Final = choosing.AUTO
# What callers are told of the run that was started last.
_OF_A_RUN: Final = (
    *("id", "model", "dataset", "epochs", "epochs_planned"),
    *("started_at", "finished_at", "validation"),
)
_NO_ITEMS: Final = dict.fromkeys(REVIEW_STATES, 0)


@dataclass(frozen=True, slots=True)
class Look:
    """One model's answer about one image, with everything needed to draw it."""

    image: DecodedImage
    prediction: Prediction
    inspection: Inspection
    title: str  # of the model, for people
    usual: Callable[[], Inspection]  # the answer at the release's own score threshold
    queued: str = ""  # what became of a doubt, in words; "" where there is nothing to say


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several models' answers about the same image, and what they say together."""

    looks: tuple[Look, ...]
    committee: Committee
    queued: str = ""  # what became of their doubts, in words


class Service:
    """Every model that has a release, ready to look at images.

    Args:
        settings: where releases lie, how large an image may be, how many networks stay in memory.

    Raises:
        ConfigError: if they name a model that there is not, or tolerances that cannot be read.
    """

    def __init__(self, settings: Settings) -> None:
        choosing.check_auto_model(settings.serving.auto_model)
        self._settings, self.pitch = settings, settings.serving.pitch
        self.tolerances = read_tolerances(settings.serving.tolerances, self.pitch)
        self._models = LoadedModels(settings.paths, settings.serving)
        self.review = ReviewDesk(settings)
        self.courier = Courier(settings, lambda: self.review.open(self.releases()))
        self._doubts = Doubts(self.review, settings.review)
        self._heat = HeatMaps()
        self._observer = Observer(
            lambda: self.review.open(self.releases()).ledger,
            window=settings.retraining.drift_window,
            beside=Shadow(settings, self._queue_disagreement),
        )

    def releases(self) -> tuple[Release, ...]:
        """The live release of every model that has a sound one, in the order of their names."""
        return self._models.releases()

    def models(self) -> tuple[ServedModel, ...]:
        """What `/models` answers."""
        return tuple(release.served() for release in self.releases())

    def choose(self, model: str = AUTO) -> Release:
        """The release behind a name; see `choosing.choose`.

        `committee` is all detectors, fused, where there are two or more.

        Raises:
            UnknownModelError: if no served model has that name.
            WeightsNotFoundError: if no model is served at all.
        """
        auto_model, offered = self._settings.serving.auto_model, self.releases()
        singly = {AUTO, *(release.config.name for release in offered)}
        if model not in singly or auto_model == COMMITTEE:
            offered = with_committee(offered, self._settings.paths)  # reads how it was tuned
        return choosing.choose(model, offered, auto_model=auto_model)

    def choices(self) -> tuple[Release, ...]:
        """What may be chosen by name: every release, and the committee where there is one."""
        return with_committee(self.releases(), self._settings.paths)

    def titles(self) -> dict[str, str]:
        """What people call each model that may be chosen, by its name."""
        return {r.config.name: short(r.config.title) for r in self.choices()}

    def decode(self, source: Path | bytes) -> DecodedImage:
        """Open a picture from outside, within the caps of the settings.

        Raises:
            InputError: if it is not a readable picture within the caps.
        """
        return decode(source, limits=self._settings.serving.image_limits)

    def inspect(
        self,
        source: Path | bytes | DecodedImage,
        model: str = AUTO,
        *,
        score_threshold: float | None = None,
        image: DecodedImage | None = None,
    ) -> Look:
        """Let one model look at one image; one that it is unsure of is queued for review.

        Args:
            source: the file, its bytes, or a picture that is already decoded; the last is looked
                at and never queued.
            model: name of a served model, or `auto`.
            score_threshold: lowest score of a finding, in [0, 1]; None: the settings', else the
                release's own.
            image: `source`, where it is decoded already.

        Raises:
            InputError: if the image or the threshold cannot be used.
            UnknownModelError: if no served model has that name.
            WeightsError: if its weights are damaged.
            WeightsNotFoundError: if no model is served at all.
        """
        look = self._look(image or source, model, score_threshold)
        self._observer.note(look.image, look.usual, encoded(source, self._settings))
        if isinstance(source, DecodedImage):
            return look
        queued = self._doubts.settle(source, [look.inspection], self.releases())
        inspection = marked(look.inspection, queued)
        return replace(look, inspection=inspection, queued=queued.words)

    def _look(
        self, source: Path | bytes | DecodedImage, model: str, score_threshold: float | None
    ) -> Look:
        threshold = self._threshold(score_threshold)
        release = self.choose(model)
        image = source if isinstance(source, DecodedImage) else self.decode(source)
        # Not always the release that was asked for: see LoadedModels.
        release, predictor = ready(release, self.releases(), self._models, self._settings.paths)
        config = release.config
        asked = config.score_threshold if threshold is None else threshold
        # Near misses make a detector's uncertainty, so it is asked for more than will be shown.
        [prediction] = predictor([image], score_threshold=min(asked, ACQUISITION_THRESHOLD))
        novelty = novelty_of(prediction, release.folder, config)
        limit = self._settings.review.review_threshold
        read = partial(
            to_inspection, prediction, release=config, novelty=novelty, review_threshold=limit
        )
        inspection = seen = with_repeats(read(score_threshold=threshold), self.pitch)
        if self.tolerances is not None:
            inspection = self.tolerances.judge(seen)
        logger.info(
            "inspected %s with %s %s: %s",
            *(image.sha256[:12], config.name, config.revision, inspection.verdict),
        )
        is_usual = threshold in (None, config.score_threshold)
        usual = (lambda: seen) if is_usual else partial(read, score_threshold=None)
        return Look(image, prediction, inspection, config.title, usual)

    def heat(
        self, image: DecodedImage, said: Inspection, method: Literal["layer", "eigen"]
    ) -> FloatArray:
        """Where the model of an answer looked, (H, W) in [0, 1]; raises as `choose`, `HeatMaps`."""
        return self._heat(self.choose(said.model), image, method, revision=said.revision)

    def chosen(self, models: Sequence[str] | None) -> tuple[str, ...]:
        """Names for a comparison: those given, each once, or every served model.

        Raises:
            InputError: if the list is empty.
            UnknownModelError: if no served model has one of the names.
            WeightsNotFoundError: if no model is served at all.
        """
        if models is None:
            self.choose()  # raises when there is nothing to compare
            return tuple(release.config.name for release in self.releases())
        if not models:
            raise InputError("No model is chosen; choose at least one to compare.")
        return tuple(dict.fromkeys(self.choose(name).config.name for name in models))

    def looks(
        self, source: Path | bytes | DecodedImage, models: Sequence[str] | None = None
    ) -> Iterator[Look]:
        """Answers of several models about the same decoded image, in order, each as it is ready.

        They look side by side, as many as may be in memory: a small network leaves most of the
        machine idle. Hand them to `conclude` when all are there.

        Raises:
            InputError: if the image cannot be used, or no model is chosen.
            UnknownModelError: if no served model has one of the names.
            WeightsError: if weights are damaged.
            WeightsNotFoundError: if no model is served at all.
        """
        chosen = self.chosen(models)
        image = source if isinstance(source, DecodedImage) else self.decode(source)
        at_once = 1 if gpu.is_lent() else self._settings.serving.max_models
        yield from in_order(partial(self.inspect, image), chosen, at_once=at_once)

    def compare(self, source: Path | bytes, models: Sequence[str] | None = None) -> Comparison:
        """All answers about one image, and how far they agree; raises what `looks` raises."""
        return self.conclude(source, list(self.looks(source, models)))

    def conclude(self, source: Path | bytes, looks: Sequence[Look]) -> Comparison:
        """What models say together about an image; one that they doubt is queued for review."""
        committee = judge(looks)
        inspections = [look.inspection for look in looks]
        queued = self._doubts.settle(source, inspections, self.releases(), committee=committee)
        told = tuple(
            replace(look, inspection=marked(look.inspection, queued), queued=queued.words)
            for look in looks
        )
        return Comparison(told, committee, queued.words)

    def flag(self, source: Path | bytes, model: str, *, reason: str, note: str = "") -> ReviewItem:
        """Put an image into the review queue because a person does not trust the answer.

        Args:
            source: the file, or its bytes.
            model: whose answer it is; it looks once more, so that the reviewer sees what it says.
            reason: wrong, missed or new_defect.
            note: in the person's own words.

        Raises:
            InputError: if the image, the reason or the note cannot be used.
            UnknownModelError: if no served model has that name.
            LedgerError: if the item cannot be stored.
            WeightsError: if weights are damaged.
        """
        look = self._look(source, model, None)
        data = source.read_bytes() if isinstance(source, Path) else source
        item = self.review.flag(data, look.inspection, self.releases(), reason=reason, note=note)
        logger.info("flagged %s as %s: %s", look.image.sha256[:12], reason, item.id)
        return item

    def status(self) -> dict[str, Any]:
        """What `/status` answers: the review queue, what is loaded, the last training run.

        Raises:
            LedgerError: if the ledger cannot be read.
        """
        loaded = self._models.revisions()
        releases = self.releases()
        run = last_run(self._settings)
        return {
            "queue": self.review.counts(releases) if releases else _NO_ITEMS,
            "models": {
                model.name: {
                    "revision": model.revision,
                    "source": model.source,
                    "loaded": loaded.get(model.name) == model.revision,
                }
                for model in (release.served() for release in releases)
            },
            "last_run": run.model_dump(mode="json", include=set(_OF_A_RUN)) if run else None,
        }

    def _queue_disagreement(
        self,
        image: bytes,
        inspections: tuple[Inspection, ...],
        reasons: tuple[str, ...],
        priority: float,
    ) -> None:
        self.review.add(image, inspections, self.releases(), reasons=reasons, priority=priority)

    def preload(self) -> threading.Thread:
        """Load what fits into memory in the background, the automatic choice first."""
        thread = threading.Thread(target=self._preload, name="preload", daemon=True)
        thread.start()
        return thread

    def _preload(self) -> None:
        try:
            first = self.choose()
        except RollmarkError as exc:
            logger.warning("nothing to load: %s", exc)
            return
        releases = self.releases()
        asked = networks_of(first, releases)
        ordered = sorted(releases, key=lambda release: release not in asked)
        known = {label for release in ordered for label in release.config.labels}
        for label in sorted(set(self.tolerances.labels if self.tolerances else ()) - known):
            logger.warning("no served model knows the class %s that has a tolerance", label)
        self._models.preload(
            ordered[: self._settings.serving.max_models],
            on_first=lambda: self._doubts.get_ready(self.releases()),  # none came before
        )
        self._heat.get_ready()

    def usual_threshold(self, config: ReleaseConfig) -> float:
        """Lowest score of a finding that is shown where nobody says another."""
        general = self._settings.serving.score_threshold
        return config.score_threshold if general is None else general

    def _threshold(self, given: float | None) -> float | None:
        threshold = self._settings.serving.score_threshold if given is None else given
        if threshold is not None and not 0 <= threshold <= 1:  # whole numbers have no largest one
            raise InputError(f"Score threshold is {threshold!s:.20}; it must lie in 0 to 1.")
        return threshold


def judge(looks: Sequence[Look]) -> Committee:
    """How far the models agree, each asked about the classes it was taught, each voting once."""
    singly = [look for look in looks if look.inspection.model != COMMITTEE]
    if any(look.inspection.task == "detect" for look in singly):
        looks = singly  # the committee only says again what its detectors have said
    taught = {look.inspection.model: look.prediction.labels for look in looks}
    titles = {look.inspection.model: short(look.title) for look in looks}
    return compare([look.inspection for look in looks], labels=taught, titles=titles)
