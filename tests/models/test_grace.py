"""GRACE against its description: Lite-FEN, the equations of DS-CBSM++, the sampler, the counts."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.utils.loss import v8DetectionLoss
from ultralytics.utils.torch_utils import get_flops

from core.errors import ConfigError, DatasetError, TrainingError
from models._dscbsm import (
    ConfidenceGradientSampler,
    StatisticsRecorder,
    base_weights,
    blend_factor,
    class_weights,
    dynamic_weights,
    hardness,
)
from models._ultralytics import DetectionNetwork
from models.grace import COCO_LAYERS, SPEC, LiteFEN, build, build_variant, linear_ramp, on_epoch

# The worked example: three boxes of class 0 for one of class 1.
FREQUENCIES, GRADIENT, CONFIDENCE = (
    np.array([0.75, 0.25]),
    np.array([1.0, 3.0]),
    np.array([0.8, 0.4]),
)
SINGLE_CLASS_IMAGES = [[0], [0], [0], [1]]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def nano() -> DetectionNetwork:
    """Scale n with the loss gains of the trainer; tests that change weights take a copy."""
    torch.manual_seed(0)
    network = build(6, "n")
    network.args = get_cfg()
    return network


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


# ----------------------------------------------------------------------------------------- Lite-FEN


# 2C²/r + C + C/r + (9C + C) + (C + 1) with r = 4
@pytest.mark.parametrize(("channels", "count"), [(128, 9761), (256, 35905), (512, 137345)])
def test_lite_fen_has_the_parameters_of_its_four_biased_convolutions(
    channels: int, count: int
) -> None:
    assert n_parameters(LiteFEN(channels)) == count


def test_lite_fen_without_biases_would_have_9472_parameters() -> None:
    # 2·128²/4 + 9·128 + 128
    assert sum(p.numel() for p in LiteFEN(128).parameters() if p.ndim > 1) == 9472


@pytest.mark.parametrize(
    ("epoch", "strength"),
    [
        pytest.param(0, 0.05, id="0.2/30 is below s_min"),
        pytest.param(7, 0.2 * 8 / 30, id="first epoch above s_min"),
        pytest.param(14, 0.10, id="half way"),
        pytest.param(29, 0.20, id="end of the ramp"),
        pytest.param(199, 0.20, id="stays"),
    ],
)
def test_strength_ramps_up_and_is_clipped(epoch: int, strength: float) -> None:
    block = LiteFEN(8)
    block.set_epoch(epoch)
    assert block.strength.item() == pytest.approx(strength, abs=1e-7)


def overshoot(epoch: int) -> float:
    return linear_ramp(epoch, base=0.4)


def test_another_law_of_the_ramp_meets_the_upper_clip() -> None:
    block = LiteFEN(8, law=overshoot)
    block.set_epoch(29)
    assert block.strength.item() == pytest.approx(0.30)


def test_all_zero_lite_fen_scales_by_one_plus_half_its_strength() -> None:
    # CA = SA = σ(0) = ½, so att = ½ and y = (1 + 0.2 / 2) x
    block = LiteFEN(8)
    for p in block.parameters():
        nn.init.zeros_(p)
    block.set_epoch(29)
    x = torch.randn(2, 8, 5, 7)
    torch.testing.assert_close(block(x), 1.1 * x)


def test_lite_fen_adds_the_mean_of_its_two_gates() -> None:
    # Channel gate σ(2) = .880797 and spatial gate σ(-1) = .268941 everywhere, by their biases:
    # y = 1 + .2 · ½ (.880797 + .268941) = 1.1149738
    block = LiteFEN(8)
    for p in block.parameters():
        nn.init.zeros_(p)
    nn.init.constant_(block.channel[3].bias, 2.0)
    nn.init.constant_(block.spatial[1].bias, -1.0)
    block.set_epoch(29)
    torch.testing.assert_close(
        block(torch.ones(1, 8, 3, 3)), torch.full((1, 8, 3, 3), 1.1149738), rtol=0, atol=1e-6
    )


def test_lite_fen_keeps_signs_and_stays_within_its_bound() -> None:
    block = LiteFEN(16)
    block.set_epoch(29)
    x = torch.randn(2, 16, 9, 6)
    y = block(x)
    assert (y.sign() == x.sign()).all()
    assert (y.abs() >= x.abs()).all()
    assert (y.abs() <= 1.2 * x.abs() + 1e-6).all()


def test_lite_fen_of_strength_zero_is_the_identity() -> None:
    block = LiteFEN(8)
    block.strength.zero_()
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(block(x), x)


def test_lite_fen_treats_height_and_width_alike() -> None:
    block = LiteFEN(8)
    flipped = copy.deepcopy(block)
    flipped.spatial[0].weight.data = block.spatial[0].weight.data.transpose(2, 3).contiguous()
    x = torch.randn(1, 8, 4, 6)
    torch.testing.assert_close(flipped(x.transpose(2, 3)), block(x).transpose(2, 3))


def test_strength_is_saved_and_not_trained() -> None:
    block = LiteFEN(8)
    block.set_epoch(29)
    fresh = LiteFEN(8)
    fresh.load_state_dict(block.state_dict())
    assert fresh.strength.item() == pytest.approx(0.2)
    assert "strength" not in dict(block.named_parameters())


def test_a_new_epoch_reaches_the_lite_fen_of_the_network(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano)
    on_epoch(network, 14)
    assert network.model[23].strength.item() == pytest.approx(0.10)


# ---------------------------------------------------------------------------------------- equations


def test_equations_6_to_8_give_the_worked_example() -> None:
    base = base_weights(FREQUENCIES)
    delta = hardness(GRADIENT, CONFIDENCE)
    np.testing.assert_allclose(base, [0.5, 1.5], atol=1e-5)
    # .22 ln 2 + .14 · .2 and .22 ln 4 + .14 · .6
    np.testing.assert_allclose(delta, [0.180492, 0.388985], atol=1e-6)
    # .5 e^.180492 = .598903, 1.5 e^.388985 = 2.213223; over their mean .425943, 1.574057; clipped
    np.testing.assert_allclose(dynamic_weights(base, delta), [0.85, 1.35])


def test_dynamic_weights_inside_the_band_are_only_normalised() -> None:
    # e^.1 = 1.105171, mean 1.0525855: .950042 and 1.049958
    w = dynamic_weights(np.array([1.0, 1.0]), np.array([0.0, 0.1]))
    np.testing.assert_allclose(w, [0.950042, 1.049958], atol=1e-6)


@pytest.mark.parametrize(
    ("epoch", "gamma", "weights"),
    [
        pytest.param(0, 0.0, (0.5, 1.5), id="base at the start"),
        pytest.param(15, 0.30, (0.605, 1.455), id=".7 base + .3 dynamic"),
        pytest.param(30, 0.60, (0.71, 1.41), id=".4 base + .6 dynamic"),
        pytest.param(150, 0.60, (0.71, 1.41), id="constant after the ramp"),
    ],
)
def test_class_weights_move_from_base_to_dynamic(
    epoch: int, gamma: float, weights: tuple[float, float]
) -> None:
    assert blend_factor(epoch) == pytest.approx(gamma)
    w = class_weights(base_weights(FREQUENCIES), GRADIENT, CONFIDENCE, epoch)
    np.testing.assert_allclose(w, weights, atol=1e-5)


def test_equal_frequencies_give_base_weights_of_one() -> None:
    np.testing.assert_allclose(base_weights(np.full(6, 1 / 6)), np.ones(6))


# ----------------------------------------------------------------------------------------- recorder

# Anchor 0 is foreground of class 0: z = 0, t = .5, so BCE = ln 2, σ = .5, |σ - t| = 0.
# Anchor 1 is foreground of class 1: z = -ln 999, t = 1, so BCE = ln 1000, σ = .001, |σ - t| = .999.
# Anchor 2 is background.
LOGITS = torch.tensor([[[0.0, 4.0], [4.0, -np.log(999.0)], [3.0, 3.0]]])
TARGETS = torch.tensor([[[0.5, 0.0], [0.0, 1.0], [0.0, 0.0]]])


@pytest.mark.parametrize(
    ("kind", "gradients"), [("loss", (0.693147, 6.907755)), ("grad", (0.0, 0.999))]
)
def test_recorder_sums_foreground_anchors_by_class(
    kind: Any, gradients: tuple[float, float]
) -> None:
    recorder = StatisticsRecorder(nn.BCEWithLogitsLoss(reduction="none"), 2, gradient=kind)
    recorder(LOGITS.clone().requires_grad_(), TARGETS)
    anchors, gradient, sure, confidence = recorder.take()
    assert anchors.tolist() == [1, 1]
    assert gradient.tolist() == pytest.approx(gradients, abs=1e-5)
    assert sure.tolist() == [1, 0]  # .001 is below the threshold of .01
    assert confidence.tolist() == pytest.approx([0.5, 0])
    assert not recorder.take().any()  # taken once


def test_recorder_returns_the_loss_it_stands_in_for() -> None:
    bce = nn.BCEWithLogitsLoss(reduction="none")
    z = LOGITS.clone().requires_grad_()
    assert torch.equal(StatisticsRecorder(bce, 2)(z, TARGETS), bce(z, TARGETS))


def test_recorder_ignores_validation() -> None:
    recorder = StatisticsRecorder(nn.BCEWithLogitsLoss(reduction="none"), 2)
    recorder(LOGITS, TARGETS)
    assert not recorder.take().any()


def test_sampler_hears_the_real_loss_and_leaves_it_alone(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).train()
    criterion = v8DetectionLoss(network)
    predictions = network(batch()["img"])
    before, _ = criterion(predictions, batch())
    sampler = ConfidenceGradientSampler([[2], [5]], 6, 0)
    sampler.attach(criterion)
    sampler.attach(criterion)  # harmless twice
    after, _ = criterion(predictions, batch())
    assert torch.equal(before, after)
    anchors = sampler.state_dict()["sums"][0]
    assert (anchors > 0).tolist() == [False, False, True, False, False, True]


# ------------------------------------------------------------------------------------------ sampler


def test_statistics_are_taken_up_every_20_batches() -> None:
    sampler = ConfidenceGradientSampler(SINGLE_CLASS_IMAGES, 2, 0)
    criterion = SimpleNamespace(bce=nn.BCEWithLogitsLoss(reduction="none"))
    sampler.attach(criterion)
    for _ in range(19):
        criterion.bce(LOGITS.clone().requires_grad_(), TARGETS)
        sampler.on_batch_end()
    assert sampler.state_dict()["gradient"].tolist() == [0, 0]
    criterion.bce(LOGITS.clone().requires_grad_(), TARGETS)
    sampler.on_batch_end()
    state = sampler.state_dict()
    # .1 · ln 2 and .1 · ln 1000; class 1 had no sure anchor, so its confidence stays 1
    assert state["gradient"].tolist() == pytest.approx([0.0693147, 0.6907755], abs=1e-6)
    assert state["confidence"].tolist() == pytest.approx([0.95, 1.0])


def test_averages_of_a_constant_follow_the_geometric_series() -> None:
    sampler = ConfidenceGradientSampler(SINGLE_CLASS_IMAGES, 2, 0)
    for _ in range(5):
        sampler.update(np.array([[4.0, 0.0], [2.0, 0.0], [0.0, 0.0], [0.0, 0.0]]))
    # mean .5 over 4 anchors: .5 (1 - .9^5) = .204755; the silent class stays at 0
    assert sampler.state_dict()["gradient"].tolist() == pytest.approx([0.204755, 0.0])


def hardened(labels: list[list[int]], epoch: int, seed: int = 0) -> ConfidenceGradientSampler:
    """A sampler after `epoch`, whose averages are those of the worked example."""
    sampler = ConfidenceGradientSampler(labels, 2, seed)
    sampler.load_state_dict(
        sampler.state_dict()
        | {"gradient": torch.from_numpy(GRADIENT), "confidence": torch.from_numpy(CONFIDENCE)}
    )
    sampler.on_epoch_end(epoch)
    return sampler


def test_weights_of_the_next_epoch_come_at_the_end_of_this_one() -> None:
    np.testing.assert_allclose(
        hardened(SINGLE_CLASS_IMAGES, 14).weights, [0.605, 0.605, 0.605, 1.455], atol=1e-5
    )


@pytest.mark.parametrize(
    ("reduction", "weight"),
    [
        pytest.param("mean", 1.0, id="(.5 + 1.5) / 2"),
        pytest.param("max", 1.5, id="max"),
        pytest.param("sum", 2.0, id="sum"),
    ],
)
def test_an_image_weighs_what_its_boxes_say_and_an_empty_one_the_least(
    reduction: Any, weight: float
) -> None:
    labels = [[0], [0], [0, 1], []]  # three boxes of class 0, one of class 1
    sampler = ConfidenceGradientSampler(labels, 2, 0, reduction=reduction)
    np.testing.assert_allclose(sampler.weights, [0.5, 0.5, weight, 0.5], atol=1e-5)


def test_a_class_without_boxes_leaves_the_others_as_they_are() -> None:
    three = ConfidenceGradientSampler(SINGLE_CLASS_IMAGES, 3, 0)
    np.testing.assert_allclose(three.class_weights, [0.5, 1.5, 1.0], atol=1e-5)


def chi_square(weights: np.ndarray, sampler: ConfidenceGradientSampler) -> float:
    drawn = np.concatenate([list(sampler) for _ in range(100)])
    observed = np.bincount(drawn, minlength=len(sampler))
    expected = weights / weights.sum() * len(drawn)
    return float(((observed - expected) ** 2 / expected).sum())


def test_drawn_images_follow_the_weights() -> None:
    # χ² with 3 degrees of freedom has mean 3 and variance 6, so the mean over 60 seeds has a
    # standard error of √(6 / 60) = .32; single seeds would pass or fail by their luck.
    samplers = [hardened(SINGLE_CLASS_IMAGES, 14, seed) for seed in range(60)]
    assert 2.0 < np.mean([chi_square(s.weights, s) for s in samplers]) < 4.2
    assert np.mean([chi_square(np.ones(4), s) for s in samplers]) > 20  # not uniform


def test_every_epoch_draws_as_many_images_as_there_are_and_others() -> None:
    sampler = ConfidenceGradientSampler([[0], [1]] * 50, 2, 0)
    epochs = []
    for epoch in range(3):
        epochs.append(list(sampler))
        sampler.on_epoch_end(epoch)
    assert [len(e) for e in epochs] == [100, 100, 100] == [len(sampler)] * 3
    assert all(a != b for a, b in pairwise(epochs))


def test_the_same_seed_draws_the_same_images_and_another_seed_others() -> None:
    labels = [[0], [1]] * 50
    first, again, other = (list(ConfidenceGradientSampler(labels, 2, seed)) for seed in (3, 3, 4))
    assert first == again != other


def test_a_resumed_sampler_draws_what_the_uninterrupted_one_does() -> None:
    labels = [[0], [1], [0]] * 20
    sampler = ConfidenceGradientSampler(labels, 2, 7)
    criterion = SimpleNamespace(bce=nn.BCEWithLogitsLoss(reduction="none"))
    resumed = ConfidenceGradientSampler(labels, 2, 7)
    other = SimpleNamespace(bce=nn.BCEWithLogitsLoss(reduction="none"))

    def epoch(number: int, run: ConfidenceGradientSampler, loss: Any) -> list[int]:
        drawn = list(run)
        for step in range(30):  # not a multiple of 20: sums are pending at the end
            loss.bce((LOGITS + 0.1 * step).requires_grad_(), TARGETS)
            run.on_batch_end()
        run.on_epoch_end(number)
        return drawn

    sampler.attach(criterion)
    epoch(0, sampler, criterion)
    resumed.load_state_dict(copy.deepcopy(sampler.state_dict()))
    resumed.attach(other)
    for number in (1, 2):
        assert epoch(number, sampler, criterion) == epoch(number, resumed, other)
    assert torch.equal(sampler.state_dict()["gradient"], resumed.state_dict()["gradient"])


def test_sampler_state_is_tensors_and_primitives(tmp_path: Any) -> None:
    torch.save(ConfidenceGradientSampler([[0]], 1, 0).state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True)["epoch"] == 0


@pytest.mark.parametrize(
    ("attempt", "error", "message"),
    [
        pytest.param(
            lambda: ConfidenceGradientSampler([[], []], 2, 0),
            DatasetError,
            "no training",
            id="empty",
        ),
        pytest.param(
            lambda: ConfidenceGradientSampler([[0, 2]], 2, 0), DatasetError, r"\[0, 2\)", id="class"
        ),
        pytest.param(
            lambda: ConfidenceGradientSampler([[0]], 1, 0).on_batch_end(),
            TrainingError,
            "attach",
            id="not attached",
        ),
        pytest.param(
            lambda: ConfidenceGradientSampler([[0]], 1, 0).load_state_dict(
                ConfidenceGradientSampler([[0]], 3, 0).state_dict()
            ),
            TrainingError,
            "3 classes",
            id="state of another data set",
        ),
        pytest.param(lambda: build(6, "x"), ConfigError, "n, s, m", id="scale"),
        pytest.param(
            lambda: build_variant(6, "n", placement="p3"),  # type: ignore[arg-type]
            ConfigError,
            "neck-p3",
            id="placement",
        ),
    ],
)
def test_wrong_use_is_one_sentence(
    attempt: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        attempt()


# ------------------------------------------------------------------------------------------ network


@pytest.mark.parametrize(("n_classes", "count"), [(6, 9_439_875), (7, 9_440_262), (10, 9_441_423)])
def test_grace_has_the_computed_number_of_parameters(n_classes: int, count: int) -> None:
    assert n_parameters(build(n_classes)) == count


def test_grace_costs_what_was_computed_and_fuses_to_9_424_883_parameters() -> None:
    network = build(6)
    assert get_flops(network, 640) == pytest.approx(21.69, rel=0.005)
    network.eval().fuse(verbose=False)
    assert n_parameters(network) == 9_424_883


@pytest.mark.parametrize(
    ("placement", "extra"),
    [("none", 0), ("neck-p3", 9_761), ("backbone-p3", 35_905), ("neck-all", 183_011)],
)
def test_placements_add_their_lite_fens_to_yolo11s(placement: Any, extra: int) -> None:
    assert n_parameters(build_variant(6, "s", placement=placement)) == 9_430_114 + extra


def test_only_the_head_reads_the_enhanced_map(nano: DetectionNetwork) -> None:
    assert nano.model[23].f == 16
    assert nano.model[24].f == [23, 19, 22]
    assert nano.model[17].f == -1  # the layer before: 16
    assert nano.stride.tolist() == [8, 16, 32]


def test_coco_layers_name_equal_layers_of_the_stock_network(nano: DetectionNetwork) -> None:
    stock = build_variant(6, "n", placement="none")
    shapes = [[tuple(p.shape) for p in layer.parameters()] for layer in stock.model]
    for ours, theirs in COCO_LAYERS.items():
        assert [tuple(p.shape) for p in nano.model[ours].parameters()] == shapes[theirs]


@pytest.mark.parametrize("placement", ["neck-p3", "neck-all", "backbone-p3"])
def test_every_parameter_learns(placement: Any) -> None:
    network = build_variant(6, "n", placement=placement)
    network.args = get_cfg()
    network.train()
    loss, _ = network.loss(batch())
    loss.sum().backward()
    unreached = {n for n, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert not unreached


def test_loss_falls_on_a_batch_seen_again(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=2e-3, momentum=0.9)
    losses = []
    for _ in range(5):
        loss, _ = network.loss(batch())
        losses.append(loss.sum().item())
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    assert losses[-1] < 0.9 * losses[0]


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
            assert network(x)[1]["scores"].dtype == torch.bfloat16
        assert network.half()(x.half())[1]["scores"].dtype == torch.float16


def test_state_dict_makes_the_round_trip(nano: DetectionNetwork) -> None:
    network = copy.deepcopy(nano).eval()
    on_epoch(network, 29)
    torch.manual_seed(9)
    fresh = build(6, "n").eval()
    fresh.load_state_dict(network.state_dict())
    x = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(fresh(x)[0], network(x)[0])


def test_spec_names_the_papers_parts() -> None:
    assert SPEC.sampler is ConfidenceGradientSampler
    assert SPEC.on_epoch is on_epoch
    assert SPEC.recipe.epochs == 200
    assert {m.dataset: m.value for m in SPEC.reported if m.name == "mAP50"} == {
        "neu-det": 0.7588,
        "gc10-det": 0.6114,
        "x-sdd": 0.6514,
    }
