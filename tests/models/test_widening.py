"""A wide detector that begins as a narrow one: twins of every channel, and the same answers."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from core.errors import WeightsError
from models import get_spec
from models._coco import load_coco_npz
from models._ultralytics import build_detector, yolo11_config
from models._widening import widen

# What 3DAM convolves along the channels with follows from how many there are: it begins anew.
NEW_IN_DA_YOLO = {"model.5.channel.conv.weight", "model.8.channel.conv.weight"}


def _shapes(network):
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


def _lively(network):
    """A network whose BatchNorms do something and know their inputs, in eval mode."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
            module.momentum = 1.0  # else what is deep in the network fades to nothing
    with torch.no_grad():
        network.train()(torch.rand(4, 3, 64, 64))
    return network.eval()


def test_twins_share_what_their_channel_was_weighted_with():
    narrow = {
        "model.0.conv.weight": torch.tensor([[3.0, 5.0]])[..., None, None],
        "model.0.bn.bias": torch.tensor([7.0]),
        "model.0.bn.num_batches_tracked": torch.tensor(4),
        "model.1.conv.bias": torch.tensor([9.0]),  # the head: as many classes as before
    }
    shapes = {
        "model.0.conv.weight": torch.Size([2, 4, 1, 1]),
        "model.0.bn.bias": torch.Size([2]),
        "model.0.bn.num_batches_tracked": torch.Size([]),
        "model.1.conv.bias": torch.Size([1]),
    }
    wide = widen(narrow, shapes)
    weight = wide["model.0.conv.weight"].flatten(1)
    torch.testing.assert_close(weight[:, :2].sum(1), torch.tensor([3.0, 3.0]))
    torch.testing.assert_close(weight[:, 2:].sum(1), torch.tensor([5.0, 5.0]))
    assert not torch.equal(weight[0], weight[1])  # else both would learn the same for ever
    assert ((weight[:, :2] >= 0.6) & (weight[:, :2] <= 2.4)).all()  # a fifth to four fifths of 3
    assert wide["model.0.bn.bias"].tolist() == [7.0, 7.0]
    assert wide["model.0.bn.num_batches_tracked"] == 4
    assert wide["model.1.conv.bias"].tolist() == [9.0]
    assert torch.equal(weight, widen(narrow, shapes)["model.0.conv.weight"].flatten(1))


def test_a_wide_network_has_more_heads_and_not_wider_ones():
    """128 channels of queries, keys and values a head; each head stands twice, whole."""
    asked, told = "model.10.m.0.attn.qkv.conv.bias", "model.10.m.0.attn.pe.conv.bias"
    head = {"model.23.cv3.0.2.bias": torch.zeros(3)}
    wide = widen(
        {asked: torch.arange(256), told: torch.arange(128), **head},
        {asked: torch.Size([512]), told: torch.Size([256]), **{n: head[n].shape for n in head}},
    )
    assert [int(wide[asked][i]) for i in (0, 127, 128, 255, 256, 384, 511)] == [
        *(0, 127, 0, 127, 128, 128, 255)
    ]
    assert [int(wide[told][i]) for i in (0, 63, 64, 128, 192)] == [0, 63, 0, 64, 64]  # 64 a head


@pytest.mark.parametrize("name", ["yolo11", "grace"])
def test_a_detector_of_scale_s_begins_by_answering_as_the_one_of_scale_n(name):
    torch.manual_seed(0)
    narrow, wide = _lively(get_spec(name).build(3, "n")), get_spec(name).build(3, "s").eval()
    wide.load_state_dict(widen(narrow.state_dict(), _shapes(wide)))
    images = torch.rand(2, 3, 96, 64)
    with torch.no_grad():
        expected, got = narrow(images)[1]["scores"], wide(images)[1]["scores"]
    assert expected.std() > 1.0  # there is something to be the same
    torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.std()))


def test_of_da_yolo_all_is_lent_whose_shape_does_not_follow_from_the_channels():
    spec = get_spec("da_yolo")
    wide = _shapes(spec.build(3, "s"))
    assert wide.keys() - widen(spec.build(3, "n").state_dict(), wide).keys() == NEW_IN_DA_YOLO


def test_twins_part_ways_in_training():
    torch.manual_seed(0)
    wide = get_spec("yolo11").build(3, "s")
    wide.load_state_dict(
        widen(_lively(get_spec("yolo11").build(3, "n")).state_dict(), _shapes(wide))
    )
    wide.train()(torch.rand(2, 3, 64, 64))["scores"].square().sum().backward()
    pushed = wide.model[2].cv1.conv.weight.grad
    assert torch.equal(wide.model[2].cv1.bn.weight[0::2], wide.model[2].cv1.bn.weight[1::2])
    apart = (pushed[0::2] - pushed[1::2]).flatten(1).norm(dim=1)
    assert (apart > 0.01 * pushed[0::2].flatten(1).norm(dim=1)).float().mean() > 0.9


@pytest.mark.parametrize(
    ("name", "of", "to"),
    [
        *(("yolo11", "n", "m"), ("yolo11", "s", "m"), ("yolo11", "s", "n"), ("yolo11", "n", "n")),
        ("gms2_yolo", "n", "s"),  # 16 channels become 24 in its stem, and are joined with others
    ],
)
def test_what_differs_in_more_than_its_width_is_refused(name, of, to):
    narrow, wide = (get_spec(name).build(3, scale) for scale in (of, to))
    with pytest.raises(WeightsError, match="n can begin s"):
        widen(narrow.state_dict(), _shapes(wide))


def test_coco_arrays_of_scale_n_begin_a_network_of_scale_s(tmp_path):
    torch.manual_seed(1)
    source = _lively(build_detector(yolo11_config("n"), 80))
    fused = copy.deepcopy(source).fuse(verbose=False).state_dict()
    np.savez(tmp_path / "yolo11n.npz", **{k: v.detach().numpy() for k, v in fused.items()})
    images = torch.rand(8, 3, 64, 64)
    target = build_detector(yolo11_config("s"), 80)
    lent = load_coco_npz(target, tmp_path / "yolo11n.npz", images)
    assert lent.is_widened
    assert len(lent.names) == 174  # all but the DFL
    with torch.no_grad():
        expected, got = source(images)[1]["scores"], target.eval()(images)[1]["scores"]
    assert expected.std() > 1.0
    torch.testing.assert_close(got, expected, rtol=1e-2, atol=1e-3 * float(expected.std()))
    other = load_coco_npz(build_detector(yolo11_config("s"), 6), tmp_path / "yolo11n.npz", images)
    assert len(other.names) == 168  # nor the three that name classes
    with pytest.raises(WeightsError, match="n can begin s"):
        load_coco_npz(build_detector(yolo11_config("m"), 80), tmp_path / "yolo11n.npz", images)
