"""CIEMA, the attention of MobileSteelNet, against its equations and what follows from them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import ConfigError
from models._ciema import CIEMA, CoordinateAttention, CrossScale
from models.mobilesteelnet import SPEC
from tests.models._tensors import images, randomise


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def ciema_by_the_equations(m: CIEMA, x: Tensor) -> Tensor:
    """Steps 1 to 6 written out image by image and group by group, on the module's own weights."""

    def conv(layer: nn.Conv2d, u: Tensor) -> Tensor:
        return F.conv2d(u, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)

    def norm(layer: nn.BatchNorm2d, u: Tensor) -> Tensor:
        scale = layer.weight / (layer.running_var + 1e-5).sqrt()
        return (u - layer.running_mean[:, None, None]) * scale[:, None, None] + layer.bias[
            :, None, None
        ]

    def csl(u: Tensor) -> Tensor:
        z = torch.cat([conv(view, u) for view in m.csl.views])
        a = torch.sigmoid(norm(m.csl.gate[1], conv(m.csl.gate[0], z)))
        reduced = norm(m.csl.reduce[1], conv(m.csl.reduce[0], a * z))
        return reduced + m.csl.alpha * conv(m.csl.shortcut, u)

    def attend(u: Tensor) -> Tensor:  # (g, H, W)
        height = u.shape[1]
        coordinate = m.coordinate
        ends = torch.cat((u.mean(2), u.mean(1)), dim=1)[..., None]  # (g, H + W, 1)
        q = torch.sigmoid(conv(coordinate.shared, ends))[..., 0]
        gated = u * q[:, :height, None] * q[:, None, height:]
        mean, var = gated.mean((1, 2), keepdim=True), gated.var((1, 2), correction=0, keepdim=True)
        gamma, beta = coordinate.norm.weight[:, None, None], coordinate.norm.bias[:, None, None]
        p, q = csl((gated - mean) / (var + 1e-5).sqrt() * gamma + beta), csl(conv(m.local, u))
        w_p, w_q = p.mean((1, 2)).softmax(0), q.mean((1, 2)).softmax(0)
        s = torch.sigmoid(sum(w_p[c] * q[c] + w_q[c] * p[c] for c in range(len(u))))
        return u * s

    def mlp(v: Tensor) -> Tensor:
        squeeze, _, widen = m.channel_gate.mlp
        return widen.weight[..., 0, 0] @ (squeeze.weight[..., 0, 0] @ v).relu()

    out = []
    for image in x:
        a = torch.sigmoid(mlp(image.mean((1, 2))) + mlp(image.amax((1, 2))))[:, None, None]
        x1 = image * a + conv(m.mix, image) * (1 - a)
        seen = image if m.parallel else x1
        xs = torch.cat([attend(group) for group in seen.chunk(m.groups)])
        hidden = norm(m.refine[1], conv(m.refine[0], xs)).relu()
        r = norm(m.refine[4], conv(m.refine[3], hidden))
        gate = torch.sigmoid(norm(m.gate[1], conv(m.gate[0], torch.cat((xs, r)))))
        out.append(x1 * gate + xs * (1 - gate))
    return torch.stack(out)


@torch.no_grad()
@pytest.mark.parametrize("parallel", [False, True], ids=["one after the other", "side by side"])
def test_ciema_computes_its_six_steps(parallel: bool) -> None:
    ciema = randomise(CIEMA(32, 4, parallel=parallel))
    x = images(2, 32, 6, 5)
    assert torch.allclose(ciema(x), ciema_by_the_equations(ciema, x), atol=1e-5)


@torch.no_grad()
def test_only_the_light_scale_lets_the_two_branches_read_one_map() -> None:
    for scale, parallel in (("paper", False), ("light", True)):
        attention = SPEC.build(6, scale).attention
        assert isinstance(attention, CIEMA)
        assert attention.parallel is parallel, scale


@torch.no_grad()
def test_the_grouped_branch_reads_what_the_channel_interaction_made() -> None:
    ciema = randomise(CIEMA(64, 2))
    nn.init.dirac_(ciema.mix.weight)
    ciema.mix.weight.neg_()  # Conv(X) = −X, so that X1 = (2a − 1) X
    nn.init.zeros_(ciema.gate[0].weight)
    ciema.gate[1].running_mean.zero_()
    nn.init.constant_(ciema.gate[1].bias, -50.0)  # Gt = 0: the answer is Xs = X1 ⊙ S
    x = images(2, 64, 6, 5)
    answer, x1 = ciema(x), (2 * ciema.channel_gate(x) - 1) * x
    assert torch.equal(answer.sign(), x1.sign())
    assert not torch.equal(answer.sign(), x.sign())


def test_an_open_gate_without_weights_averages_the_two_branches() -> None:
    ciema = randomise(CIEMA(64, 2))
    nn.init.zeros_(ciema.gate[0].weight)
    ciema.gate[1].running_mean.zero_()
    nn.init.zeros_(ciema.gate[1].bias)  # Gt = σ(0) = ½
    x = images(2, 64, 6, 5)
    x1 = ciema.interact(x)
    expected = (x1 + ciema.attend(x1)) / 2
    assert torch.allclose(ciema(x), expected, atol=1e-5)


def test_channel_interaction_with_an_identity_convolution_changes_nothing() -> None:
    ciema = randomise(CIEMA(64, 2))
    nn.init.dirac_(ciema.mix.weight)
    x = images(2, 64, 6, 5)
    assert torch.allclose(ciema.interact(x), x, atol=1e-6)


def test_channel_interaction_is_weighted_by_the_channel_gate() -> None:
    ciema = randomise(CIEMA(64, 2))
    nn.init.zeros_(ciema.mix.weight)  # X1 = X ⊙ a
    x = images(2, 64, 6, 5)
    assert torch.allclose(ciema.interact(x), x * ciema.channel_gate(x), atol=1e-6)


def test_spatial_attention_shrinks_every_value_and_keeps_its_sign() -> None:
    ciema = randomise(CIEMA(64, 2))
    x = images(2, 64, 6, 5)
    s = ciema.attend(x) / x
    assert 0.0 < s.min() < s.max() < 1.0
    per_group = s.reshape(2, 2, 32, 6, 5)
    assert torch.allclose(per_group, per_group[:, :, :1].expand_as(per_group), atol=1e-5)


def test_spatial_attention_without_local_and_csl_weights_is_the_same_everywhere() -> None:
    ciema = randomise(CIEMA(64, 2))
    with torch.no_grad():
        for parameter in (*ciema.local.parameters(), *ciema.csl.parameters()):
            parameter.zero_()
        ciema.csl.reduce[1].bias.copy_(torch.arange(32.0) / 32)
    x = images(1, 64, 6, 5)
    # P = Q = the bias b, so S = σ(2 Σ softmax(b)·b), one number for the whole map
    b = torch.arange(32.0) / 32
    expected = torch.sigmoid(2 * (b.softmax(0) * b).sum())
    assert torch.allclose(ciema.attend(x), x * expected, atol=1e-6)


def test_csl_adds_alpha_times_the_shortcut() -> None:
    csl = randomise(CrossScale(8))
    x = images(2, 8, 5, 5)
    with torch.no_grad():
        csl.alpha.fill_(0.0)
        without = csl(x)
        csl.alpha.fill_(2.0)
        assert torch.allclose(csl(x), without + 2 * csl.shortcut(x), atol=1e-5)


def test_alpha_starts_at_one() -> None:
    assert CrossScale(8).alpha.item() == 1.0


def test_transposing_image_and_kernels_transposes_the_answer_of_ciema() -> None:
    ciema = randomise(CIEMA(64, 2))
    x = images(1, 64, 6, 5)
    straight = ciema(x)
    with torch.no_grad():
        for conv in (ciema.local, *ciema.csl.views):
            conv.weight.copy_(conv.weight.transpose(2, 3).clone())
    assert torch.allclose(ciema(x.transpose(2, 3)), straight.transpose(2, 3), atol=1e-5)


def test_csl_group_by_group_equals_the_batched_one_when_not_training() -> None:
    batched = randomise(CIEMA(64, 2))
    looped = CIEMA(64, 2, csl_loop=True).eval()
    looped.load_state_dict(batched.state_dict())
    x = images(3, 64, 6, 5)
    assert torch.allclose(looped(x), batched(x), atol=1e-5)


def test_csl_group_by_group_updates_running_statistics_per_group_and_branch() -> None:
    x = images(3, 64, 6, 5)
    for loop, updates in ((False, 2), (True, 4)):  # two branches, two groups
        ciema = CIEMA(64, 2, csl_loop=loop).train()
        ciema(x)
        assert ciema.csl.reduce[1].num_batches_tracked.item() == updates


def test_the_paper_s_coordinate_branch_has_two_more_convolutions_and_a_relu() -> None:
    code, paper = (CoordinateAttention(8, coord=c) for c in ("code", "paper"))
    assert parameters(paper) - parameters(code) == 2 * (8 * 8 + 8)
    with torch.no_grad():
        for module in (code, paper):
            module.shared.weight.zero_()
            module.shared.bias.fill_(-5.0)
        for conv in (paper.along_h, paper.along_w):
            nn.init.dirac_(conv.weight)
            nn.init.zeros_(conv.bias)
        # Every gate is σ(−5) in the code's form and σ(ReLU(−5)) = ½ in the formula's; the norm
        # would hide a constant factor.
        code.norm, paper.norm = nn.Identity(), nn.Identity()
        x = images(1, 8, 4, 3)
        assert torch.allclose(paper(x), x / 4)
        assert torch.allclose(code(x), x * torch.sigmoid(torch.tensor(-5.0)) ** 2)


def test_ciema_refuses_channels_that_do_not_divide() -> None:
    with pytest.raises(ConfigError, match="cannot split 100 channels into 3 equal groups"):
        CIEMA(100, 3)
