from __future__ import annotations

import hashlib
import os
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import torch
from torch import nn

from core.errors import TrainingError, WeightsError, WeightsNotFoundError
from core.records import RunRecord
from models._release import load_weights, read_release, write_config
from training import runs
from training.plots import draw_curves
from training.release import write_release
from training.runs import RunFolder


def record_of(run_id: str) -> RunRecord:
    return RunRecord(
        id=run_id,
        model="grace",
        scale="n",
        dataset="neu-det",
        protocol="leak-free",
        dataset_id="d" * 64,
        test_id="e" * 64,
        labels=("crazing", "scratches"),
        image_size=64,
        epochs=0,
        epochs_planned=3,
        seed=7,
        recipe={"lr0": 0.01, "cos_lr": True},
        initialisation="random",
        parameters=10,
        gflops=0.5,
        machine="a CPU",
        precision="fp32",
        git_commit="unknown",
        started_at=datetime(2026, 11, 21, 10, 15, 30, tzinfo=UTC),
    )


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path / "runs", model="grace", scale="n", seed=7)
    folder.save_record(record_of(folder.id))
    return folder


# ------------------------------------------------------------------------------------- identity


def test_run_id_names_time_in_utc_model_scale_and_seed() -> None:
    in_delhi = datetime(2026, 11, 21, 15, 45, 30, tzinfo=timezone(timedelta(hours=5.5)))
    assert runs.new_run_id("grace", "n", seed=3, now=in_delhi) == "20261121-101530-grace-n-s3"


def test_runs_created_in_the_same_second_get_folders_of_their_own(tmp_path: Path) -> None:
    made = [RunFolder.create(tmp_path, model="grace", scale="n", seed=0) for _ in range(3)]
    assert len({run.root for run in made}) == 3
    assert all(run.root.is_dir() for run in made)


def test_runs_are_listed_by_name_and_folders_without_a_record_are_not(run: RunFolder) -> None:
    earlier = RunFolder(run.root.parent / "20200101-000000-grace-n-s0")
    earlier.save_record(record_of(earlier.id))
    (run.root.parent / "notes").mkdir()
    (run.root.parent / "file.txt").write_text("x")
    assert [found.id for found in runs.list_runs(run.root.parent)] == [earlier.id, run.id]
    assert runs.list_runs(run.root / "nowhere") == []


# --------------------------------------------------------------------------------------- record


def test_record_reads_back_as_it_was_written_and_updates_only_what_it_is_told(
    run: RunFolder,
) -> None:
    assert run.load_record() == record_of(run.id)
    changed = run.update_record(epochs=2, validation={"mAP50": 0.5})
    assert run.load_record() == changed
    assert (changed.epochs, changed.validation, changed.seed) == (2, {"mAP50": 0.5}, 7)


def test_misspelt_field_is_refused(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="epoch_done"):
        run.update_record(epoch_done=2)


def test_record_of_another_run_is_refused(run: RunFolder) -> None:
    with pytest.raises(TrainingError, match="does not belong"):
        run.save_record(record_of("20200101-000000-grace-n-s0"))


def test_folder_without_record_and_damaged_record_say_so(run: RunFolder) -> None:
    with pytest.raises(TrainingError, match=r"is not a run: run\.json is missing"):
        RunFolder(run.root.parent).load_record()
    (run.root / "run.json").write_text('{"id": "x"}')
    with pytest.raises(TrainingError, match="is not a run record: model: Field required"):
        run.load_record()


# -------------------------------------------------------------------------------------- metrics


def test_metrics_keep_one_row_an_epoch_when_an_epoch_is_repeated(run: RunFolder) -> None:
    run.append_metrics(1, {"train_box": 2.5})
    run.append_metrics(2, {"train_box": 2.0, "mAP50": 0.25})
    run.append_metrics(3, {"train_box": 9.0})
    run.append_metrics(2, {"train_box": 1.5, "mAP50": 0.5})  # resumed from epoch 1
    assert run.metrics() == [
        {"epoch": 1, "train_box": 2.5},
        {"epoch": 2, "train_box": 1.5, "mAP50": 0.5},
    ]
    assert run.metrics_csv.read_text() == "epoch,train_box,mAP50\n1,2.5,\n2,1.5,0.5\n"


def test_metrics_past_the_resumed_epoch_are_forgotten(run: RunFolder) -> None:
    for epoch in (1, 2, 3):
        run.append_metrics(epoch, {"train_box": 1.0})
    run.truncate_metrics(2)
    assert [row["epoch"] for row in run.metrics()] == [1, 2]
    run.truncate_metrics(0)
    assert run.metrics() == []


def test_curves_are_drawn_from_the_first_epoch_on(run: RunFolder) -> None:
    draw_curves(run, title="a run")
    assert not run.curves.exists()
    run.append_metrics(1, {"train_box": 2.0, "val_box": 2.5, "mAP50": 0.25, "lr": 0.01})
    draw_curves(run, title="a run")
    first = run.curves.read_bytes()
    run.append_metrics(2, {"train_box": 1.0, "val_box": 1.5, "mAP50": 0.75, "lr": 0.01})
    draw_curves(run, title="a run")
    assert first.startswith(b"\x89PNG\r\n\x1a\n")
    assert run.curves.read_bytes() != first


# --------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_interrupted_write_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "file"
    runs.write_atomically(path, b"old")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os if failing == "fsync" else Path, failing, stop)
    with pytest.raises(KeyboardInterrupt):
        runs.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_checkpoint_of_tensors_and_primitives_reads_back(tmp_path: Path) -> None:
    state = {"model": {"w": torch.arange(3.0)}, "epochs": 2, "best": None, "name": "x"}
    runs.save_checkpoint(tmp_path / "last.pt", state)
    back = runs.load_checkpoint(tmp_path / "last.pt")
    assert back["model"]["w"].tolist() == [0.0, 1.0, 2.0]
    assert (back["epochs"], back["best"], back["name"]) == (2, None, "x")


def test_checkpoint_with_an_object_in_it_is_not_unpickled(tmp_path: Path) -> None:
    torch.save({"run": RunFolder(tmp_path)}, tmp_path / "last.pt")
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        runs.load_checkpoint(tmp_path / "last.pt")


def test_cut_off_and_missing_checkpoints_say_so(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    with pytest.raises(WeightsNotFoundError, match="Nothing to resume from"):
        runs.load_checkpoint(path)
    runs.save_checkpoint(path, {"w": torch.zeros(100)})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TrainingError, match="not a readable checkpoint"):
        runs.load_checkpoint(path)


# --------------------------------------------------------------------------------------- machine


def test_gflops_count_two_per_multiply_add_and_leave_the_mode_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)).train()
    # 4 x 4 outputs x 8 channels x 3·3·3 weights = 3456 multiply-adds = 6912 operations
    assert runs.measure_gflops(network, 4) == pytest.approx(6912e-9)
    assert network.training
    assert runs.count_parameters(network) == 3 * 8 * 9 + 8 + 8 + 8


def test_commit_is_unknown_where_git_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_git(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", no_git)
    assert runs.git_commit() == "unknown"


def test_machine_line_counts_threads_and_names_torch() -> None:
    line = runs.describe_machine("cpu")
    assert line.endswith(f"torch {torch.__version__}")
    assert f"{torch.get_num_threads()} thread" in line


# --------------------------------------------------------------------------------------- release


def small_network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    network(torch.rand(2, 3, 8, 8))  # the count of batches, an integer, becomes 1
    return network


def test_release_reads_back_with_its_hash_in_half_precision(run: RunFolder) -> None:
    network = small_network()
    config = write_release(
        run.release, network, record=run.load_record(), title="GRACE", task="detect"
    )
    written = (run.release / "model.safetensors").read_bytes()
    assert hashlib.sha256(written).hexdigest() == config.weights_sha256
    assert config.run.weights_sha256 == config.weights_sha256
    assert read_release(run.release) == config
    again = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    load_weights(again, run.release, config)
    for name, value in network.state_dict().items():
        expected = value.half().float() if value.is_floating_point() else value
        assert torch.equal(again.state_dict()[name], expected), name
    assert again.state_dict()["1.num_batches_tracked"].item() == 1


def test_same_weights_give_the_same_release(run: RunFolder, tmp_path: Path) -> None:
    options = {"record": run.load_record(), "title": "GRACE", "task": "detect"}
    first = write_release(tmp_path / "a", small_network(), **options)
    network = small_network().to(memory_format=torch.channels_last)  # another order in memory
    assert write_release(tmp_path / "b", network, **options) == first


def test_diverged_weights_are_not_released(run: RunFolder) -> None:
    network = small_network()
    with torch.no_grad():
        network[0].bias[0] = 70000.0  # fp16 ends at 65504
    with pytest.raises(WeightsError, match=r"0\.bias holds values fp16 cannot"):
        write_release(run.release, network, record=run.load_record(), title="G", task="detect")
    assert not run.release.exists()


def test_a_variance_beyond_fp16_is_released_as_it_is(run: RunFolder) -> None:
    network = small_network()
    with torch.no_grad():
        network[1].running_var[2] = 70000.0  # of a sound run; fp16 ends at 65504
    config = write_release(run.release, network, record=run.load_record(), title="G", task="detect")
    again = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    load_weights(again, run.release, config)
    assert again[1].running_var[2].item() == 70000.0
    with torch.no_grad():
        network[1].running_var[2] = torch.inf
    with pytest.raises(WeightsError, match=r"1\.running_var holds values fp16 cannot"):
        write_release(run.release, network, record=run.load_record(), title="G", task="detect")


def test_release_can_be_described_anew_without_touching_its_weights(run: RunFolder) -> None:
    config = write_release(
        run.release, small_network(), record=run.load_record(), title="G", task="detect"
    )
    write_config(run.release, config.model_copy(update={"score_threshold": 0.5}))
    assert read_release(run.release).score_threshold == 0.5
    assert read_release(run.release).weights_sha256 == config.weights_sha256
