from __future__ import annotations

import dataclasses
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from core.errors import DatasetError, TrainingError
from models import get_spec
from tests.training import gc10_miniature
from training import _torch_loop
from training.__main__ import app
from training.benchmark import execute
from training.benchmark.execute import EVALUATION_FILE, Place, adopt, collect, run_rows
from training.benchmark.publish import page_text
from training.benchmark.records import load_records
from training.benchmark.rows import Row, Setting
from training.datasets import prepare
from training.launch import start_run
from training.runs import RunFolder

SETTING = Setting("quick", 32, 2, 8)


def a_row(*, seed: int = 0, setting: Setting = SETTING, model: str = "mobilenet_v2") -> Row:
    return Row(
        group="networks",
        title=model,
        model=model,
        scale="standard",
        data="x-sdd",
        protocol="leak-free",
        setting=setting,
        seed=seed,
    )


@pytest.fixture
def place(tiny_data_root: Path, tmp_path: Path) -> Place:
    return Place(
        data_root=tiny_data_root,
        runs_root=tmp_path / "runs",
        pages=tmp_path / "pages",
        device="cpu",
        workers=1,
    )


def run(rows: list[Row], place: Place) -> tuple[execute.Outcome, list[str]]:
    told: list[str] = []
    return run_rows(rows, place, tell=told.append, after=lambda _row: None), told


class Killed(BaseException):
    """What a kill looks like to the code that it hits."""


@pytest.fixture
def killed_in_the_second_epoch(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    whole = _torch_loop.Loop._validate

    def validate(loop: _torch_loop.Loop) -> dict[str, float]:
        if loop.epoch == 1:
            raise Killed
        return whole(loop)

    with monkeypatch.context() as patch:
        patch.setattr(_torch_loop.Loop, "_validate", validate)
        yield patch


def test_a_killed_row_goes_on_and_a_finished_one_is_not_run_again(
    place: Place, killed_in_the_second_epoch: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = a_row()
    with pytest.raises(Killed):
        run([row], place)
    folder = place.folder(row)
    assert folder.load_record().epochs == 1
    assert load_records(place.pages) == {}

    killed_in_the_second_epoch.undo()
    outcome, told = run([row], place)
    assert (outcome.done, told) == ((row.id,), [f"row 1 of 1: {row.id}"])
    assert "after epoch 1" in folder.log.read_text()
    (record,) = load_records(place.pages).values()
    assert (record.row, record.run.id, record.run.epochs) == (row.id, row.id, 2)
    assert record.evaluation.split == "test"
    assert record.evaluation.metrics[0].n == 7  # a third of the fixture's 21 images
    assert {name: len(r) for name, r in record.resamples.items()} == {
        "accuracy": 1000,
        "macro_F1": 1000,
    }

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a finished row was trained or measured again")

    monkeypatch.setattr(execute, "start_run", never)
    monkeypatch.setattr(execute, "_measure", never)
    assert run([row], place) == (outcome, [])
    # Killed between measuring and recording: what was measured is collected.
    shutil.rmtree(place.pages)
    collect([row], place)
    assert load_records(place.pages) == {row.id: record}


def test_a_row_that_fails_does_not_stop_the_others_and_a_busy_one_is_left(place: Place) -> None:
    diverging = Setting("quick", 32, 1, 8, {"lr0": 1e30, "clip_norm": 1e30, "optimizer": "SGD"})
    bad, busy, good = (
        a_row(setting=diverging),
        a_row(seed=1, setting=Setting("quick", 32, 1, 8)),
        a_row(seed=2, setting=Setting("quick", 32, 1, 8)),
    )
    lock = place.folder(busy).root.with_name(f".{busy.id}.lock")
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        outcome, told = run([bad, busy, good], place)
    assert (outcome.done, outcome.busy) == ((good.id,), (busy.id,))
    ((failed, reason),) = outcome.failed
    assert failed == bad.id
    assert "loss" in reason
    assert f"{busy.id} is being run by another process" in told


def test_rows_on_a_set_that_is_not_prepared_are_refused_before_any_is_run(place: Place) -> None:
    absent = dataclasses.replace(a_row(), data="gc10-det")
    with pytest.raises(DatasetError, match="'gc10-det' is not prepared"):
        run([a_row(), absent], place)
    assert not place.runs_root.exists()


def test_a_row_from_coco_arrays_needs_them(place: Place) -> None:
    row = dataclasses.replace(a_row(), model="yolo11", scale="n", data="neu-det", coco=True)
    outcome, _ = run([row], place)
    assert "give them by --init FILE.npz" in outcome.failed[0][1]


@pytest.fixture(scope="module")
def elsewhere(tiny_data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `a_row()` that no benchmark made."""
    from training.datasets import open_dataset

    root = tmp_path_factory.mktemp("elsewhere")
    start_run(
        get_spec("mobilenet_v2"),
        open_dataset("x-sdd", tiny_data_root),
        runs_root=root,
        run_id="by-hand",
        protocol="leak-free",
        epochs=2,
        image_size=32,
        batch=8,
        device="cpu",
    )
    return root / "by-hand"


def test_a_run_made_elsewhere_is_adopted_as_the_row_that_it_is(
    place: Place, elsewhere: Path
) -> None:
    other, row = a_row(seed=1), a_row()
    assert adopt(elsewhere, (other, row), place) == row
    (record,) = load_records(place.pages).values()
    assert (record.row, record.run.id) == (row.id, "by-hand")
    assert record.evaluation.revision == record.run.weights_sha256[:12]
    outcome, told = run([row], place)
    assert (outcome.done, told) == ((row.id,), [])  # nothing is left to run
    before = (place.folder(row).root / EVALUATION_FILE).stat().st_mtime_ns
    adopt(elsewhere, (row,), place)  # twice is once
    assert (place.folder(row).root / EVALUATION_FILE).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 1}, r"differs from .*-s1 in that seed is 0, the row has 1\."),
        ({"protocol": "paper"}, "protocol is 'leak-free', the row has 'paper'"),
        ({"model": "resnet50"}, "model is 'mobilenet_v2', the row has 'resnet50'"),
        ({"data": "neu-cls"}, "dataset is 'x-sdd', the row has 'neu-cls'"),
        ({"setting": Setting("quick", 64, 2, 8)}, "image_size is 32, the row has 64"),
        (
            {"setting": Setting("quick", 32, 2, 8, {"patience": 3})},
            "patience is 10, the row has 3",
        ),
        ({"balance": "focal"}, r"balance is 'paper', the row has 'focal' and 1 more"),
        ({"coco": True}, r"start is 'random', the row has 'COCO \('"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_run_that_is_no_row_is_refused_with_the_difference(
    change: dict[str, object], told: str, place: Place, elsewhere: Path
) -> None:
    row = dataclasses.replace(a_row(), **change)  # type: ignore[arg-type]
    with pytest.raises(DatasetError, match=told):
        adopt(elsewhere, (row,), place)
    assert not place.pages.exists()


def test_a_run_on_another_version_of_the_data_or_unfinished_is_not_adopted(
    place: Place, elsewhere: Path, tmp_path: Path
) -> None:
    copy = RunFolder(shutil.copytree(elsewhere, tmp_path / "by-hand"))
    record = copy.load_record()
    copy.save_record(record.model_copy(update={"dataset_id": "other"}))
    with pytest.raises(DatasetError, match="dataset_id is 'other'"):
        adopt(copy.root, (a_row(),), place)
    copy.save_record(record.model_copy(update={"finished_at": None, "epochs": 1}))
    with pytest.raises(DatasetError, match="it is not finished, 1 of 2 epochs are done"):
        adopt(copy.root, (a_row(),), place)


def test_a_run_from_before_there_was_balancing_is_the_row_that_does_nothing(
    place: Place, elsewhere: Path, tmp_path: Path
) -> None:
    copy = RunFolder(shutil.copytree(elsewhere, tmp_path / "by-hand"))
    record = copy.load_record()
    recipe = {k: v for k, v in record.recipe.items() if not k.startswith("balance")}
    copy.save_record(record.model_copy(update={"recipe": recipe}))
    assert adopt(copy.root, (a_row(),), place) == a_row()


def test_another_run_in_the_rows_folder_is_told(place: Place, elsewhere: Path) -> None:
    row = a_row(seed=1)
    folder = place.folder(row)
    shutil.copytree(elsewhere, folder.root)
    record = folder.load_record()
    (folder.root / "run.json").write_text(
        record.model_copy(update={"id": row.id}).model_dump_json()
    )
    outcome, _ = run([row], place)
    assert "was begun with seed 0, now 1 is asked for" in outcome.failed[0][1]
    with pytest.raises(TrainingError, match="already holds a run of row"):
        adopt_as_seed_1(elsewhere, row, place)


def adopt_as_seed_1(elsewhere: Path, row: Row, place: Place) -> None:
    """Adopt a copy that says that it has the row's seed."""
    copy = RunFolder(shutil.copytree(elsewhere, place.runs_root / "by-hand"))
    copy.save_record(copy.load_record().model_copy(update={"seed": row.seed}))
    adopt(copy.root, (row,), place)


# -------------------------------------------------------------------------------- command line


def coco_arrays(path: Path) -> Path:
    """A file of folded arrays that fits one convolution of YOLO11n."""
    conv = get_spec("yolo11").build(6, "n").model[0].conv
    weight = conv.weight.detach().numpy()
    arrays = {"model.0.conv.weight": weight, "model.0.conv.bias": np.zeros(len(weight), np.float32)}
    np.savez(path, **arrays)
    return path


def test_gc10_det_is_benchmarked_by_the_same_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gc10_miniature, "PER_CLASS", 2)  # fewer images than a good test of prepare
    source = gc10_miniature.write_gc10(tmp_path / "gc10")
    prepare("gc10-det", source, tmp_path / "data" / "datasets")
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ROLLMARK_PATHS__RUNS", str(tmp_path / "runs"))
    common = ["--task", "detect", "--data", "gc10-det", "--setting", "quick", "--device", "cpu"]
    common += ["--protocol", "leak-free", "--pages", str(tmp_path / "pages"), "--rows", "yolo11-n"]
    common += ["--workers", "0", "--init", str(coco_arrays(tmp_path / "yolo11n.npz"))]
    done = CliRunner().invoke(app, ["benchmark", "accuracy", *common])
    assert done.exit_code == 0, done.output
    assert done.stdout.split() == [str(tmp_path / "pages" / "detection.md")]
    text = (tmp_path / "pages" / "detection.md").read_text()
    assert "## gc10-det, leak-free protocol, setting *quick* (128 px, 1 epoch, batch 8)" in text
    assert "| YOLO11, n | COCO | 1 |" in text
    assert text == page_text("detect", tmp_path / "pages")
    (record,) = (tmp_path / "pages" / "records").glob("*.json")
    assert json.loads(record.read_text())["run"]["dataset"] == "gc10-det"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rows", "yolo99"], "No row is called 'yolo99'"),
        (["--data", "x-sdd"], "Table detect has no data set 'x-sdd'"),
        (["--adopt", "nowhere"], "nowhere is not a run"),
    ],
)
def test_what_cannot_be_is_one_line(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path))
    command = ["benchmark", "accuracy", "--task", "detect", "--pages", str(tmp_path), *arguments]
    done = CliRunner().invoke(app, [*command, "--device", "cpu"])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
