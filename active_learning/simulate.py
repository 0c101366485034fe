"""Running simulations: pools from prepared data sets, every round kept as it is done, a summary.

Rounds are appended to a file named by everything that decides them, so a run that was cut off goes
on where it was, and more seeds can be added later.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import ValidationError

from active_learning.embedding import Embedder
from active_learning.simulation import RANDOM, Indices, Outcome, Plan, Pool, simulate
from active_learning.simulation_boxes import CALIBRATED_ON, MAP50, MAP50_95, BoxPool
from active_learning.simulation_classes import MACRO_F1, ClassPool
from active_learning.uncertainty import Floats
from core.errors import DatasetError, InputError
from core.files import write_atomically
from core.records import Record

if TYPE_CHECKING:
    from core.settings import Settings
    from training.datasets import Dataset

logger = logging.getLogger(__name__)

PROTOCOL: Final = "leak-free"  # whose splits
RESAMPLES: Final = 1000
_BAND: Final = (10, 90)  # percentiles of the seeds, shaded in the plot


class Curve(Record):
    """A score of the learner over the seeds, after each round."""

    median: tuple[float, ...]
    low: tuple[float, ...]  # 10th percentile of the seeds
    high: tuple[float, ...]  # 90th


class Saving(Record):
    """Labels a strategy needs for what random choice reaches with all labels of the plan."""

    labels: float | None  # interpolated on the median; None: not reached
    saved: float | None  # share of the labels of random choice; negative: more are needed
    low: float | None  # 2.5th percentile over resampled seeds
    high: float | None


class Simulation(Record):
    """A finished simulation under one metric on one split, as the page tells it."""

    dataset: str
    dataset_id: str
    features: str  # whose, in words
    split: str  # on which the learner was judged
    metric: str
    pool: int  # images
    judged: int  # images
    pool_counts: dict[str, int]
    seeds: int
    plan: dict[str, float]
    labels: tuple[int, ...]  # after each round
    curves: dict[str, Curve]
    target: float  # what random choice reaches in the median with all labels of the plan
    savings: dict[str, Saving]
    all_labels: float  # with the whole pool labelled


def simulate_dataset(
    name: str,
    source: Path,
    settings: Settings,
    *,
    seeds: int,
    sizes: tuple[int, int, int],
    split: str,
) -> tuple[Simulation, ...]:
    """Simulate all strategies on a prepared data set.

    Args:
        name: of the data set, of classes or of boxes.
        source: what the learner builds on: for classes the folder of a release, for boxes the .npz
            of folded COCO arrays of YOLO11n.
        settings: where data sets, runs and the cache lie, and the random share.
        seeds: how many.
        sizes: first labels, labels a round, rounds.
        split: on which the learner is judged.

    Returns:
        One for each metric and split; the split that chooses comes first.

    Raises:
        DatasetError: if the data set is not prepared, or the features come from it.
        InputError: if the pool is smaller than the plan, or the source is of the other kind.
        WeightsError: if the source is damaged.
    """
    from training.datasets import open_dataset

    dataset = open_dataset(name, settings.paths.datasets)
    pool: Pool
    if dataset.task == "detect":
        if source.suffix != ".npz":
            raise InputError(
                f"{name} is a set of boxes: its detectors begin at folded COCO arrays of YOLO11n; "
                f"give their .npz, not {source}."
            )
        pool = BoxPool(dataset, source, protocol=PROTOCOL, judged=(split,))
        words = f"a YOLO11n's backbone and neck, trained on COCO ({source.name})"
        asked = [(s, m) for m in (MAP50, MAP50_95) for s in dict.fromkeys((CALIBRATED_ON, split))]
    else:
        embedder = Embedder(source, cache=settings.paths.cache / "features")
        pool = open_pool(dataset, embedder, protocol=PROTOCOL, split=split)
        config = embedder.config
        words = f"{config.name} {config.revision}, trained on {config.dataset}"
        asked = [(split, MACRO_F1)]
    facts = {"dataset": dataset.name, "dataset_id": dataset.id, "features": words}
    first, step, rounds = sizes
    plan = Plan(first, step, rounds, random_share=settings.review.random_share)
    outcomes = run(
        pool,
        plan,
        seeds=seeds,
        records=settings.paths.runs / "simulations",
        identity={**facts, "split": split, "protocol": PROTOCOL},
    )
    return tuple(
        summarise(outcomes, pool, plan, facts=facts, split=judge, metric=metric)
        for judge, metric in asked
    )


def open_pool(dataset: Dataset, embedder: Embedder, *, protocol: str, split: str) -> ClassPool:
    """The training images of a data set as a pool, judged on another split.

    Raises:
        DatasetError: if the set has no class per image, or the features were learned from it.
    """
    if embedder.config.dataset == dataset.name:
        raise DatasetError(
            f"{embedder.config.name} {embedder.config.revision} was trained on {dataset.name}: its "
            "features know the labels that the simulation hides. Take a release trained on another."
        )
    parts = {name: dataset.split(protocol, name) for name in ("train", split)}
    for sample in (sample for part in parts.values() for sample in part):
        if sample.label is None:
            raise DatasetError(
                f"{dataset.name} has no class for {sample.file}: use a set of classes or of boxes."
            )
    truth = {
        name: np.array([dataset.labels.index(s.label or "") for s in part], dtype=np.int64)
        for name, part in parts.items()
    }
    return ClassPool(
        features=embedder.samples(parts["train"]),
        truth=truth["train"],
        judged_features=embedder.samples(parts[split]),
        judged_truth=truth[split],
        labels=dataset.labels,
        split=split,
    )


def run(
    pool: Pool, plan: Plan, *, seeds: int, records: Path, identity: Mapping[str, str]
) -> list[Outcome]:
    """Every strategy with every seed; rounds that are in `records` already are not repeated.

    Args:
        pool: with hidden labels.
        plan: how many labels, when.
        seeds: 0 to seeds - 1.
        records: folder of the record files.
        identity: what else decides the outcomes: data set, features, split.

    Raises:
        InputError: if the pool is too small for the plan.
    """
    decides = json.dumps({**identity, **asdict(plan)}, sort_keys=True)
    file = records / f"{hashlib.sha256(decides.encode()).hexdigest()[:16]}.jsonl"
    done = _read(file)
    for seed in range(seeds):
        for name in pool.strategies:
            before = sorted(
                (o for o in done if (o.strategy, o.seed) == (name, seed)), key=lambda o: o.round
            )
            for outcome in simulate(pool, name, seed=seed, plan=plan, done=before):
                _append(file, outcome)
                done.append(outcome)
        logger.info("simulated every strategy with seed %d", seed)
    return [outcome for outcome in done if outcome.seed < seeds]


def summarise(
    outcomes: Sequence[Outcome],
    pool: Pool,
    plan: Plan,
    *,
    facts: Mapping[str, str],
    split: str,
    metric: str,
) -> Simulation:
    """Curves and savings of a run under one metric.

    Args:
        outcomes: of `run`, complete.
        pool: it was run on.
        plan: it followed.
        facts: dataset, dataset_id and features.
        split: on which the learner was judged.
        metric: by which.

    Raises:
        InputError: if a round of a strategy is missing.
    """
    seeds = len({outcome.seed for outcome in outcomes})
    key = f"{split} {metric}"
    scores = {
        name: _scores(outcomes, name, key, (seeds, plan.rounds + 1)) for name in pool.strategies
    }
    target = float(np.median(scores[RANDOM][:, -1]))
    return Simulation(
        **facts,
        split=split,
        metric=metric,
        pool=len(pool),
        judged=pool.judged[split],
        pool_counts=pool.counts,
        seeds=seeds,
        plan=asdict(plan),
        labels=plan.labels,
        curves={name: _curve(values) for name, values in scores.items()},
        target=target,
        savings={
            name: _saving(values, scores[RANDOM], plan.labels) for name, values in scores.items()
        },
        all_labels=round(pool.judge(range(len(pool)), seed=0)[key], 4),
    )


def labels_needed(curve: Floats, labels: Sequence[int], target: float) -> float | None:
    """Where a curve first reaches the target, interpolated; None if it never does."""
    best = np.maximum.accumulate(curve)
    reached = np.flatnonzero(best >= target)
    if not len(reached):
        return None
    k = int(reached[0])
    if k == 0:
        return float(labels[0])
    share = (target - best[k - 1]) / (best[k] - best[k - 1])
    return float(labels[k - 1] + share * (labels[k] - labels[k - 1]))


def _saving(scores: Floats, chance: Floats, labels: Sequence[int]) -> Saving:
    """Saved labels, with an interval over seeds that both strategies share."""

    def saved(rows: Indices) -> tuple[float | None, float]:
        random = np.median(chance[rows], axis=0)
        needed = labels_needed(np.median(scores[rows], axis=0), labels, float(random[-1]))
        by_chance = labels_needed(random, labels, float(random[-1])) or labels[-1]
        return needed, np.nan if needed is None else 1 - needed / by_chance

    seeds = len(scores)
    needed, value = saved(np.arange(seeds))
    draws = np.random.default_rng(0).integers(0, seeds, (RESAMPLES, seeds))
    # A resample that does not get there saves less than any that does.
    resampled = np.nan_to_num([saved(rows)[1] for rows in draws], nan=-np.inf)
    low, high = np.percentile(resampled, (2.5, 97.5), method="inverted_cdf")
    return Saving(
        labels=None if needed is None else round(needed, 1),
        saved=_finite(value),
        low=_finite(low),
        high=_finite(high),
    )


def _finite(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _curve(scores: Floats) -> Curve:
    low, high = np.percentile(scores, _BAND, axis=0)
    rows = (np.median(scores, axis=0), low, high)
    median, lower, upper = (tuple(round(float(v), 4) for v in row) for row in rows)
    return Curve(median=median, low=lower, high=upper)


def _scores(outcomes: Sequence[Outcome], name: str, key: str, shape: tuple[int, int]) -> Floats:
    """Scores of a strategy, (seeds, rounds)."""
    scores = np.full(shape, np.nan)
    for outcome in outcomes:
        if outcome.strategy == name:
            scores[outcome.seed, outcome.round] = outcome.scores[key]
    if np.isnan(scores).any():
        raise InputError(f"{int(np.isnan(scores).sum())} rounds of {name} are missing.")
    return scores


def _read(file: Path) -> list[Outcome]:
    """The rounds of an earlier run; a last line that was cut off is dropped from the file too."""
    if not file.is_file():
        return []
    outcomes = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            outcomes.append(Outcome.model_validate_json(line))
        except ValidationError:
            break
    whole = "".join(outcome.model_dump_json() + "\n" for outcome in outcomes)
    write_atomically(file, whole.encode())
    return outcomes


def _append(file: Path, outcome: Outcome) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(outcome.model_dump_json() + "\n")
