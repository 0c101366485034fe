"""Which images a release has learned from, told by its record and the data set that it names.

Of what its teachers or the release it began with had learned from, the record says no more than
their names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import DatasetError
from training.datasets import open_dataset

if TYPE_CHECKING:
    from core.records import ReleaseConfig, RunRecord
    from training.datasets import Dataset


def images_learned(
    config: ReleaseConfig, data_root: Path, *, known: Sequence[Dataset] = ()
) -> frozenset[str]:
    """SHA-256 of the training images of a release.

    Args:
        config: of the release.
        data_root: folder of the prepared data sets, reviewed versions among them.
        known: data sets that are open already.

    Raises:
        DatasetError: if the data set it was trained on is not there as it was then.
    """
    run = config.run
    for dataset in (*known, *_prepared(run, data_root)):
        if dataset.id == run.dataset_id:
            return frozenset(sample.sha256 for sample in dataset.split(run.protocol, "train"))
    raise DatasetError(
        f"Which images {config.name} {config.revision} learned from is not known here: version "
        f"{run.dataset_id[:12]} of {run.dataset} is not in {data_root}; prepare it as it was."
    )


def refuse_learned(
    config: ReleaseConfig, dataset: Dataset, *, protocol: str, split: str, data_root: Path
) -> None:
    """Let a release judge the labels of a split only if it has not learned from them.

    Raises:
        DatasetError: if it has learned from any of the images, or nobody can tell.
    """
    learned = images_learned(config, data_root, known=(dataset,))
    samples = dataset.split(protocol, split)
    repeated = sum(sample.sha256 in learned for sample in samples)
    if repeated:
        raise DatasetError(
            f"{config.name} {config.revision} learned from {repeated} of the {len(samples)} "
            f"{split} images of {dataset.name} {protocol} and would repeat their labels: ask it "
            "about another split, or ask another release."
        )


def learned_among(
    configs: Iterable[ReleaseConfig],
    dataset: Dataset,
    *,
    protocol: str,
    split: str,
    data_root: Path,
) -> int | None:
    """Images of a split that any of the releases has learned from; None if nobody can tell."""
    learned: set[str] = set()
    for config in configs:
        try:
            learned |= images_learned(config, data_root, known=(dataset,))
        except DatasetError:
            return None
    return sum(sample.sha256 in learned for sample in dataset.split(protocol, split))


def refuse_parent(
    config: ReleaseConfig, dataset: Dataset, *, protocol: str, data_root: Path
) -> None:
    """Let a run begin from a release only if that has not learned from what will judge the run.

    A release whose data set is not here is let through: nobody can tell.

    Raises:
        DatasetError: if its training images are among those that the run is chosen or tested by.
    """
    for split in ("val", "test"):
        count = learned_among(
            (config,), dataset, protocol=protocol, split=split, data_root=data_root
        )
        if count:
            ways = "begin from another release"
            if config.run.protocol != protocol:
                ways += f", or train by its own protocol, --protocol {config.run.protocol}"
            raise DatasetError(
                f"{config.name} {config.revision} has learned from {count} of the {split} images "
                f"of {dataset.name} {protocol}, which would judge the new run: {ways}."
            )


def training_data(run: RunRecord, data_root: Path) -> Dataset:
    """The data set of a run as it was then; if it is gone, what has its name today.

    Raises:
        DatasetError: if there is neither.
    """
    there = list(_prepared(run, data_root))
    if not there:
        return open_dataset(run.dataset, data_root)
    return next((dataset for dataset in there if dataset.id == run.dataset_id), there[0])


def _prepared(run: RunRecord, data_root: Path) -> Iterator[Dataset]:
    """What may be the run's data set: the public one, or a reviewed version of it."""
    for name in (run.dataset, f"{run.dataset}@{run.dataset_id[:12]}"):
        try:
            yield open_dataset(name, data_root)
        except DatasetError:
            continue
