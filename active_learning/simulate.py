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
from active_learning.simulation import (
    RANDOM,
    STRATEGIES,
    Indices,
    Outcome,
    Plan,
    Pool,
    fit_head,
    macro_f1,
    simulate,
)
from active_learning.uncertainty import Floats
from core.errors import DatasetError, InputError
from core.records import Record

if TYPE_CHECKING:
    from core.settings import Settings
    from training.datasets import Dataset

logger = logging.getLogger(__name__)

RESAMPLES: Final = 1000
_BAND: Final = (10, 90)  # percentiles of the seeds, shaded in the plot


class Curve(Record):
    """Macro-F1 of the learner over the seeds, after each round."""

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
    """A finished simulation, as the page tells it."""

    dataset: str
    dataset_id: str
    features: str  # whose, in words
    split: str  # on which the learner was judged
    pool: int  # images
    judged: int  # images
    pool_counts: dict[str, int]
    seeds: int
    plan: dict[str, float]
    labels: tuple[int, ...]  # after each round
    curves: dict[str, Curve]
    target: float  # macro-F1: what random choice reaches in the median with all labels
    savings: dict[str, Saving]
    all_labels: float  # macro-F1 with the whole pool labelled


def simulate_dataset(
    name: str,
    release: Path,
    settings: Settings,
    *,
    seeds: int,
    sizes: tuple[int, int, int],
    split: str,
    protocol: str = "leak-free",
) -> Simulation:
    """Simulate all strategies on a prepared data set.

    Args:
        name: of the data set.
        release: folder of the release whose features are used.
        settings: where data sets, runs and the cache lie, and the random share.
        seeds: how many.
        sizes: first labels, labels a round, rounds.
        split: on which the learner is judged.
        protocol: whose splits.

    Raises:
        DatasetError: if the data set is not prepared, or the features come from it.
        InputError: if the pool is smaller than the plan.
        WeightsError: if the release is damaged.
    """
    from training.datasets import open_dataset

    dataset = open_dataset(name, settings.paths.datasets)
    embedder = Embedder(release, cache=settings.paths.cache / "features")
    pool = open_pool(dataset, embedder, protocol=protocol, split=split)
    first, step, rounds = sizes
    plan = Plan(first, step, rounds, random_share=settings.review.random_share)
    config = embedder.config
    facts = {
        "dataset": dataset.name,
        "dataset_id": dataset.id,
        "features": f"{config.name} {config.revision}, trained on {config.dataset}",
        "split": split,
    }
    records = settings.paths.runs / "simulations"
    outcomes = run(
        pool, plan, seeds=seeds, records=records, identity={**facts, "protocol": protocol}
    )
    return summarise(outcomes, pool, plan, facts=facts)


def open_pool(dataset: Dataset, embedder: Embedder, *, protocol: str, split: str) -> Pool:
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
                f"{dataset.name} has no class for {sample.file}: use a set of classes."
            )
    truth = {
        name: np.array([dataset.labels.index(s.label or "") for s in part], dtype=np.int64)
        for name, part in parts.items()
    }
    return Pool(
        features=embedder.samples(parts["train"]),
        truth=truth["train"],
        judged_features=embedder.samples(parts[split]),
        judged_truth=truth[split],
        labels=dataset.labels,
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
    for name in STRATEGIES:
        for seed in range(seeds):
            before = sorted(
                (o for o in done if (o.strategy, o.seed) == (name, seed)), key=lambda o: o.round
            )
            for outcome in simulate(pool, name, seed=seed, plan=plan, done=before):
                _append(file, outcome)
                done.append(outcome)
        logger.info("simulated %s with %d seeds", name, seeds)
    return [outcome for outcome in done if outcome.seed < seeds]


def summarise(
    outcomes: Sequence[Outcome], pool: Pool, plan: Plan, *, facts: Mapping[str, str]
) -> Simulation:
    """Curves and savings of a run.

    Args:
        outcomes: of `run`, complete.
        pool: it was run on.
        plan: it followed.
        facts: dataset, dataset_id, features and split.

    Raises:
        InputError: if a round of a strategy is missing.
    """
    seeds = len({outcome.seed for outcome in outcomes})
    scores = {name: _scores(outcomes, name, seeds, plan.rounds + 1) for name in STRATEGIES}
    labels = tuple(plan.first + plan.step * k for k in range(plan.rounds + 1))
    target = float(np.median(scores[RANDOM][:, -1]))
    return Simulation(
        **facts,
        pool=len(pool.truth),
        judged=len(pool.judged_truth),
        pool_counts={label: int((pool.truth == k).sum()) for k, label in enumerate(pool.labels)},
        seeds=seeds,
        plan=asdict(plan),
        labels=labels,
        curves={name: _curve(values) for name, values in scores.items()},
        target=target,
        savings={name: _saving(values, scores[RANDOM], labels) for name, values in scores.items()},
        all_labels=_with_all_labels(pool),
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


def _scores(outcomes: Sequence[Outcome], name: str, seeds: int, rounds: int) -> Floats:
    """Macro-F1 (seeds, rounds) of a strategy."""
    scores = np.full((seeds, rounds), np.nan)
    for outcome in outcomes:
        if outcome.strategy == name:
            scores[outcome.seed, outcome.round] = outcome.macro_F1
    if np.isnan(scores).any():
        raise InputError(f"{int(np.isnan(scores).sum())} rounds of {name} are missing.")
    return scores


def _with_all_labels(pool: Pool) -> float:
    features, judged = pool.standardised()
    said = fit_head(features, pool.truth, len(pool.labels))(judged).argmax(axis=1)
    return round(macro_f1(said, pool.judged_truth, len(pool.labels)), 4)


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
    file.write_text(whole, encoding="utf-8")
    return outcomes


def _append(file: Path, outcome: Outcome) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a", encoding="utf-8") as lines:
        lines.write(outcome.model_dump_json() + "\n")
