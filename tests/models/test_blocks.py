"""The shared blocks against counts and values worked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from models._blocks import PooledChannelGate, SpatialGate, StarBlock


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# StarNet, d = 64, r = 4: DW 49·64+64, BN 128, A and B 2·(4·64²+4·64), G 4·64²+64, BN 128, DW 3200.
# GMS2-YOLO, r = 3 without the biases of DW and G: d = 64 gives 3264 + 24 960 + 12 416 + 3200.
@pytest.mark.parametrize(
    ("dim", "ratio", "conv_bias", "expected"),
    [
        pytest.param(64, 4, True, 56_384, id="StarNet d=64 r=4"),
        pytest.param(32, 3, False, 12_704, id="GMS2 d=32 r=3"),
        pytest.param(64, 3, False, 43_840, id="GMS2 d=64 r=3"),
        pytest.param(128, 3, False, 161_408, id="GMS2 d=128 r=3"),
        pytest.param(32, 4, False, 15_840, id="bias-free d=32 r=4"),
        pytest.param(64, 4, False, 56_256, id="bias-free d=64 r=4"),
        pytest.param(128, 4, False, 210_816, id="bias-free d=128 r=4"),
    ],
)
def test_star_block_has_the_published_number_of_parameters(
    dim: int, ratio: int, conv_bias: bool, expected: int
) -> None:
    assert n_parameters(StarBlock(dim, ratio, conv_bias=conv_bias)) == expected


def test_star_block_with_a_zero_last_convolution_is_the_identity() -> None:
    torch.manual_seed(0)
    block = StarBlock(8)
    nn.init.zeros_(block.dw_out.weight)
    assert block.dw_out.bias is not None
    nn.init.zeros_(block.dw_out.bias)
    x = torch.randn(2, 8, 9, 7)
    torch.testing.assert_close(block(x), x, rtol=0, atol=0)


def test_star_block_multiplies_the_clipped_branch_by_the_linear_one() -> None:
    # One channel, ratio 1, depthwise kernels a centred 1, BN the identity: y = x + relu6(2x)·3x.
    # x = 2: 2 + 4·6 = 26. x = -1: -1 + 0·(-3) = -1. x = 5: 5 + 6·15 = 95, as 2·5 is clipped at 6.
    block = StarBlock(1, 1).eval()
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        for depthwise in (block.dw_in[0], block.dw_out):
            depthwise.weight[0, 0, 3, 3] = 1.0
        block.a.weight.fill_(2.0)
        block.b.weight.fill_(3.0)
        block.project[0].weight.fill_(1.0)
        for norm in (block.dw_in[1], block.project[1]):
            norm.weight.fill_(1.0)
            norm.eps = 1e-12
        y = block(torch.tensor([[[[2.0, -1.0, 5.0]]]]))
    torch.testing.assert_close(y, torch.tensor([[[[26.0, -1.0, 95.0]]]]))


def test_drop_path_keeps_or_skips_whole_images_and_only_while_training() -> None:
    torch.manual_seed(0)
    block = StarBlock(4, drop_path=0.5)
    x = torch.randn(16, 4, 5, 5)
    skipped = (block(x) == x).flatten(1).all(1)
    assert 0 < int(skipped.sum()) < 16
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


def test_channel_gate_has_two_bias_free_layers() -> None:
    assert n_parameters(PooledChannelGate(64, 4)) == 2 * 64 * 16
    assert n_parameters(PooledChannelGate(256, 16)) == 2 * 256 * 16


def test_channel_gate_adds_the_mean_and_the_peak_before_the_sigmoid() -> None:
    # One channel 1, 1, 1, 5: mean 2, peak 5; M(v) = 0.5·relu(0.2 v): 0.2 + 0.5 = 0.7.
    gate = PooledChannelGate(1, 1)
    with torch.no_grad():
        for layer, weight in ((gate.mlp[0], 0.2), (gate.mlp[2], 0.5)):
            assert isinstance(layer, nn.Conv2d)
            layer.weight.fill_(weight)
    x = torch.tensor([[[[1.0, 1.0], [1.0, 5.0]]]])
    torch.testing.assert_close(gate(x), torch.tensor(0.7).sigmoid().reshape(1, 1, 1, 1))


def test_channel_gate_of_few_channels_keeps_one_hidden_channel() -> None:
    assert n_parameters(PooledChannelGate(8, 16)) == 2 * 8


def test_spatial_gate_reads_the_mean_first_and_the_maximum_second() -> None:
    # Channels 1 and 3 at each position: mean 2, maximum 3; at the centre 0.1·2 + 0.01·3 = 0.23.
    gate = SpatialGate()
    assert n_parameters(gate) == 2 * 49
    nn.init.zeros_(gate.conv.weight)
    with torch.no_grad():
        gate.conv.weight[0, :, 3, 3] = torch.tensor([0.1, 0.01])
    x = torch.tensor([1.0, 3.0]).reshape(1, 2, 1, 1).expand(1, 2, 4, 5)
    expected: Tensor = torch.full((1, 1, 4, 5), 0.23).sigmoid()
    torch.testing.assert_close(gate(x), expected)
