from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.errors import TrainingError, WeightsError
from models import get_spec
from models._release import read_release
from training.datasets import Dataset
from training.detector_recipe import make_recipe
from training.distillation import SoftLoss, average, load_teachers, soft_losses
from training.initial import initialise
from training.launch import resume_run, start_run
from training.release import write_release
from training.runs import RunFolder
from training.yolo_trainer import train_detector

pytestmark = [
    # told by torch when deterministic algorithms were asked for, once, of an operation on CUDA only
    pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation:UserWarning"),
]

TINY: dict[str, Any] = {
    "protocol": "leak-free",
    "scale": "n",
    "image_size": 64,
    "batch": 8,
    "seed": 3,
    "device": "cpu",
}
KEPT: dict[str, Any] = {"protocol": "leak-free", "device": "cpu"}
CENTRE = torch.tensor([[2.0, 2.0]])


def sides(*probabilities: float) -> Tensor:
    """The same distribution over the bins for all four sides of the one anchor: (1, 1, 4, bins)."""
    return torch.tensor(probabilities, dtype=torch.float32).expand(1, 1, 4, -1)


# -------------------------------------------------------------------------------------- equations


def test_the_surer_teacher_says_where_the_edges_are() -> None:
    sure = (torch.tensor([[[0.9, 0.3]]]), sides(0.8, 0.2).log())
    unsure = (torch.tensor([[[0.1, 0.1]]]), sides(0.5, 0.5).log())
    soft, bins = average([sure, unsure], like=sides(0, 0))
    torch.testing.assert_close(soft, torch.tensor([[[0.5, 0.2]]]))
    torch.testing.assert_close(bins, sides(0.9 * 0.8 + 0.1 * 0.5, 0.9 * 0.2 + 0.1 * 0.5))


def test_a_teacher_of_other_anchors_is_refused() -> None:
    with pytest.raises(TrainingError, match=r"shape \(1, 1, 4, 2\).* in \(1, 1, 4, 3\)"):
        average([(torch.ones(1, 1, 1), sides(0, 0))], like=sides(0, 0, 0))


def test_soft_losses_of_one_anchor_are_those_worked_by_hand() -> None:
    # p̂ = ½, p = ½: BCE ln 2, Σ p̂ < 1. w = ¼. Both boxes are 2 x 2 around the anchor, but the
    # teachers are sure of it and the learner thinks 0, 1 and 2 alike: KL = ln 3.
    box, classes, distance = soft_losses(
        torch.zeros(1, 1, 1), sides(0, 0, 0), torch.full((1, 1, 1), 0.5), sides(0, 1, 0), CENTRE
    )
    assert float(classes) == pytest.approx(math.log(2))
    assert float(distance) == pytest.approx(math.log(3) / 4)
    assert float(box) == pytest.approx(0, abs=1e-5)


def test_a_box_of_twice_the_size_costs_three_quarters_of_its_weight() -> None:
    # 4 x 4 around 2 x 2: IoU = CIoU = ¼, w = ¼
    box, _, _ = soft_losses(
        torch.zeros(1, 1, 1),
        sides(1e-9, 1e-9, 1).log(),
        torch.full((1, 1, 1), 0.5),
        sides(0, 1, 0),
        CENTRE,
    )
    assert float(box) == pytest.approx(0.25 * 0.75, abs=1e-4)


def test_anchors_that_see_nothing_hardly_count() -> None:
    soft = torch.tensor([[[1.0], [0.01]]])  # w = 1 and 1e-4, summing to a little more than 1
    learner = torch.cat((sides(0.5, 0.5), sides(0.5, 0.5)), 1).log()
    teachers = torch.cat((sides(0.5, 0.5), sides(1.0, 0.0)), 1)
    _, _, distance = soft_losses(
        torch.zeros(1, 2, 1), learner, soft, teachers, torch.cat((CENTRE, CENTRE))
    )
    assert float(distance) == pytest.approx(1e-4 * math.log(2) / 1.0001)


def test_share_mixes_the_losses_and_whoever_agrees_learns_nothing_from_teachers() -> None:
    torch.manual_seed(0)
    scores, boxes = torch.randn(2, 3, 4), torch.randn(2, 4 * 5, 4)  # four anchors of one level
    answer = (scores.permute(0, 2, 1).sigmoid(), boxes.permute(0, 2, 1).reshape(2, 4, 4, 5))
    mixed = SoftLoss([lambda images: answer], share=0.25, gains={"box": 2, "cls": 3, "dfl": 4})  # type: ignore[list-item]
    learner = {
        "scores": scores.clone().requires_grad_(),
        "boxes": boxes.clone().requires_grad_(),
        "feats": [torch.zeros(2, 1, 2, 2)],
    }
    batch = {"img": torch.zeros(2, 3, 16, 16)}
    labels = torch.tensor([8.0, 8.0, 8.0])
    loss = mixed(learner, batch, torch.tensor([8.0]), labels)
    p = answer[0]
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).sum() / p.sum()
    # ¾ of the labels' loss; of the teachers', N = 2 times the classes' gain: boxes already agree
    expected = torch.stack((torch.tensor(6.0), 6 + 0.25 * 2 * 3 * entropy, torch.tensor(6.0)))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-4)
    torch.autograd.backward(loss.sum())
    assert isinstance(learner["scores"], Tensor)
    assert learner["scores"].grad is not None
    assert float(learner["scores"].grad.abs().max()) < 1e-6


# ------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_neu_det: Dataset) -> Path:
    """A release of stock YOLO11 after one epoch."""
    run = RunFolder.create(tmp_path_factory.mktemp("runs"), model="yolo11", scale="n", seed=3)
    train_detector(
        get_spec("yolo11"), tiny_neu_det, run=run, epochs=1, initial_weights=None, **TINY
    )
    return run.release


def test_a_run_with_a_teacher_says_so_and_is_resumed_with_that_teacher_only(
    tmp_path: Path, teacher: Path, tiny_neu_det: Dataset
) -> None:
    revision = read_release(teacher).revision
    record = start_run(
        get_spec("grace"),
        tiny_neu_det,
        runs_root=tmp_path,
        run_id="taught",
        epochs=1,
        initial_weights=teacher,
        teachers=(teacher,),
        overrides={"teaching": 0.25, "balance": "none"},
        workers=0,
        **TINY,
    )
    assert record.recipe["teachers"] == [f"yolo11 {revision}"]
    assert record.recipe["teaching"] == 0.25
    # Lite-FEN's eight parameters and its strength are GRACE's own.
    assert record.initialisation == f"release {revision} of yolo11, 499 of 508 tensors"
    assert record.parent_revision is None
    run = RunFolder(tmp_path / "taught")
    again: dict[str, Any] = {"data_root": tiny_neu_det.root.parent, "device": "cpu", "workers": 0}
    assert resume_run(run, teachers=(teacher,), **again) == record
    with pytest.raises(TrainingError, match=f"learns from yolo11 {revision}: give the same"):
        resume_run(run, **again)


def test_teachers_see_the_views_that_are_trained_on(
    tmp_path: Path, teacher: Path, tiny_neu_det: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def listen(
        self: SoftLoss, predictions: Any, batch: Any, stride: Tensor, loss: Tensor
    ) -> Tensor:
        seen.append(batch["img"])
        return loss

    monkeypatch.setattr(SoftLoss, "__call__", listen)
    run = RunFolder.create(tmp_path, model="yolo11", scale="n", seed=3)
    train_detector(
        get_spec("yolo11"),
        tiny_neu_det,
        run=run,
        epochs=1,
        initial_weights=None,
        teachers=(teacher,),
        **TINY,
    )
    drawn = sum(len(images) for images in seen)
    assert drawn == len(tiny_neu_det.split("leak-free", "train"))  # validation has no teachers
    assert {tuple(images.shape[1:]) for images in seen} == {(3, 64, 64)}


def test_teachers_are_frozen_and_answer_with_probabilities(
    teacher: Path, tiny_neu_det: Dataset
) -> None:
    (found,) = load_teachers([teacher / "model.safetensors"], tiny_neu_det, **KEPT)
    assert not any(p.requires_grad for p in found.network.parameters())
    before = {k: v.clone() for k, v in found.network.state_dict().items()}
    probabilities, distances = found(torch.rand(2, 3, 64, 64))
    assert probabilities.shape == (2, 64 + 16 + 4, 6)
    assert distances.shape == (2, 84, 4, 16)
    assert 0 <= float(probabilities.min()) <= float(probabilities.max()) <= 1
    assert all(torch.equal(before[k], v) for k, v in found.network.state_dict().items())


def test_a_teacher_of_other_classes_other_test_images_or_no_boxes_is_refused(
    tmp_path: Path, teacher: Path, tiny_neu_det: Dataset
) -> None:
    with pytest.raises(TrainingError, match="a teacher must know rust, dent, in this order"):
        load_teachers([teacher], dataclasses.replace(tiny_neu_det, labels=("rust", "dent")), **KEPT)
    with pytest.raises(
        TrainingError, match=r"was kept from other test images than those of .* paper"
    ):
        load_teachers([teacher], tiny_neu_det, protocol="paper", device="cpu")
    spec = get_spec("mobilenet_v2")
    record = read_release(teacher).run.model_copy(update={"model": spec.name, "scale": "standard"})
    network = spec.build(6, "standard")
    write_release(tmp_path, network, record=record, title=spec.title, task=spec.task)
    with pytest.raises(TrainingError, match="made to classify: it teaches no detector"):
        load_teachers([tmp_path], tiny_neu_det, **KEPT)


def test_classifiers_have_no_teachers(tmp_path: Path, teacher: Path, tiny_neu_det: Dataset) -> None:
    with pytest.raises(TrainingError, match="only detectors have teachers"):
        start_run(
            get_spec("mobilesteelnet"),
            dataclasses.replace(tiny_neu_det),
            runs_root=tmp_path,
            teachers=(teacher,),
            **{**TINY, "scale": "light"},
        )


@pytest.mark.parametrize("share", [0, 1, True, "half"])
def test_a_share_that_is_none_is_refused(share: object) -> None:
    with pytest.raises(TrainingError, match="must be a share of the loss between 0 and 1"):
        make_recipe(
            get_spec("grace"),
            epochs=1,
            batch=8,
            overrides={"teaching": share},
            teachers=["yolo11 0123"],
        )


def test_a_share_without_teachers_is_refused() -> None:
    with pytest.raises(TrainingError, match="there are no teachers"):
        make_recipe(get_spec("grace"), epochs=1, batch=8, overrides={"teaching": 0.5})


def test_stock_yolo11_lends_its_layers_to_networks_made_of_it_only(teacher: Path) -> None:
    grace, labels = get_spec("grace"), read_release(teacher).labels
    network = grace.build(6, "n")
    initialise(network, teacher, scale="n", labels=labels, stock_layers=grace.coco_layers)
    lent = get_spec("yolo11").build(6, "n")
    initialise(lent, teacher, scale="n", labels=labels)
    head = dict(lent.named_parameters())["model.23.cv3.0.2.weight"]
    assert torch.equal(dict(network.named_parameters())["model.24.cv3.0.2.weight"], head)
    with pytest.raises(WeightsError, match="its layers are not those"):
        initialise(get_spec("gms2_yolo").build(6, "n"), teacher, scale="n", labels=labels)
    with pytest.raises(WeightsError, match=r"holds yolo11, scale n: .*of scale m; start from"):
        initialise(
            grace.build(6, "m"), teacher, scale="m", labels=labels, stock_layers=grace.coco_layers
        )


def test_a_release_of_scale_n_begins_scale_s(teacher: Path) -> None:
    labels = read_release(teacher).labels
    narrow, wide = (get_spec("yolo11").build(6, scale).eval() for scale in ("n", "s"))
    initialise(narrow, teacher, scale="n", labels=labels)
    origin = initialise(wide, teacher, scale="s", labels=labels)
    assert origin.words.endswith("of yolo11, widened from scale n")
    with torch.no_grad():
        image = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(wide(image)[0], narrow(image)[0], rtol=1e-3, atol=1e-2)
    grace = get_spec("grace")
    network = grace.build(6, "s")
    origin = initialise(network, teacher, scale="s", labels=labels, stock_layers=grace.coco_layers)
    assert origin.words.endswith("widened from scale n, 499 of 508 tensors")
    lent = dict(network.named_parameters())["model.24.cv3.0.2.weight"]
    assert torch.equal(lent, dict(wide.named_parameters())["model.23.cv3.0.2.weight"])
    others = ("patches", *labels[1:])  # classes of another set: the head's last layers are its own
    origin = initialise(get_spec("yolo11").build(6, "s"), teacher, scale="s", labels=others)
    assert origin.words.endswith("widened from scale n, 6 of 499 tensors new")


def test_classes_in_another_order_are_not_taken_for_one_another(teacher: Path) -> None:
    labels = read_release(teacher).labels
    network, random = get_spec("yolo11").build(6, "n"), get_spec("yolo11").build(6, "n")
    random.load_state_dict(network.state_dict())
    origin = initialise(network, teacher, scale="n", labels=labels[::-1])
    assert origin.words.endswith("6 of 499 tensors new")
    known = get_spec("yolo11").build(6, "n")
    initialise(known, teacher, scale="n", labels=labels)
    for name, tensor in network.state_dict().items():
        is_by_class = ".cv3." in name and name.split(".")[4] == "2"  # weight and bias of 3 levels
        expected = (random if is_by_class else known).state_dict()[name]
        assert torch.equal(tensor, expected), name
