"""What every model of the zoo promises, whichever file it comes from.

Parametrised over `names()` and `baseline_names()`: a new model is held to this by being there.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

import models
from core.errors import UnknownModelError
from core.records import ReleaseConfig, RunRecord
from core.types import Classification, DecodedImage, Detections, Segmentation
from models._spec import ModelSpec

LABELS = ("crazing", "inclusion", "scratches")
PAPERS = models.names()
SIZES = {"detect": ((64, 64), (64, 96)), "segment": ((64, 64), (100, 75)), "classify": ((96, 96),)}


@dataclass(frozen=True)
class Model:
    """A spec and a network built from it at the default scale, with random weights."""

    spec: ModelSpec
    network: nn.Module


@pytest.fixture(scope="module", params=(*PAPERS, *models.baseline_names()))
def model(request: pytest.FixtureRequest) -> Model:
    torch.manual_seed(0)
    spec = models.get_spec(request.param)
    return Model(spec, spec.build(len(LABELS), spec.default_scale))


def batch(height: int, width: int, *, count: int = 2) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def answer(network: nn.Module, images: Tensor) -> Tensor:
    """The first output in evaluation mode, as the predictors use it."""
    network.eval()
    with torch.no_grad():
        out = network(images)
    first: Tensor = out[0] if isinstance(out, tuple) else out
    return first


def half_precision(network: nn.Module) -> dict[str, Tensor]:
    """The state dict as a release stores it: floats in fp16, counters as they are."""
    return {
        name: (value.half() if value.is_floating_point() else value).contiguous().clone()
        for name, value in network.state_dict().items()
    }


def test_the_spec_names_its_file_its_scales_and_a_size_that_strides_divide(model: Model) -> None:
    spec = model.spec
    assert models.get_spec(spec.name) is spec
    assert spec.default_scale in spec.scales
    assert spec.image_size % 32 == 0
    assert spec.recipe.optimizer in {"SGD", "Adam", "AdamW"}


@pytest.mark.parametrize("name", PAPERS)
def test_a_published_model_names_its_paper_its_numbers_and_our_departures(name: str) -> None:
    spec = models.get_spec(name)
    assert spec.name == name
    assert spec.paper is not None
    assert spec.paper.title
    assert spec.departures
    for metric in spec.reported:
        if metric.name in {"mAP50", "mAP50_95", "mIoU", "MPA", "accuracy", "precision", "recall"}:
            assert 0.0 < metric.value <= 1.0


def test_output_has_the_shape_of_its_task_at_every_size(model: Model) -> None:
    for height, width in SIZES[model.spec.task]:
        out = answer(model.network, batch(height, width))
        cells = sum((height // s) * (width // s) for s in (8, 16, 32))  # one anchor each
        expected = {
            "detect": (2, 4 + len(LABELS), cells),
            "segment": (2, 1 + len(LABELS), height, width),
            "classify": (2, len(LABELS)),
        }[model.spec.task]
        assert tuple(out.shape) == expected
        assert out.isfinite().all()


def test_evaluation_treats_each_image_of_a_batch_by_itself(model: Model) -> None:
    images = batch(64, 64)
    together, alone = answer(model.network, images), answer(model.network, images[:1])
    assert torch.allclose(together[:1], alone, rtol=1e-3, atol=1e-3)


def test_backward_reaches_every_parameter(model: Model) -> None:
    model.network.train().zero_grad(set_to_none=True)
    out = model.network(batch(64, 64))
    outputs = (out["boxes"], out["scores"]) if isinstance(out, dict) else (out,)
    torch.stack([o.square().mean() for o in outputs]).sum().backward()
    trainable = {n: p for n, p in model.network.named_parameters() if p.requires_grad}
    assert trainable
    assert [n for n, p in trainable.items() if p.grad is None or not p.grad.isfinite().all()] == []


def test_the_feature_layer_gives_one_map_per_image(model: Model) -> None:
    seen: list[Tensor] = []
    layer = model.network.get_submodule(model.spec.feature_layer)
    handle = layer.register_forward_hook(lambda _module, _inputs, out: seen.append(out))
    try:
        answer(model.network, batch(64, 64))
    finally:
        handle.remove()
    (features,) = seen
    assert features.ndim == 4
    assert features.shape[0] == 2
    assert features.shape[2] == features.shape[3] > 1


def test_weights_survive_the_trip_through_half_precision_safetensors(model: Model) -> None:
    stored = load(save(half_precision(model.network)))
    torch.manual_seed(1)  # other random weights, all of which the file must replace
    rebuilt = model.spec.build(len(LABELS), model.spec.default_scale)
    rebuilt.load_state_dict(stored, strict=True)
    for name, value in model.network.state_dict().items():
        again = rebuilt.state_dict()[name]
        if value.is_floating_point():  # 11 bits of mantissa: half a unit in 2^11, or 2^-25 near 0
            assert torch.allclose(again, value, rtol=2**-11, atol=2**-24), name
        else:
            assert torch.equal(again, value), name
    model.network.load_state_dict(stored)  # the same rounding, in place
    images = batch(64, 64)
    assert torch.equal(answer(rebuilt, images), answer(model.network, images))


def write_release(folder: Path, model: Model, image_size: int) -> ReleaseConfig:
    weights = save(half_precision(model.network))
    (folder / "model.safetensors").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    common = {
        "scale": model.spec.default_scale,
        "labels": LABELS,
        "image_size": image_size,
        "dataset": "none",
        "protocol": "leak-free",
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "gflops": 0.0,
    }
    run = RunRecord(
        id="test",
        model=model.spec.name,
        dataset_id="0" * 64,
        test_id="0" * 64,
        epochs=0,
        epochs_planned=0,
        seed=0,
        recipe={},
        initialisation="random",
        machine="test",
        precision="fp32",
        git_commit="none",
        started_at=dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
        **common,
    )
    config = ReleaseConfig(
        name=model.spec.name,
        title=model.spec.title,
        task=model.spec.task,
        weights_sha256=digest,
        run=run,
        **common,
    )
    (folder / "config.json").write_text(config.model_dump_json())
    return config


def test_a_loaded_release_answers_in_the_types_of_its_task(model: Model, tmp_path: Path) -> None:
    config = write_release(tmp_path, model, image_size=96)
    predictor = models.load(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    (result,) = predictor([DecodedImage(pixels, "f" * 64)], score_threshold=0.0)
    assert predictor.revision == config.weights_sha256[:12]
    assert (result.source.model, result.source.revision) == (model.spec.name, predictor.revision)
    assert (result.source.width, result.source.height) == (70, 50)
    assert result.labels == LABELS
    match result:
        case Detections():
            assert model.spec.task == "detect"
            assert len(result) > 0
            assert (result.xyxy >= 0).all()
            assert (result.xyxy <= np.array([70, 50, 70, 50])).all()
            assert (np.diff(result.scores) <= 0).all()
        case Segmentation():
            assert model.spec.task == "segment"
            assert result.class_map.shape == (50, 70)
            assert result.class_map.max() <= len(LABELS)
            assert ((result.scores >= 1 / 4 - 1e-6) & (result.scores <= 1)).all()
        case Classification():
            assert model.spec.task == "classify"
            assert result.probabilities.sum() == pytest.approx(1.0, abs=1e-5)


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UnknownModelError) as refused:
        models.get_spec("da-yolo")
    available = ", ".join((*PAPERS, *models.baseline_names()))
    assert str(refused.value) == f"Unknown model 'da-yolo'. Available: {available}."


SIXTH = '''
"""A model that was not there before."""
from torch import nn
from models._spec import ModelSpec, Recipe
def build(n_classes, scale):
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, n_classes))
SPEC = ModelSpec(
    name="rt_steel", title="RT-Steel", task="classify", image_size=32, build=build,
    scales=("x",), default_scale="x", recipe=Recipe(1, 1, "SGD", 0.1), feature_layer="0",
)
'''

USE_SIXTH = """
import torch, models
print(",".join(models.names()))
spec = models.get_spec("rt_steel")
print(spec.title, tuple(spec.build(6, spec.default_scale)(torch.zeros(2, 3, 32, 32)).shape))
"""


def test_one_new_file_is_a_new_model_and_an_underscore_hides_a_file(tmp_path: Path) -> None:
    root = Path(models.__file__).parents[1]
    skip = shutil.ignore_patterns("__pycache__")
    for room in ("core", "models"):
        shutil.copytree(root / room, tmp_path / room, ignore=skip)
    (tmp_path / "models" / "rt_steel.py").write_text(SIXTH)
    (tmp_path / "models" / "_rt_parts.py").write_text("SPEC = None\n")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE_SIXTH],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    names, use = done.stdout.splitlines()
    assert names.split(",") == sorted((*PAPERS, "rt_steel"))
    assert use == "RT-Steel (2, 6)"
