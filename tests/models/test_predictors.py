"""The adapters between networks and results, with networks whose answers are written by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from core.types import Classification, DecodedImage, Detections, Segmentation
from models import get_spec
from models._pictures import normalise
from models._predictors import make_predictor


class _Says(nn.Module):
    """Answers every image with the same tensor, and remembers what it was shown."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer
        self.seen = None

    def forward(self, x):
        self.seen = x
        return self.answer.expand(len(x), *self.answer.shape[1:])


def _image(height, width, value=0):
    return DecodedImage(np.full((height, width, 3), value, np.uint8), sha256="0" * 64)


def _predictor(model, answer, labels, size):
    network = _Says(answer)
    predictor = make_predictor(
        get_spec(model), network, labels=labels, image_size=size, revision="r1"
    )
    return predictor, network


def _raw(*boxes, classes=2):
    """(1, 4 + C, A): centre x, centre y, width, height, one score per class."""
    return torch.tensor([list(row) for row in boxes]).T[None].float()


def test_a_box_comes_back_in_pixels_of_the_source_image():
    # 100 wide, 200 high into 64 px: scale 0.32, so 32 px wide with 16 px of padding left and right.
    # Centre (32, 16), size (16, 8) is x 24..40, y 12..20; minus padding 8..24; over 0.32 25..75.
    # Centre (32, 56) is y 52..60, over 0.32 162.5..187.5: below what the width would allow.
    rows = _raw((32, 16, 16, 8, 0.9, 0.0), (32, 56, 16, 8, 0.8, 0.0))
    predictor, _ = _predictor("grace", rows, ("a", "b"), 64)
    (found,) = predictor([_image(200, 100)], score_threshold=0.5)
    assert isinstance(found, Detections)
    expected = [[25.0, 37.5, 75.0, 62.5], [25.0, 162.5, 75.0, 187.5]]
    np.testing.assert_allclose(found.xyxy, expected, atol=1e-4)
    assert found.scores.tolist() == pytest.approx([0.9, 0.8])
    assert (found.source.width, found.source.height) == (100, 200)
    assert (found.source.model, found.source.revision) == ("grace", "r1")


def test_a_detector_is_shown_the_colours_of_a_picture_and_the_one_of_a_grey_picture():
    predictor, network = _predictor("grace", _raw((32, 32, 8, 8, 0.9, 0.0)), ("a", "b"), 64)
    rust = np.full((128, 128, 3), (180, 80, 40), np.uint8)
    for colour in (DecodedImage(rust, sha256="1" * 64), DecodedImage(rust[:64, :64], "2" * 64)):
        predictor([colour], score_threshold=0.5)
        seen = network.seen[0, :, 32, 32] * 255
        assert seen.tolist() == pytest.approx([180, 80, 40])
    grey = DecodedImage(np.full((128, 128, 3), 90, np.uint8), sha256="3" * 64, is_grey=True)
    predictor([grey], score_threshold=0.5)
    assert (network.seen[0, :, 32, 32] * 255).tolist() == pytest.approx([90, 90, 90])


def test_boxes_are_clipped_to_the_image():
    predictor, _ = _predictor("grace", _raw((0, 0, 40, 40, 0.9, 0.0)), ("a", "b"), 64)
    (found,) = predictor([_image(64, 64)], score_threshold=0.5)
    np.testing.assert_allclose(found.xyxy, [[0, 0, 20, 20]])


def test_overlapping_boxes_of_one_class_are_one_finding_and_of_two_classes_two():
    rows = _raw(
        (20, 20, 20, 20, 0.9, 0.0),
        (21, 20, 20, 20, 0.8, 0.0),  # IoU 19/21 = 0.905 with the first, same class: dropped
        (21, 20, 20, 20, 0.0, 0.7),  # the same place, another class: kept
    )
    predictor, _ = _predictor("grace", rows, ("a", "b"), 64)
    (found,) = predictor([_image(64, 64)], score_threshold=0.5)
    assert found.class_ids.tolist() == [0, 1]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_findings_below_the_threshold_are_left_out_and_at_it_kept():
    rows = _raw((10, 10, 5, 5, 0.5, 0.0), (40, 40, 5, 5, 0.25, 0.0))
    predictor, _ = _predictor("grace", rows, ("a", "b"), 64)
    assert len(predictor([_image(64, 64)], score_threshold=0.5)[0]) == 1
    assert len(predictor([_image(64, 64)], score_threshold=0.25)[0]) == 2
    assert len(predictor([_image(64, 64)], score_threshold=0.75)[0]) == 0


def test_a_detector_sees_rgb_between_0_and_1_on_grey_padding():
    predictor, network = _predictor("grace", _raw((1, 1, 1, 1, 0.0, 0.0)), ("a", "b"), 64)
    predictor([_image(32, 64, value=255)], score_threshold=0.5)
    assert network.seen.shape == (1, 3, 64, 64)
    assert network.seen[0, :, 0, 0].tolist() == pytest.approx([114 / 255] * 3)
    assert network.seen[0, :, 32, 32].tolist() == [1.0, 1.0, 1.0]


def test_a_class_map_has_the_size_of_the_source_and_the_probability_of_its_class():
    logits = torch.zeros(1, 3, 8, 16)
    logits[:, 2, :, 8:] = torch.log(torch.tensor(8.0))  # right half: 8 / (1 + 1 + 8) = 0.8
    logits[:, 0, :, :8] = torch.log(torch.tensor(2.0))  # left half: 2 / (2 + 1 + 1) = 0.5
    predictor, network = _predictor("sme_deeplabv3plus", logits, ("a", "b"), 64)
    (found,) = predictor([_image(100, 200)], score_threshold=0.5)
    assert isinstance(found, Segmentation)
    assert network.seen.shape == (1, 3, 32, 64)  # aspect kept
    assert found.class_map.shape == (100, 200)
    assert found.class_map[50, 10] == 0
    assert found.class_map[50, 190] == 2
    assert found.scores[50, 10] == pytest.approx(0.5)
    assert found.scores[50, 190] == pytest.approx(0.8)


class _Brighter(nn.Module):
    """Class 1 where a pixel is bright, class 2 where it is dark; counts what it is shown."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        bright = x[:, :1] * 10
        return torch.cat((torch.zeros_like(bright), bright, 10 - bright), dim=1)


def test_pictures_of_one_size_share_a_pass_and_each_gets_its_own_map():
    network = _Brighter()
    predictor = make_predictor(
        get_spec("sme_deeplabv3plus"), network, labels=("a", "b"), image_size=64, revision="r1"
    )
    shown = [_image(100, 200, 255), _image(200, 100, 255), _image(50, 100), _image(200, 100)]
    found = predictor(shown, score_threshold=0.5)
    assert network.shapes == [(2, 3, 32, 64), (2, 3, 64, 32)]  # long side 64, aspect kept
    assert [np.unique(each.class_map).tolist() for each in found] == [[1], [1], [2], [2]]
    assert [each.class_map.shape for each in found] == [
        (100, 200),
        (200, 100),
        (50, 100),
        (200, 100),
    ]


def test_class_probabilities_sum_to_one():
    answer = torch.log(torch.tensor([[1.0, 3.0]]))
    predictor, network = _predictor("mobilesteelnet", answer, ("a", "b"), 32)
    found = predictor([_image(10, 20), _image(7, 7)], score_threshold=0.0)
    assert all(isinstance(each, Classification) for each in found)
    assert found[0].probabilities.tolist() == pytest.approx([0.25, 0.75])
    assert found[0].best == 1
    assert network.seen.shape == (2, 3, 32, 32)


def test_normalisation_is_imagenets():
    # (0.485 - 0.485) / 0.229 = 0, (0.68 - 0.456) / 0.224 = 1, (0.181 - 0.406) / 0.225 = -1
    pixel = torch.tensor([0.485, 0.68, 0.181])[None, :, None, None]
    assert normalise(pixel).flatten().tolist() == pytest.approx([0.0, 1.0, -1.0], abs=1e-6)


def test_more_images_than_a_batch_come_back_in_order():
    predictor, _ = _predictor("mobilesteelnet", torch.zeros(1, 2), ("a", "b"), 32)
    images = [_image(5 + i, 5) for i in range(35)]
    found = predictor(images, score_threshold=0.0)
    assert [each.source.height for each in found] == [5 + i for i in range(35)]


def test_no_images_no_results():
    predictor, _ = _predictor("mobilesteelnet", torch.zeros(1, 2), ("a", "b"), 32)
    assert predictor([], score_threshold=0.0) == []
