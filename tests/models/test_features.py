"""One vector per image beside the answer, from the same forward pass."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import models
from core.types import DecodedImage, Provenance
from models._features import WithFeatures
from models._predictors import make_predictor

PAPERS = models.names()


class _Doubles(nn.Module):
    """Doubles its input in `inner`, and answers with the sum over everything."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Conv2d(1, 1, 1, bias=False)
        self.runs = 0
        with torch.no_grad():
            self.inner.weight.fill_(2.0)

    def forward(self, x: Tensor) -> tuple[Tensor, str]:
        self.runs += 1
        return self.inner(x).sum((1, 2, 3)), "what training needs"


def _squares() -> Tensor:
    """Two pictures of 2 x 2: (1, 2, 3, 6) and four times 5."""
    return torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]], [[[5.0, 5.0], [5.0, 5.0]]]])


def test_a_vector_is_the_mean_of_the_layers_map_and_costs_no_second_run() -> None:
    network = _Doubles().eval()
    with torch.no_grad():
        output, features = WithFeatures(network, "inner")(_squares())
    assert output.tolist() == [24.0, 40.0]  # 2 (1 + 2 + 3 + 6) and 2 · 20
    assert features.tolist() == [[6.0], [10.0]]  # 24 / 4 and 40 / 4
    assert network.runs == 1


@pytest.mark.parametrize("layer", ["", "head.missing"], ids=["none named", "not in this variant"])
def test_without_the_layer_the_vectors_are_empty_and_the_answer_is_the_same(layer: str) -> None:
    output, features = WithFeatures(_Doubles().eval(), layer)(_squares())
    assert output.tolist() == [24.0, 40.0]
    assert tuple(features.shape) == (2, 0)


def test_a_layer_whose_output_is_no_map_gives_no_vector() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).eval()
    _, features = WithFeatures(network, "1")(_squares())
    assert tuple(features.shape) == (2, 0)


def test_the_vector_of_one_batch_is_not_left_for_the_next() -> None:
    both = WithFeatures(_Doubles().eval(), "inner")
    with torch.no_grad():
        both(_squares())
        _, features = both(torch.zeros(1, 1, 2, 2))
    assert features.tolist() == [[0.0]]


@pytest.mark.parametrize("name", PAPERS)
def test_every_published_model_gives_each_image_a_vector_of_its_own(name: str) -> None:
    torch.manual_seed(0)
    spec = models.get_spec(name)
    predictor = make_predictor(
        spec,
        spec.build(3, spec.default_scale),
        labels=("a", "b", "c"),
        image_size=64,
        revision="r1",
    )
    noise = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    images = [DecodedImage(pixels, sha256=str(i) * 64) for i, pixels in enumerate(noise)]
    first, second = predictor(images, score_threshold=0.5)
    (alone,) = predictor(images[:1], score_threshold=0.5)
    vector, other = first.source.features, second.source.features
    assert vector is not None
    assert other is not None
    assert vector.dtype == np.float32
    assert vector.ndim == 1
    assert np.isfinite(vector).all()
    np.testing.assert_allclose(vector, alone.source.features, rtol=1e-3, atol=1e-4)
    assert np.abs(vector - other).max() > 0


def test_a_model_without_a_feature_layer_says_that_it_has_no_vector() -> None:
    spec = replace(models.get_spec("mobilenet_v2"), feature_layer="")
    predictor = make_predictor(
        spec, spec.build(2, "standard"), labels="ab", image_size=32, revision="r"
    )
    picture = DecodedImage(np.zeros((8, 8, 3), np.uint8), sha256="0" * 64)
    assert predictor([picture], score_threshold=0.5)[0].source.features is None


def test_two_answers_are_compared_without_their_vectors() -> None:
    one, other = (
        Provenance("m", "r", "0" * 64, 1, 1, 1.0, features=np.full(2, value, np.float32))
        for value in (0.0, 1.0)
    )
    assert one == other
    assert "features" not in repr(one)


def test_the_pair_can_be_traced_for_export() -> None:
    spec = models.get_spec("mobilesteelnet")
    torch.manual_seed(0)
    both = WithFeatures(spec.build(3, "light"), spec.feature_layer).eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), warnings.catch_warnings():
        # Sizes become constants of the trace; a graph of one size is what an export is for.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated", DeprecationWarning)
        traced = torch.jit.trace(both, images)
        for ours, theirs in zip(both(images), traced(images), strict=True):
            torch.testing.assert_close(ours, theirs)
