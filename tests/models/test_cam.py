"""Heat maps: by hand for toy networks, in the right place for the bundled ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import WeightsNotFoundError
from core.types import DecodedImage
from models import get_spec, names
from models._cam import METHODS, Explainer, first_component, load_explainer

BUNDLED = Path(__file__).parents[2] / "hub" / "bundled"

pytestmark = [
    # grad-cam loads matplotlib and scikit-learn, whose own imports are none of our business
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


class _Pooled(nn.Module):
    """Two maps, red and green as they come; class 0 is 2·mean(red) − mean(green), class 1 is 0."""

    def __init__(self):
        super().__init__()
        self.maps = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.maps.weight.copy_(torch.eye(2, 3)[..., None, None])

    def forward(self, x):
        red, green = self.maps(x).mean((2, 3)).unbind(1)
        return torch.stack((2 * red - green, torch.zeros_like(red)), dim=1)


class _Spots(nn.Module):
    """A detector's shape: the head reads one map, brightness, and every px scores by it."""

    class _Head(nn.Module):
        f = (0,)

        def forward(self, x):
            scores = x.flatten(2)
            return torch.cat((torch.zeros(len(x), 4, scores.shape[2]), scores), dim=1), "rest"

    def __init__(self):
        super().__init__()
        brightness = nn.Conv2d(3, 1, 1, bias=False)
        nn.init.constant_(brightness.weight, 1 / 3)
        self.model = nn.ModuleList([brightness, self._Head()])

    def forward(self, x):
        return self.model[1](self.model[0](x))


def _image(pixels):
    return DecodedImage(np.ascontiguousarray(pixels), sha256="0" * 64)


def _explainer(spec, network, size, *, native=None, threshold=0.5):
    return Explainer(
        spec,
        network,
        image_size=size,
        native_px=native or size,
        score_threshold=threshold,
    )


def _classifier(size=8, **more):
    spec = replace(get_spec("mobilesteelnet"), feature_layer="maps")
    return _explainer(spec, _Pooled(), size, **more)


def _detector(size=16, **more):
    return _explainer(get_spec("grace"), _Spots(), size, **more)


def test_layer_cam_shows_what_raised_the_score_and_not_what_lowered_it():
    # d class 0 / d red = 2 / 64 > 0, d class 0 / d green = −1 / 64 < 0: only red counts, and its
    # normalised value is (1 − 0.485) / 0.229 > 0 where it is bright, −0.485 / 0.229 < 0 elsewhere.
    # Means: red (5·2.249 − 3·2.118) / 8 = 0.61, green (3·2.429 − 5·2.036) / 8 = −0.36: class 0.
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:, :5, 0] = 255  # red on the left
    pixels[:, 5:, 1] = 255  # green on the right
    heat = _classifier()(_image(pixels), method="layer")
    assert heat.dtype == np.float32
    expected = np.zeros((8, 8), np.float32)
    expected[:, :5] = 1
    np.testing.assert_allclose(heat, expected, atol=1e-6)


def test_a_principal_component_of_one_channel_is_that_channel_about_its_mean():
    # Mean of 0, 0, 0, 4 is 1; the activations are strongest where they are 4: there it is positive.
    component = first_component(np.array([[[0, 0], [0, 4]]], np.float32))
    np.testing.assert_allclose(component, [[-1, -1], [-1, 3]], atol=1e-6)


def test_a_principal_component_points_to_strong_activations_whatever_their_sign():
    # Two channels along (3, −4) / 5: places 0, 0, 0 and (−3, 4)·2, of length 10, mean 2.5.
    maps = np.zeros((2, 2, 2), np.float32)
    maps[:, 1, 1] = (-6, 8)
    np.testing.assert_allclose(first_component(maps), [[-2.5, -2.5], [-2.5, 7.5]], atol=1e-6)


def test_eigen_cam_needs_no_class():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2:4, 2:4] = 255
    heat = _classifier()(_image(pixels), method="eigen")
    assert heat[2:4, 2:4].min() == 1
    assert heat.sum() == pytest.approx(4)


def test_the_heat_lies_where_the_found_box_is_in_a_picture_that_was_padded():
    pixels = np.zeros((8, 32, 3), np.uint8)
    pixels[2:6, 20:24] = 255
    heat = _detector()(_image(pixels), method="layer")  # seen at 16 × 4 px with padding
    assert heat.shape == (8, 32)
    assert np.unravel_index(heat.argmax(), heat.shape)[1] in range(20, 24)
    assert heat[:, 20:24].mean() > 5 * heat[:, :16].mean()


def test_where_nothing_is_found_the_most_suspicious_place_is_shown():
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[3, 5] = 90  # a score of 0.35, below the threshold
    heat = _detector(threshold=0.5)(_image(pixels), method="layer")
    assert heat[3, 5] == 1
    assert heat.sum() == pytest.approx(1)


def test_tiles_of_a_large_picture_count_as_much_as_the_network_is_sure_of_them():
    # 16 px tiles of 12 px steps over 64: 0, 12, 24, 36, 48. A bright and a dim spot far apart.
    pixels = np.zeros((16, 64, 3), np.uint8)
    pixels[8, 4], pixels[8, 60] = 255, 128
    heat = _detector(threshold=0.3)(_image(pixels), method="layer")
    assert heat.shape == (16, 64)
    assert heat[8, 4] == 1
    assert heat[8, 60] == pytest.approx(128 / 255, abs=0.01)


def test_a_picture_without_anything_in_it_has_no_heat():
    for method in METHODS:
        assert not _detector()(_image(np.zeros((9, 9, 3), np.uint8)), method=method).any()


def test_no_hook_stays_on_the_network():
    network = _Pooled()
    spec = replace(get_spec("mobilesteelnet"), feature_layer="maps")
    explain = _explainer(spec, network, 8)
    for method in METHODS:
        explain(_image(np.eye(8, dtype=np.uint8)[..., None].repeat(3, 2) * 255), method=method)
    assert not network.maps._forward_hooks
    assert network.maps.weight.grad is None


def _plate_with_a_spot():
    """Grey rolled steel with one dark spot, which every model of NEU calls some defect."""
    rng = np.random.default_rng(7)
    plate = 150 + 6 * rng.standard_normal((180, 200)) + 4 * rng.standard_normal(200)
    y, x = np.mgrid[:180, :200]
    spot = ((x - 140) / 22) ** 2 + ((y - 70) / 14) ** 2 < 1
    plate[spot] = 35 + 6 * rng.standard_normal(int(spot.sum()))
    return np.repeat(plate.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2), spot


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("method", METHODS)
def test_every_bundled_model_gives_heat_on_the_source_image(name, method):
    pixels, spot = _plate_with_a_spot()
    explain = load_explainer(BUNDLED / name)
    heat = explain(_image(pixels), method=method)
    assert heat.shape == (180, 200)
    assert heat.min() == 0
    assert heat.max() == pytest.approx(1)
    np.testing.assert_array_equal(heat, explain(_image(pixels), method=method))
    if method == "layer" and get_spec(name).task != "classify":
        assert heat[spot].mean() > 2 * heat[~spot].mean()


def test_a_folder_without_a_release_is_said(tmp_path):
    with pytest.raises(WeightsNotFoundError, match="No release"):
        load_explainer(tmp_path)
