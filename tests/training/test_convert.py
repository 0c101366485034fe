from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner
from ultralytics.nn.tasks import ClassificationModel, DetectionModel

from core.errors import WeightsError
from models._coco import fold_checkpoint, load_coco_npz
from models._ultralytics import build_detector, finish, yolo11_config
from tests.training.hostile_checkpoints import Hostile
from training.__main__ import app


def test_a_detector_started_from_a_converted_checkpoint_computes_what_the_checkpoint_did(
    tmp_path: Path,
) -> None:
    torch.manual_seed(1)
    source = DetectionModel({**yolo11_config("n"), "nc": 6}, verbose=False)
    for module in source.modules():  # a BatchNorm that does something
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    # As ultralytics saves: the averaged network, if any, is what it would answer with.
    torch.save({"model": None, "ema": source.half(), "epoch": -1}, tmp_path / "yolo11n.pt")
    done = CliRunner().invoke(app, ["convert", str(tmp_path / "yolo11n.pt")])
    assert done.output == f"175 arrays: {tmp_path / 'yolo11n.npz'}\n"
    assert done.exit_code == 0

    target = finish(build_detector(yolo11_config("n"), 6))
    images = torch.rand(8, 3, 64, 64)
    taken = load_coco_npz(target, tmp_path / "yolo11n.npz", images).names
    assert len(taken) == 174  # all but the DFL
    with torch.no_grad():
        expected = source.float().eval()(images)[1]["scores"].sigmoid()
        got = target.eval()(images)[1]["scores"].sigmoid()
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-3)


def test_a_checkpoint_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    torch.save({"model": Hostile(tmp_path / "canary")}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match="holds more than the layers"):
        fold_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "No checkpoint at", id="missing"),
        pytest.param(b"", "cannot be read", id="empty"),
        pytest.param(b"PK\x03\x04 cut off", "cannot be read", id="cut off"),
    ],
)
def test_what_is_no_checkpoint_is_one_sentence(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "yolo11n.pt"
    if content is not None:
        path.write_bytes(content)
    done = CliRunner().invoke(app, ["convert", str(path), "--output", str(tmp_path / "x.npz")])
    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1
    assert says in done.stderr
    assert not (tmp_path / "x.npz").exists()


def test_a_classifier_lends_no_detector_anything(tmp_path: Path) -> None:
    network = ClassificationModel("yolo11n-cls.yaml", nc=2, verbose=False)
    torch.save({"model": network}, tmp_path / "classifier.pt")
    with pytest.raises(WeightsError, match="holds no detector"):
        fold_checkpoint(tmp_path / "classifier.pt")


def test_the_arrays_are_those_of_the_saved_network(tmp_path: Path) -> None:
    """A BatchNorm of weight 3, bias 1, mean 0.5 and variance 4 - ε folds to w·3/2 and 1 - 0.75."""
    network = DetectionModel({**yolo11_config("n"), "nc": 2}, verbose=False)
    first = network.model[0]
    first.bn.weight.data.fill_(3)
    first.bn.bias.data.fill_(1)
    first.bn.running_mean.fill_(0.5)
    first.bn.running_var.fill_(4 - first.bn.eps)
    torch.save({"model": network}, tmp_path / "a.pt")
    arrays = fold_checkpoint(tmp_path / "a.pt")
    weight = first.conv.weight.detach().numpy()
    np.testing.assert_allclose(arrays["model.0.conv.weight"], 1.5 * weight, rtol=1e-5)
    np.testing.assert_allclose(arrays["model.0.conv.bias"], np.full(16, 0.25), rtol=1e-5)
