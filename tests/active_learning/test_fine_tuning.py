"""What a retraining run does otherwise than a run from the beginning."""

from __future__ import annotations

import pytest

from active_learning.fine_tuning import fine_tuning
from core.settings import RetrainingSettings
from models import get_spec


def chosen(
    model: str, *, before: dict[str, object] | None = None, **settings: str
) -> dict[str, object]:
    spec, asked = get_spec(model), RetrainingSettings(epochs=20, **settings)
    return dict(fine_tuning(spec, asked, batch=16, before=before or {}))


def test_weights_that_are_good_already_are_moved_at_a_tenth_of_the_rate():
    assert chosen("grace") == {"lr0": pytest.approx(0.001)}  # of the short schedule's 0.01


def test_a_classifier_weighs_its_classes_as_was_measured_best_and_others_follow_their_papers():
    assert chosen("mobilesteelnet")["balance"] == "class_weights"
    assert "balance" not in chosen("grace")
    assert "balance" not in chosen("sme_deeplabv3plus")


def test_a_method_that_was_set_is_taken():
    assert chosen("mobilesteelnet", balance="dscbsm")["balance"] == "dscbsm"
    assert "balance" not in chosen("mobilesteelnet", balance="paper")


def test_a_model_goes_on_with_the_loss_that_its_live_weights_have_learned_with():
    assert "loss" not in chosen("da_yolo", before={"loss": "stock"})  # as short runs have it
    assert chosen("da_yolo", before={"loss": "paper"})["loss"] == "paper"
    assert chosen("da_yolo")["loss"] == "paper"  # a release from before the choice
    assert chosen("grace", before={"loss": "stock"})["loss"] == "stock"
    assert "loss" not in chosen("grace", before={"loss": "paper"})
    assert "loss" not in chosen("grace")
    assert "loss" not in chosen("sme_deeplabv3plus", before={"loss": "border"})
    assert chosen("sme_deeplabv3plus")["loss"] == "paper"
    assert "loss" not in chosen("mobilesteelnet")
