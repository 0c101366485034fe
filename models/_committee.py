"""Several detectors as one: `committee`, a predictor that fuses what its members find.

It is no network and no published model: `models.names()` does not list it. Its members' weights and
the overlap at which boxes are one were chosen on validation images for the very revisions named in
`committee.json`; with other revisions all members have an equal say and scores are not calibrated.
It takes as long as its members take together.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from core.errors import WeightsError, WeightsNotFoundError
from core.records import Protocol, Record, ReleaseConfig
from core.types import DecodedImage, Detections, Prediction, Predictor
from models import get_spec, names

if TYPE_CHECKING:
    from models._spec import ModelSpec

logger = logging.getLogger(__name__)

COMMITTEE: Final = "committee"
TITLE: Final = "Committee of the detectors (weighted boxes fusion)"
# What pages call one whose members were not tuned together: a member was replaced alone, say.
UNTUNED_TITLE: Final = "Committee of the detectors, not tuned (equal say, scores as they are)"
TUNING_FILE: Final = "committee.json"
# Every member is asked for boxes down to this score whatever will be shown, so that a finding's
# fused score does not depend on the threshold it is compared with.
ASKED_FROM: Final = 0.01
UNTUNED_IOU: Final = 0.55  # the paper's


class CommitteeMember(Record):
    """One detector of a committee and how much it has to say."""

    name: str
    revision: str  # the very weights that the committee was tuned with
    weight: float = Field(ge=0)


class CommitteeTuning(Record):
    """`committee.json`: how detectors are fused, chosen on a validation split alone."""

    format: Literal[1] = 1
    members: tuple[CommitteeMember, ...] = Field(min_length=1)
    iou_threshold: float = Field(gt=0, lt=1)
    score_threshold: float  # of a finding worth showing
    calibration: dict[str, Any] = Field(default_factory=dict)
    # What it finds and invents by score threshold; not written where it was not counted, so that a
    # tuning that was made without it keeps its revision.
    operating: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda stored: not stored)
    dataset: str
    protocol: Protocol
    val_id: str  # SHA-256 of the sorted image hashes of the validation split
    n: int  # its images
    mAP50_95: float  # of the committee on that split: chosen there, so better than it will do
    best_single: str  # the member that is best there
    best_single_mAP50_95: float

    @model_validator(mode="after")
    def _somebody_has_a_say(self) -> Self:
        if not any(member.weight > 0 for member in self.members):
            raise ValueError("no member has a weight above 0, so it would find nothing")
        return self


def detectors() -> tuple[str, ...]:
    """Names of the published detectors: the members of a committee."""
    return tuple(name for name in names() if get_spec(name).task == "detect")


class Committee:
    """Detectors that know the same classes, fused.

    Args:
        members: with their weights loaded, or whatever answers for them.
        tuning: of this committee; None, or one of other revisions: all have an equal say.

    Raises:
        WeightsError: if the members know different classes, or there are none.
    """

    def __init__(self, members: Sequence[Predictor], tuning: CommitteeTuning | None) -> None:
        if len({member.labels for member in members}) != 1:
            raise WeightsError(
                "A committee needs detectors that know the same classes, got "
                + "; ".join(f"{m.spec.name}: {', '.join(m.labels)}" for m in members)
                + "."
            )
        identities = [(member.spec.name, member.revision) for member in members]
        tuning = fitting(tuning, identities)
        say = {m.name: m.weight for m in tuning.members} if tuning else {}
        self._members = tuple(members)
        self._weights = tuple(say.get(name, 1.0) for name, _ in identities)
        self._iou = tuning.iou_threshold if tuning else UNTUNED_IOU
        self.labels = members[0].labels
        self.revision = revision(identities, tuning)
        self.spec: ModelSpec = replace(
            members[0].spec, name=COMMITTEE, title=TITLE, paper=None, reported=(), departures=()
        )

    def __call__(
        self, images: Sequence[DecodedImage], *, score_threshold: float
    ) -> list[Prediction]:
        """Look at each image with every member; fused detections below the threshold are left out.

        A finding's features are none; its latency is its members' together.
        """
        asked = min(score_threshold, ASKED_FROM)
        answers = [member(images, score_threshold=asked) for member in self._members]
        return [self._fuse(of_one, score_threshold) for of_one in zip(*answers, strict=True)]

    def _fuse(self, answers: Sequence[Prediction], threshold: float) -> Detections:
        from models._fusion import fuse

        found = [answer for answer in answers if isinstance(answer, Detections)]
        xyxy, scores, class_ids = fuse(
            [(f.xyxy, f.scores, f.class_ids) for f in found],
            self._weights,
            iou_threshold=self._iou,
        )
        kept = scores >= threshold
        source = replace(
            found[0].source,
            model=COMMITTEE,
            revision=self.revision,
            latency_ms=sum(f.source.latency_ms for f in found),
            features=None,
        )
        return Detections(xyxy[kept], scores[kept], class_ids[kept], self.labels, source)


def fitting(
    tuning: CommitteeTuning | None, identities: Sequence[tuple[str, str]]
) -> CommitteeTuning | None:
    """The tuning, if it was made for exactly these names and revisions, else None."""
    if tuning is None or {(m.name, m.revision) for m in tuning.members} != set(identities):
        return None
    return tuning


def revision(identities: Sequence[tuple[str, str]], tuning: CommitteeTuning | None) -> str:
    """12 hex digits that change with any member's weights and with the tuning."""
    told = tuning.model_dump_json() if tuning else "untuned"
    text = "\n".join([*(f"{name} {weights}" for name, weights in sorted(identities)), told])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def describe(configs: Sequence[ReleaseConfig], tuning: CommitteeTuning | None) -> ReleaseConfig:
    """A committee as a release is described, for those who read answers by a description.

    It has no weights of its own and was not trained: `run` is its best-validated member's.

    Args:
        configs: of the members.
        tuning: as for `Committee`.
    """
    identities = [(config.name, config.revision) for config in configs]
    tuning = fitting(tuning, identities)
    best = max(configs, key=lambda config: config.run.validation.get("mAP50_95", 0.0))
    shown = tuning.score_threshold if tuning else best.score_threshold
    return best.model_copy(
        update={
            "name": COMMITTEE,
            "title": TITLE if tuning else UNTUNED_TITLE,
            "parameters": sum(config.parameters for config in configs),
            "gflops": sum(config.gflops for config in configs),
            "weights_sha256": revision(identities, tuning),
            "score_threshold": shown,
            "calibration": tuning.calibration if tuning else {},
            "ask_from": None,
            "novelty": None,
            "drift": {},
            "operating": tuning.operating if tuning else {},
            "int8": None,
            "evaluations": (),
        }
    )


def read_tuning(
    bundled: Path, releases: Path, members: Sequence[tuple[str, str]]
) -> CommitteeTuning | None:
    """The tuning that was made for these members: this machine's own, else the bundled one.

    Args:
        bundled: folder of the releases that come with the code.
        releases: folder of those that were promoted here.
        members: name and revision of each.

    Returns:
        None where there is none for them; if there is one for others, the log says so once.

    Raises:
        WeightsError: if a file is damaged.
    """
    others = False
    for folder in (releases, bundled):
        path = folder / COMMITTEE / TUNING_FILE
        if not path.is_file():
            continue
        try:
            tuning = CommitteeTuning.model_validate_json(path.read_bytes())
        except ValidationError as exc:
            fault = exc.errors()[0]["msg"].removeprefix("Value error, ")
            raise WeightsError(f"{path} is no tuning of a committee: {fault}.") from exc
        if fitting(tuning, members):
            return tuning
        others = True
    if others:
        _warn_untuned(frozenset(members))
    return None


@cache
def _warn_untuned(members: frozenset[tuple[str, str]]) -> None:
    """Once for the same weights: an app reads the tuning with every answer."""
    told = ", ".join(f"{name} {weights}" for name, weights in sorted(members))
    logger.warning("no committee was tuned with %s: all members have an equal say", told)


def open_committee(members: Sequence[Predictor], bundled: Path, releases: Path) -> Committee:
    """The committee of these members with the tuning that lies there for them.

    Raises:
        WeightsNotFoundError: if there are fewer than two members.
        WeightsError: if they know different classes, or the tuning is damaged.
    """
    if len(members) < 2:
        raise WeightsNotFoundError(
            f"A committee needs weights of two detectors or more, there are {len(members)}."
        )
    tuning = read_tuning(bundled, releases, [(m.spec.name, m.revision) for m in members])
    return Committee(members, tuning)
