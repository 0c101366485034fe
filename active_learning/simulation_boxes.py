"""A pool of images with boxes: detectors' heads learn, and choose by what they make of the rest.

The learner is the head of a YOLO11n on the frozen maps of its COCO backbone and neck
(`training.head_trainer`), trained anew in every round for the same number of steps. As for a
release, its scores are calibrated on the validation split before anything is read from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from active_learning.calibration import apply
from active_learning.calibration_fitting import Pairs, fit_detection
from active_learning.committee import compare
from active_learning.query import Candidate, classes_worth_a_label, rank
from active_learning.simulation import OURS, RANDOM, Ask, at_random, most
from active_learning.uncertainty import (
    ACQUISITION_THRESHOLD,
    NOT_SURE,
    Floats,
    boxes_uncertainty,
)
from core.records import FoundBox, ImageFacts, Inspection
from training.detection_metrics import Ranking, Scene, weighted_ap
from training.detection_metrics import rank as rank_boxes
from training.metrics import mean

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from models._boxes import Boxes
    from training.datasets import Dataset, Sample
    from training.head_trainer import Maps

CALIBRATED_ON: Final = "val"
LEAST_CONFIDENCE: Final = "least confidence"
COMMITTEE: Final = "committee"
SCORE_THRESHOLD: Final = 0.001  # that average precision sees every box that matters
MAP50, MAP50_95 = "mAP50", "mAP50_95"
_MEMBER_SEEDS: Final = 500_000  # between the seeds of a committee's members
_KEPT: Final = 4  # learners kept: the first draw's, which every strategy begins with, and the last


@dataclass(frozen=True)
class Found:
    """The boxes that a learner finds in one image."""

    xyxy: NDArray[np.float32]  # (n, 4) px
    probabilities: Floats  # (n,), calibrated
    class_ids: NDArray[np.int64]  # (n,)


@dataclass(frozen=True)
class _Learner:
    head: nn.Module
    calibration: Mapping[str, Any]
    rankings: Sequence[Ranking]  # of what it finds on CALIBRATED_ON
    scores: dict[str, float] = field(default_factory=dict)  # filled when it is judged


class BoxPool:
    """The training images of a set of boxes, judged on other splits of it.

    Args:
        dataset: to detect.
        arrays: .npz of folded COCO arrays of YOLO11n.
        protocol: whose splits.
        judged: splits on which a learner is judged, besides CALIBRATED_ON.

    Raises:
        DatasetError: if there is no such split.
        WeightsError: if the arrays do not fit.
    """

    strategies = (OURS, LEAST_CONFIDENCE, COMMITTEE, RANDOM)

    def __init__(
        self, dataset: Dataset, arrays: Path, *, protocol: str, judged: Sequence[str]
    ) -> None:
        from training.head_trainer import HeadTrainer

        self.labels = dataset.labels
        self._samples = dataset.split(protocol, "train")
        self._trainer = HeadTrainer(arrays, dataset.labels, self._samples)
        self._judged = {
            split: self._trainer.maps(dataset.split(protocol, split))
            for split in dict.fromkeys((CALIBRATED_ON, *judged))
        }
        self._seed: int | None = None  # of the learners that are kept
        self._learners: dict[tuple[tuple[int, ...], int], _Learner] = {}  # by labels and member

    def __len__(self) -> int:
        return len(self._samples)

    @cached_property
    def counts(self) -> dict[str, int]:
        """Boxes of each class in the whole pool."""
        return self._count(range(len(self)))

    @property
    def judged(self) -> dict[str, int]:
        """Images of each judging split."""
        return {split: len(maps) for split, maps in self._judged.items()}

    def choose(self, strategy: str, ask: Ask) -> list[int]:
        """Images to be labelled next."""
        if strategy == RANDOM:
            return at_random(ask)
        found = self._look(ask)
        if strategy == LEAST_CONFIDENCE:
            return most(np.array([1 - f.probabilities.max(initial=0.0) for f in found]), ask)
        if strategy == COMMITTEE:
            pairs = zip(found, self._look(ask, member=1), strict=True)
            return most(np.array([self._disagreement(*pair) for pair in pairs]), ask)
        return self._ours(found, ask)

    def judge(self, labelled: Sequence[int], *, seed: int) -> dict[str, float]:
        """mAP50 and mAP50_95 on every judging split."""
        learner = self._learner(labelled, seed=seed)
        if not learner.scores:
            for split, maps in self._judged.items():
                rankings = learner.rankings
                if split != CALIBRATED_ON:
                    rankings = self._rankings(learner.head, split)
                once = np.ones((1, len(maps)), np.int64)
                ap = np.stack([weighted_ap(ranking, once)[:, 0] for ranking in rankings], axis=-1)
                learner.scores[f"{split} {MAP50}"] = float(np.nan_to_num(mean(ap[0])))
                learner.scores[f"{split} {MAP50_95}"] = float(np.nan_to_num(mean(ap.mean(0))))
        return dict(learner.scores)

    def _ours(self, found: Sequence[Found], ask: Ask) -> list[int]:
        """The ranking of `active_learning push`."""
        pool = [
            Candidate(
                id=f"{i:06d}",
                uncertainty=boxes_uncertainty(f.xyxy, f.probabilities, f.class_ids),
                classes=classes_worth_a_label(self._best(f)),
            )
            for i, f in zip(ask.unlabelled, found, strict=True)
        ]
        ranked = rank(
            pool,
            ask.size,
            labelled_counts=self._count(ask.labelled),
            random_share=ask.random_share,
            seed=ask.seed,
        )
        return [int(entry.id) for entry in ranked]

    def _best(self, found: Found) -> dict[str, float]:
        """The highest probability of each class that was found."""
        best: dict[str, float] = {}
        for k, p in zip(found.class_ids, found.probabilities, strict=True):
            best[self.labels[k]] = max(best.get(self.labels[k], 0.0), float(p))
        return best

    def _disagreement(self, found: Found, other: Found) -> float:
        """Of two members, on boxes that at least may be defects, as the committee of the app."""
        opinions = [self._inspection(name, f) for name, f in (("one", found), ("two", other))]
        taught = dict.fromkeys(("one", "two"), self.labels)
        return compare(opinions, labels=taught).disagreement

    def _inspection(self, model: str, found: Found) -> Inspection:
        shown = np.flatnonzero(found.probabilities >= NOT_SURE)
        return Inspection(
            model=model,
            revision="",
            task="detect",
            image=ImageFacts(sha256="0" * 64, width=1, height=1),
            detections=tuple(
                FoundBox(
                    label=self.labels[found.class_ids[k]],
                    score=float(found.probabilities[k]),
                    probability=float(found.probabilities[k]),
                    box=tuple(found.xyxy[k].tolist()),
                )
                for k in shown
            ),
            uncertainty=0.0,
            verdict="accept",
            latency_ms=0.0,
        )

    def _count(self, rows: Sequence[int]) -> dict[str, int]:
        seen = [label for k in rows for label, _ in self._samples[k].boxes]
        return {label: seen.count(label) for label in self.labels}

    # --------------------------------------------------------------------------------- learning

    @cached_property
    def _views(self) -> tuple[Maps, Maps]:
        return tuple(self._trainer.maps(self._samples, mirrored=m) for m in (False, True))  # type: ignore[return-value]

    def _learner(self, labelled: Sequence[int], *, seed: int, member: int = 0) -> _Learner:
        """Trained on these labels; the last few of a seed are kept."""
        from training.head_trainer import STEPS

        if seed != self._seed:
            self._seed = seed
            self._learners.clear()
        key = (tuple(labelled), member)
        if key not in self._learners:
            steps = STEPS if member == 0 else STEPS // 2
            own_seed = seed + _MEMBER_SEEDS * member
            head = self._trainer.train(self._views, labelled, seed=own_seed, steps=steps)
            rankings = self._rankings(head, CALIBRATED_ON)
            groups = [sample.group for sample in self._judged[CALIBRATED_ON].samples]
            calibration = fit_detection(Pairs.from_rankings(rankings, self.labels, groups))
            if len(self._learners) >= _KEPT:
                del self._learners[list(self._learners)[1]]  # that of the first draw stays
            self._learners[key] = _Learner(head, calibration, rankings)
        return self._learners[key]

    def _rankings(self, head: nn.Module, split: str) -> tuple[Ranking, ...]:
        """What a head finds on a judging split, beside what is there."""
        maps = self._judged[split]
        found = self._trainer.look(head, maps, range(len(maps)), threshold=SCORE_THRESHOLD)
        scenes = [self._scene(s, f) for s, f in zip(maps.samples, found, strict=True)]
        return rank_boxes(scenes, len(self.labels))

    def _scene(self, sample: Sample, found: Boxes) -> Scene:
        xyxy, scores, class_ids = found
        return Scene(
            truth=np.array([box for _, box in sample.boxes], np.float64).reshape(-1, 4),
            truth_ids=np.array([self.labels.index(name) for name, _ in sample.boxes], np.int64),
            boxes=xyxy.astype(np.float64),
            scores=scores.astype(np.float64),
            class_ids=class_ids,
        )

    def _look(self, ask: Ask, *, member: int = 0) -> list[Found]:
        """What a learner of the known labels finds in the other images of the pool."""
        learner = self._learner(ask.labelled, seed=ask.learner_seed, member=member)
        found = self._trainer.look(
            learner.head, self._views[0], ask.unlabelled, threshold=ACQUISITION_THRESHOLD
        )
        return [
            Found(xyxy, apply(learner.calibration, scores, [self.labels[k] for k in ids]), ids)
            for xyxy, scores, ids in found
        ]
