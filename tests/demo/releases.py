"""Small releases of every task with random weights, tuned to find something on a known picture."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from core.images import decode
from core.records import Channel, Evaluation, Metric, ReleaseConfig, RunRecord
from core.taxonomy import labels
from core.types import Detections, Task
from demo.samples import FIRST
from models import get_spec, load
from models._release import write_config
from training.release import write_release

EXAMPLES = Path(__file__).parents[2] / "demo" / "examples"
PICTURE = EXAMPLES / FIRST  # 200 × 200, grey
DATASETS = {
    "grace": "neu-det",
    "sme_deeplabv3plus": "neu-seg",
    "mobilesteelnet": "neu-cls",
}
METRICS = {"detect": "mAP50", "segment": "mIoU", "classify": "accuracy"}
SCALES = {"sme_deeplabv3plus": "paper", "mobilesteelnet": "light"}


def write(
    folder: Path, name: str, *, seed: int = 0, validated: float = 0.4, picture: Path = PICTURE
) -> ReleaseConfig:
    """Write a release of `name` into `folder`; the same seed gives the same revision.

    A detector finds three boxes in `picture`. The less there is to see in it, the more its scores
    are stretched, and the further they move in bf16.
    """
    torch.manual_seed(seed)
    spec = get_spec(name)
    dataset = DATASETS[name]
    scale = SCALES.get(name, "n")
    network = spec.build(len(labels(dataset)), scale)
    sides = {"detect": 128, "segment": 128, "classify": 64}
    record = _record(name, scale, dataset, image_size=sides[spec.task], validated=validated)
    _settle(network, record.image_size)
    if spec.task == "detect":
        _find_three_boxes(network, folder, record, spec.title, picture)
    evaluation = Evaluation(
        model=name,
        revision="0" * 12,
        dataset=dataset,
        protocol="leak-free",
        split="test",
        test_id="a" * 64,
        metrics=(Metric(name=METRICS[spec.task], value=0.75, low=0.7, high=0.8, n=275),),
    )
    config = write_release(folder, network, record=record, title=spec.title, task=spec.task)
    config = config.model_copy(update={"evaluations": (evaluation,)})
    write_config(folder, config)
    return config


def describe(
    folder: Path, name: str, *, task: Task, validated: float = 0.4, weights: str = "d" * 64
) -> ReleaseConfig:
    """Write a config.json alone: enough to be offered, nothing to be loaded."""
    dataset = {"detect": "neu-det", "segment": "neu-seg", "classify": "neu-cls"}[task]
    record = _record(name, "n", dataset, image_size=64, validated=validated)
    config = ReleaseConfig(
        name=name,
        title=f"{name.upper()} (for tests)",
        task=task,
        scale="n",
        labels=labels(dataset),
        image_size=64,
        dataset=dataset,
        protocol="leak-free",
        parameters=record.parameters,
        gflops=record.gflops,
        weights_sha256=weights,
        run=record,
    )
    write_config(folder, config)
    return config


def promote(releases: Path, name: str, **described: Any) -> ReleaseConfig:
    """Write a description as a promoted revision and make it the live one."""
    config = describe(releases / name / "new", name, **described)
    folder = releases / name / config.revision
    (releases / name / "new").rename(folder)
    channel = Channel(live=config.revision)
    (releases / name / "channel.json").write_text(channel.model_dump_json())
    return config


def _record(name: str, scale: str, dataset: str, *, image_size: int, validated: float) -> RunRecord:
    return RunRecord(
        id="20261121-101530-test-n-s0",
        model=name,
        scale=scale,
        dataset=dataset,
        protocol="leak-free",
        dataset_id="b" * 64,
        test_id="a" * 64,
        labels=labels(dataset),
        image_size=image_size,
        epochs=1,
        epochs_planned=1,
        seed=0,
        recipe={"optimizer": "SGD"},
        initialisation="random",
        parameters=2_600_000,
        gflops=1.5,
        machine="test",
        precision="fp32",
        git_commit="c" * 40,
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        validation={"mAP50_95": validated},
    )


def _find_three_boxes(
    network: nn.Module, folder: Path, record: RunRecord, title: str, picture: Path
) -> None:
    """Shift the class scores of a random detector until three boxes of it are above 0.6."""
    ends: list[Any] = [branch[-1] for branch in network.model[-1].cv3]  # type: ignore[union-attr, index]
    with torch.no_grad():
        for end in ends:
            end.bias.zero_()
    found = _sorted_logits(network, folder, record, title, picture)
    spread = 6.0 / (found[2] - found[40])  # so that the fortieth is far below any threshold
    wanted = torch.logit(torch.tensor(0.6)) - spread * found[2]
    with torch.no_grad():
        for end in ends:
            end.weight.mul_(spread)
            end.bias.add_(wanted)


def _settle(network: nn.Module, side: int) -> None:
    """Give batch norms the statistics of real pictures, or random layers answer all alike."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    pictures = [decode(path).pixels for path in sorted(EXAMPLES.glob("*.jpg"))]
    batch = torch.stack(
        [torch.from_numpy(p[:side, :side]) for p in pictures if min(p.shape[:2]) >= side]
    )
    with torch.no_grad():
        network.train()(batch.permute(0, 3, 1, 2).float() / 255)
    network.eval()


def _sorted_logits(
    network: nn.Module, folder: Path, record: RunRecord, title: str, picture: Path
) -> Tensor:
    """Logits of the boxes that the release finds, highest first."""
    write_release(folder, network, record=record, title=title, task="detect")
    [found] = load(folder)([decode(picture)], score_threshold=0.0)
    assert isinstance(found, Detections)
    return torch.logit(torch.from_numpy(found.scores).double(), eps=1e-12).float()
