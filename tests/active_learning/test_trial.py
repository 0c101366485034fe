"""Measuring for the gate: golden findings, calibration error and one look at each image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from active_learning import trial as module
from active_learning.trial import (
    Remembering,
    calibration_error,
    compare_trials,
    golden_findings,
    read_golden,
)
from core.errors import ConfigError, DatasetError
from core.images import decode
from models._release import read_release
from tests.records import make_run, write_folder
from tests.training.canned import Canned
from training.truth import class_index, read_mask


def config_of(tmp_path, dataset, model, **changes):
    run = make_run(model=model, dataset=dataset.name, dataset_id=dataset.id, labels=dataset.labels)
    folder = tmp_path / model
    write_folder(folder, run=run, task=dataset.task, **changes)
    return read_release(folder)


def test_each_image_is_looked_at_once(tiny_neu_cls):
    images = [decode(sample.path) for sample in tiny_neu_cls.samples[:3]]
    inner = Canned("classify", tiny_neu_cls.labels, [np.eye(6)[k] for k in range(3)])
    predictor = Remembering(inner)
    first = predictor(images[:2], score_threshold=0.1)
    again = predictor(images, score_threshold=0.1)
    assert inner.asked == 3
    assert again[0] is first[0]
    with pytest.raises(ValueError, match=r"now 0\.2"):
        predictor(images, score_threshold=0.2)


def test_class_maps_are_remembered_as_far_as_there_is_room(tiny_neu_seg, monkeypatch):
    images = [decode(sample.path) for sample in tiny_neu_seg.samples[:3]]
    maps = {image.sha256: np.zeros((200, 200), np.uint8) for image in images}
    inner = Canned("segment", tiny_neu_seg.labels, maps)
    monkeypatch.setattr(module, "ROOM", 2 * 200 * 200 * 5)  # a map and its scores are 5 B a pixel
    predictor = Remembering(inner)
    first = predictor(images, score_threshold=0.1)
    again = predictor(images, score_threshold=0.1)
    assert inner.asked == 4  # the third one twice
    assert [one is other for one, other in zip(first, again, strict=True)] == [True, True, False]


def test_boxes_are_golden_findings_where_one_is_shown_and_overlaps_by_half(tmp_path, tiny_neu_det):
    dataset = tiny_neu_det
    config = config_of(tmp_path, dataset, "grace", score_threshold=0.25)
    first, second = dataset.samples[0], dataset.samples[-1]
    [label, box] = first.boxes[0]
    answers = {
        first.sha256: [(dataset.labels.index(label), 0.26, *box)],
        second.sha256: [(dataset.labels.index(second.boxes[0][0]), 0.24, *second.boxes[0][1])],
    }
    wanted, found = golden_findings(
        Canned("detect", dataset.labels, answers), config, dataset, [first.file, second.file]
    )
    assert f"{first.file}: {label}" in wanted
    assert found == (f"{first.file}: {label}",)  # the other one's score is not shown


def test_pixels_are_golden_findings_where_half_of_a_class_is_covered(tmp_path, tiny_neu_seg):
    dataset = tiny_neu_seg
    config = config_of(tmp_path, dataset, "sme_deeplabv3plus")
    one = next(s for s in dataset.samples if read_mask(s, dataset.labels).any())
    mask = read_mask(one, dataset.labels)
    wanted, found = golden_findings(
        Canned("segment", dataset.labels, {one.sha256: mask}), config, dataset, [one.file]
    )
    assert wanted == found
    assert wanted
    nothing = Canned("segment", dataset.labels, {one.sha256: np.zeros_like(mask)})
    assert golden_findings(nothing, config, dataset, [one.file]) == (wanted, ())


def test_a_golden_name_that_is_not_in_the_set_is_an_error(tmp_path, tiny_neu_cls):
    config = config_of(tmp_path, tiny_neu_cls, "mobilesteelnet")
    with pytest.raises(DatasetError, match=r"golden image 'x.jpg' is not in neu-cls"):
        golden_findings(
            Canned("classify", tiny_neu_cls.labels, []), config, tiny_neu_cls, ["x.jpg"]
        )


def test_golden_names_are_read_one_a_line_without_comments(tmp_path):
    file = tmp_path / "golden.txt"
    file.write_text("a.jpg\n\n# why\nb.jpg  # twice\na.jpg\n")
    assert read_golden(file) == ("a.jpg", "b.jpg")
    file.write_bytes("\ufeffa.jpg\n".encode())  # as Windows' own editor saves it
    assert read_golden(file) == ("a.jpg",)
    assert read_golden(None) == ()
    with pytest.raises(ConfigError, match="ROLLMARK_RETRAINING__GOLDEN"):
        read_golden(tmp_path / "missing.txt")


def test_the_calibration_error_is_that_of_the_probabilities_people_see(tmp_path, tiny_neu_cls):
    # 12 images, 0.8 claimed for the right class each time: |1 - 0.8| = 0.2.
    dataset = tiny_neu_cls
    rows = {s.sha256: np.full(6, 0.04) for s in dataset.samples}
    for sample in dataset.samples:
        rows[sample.sha256][class_index(sample, dataset.labels)] = 0.8
    predictor = Canned("classify", dataset.labels, rows)
    raw = config_of(tmp_path, dataset, "mobilesteelnet")
    assert calibration_error(predictor, raw, dataset.samples) == pytest.approx(0.2, abs=1e-6)
    sharp = {"kind": "temperature", "T": 0.1, "n": 12, "ece_before": 0.2, "ece_after": 0.0}
    sharpened = raw.model_copy(update={"calibration": sharp})
    assert calibration_error(predictor, sharpened, dataset.samples) < 0.001


def test_both_releases_are_measured_on_the_same_frozen_images(tmp_path, tiny_neu_cls, monkeypatch):
    dataset = tiny_neu_cls
    test = dataset.split("leak-free", "test")
    right = {s.sha256: np.eye(6)[class_index(s, dataset.labels)] for s in dataset.samples}
    wrong = {s: np.roll(p, 1) for s, p in right.items()}
    folders = [tmp_path / "new", tmp_path / "old"]
    for folder in folders:
        run = make_run(model="mobilesteelnet", dataset="neu-cls", labels=dataset.labels)
        write_folder(folder, folder.name.encode(), run=run, task="classify")
    answers = dict(zip(folders, (right, wrong), strict=True))
    monkeypatch.setattr(
        "models.load",
        lambda folder, *, device: Canned("classify", dataset.labels, answers[folder], folder.name),
    )
    new, old = compare_trials(*folders, dataset, golden=[test[0].file], device="cpu", resamples=20)
    assert new.metric == "macro_F1"
    assert new.evaluation.test_id == dataset.test_id("leak-free", "test")
    assert (new.evaluation.metric("accuracy").value, old.evaluation.metric("accuracy").value) == (
        1,
        0,
    )
    assert len(new.resamples) == len(old.resamples) == 20
    assert new.groups == old.groups == len({sample.group for sample in test})
    assert new.golden == old.golden == (f"{test[0].file}: {test[0].label}",)
    assert (new.golden_found, old.golden_found) == (new.golden, ())
    assert new.latency_ms >= 0
    assert module.TIMED_IMAGES > 0


def test_a_set_without_test_images_is_told_in_a_sentence(tmp_path, tiny_neu_cls, monkeypatch):
    samples = [replace(s, splits={"leak-free": "train"}) for s in tiny_neu_cls.samples]
    dataset = replace(tiny_neu_cls, samples=tuple(samples))
    canned = Canned("classify", dataset.labels, {})
    monkeypatch.setattr("models.load", lambda folder, *, device: canned)
    with pytest.raises(DatasetError, match="no test images"):
        compare_trials(tmp_path, tmp_path, dataset, device="cpu")
