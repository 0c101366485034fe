"""Starting a detector from folded arrays of YOLO11: lent layers keep what they know."""

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import WeightsError
from models import gms2_yolo
from models._coco import load_coco_npz
from models._ultralytics import build_detector, yolo11_config


def _folded(network):
    """What ultralytics exports: BatchNorm folded into the convolutions."""
    import copy

    fused = copy.deepcopy(network).eval().fuse(verbose=False)
    return {k: v.detach().numpy() for k, v in fused.state_dict().items()}


def _let_know(network, images):
    """Give every BatchNorm the mean and variance of its input on these images."""
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network.train()(images)


def _scale(layer):
    return layer.bn.weight / (layer.bn.running_var + layer.bn.eps).sqrt()


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
    assert "model.0.conv.weight" in taken.names
    assert not taken.is_widened
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
    images = torch.rand(8, 3, 64, 64)
    _let_know(source, images)
    np.savez(tmp_path / "coco.npz", **_folded(source))
    torch.manual_seed(2)
    target = gms2_yolo.build(6, "n")
    load_coco_npz(target, tmp_path / "coco.npz", images, layers=gms2_yolo.COCO_LAYERS)
    for ours in (10, 18, 21):
        lent, of = target.model[ours], source.model[gms2_yolo.COCO_LAYERS[ours]]
        lent, of = (lent, of) if hasattr(lent, "bn") else (lent.cv1, of.cv1)
        folded = of.conv.weight * _scale(of)[:, None, None, None]
        torch.testing.assert_close(lent.conv.weight, folded)
        # what leaves the layer is about as large as in YOLO11, whose own weights are 1
        assert lent.bn.weight.median().item() == pytest.approx(1, abs=0.3)
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
    assert load_coco_npz(network, tmp_path / "a.npz", images, layers={0: 0}).names == [
        "model.0.conv.bias",
        "model.0.conv.weight",
    ]
    assert network.model[0].conv.weight.unique().tolist() == [0.5]


def test_missing_arrays_are_told_with_the_command_that_makes_them(tmp_path):
    network = build_detector(yolo11_config("n"), 6)
    with pytest.raises(WeightsError, match=r"No arrays at .*yolo11n.npz: `python -m training conv"):
        load_coco_npz(network, tmp_path / "yolo11n.npz", torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("data", [b"no", b"PK\x03\x04 cut off"], ids=["foreign", "cut off"])
def test_a_file_that_is_no_npz_is_an_error_of_one_sentence(data, tmp_path):
    (tmp_path / "x.npz").write_bytes(data)
    network = build_detector(yolo11_config("n"), 6)
    with pytest.raises(WeightsError, match="is not a readable npz"):
        load_coco_npz(network, tmp_path / "x.npz", torch.rand(1, 3, 64, 64))
