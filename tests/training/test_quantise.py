"""An int8 export: what stays in floating point, where it lies, and that it is served."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image as PillowImage
from torch import nn
from typer.testing import CliRunner

import models
from core.errors import ConfigError
from core.records import Int8Loss
from core.settings import PathSettings
from models import _openvino, _runtime
from models._openvino import convert, export_folder
from models._release import read_release
from models._runtime import prepare
from tests.demo import releases
from tests.training.synthetic import draw_dataset
from training.__main__ import app
from training.datasets import Dataset
from training.quantise import _some, last_steps, measure_parity, quantise, record_loss

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


class _Head(nn.Module):
    """A trained convolution, then what decodes a box side: softmax over 16 bins, expectation."""

    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Conv2d(3, 16, 1)
        self.decode = nn.Conv2d(16, 1, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.decode(self.trained(x).softmax(1))
        return out


def test_all_that_follows_the_last_trained_layers_stays_in_floating_point() -> None:
    graph = convert(prepare(_Head()), feature_layer="", size=8, any_size=False)
    kept = {
        n.get_type_name()
        for n in graph.get_ordered_ops()
        if n.get_friendly_name() in last_steps(graph)
    }
    assert {"Result", "Softmax", "Convolution"} <= kept
    trained = [
        n.get_friendly_name()
        for n in graph.get_ordered_ops()
        if n.get_type_name() == "Convolution" and n.get_output_partial_shape(0)[1] == 16
    ]
    assert len(trained) == 1
    assert trained[0] not in last_steps(graph)


def test_a_quantised_release_is_served_and_its_accuracy_stands_beside_torch_s(
    tmp_path: Path, tiny_neu_cls: Dataset, tiny_data_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_runtime, _openvino):  # untrained weights answer little but bfloat16's rounding
        monkeypatch.setattr(module, "cpu_has_bf16", lambda: False)
    folder = tmp_path / "bundled" / "mobilesteelnet"
    releases.write(folder, "mobilesteelnet")
    config = read_release(folder)
    cache = tmp_path / "data" / "cache"
    made = quantise(folder, tiny_neu_cls, cache, images=2)
    assert made == export_folder(cache, config, "int8")
    assert models.load(folder, runtime="int8", cache=cache).runtime.name == "OpenVINO int8"  # type: ignore[attr-defined]
    paths = PathSettings(bundled=tmp_path / "bundled", data=tmp_path / "data")
    monkeypatch.setattr(PathSettings, "datasets", tiny_data_root)
    [row] = measure_parity(paths, ["mobilesteelnet"]).rows
    assert (row.metric, row.dataset, row.revision) == ("accuracy", "neu-cls", config.revision)
    assert row.n == len(tiny_neu_cls.split("leak-free", "val"))
    assert list(row.values) == ["torch", "OpenVINO fp32", "OpenVINO int8"]
    assert row.values["torch"] == row.values["OpenVINO fp32"]
    assert 0 <= row.values["OpenVINO int8"] <= 1
    assert record_loss(folder, row) == read_release(folder)
    assert read_release(folder).int8 == Int8Loss(
        metric="accuracy",
        fp32=row.values["torch"],
        int8=row.values["OpenVINO int8"],
        image_size=config.image_size,
        n=row.n,
    )
    with pytest.raises(ConfigError, match="000000000000"):
        record_loss(folder, row.model_copy(update={"revision": "000000000000"}))
    with pytest.raises(ConfigError, match="its int8 export is needed"):
        record_loss(folder, row.model_copy(update={"values": {"torch": 1.0}}))


def test_ranges_are_taken_from_pictures_that_are_looked_at_in_tiles_too(
    tmp_path: Path, tiny_neu_cls: Dataset
) -> None:
    """Reviewed pictures may be much larger than those of the public set; a graph takes one tile."""
    releases.write(tmp_path / "r", "mobilesteelnet")
    large = tmp_path / "large.png"
    PillowImage.effect_noise((640, 320), 40).save(large)
    samples = tuple(replace(sample, path=large) for sample in tiny_neu_cls.samples)
    made = quantise(tmp_path / "r", replace(tiny_neu_cls, samples=samples), tmp_path, images=1)
    assert made == export_folder(tmp_path, read_release(tmp_path / "r"), "int8")


def test_who_has_the_app_s_packages_alone_is_told_what_brings_nncf(
    tmp_path: Path, tiny_neu_det: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match=r"`pip install -r requirements-dev\.txt` brings"):
        quantise(tmp_path / "r", tiny_neu_det, tmp_path)


def test_a_data_set_with_other_classes_is_refused(tmp_path: Path, tiny_neu_det: Dataset) -> None:
    releases.describe(tmp_path / "r", "sme_deeplabv3plus", task="segment")
    with pytest.raises(ConfigError, match="they must be the same"):
        quantise(tmp_path / "r", tiny_neu_det, tmp_path)


def test_weights_of_another_model_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    releases.describe(tmp_path / "r", "da_yolo", task="detect")
    asked = ["quantise", "grace", "--data", "neu-det", "--weights", str(tmp_path / "r")]
    done = CliRunner().invoke(app, asked)
    assert (done.exit_code, done.stderr) == (
        1,
        f"{tmp_path / 'r'} holds weights of da_yolo, not of grace.\n",
    )


def test_some_pictures_are_drawn_from_all_and_not_the_first_by_name(tmp_path: Path) -> None:
    samples = draw_dataset(tmp_path, "classify").samples
    drawn = [sample.file for sample in _some(samples, 4)]
    assert len(set(drawn)) == 4
    assert drawn != [sample.file for sample in samples[:4]]
    assert drawn == [sample.file for sample in _some(samples, 4)]
    assert len(_some(samples, 100)) == 24


def test_what_a_part_of_the_split_says_is_not_recorded() -> None:
    options = ["--data", "neu-cls", "--limit", "20", "--record"]
    done = CliRunner().invoke(app, ["quantise", "mobilesteelnet", *options])
    assert done.exit_code == 2
    assert "leave --limit out" in " ".join(done.stderr.replace("│", " ").split())
