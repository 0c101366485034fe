"""The stock networks: exact parameter counts, and schedules equal to those of the papers."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.errors import ConfigError
from models import get_spec
from models.baselines import SPECS


@pytest.mark.parametrize(
    ("name", "scale", "n_classes", "expected"),
    [
        # ultralytics 8.4.190, unfused; 6 classes: NEU-DET, 10: GC10-DET, 80: COCO
        ("yolo11", "n", 6, 2_591_010),
        ("yolo11", "n", 10, 2_591_790),
        ("yolo11", "n", 80, 2_624_080),
        ("yolo11", "s", 6, 9_430_114),
        ("yolo11", "s", 10, 9_431_662),
        ("yolo11", "s", 80, 9_458_752),
        ("yolo11", "m", 6, 20_057_634),
        ("yolo11", "m", 10, 20_060_718),
        ("yolo11", "m", 80, 20_114_688),
        # MobileNetV1 has 4 231 976 with its 1000 classes, of which the last layer is 1 025 000
        ("mobilenet_v1", "standard", 6, 4_231_976 - 1_025_000 + 6_150),
        # likewise 3 504 872 less 1 281 000, and 25 557 032 less 2 049 000
        ("mobilenet_v2", "standard", 6, 3_504_872 - 1_281_000 + 7_686),
        ("resnet50", "standard", 6, 25_557_032 - 2_049_000 + 12_294),
        # two more classes are two more 1×1 filters on 256 channels, with their bias
        ("deeplabv3plus", "mobilenet_v2", 3, 4_379_284),
        ("deeplabv3plus", "mobilenet_v2", 5, 4_379_284 + 2 * 257),
        ("deeplabv3plus", "resnet18", 3, 12_330_068),
    ],
)
def test_every_baseline_has_exactly_its_parameters(
    name: str, scale: str, n_classes: int, expected: int
) -> None:
    with torch.device("meta") if name != "yolo11" else torch.device("cpu"):
        network = SPECS[name].build(n_classes, scale)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(
    ("baseline", "paper"),
    [
        ("yolo11", "gms2_yolo"),
        ("deeplabv3plus", "sme_deeplabv3plus"),
        ("mobilenet_v1", "mobilesteelnet"),
        ("mobilenet_v2", "mobilesteelnet"),
        ("resnet50", "mobilesteelnet"),
    ],
)
def test_a_baseline_has_the_schedule_and_input_size_of_its_paper(baseline: str, paper: str) -> None:
    ours, theirs = get_spec(baseline), get_spec(paper)
    assert (ours.task, ours.image_size) == (theirs.task, theirs.image_size)
    # what short runs are spared of a paper is the paper's own affair
    assert ours.recipe == replace(theirs.recipe, in_short={})


@pytest.mark.parametrize("name", SPECS)
def test_an_unknown_scale_of_a_baseline_is_refused_with_the_scales_it_has(name: str) -> None:
    spec = SPECS[name]
    with pytest.raises(ConfigError) as refused:
        spec.build(6, "xxl")
    assert str(refused.value) == (
        f"Unknown scale 'xxl'. {spec.title} has: {', '.join(spec.scales)}."
    )


def test_the_segmentation_baseline_pads_with_the_border_and_crops_back() -> None:
    torch.manual_seed(0)
    network = SPECS["deeplabv3plus"].build(3, "mobilenet_v2").eval()
    image = torch.rand(1, 3, 48, 48)
    image[..., 40:, :] = image[..., 39:40, :]  # the border, repeated by hand
    with torch.no_grad():
        assert torch.allclose(network(image[..., :40, :]), network(image)[..., :40, :], atol=1e-5)


def test_listing_the_baselines_loads_no_network_library() -> None:
    code = (
        "import sys, models; models.baseline_names(); models.names(); "
        "print([m for m in ('torch', 'torchvision', 'ultralytics', "
        "'segmentation_models_pytorch') if m in sys.modules])"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")
