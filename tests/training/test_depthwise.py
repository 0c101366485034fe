"""Depthwise convolutions under bfloat16: the same answers and gradients by another kernel."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from training import _depthwise
from training._depthwise import quicken

MakeConv = Callable[[], nn.Conv2d]


@pytest.fixture(autouse=True)
def _bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every CPU computes bfloat16; only some have it in hardware.
    monkeypatch.setattr(_depthwise, "cpu_has_bf16", lambda: True)


def under_autocast(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer: torch.Tensor = conv(x)
    return answer


def test_gradients_worked_by_hand() -> None:
    conv = nn.Conv2d(2, 2, 1, groups=2, bias=True)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
        conv.bias.copy_(torch.tensor([0.5, 0.25]))
    assert quicken(conv) == 1
    x = torch.tensor([[[[1.0, 2.0]], [[3.0, 4.0]]]], requires_grad=True)
    out = under_autocast(conv, x)
    assert out.tolist() == [[[[2.5, 4.5]], [[-2.75, -3.75]]]]
    out.backward(torch.tensor([[[[1.0, 0.5]], [[2.0, -1.0]]]], dtype=torch.bfloat16))
    assert conv.weight.grad is not None
    assert conv.weight.grad.flatten().tolist() == [2.0, 2.0]  # 1·1 + 2·0.5 and 3·2 − 4·1
    assert conv.bias.grad is not None
    assert conv.bias.grad.tolist() == [1.5, 1.0]
    assert x.grad is not None
    assert x.grad.tolist() == [[[[2.0, 1.0]], [[-2.0, 1.0]]]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Conv2d(6, 6, 7, padding=3, groups=6),
        lambda: nn.Conv2d(6, 6, 3, stride=2, padding=1, groups=6, bias=False),
        lambda: nn.Conv2d(6, 6, 3, padding=6, dilation=6, groups=6, bias=False),
        lambda: nn.Conv2d(6, 6, (1, 11), padding=(0, 5), groups=6),
    ],
    ids=["7x7", "stride 2", "dilated", "strip"],
)
def test_answers_and_gradients_are_those_of_the_plain_layer(make: MakeConv) -> None:
    torch.manual_seed(0)
    plain = make()
    quick = copy.deepcopy(plain)
    assert quicken(quick) == 1
    x = torch.randn(3, 6, 17, 15)
    one, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    a, b = under_autocast(plain, one), under_autocast(quick, other)
    torch.testing.assert_close(a, b, rtol=0, atol=0.02)  # the bias is added after rounding
    grad = torch.randn_like(a)
    a.backward(grad)
    b.backward(grad)
    for p, q in zip((*plain.parameters(), one), (*quick.parameters(), other), strict=True):
        assert p.grad is not None
        assert q.grad is not None
        assert q.grad.dtype == torch.float32
        torch.testing.assert_close(p.grad, q.grad, rtol=0.01, atol=0.02 * float(p.grad.abs().max()))


def test_nothing_else_is_changed() -> None:
    network = nn.Sequential(
        nn.Conv2d(4, 4, 3),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 8, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"),
        nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"),
        nn.Conv2d(1, 1, 3),
    )
    assert quicken(network) == 0
    assert all(type(layer) is nn.Conv2d for layer in network)


def test_copies_learn_on_their_own_and_keep_their_names() -> None:
    network = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4))
    names = list(network.state_dict())
    quicken(network)
    twin = copy.deepcopy(network)
    x = torch.randn(1, 4, 8, 8)
    before = network(x)
    under_autocast(twin[0], x).float().sum().backward()
    assert network[0].weight.grad is None
    assert twin[0].weight.grad is not None
    assert list(twin.state_dict()) == names
    assert torch.equal(network(x), before)


def test_in_full_precision_and_without_gradients_it_is_the_plain_layer() -> None:
    plain = nn.Conv2d(4, 4, 3, padding=1, groups=4)
    quick = copy.deepcopy(plain)
    quicken(quick)
    x = torch.randn(2, 4, 9, 9)
    assert torch.equal(plain(x), quick(x))
    with torch.no_grad():
        assert torch.equal(under_autocast(plain, x), under_autocast(quick, x))


def test_a_cpu_without_bfloat16_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_depthwise, "cpu_has_bf16", lambda: False)
    conv = nn.Conv2d(4, 4, 3, groups=4)
    assert quicken(conv) == 0
    assert type(conv) is nn.Conv2d
