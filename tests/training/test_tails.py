from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import DatasetError
from tests.training.synthetic import draw_dataset
from training.datasets import Dataset, Sample, open_dataset
from training.tails import PROFILES, classes_of, long_tailed


def training_images(dataset: Dataset, protocol: str = "leak-free") -> Counter[str]:
    """How many training images hold each class."""
    samples = dataset.split(protocol, "train")
    return Counter(label for sample in samples for label in classes_of(sample))


@pytest.fixture(scope="module")
def forty(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """40 training images, a spot or a line on each, and 4 of either to validate and to test on."""
    parts = ("train",) * 40 + ("val",) * 4 + ("test",) * 4
    return draw_dataset(tmp_path_factory.mktemp("forty"), "detect", parts=parts)


def test_a_thinned_class_keeps_its_share_of_training_images_and_the_others_all(
    forty: Dataset,
) -> None:
    view = long_tailed(forty, {"line": 0.1}, seed=0, name="drawn@thin")
    assert training_images(view) == {"spot": 20, "line": 2}


def test_a_view_is_another_data_set_with_the_same_test_split(forty: Dataset) -> None:
    view = long_tailed(forty, {"line": 0.1}, seed=0, name="drawn@thin")
    assert view.id != forty.id
    assert view.name == "drawn@thin"
    for split in ("val", "test"):
        assert view.split("leak-free", split) == forty.split("leak-free", split)
        assert view.test_id("leak-free", split) == forty.test_id("leak-free", split)
    assert len(view.split("leak-free", "all")) == 48 - 18


def test_the_seed_chooses_which_images_stay(forty: Dataset) -> None:
    def kept(seed: int) -> set[str]:
        view = long_tailed(forty, {"line": 0.5}, seed=seed, name="v")
        return {sample.file for sample in view.split("leak-free", "train")}

    assert kept(0) == kept(0)
    assert kept(0) != kept(1)


def test_at_least_one_image_of_a_class_stays(forty: Dataset) -> None:
    view = long_tailed(forty, {"line": 0.001}, seed=0, name="v")
    assert training_images(view)["line"] == 1


def test_an_image_with_two_thinned_classes_counts_for_both(forty: Dataset) -> None:
    both = tuple(
        replace(s, boxes=(*s.boxes, ("spot" if s.boxes[0][0] == "line" else "line", (0, 0, 4, 4))))
        for s in forty.samples
    )
    view = long_tailed(replace(forty, samples=both), {"line": 0.1, "spot": 0.5}, seed=0, name="v")
    assert training_images(view) == {"spot": 4, "line": 4}  # 10 % of 40 images, all with both


def test_each_protocol_loses_only_its_own_training_images(forty: Dataset) -> None:
    def moved(sample: Sample) -> Sample:
        return replace(sample, splits={**sample.splits, "paper": "test"})

    samples = tuple(moved(s) if s.splits["paper"] == "train" else s for s in forty.samples)
    view = long_tailed(replace(forty, samples=samples), {"line": 0.1}, seed=0, name="v")
    assert len(view.split("paper", "test")) == 44
    assert training_images(view) == {"spot": 20, "line": 2}


@pytest.mark.parametrize(
    ("keep", "says"),
    [
        pytest.param({"dent": 0.1}, "thins 'dent', which is no class of drawn", id="label"),
        pytest.param({"line": 0.0}, r"keeps 0.0 of 'line': the share lies in \(0, 1\]", id="none"),
    ],
)
def test_what_cannot_be_thinned_is_refused(forty: Dataset, keep, says: str) -> None:
    with pytest.raises(DatasetError, match=says):
        long_tailed(forty, keep, seed=0, name="v")


# ---------------------------------------------------------------------------------------- by name


@pytest.mark.parametrize("profile", PROFILES)
def test_a_view_is_opened_by_its_name(profile: str, data_root_full: Path) -> None:
    whole = open_dataset("neu-det", data_root_full)
    view, other = (open_dataset(f"neu-det@{profile}{s}", data_root_full) for s in ("", "-s1"))
    assert view.name == f"neu-det@{profile}"
    assert view.root == whole.root
    assert len({whole.id, view.id, other.id}) == 3


def test_the_tail_of_gc10_falls_from_734_images_to_46() -> None:
    shares = PROFILES["gc10-tail"](tuple("abcdefghij"))
    assert shares["a"] == 1.0
    assert shares["b"] == pytest.approx(512 / 734)
    assert shares["j"] == pytest.approx(46 / 734)
    assert list(PROFILES["gc10-tail"](("a", "b", "c")).values()) == pytest.approx(
        [1.0, (264 + 250) / 2 / 734, 46 / 734]
    )  # ends and middle of ten


def test_the_two_rare_classes_of_neu_det_keep_a_tenth(
    full_dataset: Callable[[str], Dataset],
) -> None:
    whole = full_dataset("neu-det")
    view = open_dataset("neu-det@two-rare", whole.root.parent)
    before, after = training_images(whole), training_images(view)
    for label in ("crazing", "scratches"):
        assert after[label] == max(1, round(0.1 * before[label]))
    for label in ("patches", "pitted_surface"):
        assert after[label] >= 0.9 * before[label]  # a few images hold a thinned class, too


def test_an_unknown_view_is_told_from_a_set_that_is_not_prepared(data_root_full: Path) -> None:
    with pytest.raises(DatasetError, match=r"neither prepared nor a view .* neu-det@two-rare"):
        open_dataset("neu-det@two-raer", data_root_full)
    with pytest.raises(DatasetError, match="Data set 'kol' is not prepared"):
        open_dataset("kol@two-rare", data_root_full)
    with pytest.raises(DatasetError, match="thins 'crazing', which is no class of x-sdd"):
        open_dataset("x-sdd@two-rare", data_root_full)
    with pytest.raises(DatasetError, match="neu-seg has masks"):
        open_dataset("neu-seg@gc10-tail", data_root_full)
