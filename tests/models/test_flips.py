"""Mirrored looks at one picture, brought back and made one answer."""

import numpy as np
import pytest
import torch
from torch import nn

from core.types import DecodedImage
from models import get_spec
from models._flips import Flipped
from models._predictors import make_predictor
from tests.models.test_large_images import _BrightBox


def _image(pixels):
    return DecodedImage(np.repeat(pixels[..., None], 3, axis=2), sha256="0" * 64)


def _flipped(model, network, labels):
    return Flipped(
        make_predictor(get_spec(model), network, labels=labels, image_size=64, revision="r1")
    )


class _LeftIsA(nn.Module):
    """Says class a as surely as the upper left quarter is brighter than the rest."""

    def forward(self, x):
        return torch.stack((x[:, 0, :32, :32].mean((1, 2)), torch.zeros(len(x))), dim=1)


class _SeesTheLeft(nn.Module):
    """A segmenter that is sure of class a in the left half of whatever it is shown."""

    def forward(self, x):
        logit = torch.zeros(len(x), 1, *x.shape[2:])
        logit[..., : x.shape[3] // 2] = torch.log(torch.tensor(9.0))
        return torch.cat((torch.zeros_like(logit), logit), dim=1)


def test_boxes_of_four_looks_are_one_box_where_it_is():
    pixels = np.zeros((64, 64), np.uint8)
    pixels[5:15, 8:30] = 255
    (found,) = _flipped("grace", _BrightBox(), ("a",))([_image(pixels)], score_threshold=0.1)
    np.testing.assert_allclose(found.xyxy, [[8, 5, 30, 15]], atol=1e-4)
    assert found.scores.tolist() == pytest.approx([0.9])


def test_what_the_fused_score_leaves_below_the_threshold_is_left_out():
    pixels = np.zeros((64, 64), np.uint8)
    pixels[5:15, 8:30] = 255
    predictor = _flipped("grace", _BrightBox(), ("a",))
    assert len(predictor([_image(pixels)], score_threshold=0.91)[0]) == 0


class _ShyWhenMirrored(_BrightBox):
    """As its parent, with score 0.45 where the picture's right half is the brighter one."""

    def forward(self, x):
        rows = super().forward(x)
        half = x.shape[3] // 2
        shy = x[..., half:].mean((1, 2, 3)) > x[..., :half].mean((1, 2, 3))
        rows[shy, 4] = 0.45
        return rows


def test_a_look_below_the_threshold_counts_for_what_it_is_worth():
    # Two looks say 0.9 and two 0.45: their mean, 0.675, passes 0.5 although two of them do not.
    pixels = np.zeros((64, 64), np.uint8)
    pixels[5:15, 8:30] = 255
    predictor = _flipped("grace", _ShyWhenMirrored(), ("a",))
    (found,) = predictor([_image(pixels)], score_threshold=0.5)
    assert found.scores.tolist() == pytest.approx([0.675])


def test_class_probabilities_are_the_mean_of_four_looks():
    pixels = np.zeros((64, 64), np.uint8)
    pixels[:32, :32] = 200
    network = _LeftIsA()
    plain = make_predictor(
        get_spec("mobilesteelnet"), network, labels=("a", "b"), image_size=64, revision="r1"
    )
    looks = [
        plain([_image(np.ascontiguousarray(p))], score_threshold=0)[0].probabilities
        for p in (pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1])
    ]
    assert not np.allclose(looks[0], looks[1])
    (found,) = Flipped(plain)([_image(pixels)], score_threshold=0)
    np.testing.assert_allclose(found.probabilities, np.mean(looks, axis=0), rtol=1e-6)


def test_a_segmenter_s_maps_are_turned_back_before_they_are_averaged():
    # Seen plainly and upside down, the left half is a by 0.9; mirrored, the right half: the mean
    # is 0.5 · 0.9 + 0.5 · 0.5 = 0.7 everywhere.
    predictor = _flipped("sme_deeplabv3plus", _SeesTheLeft(), ("a",))
    (found,) = predictor([_image(np.zeros((64, 64), np.uint8))], score_threshold=0)
    assert (found.class_map == 1).all()
    np.testing.assert_allclose(found.scores, 0.7, atol=1e-5)
    assert (predictor.spec.name, predictor.revision) == ("sme_deeplabv3plus", "r1")
    assert predictor.labels == ("a",)
