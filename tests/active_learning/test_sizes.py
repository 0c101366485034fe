"""The picture size of a release: chosen on validation, worth its cost, and nothing stale kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from active_learning import sizes as module
from active_learning.__main__ import app
from active_learning.sizes import best_size, fit_size, usual_sizes
from core.errors import ConfigError
from models._release import read_release
from tests.demo import releases
from training.evaluate import evaluate


@pytest.mark.parametrize(
    ("scores", "chosen"),
    [
        pytest.param({160: 0.720, 192: 0.736, 224: 0.745, 256: 0.744}, 224, id="the best"),
        pytest.param({160: 0.741, 192: 0.744, 224: 0.745}, 160, id="a smaller one nearly as good"),
        pytest.param({160: 0.740, 192: 0.745}, 192, id="half a point is worth it"),
        pytest.param({160: 0.9, 192: 0.8}, 160, id="larger may be worse"),
    ],
)
def test_the_smallest_size_within_half_a_point_of_the_best_is_taken(scores, chosen):
    assert best_size(scores) == chosen


@pytest.mark.parametrize(
    ("trained", "tried"),
    [(160, (160, 192, 224, 256)), (320, (320, 384, 448, 512)), (72, (72, 96)), (32, (32,))],
)
def test_the_sizes_that_are_usually_tried_suit_the_networks_strides(trained, tried):
    assert usual_sizes(trained) == tried


@pytest.fixture
def segmenter(tmp_path, tiny_neu_seg):
    """A release of 128 px with thresholds and whatever else is fitted, and its data set."""
    dataset = replace(
        tiny_neu_seg,
        samples=tuple(replace(s, splits={"leak-free": "val"}) for s in tiny_neu_seg.samples),
    )
    config = releases.write(tmp_path / "r", "sme_deeplabv3plus")
    fitted = config.model_copy(
        update={
            "run": config.run.model_copy(update={"dataset_id": dataset.id}),
            "class_thresholds": dict.fromkeys(config.labels, 0.3),
            "ask_from": 0.7,
            "calibration": {"kind": "curves", "per_class": {}},
            "drift": {"n": 1},
            "operating": {"n": 1},
        }
    )
    (tmp_path / "r" / "config.json").write_text(fitted.model_dump_json())
    return tmp_path / "r", dataset


def _scores(monkeypatch, by_size):
    """Let the validation split be worth what the test says; what was asked is returned."""
    asked = []

    def judge(predictor, dataset, *, protocol, split, resamples):
        asked.append((predictor.image_size, dict(predictor.class_thresholds), split))
        found = evaluate(predictor, dataset, protocol=protocol, split=split, resamples=resamples)
        metric = found.metric("mIoU").model_copy(update={"value": by_size[predictor.image_size]})
        return found.model_copy(update={"metrics": (metric,)})

    monkeypatch.setattr("training.evaluate.evaluate", judge)
    return asked


def test_another_size_is_written_and_what_was_fitted_at_the_old_one_goes(segmenter, monkeypatch):
    folder, dataset = segmenter
    before = read_release(folder)
    asked = _scores(monkeypatch, {64: 0.5, 96: 0.6, 128: 0.604})
    found = fit_size(folder, dataset, (96, 64))
    assert asked == [(64, {}, "val"), (96, {}, "val"), (128, {}, "val")]
    assert (found.image_size, found.metric, found.n) == (96, "mIoU", len(dataset.samples))
    assert found.scores == {64: 0.5, 96: 0.6, 128: 0.604}
    after = read_release(folder)
    assert (after.image_size, after.run) == (96, before.run)
    assert (after.class_thresholds, after.calibration, after.drift) == ({}, {}, {})
    assert after.operating == {}
    assert (before.ask_from, after.ask_from) == (0.7, None)
    # Half as much again in each direction: (96 / 64)² times the work.
    assert after.gflops == pytest.approx(2.25 * module._resized(before, 64).gflops, rel=0.01)


def test_a_size_that_is_kept_changes_nothing(segmenter, monkeypatch):
    folder, dataset = segmenter
    before = read_release(folder)
    _scores(monkeypatch, {128: 0.6, 160: 0.6})
    assert fit_size(folder, dataset, (128, 160)).image_size == before.image_size == 128
    assert read_release(folder) == before


def test_a_size_that_is_worse_than_the_one_it_has_is_not_taken(segmenter, monkeypatch):
    folder, dataset = segmenter
    before = read_release(folder)
    _scores(monkeypatch, {128: 0.6, 160: 0.3})
    found = fit_size(folder, dataset, (160,))
    assert (found.image_size, found.scores) == (128, {128: 0.6, 160: 0.3})
    assert read_release(folder) == before


@pytest.mark.parametrize("size", [0, -32, 100])
def test_a_size_that_does_not_suit_the_strides_is_refused(segmenter, size):
    with pytest.raises(ConfigError, match="multiple of 32 px"):
        fit_size(*segmenter, (64, size))


def test_the_command_tells_an_unprepared_set_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path))
    done = CliRunner().invoke(app, ["size", str(tmp_path), "--data", "neu-seg"])
    assert done.exit_code == 1
    assert "is not prepared" in done.stderr
