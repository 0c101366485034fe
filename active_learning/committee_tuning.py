"""Choosing a committee's weights and overlap on its members' validation split; no test is read.

The figures that are chosen here are the best of some sixty on one split, so the committee will do a
little worse on pictures it was not chosen on: `python -m training compare` says by how much it
beats its best member on a split that chose nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import gcd
from typing import TYPE_CHECKING, Final

import numpy as np

from active_learning.calibration_fitting import Pairs, fit_detection
from active_learning.operating import SPARED, best_threshold, curve, tally_boxes
from core.errors import DatasetError, WeightsNotFoundError
from core.records import ReleaseConfig
from models._committee import CommitteeMember, CommitteeTuning

if TYPE_CHECKING:
    from pathlib import Path

    from core.settings import PathSettings
    from core.types import Predictor
    from training.datasets import Dataset
    from training.detection_metrics import Scene

logger = logging.getLogger(__name__)

OVERLAPS: Final = (0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
SAY: Final = (0, 1, 2, 3)  # of a member; only the ratios count
_EQUAL_OVERLAP: Final = 0.55

_Weights = tuple[int, ...]


def tune_committee(
    members: Sequence[Predictor], configs: Sequence[ReleaseConfig], dataset: Dataset
) -> CommitteeTuning:
    """Weights, overlap, threshold and calibration that suit the validation split best.

    First the overlap with an equal say, then the weights at that overlap, then the overlap again;
    what is compared is mAP50_95.

    Args:
        members: the detectors.
        configs: of their releases, in the same order.
        dataset: the set that all of them were trained on, or a version of it whose validation
            images taught none of them.

    Raises:
        DatasetError: if a member was trained on another one, under another protocol, or on one of
            the validation images.
    """
    from training.detection_metrics import rank
    from training.evaluate import detection_scenes

    protocol = _common_protocol(configs, dataset)
    samples = dataset.split(protocol, "val")
    labels = configs[0].labels
    seen = [detection_scenes(member, samples, labels) for member in members]
    singles = {c.name: _mean_ap(s, len(labels)) for c, s in zip(configs, seen, strict=True)}

    def worth(weights: _Weights, overlap: float) -> float:
        return _mean_ap(fused_scenes(seen, weights, overlap), len(labels))

    weights, overlap = search(worth, len(members))
    scenes = fused_scenes(seen, weights, overlap)
    rankings = rank(scenes, len(labels))
    tallies = tally_boxes(scenes, labels)
    shown_from = best_threshold(tallies, give_up=SPARED)
    if shown_from is None:
        raise DatasetError(f"{dataset.name} has no defect in its validation images to tune on.")
    best = max(singles, key=lambda name: singles[name])
    tuning = CommitteeTuning(
        members=tuple(
            CommitteeMember(name=c.name, revision=c.revision, weight=w)
            for c, w in zip(configs, weights, strict=True)
        ),
        iou_threshold=overlap,
        score_threshold=shown_from,
        calibration=fit_detection(
            Pairs.from_rankings(rankings, labels, [s.group for s in samples])
        ),
        operating=curve(tallies, len(samples), shown_from).model_dump(mode="json"),
        dataset=dataset.name,
        protocol=protocol,
        val_id=dataset.test_id(protocol, "val"),
        n=len(samples),
        mAP50_95=_mean_ap(scenes, len(labels)),
        best_single=best,
        best_single_mAP50_95=singles[best],
    )
    logger.info(
        "tuned a committee on %d images: %s at IoU %.2f, mAP50_95 %.4f; %s alone %.4f",
        *(len(samples), ", ".join(f"{m.name} {m.weight:g}" for m in tuning.members), overlap),
        *(tuning.mAP50_95, best, singles[best]),
    )
    return tuning


def tune_served(
    paths: PathSettings, data: str, output: Path | None, *, device: str = "cpu"
) -> CommitteeTuning:
    """Tune the committee of the detectors that are served, and write `committee.json`.

    Args:
        paths: where releases and data sets lie.
        data: name of a prepared set.
        output: file to write; None: where the app and the commands look for it first.
        device: "cpu" or "cuda:N".

    Raises:
        DatasetError: whatever `tune_committee` raises.
        WeightsNotFoundError: if fewer than two detectors have weights.
    """
    from core.files import write_atomically
    from hub.registry import resolve_all
    from models import load
    from models._committee import COMMITTEE, TUNING_FILE
    from training.datasets import open_dataset

    served = [r for r in resolve_all(paths) if r.config.task == "detect"]
    if len(served) < 2:
        raise WeightsNotFoundError(
            f"A committee needs weights of two detectors or more, there are {len(served)}."
        )
    members = [load(release.folder, device=device) for release in served]
    dataset = open_dataset(data, paths.datasets)
    tuning = tune_committee(members, [release.config for release in served], dataset)
    target = output or paths.releases / COMMITTEE / TUNING_FILE
    write_atomically(target, tuning.model_dump_json(indent=2).encode())
    return tuning


def search(worth: Callable[[_Weights, float], float], n_members: int) -> tuple[_Weights, float]:
    """Weights and overlap of the highest worth; of equal ones the first, which is the simplest."""
    equal = (1,) * n_members
    overlaps = sorted(OVERLAPS, key=lambda overlap: abs(overlap - _EQUAL_OVERLAP))
    overlap = max(overlaps, key=lambda o: worth(equal, o))
    weights = max(_ratios(n_members), key=lambda w: worth(w, overlap))
    overlap = max(overlaps, key=lambda o: worth(weights, o))
    return weights, overlap


def _ratios(n_members: int) -> Iterator[_Weights]:
    """Every ratio of weights once, equal ones first; at least two members have a say."""
    ratios = [
        w for w in product(SAY, repeat=n_members) if gcd(*w) == 1 and sum(x > 0 for x in w) > 1
    ]
    yield from sorted(ratios, key=lambda w: (sum(w) + 100 * (0 in w), w))


def fused_scenes(
    seen: Sequence[Sequence[Scene]], weights: Sequence[float], overlap: float
) -> list[Scene]:
    """What the committee says of each image, from what each member said of it."""
    from models._committee import ASKED_FROM
    from models._fusion import fuse
    from training.detection_metrics import Scene

    fused = []
    for views in zip(*seen, strict=True):
        opinions = []
        for view in views:
            kept = view.scores >= ASKED_FROM
            opinions.append(
                (view.boxes[kept].astype(np.float32), view.scores[kept], view.class_ids[kept])
            )
        boxes, scores, class_ids = fuse(opinions, weights, iou_threshold=overlap)
        truth, truth_ids = views[0].truth, views[0].truth_ids
        fused.append(
            Scene(truth, truth_ids, boxes.astype(np.float64), scores.astype(np.float64), class_ids)
        )
    return fused


def _mean_ap(scenes: Sequence[Scene], classes: int) -> float:
    """mAP50_95 as the evaluation's bootstrap computes it, every image counted once."""
    from training.detection_metrics import rank, weighted_ap
    from training.metrics import mean

    once = np.ones((1, len(scenes)), dtype=np.int64)
    ap = np.stack([weighted_ap(ranking, once)[:, 0] for ranking in rank(scenes, classes)], axis=-1)
    return float(mean(ap.mean(0)))


def _common_protocol(configs: Sequence[ReleaseConfig], dataset: Dataset) -> str:
    protocols = {config.protocol for config in configs}
    if len(protocols) != 1:
        raise DatasetError(
            f"The members were trained under {' and '.join(sorted(protocols))}: one's validation "
            "images are another's training images."
        )
    for config in configs:
        _refuse_the_taught(config, dataset)
    return protocols.pop()


def _refuse_the_taught(config: ReleaseConfig, dataset: Dataset) -> None:
    """Refuse validation images from which a member has learned.

    A member that was retrained alone has learned from a later version of the set than the others:
    whichever version is given, some were trained on another one.
    """
    from active_learning.calibrate import check_dataset

    if config.run.dataset_id == dataset.id:
        return
    learned = _learned_from(config, dataset.root.parent)
    if learned is None:
        check_dataset(config, dataset)
        return
    train = learned.split(config.protocol, "train")
    images, groups = {s.sha256 for s in train}, {s.group for s in train}
    samples = dataset.split(config.protocol, "val")
    taught = sum(s.sha256 in images or s.group in groups for s in samples)
    if taught:
        raise DatasetError(
            f"{taught} of the {len(samples)} validation images of {dataset.root.name} have taught "
            f"{config.name} {config.revision}: give another version of {config.dataset}."
        )


def _learned_from(config: ReleaseConfig, prepared: Path) -> Dataset | None:
    """The very set that a release was trained on, if it lies among the prepared ones."""
    from training.datasets import open_dataset

    for name in (config.dataset, f"{config.dataset}@{config.run.dataset_id[:12]}"):
        if (prepared / name).is_dir():
            found = open_dataset(name, prepared)
            if found.id == config.run.dataset_id:
                return found
    return None
