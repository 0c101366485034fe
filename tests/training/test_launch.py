from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.errors import TrainingError
from core.records import RunRecord
from models import get_spec
from tests.training.synthetic import draw_dataset
from training import launch
from training.datasets import Dataset, write_index
from training.plan import make_plan
from training.runs import RunFolder
from training.yolo_trainer import make_recipe


def begin(folder: Path, model: str, dataset: str, recipe: dict[str, Any], origin: str) -> RunFolder:
    """A run folder that has its record and nothing else yet."""
    folder.mkdir()
    run = RunFolder(folder)
    run.save_record(
        RunRecord(
            id=run.id,
            model=model,
            scale=get_spec(model).default_scale,
            dataset=dataset,
            protocol="paper",
            dataset_id="d",
            test_id="t",
            labels=("a",),
            image_size=96,
            epochs=0,
            epochs_planned=12,
            seed=5,
            recipe=recipe,
            initialisation=origin,
            parameters=1,
            gflops=1.0,
            machine="",
            precision="fp32",
            git_commit="",
            started_at=datetime(2026, 11, 21, tzinfo=UTC),
        )
    )
    return run


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the trainer is called with, instead of calling it."""
    seen: dict[str, Any] = {}
    monkeypatch.setattr(launch, "_train", lambda _spec, _data, **arguments: seen.update(arguments))
    return seen


@pytest.mark.parametrize(
    ("model", "data", "overrides"),
    [
        pytest.param("yolo11", "neu-det", {"lr0": 0.123, "mosaic": 0.5}, id="detector"),
        pytest.param("grace", "neu-det", {"in_place": 0.5}, id="detector, in place for longer"),
        pytest.param(
            "grace", "neu-det", {"in_place": 0.0, "close_mosaic": 1}, id="detector, never in place"
        ),
        pytest.param("da_yolo", "neu-det", {"loss": "paper"}, id="detector, the paper's loss"),
        pytest.param("sme_deeplabv3plus", "neu-seg", {"loss": "paper"}, id="segmenter"),
        pytest.param("mobilesteelnet", "neu-cls", {"ema": 0.9, "patience": None}, id="classifier"),
    ],
)
def test_a_run_goes_on_with_the_choices_it_was_begun_with(
    model: str,
    data: str,
    overrides: dict[str, Any],
    called: dict[str, Any],
    tiny_data_root: Path,
    tmp_path: Path,
) -> None:
    spec = get_spec(model)

    def recipe(changes: dict[str, Any]) -> dict[str, Any]:
        if spec.task == "detect":
            return make_recipe(spec, epochs=12, batch=4, overrides=changes)
        return make_plan(spec, epochs=12, batch=4, overrides=changes).as_recipe()

    run = begin(tmp_path / "run", model, data, recipe(overrides), "random")
    launch.resume_run(run, data_root=tiny_data_root, device="cpu")
    assert called["overrides"] == overrides
    assert recipe(called["overrides"]) == run.load_record().recipe
    asked = {key: called[key] for key in ("protocol", "epochs", "image_size", "batch", "seed")}
    assert asked == {
        "protocol": "paper",
        "epochs": 12,
        "image_size": 96,
        "batch": 4,
        "seed": 5,
    }
    assert called["resume"] is True


def test_a_run_older_than_an_option_goes_on_without_it(
    called: dict[str, Any], tiny_data_root: Path, tmp_path: Path
) -> None:
    whole = make_recipe(get_spec("da_yolo"), epochs=12, batch=4, overrides={"in_place": 0})
    younger = ("in_place", "loss", "balance", "balance_strength")
    recipe = {name: value for name, value in whole.items() if name not in younger}
    assert recipe["close_mosaic"] == 2  # a fifth of the epochs, where it is 40 % today
    run = begin(tmp_path / "run", "da_yolo", "neu-det", recipe, "random")
    launch.resume_run(run, data_root=tiny_data_root, device="cpu")
    again = make_recipe(get_spec("da_yolo"), epochs=12, batch=4, overrides=called["overrides"])
    assert {name: again[name] for name in recipe} == recipe
    assert {name: again[name] for name in younger} == {
        "in_place": 0.0,
        "loss": "paper",  # where short runs take YOLO11's today
        "balance": "paper",
        "balance_strength": None,
    }


def test_a_run_stopped_before_its_first_checkpoint_needs_its_first_weights_again(
    called: dict[str, Any], tiny_data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(get_spec("yolo11"), epochs=12, batch=4)
    run = begin(tmp_path / "run", "yolo11", "neu-det", recipe, "COCO (yolo11n.npz), 99 arrays")
    with pytest.raises(TrainingError, match=r"began from COCO .* give those weights again"):
        launch.resume_run(run, data_root=tiny_data_root, device="cpu")
    weights = tmp_path / "yolo11n.npz"
    launch.resume_run(run, data_root=tiny_data_root, device="cpu", initial_weights=weights)
    assert called["initial_weights"] == weights


def test_a_run_on_a_reviewed_version_is_resumed_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = draw_dataset(tmp_path / "data" / "drawn", "classify")
    version = replace(base, samples=base.samples[1:])
    version = replace(version, root=tmp_path / "data" / f"drawn@{version.id[:12]}")
    version.root.mkdir()
    for dataset in (base, version):
        write_index(dataset, {})
    recipe = make_plan(get_spec("mobilesteelnet"), epochs=12, batch=4, overrides={}).as_recipe()
    run = begin(tmp_path / "run", "mobilesteelnet", "drawn", recipe, "random")
    run.update_record(dataset_id=version.id)
    seen: list[str] = []
    monkeypatch.setattr(launch, "_train", lambda _spec, data, **_: seen.append(data.id))
    launch.resume_run(run, data_root=tmp_path / "data", device="cpu")
    assert seen == [version.id]


HOLDING = """
import fcntl, os, sys
folder = os.open(sys.argv[1], os.O_RDONLY)
fcntl.flock(folder, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_run_that_another_process_trains_is_not_resumed_until_that_has_ended(
    called: dict[str, Any],
    tiny_data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(launch, "WAIT_S", 0.0)
    recipe = make_recipe(get_spec("yolo11"), epochs=12, batch=4)
    run = begin(tmp_path / "run", "yolo11", "neu-det", recipe, "random")
    script = [sys.executable, "-c", HOLDING, str(run.root)]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(TrainingError, match="Run run is being trained by another process"):
            launch.resume_run(run, data_root=tiny_data_root, device="cpu")
        assert called == {}
        other.kill()
    launch.resume_run(run, data_root=tiny_data_root, device="cpu")
    assert called["resume"] is True


def test_a_run_is_locked_while_it_is_trained_and_no_longer(
    tiny_neu_cls: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def look(_spec: object, _data: object, **arguments: Any) -> None:
        folder = os.open(arguments["run"].root, os.O_RDONLY)
        seen.append(launch._lock(folder, wait_s=0.0))
        os.close(folder)

    monkeypatch.setattr(launch, "_train", look)
    spec = get_spec("mobilesteelnet")
    for _ in range(2):
        launch.start_run(
            spec, tiny_neu_cls, runs_root=tmp_path, run_id="r", protocol="paper", device="cpu"
        )
    assert seen == [False, False]


def test_what_is_not_said_is_as_the_paper_has_it(
    called: dict[str, Any], tiny_neu_cls: Dataset, tmp_path: Path
) -> None:
    spec = get_spec("mobilesteelnet")
    launch.start_run(spec, tiny_neu_cls, runs_root=tmp_path, protocol="paper", device="cpu")
    assert (called["scale"], called["image_size"]) == ("light", 224)
    assert (called["epochs"], called["batch"]) == (200, 32)
    assert called["run"].root.parent == tmp_path


def test_a_run_that_is_refused_leaves_no_folder(tiny_neu_cls: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no training option"):
        launch.start_run(
            get_spec("mobilesteelnet"),
            tiny_neu_cls,
            runs_root=tmp_path / "runs",
            protocol="paper",
            device="cpu",
            overrides={"mosaic": 1},
        )
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_is_found_by_name_or_by_folder(tmp_path: Path) -> None:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    assert launch.find_run("first", tmp_path / "runs").id == "first"
    assert launch.find_run(str(tmp_path / "runs" / "first"), tmp_path / "other").id == "first"
    with pytest.raises(TrainingError, match="No run 'second'"):
        launch.find_run("second", tmp_path / "runs")
