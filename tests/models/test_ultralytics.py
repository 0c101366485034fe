"""The door to ultralytics: building networks and swapping their layers."""

import os

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from models._ultralytics import (
    DetectionNetwork,
    build_detector,
    finish,
    replace_layer,
    width,
    yolo11_config,
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_detector(yolo11_config("n"), 6)


def test_importing_the_door_switches_off_installs_and_telemetry():
    from ultralytics.utils import SETTINGS

    assert os.environ["YOLO_AUTOINSTALL"] == "false"
    assert SETTINGS["sync"] is False


def test_stock_yolo11n_has_its_known_size_and_strides(network):
    assert sum(p.numel() for p in network.parameters()) == 2_591_010
    assert network.stride.tolist() == [8.0, 16.0, 32.0]


def test_an_unknown_scale_names_those_there_are():
    with pytest.raises(ConfigError, match=r"Unknown scale 'xx'\. YOLO11 has: n, s, m, l, x"):
        yolo11_config("xx")


@pytest.mark.parametrize(
    ("scale", "channels", "expected"),
    [("n", 1024, 256), ("s", 1024, 512), ("m", 1024, 512), ("n", 48, 16), ("n", 96, 24)],
)
def test_width_is_scaled_capped_and_rounded_up_to_eights(scale, channels, expected):
    assert width(yolo11_config(scale), channels) == expected


def test_a_swapped_layer_takes_the_place_and_the_inputs_it_is_given():
    torch.manual_seed(0)
    network = build_detector(yolo11_config("n"), 6)
    replace_layer(network, 11, nn.Upsample(scale_factor=2), inputs=9)
    assert (network.model[11].i, network.model[11].f) == (11, 9)
    assert 9 in network.save
    finish(network)
    assert network.stride.tolist() == [8.0, 16.0, 32.0]


def test_a_detector_must_end_in_a_detect_head():
    network = build_detector(yolo11_config("n"), 6)
    replace_layer(network, 23, nn.Identity())
    with pytest.raises(ConfigError, match="Detect head"):
        finish(network)


def test_the_criterion_of_the_paper_is_used_by_the_averaged_copy_too():
    from ultralytics.utils.torch_utils import ModelEMA

    network = build_detector(yolo11_config("n"), 6)
    network.criterion_factory = lambda owner: ("ours", owner)
    averaged = ModelEMA(network).ema
    assert isinstance(averaged, DetectionNetwork)
    assert averaged.init_criterion() == ("ours", averaged)
