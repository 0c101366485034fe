from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import TrainingError
from models import get_spec
from models._dscbsm import ConfidenceGradientSampler
from models._mask_losses import SegmentationLoss
from models._spec import ModelSpec
from tests.training.synthetic import TinyNetwork, draw_dataset
from tests.training.test_torch_trainer import assert_same_run, train
from training._balanced_losses import (
    BalancedSoftmaxLoss,
    FocalLoss,
    HeardLoss,
    balancing,
    last_bias,
    log_odds,
    shifted,
)
from training.balance import methods_for
from training.batches import Split
from training.datasets import Dataset
from training.plan import make_plan
from training.runs import RunFolder, load_checkpoint

# ------------------------------------------------------------------------------------- equations


def test_focal_loss_discounts_what_is_nearly_right() -> None:
    # logits (0, log 3): p = 1/4, 3/4. Target 1: (1/4)^2 · -log(3/4); target 0: (3/4)^2 · -log(1/4).
    logits = torch.tensor([[0.0, math.log(3)]]).expand(2, 2)
    expected = (0.0625 * 0.287682 + 0.5625 * 1.386294) / 2
    loss = FocalLoss(2.0)(logits, torch.tensor([1, 0]))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_focal_loss_without_gamma_is_cross_entropy() -> None:
    logits, target = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([1])
    assert FocalLoss(0.0)(logits, target) == pytest.approx(float(F.cross_entropy(logits, target)))


def test_focal_loss_has_a_finite_gradient_where_the_answer_is_certain() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    FocalLoss(0.5)(logits, torch.tensor([0])).backward()  # (1 - p)^γ has an infinite slope there
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_balanced_softmax_asks_more_of_rare_classes() -> None:
    # equal logits, priors 3/4 and 1/4: the adjusted softmax says 3/4 and 1/4 itself
    loss = BalancedSoftmaxLoss(torch.tensor([0.75, 0.25]).log())
    logits = torch.zeros(1, 2)
    assert float(loss(logits, torch.tensor([1]))) == pytest.approx(-math.log(0.25))
    assert float(loss(logits, torch.tensor([0]))) == pytest.approx(-math.log(0.75))


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 400.0]])
    p = logits[:1].softmax(1)
    assert log_odds(logits)[0] == pytest.approx((p / (1 - p)).log()[0])  # 1/3: log 0.5
    assert torch.isfinite(log_odds(logits)).all()  # p rounds to 1 in the second row


def test_dscbsm_hears_cross_entropy_and_confidence_of_a_classifier() -> None:
    sampler = ConfidenceGradientSampler([[0], [1]], 2, 0)
    loss = HeardLoss(nn.CrossEntropyLoss())
    sampler.attach(loss)
    logits = torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]], requires_grad=True)
    heard = loss(logits, torch.tensor([0, 1]))
    assert heard.item() == pytest.approx((1.386294 + 0.287682) / 2, rel=1e-5)
    with torch.no_grad():
        loss(logits, torch.tensor([0, 1]))  # validation is not heard
    anchors, surprise, sure, confidence = loss.bce.take()
    assert anchors.tolist() == sure.tolist() == [1, 1]
    assert surprise.tolist() == pytest.approx([1.386294, 0.287682], rel=1e-5)
    assert confidence.tolist() == pytest.approx([0.25, 0.75])


def test_the_segmenters_loss_weighs_pixels_by_their_class() -> None:
    logits = torch.zeros(1, 2, 1, 2)  # both classes 1/2 everywhere: CE log 2, focal 0.5·0.25·log 2
    target = torch.tensor([[[0, 1]]])
    logits[0, 1, 0, 1] = math.log(3)  # pixel 1 is right with 3/4: CE 0.287682
    loss = SegmentationLoss(focal=0.0, dice=0.0)
    assert float(loss(logits, target)) == pytest.approx((0.693147 + 0.287682) / 2, rel=1e-5)
    loss.weight = torch.tensor([1.0, 3.0])
    assert float(loss(logits, target)) == pytest.approx((0.693147 + 3 * 0.287682) / 4, rel=1e-5)


# ----------------------------------------------------------------------------------- within a run


class Pooled(nn.Module):
    """A classifier that ends in a linear layer, as those of the zoo do."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.features = TinyNetwork(8, dense=False)
        self.fc = nn.Linear(8, outputs)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.features(image))
        return logits


CLASSIFIER: ModelSpec = replace(get_spec("mobilesteelnet"), build=lambda n, _: Pooled(n))
# 9 spots and 3 lines to train on; draw_dataset alternates the classes
UNEVEN = ("train", "train", *("train", "val") * 3, *("train", "test") * 3, *("train", "val") * 2)


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than these runs."""
    monkeypatch.setattr("training.plots.draw_curves", lambda *_, **__: None)


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return draw_dataset(tmp_path_factory.mktemp("uneven"), "classify", parts=UNEVEN)


def balanced(
    method: str, *, strength: float | None = None, network: nn.Module | None = None
) -> Any:
    """What a method makes of 3 images of class 0 and 1 of class 1."""
    overrides = {"balance": method, "balance_strength": strength}
    plan = make_plan(CLASSIFIER, epochs=1, batch=2, overrides=overrides)
    targets = tuple(torch.tensor(k) for k in (0, 0, 0, 1))
    train = Split("classify", (torch.zeros(1, 8, 8, dtype=torch.uint8),) * 4, targets)
    network = network or Pooled(2)
    return balancing(CLASSIFIER, plan, train, classes=2, seed=0, network=network, epoch_images=4)


def test_class_weights_are_those_of_the_training_split() -> None:
    # 1/3 and 1 with mean 2/3
    assert balanced("class_weights").criterion.weight.tolist() == pytest.approx([0.5, 1.5])


def test_balanced_softmax_takes_the_priors_of_the_training_split() -> None:
    priors = balanced("balanced_softmax").criterion.log_priors.exp()
    assert priors.tolist() == pytest.approx([0.75, 0.25])


def test_logit_adjustment_shifts_by_the_priors_times_tau() -> None:
    shift = balanced("logit_adjustment", strength=2.0).shift
    assert shift.tolist() == pytest.approx([-2 * math.log(0.75), -2 * math.log(0.25)])


def test_a_shift_lasts_as_long_as_its_block_and_leaves_no_trace() -> None:
    network = Pooled(2)
    bias = network.fc.bias.detach().clone()
    shift = torch.tensor([0.1, 1e8])  # adding and subtracting it would lose the bias
    with shifted(network, shift) as kept:
        assert kept is network
        assert torch.equal(network.fc.bias.detach(), bias + shift)
    assert torch.equal(network.fc.bias.detach(), bias)


def test_a_network_without_a_last_linear_layer_cannot_be_adjusted() -> None:
    with pytest.raises(TrainingError, match="ends in a linear layer"):
        last_bias(TinyNetwork(2, dense=False), 2)
    for name in ("mobilesteelnet", "mobilenet_v1", "mobilenet_v2", "resnet50"):
        spec = get_spec(name)
        with torch.device("meta"):  # shapes without numbers
            assert len(last_bias(spec.build(7, spec.default_scale), 7)) == 7


def test_a_loss_that_takes_no_weights_is_told() -> None:
    spec = replace(CLASSIFIER, criterion=lambda _: lambda logits, _: logits.sum())
    plan = make_plan(spec, epochs=1, batch=2, overrides={"balance": "class_weights"})
    train = Split("classify", (torch.zeros(1, 8, 8),), (torch.tensor(0),))
    with pytest.raises(TrainingError, match="takes no class weights"):
        balancing(spec, plan, train, classes=2, seed=0, network=Pooled(2), epoch_images=1)


def test_masks_are_balanced_by_their_pixels_and_by_what_is_on_them() -> None:
    spec = get_spec("sme_deeplabv3plus")
    masks = (
        torch.zeros(2, 2, dtype=torch.uint8),
        torch.tensor([[0, 1], [1, 2]], dtype=torch.uint8),
    )
    train = Split("segment", (torch.zeros(1, 2, 2),) * 2, masks)
    network = TinyNetwork(3, dense=True)
    options: dict[str, Any] = {"classes": 3, "seed": 0, "network": network, "epoch_images": 2}
    plan = make_plan(
        spec, epochs=1, batch=2, overrides={"balance": "class_weights", "balance_strength": 1.0}
    )
    weights = balancing(spec, plan, train, **options).criterion.weight
    # 5, 2 and 1 pixels: 0.2, 0.5, 1 with mean 17/30
    assert weights.tolist() == pytest.approx([6 / 17, 15 / 17, 30 / 17])
    plan = make_plan(
        spec, epochs=1, batch=2, overrides={"balance": "repeat_factor", "balance_strength": 1.0}
    )
    # background apart, the second mask alone holds classes: sqrt(1 / 0.5)
    factors = balancing(spec, plan, train, **options).sampler.factors
    assert factors == pytest.approx([1.0, math.sqrt(2)])


def test_an_equal_share_of_the_images_is_one_of_the_defects_without_background() -> None:
    spec = get_spec("sme_deeplabv3plus")
    held = ((1,), (1,), (2,), (2,), ())  # each class on 0.4 of the images, of two classes: 1/2
    masks = tuple(torch.tensor([[0, *ids]], dtype=torch.uint8) for ids in held)
    train = Split("segment", (torch.zeros(1, 1, 2),) * 5, masks)
    plan = make_plan(spec, epochs=1, batch=2, overrides={"balance": "repeat_factor"})
    network = TinyNetwork(3, dense=True)
    sampler = balancing(
        spec, plan, train, classes=3, seed=0, network=network, epoch_images=5
    ).sampler
    # sqrt((1/2) / 0.4)
    assert sampler.factors == pytest.approx([1.1180, 1.1180, 1.1180, 1.1180, 1.0], abs=1e-4)


@pytest.mark.parametrize("method", sorted({*methods_for("classify")} - {"synthesis"}))
def test_every_method_trains_a_classifier_and_is_recorded(
    method: str, uneven: Dataset, tmp_path: Path
) -> None:
    record = train(CLASSIFIER, uneven, tmp_path / "run", epochs=1, overrides={"balance": method})
    assert record.recipe["balance"] == method
    assert np.isfinite(record.validation["val_loss"])


def test_the_kept_weights_are_adjusted_and_those_trained_on_are_not(
    uneven: Dataset, tmp_path: Path
) -> None:
    biases = {}
    for method in ("none", "logit_adjustment"):
        overrides = {"balance": method, "ema": 0.0}
        train(CLASSIFIER, uneven, tmp_path / method, epochs=1, overrides=overrides)
        run = RunFolder(tmp_path / method)
        state = load_checkpoint(run.last)["network"]
        biases[method] = (load_file(run.best)["fc.bias"], state["fc.bias"])
    assert torch.equal(biases["none"][1], biases["logit_adjustment"][1])
    assert torch.equal(biases["none"][0], biases["none"][1])
    moved = biases["logit_adjustment"][0] - biases["none"][0]
    n_line = sum(s.label == "line" for s in uneven.split("leak-free", "train"))
    n = len(uneven.split("leak-free", "train"))
    expected = [-math.log((n - n_line) / n), -math.log(n_line / n)]
    assert moved.tolist() == pytest.approx(expected, abs=1e-5)


def test_an_image_that_comes_twice_in_an_epoch_is_seen_in_two_ways(
    uneven: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, str]] = []
    real = Split.views

    def views(self: Split, rows: Any, drawn: Any, *, size: int) -> Any:
        seen.extend(zip(rows, map(str, drawn.theta.tolist()), strict=True))
        return real(self, rows, drawn, size=size)

    monkeypatch.setattr(Split, "views", views)
    train(CLASSIFIER, uneven, tmp_path / "run", epochs=1, overrides={"balance": "dscbsm"})
    assert len(seen) == len(uneven.split("leak-free", "train"))
    assert len({row for row, _ in seen}) < len(seen)  # it draws with replacement
    assert len(set(seen)) == len(seen)


class _Stopped(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("method", ["dscbsm", "repeat_factor"])
def test_a_balanced_run_stopped_within_an_epoch_goes_on_bit_for_bit(
    method: str, uneven: Dataset, tmp_path: Path
) -> None:
    def stop(_: nn.Module, epoch: int) -> None:
        if epoch == 1:
            raise _Stopped

    options: dict[str, Any] = {"overrides": {"balance": method}}
    train(CLASSIFIER, uneven, tmp_path / "whole", **options)
    with pytest.raises(_Stopped):
        train(replace(CLASSIFIER, on_epoch=stop), uneven, tmp_path / "run", **options)
    train(CLASSIFIER, uneven, tmp_path / "run", resume=True, **options)
    assert_same_run(tmp_path / "run", tmp_path / "whole")


def test_a_run_older_than_the_option_is_resumed_as_it_was(uneven: Dataset, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    train(CLASSIFIER, uneven, run.root, epochs=1)
    recipe = run.load_record().recipe
    older = {k: v for k, v in recipe.items() if not k.startswith("balance")}
    run.update_record(recipe=older, finished_at=None)
    assert train(CLASSIFIER, uneven, run.root, epochs=1, resume=True).finished_at is not None
    other: dict[str, Any] = {"overrides": {"balance": "focal"}, "resume": True}
    with pytest.raises(TrainingError, match="begun with recipe"):
        train(CLASSIFIER, uneven, run.root, epochs=1, **other)
