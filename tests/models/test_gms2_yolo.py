"""GMS2-YOLO against its reconstruction: the blocks, the head's separation, Wise-IoU, the counts."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.modules.conv import GhostConv
from ultralytics.utils.loss import BboxLoss
from ultralytics.utils.torch_utils import get_flops

from core.errors import ConfigError
from models._blocks import StarBlock
from models._ghg import GHGBlock, MSNet, SepBNDetect, fold_head, fold_star_blocks
from models._ultralytics import DetectionNetwork
from models.gms2_yolo import (
    COCO_LAYERS,
    SPEC,
    WiseIoU,
    build,
    build_variant,
    criterion,
    fold_for_inference,
)

STOCK: dict[str, Any] = {"ghgnet": False, "msnet": False, "sepbn": False, "wiou": None}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def nano() -> DetectionNetwork:
    """The whole network with the loss gains of the trainer; tests that change it take a copy."""
    torch.manual_seed(0)
    network = build(6)
    network.args = get_cfg()
    network.criterion_factory = criterion
    return network


@pytest.fixture
def head() -> SepBNDetect:
    head = SepBNDetect(6, 64, (64, 128, 256))
    head.stride = torch.tensor([8.0, 16.0, 32.0])
    head.bias_init()
    return head


def levels(size: int = 8) -> list[Tensor]:
    return [torch.randn(2, 64 << i, size >> i, size >> i) for i in range(3)]


def batch() -> dict[str, Tensor]:
    """Two images of 64 px with one box of class 2 and one of class 5."""
    return {
        "img": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)),
        "batch_idx": torch.tensor([0.0, 1.0]),
        "cls": torch.tensor([[2.0], [5.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.4, 0.6, 0.6, 0.4]]),
    }


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def settle(network: nn.Module) -> None:
    """Give every normalisation statistics that are not the neutral ones."""
    generator = torch.Generator().manual_seed(2)
    for m in network.modules():
        if isinstance(m, nn.BatchNorm2d) and m.running_mean is not None:
            assert m.running_var is not None
            m.running_mean.uniform_(-0.2, 0.2, generator=generator)
            m.running_var.uniform_(0.5, 2.0, generator=generator)
            nn.init.uniform_(m.weight, 0.5, 1.5, generator=generator)
            nn.init.uniform_(m.bias, -0.3, 0.3, generator=generator)


# ------------------------------------------------------------------------------------------- blocks


@pytest.mark.parametrize(
    ("layer", "count"),
    [(1, 8_640), (3, 32_656), (5, 204_840), (6, 298_024), (7, 298_024), (9, 644_944)],
)
def test_ghg_blocks_have_the_computed_number_of_parameters(
    nano: DetectionNetwork, layer: int, count: int
) -> None:
    assert isinstance(nano.model[layer], GHGBlock)
    assert n_parameters(nano.model[layer]) == count


@pytest.mark.parametrize(
    ("c_in", "c_out", "wide", "narrow"),
    [(384, 128, 195_392, 169_152), (256, 64, 55_712, 48_736), (192, 128, 170_816, 144_576)],
)
def test_ms_net_has_the_computed_number_of_parameters(
    c_in: int, c_out: int, wide: int, narrow: int
) -> None:
    assert n_parameters(MSNet(c_in, c_out)) == wide
    assert n_parameters(MSNet(c_in, c_out, expansion=1)) == narrow


# r = 3 without biases before a normalisation, and r = 4 for comparison
@pytest.mark.parametrize(
    ("dim", "ratio", "count"),
    [(32, 3, 12_704), (64, 3, 43_840), (128, 3, 161_408), (32, 4, 15_840), (128, 4, 210_816)],
)
def test_star_block_form_has_the_computed_number_of_parameters(
    dim: int, ratio: int, count: int
) -> None:
    assert n_parameters(StarBlock(dim, ratio, conv_bias=False)) == count


def test_ghost_stages_are_three_and_four_unless_all_are_asked_for(nano: DetectionNetwork) -> None:
    def stages(network: DetectionNetwork) -> list[int]:
        return [
            i
            for i, layer in enumerate(network.model)
            if isinstance(layer, GHGBlock) and isinstance(layer.chain[0], GhostConv)
        ]

    assert stages(nano) == [5, 6, 7, 9]
    assert stages(build_variant(6, "n", ghost_stages="all")) == [1, 3, 5, 6, 7, 9]
    assert [layer.shortcut for layer in nano.model if isinstance(layer, GHGBlock)] == [
        False,
        False,
        False,
        True,
        True,
        False,
    ]


def test_first_half_of_a_ghost_convolution_is_its_plain_branch() -> None:
    block = GHGBlock(8, 6, 8, kernel=5, depth=1, ghost=True).eval()
    x = torch.randn(1, 8, 6, 6)
    ghost = block.chain[0]
    assert isinstance(ghost, GhostConv)
    assert torch.equal(ghost(x)[:, :3], ghost.cv1(x))


def test_shortcut_of_a_ghg_block_adds_its_input() -> None:
    plain = GHGBlock(8, 6, 8, kernel=3, depth=2, ghost=False).eval()
    added = GHGBlock(8, 6, 8, kernel=3, depth=2, ghost=False, shortcut=True).eval()
    added.load_state_dict(plain.state_dict())
    x = torch.randn(1, 8, 6, 6)
    torch.testing.assert_close(added(x), plain(x) + x)


def test_star_block_whose_last_convolution_is_zero_repeats_its_input_in_ms_net() -> None:
    block = MSNet(16, 8).eval()
    nn.init.zeros_(block.stars[0].dw_out.weight)
    nn.init.zeros_(block.stars[0].dw_out.bias)
    seen: list[Tensor] = []
    block.leave.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    block(torch.randn(1, 16, 5, 5))
    _, _, _, o3, o4 = seen[0].chunk(5, 1)
    assert torch.equal(o3, o4)


def test_ms_net_treats_height_and_width_alike() -> None:
    block = MSNet(16, 8).eval()
    settle(block)
    flipped = copy.deepcopy(block)
    for m in flipped.modules():
        if isinstance(m, nn.Conv2d):
            m.weight.data = m.weight.data.transpose(2, 3).contiguous()
    x = torch.randn(1, 16, 5, 7)
    torch.testing.assert_close(flipped(x.transpose(2, 3)), block(x).transpose(2, 3))


# --------------------------------------------------------------------------------------------- head


def test_head_has_108249_parameters(head: SepBNDetect) -> None:
    # stems 28 672 + 384, shared 2 · 36 928, norms 768, box 4 160, cls 390, scales 3, DFL 16
    assert n_parameters(head) == 108_249


def test_head_starts_at_rare_objects_and_short_sides(head: SepBNDetect) -> None:
    # ln(5 / 6 / 40²) = -7.560081
    assert head.cls.bias is not None
    assert head.box.bias is not None
    assert head.cls.bias.tolist() == pytest.approx([-7.560081] * 6, abs=1e-5)
    assert head.box.bias.tolist() == [1.0] * 64


def running_statistics(head: SepBNDetect, level: int) -> list[Tensor]:
    return [b.clone() for b in head.norms[level].buffers()]


def test_levels_do_not_share_their_normalisations(head: SepBNDetect) -> None:
    other = copy.deepcopy(head)
    x = levels()
    head.train()(x)
    other.train()([x[0] * 5 + 3, *x[1:]])
    for level, same in ((0, False), (1, True), (2, True)):
        pairs = zip(running_statistics(head, level), running_statistics(other, level), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs) is same


def test_each_normalisation_of_the_head_is_used_and_learns(head: SepBNDetect) -> None:
    out = head.train()(levels())
    (out["boxes"].square().sum() + out["scores"].square().sum()).backward()
    norms = [norm for level in head.norms for norm in level]
    assert len(norms) == 6
    assert all(norm.weight.grad.abs().sum() > 0 for norm in norms)
    assert all(norm.num_batches_tracked == 1 for norm in norms)  # in series they would count more


def test_scale_of_a_level_multiplies_its_box_logits_alone(head: SepBNDetect) -> None:
    head.eval()
    x = levels()
    with torch.no_grad():
        before = head.forward_head(x)
        head.logit_scale[1] = 2.0
        after = head.forward_head(x)
    factor = torch.cat([torch.full((n,), f) for n, f in ((64, 1.0), (16, 2.0), (4, 1.0))])
    torch.testing.assert_close(after["boxes"], before["boxes"] * factor)
    assert torch.equal(after["scores"], before["scores"])


def test_scale_is_named_so_that_the_optimizer_spares_it_decay(head: SepBNDetect) -> None:
    assert "logit_scale" in dict(head.named_parameters())


def test_folded_head_gives_the_outputs_of_the_trained_one(head: SepBNDetect) -> None:
    settle(head)
    head.eval()
    folded = fold_head(head)
    x = levels()
    with torch.no_grad():
        torch.testing.assert_close(folded(x)[0], head(x)[0], rtol=1e-4, atol=1e-3)
    # two convolutions for each of three levels instead of two, and six normalisations less
    assert n_parameters(folded) == 108_249 + 2 * 73_856 - 768
    assert n_parameters(head) == 108_249


def test_folding_the_network_keeps_its_outputs(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).eval()
    settle(network)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = network(x)[0]
        fold_for_inference(network)
        fold_for_inference(network)  # a second time changes nothing
        torch.testing.assert_close(network(x)[0], expected, rtol=1e-3, atol=1e-2)


# ----------------------------------------------------------------------------------------- Wise-IoU

PAIRS = {
    "overlap": ((0, 0, 4, 4), (2, 1, 6, 4)),
    "shifted bar": ((0, 0, 10, 2), (1, 0, 11, 2)),
    "apart": ((0, 0, 2, 2), (3, 3, 5, 5)),
    "identical": ((1, 2, 5, 9), (1, 2, 5, 9)),
}
# (version, a, δ, m) -> loss of each pair, worked by hand
TABLE = {
    (1, 1.7, 2.7, 1.0): (0.789210, 0.183279, 1.433329, 0),
    (3, 1.9, 3.0, 1.0): (0.822810, 0.067796, 1.724773, 0),
    (3, 1.7, 2.7, 1.0): (0.605535, 0.046957, 1.308415, 0),
    (3, 1.9, 3.0, 0.5): (1.031810, 0.120657, 1.815551, 0),
    (3, 1.7, 2.7, 0.5): (0.823322, 0.085276, 1.539311, 0),
    # √(.727273 / .25) · .789210, √(.181818 / .25) · .183279, √(1 / .25) · 1.433329
    (2, 1.7, 2.7, 0.25): (1.346081, 0.156301, 2.866658, 0),
}


def pairs() -> tuple[Tensor, Tensor]:
    return (
        torch.tensor([p for p, _ in PAIRS.values()], dtype=torch.float32),
        torch.tensor([t for _, t in PAIRS.values()], dtype=torch.float32),
    )


def wise_iou(version: Any, a: float, delta: float, mean: float) -> WiseIoU:
    loss = WiseIoU(version=version, a=a, delta=delta)
    loss.mean.fill_(mean)
    return loss


@pytest.mark.parametrize("setting", TABLE, ids=str)
@pytest.mark.parametrize("unit", [1, 8])
def test_wise_iou_gives_the_table_in_any_unit(setting: tuple[Any, ...], unit: int) -> None:
    pred, target = pairs()
    loss = wise_iou(*setting)(pred * unit, target * unit)
    assert loss.tolist() == pytest.approx(TABLE[setting], abs=3e-6)


def test_mean_does_not_matter_to_version_1() -> None:
    assert torch.equal(wise_iou(1, 1.7, 2.7, 0.3)(*pairs()), wise_iou(1, 1.7, 2.7, 1.0)(*pairs()))


@pytest.mark.parametrize(
    ("a", "delta", "where", "peak"), [(1.7, 2.7, 1.8846, 1.0759), (1.9, 3.0, 1.5580, 1.3104)]
)
def test_focus_peaks_at_medium_quality(a: float, delta: float, where: float, peak: float) -> None:
    # dr/dβ = 0 at β = 1 / ln a
    beta = torch.arange(0, 20, 1e-3)
    r = WiseIoU(a=a, delta=delta).focus(beta)
    assert beta[r.argmax()].item() == pytest.approx(where, abs=2e-3)
    assert r.max().item() == pytest.approx(peak, abs=1e-4)
    assert r[0] == 0
    assert r[-1] < 2e-3
    assert WiseIoU(a=a, delta=delta).focus(torch.tensor(delta)).item() == pytest.approx(1.0)


def test_gradient_stops_in_the_denominator_of_the_distance_and_in_the_focus() -> None:
    # Apart, IoU = 0 and only R's numerator moves the box: L = r·exp(d² / 50), d² = 18, and the
    # centre's x is off by 3, so dL/dx1 = r · 1.433329 · (2 · 3 / 50) · ½ · (-1); r = .912850.
    pred, target = pairs()
    pred = pred[2:3].requires_grad_()
    wise_iou(3, 1.7, 2.7, 1.0)(pred, target[2:3]).sum().backward()
    assert pred.grad is not None
    assert pred.grad[0].tolist() == pytest.approx([-0.0785049] * 4, abs=1e-5)


def test_mean_moves_once_per_training_batch_and_not_in_evaluation() -> None:
    # losses 1 - IoU of the table: (.727273 + .181818 + 1 + 0) / 4 = .477273
    loss = WiseIoU(momentum=0.5)
    pred, target = pairs()
    loss(pred, target)
    assert loss.mean.item() == 1.0
    loss(pred.clone().requires_grad_(), target)
    assert loss.mean.item() == pytest.approx(0.738636, abs=1e-5)  # ½ + ½ · .477273


def test_batch_without_positives_leaves_the_mean_and_is_no_loss() -> None:
    loss = WiseIoU(momentum=0.5)
    assert loss(torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4)).shape == (0,)
    assert loss.mean.item() == 1.0


def test_mean_is_saved_with_the_network_and_moved_by_its_criterion(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).train()
    network.loss(batch())[0].sum().backward()
    assert network.state_dict()["wiou.mean"].item() < 1.0
    network.wiou.mean.fill_(1.0)
    with torch.no_grad():
        network.loss(batch())
    assert network.wiou.mean.item() == 1.0


def test_network_without_wise_iou_keeps_the_stock_loss() -> None:
    network = build_variant(6, "n", wiou=None)
    network.args = get_cfg()
    assert type(criterion(network).bbox_loss) is BboxLoss


# ------------------------------------------------------------------------------------------ network


@pytest.mark.parametrize(
    ("options", "count", "gflops"),
    [
        pytest.param(STOCK, 2_591_010, 6.50, id="YOLO11n"),
        pytest.param(STOCK | {"ghgnet": True}, 3_149_802, 7.94, id="GHGNet"),
        pytest.param(STOCK | {"ghgnet": True, "c2psa": False}, 2_900_074, 7.68, id="no C2PSA"),
        pytest.param(STOCK | {"msnet": True, "expansion": 1}, 2_903_970, 7.24, id="MSNet p=1"),
        pytest.param(STOCK | {"msnet": True}, 3_065_058, 7.58, id="MSNet p=2"),
        pytest.param(STOCK | {"sepbn": True}, 2_267_417, 6.19, id="head 64"),
        pytest.param(STOCK | {"sepbn": True, "hidden": 128}, 2_523_033, 10.09, id="head 128"),
        pytest.param(STOCK | {"sepbn": True, "hidden": 256}, 3_476_633, 25.31, id="head 256"),
        pytest.param({}, 3_300_257, 8.71, id="full"),
        pytest.param({"expansion": 1}, 3_139_169, 8.36, id="full p=1"),
        pytest.param({"c2psa": False}, 3_050_529, 8.44, id="full no C2PSA"),
        pytest.param({"c2psa": False, "expansion": 1}, 2_889_441, 8.10, id="full no C2PSA p=1"),
        pytest.param({"max_channels": 2048}, 3_698_593, 9.03, id="full stage 4 of 512"),
        pytest.param({"ghost_stages": "all"}, 3_289_661, 8.46, id="full all ghost"),
        pytest.param({"scale": "s"}, 13_027_817, 33.15, id="full s"),
    ],
)
def test_every_variant_has_the_computed_size_and_cost(
    options: dict[str, Any], count: int, gflops: float
) -> None:
    network = build_variant(6, **{"scale": "n", **options})
    assert n_parameters(network) == count
    assert get_flops(network, 640) == pytest.approx(gflops, rel=0.005)


def test_fused_network_has_3290397_parameters(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).eval()
    network.fuse(verbose=False)
    fold_star_blocks(network)
    assert n_parameters(network) == 3_290_397


def test_scale_m_builds_by_the_same_rule() -> None:
    network = build(6, "m")
    assert network.model[-1].box.in_channels == 256
    assert network.stride.tolist() == [8, 16, 32]


def test_unknown_scale_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match="n, s, m"):
        build(6, "x")


def test_network_reads_p3_to_p5_at_strides_8_16_and_32(nano: DetectionNetwork) -> None:
    assert nano.stride.tolist() == [8, 16, 32]
    assert nano.model[-1].f == [17, 20, 23]
    assert [nano.model[i].f for i in (13, 16, 19, 22)] == [[-1, 7], [-1, 3], [-1, 14], [-1, 11]]


def test_coco_layers_name_equal_layers_of_the_stock_network(nano: DetectionNetwork) -> None:
    stock = build_variant(6, "n", **STOCK)
    for ours, theirs in COCO_LAYERS.items():
        own = {n: p.shape for n, p in nano.model[ours].named_parameters()}
        assert own
        assert own == {n: p.shape for n, p in stock.model[theirs].named_parameters()}


def test_every_parameter_learns(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).train()
    network.loss(batch())[0].sum().backward()
    unreached = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert not unreached


def test_loss_falls_on_a_batch_seen_again(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).train()
    # Two images are one sample for the normalisations of P5: plain SGD wanders for long.
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(8):
        loss = network.loss(batch())[0].sum()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert all(math.isfinite(value) for value in losses)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("size", [(32, 32), (64, 96), (160, 32)])
def test_any_multiple_of_32_is_looked_at(nano: DetectionNetwork, size: tuple[int, int]) -> None:
    network = copy.deepcopy(nano).eval()
    with torch.inference_mode():
        decoded, _ = network(torch.rand(1, 3, *size).to(memory_format=torch.channels_last))
    cells = size[0] * size[1] // 64  # of stride 8; a quarter and a sixteenth of them follow
    assert decoded.shape == (1, 10, cells * 21 // 16)


def test_reduced_precision_keeps_its_type(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            raw = network(x)[1]
        assert raw["scores"].dtype == raw["boxes"].dtype == torch.bfloat16
        raw = network.half()(x.half())[1]
        assert raw["scores"].dtype == raw["boxes"].dtype == torch.float16


def test_state_dict_makes_the_round_trip(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).eval()
    settle(network)
    torch.manual_seed(9)
    fresh = build(6).eval()
    fresh.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(fresh(x)[0], network(x)[0])


def test_spec_names_the_papers_parts() -> None:
    assert SPEC.criterion is criterion
    assert SPEC.default_scale == "n"
    assert {m.name: m.value for m in SPEC.reported}["AP50 crazing"] == 0.683
