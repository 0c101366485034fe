import dataclasses

import numpy as np
import pytest

from active_learning import calibrate as module
from active_learning.calibrate import PIXEL_STRIDE, calibrate
from core.errors import DatasetError
from models._release import read_release
from tests.records import make_run, write_folder
from tests.training.canned import Canned
from training.truth import class_index, read_mask


def _release(tmp_path, dataset, model, task):
    """A release trained on `dataset`, whose whole set serves as its validation split."""
    samples = tuple(
        dataclasses.replace(s, splits={"paper": "val", "leak-free": "val"}) for s in dataset.samples
    )
    dataset = dataclasses.replace(dataset, samples=samples)
    run = make_run(model=model, dataset=dataset.name, dataset_id=dataset.id, labels=dataset.labels)
    write_folder(tmp_path / "r", run=run, task=task)
    return dataset


def _answers_with(monkeypatch, task, dataset, answer):
    answers = {sample.sha256: answer(sample) for sample in dataset.samples}
    predictor = Canned(task, dataset.labels, answers)
    monkeypatch.setattr(module, "load", lambda folder, *, device: predictor)


def test_boxes_are_matched_and_their_curve_lands_in_the_config(tmp_path, tiny_neu_det, monkeypatch):
    dataset = _release(tmp_path, tiny_neu_det, "grace", "detect")

    def every_true_box_and_one_wrong_one(sample):
        right = [(dataset.labels.index(name), 0.9, *box) for name, box in sample.boxes]
        return [*right, (0, 0.3, 0, 0, 1, 1)]

    _answers_with(monkeypatch, "detect", dataset, every_true_box_and_one_wrong_one)
    before = read_release(tmp_path / "r")
    config = calibrate(tmp_path / "r", dataset)
    n_boxes = sum(len(sample.boxes) for sample in dataset.samples)
    assert config.calibration["n"] == n_boxes + len(dataset.samples)
    assert config == read_release(tmp_path / "r")
    assert config.model_copy(update={"calibration": {}}) == before


def test_a_classifier_gets_a_temperature_from_its_probabilities(
    tmp_path, tiny_neu_cls, monkeypatch
):
    dataset = _release(tmp_path, tiny_neu_cls, "mobilesteelnet", "classify")
    wrong = dataset.samples[0].sha256

    def too_sure_of_itself(sample):
        row = np.full(6, 0.002)
        place = class_index(sample, dataset.labels)
        row[(place + 1) % 6 if sample.sha256 == wrong else place] = 0.99
        return row

    _answers_with(monkeypatch, "classify", dataset, too_sure_of_itself)
    calibration = calibrate(tmp_path / "r", dataset).calibration
    assert calibration["n"] == len(dataset.samples)
    # 0.99 claimed and 11 of 12 right: less sure from now on
    assert calibration["T"] > 1


def test_a_segmenter_is_judged_by_thinned_pixels_that_it_calls_defects(
    tmp_path, tiny_neu_seg, monkeypatch
):
    dataset = _release(tmp_path, tiny_neu_seg, "sme_deeplabv3plus", "segment")
    masks = {s.sha256: read_mask(s, dataset.labels) for s in dataset.samples}
    _answers_with(monkeypatch, "segment", dataset, lambda sample: masks[sample.sha256])
    calibration = calibrate(tmp_path / "r", dataset).calibration
    expected = sum(int((m[::PIXEL_STRIDE, ::PIXEL_STRIDE] > 0).sum()) for m in masks.values())
    assert calibration["n"] == expected


def test_another_data_set_than_the_trained_one_is_refused(tmp_path, tiny_neu_det):
    _release(tmp_path, tiny_neu_det, "grace", "detect")
    other = dataclasses.replace(tiny_neu_det, samples=tiny_neu_det.samples[1:])
    with pytest.raises(DatasetError, match="prepare the same archive with the same seed"):
        calibrate(tmp_path / "r", other)
    with pytest.raises(DatasetError, match=r"this is mill-a [0-9a-f]{12}: give neu-det\.$"):
        calibrate(tmp_path / "r", dataclasses.replace(tiny_neu_det, name="mill-a"))


def test_who_was_trained_on_a_reviewed_version_is_calibrated_on_that(tmp_path, tiny_neu_det):
    dataset = _release(tmp_path, tiny_neu_det, "grace", "detect")
    version = f"neu-det@{dataset.id[:12]}"
    (tmp_path / "sets" / version).mkdir(parents=True)
    published = dataclasses.replace(
        dataset, samples=dataset.samples[1:], root=tmp_path / "sets" / "neu-det"
    )
    with pytest.raises(DatasetError, match=f": give {version}\\.$"):
        calibrate(tmp_path / "r", published)


def test_only_validation_images_are_looked_at(tmp_path, tiny_neu_det, monkeypatch):
    dataset = _release(tmp_path, tiny_neu_det, "grace", "detect")
    first, *rest = dataset.samples
    split = tuple(dataclasses.replace(s, splits={"leak-free": "test"}) for s in rest)
    dataset = dataclasses.replace(dataset, samples=(first, *split))
    run = make_run(dataset_id=dataset.id, labels=dataset.labels)
    write_folder(tmp_path / "other", run=run)
    predictor = Canned("detect", dataset.labels, {first.sha256: [(0, 0.9, 0, 0, 1, 1)]})
    monkeypatch.setattr(module, "load", lambda folder, *, device: predictor)
    calibrate(tmp_path / "other", dataset)  # an answer for any other image would be a KeyError
    assert predictor.asked == 1
