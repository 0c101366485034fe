from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.errors import ConfigError, TrainingError
from core.images import decode
from core.records import RunRecord
from models import get_spec, load
from models._release import read_release
from models._spec import ModelSpec
from models._ultralytics import v8DetectionLoss
from training import _loaders
from training._ultralytics_trainer import SteelTrainer
from training.balance import inverse_frequency_weights
from training.datasets import Dataset, open_dataset
from training.detector_recipe import check_freeze, make_recipe
from training.runs import RunFolder, load_checkpoint
from training.yolo_trainer import train_detector

# isort: split
from ultralytics.data.dataset import YOLODataset

pytestmark = [
    # told by torch when deterministic algorithms were asked for, once, of an operation on CUDA only
    pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation:UserWarning"),
]

SMALL = {"protocol": "leak-free", "scale": "n", "image_size": 64, "batch": 8, "seed": 3}


def train(
    spec: ModelSpec, dataset: Dataset, run: RunFolder, *, epochs: int, **options: Any
) -> RunRecord:
    settings = {**SMALL, "device": "cpu", "initial_weights": None, **options}
    return train_detector(spec, dataset, run=run, epochs=epochs, **settings)


@pytest.fixture(scope="module")
def blind(tiny_neu_det: Dataset) -> Dataset:
    """A data set whose test images are not there, so that opening one would fail."""
    samples = tuple(
        dataclasses.replace(sample, path=Path("nowhere") / sample.file)
        if sample.splits["leak-free"] == "test"
        else sample
        for sample in tiny_neu_det.samples
    )
    return dataclasses.replace(tiny_neu_det, samples=samples)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, blind: Dataset) -> RunFolder:
    """Two uninterrupted epochs of GRACE: its sampler, its epoch hook, its own layer."""
    run = RunFolder.create(tmp_path_factory.mktemp("runs"), model="grace", scale="n", seed=3)
    train(get_spec("grace"), blind, run, epochs=2)
    return run


# --------------------------------------------------------------------------------------- recipe


def test_run_much_shorter_than_the_papers_takes_the_short_schedule() -> None:
    recipe = make_recipe(get_spec("grace"), epochs=10, batch=8)  # the paper: 200 epochs, lr0 0.001
    assert (recipe["schedule"], recipe["lr0"], recipe["cos_lr"]) == ("short", 0.01, True)
    assert (recipe["in_place"], recipe["close_mosaic"]) == (0.4, 4)  # 40 % of 10 epochs
    assert (recipe["hsv_h"], recipe["hsv_s"], recipe["flipud"]) == (0.0, 0.0, 0.5)


@pytest.mark.parametrize(
    ("epochs", "share", "last"),
    [(1, 0.4, 1), (2, 0.4, 1), (3, 0.1, 1), (10, 0.4, 4), (1, 0, 0), (10, 0, 2)],
)
def test_a_run_ends_with_one_epoch_in_place_at_least(epochs: int, share: float, last: int) -> None:
    recipe = make_recipe(get_spec("grace"), epochs=epochs, batch=8, overrides={"in_place": share})
    assert recipe["close_mosaic"] == last


def test_run_of_the_papers_length_takes_the_papers_schedule() -> None:
    recipe = make_recipe(get_spec("grace"), epochs=200, batch=16)
    assert (recipe["schedule"], recipe["lr0"], recipe["nbs"]) == ("paper", 0.001, 64)


def test_override_wins_over_paper_and_schedule() -> None:
    recipe = make_recipe(get_spec("grace"), epochs=10, batch=8, overrides={"lr0": 0.5})
    assert recipe["lr0"] == 0.5


@pytest.mark.parametrize(
    "name",
    ["lr_0", "plots", "epochs", "amp", "model", "data", "project", "resume", "deterministic"],
)
def test_unknown_and_fixed_arguments_cannot_be_overridden(name: str) -> None:
    with pytest.raises(TrainingError, match=f"Cannot override '{name}'"):
        make_recipe(get_spec("grace"), epochs=10, batch=8, overrides={name: 1})


@pytest.mark.parametrize(("name", "value"), [("lr0", "fast"), ("mosaic", 2.0), ("cos_lr", "no")])
def test_a_value_of_another_kind_is_refused_before_a_run_begins(name: str, value: object) -> None:
    with pytest.raises(TrainingError, match=f"{name} is {value!r}, which it cannot be"):
        make_recipe(get_spec("grace"), epochs=10, batch=8, overrides={name: value})


@pytest.mark.parametrize("value", ["Adma", 5])
def test_an_optimizer_that_there_is_not_is_refused_before_a_run_begins(value: object) -> None:
    with pytest.raises(TrainingError, match=f"optimizer is {value!r}: it must be one of SGD, Mu"):
        make_recipe(get_spec("grace"), epochs=10, batch=8, overrides={"optimizer": value})


def test_an_optimizer_may_be_written_small_as_ultralytics_lets_it() -> None:
    recipe = make_recipe(get_spec("grace"), epochs=10, batch=8, overrides={"optimizer": "adamw"})
    assert recipe["optimizer"] == "adamw"


@pytest.mark.parametrize("freeze", [24, -1, True, "head", [24]])
def test_layers_that_there_are_not_and_all_of_them_are_not_frozen(freeze: object) -> None:
    with pytest.raises(TrainingError, match="of the 24 layers stay as they are, fewer than all"):
        check_freeze(freeze, 24)


@pytest.mark.parametrize("freeze", [None, 0, 23, [0, 5, 23]])
def test_some_layers_may_be_frozen(freeze: object) -> None:
    check_freeze(freeze, 24)


def test_a_whole_network_is_not_frozen_and_nothing_is_begun(blind: Dataset, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(TrainingError, match="freeze is 30"):
        train(get_spec("yolo11"), blind, run, epochs=1, overrides={"freeze": 30})
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ run


def test_finished_run_holds_record_metrics_curves_log_and_release(finished: RunFolder) -> None:
    record = finished.load_record()
    assert (record.epochs, record.epochs_planned, record.initialisation) == (2, 2, "random")
    assert record.finished_at is not None
    assert record.best_epoch in (1, 2)
    rows = finished.metrics()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert all(row["images_per_s"] > 0 and row["train_box"] > 0 for row in rows)
    kept = rows[record.best_epoch - 1]
    assert kept["mAP50_95"] == pytest.approx(record.validation["mAP50_95"], abs=1e-5)
    assert "epoch 2/2" in finished.log.read_text()
    assert finished.curves.is_file()
    assert read_release(finished.release).run == record
    left = {path.name for path in finished.root.iterdir()}
    assert left == {
        "run.json",
        "log.txt",
        "metrics.csv",
        "curves.png",
        "last.pt",
        "best.safetensors",
        "release",
    }


def test_release_of_a_run_predicts(finished: RunFolder, tiny_neu_det: Dataset) -> None:
    predictor = load(finished.release)
    image = decode(tiny_neu_det.samples[0].path)
    (prediction,) = predictor([image], score_threshold=0.0)
    assert prediction.labels == tiny_neu_det.labels


def test_checkpoint_holds_tensors_and_primitives_only(finished: RunFolder) -> None:
    state = load_checkpoint(finished.last)  # the restricted loader refuses anything else
    assert state["epochs"] == 2
    assert state["sampler"]["epoch"] == 2
    assert not any(name.startswith("criterion.") for name in state["model"])


def test_finished_run_is_returned_as_it_is_when_resumed(
    finished: RunFolder, blind: Dataset
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")}
    record = train(get_spec("grace"), blind, finished, epochs=2, resume=True)
    assert record == finished.load_record()
    assert {path: path.stat().st_mtime_ns for path in finished.root.rglob("*")} == before


def test_run_is_not_begun_twice_nor_resumed_as_another(finished: RunFolder, blind: Dataset) -> None:
    spec = get_spec("grace")
    with pytest.raises(TrainingError, match="already holds a run"):
        train(spec, blind, finished, epochs=2)
    with pytest.raises(TrainingError, match="begun with epochs_planned 2, now 4"):
        train(spec, blind, finished, epochs=4, resume=True)
    with pytest.raises(TrainingError, match="begun with seed 3, now 4"):
        train(spec, blind, finished, epochs=2, resume=True, seed=4)


KILLED = """
import os, signal, sys
from pathlib import Path
from training import _ultralytics_trainer as loop
from tests.training.test_yolo_trainer import train
from models import get_spec
from training.datasets import open_dataset
from training.runs import RunFolder
end_batch = loop.SteelTrainer._end_batch

def killing(self):
    end_batch(self)
    if (self.epoch, self._batch) == (1, 1):  # after the first batch of the second epoch
        os.kill(os.getpid(), signal.SIGKILL)

loop.SteelTrainer._end_batch = killing
dataset = open_dataset("neu-det", Path(sys.argv[1]))
train(get_spec("grace"), dataset, RunFolder(Path(sys.argv[2])), epochs=2)
"""


def test_run_killed_within_an_epoch_resumes_to_what_it_would_have_become(
    finished: RunFolder, tiny_data_root: Path, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path, model="grace", scale="n", seed=3)
    script = [sys.executable, "-c", KILLED, str(tiny_data_root), str(run.root)]
    killed = subprocess.run(script, capture_output=True, text=True, timeout=600)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert run.load_record().epochs == 1
    run.append_metrics(2, {"train_box": 99.0})  # killed between row and checkpoint
    dataset = open_dataset("neu-det", tiny_data_root)
    record = train(get_spec("grace"), dataset, run, epochs=2, resume=True)
    assert [row["epoch"] for row in run.metrics()] == [1, 2]
    assert record.epochs == 2
    there, here = load_checkpoint(finished.last), load_checkpoint(run.last)
    for part in ("model", "ema"):
        for name, value in there[part].items():
            torch.testing.assert_close(here[part][name], value, rtol=1e-4, atol=1e-5, msg=name)
    whole = [row["train_box"] for row in finished.metrics()]
    assert [row["train_box"] for row in run.metrics()] == pytest.approx(whole, rel=1e-4)


def test_a_run_whose_images_do_not_fit_into_memory_becomes_what_it_would_have_become(
    finished: RunFolder, blind: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read from the disk again and again, and put together as before."""
    monkeypatch.setattr(_loaders, "memory_granted_mb", lambda: 0.01)  # not one of 64 x 64 x 3 bytes
    monkeypatch.setattr(YOLODataset, "cache_images", lambda _: pytest.fail("kept in memory"))
    run = RunFolder.create(tmp_path, model="grace", scale="n", seed=3)
    train(get_spec("grace"), blind, run, epochs=2)
    there, here = load_checkpoint(finished.last), load_checkpoint(run.last)
    for name, value in there["ema"].items():
        torch.testing.assert_close(here["ema"][name], value, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("granted_mb", "fits"),
    [  # 3 images of 100 x 100 x 3 bytes are 0.09 MB
        pytest.param(None, True, id="no container"),
        pytest.param(0.18, True, id="twice of what they take"),
        pytest.param(0.17, False, id="less"),
    ],
)
def test_images_are_kept_in_memory_where_a_container_grants_twice_of_what_they_take(
    granted_mb: float | None, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setattr(_loaders, "memory_granted_mb", lambda: granted_mb)
    assert _loaders.fits_in_memory(tmp_path, 100) is fits


def test_run_killed_between_its_last_checkpoint_and_the_report_is_released_with_a_whole_record(
    finished: RunFolder, blind: Dataset, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path / finished.id)
    shutil.copytree(finished.root, run.root)
    shutil.rmtree(run.release)
    whole = run.update_record()
    run.update_record(epochs=1, best_epoch=None, validation={}, finished_at=None)
    record = train(get_spec("grace"), blind, run, epochs=2, resume=True)
    assert (record.epochs, record.best_epoch) == (2, whole.best_epoch)
    assert record.validation == whole.validation
    assert read_release(run.release).run == record


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder for temporary files with a name as short as a machine's own has."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield Path(folder)


def test_training_told_to_end_says_nothing_and_takes_its_loaders_and_temporary_files_along(
    tiny_data_root: Path, tmp_path: Path, short_tmp: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "datasets").symlink_to(tiny_data_root)
    places = {"DATA": tmp_path / "data", "RUNS": tmp_path / "runs"}
    settings = {f"ROLLMARK_PATHS__{name}": str(place) for name, place in places.items()}
    inherited = {k: v for k, v in os.environ.items() if k != "YOLO_CONFIG_DIR"}
    command = "train yolo11 --data neu-det --epochs 99 --image-size 64 --batch 2 --device cpu"
    process = subprocess.Popen(
        [sys.executable, "-m", "training", *command.split()],
        env={**inherited, **settings, "TMPDIR": str(short_tmp)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 1/99" in line:
            break
    os.killpg(process.pid, signal.SIGTERM)  # as a service manager does: all processes at once
    said, _ = process.communicate(timeout=600)  # a loader left behind would keep the pipe open
    assert [line for line in said.splitlines() if "INFO" not in line] == []
    assert process.returncode == 143  # 128 + SIGTERM
    left = {path.name for path in short_tmp.rglob("*")}
    assert left <= {f"rollmark-{os.getuid()}", ".lock", "torchinductor"}


# -------------------------------------------------------------------------- what the spec asks for


class FirstImageOnly:
    """A sampler that always draws image 0 and writes down how it is treated."""

    calls: list[Any]  # set by the test

    def __init__(self, labels: Sequence[Sequence[int]], n_classes: int, seed: int) -> None:
        self.n = len(labels)
        self.calls.append(("made", len(labels), n_classes, seed))

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[int]:
        self.calls.append("iterated")
        return iter([0] * self.n)

    def attach(self, criterion: Any) -> None:
        self.calls.append(("attached", type(criterion)))

    def on_batch_end(self) -> None:
        self.calls.append("batch")

    def on_epoch_end(self, epoch: int) -> None:
        self.calls.append(("epoch", epoch))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("nothing was resumed")


class NoLoss(v8DetectionLoss):
    """Diverges in training."""

    def loss(self, *arguments: Any) -> Any:
        loss, items = super().loss(*arguments)
        return loss * float("nan"), items


def test_sampler_criterion_and_epoch_hook_of_the_spec_take_part(
    tiny_neu_det: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    hooked: list[tuple[int, int]] = []
    losses: list[int] = []
    monkeypatch.setattr(FirstImageOnly, "calls", calls, raising=False)

    def criterion(network: Any) -> v8DetectionLoss:
        losses.append(id(network))
        return v8DetectionLoss(network)

    spec = dataclasses.replace(
        get_spec("yolo11"),
        sampler=FirstImageOnly,
        criterion=criterion,
        on_epoch=lambda network, epoch: hooked.append((epoch, id(network))),
    )
    run = RunFolder.create(tmp_path, model="yolo11", scale="n", seed=3)
    train(spec, tiny_neu_det, run, epochs=2)
    n = len(tiny_neu_det.split("leak-free", "train"))
    batches = ["batch"] * -(-n // 8)
    assert calls == [
        ("made", n, 6, 3),
        ("attached", v8DetectionLoss),
        "iterated",
        *batches,
        ("epoch", 0),
        "iterated",
        *batches,
        ("epoch", 1),
    ]
    trained, averaged = hooked[0][1], hooked[1][1]
    assert trained != averaged
    assert hooked == [(0, trained), (0, averaged), (1, trained), (1, averaged)]
    assert losses == [trained, averaged]


def test_balance_replaces_the_papers_sampler_and_weighs_the_loss(
    tiny_neu_det: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []

    def criterion(network: Any) -> v8DetectionLoss:
        loss = v8DetectionLoss(network)
        heard.append(None if loss.class_weights is None else loss.class_weights.ravel().tolist())
        return loss

    monkeypatch.setattr("training.plots.draw_curves", lambda *_, **__: None)
    spec = dataclasses.replace(get_spec("grace"), criterion=criterion)  # with DS-CBSM++
    counts = tiny_neu_det.counts("leak-free")["train"]
    boxes = np.array([counts[label] for label in tiny_neu_det.labels], dtype=np.float64)
    expected = {
        "class_weights": inverse_frequency_weights(boxes, power=0.5).tolist(),
        "repeat_factor": None,
    }
    for method, weights in expected.items():
        run = RunFolder.create(tmp_path, model="grace", scale="n", seed=3)
        record = train(spec, tiny_neu_det, run, epochs=1, overrides={"balance": method})
        assert record.recipe["balance"] == method
        state = load_checkpoint(run.last)["sampler"]
        assert state == (None if weights else {"epoch": 1})
        assert heard[0] == (pytest.approx(weights) if weights else None)
        heard.clear()


def test_stock_loss_takes_the_place_of_the_papers(
    tiny_neu_det: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def criterion(network: Any) -> v8DetectionLoss:
        asked.append("paper")
        return v8DetectionLoss(network)

    monkeypatch.setattr("training.plots.draw_curves", lambda *_, **__: None)
    spec = dataclasses.replace(get_spec("yolo11"), criterion=criterion)
    run = RunFolder.create(tmp_path, model="yolo11", scale="n", seed=3)
    record = train(spec, tiny_neu_det, run, epochs=1, overrides={"loss": "stock"})
    assert record.recipe["loss"] == "stock"
    assert asked == []


@pytest.mark.parametrize(
    ("model", "epochs", "overrides", "loss"),
    [
        ("da_yolo", 149, {}, "stock"),  # its paper's 300 epochs, halved, are 150
        ("da_yolo", 150, {}, "paper"),
        ("da_yolo", 149, {"loss": "paper"}, "paper"),
        ("da_yolo", 150, {"loss": "stock"}, "stock"),
        ("gms2_yolo", 24, {}, "paper"),
    ],
)
def test_short_runs_of_da_yolo_learn_by_the_loss_that_was_measured_better_there(
    model: str, epochs: int, overrides: dict[str, str], loss: str
) -> None:
    recipe = make_recipe(get_spec(model), epochs=epochs, batch=16, overrides=overrides)
    assert recipe["loss"] == loss


@pytest.mark.parametrize(
    ("overrides", "closed"),
    [
        ({"in_place": 0.5}, [(1, 0.0, 0.0)]),
        ({"in_place": 1}, [(0, 0.0, 0.0)]),
        ({"in_place": 0, "close_mosaic": 1}, [(1, 0.5, 0.1)]),  # ultralytics' zoom and shift stay
        ({"in_place": 0}, []),  # 20 % of two epochs are none
    ],
)
def test_in_the_last_epochs_pictures_are_left_in_place(
    overrides: dict[str, float],
    closed: list[tuple[int, float, float]],
    tiny_neu_det: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found: list[tuple[int, float, float]] = []
    epochs: list[int] = []
    close, start = YOLODataset.close_mosaic, SteelTrainer._start_epoch

    def close_heard(self: YOLODataset, hyp: Any) -> None:
        found.append((epochs[-1], hyp.scale, hyp.translate))
        close(self, hyp)

    def start_heard(self: SteelTrainer) -> None:
        epochs.append(self.epoch)
        start(self)

    monkeypatch.setattr(YOLODataset, "close_mosaic", close_heard)
    monkeypatch.setattr(SteelTrainer, "_start_epoch", start_heard)
    run = RunFolder.create(tmp_path, model="yolo11", scale="n", seed=3)
    train(get_spec("yolo11"), tiny_neu_det, run, epochs=2, overrides=overrides)
    assert found == closed


@pytest.mark.parametrize("share", [-0.1, 1.1, "all", True])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(TrainingError, match="it must be a share of the epochs, 0 to 1"):
        make_recipe(get_spec("grace"), epochs=10, batch=8, overrides={"in_place": share})


def test_the_end_of_mosaics_follows_from_the_share_where_there_is_one() -> None:
    with pytest.raises(TrainingError, match="Cannot override 'close_mosaic'"):
        make_recipe(get_spec("grace"), epochs=10, batch=8, overrides={"close_mosaic": 2})
    freely = {"in_place": 0, "close_mosaic": 3}
    recipe = make_recipe(get_spec("grace"), epochs=10, batch=8, overrides=freely)
    assert recipe["close_mosaic"] == 3


def test_unknown_loss_is_refused() -> None:
    with pytest.raises(TrainingError, match="loss is 'focal': it must be paper or stock"):
        make_recipe(get_spec("grace"), epochs=10, batch=8, overrides={"loss": "focal"})


def test_diverged_loss_ends_the_run_and_says_where_the_last_sound_epoch_is(
    tiny_neu_det: Dataset, tmp_path: Path
) -> None:
    spec = dataclasses.replace(get_spec("yolo11"), criterion=NoLoss)
    run = RunFolder.create(tmp_path, model="yolo11", scale="n", seed=3)
    with pytest.raises(TrainingError, match=r"of epoch 1 is nan: the run has diverged"):
        train(spec, tiny_neu_det, run, epochs=2)
    assert not run.last.exists()


def test_coco_arrays_start_a_network_and_the_record_says_so(
    tiny_neu_det: Dataset, tmp_path: Path
) -> None:
    run = RunFolder.create(tmp_path, model="yolo11", scale="n", seed=3)
    weight = np.random.default_rng(0).normal(size=(16, 3, 3, 3))
    arrays = {"weight": weight, "bias": np.zeros(16)}
    source = tmp_path / "coco.npz"
    np.savez(source, **{f"model.0.conv.{k}": v.astype(np.float32) for k, v in arrays.items()})
    record = train(get_spec("yolo11"), tiny_neu_det, run, epochs=1, initial_weights=source)
    assert record.initialisation == "COCO (coco.npz), 2 arrays"
    assert record.parent_revision is None


def test_release_starts_the_next_run_and_is_named_as_its_parent(
    finished: RunFolder, blind: Dataset, tmp_path: Path
) -> None:
    parent = read_release(finished.release).revision
    run = RunFolder.create(tmp_path, model="grace", scale="n", seed=3)
    record = train(get_spec("grace"), blind, run, epochs=1, initial_weights=finished.release)
    assert record.parent_revision == parent


# ------------------------------------------------------------------------------------- refusals


def test_what_is_no_detector_or_no_box_is_refused(
    tiny_neu_det: Dataset, tiny_neu_cls: Dataset, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    with pytest.raises(TrainingError, match="mobilesteelnet is made to classify"):
        train(get_spec("mobilesteelnet"), tiny_neu_det, run, epochs=1)
    with pytest.raises(TrainingError, match="neu-cls is a data set to classify"):
        train(get_spec("grace"), tiny_neu_cls, run, epochs=1)
    sound = dataclasses.replace(tiny_neu_det, labels=())  # every picture of it
    with pytest.raises(TrainingError, match="No picture of neu-det shows a defect"):
        train(get_spec("grace"), sound, run, epochs=1)
    with pytest.raises(ConfigError, match="Unknown scale 'xxl'"):
        train(get_spec("grace"), tiny_neu_det, run, epochs=1, scale="xxl")
    with pytest.raises(ConfigError, match="Image size is 65 px: grace needs a multiple of 32"):
        train(get_spec("grace"), tiny_neu_det, run, epochs=1, image_size=65)
    assert not any(tmp_path.iterdir())


def test_training_leaves_ultralytics_integrations_and_settings_alone(finished: RunFolder) -> None:
    from ultralytics.utils import SETTINGS

    assert SETTINGS["sync"] is False
    settings = json.loads(Path(SETTINGS.file).read_text())
    assert settings["sync"] is False
    assert Path.home() not in Path(SETTINGS.file).parents
