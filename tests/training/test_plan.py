from __future__ import annotations

import pytest

from core.errors import TrainingError
from models import get_spec
from training.plan import make_plan

CLASSIFIER = get_spec("mobilesteelnet")  # Adam, lr0 1e-3 at batch 32
SEGMENTER = get_spec("sme_deeplabv3plus")  # SGD, lr0 7e-3 at batch 16


@pytest.mark.parametrize(
    ("done", "rate"),
    [
        pytest.param(0.0, 0.1, id="a tenth at the start"),
        pytest.param(1.0, 0.55, id="half way up"),
        pytest.param(2.0, 1.0, id="lr0 after the warm-up"),
        pytest.param(6.0, 0.6, id="half way down: (1 + 0.2) / 2"),
        pytest.param(10.0, 0.2, id="lr0 x lrf at the end"),
    ],
)
@pytest.mark.parametrize("cosine", [False, True])
def test_rate_warms_up_and_falls_to_lrf(done: float, rate: float, cosine: bool) -> None:
    # Line and cosine agree at start, middle and end of the fall.
    overrides = {"lr0": 1.0, "lrf": 0.2, "warmup_epochs": 2.0, "cosine": cosine}
    plan = make_plan(CLASSIFIER, epochs=10, batch=8, overrides=overrides)
    assert plan.learning_rate(done) == pytest.approx(rate)


def test_warm_up_takes_no_more_than_a_quarter_of_a_short_run() -> None:
    overrides = {"lr0": 1.0, "warmup_epochs": 5.0}
    plan = make_plan(CLASSIFIER, epochs=4, batch=8, overrides=overrides)
    assert plan.learning_rate(1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("spec", "batch", "rate"),
    [
        pytest.param(SEGMENTER, 4, 7e-3 / 4, id="SGD in proportion"),
        pytest.param(CLASSIFIER, 8, 1e-3 / 2, id="Adam by the square root"),
        pytest.param(CLASSIFIER, 32, 1e-3, id="the recipe's own batch"),
    ],
)
def test_another_batch_scales_the_learning_rate(spec, batch: int, rate: float) -> None:
    plan = make_plan(spec, epochs=10, batch=batch, overrides={})
    assert plan.lr0 == pytest.approx(rate)


def test_a_stated_learning_rate_is_not_scaled() -> None:
    assert make_plan(SEGMENTER, epochs=10, batch=4, overrides={"lr0": 0.5}).lr0 == 0.5


def test_a_recorded_recipe_makes_the_same_plan_again() -> None:
    overrides = {"ema": 0.9, "view_px": 64, "augment": {"zoom": [0.5, 2.0]}}
    plan = make_plan(SEGMENTER, epochs=7, batch=4, overrides=overrides)
    assert plan.augment.zoom == (0.5, 2.0)
    assert make_plan(SEGMENTER, epochs=7, batch=4, overrides=plan.as_recipe()) == plan


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        pytest.param({"mosaic": 1}, "no training option 'mosaic'", id="unknown option"),
        pytest.param({"augment": {"blur": 1}}, "No augmentation is called 'blur'", id="augment"),
        pytest.param({"optimizer": "Lion"}, "SGD, Adam, AdamW", id="optimiser"),
        pytest.param({"ema": 1.0}, r"must lie in \[0, 1\)", id="ema"),
        pytest.param({"lr0": 0.0}, "must be above 0", id="learning rate"),
        pytest.param({"patience": 0}, "at least 1 epoch", id="patience"),
        pytest.param({"view_px": 16}, "at least 32 px", id="view"),
        pytest.param({"lr0": "fast"}, "lr0 is 'fast': .* valid number", id="no number"),
        pytest.param({"cosine": "perhaps"}, "cosine is 'perhaps'", id="neither true nor false"),
        pytest.param({"augment": 5}, "augment is 5: it must be names", id="no augmentation"),
        pytest.param({"augment": {"zoom": [1]}}, "augment.zoom.1 is", id="half a range"),
        pytest.param({"in_place": 1.5}, "in_place is 1.5: it must be a share", id="in place"),
        pytest.param({"epochs": 7}, "epochs is 10 and 7 among .*: give --epochs", id="epochs"),
        pytest.param({"batch": 2}, "batch is 8 and 2 among the settings", id="batch"),
        pytest.param({"momentum": -5}, r"momentum is -5.0: it must lie in \[0, 1\)", id="momentum"),
        pytest.param({"weight_decay": -1}, "weight_decay is -1.0: it must be 0", id="decay"),
        pytest.param({"clip_norm": 0}, "clip_norm is 0.0: it must be above 0", id="clipping"),
        pytest.param({"lr0": float("nan")}, "lr0 is nan: it must be above 0", id="nan"),
        pytest.param(
            {"optimizer": "SGD", "nesterov": True, "momentum": 0}, "needs a momentum", id="nesterov"
        ),
        pytest.param(
            {"augment": {"zoom": [0, 1]}}, r"augment.zoom is \[0.0, 1.0\]: it must be", id="zoom"
        ),
        pytest.param({"augment": {"zoom": [2, 1]}}, "the least and the most", id="zoom, turned"),
        pytest.param({"augment": {"crop": 0}}, "augment.crop is 0.0: .* fraction", id="crop"),
        pytest.param({"augment": {"flip_vertical": 2}}, "a probability, 0 to 1", id="flip"),
        pytest.param({"loss": "border"}, "loss is 'border': mobilesteelnet has paper", id="loss"),
    ],
)
def test_what_cannot_be_is_refused_by_a_sentence(overrides, says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        make_plan(CLASSIFIER, epochs=10, batch=8, overrides=overrides)


@pytest.mark.parametrize(
    ("epochs", "overrides", "loss"),
    [
        (149, {}, "border"),  # less than half the paper's 300 epochs
        (150, {}, "paper"),
        (149, {"loss": "paper"}, "paper"),
        (150, {"loss": "border"}, "border"),
    ],
)
def test_a_short_run_of_the_segmenter_minds_borders_unless_told(
    epochs: int, overrides: dict[str, str], loss: str
) -> None:
    assert make_plan(SEGMENTER, epochs=epochs, batch=8, overrides=overrides).loss == loss


def test_in_the_end_views_are_turned_and_toned_but_not_moved() -> None:
    plan = make_plan(SEGMENTER, epochs=10, batch=8, overrides={"in_place": 0.4})
    assert plan.augmentation(5) == plan.augment  # the sixth of ten epochs
    last = plan.augmentation(6)
    assert (last.zoom, last.shift, last.aspect, last.rotation_deg) == ((1.0, 1.0), 0.0, 0.0, 0.0)
    assert (last.quarter_turns, last.flip_vertical, last.brightness) == (True, 0.5, 0.2)
    assert (
        make_plan(CLASSIFIER, epochs=10, batch=8, overrides={"in_place": 1}).augmentation(0).crop
        == 1.0
    )
    assert make_plan(CLASSIFIER, epochs=10, batch=8, overrides={}).augmentation(9).crop == 224 / 256
    # One epoch at least: a twentieth of ten would be none.
    shortest = make_plan(SEGMENTER, epochs=10, batch=8, overrides={"in_place": 0.04})
    assert [shortest.augmentation(k).shift for k in (8, 9)] == [0.1, 0.0]


def test_a_row_of_the_losses_is_trained_with_its_own() -> None:
    assert (
        make_plan(get_spec("sme_deeplabv3plus.ce"), epochs=8, batch=8, overrides={}).loss == "paper"
    )
    with pytest.raises(TrainingError, match=r"sme_deeplabv3plus\.ce has paper\."):
        make_plan(get_spec("sme_deeplabv3plus.ce"), epochs=8, batch=8, overrides={"loss": "border"})


def test_a_detector_has_no_plan_here() -> None:
    with pytest.raises(TrainingError, match="is a detector"):
        make_plan(get_spec("grace"), epochs=1, batch=1, overrides={})
