"""Does a release notice what it has never seen? AUROC of its novelty, set by set, with intervals.

Its own test images are to look familiar; another mill's images, drawn surfaces and photographs are
to look strange. Nothing here is fitted or chosen: the release brings its `Familiarity` with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from active_learning.embedding import Embedder
from active_learning.novelty import ALARM, Familiarity, read_familiarity
from active_learning.strangers import Stranger, photographs, synthetic
from active_learning.uncertainty import Floats
from core.errors import InputError
from core.records import Record

if TYPE_CHECKING:
    from core.settings import PathSettings
    from training.datasets import Sample

RESAMPLES: Final = 1000
SEED: Final = 0
OTHER_MILL: Final = "x-sdd"


class SetResult(Record):
    """How one set of strange images looks to a release beside its own test images."""

    name: str
    n: int
    groups: int  # of related images, which the bootstrap keeps together
    auroc: float  # chance that a strange image lies further away than an ordinary one
    low: float  # 2.5th percentile over resampled groups
    high: float
    flagged: float  # share that the app calls unlike anything seen
    beyond_95: float  # share beyond 95 % of the validation images
    distances: tuple[float, ...]


class NoveltyResult(Record):
    """A release and the sets it was asked about."""

    model: str
    revision: str
    dataset: str
    n: int  # test images
    validation: int  # images behind the quantiles
    flagged: float  # share of the test images: false alarms
    beyond_95: float  # the same, were the alarm at 95 %
    distances: tuple[float, ...]
    sets: tuple[SetResult, ...]


@dataclass(frozen=True)
class _Seen:
    """Distances of a set's images, and the group each belongs to."""

    name: str
    features: Floats  # (n, D)
    groups: tuple[str, ...]


def measure(release: Path, paths: PathSettings, *, images: int) -> NoveltyResult:
    """Ask a release about its test images and about strange ones.

    Args:
        release: folder of a release that was fitted.
        paths: where data sets and the cache lie.
        images: at most that many of each set, evenly drawn.

    Raises:
        DatasetError: if its data set or X-SDD is not prepared.
        WeightsError: if the release was never fitted, or is damaged.
    """
    from training.datasets import open_dataset

    embedder = Embedder(release, cache=paths.cache / "features")
    config = embedder.config
    familiarity = read_familiarity(release, config)
    own = open_dataset(config.dataset, paths.datasets).split(config.protocol, "test")
    mill = open_dataset(OTHER_MILL, paths.datasets).samples
    ordinary = _of_samples(embedder, "test images", _evenly(own, images))
    strange = (
        _of_samples(embedder, "X-SDD", _evenly(mill, images)),
        _of_strangers(embedder, "photographs", photographs(images, seed=SEED)),
        _of_strangers(embedder, "drawn surfaces", synthetic(images, seed=SEED)),
    )
    near = familiarity.distance(ordinary.features)
    return NoveltyResult(
        model=config.name,
        revision=config.revision,
        dataset=config.dataset,
        n=len(near),
        validation=len(familiarity.ordinary),
        flagged=_beyond(1 - ALARM, familiarity, ordinary.features),
        beyond_95=_beyond(0.95, familiarity, ordinary.features),
        distances=_rounded(near),
        sets=tuple(_compare(familiarity, ordinary, other) for other in strange),
    )


def auroc(near: Floats, far: Floats) -> float:
    """Chance that one drawn from `far` is larger than one drawn from `near`; ties count half.

    Raises:
        InputError: if either is empty.
    """
    if not len(near) or not len(far):
        raise InputError("An AUROC needs values of both kinds.")
    return float(_wins(near, far).mean())


def _wins(near: Floats, far: Floats) -> Floats:
    """1 where far is larger, 0.5 where equal; (far, near)."""
    larger, equal = far[:, None] > near[None], far[:, None] == near[None]
    return np.asarray(larger + 0.5 * equal, dtype=np.float64)


def auroc_interval(
    near: Floats, far: Floats, near_groups: Sequence[str], far_groups: Sequence[str]
) -> tuple[float, float]:
    """95 % bootstrap interval; whole groups are drawn, since related images say the same."""
    wins = _wins(near, far)
    source = np.random.default_rng(SEED)
    near_draws, far_draws = _draws(near_groups, source), _draws(far_groups, source)
    values = [
        (f @ wins @ n) / (f.sum() * n.sum()) for n, f in zip(near_draws, far_draws, strict=True)
    ]
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _draws(groups: Sequence[str], source: np.random.Generator) -> list[Floats]:
    """How often each image is in each resample of groups."""
    names, which = np.unique(np.asarray(groups), return_inverse=True)
    draws = source.integers(0, len(names), (RESAMPLES, len(names)))
    return [np.bincount(drawn, minlength=len(names))[which].astype(np.float64) for drawn in draws]


def _compare(familiarity: Familiarity, ordinary: _Seen, strange: _Seen) -> SetResult:
    near = familiarity.distance(ordinary.features)
    far = familiarity.distance(strange.features)
    low, high = auroc_interval(near, far, ordinary.groups, strange.groups)
    return SetResult(
        name=strange.name,
        n=len(far),
        groups=len(set(strange.groups)),
        auroc=round(auroc(near, far), 4),
        low=round(low, 4),
        high=round(high, 4),
        flagged=_beyond(1 - ALARM, familiarity, strange.features),
        beyond_95=_beyond(0.95, familiarity, strange.features),
        distances=_rounded(far),
    )


def _beyond(quantile: float, familiarity: Familiarity, features: Floats) -> float:
    return round(float((familiarity.novelty(features) >= quantile).mean()), 4)


def _rounded(distances: Floats) -> tuple[float, ...]:
    return tuple(round(float(d), 2) for d in distances)


def _of_samples(embedder: Embedder, name: str, samples: Sequence[Sample]) -> _Seen:
    return _Seen(name, embedder.samples(samples), tuple(sample.group for sample in samples))


def _of_strangers(embedder: Embedder, name: str, strangers: Sequence[Stranger]) -> _Seen:
    """Drawn surfaces are drawn apart; crops of one photograph belong together."""
    features = embedder.images([stranger.image for stranger in strangers])
    return _Seen(name, features, tuple(stranger.group for stranger in strangers))


def _evenly(samples: Sequence[Sample], most: int) -> Sequence[Sample]:
    """At most so many, spread over the whole: sets are sorted by class."""
    places = np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int)
    return [samples[k] for k in places]
