"""One look at the validation images: when a release asks, and what drift is measured from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from active_learning import ordinary as module
from active_learning.drift import read_reference
from active_learning.ordinary import fit_ordinary
from core.errors import DatasetError
from core.operating import read_operating
from models._release import read_release
from tests.records import make_run, write_folder
from tests.training.canned import Canned
from training.truth import read_mask


@pytest.fixture
def dataset(tiny_neu_cls, tmp_path):
    """Eight images to learn from, three to be validated on, and one of the test split."""
    parts = ["train"] * 8 + ["val"] * 3 + ["test"]
    samples = tuple(
        replace(sample, splits={"leak-free": part})
        for sample, part in zip(tiny_neu_cls.samples, parts, strict=True)
    )
    dataset = replace(tiny_neu_cls, samples=samples)
    run = make_run(
        model="mobilesteelnet", dataset=dataset.name, dataset_id=dataset.id, labels=dataset.labels
    )
    write_folder(tmp_path / "r", run=run, task="classify")
    return dataset


@pytest.fixture
def unsure(dataset, monkeypatch):
    """A classifier with an answer for the validation images alone: any other is a KeyError."""
    row = np.array([0.6, 0.3, 0.1, 0.0, 0.0, 0.0])  # uncertainty 1 - (0.6 - 0.3) = 0.7
    answers = {s.sha256: row for s in dataset.split("leak-free", "val")}
    canned = Canned("classify", dataset.labels, answers)
    monkeypatch.setattr(module, "load", lambda folder, *, device: canned)
    return canned


def test_both_are_kept_in_the_release_after_one_look_at_validation_alone(tmp_path, dataset, unsure):
    before = read_release(tmp_path / "r")
    config = fit_ordinary(tmp_path / "r", dataset)
    assert unsure.asked == 3
    assert config == read_release(tmp_path / "r")
    assert config.model_copy(update={"ask_from": None, "drift": {}}) == before
    assert config.ask_from == 0.701  # none of the three may ask
    fitted = read_reference(config)
    assert fitted is not None
    assert fitted.n == 8  # the light is that of the training images
    assert fitted.labels == {dataset.labels[0]: 1.0}
    assert fitted.probability.edges == (pytest.approx(0.6),) * 2  # from 0.6 to just above it


def test_another_data_set_than_the_trained_one_is_refused(tmp_path, dataset, unsure):
    other = replace(dataset, samples=dataset.samples[1:])
    with pytest.raises(DatasetError, match="prepare the same archive"):
        fit_ordinary(tmp_path / "r", other)
    assert read_release(tmp_path / "r").ask_from is None


def test_a_training_image_that_cannot_be_read_is_named(tmp_path, dataset, unsure, monkeypatch):
    (tmp_path / "torn.jpg").write_bytes(b"torn")
    torn = replace(dataset.samples[0], path=tmp_path / "torn.jpg")
    samples = (torn, *dataset.samples[1:])
    with pytest.raises(DatasetError, match="An image of the split cannot be read"):
        fit_ordinary(tmp_path / "r", replace(dataset, samples=samples))


@pytest.fixture
def detector(tiny_neu_det, tmp_path, monkeypatch):
    """Finds every defect of the validation images at 0.2 and invents one each at 0.1."""
    run = make_run(dataset_id=tiny_neu_det.id, labels=tiny_neu_det.labels)
    write_folder(tmp_path / "d", run=run, score_threshold=0.6)
    answers = {
        s.sha256: [
            *((tiny_neu_det.labels.index(label), 0.2, *box) for label, box in s.boxes),
            (0, 0.1, -9, -9, -1, -1),
        ]
        for s in tiny_neu_det.split("leak-free", "val")
    }
    canned = Canned("detect", tiny_neu_det.labels, answers)
    monkeypatch.setattr(module, "load", lambda folder, *, device: canned)
    return tmp_path / "d"


def test_a_detector_shows_what_finds_defects_and_says_what_that_costs(detector, tiny_neu_det):
    config = fit_ordinary(detector, tiny_neu_det)
    assert config.score_threshold == 0.2
    told = read_operating(config)
    assert told is not None
    validation = tiny_neu_det.split("leak-free", "val")
    assert told.n == len(validation)
    defects = sum(len(sample.boxes) for sample in validation)
    low, own = told.at(0.1), told.at(0.2)
    assert low is not None
    assert own is not None
    assert (low.found, low.wrong_per_image) == (1.0, 1.0)
    assert low.wrong == pytest.approx(len(validation) / (len(validation) + defects))
    assert (own.found, own.wrong) == (1.0, 0.0)
    # What drift is measured from is what is shown at the new threshold.
    fitted = read_reference(config)
    assert fitted is not None
    assert fitted.probability.edges[0] == pytest.approx(0.2)


def test_a_segmenter_shows_its_regions_by_what_they_find(tiny_neu_seg, tmp_path, monkeypatch):
    labels = tiny_neu_seg.labels
    run = make_run(
        model="sme_deeplabv3plus", dataset="neu-seg", dataset_id=tiny_neu_seg.id, labels=labels
    )
    write_folder(tmp_path / "s", run=run, task="segment")
    validation = tiny_neu_seg.split("leak-free", "val")
    answers = {s.sha256: read_mask(s, labels) for s in validation}  # all right, at 1
    canned = Canned("segment", labels, answers)
    monkeypatch.setattr(module, "load", lambda folder, *, device: canned)
    config = fit_ordinary(tmp_path / "s", tiny_neu_seg)
    assert config.score_threshold == 0.95  # the highest that is as good
    told = read_operating(config)
    assert told is not None
    rates = told.at(0.95)
    assert rates is not None
    assert (rates.found, rates.wrong) == (1.0, 0.0)
