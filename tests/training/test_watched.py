"""Ending a run early: nothing is lost, and what it has is released."""

from __future__ import annotations

from dataclasses import replace

import pytest

from core.errors import LeaseLost, TrainingError
from models import get_spec
from models._release import read_release, read_weights
from tests.training.synthetic import TinyNetwork, draw_dataset
from training import launch, watched
from training.runs import RunFolder
from training.watched import conclude


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Trains a network of two layers on drawn squares and columns for five epochs."""
    spec = replace(get_spec("mobilesteelnet"), build=lambda n, _: TinyNetwork(n, dense=False))
    monkeypatch.setattr(watched, "get_spec", lambda name: spec)
    dataset = draw_dataset(tmp_path / "data", "classify")

    def started(**more):
        return launch.start_run(
            spec,
            dataset,
            runs_root=tmp_path,
            run_id="r",
            protocol="leak-free",
            epochs=5,
            image_size=32,
            batch=4,
            device="cpu",
            initial_weights=None,
            overrides={"lr0": 0.05, "patience": None},
            workers=1,
            **more,
        )

    return started


def test_a_run_that_is_ended_after_two_epochs_releases_the_better_of_them(start, tmp_path):
    seen = []

    def watch(record):
        seen.append(record.epochs)
        return record.epochs == 2

    record = start(watch=watch)
    assert seen == [1, 2]
    assert (record.epochs, record.epochs_planned) == (2, 5)
    assert record.finished_at is not None
    config = read_release(tmp_path / "r" / "release")
    assert config.run == record
    assert read_weights(tmp_path / "r" / "release", config)
    assert start(go_on=True) == record  # ended is finished
    assert conclude(RunFolder(tmp_path / "r")) == record


def test_the_curves_of_a_run_that_is_ended_reach_its_last_epoch(start, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "training.plots.draw_curves",
        lambda run, title: drawn.append((title, [row["epoch"] for row in run.metrics()])),
    )
    start(watch=lambda record: record.epochs == 2)
    assert drawn == [("MobileSteelNet (MSFF + CIEMA), r", [1, 2])]


def test_what_the_watch_raises_stops_the_run_and_it_can_be_gone_on_with(start):
    def replaced(record):
        raise LeaseLost("another process took over")

    with pytest.raises(LeaseLost):
        start(watch=replaced)
    assert start(go_on=True, watch=lambda record: False).epochs == 5


def test_a_run_without_an_epoch_has_nothing_to_release(start, tmp_path):
    start(watch=lambda record: True)
    run = RunFolder(tmp_path / "r")
    run.update_record(finished_at=None)
    run.best.unlink()
    with pytest.raises(TrainingError, match="has no finished epoch"):
        conclude(run)


def test_a_detector_s_run_is_ended_the_same_way(tmp_path, tiny_neu_det):
    record = launch.start_run(
        get_spec("yolo11"),
        tiny_neu_det,
        runs_root=tmp_path,
        run_id="d",
        protocol="leak-free",
        scale="n",
        epochs=3,
        image_size=64,
        batch=4,
        device="cpu",
        initial_weights=None,
        workers=0,
        watch=lambda record: record.epochs == 1,
    )
    assert (record.epochs, record.epochs_planned) == (1, 3)
    assert read_release(tmp_path / "d" / "release").run == record
    assert (tmp_path / "d" / "curves.png").is_file()
    assert not (tmp_path / "d" / "scratch").exists()
