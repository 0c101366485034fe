from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from core.errors import DatasetError
from tests.training.synthetic import draw_dataset
from training.__main__ import app
from training.datasets import Dataset, Sample
from training.statistics import imbalance, measure


def sample(file: str, split: str, *boxes: tuple[str, tuple[float, float, float, float]]) -> Sample:
    return Sample(
        file=file,
        path=Path(file),
        sha256=file,
        width=200,
        height=100,
        group=file,
        boxes=boxes,
        splits={"paper": split, "leak-free": split},
    )


@pytest.fixture
def few() -> Dataset:
    """Boxes of 31², 32² and 100·100 px on three training images, one image without any."""
    samples = (
        sample("a", "train", ("dent", (0, 0, 31, 31)), ("dent", (0, 0, 32, 32))),
        sample("b", "train", ("dent", (0, 0, 100, 100)), ("hole", (0, 0, 50, 40))),
        sample("c", "train"),
        sample("d", "test", ("hole", (0, 0, 10, 10))),
    )
    return Dataset("few", "detect", ("dent", "hole"), Path("nowhere"), samples)


def test_images_and_objects_are_counted_per_class_and_split(few: Dataset) -> None:
    found = measure(few, protocol="paper")
    dent, hole = found.classes
    assert found.images == {"train": 3, "val": 0, "test": 1}
    assert found.unlabelled == {"train": 1, "val": 0, "test": 0}
    assert (dent.images, dent.objects) == (
        {"train": 2, "val": 0, "test": 0},
        {"train": 3, "val": 0, "test": 0},
    )
    assert hole.objects == {"train": 1, "val": 0, "test": 1}


def test_training_objects_are_sized_by_coco_s_limits_and_by_their_share(few: Dataset) -> None:
    dent, hole = measure(few, protocol="paper").classes
    assert dent.sizes == {"small": 1, "medium": 1, "large": 1}
    assert hole.sizes == {"small": 0, "medium": 1, "large": 0}
    assert hole.share == pytest.approx((0.1, 0.1, 0.1))  # 2000 of 20000 px; test boxes do not count
    assert dent.share[1] == pytest.approx(1024 / 20000)


def test_regions_of_a_mask_are_its_objects(tmp_path: Path) -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[0:2, 0:2] = mask[2:4, 2:4] = 1  # touch at a corner: one region
    mask[10:20, 10:30] = 1
    mask[30:, 30:] = 2
    Image.fromarray(mask).save(tmp_path / "m.png")
    splits = {"paper": "train", "leak-free": "train"}
    one = Sample("m.png", tmp_path, "s", 40, 40, "g", mask=tmp_path / "m.png", splits=splits)
    found = measure(Dataset("m", "segment", ("a", "b"), tmp_path, (one,)), protocol="paper")
    assert [c.objects["train"] for c in found.classes] == [2, 1]
    assert found.classes[0].share == pytest.approx(np.quantile([8, 200], (0.1, 0.5, 0.9)) / 1600)


def test_image_labels_have_no_size(tmp_path: Path) -> None:
    found = measure(draw_dataset(tmp_path, "classify"), protocol="paper")
    assert [c.images["train"] for c in found.classes] == [6, 6]
    assert [(c.sizes, c.share) for c in found.classes] == [({}, ())] * 2


@pytest.mark.parametrize(
    ("counts", "ratio", "gini", "effective"),
    [
        pytest.param([5, 5, 5], 1.0, 0.0, 3.0, id="equal classes"),
        # |3-1| counted twice over 2·2·4; entropy of 3/4 and 1/4 is 0.562335
        pytest.param([3, 1], 3.0, 0.25, math.exp(0.562335), id="three to one"),
        pytest.param([4, 0], math.inf, 0.5, 1.0, id="one class only"),
    ],
)
def test_imbalance_by_hand(counts, ratio: float, gini: float, effective: float) -> None:
    found = imbalance(counts)
    assert found.ratio == ratio
    assert found.gini == pytest.approx(gini)
    assert found.effective_classes == pytest.approx(effective, rel=1e-5)


def test_a_ratio_to_nothing_is_told_in_a_word() -> None:
    assert [imbalance(counts).told_ratio for counts in ([3, 2], [4, 0])] == ["1.5", "infinite"]


def test_nothing_to_count_is_an_error() -> None:
    with pytest.raises(DatasetError, match="holds no class"):
        imbalance([0, 0])


def test_an_absent_class_has_a_ratio_that_json_can_hold(few: Dataset) -> None:
    samples = tuple(s for s in few.samples if s.file == "a")
    lonely = Dataset("few", "detect", few.labels, few.root, samples)
    plain = measure(lonely, protocol="paper").as_json()
    assert json.loads(json.dumps(plain, allow_nan=False))["by_images"]["ratio"] is None


@pytest.mark.parametrize("name", ["neu-det", "neu-cls@gc10-tail"])
def test_the_command_prints_writes_and_draws(
    name: str, tiny_data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "datasets").symlink_to(tiny_data_root)
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path / "data"))
    files = ["--plot", str(tmp_path / "p.png"), "--json", str(tmp_path / "s.json")]
    answer = CliRunner().invoke(app, ["statistics", name, *files])
    assert answer.exit_code == 0, answer.output
    assert "crazing" in answer.output
    assert json.loads((tmp_path / "s.json").read_text())["dataset"] == name
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")
