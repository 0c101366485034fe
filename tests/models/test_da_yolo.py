"""DA-YOLO against its specification: blocks, networks, cost."""

from __future__ import annotations

import pytest
import torch
from thop import profile
from torch import nn
from ultralytics.cfg import get_cfg
from ultralytics.utils.loss import v8DetectionLoss

from core.errors import ConfigError
from models._amfem import EUCB, LGAG, MFEM, Add, channel_shuffle
from models._iaj_loss import IAJLoss
from models._ultralytics import DetectionNetwork, build_detector, yolo11_config
from models.da_yolo import (
    COCO_LAYERS,
    SPEC,
    TriDirectionalAttention,
    Variant,
    build,
    build_variant,
    channel_kernel,
    coco_layers,
)
from tests.models._tensors import images

STOCK = Variant(tdam=False, amfem=False)
WITH_TDAM = Variant(amfem=False)
B = Variant(mfem_levels=("P5",))


def n_parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ------------------------------------------------------------------------------------------ blocks


# MFEM, C = 128, e = 2: gates 2·128·8 + 98, in 128·256 + 512, depthwise (1 + 9 + 25)·256 + 3·512,
# out 256·128 + 256. EUCB 256 -> 128: 9·256 + 512 + 256·128 + 128. LGAG, F = 128:
# 2·(64·2·9 + 64 + 128) + 64 + 1 + 2. 3DAM, C = 256: 6 scalars, kernels 3 + 3 + 5, three weights.
@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(MFEM(128), 78_946, id="MFEM 128"),
        pytest.param(MFEM(256), 292_962, id="MFEM 256"),
        pytest.param(MFEM(512), 1_126_498, id="MFEM 512"),
        pytest.param(MFEM(128, expansion=6), 232_034, id="MFEM 128 e=6"),
        pytest.param(MFEM(256, expansion=6), 861_282, id="MFEM 256 e=6"),
        pytest.param(EUCB(256, 128), 35_712, id="EUCB 256-128"),
        pytest.param(EUCB(128, 128), 17_920, id="EUCB 128"),
        pytest.param(EUCB(512, 512), 268_288, id="EUCB 512"),
        pytest.param(LGAG(128), 2_755, id="LGAG 128"),
        pytest.param(LGAG(256), 5_507, id="LGAG 256"),
        pytest.param(LGAG(512), 11_011, id="LGAG 512"),
        pytest.param(TriDirectionalAttention(64), 18, id="3DAM 64"),
        pytest.param(TriDirectionalAttention(128), 18, id="3DAM 128"),
        pytest.param(TriDirectionalAttention(256), 20, id="3DAM 256"),
        pytest.param(TriDirectionalAttention(512, residual="zero"), 21, id="3DAM 512 learnt"),
    ],
)
def test_each_block_has_exactly_its_parameters(block: nn.Module, expected: int) -> None:
    assert n_parameters(block) == expected


def test_the_kernel_along_channels_grows_with_their_logarithm() -> None:
    assert [channel_kernel(c) for c in (64, 128, 256, 512, 1024)] == [3, 3, 5, 5, 5]


def zero_convolutions(block: nn.Module) -> None:
    for module in block.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def test_tdam_with_zero_convolutions_multiplies_by_one_and_a_half() -> None:
    block = TriDirectionalAttention(64)
    zero_convolutions(block)  # every gate is σ(0) = ½
    x = images(2, 64, 5, 7)
    torch.testing.assert_close(block(x), 1.5 * x)


def test_tdam_with_a_zero_residual_starts_as_the_identity() -> None:
    x = images(2, 64, 5, 7)
    assert torch.equal(TriDirectionalAttention(64, residual="zero")(x), x)


def test_transposing_the_image_and_the_two_branches_of_tdam_transposes_its_output() -> None:
    torch.manual_seed(0)
    block, mirrored = TriDirectionalAttention(64), TriDirectionalAttention(64)
    mirrored.height.load_state_dict(block.width.state_dict())
    mirrored.width.load_state_dict(block.height.state_dict())
    mirrored.channel.load_state_dict(block.channel.state_dict())
    x = images(2, 64, 5, 7)
    torch.testing.assert_close(mirrored(x.mT).mT, block(x), rtol=0, atol=1e-6)


def test_tdam_averages_the_three_gated_maps_of_its_equations() -> None:
    torch.manual_seed(0)
    block = TriDirectionalAttention(64)
    x = images(2, 64, 5, 7)
    total = torch.zeros_like(x)
    for gate, axis in ((block.height, 2), (block.width, 3), (block.channel, 1)):
        rows = x.movedim(axis, 1).flatten(2)  # (N, D, rest)
        mean, spread = rows.mean(2), torch.sqrt(rows.var(2) + 1e-6)
        s = 0.5 * (mean + spread) + gate.p.sigmoid() * mean + gate.q.sigmoid() * spread
        weight = gate.conv(s[:, None])[:, 0].sigmoid()
        total += (x.movedim(axis, -1) * weight.view(2, 1, 1, -1)).movedim(-1, axis)
    torch.testing.assert_close(block(x), x + total / 3)


def test_tdam_is_finite_on_a_constant_map_of_one_pixel() -> None:
    block = TriDirectionalAttention(64)
    x = torch.ones(1, 64, 1, 1, requires_grad=True)
    out = block(x)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_channel_shuffle_moves_whole_maps_and_keeps_their_place_in_memory(
    layout: torch.memory_format,
) -> None:
    maps = torch.arange(2 * 6 * 2 * 3.0).reshape(2, 6, 2, 3).to(memory_format=layout)
    shuffled = channel_shuffle(maps, 2)
    assert torch.equal(shuffled, maps[:, [0, 3, 1, 4, 2, 5]])
    assert shuffled.is_contiguous(memory_format=layout)


def test_channel_shuffle_interleaves_its_groups() -> None:
    x = torch.arange(6.0).view(1, 6, 1, 1)  # two groups: 0 1 2 | 3 4 5
    assert channel_shuffle(x, 2).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_mfem_gates_channels_and_then_positions_before_its_residual() -> None:
    block = MFEM(16).eval()
    zero_convolutions(block)  # both gates ½, and nothing added
    x = images(2, 16, 6, 6)
    torch.testing.assert_close(block(x), x / 4)


def test_mfem_sums_its_kernels_on_shuffled_channels() -> None:
    torch.manual_seed(0)
    block = MFEM(16, kernels=(1, 3)).eval()
    x = images(2, 16, 6, 6)
    mscb = block.mscb
    x = x * block.channel_gate(x)
    x = x * block.spatial_gate(x)
    u = mscb.widen(x)
    v = mscb.scales[0](u) + mscb.scales[1](u)
    # 16 groups of 2: channel 2k + j goes to 16·j + k
    order = [2 * k + j for j in range(2) for k in range(16)]
    torch.testing.assert_close(mscb(x), x + mscb.project(v[:, order]))


def test_mfem_may_compress_as_the_text_words_it() -> None:
    block = MFEM(16, expansion=0.5)
    assert block(images(2, 16, 6, 6)).shape == (2, 16, 6, 6)
    assert block.mscb.project[0].in_channels == 8


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
def test_eucb_doubles_the_size_and_keeps_a_constant_map_constant(interpolation: str) -> None:
    block = EUCB(8, 4, interpolation=interpolation).eval()
    upsampled = block.upsample(torch.full((1, 8, 3, 5), 2.5))
    assert torch.equal(upsampled, torch.full((1, 8, 6, 10), 2.5))
    assert block(images(1, 8, 3, 5)).shape == (1, 4, 6, 10)


def test_lgag_with_zero_convolutions_halves_the_skip() -> None:
    block = LGAG(8).eval()
    zero_convolutions(block)
    g, x = images(2, 8, 5, 5), images(2, 8, 5, 5) + 1
    torch.testing.assert_close(block([g, x]), x / 2)


def test_decoder_blocks_start_with_small_weights_and_no_bias() -> None:
    torch.manual_seed(0)
    block = EUCB(128, 128)
    assert block.pointwise.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not block.pointwise.bias.any()


# ----------------------------------------------------------------------------------------- network


def giga_flops(network: nn.Module) -> float:
    """2·MAC at 640 px, counted on shapes alone; the decoding of boxes is left out."""
    network.model[-1]._inference = lambda raw: raw["boxes"]
    image = torch.zeros(1, 3, 640, 640, device="meta")
    macs, _ = profile(network.to("meta"), inputs=(image,), verbose=False)
    return float(2 * macs / 1e9)


@pytest.mark.parametrize(
    ("scale", "n_classes", "variant", "expected", "gflops"),
    [
        pytest.param("n", 10, STOCK, 2_591_790, 6.51, id="stock n"),
        pytest.param("n", 10, WITH_TDAM, 2_591_846, 6.51, id="3DAM n"),
        pytest.param("s", 10, WITH_TDAM, 9_431_722, 21.69, id="3DAM s"),
        pytest.param("m", 10, WITH_TDAM, 20_060_778, 68.34, id="3DAM m"),
        pytest.param("n", 10, Variant(), 3_085_458, 8.35, id="A n"),
        pytest.param("n", 6, Variant(), 3_085_458 - 780, 8.35, id="A n, 6 classes"),
        pytest.param("s", 10, Variant(), 11_295_190, 28.40, id="A s"),
        pytest.param("m", 10, Variant(), 23_998_870, 91.36, id="A m"),
        pytest.param("m", 6, Variant(), 23_998_870 - 3_084, 91.36, id="A m, 6 classes"),
        pytest.param("n", 10, B, 2_927_566, 7.08, id="B n"),
        pytest.param("s", 10, B, 10_709_266, 23.77, id="B s"),
        pytest.param("m", 10, B, 21_745_874, 73.71, id="B m"),
        pytest.param("n", 10, Variant(expansion=6), 3_959_954, 11.32, id="A n e=6"),
        pytest.param("s", 10, Variant(expansion=6), 14_617_046, 39.39, id="A s e=6"),
        pytest.param("m", 10, Variant(expansion=6), 30_554_518, 128.34, id="A m e=6"),
        pytest.param(
            "n", 10, Variant(expansion=6, mfem_levels=("P5",)), 3_495_886, 7.54, id="B n e=6"
        ),
    ],
)
def test_each_variant_has_its_parameters_and_its_cost(
    scale: str, n_classes: int, variant: Variant, expected: int, gflops: float
) -> None:
    network = build_variant(n_classes, scale, variant=variant)
    assert n_parameters(network) == expected
    assert giga_flops(network) == pytest.approx(gflops, rel=0.005)


@pytest.fixture(scope="module")
def network() -> DetectionNetwork:
    torch.manual_seed(0)
    built = build(6, "n")
    built.args = get_cfg()
    return built


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_any_multiple_of_32_px_and_either_memory_layout_is_accepted(
    network: DetectionNetwork, height: int, width: int, layout: torch.memory_format
) -> None:
    network.eval()
    image = torch.rand(1, 3, height, width).contiguous(memory_format=layout)
    with torch.no_grad():
        out = network(image)[0]
    cells = height * width * (1 / 64 + 1 / 256 + 1 / 1024)
    assert out.shape == (1, 4 + 6, cells)
    assert torch.isfinite(out).all()
    assert network.stride.tolist() == [8, 16, 32]


def test_the_forward_pass_runs_in_bfloat16(network: DetectionNetwork) -> None:
    network.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = network(images(2, 3, 64, 64))
    assert torch.isfinite(raw["scores"]).all()


@pytest.mark.parametrize(
    "variant",
    [
        Variant(fuse="add"),
        Variant(mfem_levels=("P4",), tdam_levels=("P3",), kernels=(3, 5), lgag_kernel=5),
        Variant(tdam=False, interpolation="nearest"),
        Variant(residual="zero", expansion=0.5),
    ],
    ids=["add", "some levels", "no 3DAM", "zero residual"],
)
def test_other_variants_build_and_answer(variant: Variant) -> None:
    network = build_variant(3, "n", variant=variant).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 64))[0].shape == (1, 7, 84)
    assert any(isinstance(m, Add) for m in network.modules()) == (variant.fuse == "add")


def test_an_impossible_variant_or_scale_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"Unknown level 'P2'\. Use P3, P4, P5\."):
        Variant(mfem_levels=("P2",))
    with pytest.raises(ConfigError, match=r"Unknown fuse 'sum'\. Use concat or add\."):
        Variant(fuse="sum")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"Unknown scale 'x'\. DA-YOLO has: n, s, m\."):
        build(3, "x")


def test_weights_survive_a_round_trip(network: DetectionNetwork) -> None:
    twin = build(6, "n")
    twin.load_state_dict(network.state_dict())
    image = images(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(twin.eval()(image)[0], network.eval()(image)[0])


@pytest.mark.parametrize(
    ("variant", "misfits"),
    [
        # EUCB halves what stock YOLO11 n brings up to P4: 128 + 128 channels are fused, not 384
        pytest.param(Variant(), {"19.cv1.conv.weight"}, id="A"),
        pytest.param(WITH_TDAM, set(), id="3DAM"),
        pytest.param(Variant(fuse="add"), {"19.cv1.conv.weight", "24.cv1.conv.weight"}, id="add"),
    ],
)
def test_every_coco_array_fits_its_layer_but_where_fewer_channels_are_fused(
    variant: Variant, misfits: set[str]
) -> None:
    stock = build_detector(yolo11_config("n"), 6).state_dict()
    ours = build_variant(6, "n", variant=variant).state_dict()
    pairs = [
        (f"{index}.{name.split('.', 2)[2]}", value)
        for index, row in coco_layers(variant).items()
        for name, value in stock.items()
        if name.startswith(f"model.{row}.")
    ]
    assert len(pairs) == len(stock)
    assert {place for place, v in pairs if ours[f"model.{place}"].shape != v.shape} == misfits


def test_the_published_layer_list_is_variant_a_of_the_specification() -> None:
    assert COCO_LAYERS == {
        **{0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 6: 5, 7: 6, 9: 7, 10: 8, 12: 9, 14: 10},
        **{18: 12, 19: 13, 23: 15, 24: 16, 25: 17, 26: 18, 27: 19, 28: 20, 29: 21, 30: 22, 31: 23},
    }


def test_the_graph_is_wired_as_the_specification_lists_it(network: DetectionNetwork) -> None:
    sources = {i: network.model[i].f for i in (13, 15, 16, 17, 18, 20, 21, 22, 23, 26, 29, 31)}
    before = {13: 12, 15: 14, 20: 19}  # what "-1" is there
    assert sources == {
        **before,
        **{16: 8, 17: [15, 16], 18: [15, 17], 21: 5, 22: [20, 21], 23: [20, 22]},
        **{26: [-1, 19], 29: [-1, 14], 31: [24, 27, 30]},
    }


def test_backward_reaches_every_parameter(network: DetectionNetwork) -> None:
    network.train().zero_grad()
    raw = network(images(2, 3, 64, 64))
    (raw["boxes"].square().mean() + raw["scores"].square().mean()).backward()
    idle = [
        name
        for name, p in network.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    # A constant in front of a batch normalisation moves nothing; its gradient is rounding alone.
    assert set(idle) <= {"model.17.psi.0.bias", "model.22.psi.0.bias"}


def test_the_decoder_s_convolutions_begin_by_adding_a_hundredth() -> None:
    """With BN weight 0.01, MSCB adds a map of standard deviation 0.01 to the one it is given."""
    torch.manual_seed(0)
    mscb = MFEM(16).mscb.train()
    x = torch.randn(4, 16, 8, 8)
    added = mscb(x) - x
    assert added.std().item() == pytest.approx(0.01, rel=0.02)


def test_the_published_network_is_trained_by_the_iaj_loss_and_carries_the_stock_one(
    network: DetectionNetwork,
) -> None:
    assert isinstance(SPEC.criterion(network), IAJLoss)
    assert SPEC.criterion.keywords == {"tau": 5.0}
    assert type(network.init_criterion()) is v8DetectionLoss  # the trainer puts the paper's there
