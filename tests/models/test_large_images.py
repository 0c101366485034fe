"""Pictures much larger than the trained ones, through predictors whose networks are hand-made."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.types import Classification, DecodedImage, Detections, Segmentation
from models import get_spec, load
from models._class_maps import class_map, enlarged
from models._predictors import make_predictor
from models._steps import told_to
from tests.demo import releases

SIZE = 64


class _BrightBox(nn.Module):
    """A detector of one class: the frame around the bright pixels of each picture, score 0.9."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def forward(self, x):
        self.shapes.append(tuple(x.shape))
        rows = []
        for picture in x[:, 0]:
            ys, xs = torch.nonzero(picture > 0.9, as_tuple=True)
            if not len(xs):
                rows.append(torch.zeros(5, 1))
                continue
            x1, x2, y1, y2 = xs.min(), xs.max() + 1, ys.min(), ys.max() + 1
            box = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, torch.tensor(0.9)]
            rows.append(torch.tensor([float(v) for v in box])[:, None])
        return torch.stack(rows)


class _Blurred(nn.Module):
    """A segmenter of one class: the logit is a 5 × 5 mean of brightness; reaches 2 px."""

    def forward(self, x):
        logit = 8 * F.avg_pool2d(x[:, :1], 5, stride=1, padding=2) - 4
        return torch.cat((torch.zeros_like(logit), logit), dim=1)


class _Brightness(nn.Module):
    """A classifier that says class b as surely as its picture is bright."""

    def forward(self, x):
        return torch.stack((torch.zeros(len(x)), 3 * x.mean((1, 2, 3))), dim=1)


def _image(pixels):
    return DecodedImage(np.repeat(pixels[..., None], 3, axis=2), sha256="0" * 64)


def _predictor(model, network, labels, **more):
    return make_predictor(
        get_spec(model), network, labels=labels, image_size=SIZE, revision="r1", **more
    )


def test_a_scratch_across_many_tiles_of_a_line_scan_frame_is_one_box():
    pixels = np.zeros((100, 700), np.uint8)
    pixels[40:44, 50:650] = 255
    network = _BrightBox()
    predictor = _predictor("grace", network, ("a",), native_px=SIZE)
    (found,) = predictor([_image(pixels)], score_threshold=0.5)
    assert isinstance(found, Detections)
    np.testing.assert_allclose(found.xyxy, [[50, 40, 650, 44]])
    assert {shape[1:] for shape in network.shapes} == {(3, SIZE, SIZE)}
    assert max(shape[0] for shape in network.shapes) <= 16  # a batch at a time


def test_boxes_of_tiles_come_back_in_source_pixels_when_the_network_s_scale_is_another():
    pixels = np.zeros((32, 400), np.uint8)
    pixels[8:16, 200:216] = 255
    # Trained on 32 px shown at 64: twice the scale, 800 × 64 px, tiles of 64.
    predictor = _predictor("grace", _BrightBox(), ("a",), native_px=32)
    (found,) = predictor([_image(pixels)], score_threshold=0.5)
    np.testing.assert_allclose(found.xyxy, [[200, 8, 216, 16]], atol=0.51)


def test_without_a_trained_size_a_large_picture_is_shrunk_to_fit():
    network = _BrightBox()
    predictor = _predictor("grace", network, ("a",))
    predictor([_image(np.zeros((100, 700), np.uint8))], score_threshold=0.5)
    assert network.shapes == [(1, 3, SIZE, SIZE)]


def test_a_segmenter_shows_no_seam_between_tiles():
    pixels = np.random.default_rng(5).integers(0, 256, (150, 333)).astype(np.uint8)
    network = _Blurred()
    predictor = _predictor("sme_deeplabv3plus", network, ("a",), native_px=SIZE)
    (found,) = predictor([_image(pixels)], score_threshold=0.5)
    assert isinstance(found, Segmentation)
    whole = torch.from_numpy(pixels).float().expand(1, 3, -1, -1) / 255
    expected = network(whole).softmax(1)[0].max(0)
    np.testing.assert_allclose(found.scores, expected.values, atol=2e-6)
    sure = np.abs(found.scores - 0.5) > 1e-5
    assert (found.class_map == expected.indices.numpy())[sure].all()


def test_a_classifier_gives_the_mean_of_what_the_tiles_show():
    pixels = np.zeros((64, 256), np.uint8)
    pixels[:, 128:] = 255
    seen = []
    predictor = _predictor("mobilesteelnet", _Brightness(), ("a", "b"), native_px=SIZE)
    for x in (0, 48, 96, 144, 192):  # 1 + ceil(192 / 48) = 5 tiles of 64 px
        part = np.ascontiguousarray(pixels[:, x : x + SIZE])
        seen.append(predictor([_image(part)], score_threshold=0.0)[0].probabilities)
    (found,) = predictor([_image(pixels)], score_threshold=0.0)
    assert isinstance(found, Classification)
    np.testing.assert_allclose(found.probabilities, np.mean(seen, axis=0), rtol=1e-6)
    assert found.probabilities.sum() == pytest.approx(1)


class _Featured:
    """Where a network runs: the same vector (1, 3) for every picture; counts what it is shown."""

    def __init__(self, network):
        self.network = network
        self.batches = []

    def __call__(self, x):
        self.batches.append(len(x))
        return self.network(x), torch.tensor([[1.0, 3.0]]).expand(len(x), 2)


@pytest.mark.parametrize(
    ("model", "network", "small_ms"),
    [
        pytest.param("grace", _BrightBox(), 500, id="half of the second that two take"),
        # Its own map is made after the pass that it shared: half a second and one.
        pytest.param("sme_deeplabv3plus", _Blurred(), 1500, id="and its own map"),
        pytest.param("mobilesteelnet", _Brightness(), 500, id="half a second again"),
    ],
)
def test_a_large_picture_has_the_mean_of_its_tiles_vectors_and_the_time_of_all(
    model, network, small_ms, monkeypatch
):
    seconds = itertools.count(7)  # whatever lies between two looks at the clock takes one
    clock = SimpleNamespace(perf_counter=lambda: next(seconds))
    monkeypatch.setattr("models._predictors.time", clock)
    labels = ("a", "b") if model == "mobilesteelnet" else ("a",)
    runtime = _Featured(network)
    predictor = _predictor(model, runtime, labels, native_px=SIZE)
    small, large = (_image(np.zeros((SIZE, width), np.uint8)) for width in (SIZE, 300))
    answers = predictor([small, large, small], score_threshold=0.5)
    assert [found.source.latency_ms for found in answers] == [small_ms, 1000, small_ms]
    assert [found.source.features.tolist() for found in answers] == [[1.0, 3.0]] * 3
    assert runtime.batches[0] == 2  # the large one is looked at in tiles alone


def test_many_pictures_are_looked_at_sixteen_at_a_time():
    runtime = _Featured(_BrightBox())
    predictor = _predictor("grace", runtime, ("a",))
    assert len(predictor([_image(np.zeros((8, 8), np.uint8))] * 17, score_threshold=0.5)) == 17
    assert runtime.batches == [16, 1]


def test_small_and_large_pictures_come_back_in_order():
    predictor = _predictor("mobilesteelnet", _Brightness(), ("a", "b"), native_px=SIZE)
    widths = [300, 10, 200, 20]
    found = predictor([_image(np.zeros((9, w), np.uint8)) for w in widths], score_threshold=0.0)
    assert [each.source.width for each in found] == widths


@pytest.mark.parametrize("size", [(7, 5), (160, 160), (3, 1000), (1, 1)])
def test_strips_are_the_interpolation_of_the_whole(size, monkeypatch):
    monkeypatch.setattr("models._class_maps.STRIP_PIXELS", 4 * size[1])
    maps = torch.rand(3, 11, 6, generator=torch.Generator().manual_seed(1))
    strips = list(enlarged(maps, *size))
    whole = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    assert len(strips) == -(-size[0] // 4)
    torch.testing.assert_close(torch.cat([s for _, s in strips], dim=1), whole)


def test_a_pixel_takes_the_class_that_passes_its_threshold_by_the_largest_ratio():
    # Background, a, b; thresholds a 0.5, b 0.2.
    columns = [
        (0.70, 0.10, 0.20),  # b reaches 0.2: b, although the background is more probable
        (0.55, 0.40, 0.05),  # neither passes: background
        (0.10, 0.55, 0.35),  # a by 1.1, b by 1.75: b
        (0.05, 0.90, 0.05),  # a
    ]
    maps = torch.tensor(columns).T[:, None]  # (3, 1, 4)
    classes, scores = class_map(maps, 1, 4, torch.tensor([0.5, 0.2]))
    assert classes.tolist() == [[2, 0, 2, 1]]
    assert scores[0].tolist() == pytest.approx([0.20, 0.55, 0.35, 0.90])
    assert class_map(maps, 1, 4)[0].tolist() == [[0, 0, 1, 1]]


def test_a_release_cuts_by_the_size_of_its_data_set_and_uses_its_thresholds(tmp_path):
    config = releases.write(tmp_path, "sme_deeplabv3plus")
    thresholds = dict.fromkeys(config.labels, 0.4)
    text = config.model_copy(update={"class_thresholds": thresholds}).model_dump_json()
    (tmp_path / "config.json").write_text(text)
    predictor = load(tmp_path)
    assert predictor.native_px == 200  # NEU-Seg's pictures
    assert predictor.class_thresholds == thresholds


@pytest.mark.parametrize(
    ("model", "network", "labels"),
    [
        ("grace", _BrightBox(), ("a",)),
        ("sme_deeplabv3plus", _Blurred(), ("a",)),
        ("mobilesteelnet", _Brightness(), ("a", "b")),
    ],
)
def test_who_listens_hears_after_every_pass_how_many_tiles_it_had(model, network, labels):
    predictor = _predictor(model, network, labels, native_px=SIZE)
    image = _image(np.zeros((64, 1000), np.uint8))
    heard = []
    with told_to(heard.append):
        predictor([image], score_threshold=0.1)
    # A new tile begins every 48 px: 1 + (1000 - 64) / 48, rounded up, are 21; 16 in a pass.
    assert heard == [16, 5]
    predictor([image], score_threshold=0.1)
    assert heard == [16, 5]  # nobody listens


def test_what_a_listener_raises_ends_the_look():
    network = _BrightBox()
    predictor = _predictor("grace", network, ("a",), native_px=SIZE)

    def enough(tiles):
        raise KeyboardInterrupt

    with told_to(enough), pytest.raises(KeyboardInterrupt):
        predictor([_image(np.zeros((64, 1000), np.uint8))], score_threshold=0.1)
    assert len(network.shapes) == 1  # the second pass is not begun
