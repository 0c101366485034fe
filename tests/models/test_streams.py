"""Batches whose pictures go side by side, and what becomes of the others when one fails."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from models._openvino import OpenVINORuntime, convert
from models._runtime import TorchRuntime, prepare
from models._streams import Streams


@pytest.fixture
def doubling(monkeypatch: pytest.MonkeyPatch) -> OpenVINORuntime:
    """Twice the sum of the three channels, on two threads."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    double = nn.Conv2d(3, 1, 1, bias=False)
    nn.init.constant_(double.weight, 2.0)
    graph = convert(prepare(double), feature_layer="", size=8, any_size=True)
    return OpenVINORuntime(graph, precision="fp32", in_torch=lambda: TorchRuntime(double))


def _numbered(count: int, first: int = 0) -> torch.Tensor:
    """Pictures of 1 × 2 px; all of picture k is k."""
    return torch.arange(first, first + count).float()[:, None, None, None].expand(-1, 3, 1, 2)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_picture_of_a_batch_gets_its_own_answer_in_order(
    doubling: OpenVINORuntime, count: int
) -> None:
    output, features = doubling(_numbered(count))
    assert output[:, 0, 0].tolist() == [[6.0 * k, 6.0 * k] for k in range(count)]  # 2 · k · 3
    assert features.shape == (count, 0)


def test_batches_of_many_callers_do_not_mix(doubling: OpenVINORuntime) -> None:
    def ask(first: int) -> list[float]:
        return doubling(_numbered(5, first))[0][:, 0, 0, 0].tolist()

    with ThreadPoolExecutor(4) as callers:
        found = list(callers.map(ask, range(0, 400, 10)))
    assert found == [[6.0 * (first + k) for k in range(5)] for first in range(0, 400, 10)]


class _Tensor:
    def __init__(self, data: Any) -> None:
        self.data = data


class _Compiled:
    """Stands in for a compiled model that doubles, and fails on -1, in `start_async` or later."""

    def __init__(self, *, at_once: bool) -> None:
        self.at_once = at_once

    def create_infer_request(self) -> _Request:
        return _Request(self.at_once)


class _Request:
    def __init__(self, at_once: bool) -> None:
        self.at_once, self.picture = at_once, np.zeros((1, 1), np.float32)

    def start_async(self, inputs: list[Any], *, share_inputs: bool) -> None:
        self.picture = inputs[0]
        if self.at_once:
            self._refuse()

    def wait(self) -> None:
        if not self.at_once:
            self._refuse()

    @property
    def output_tensors(self) -> list[_Tensor]:
        return [_Tensor(2 * self.picture)]

    def _refuse(self) -> None:
        if (self.picture == -1).any():
            raise RuntimeError("a bad picture")


@pytest.mark.parametrize("at_once", [True, False])
def test_a_batch_that_fails_leaves_every_stream_to_the_next(at_once: bool) -> None:
    streams = Streams(_Compiled(at_once=at_once), 2)
    said: list[Any] = []

    def ask() -> None:
        for batch in ([-1, 1, 2], [1, -1, 2], [1, 2, -1], [-1, -1, -1], [1, 2, 3]):
            try:
                said.append(streams(np.array(batch, np.float32)[:, None])[0].tolist())
            except RuntimeError as exc:
                said.append(str(exc))

    asking = threading.Thread(target=ask, daemon=True)  # it waits for ever where a stream was lost
    asking.start()
    asking.join(timeout=60)
    assert said == [*["a bad picture"] * 4, [[2], [4], [6]]]
