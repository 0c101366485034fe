"""The door to ultralytics: building, swapping layers, and starting from folded COCO arrays."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import ConfigError, WeightsError
from models import gms2_yolo
from models._ultralytics import (
    DetectionNetwork,
    build_detector,
    finish,
    load_coco_npz,
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


def _folded(network):
    """What ultralytics exports: BatchNorm folded into the convolutions."""
    import copy

    fused = copy.deepcopy(network).eval().fuse(verbose=False)
    return {k: v.detach().numpy() for k, v in fused.state_dict().items()}


def test_folded_arrays_keep_their_function_on_the_images_they_are_settled_on(tmp_path):
    """Batch statistics replace the folded ones, so on those images nothing changes."""
    torch.manual_seed(1)
    source = build_detector(yolo11_config("n"), 6)
    for module in source.modules():  # a BatchNorm that does something
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    np.savez(tmp_path / "coco.npz", **_folded(source))
    torch.manual_seed(2)
    target = build_detector(yolo11_config("n"), 6)
    images = torch.rand(8, 3, 64, 64)
    taken = load_coco_npz(target, tmp_path / "coco.npz", images)
    assert "model.0.conv.weight" in taken
    with torch.no_grad():
        expected, got = source.eval()(images)[0], target.eval()(images)[0]
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-2)
    # and the network is ready for training: with batch statistics it computes the same
    with torch.no_grad():
        live = target.train()(images)["scores"].sigmoid()
    torch.testing.assert_close(live, expected[:, 4:], rtol=1e-2, atol=1e-3)


def test_layers_lent_behind_untrained_ones_pass_on_what_they_are_given(tmp_path):
    """SPPF, C2PSA and two convolutions of the neck are lent, a backbone that begins anew is not.

    With its normalisations at 0 and 1 the backbone's maps fade to nothing in eval mode; lent layers
    settled on nothing have weight √ε = 0.03 and shut the whole of P5 off, in training as well.
    """
    torch.manual_seed(1)
    source = build_detector(yolo11_config("n"), 6)
    np.savez(tmp_path / "coco.npz", **_folded(source))
    torch.manual_seed(2)
    target = gms2_yolo.build(6, "n")
    images = torch.rand(8, 3, 64, 64)
    load_coco_npz(target, tmp_path / "coco.npz", images, layers=gms2_yolo.COCO_LAYERS)
    for layer in (target.model[10].cv1, target.model[18], target.model[21]):
        assert layer.bn.weight.median() > 0.2
    with torch.no_grad():
        settled = target.eval()(images)[1]
        live = target.train()(images)
    for part in ("boxes", "scores"):
        torch.testing.assert_close(live[part], settled[part], rtol=1e-2, atol=1e-2)


def test_arrays_move_with_the_layers_of_a_network_that_inserted_some(tmp_path):
    np.savez(
        tmp_path / "a.npz",
        **{
            "model.0.conv.weight": np.full((16, 3, 3, 3), 0.5, np.float32),
            "model.0.conv.bias": np.zeros(16, np.float32),
        },
    )
    network = build_detector(yolo11_config("n"), 6)
    images = torch.rand(2, 3, 64, 64)
    with pytest.raises(WeightsError, match="Nothing in"):
        load_coco_npz(network, tmp_path / "a.npz", images, layers={1: 0})  # shapes do not fit
    assert load_coco_npz(network, tmp_path / "a.npz", images, layers={0: 0}) == [
        "model.0.conv.bias",
        "model.0.conv.weight",
    ]
    assert network.model[0].conv.weight.unique().tolist() == [0.5]


@pytest.mark.parametrize("data", [b"no", b"PK\x03\x04 cut off"], ids=["foreign", "cut off"])
def test_a_file_that_is_no_npz_is_an_error_of_one_sentence(data, tmp_path):
    (tmp_path / "x.npz").write_bytes(data)
    network = build_detector(yolo11_config("n"), 6)
    with pytest.raises(WeightsError, match="is not a readable npz"):
        load_coco_npz(network, tmp_path / "x.npz", torch.rand(1, 3, 64, 64))
