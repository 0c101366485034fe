"""Answers that deserve a second look: what a live model that never learned from them denies.

A person was asked because a model was unsure: that a model and an answer differ is the rule. Told
is only what a model is *sure* of: a defect where nothing was marked, another class, another place.
What it does not see is no reason, because that is what people are asked for.

No label is changed and nothing is sent. The image has its task in Label Studio. Once somebody has
corrected the answer there, or has said here that it stands, it is not told any more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import sqlalchemy as sa

from active_learning._review_rows import ReviewItemRow
from active_learning.desk import Desk
from active_learning.growth import classes_given, labelled_map, unfit_for
from active_learning.inspection import to_inspection
from active_learning.outlook import versions_of
from active_learning.uncertainty import ACQUISITION_THRESHOLD, SURE
from active_learning.wording import listed, named, number
from core.errors import DatasetError, InputError, LedgerError
from core.images import KEPT, decode
from core.ledger import EventRow
from core.records import Annotation, Box, ReleaseConfig
from core.settings import Settings
from core.types import DecodedImage, Predictor, Segmentation
from hub.registry import Release, resolve_all
from training.learned import images_learned

if TYPE_CHECKING:
    from training.label_doubts import Doubt, Found

logger = logging.getLogger(__name__)

MOST_IMAGES: Final = 500  # the latest answers are looked at
_ITEM: Final = "review_item:"  # how events name an item
_STANDS: Final = "looked at again: the answer stands"  # the event

Load = Callable[[Release], Predictor]


@dataclass(frozen=True, slots=True)
class SecondLook:
    """A reviewed image whose labels a live model denies."""

    image_sha256: str
    task_id: int | None  # in Label Studio
    annotator: str
    answered_at: datetime
    reasons: tuple[str, ...]  # strongest first
    strength: float  # of the first, in [0, 1]


@dataclass(frozen=True, slots=True)
class Rechecked:
    """What came of looking through the answers."""

    images: int  # that a live model looked at
    doubted: tuple[SecondLook, ...]  # strongest first
    unable: tuple[str, ...]  # why models could not be asked, a sentence for each data set


def recheck(settings: Settings, desk: Desk, *, load: Load | None = None) -> Rechecked:
    """Look through what people answered and no live model has learned from.

    Args:
        settings: of this installation.
        desk: of its labelling project.
        load: makes a release's predictor; None: on the CPU.

    Raises:
        LedgerError: if the ledger cannot be read; a picture that cannot be is left out.
        WeightsError: if a live release is damaged.
    """
    once = {image for image, times in desk.inbox.times_answered().items() if times == 1}
    once -= _confirmed(desk)
    told: dict[str, list[tuple[float, str]]] = {}
    answers: dict[str, Annotation] = {}
    unknown: dict[tuple[str, str], list[str]] = {}  # models by the data set they were made of
    for release in resolve_all(settings.paths):
        new = [said for said in _new_answers(settings, desk, release) if said.image_sha256 in once]
        if not new:
            continue
        try:
            learned = images_learned(release.config, settings.paths.datasets)
        except DatasetError:
            run = release.config.run
            unknown.setdefault((run.dataset, run.dataset_id), []).append(release.config.name)
            continue
        unlearned = [said for said in new if said.image_sha256 not in learned]
        latest = sorted(unlearned, key=lambda said: said.created_at)[-MOST_IMAGES:]
        if not latest:
            continue
        predictor = (load or _load)(release)
        for said, doubts in _denials(release.config, predictor, desk, latest):
            answers[said.image_sha256] = said
            words = ((d.strength, _in_words(d, release.config)) for d in doubts)
            told.setdefault(said.image_sha256, []).extend(words)
    doubted = [_second_look(answers[image], reasons) for image, reasons in told.items() if reasons]
    logger.info("looked at %d reviewed images again: %d doubted", len(answers), len(doubted))
    return Rechecked(
        images=len(answers),
        doubted=tuple(sorted(doubted, key=lambda look: (-look.strength, look.image_sha256))),
        unable=tuple(_unable(*made_of, names) for made_of, names in unknown.items()),
    )


def confirm(desk: Desk, task_id: int, *, who: str) -> None:
    """Somebody has looked again and the answer stands: it is not told any more.

    Args:
        desk: of the labelling project.
        task_id: of the answer, in Label Studio.
        who: for the audit trail.

    Raises:
        InputError: if nobody has answered such a task.
        LedgerError: if the ledger cannot be written.
    """
    answered = desk.inbox.times_answered()
    items = [i for i in desk.queue.items(task_id=task_id) if i.image_sha256 in answered]
    if not items:
        raise InputError(
            f"Nobody has answered a task {task_id}: give the number of one that `recheck` lists."
        )
    with desk.ledger.session() as session:
        for item in items:
            desk.ledger.record(session, _STANDS, who=who, entity=f"{_ITEM}{item.id}")


def _confirmed(desk: Desk) -> set[str]:
    """Images, by hash, of which somebody has said that the answer stands."""
    row = ReviewItemRow
    query = sa.select(row.image_sha256).join(
        EventRow, EventRow.entity == sa.literal(_ITEM) + row.id
    )
    query = query.where(EventRow.what == _STANDS, row.project == desk.queue.project)
    with desk.ledger.reading() as session:
        return set(session.scalars(query))


def _new_answers(settings: Settings, desk: Desk, release: Release) -> list[Annotation]:
    """What a model could learn from and has not; the release was made of a known version.

    An answer of another labelling project has no task in this one where it could be corrected.
    """
    config = release.config
    said = versions_of(settings, desk).answers_since(config.dataset, config.run.dataset_id)
    ours = {one.image_sha256: one for one in desk.inbox.current()}
    return [
        one
        for one in said
        if one == ours.get(one.image_sha256)
        and not unfit_for(one, task=config.task, labels=config.labels, dataset=config.dataset)
    ]


def _unable(dataset: str, version: str, names: Sequence[str]) -> str:
    return (
        f"What {listed(names)} learned from is not known here, so nothing is judged by "
        f"{'it' if len(names) == 1 else 'them'}: prepare {dataset} as it was, version "
        f"{version[:12]}."
    )


def _load(release: Release) -> Predictor:
    from models import load

    return load(release.folder)  # on the CPU: a GPU is there for those who wait for an answer


def _denials(
    config: ReleaseConfig, predictor: Predictor, desk: Desk, answers: Sequence[Annotation]
) -> Iterator[tuple[Annotation, tuple[Doubt, ...]]]:
    """Each answer about a readable picture with what the model surely denies of it."""
    for said in answers:
        try:
            image = decode(desk.queue.images.get(said.image_sha256), limits=KEPT)
        except (InputError, LedgerError) as exc:
            logger.warning("image %s is not looked at again: %s", said.image_sha256[:12], exc)
            continue
        yield said, _denied(config, predictor, image, said)


def _denied(
    config: ReleaseConfig, predictor: Predictor, image: DecodedImage, said: Annotation
) -> tuple[Doubt, ...]:
    from training.label_doubts import box_doubts, class_doubts, mask_doubts

    asked = min(config.score_threshold, ACQUISITION_THRESHOLD)
    [prediction] = predictor([image], score_threshold=asked)
    labels = config.labels
    if isinstance(prediction, Segmentation):
        doubts = mask_doubts(
            labelled_map(said, labels), prediction.class_map, prediction.scores, labels
        )[1]
        return tuple(doubt for doubt in doubts if doubt.kind != "not seen")
    seen = to_inspection(prediction, release=config, score_threshold=None)
    if config.task == "classify":
        p = np.array([seen.probabilities[label] for label in labels])
        [given] = classes_given(said, config.task, labels)
        doubts = class_doubts(labels.index(given), p, labels)[1]
    else:
        shown = _found([(b.label, b.probability, b.box) for b in seen.detections], labels)
        sure = shown[shown.scores >= SURE]
        marked = _found([(label, 1.0, box) for label, box in said.boxes], labels)
        doubts = box_doubts(marked, shown, sure, labels, usually_seen=[0.0] * len(labels))
    return tuple(doubt for doubt in doubts if doubt.score >= SURE)


def _found(rows: Sequence[tuple[str, float, Box]], labels: Sequence[str]) -> Found:
    """Boxes from label, score and place."""
    from training.label_doubts import Found

    return Found(
        boxes=np.array([box for _, _, box in rows], np.float64).reshape(-1, 4),
        scores=np.array([score for _, score, _ in rows], np.float64),
        class_ids=np.array([labels.index(label) for label, _, _ in rows], np.int64),
    )


def _in_words(doubt: Doubt, config: ReleaseConfig) -> str:
    who = config.title.partition(" (")[0]
    sure = f"{who} is sure ({number(doubt.score)}) of {named(doubt.found)}"
    at = ""
    if doubt.box is not None:
        x1, y1, x2, y2 = doubt.box
        at = f", at ({(x1 + x2) / 2:.0f}, {(y1 + y2) / 2:.0f}) px"
    match doubt.kind:
        case "overlooked":
            return f"{sure} where nothing is marked{at}"
        case "swapped":
            return f"{sure} where the answer says {named(doubt.label)}{at}"
        case "badly placed":
            shared = f"its box and the one that was drawn overlap by {number(doubt.overlap)}"
            return f"{sure}, but {shared}{at}"
        case "not seen":
            return f"{who} does not see {named(doubt.label)}{at}"


def _second_look(said: Annotation, reasons: Sequence[tuple[float, str]]) -> SecondLook:
    ranked = sorted(reasons, reverse=True)
    return SecondLook(
        image_sha256=said.image_sha256,
        task_id=said.task_id,
        annotator=said.annotator,
        answered_at=said.created_at,
        reasons=tuple(dict.fromkeys(words for _, words in ranked)),
        strength=ranked[0][0],
    )
