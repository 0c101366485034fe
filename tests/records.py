"""Records with every field filled, for tests that need one and do not care about most of it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.records import Evaluation, Metric, ReleaseConfig, RunRecord, SideFile


def make_run(**changes: Any) -> RunRecord:
    """A finished run of GRACE; `changes` replace fields."""
    fields: dict[str, Any] = {
        "id": "20261121-101530-grace-n-s0",
        "model": "grace",
        "scale": "n",
        "dataset": "neu-det",
        "protocol": "leak-free",
        "dataset_id": "d" * 64,
        "test_id": "e" * 64,
        "labels": ("crazing", "scratches"),
        "image_size": 320,
        "epochs": 28,
        "epochs_planned": 30,
        "seed": 7,
        "recipe": {"optimizer": "SGD", "lr0": 0.01},
        "initialisation": "random weights",
        "parameters": 2_593_571,
        "gflops": 1.63,
        "machine": "test machine, 1 thread",
        "precision": "fp32",
        "git_commit": "c" * 40,
        "started_at": datetime(2026, 11, 21, 10, 15, 30, tzinfo=UTC),
        "finished_at": datetime(2026, 11, 21, 11, 15, 30, tzinfo=UTC),
        "wall_time_s": 3600.0,
        "best_epoch": 25,
        "validation": {"mAP50": 0.71, "mAP50_95": 0.38},
    }
    return RunRecord(**{**fields, **changes})


def make_config(weights: bytes = b"weights", **changes: Any) -> ReleaseConfig:
    """A release of GRACE whose weights file holds `weights`."""
    digest = hashlib.sha256(weights).hexdigest()
    run = changes.pop("run", make_run(weights_sha256=digest))
    fields: dict[str, Any] = {
        "name": run.model,
        "title": "GRACE",
        "task": "detect",
        "scale": run.scale,
        "labels": run.labels,
        "image_size": run.image_size,
        "dataset": run.dataset,
        "protocol": run.protocol,
        "parameters": run.parameters,
        "gflops": run.gflops,
        "weights_sha256": digest,
        "run": run,
    }
    return ReleaseConfig(**{**fields, **changes})


def make_evaluation(config: ReleaseConfig, **changes: Any) -> Evaluation:
    """What was measured on the weights of `config`."""
    fields: dict[str, Any] = {
        "model": config.name,
        "revision": config.revision,
        "dataset": config.dataset,
        "protocol": config.protocol,
        "split": "test",
        "test_id": config.run.test_id,
        "metrics": (
            Metric(
                name="mAP50",
                value=0.7,
                low=0.65,
                high=0.74,
                per_class={"crazing": 0.4, "scratches": 0.9},
                n=324,
            ),
        ),
    }
    return Evaluation(**{**fields, **changes})


def write_folder(folder: Path, weights: bytes = b"weights", **changes: Any) -> ReleaseConfig:
    """A release folder that can be found, listed and copied, though not loaded."""
    config = make_config(weights, **changes)
    folder.mkdir(parents=True)
    (folder / config.weights_file).write_bytes(weights)
    (folder / "config.json").write_text(config.model_dump_json())
    return config


def write_described(folder: Path, weights: bytes, novelty: bytes) -> Path:
    """A release folder, new or written over, whose side file has this content."""
    side = SideFile(file="novelty.safetensors", sha256=hashlib.sha256(novelty).hexdigest())
    if not folder.exists():
        write_folder(folder, weights)
    (folder / side.file).write_bytes(novelty)
    (folder / "config.json").write_text(make_config(weights, novelty=side).model_dump_json())
    return folder
