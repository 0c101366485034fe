"""Who has learned from an image may not judge its labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import DatasetError
from core.records import ReleaseConfig
from tests.records import make_config, make_run
from tests.training.synthetic import draw_dataset
from training.datasets import Dataset, write_index
from training.learned import (
    images_learned,
    learned_among,
    refuse_learned,
    refuse_parent,
    training_data,
)


def release(dataset: Dataset, **changes: object) -> ReleaseConfig:
    told = {"dataset": dataset.name, "dataset_id": dataset.id, "labels": dataset.labels, **changes}
    return make_config(run=make_run(**told))


def test_a_release_learned_from_the_training_images_of_its_own_protocol(
    tiny_neu_det: Dataset, tmp_path: Path
) -> None:
    learned = images_learned(release(tiny_neu_det), tmp_path, known=(tiny_neu_det,))
    assert learned == {s.sha256 for s in tiny_neu_det.samples if s.splits["leak-free"] == "train"}


def test_the_data_set_that_a_record_names_is_looked_for_where_sets_are_prepared(
    tiny_neu_det: Dataset, tiny_data_root: Path
) -> None:
    known = images_learned(release(tiny_neu_det), tiny_data_root, known=(tiny_neu_det,))
    assert images_learned(release(tiny_neu_det), tiny_data_root) == known


def test_a_release_whose_data_set_is_not_there_is_refused(
    tiny_neu_det: Dataset, tiny_data_root: Path
) -> None:
    stranger = release(tiny_neu_det, dataset_id="f" * 64)
    with pytest.raises(DatasetError, match="is not known here: version ffffffffffff of neu-det"):
        refuse_learned(
            stranger,
            tiny_neu_det,
            protocol="leak-free",
            split="val",
            data_root=tiny_data_root,
        )


def test_a_release_may_judge_what_it_was_kept_from_and_nothing_else(
    tiny_neu_det: Dataset, tiny_data_root: Path
) -> None:
    def ask(split: str, protocol: str = "leak-free") -> None:
        refuse_learned(
            release(tiny_neu_det),
            tiny_neu_det,
            protocol=protocol,
            split=split,
            data_root=tiny_data_root,
        )

    ask("val")
    ask("test")
    train = len(tiny_neu_det.split("leak-free", "train"))
    everything = len(tiny_neu_det.samples)
    with pytest.raises(DatasetError, match=f"learned from {train} of the {train} train images"):
        ask("train")
    with pytest.raises(DatasetError, match=f"learned from {train} of the {everything} all images"):
        ask("all", "paper")


def test_a_run_on_a_reviewed_version_goes_on_with_that_version(tmp_path: Path) -> None:
    base = draw_dataset(tmp_path / "drawn", "classify")
    version = replace(base, samples=base.samples[1:])
    version = replace(version, root=tmp_path / f"drawn@{version.id[:12]}")
    gone = replace(base, samples=base.samples[2:])
    version.root.mkdir()
    for dataset in (base, version):
        write_index(dataset, {})
    runs = [make_run(dataset="drawn", dataset_id=d.id) for d in (base, version, gone)]
    found = [len(training_data(run, tmp_path).samples) for run in runs]
    assert found == [24, 23, 24]  # what is gone is refused when its run is resumed
    with pytest.raises(DatasetError, match="'other' is not prepared"):
        training_data(make_run(dataset="other"), tmp_path)


def crossed(tmp_path: Path) -> Dataset:
    """Of the eight training images of one protocol the other tests by two and chooses by one."""
    dataset = draw_dataset(tmp_path, "classify", parts=("train",) * 8 + ("val",) * 2)
    parts = ["test", "test", "val", *["train"] * 7]
    samples = tuple(
        replace(sample, splits={"leak-free": sample.splits["leak-free"], "paper": part})
        for sample, part in zip(dataset.samples, parts, strict=True)
    )
    return replace(dataset, samples=samples)


def test_images_of_a_split_that_any_of_the_releases_learned_from_are_counted(
    tmp_path: Path,
) -> None:
    dataset = crossed(tmp_path)
    mine = release(dataset)

    def count(split: str, protocol: str, *configs: ReleaseConfig) -> int | None:
        return learned_among(configs, dataset, protocol=protocol, split=split, data_root=tmp_path)

    assert count("test", "paper", mine) == 2
    assert count("val+test", "paper", mine) == 3
    assert count("val", "leak-free", mine) == 0
    assert count("val", "leak-free", mine, release(dataset, protocol="paper")) == 2
    assert count("test", "paper", mine, release(dataset, dataset_id="f" * 64)) is None


def test_a_run_does_not_begin_from_a_release_that_learned_from_what_judges_it(
    tmp_path: Path,
) -> None:
    dataset = crossed(tmp_path)
    refuse_parent(release(dataset), dataset, protocol="leak-free", data_root=tmp_path)
    stranger = release(dataset, dataset_id="f" * 64)
    refuse_parent(stranger, dataset, protocol="paper", data_root=tmp_path)  # nobody can tell
    says = "learned from 1 of the val images of drawn paper, .* --protocol leak-free"
    with pytest.raises(DatasetError, match=says):
        refuse_parent(release(dataset), dataset, protocol="paper", data_root=tmp_path)


def test_another_protocol_is_no_way_out_where_the_release_had_the_same(tmp_path: Path) -> None:
    (tmp_path / "drawn").mkdir()
    dataset = crossed(tmp_path / "drawn")
    mine = release(dataset)
    mixed = tuple(replace(s, splits={"leak-free": "test"}) for s in dataset.samples)
    write_index(dataset, {})
    other = replace(dataset, name="mill-a", samples=mixed)
    with pytest.raises(DatasetError, match=r"judge the new run: begin from another release\.$"):
        refuse_parent(mine, other, protocol="leak-free", data_root=tmp_path)
