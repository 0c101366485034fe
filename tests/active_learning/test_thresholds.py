"""Class thresholds: worked by hand on histograms, and stored only where they help."""

import itertools
import shutil
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from active_learning import thresholds as module
from active_learning.__main__ import app
from active_learning._retraining_steps import describe_release
from active_learning.thresholds import ThresholdFit, _histograms, best_thresholds, fit_thresholds
from core.errors import ConfigError, DatasetError
from core.types import DecodedImage
from models import load
from models._predictors import Segmenter
from models._release import read_release
from tests.demo import releases
from training.evaluate import measure


def test_the_threshold_with_the_highest_iou_is_taken():
    counts = np.zeros((2, 1, 100), np.int64)
    # of the class: 10 px at 0.80, 6 at 0.30; of others: 2 at 0.30, 20 at 0.10.
    counts[0, 0, [80, 30]] = 10, 6
    counts[1, 0, [80, 30, 10]] = 10, 8, 20
    # t in 0.31..0.80: 10 / 16 = 0.625; t in 0.11..0.30: 16 / 18 = 0.89; below: 16 / 38 = 0.42.
    assert best_thresholds(counts).tolist() == [0.11]


def test_a_class_that_no_threshold_finds_must_be_more_likely_than_not():
    counts = np.zeros((2, 2, 100), np.int64)
    counts[1, 0, [3, 10]] = 90, 4  # the first is not there, and claimed faintly
    counts[:, 1, 2] = 10, 20  # the second is there, and never reaches 0.05
    assert best_thresholds(counts).tolist() == [0.5, 0.5]


def test_pixels_are_counted_by_probability_at_the_picture_s_own_size():
    maps = torch.tensor([[[0.75, 0.75]], [[0.25, 0.25]]])  # (2, 1, 2): background, a
    counts = _histograms(maps, np.array([[1, 0, 0, 0], [1, 1, 0, 0]], np.uint8))
    assert counts[0, 0, 25] == 3  # of 8 px, 3 are a
    assert counts[1, 0, 25] == 8
    assert counts.sum() == 11


@pytest.fixture(scope="module")
def all_val(tiny_neu_seg):
    """The six images of the fixtures, all for validation: two of each class in a row."""
    samples = (replace(s, splits={"leak-free": "val"}) for s in tiny_neu_seg.samples)
    return replace(tiny_neu_seg, samples=tuple(sorted(samples, key=lambda s: s.file)))


@pytest.fixture(scope="module")
def written(tmp_path_factory, all_val):
    folder = tmp_path_factory.mktemp("sme")
    config = releases.write(folder, "sme_deeplabv3plus")
    run = config.run.model_copy(update={"dataset_id": all_val.id})
    text = config.model_copy(update={"run": run}).model_dump_json()
    (folder / "config.json").write_text(text)
    return folder


@pytest.fixture
def segmenter(tmp_path, written, monkeypatch):
    monkeypatch.setattr(module, "FOLDS", 2)
    # Two images and four: every class is in both.
    monkeypatch.setattr(module, "folds", lambda groups: np.minimum(np.arange(len(groups)) // 2, 1))
    return Path(shutil.copytree(written, tmp_path / "sme"))


def _says(monkeypatch, samples, *, shares):
    """Let the network give inclusion a share wherever it is, and half of that elsewhere.

    `shares` are those of one image after the other, over again.
    """
    from core.images import decode
    from training.truth import read_mask

    truths = {
        decode(s.path).sha256: (read_mask(s, ("inclusion", "patches", "scratches")), share)
        for s, share in zip(samples, itertools.cycle(shares), strict=False)
    }

    def maps(self, image: DecodedImage):
        mask, share = truths[image.sha256]
        truth = torch.from_numpy(mask)
        p = torch.full((4, *truth.shape), 0.001)
        for k in (1, 2, 3):
            p[k] = torch.where(truth == k, share, share / 2 if k == 1 else 0.001)
        p[0] = 1 - p[1:].sum(0)
        return p, torch.zeros(0)

    def predict(self, images, threshold):
        return [self.decide(image, *self.maps(image), time.perf_counter()) for image in images]

    monkeypatch.setattr(Segmenter, "maps", maps)
    monkeypatch.setattr(Segmenter, "_predict", predict)


def test_thresholds_that_help_are_kept_and_evaluated_beside_the_most_probable_class(
    segmenter, all_val, monkeypatch
):
    samples = all_val.split("leak-free", "val")
    _says(monkeypatch, samples, shares=[0.4])  # never the most probable, always told apart
    found = fit_thresholds(segmenter, all_val)
    assert found.n == 6
    assert found.crossed_miou == pytest.approx(1.0)
    assert found.plain_miou < 0.9
    kept = read_release(segmenter).class_thresholds
    assert kept == found.thresholds
    assert 0.2 < kept["inclusion"] <= 0.4
    judged = measure(
        load(segmenter), all_val, protocol="leak-free", split="val", resamples=10
    ).evaluation
    assert judged.metric("mIoU").value == pytest.approx(1.0)
    assert judged.metric("mIoU_argmax").value == pytest.approx(found.plain_miou)
    assert judged.settings["class_thresholds"] == kept


def test_a_retrained_segmenter_gets_its_own_thresholds_before_it_is_measured(
    segmenter, all_val, monkeypatch
):
    _says(monkeypatch, all_val.split("leak-free", "val"), shares=[0.4])
    for what_training_images_tell in ("novelty_fitting.fit_novelty", "ordinary.fit_ordinary"):
        name = f"active_learning.{what_training_images_tell}"
        monkeypatch.setattr(name, lambda *_, device: None)
    for _ in range(2):  # a pass that was killed begins anew
        validation = describe_release(segmenter, all_val, device="cpu")
        assert 0.2 < read_release(segmenter).class_thresholds["inclusion"] <= 0.4
        assert validation.metric("mIoU").value == pytest.approx(1.0)
        assert validation.metric("mIoU_argmax").value < 0.9


def test_thresholds_that_do_not_help_are_taken_out(segmenter, all_val, monkeypatch):
    samples = all_val.split("leak-free", "val")
    _says(monkeypatch, samples, shares=[0.9])  # right already
    config = read_release(segmenter)
    stale = config.model_copy(update={"class_thresholds": {"inclusion": 0.3}})
    (segmenter / "config.json").write_text(stale.model_dump_json())
    found = fit_thresholds(segmenter, all_val)
    assert found.thresholds == {}
    assert read_release(segmenter) == config


def test_thresholds_are_judged_on_images_that_did_not_choose_them(segmenter, all_val, monkeypatch):
    # One fold says 0.2 of inclusion and 0.1 elsewhere, the other 0.4 and 0.2. Either of them alone
    # would be told apart; by the other's threshold one shows none, the other all.
    shares = [0.2, 0.2, 0.4, 0.4, 0.4, 0.4]
    _says(monkeypatch, all_val.split("leak-free", "val"), shares=shares)
    assert fit_thresholds(segmenter, all_val).crossed_miou < 0.7  # 1.0 by one's own threshold


def test_another_data_set_than_the_releases_own_chooses_nothing(segmenter, tiny_neu_seg):
    with pytest.raises(DatasetError, match="neu-seg"):
        fit_thresholds(segmenter, tiny_neu_seg)


def test_a_detector_has_no_pixels(tmp_path, tiny_neu_det):
    releases.describe(tmp_path, "grace", task="detect")
    with pytest.raises(ConfigError, match="only segmenters"):
        fit_thresholds(tmp_path, tiny_neu_det)


def test_the_command_fits_anew_what_is_of_other_decisions(tmp_path, monkeypatch):
    done: list[str] = []
    found = ThresholdFit({}, 0.5, 0.5, 6)
    monkeypatch.setattr(module, "fit_thresholds", lambda *_, device: found)
    for name in ("calibrate.calibrate", "ordinary.fit_ordinary"):
        fit = partial(lambda name, *_, device: done.append(name), name)
        monkeypatch.setattr(f"active_learning.{name}", fit)
    monkeypatch.setattr("training.datasets.open_dataset", lambda name, root: None)
    result = CliRunner().invoke(app, ["thresholds", str(tmp_path), "--data", "neu-seg"])
    assert result.exit_code == 0
    assert done == ["calibrate.calibrate", "ordinary.fit_ordinary"]
