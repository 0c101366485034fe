"""What a torch network is made into before it answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from models import _runtime
from models._runtime import TorchRuntime
from models._ultralytics import InFp32, build_detector, finish, yolo11_config

ANCHORS = 80 * 80 + 40 * 40 + 20 * 20  # of 640 px at strides 8, 16 and 32
LAST = 80 * 80 - 1  # of stride 8, at (79.5, 79.5) cells


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return finish(build_detector(yolo11_config("n"), 6)).eval()


def distances(dtype: torch.dtype) -> Tensor:
    """Raw box outputs of which each anchor's left side is 0.3 cells away and the others 0.

    Side 0 has the odds 7 to 3 between bins 0 and 1: 0.7 · 0 + 0.3 · 1.
    """
    raw = torch.full((1, 4, 16, ANCHORS), -30.0)
    raw[:, :, 0] = 30.0
    raw[:, 0, 0], raw[:, 0, 1] = math.log(7), math.log(3)
    return raw.flatten(1, 2).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_boxes_of_a_network_of_half_precision_are_decoded_in_fp32(
    network: nn.Module, dtype: torch.dtype
) -> None:
    head = network.model[-1]  # type: ignore[index, union-attr]
    maps = [torch.zeros(1, 1, side, side, dtype=dtype) for side in (80, 40, 20)]
    network.decode_in_fp32()  # type: ignore[operator]
    head.shape = None  # anchors are kept by shape
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype is torch.bfloat16):
        found = head._get_decode_boxes({"boxes": distances(dtype), "feats": maps})
    assert found.dtype == torch.float32
    # x from (79.5 - 0.3) · 8 = 633.6 to 636: centre 634.8, which fp16 has as 635 and bf16 as 636.
    assert found[0, :, LAST].tolist() == pytest.approx([634.8, 636, 2.4, 0], abs=0.02)


def test_a_detector_that_runs_in_bf16_decodes_in_fp32_and_one_in_fp32_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for reduced in (True, False):
        monkeypatch.setattr(_runtime, "cpu_has_bf16", lambda reduced=reduced: reduced)
        made = finish(build_detector(yolo11_config("n"), 6))
        runtime = TorchRuntime(made)
        assert isinstance(made.model[-1].dfl, InFp32) == reduced
        output, _ = runtime(torch.zeros(1, 3, 64, 64))
        assert (output.dtype, output.shape) == (torch.float32, (1, 10, 84))


def test_a_network_in_fp16_answers_where_a_variance_is_beyond_it() -> None:
    # 3 · 256 = 768, less the mean 512, over the root of 65536: 1. In fp16 the variance is inf.
    norm = nn.BatchNorm2d(1, eps=1e-9).eval()
    network = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), norm, nn.Conv2d(1, 1, 1, bias=False))
    with torch.no_grad():
        network[0].weight.fill_(3.0)
        network[2].weight.fill_(2.0)
        norm.running_mean.fill_(512.0)
        norm.running_var.fill_(65536.0)
    _runtime.halve(network)
    assert network[0].weight.dtype == torch.float16
    answer = network(torch.full((1, 1, 2, 2), 256.0, dtype=torch.float16))
    assert answer.dtype == torch.float16
    assert torch.equal(answer, torch.full((1, 1, 2, 2), 2.0, dtype=torch.float16))
