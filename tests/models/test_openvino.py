"""The other place to run: an export answers as torch does, or it does not serve at all."""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import models
from core.errors import ConfigError
from core.files import STALE_S
from core.images import decode
from models import _openvino, _proof, _runtime
from models._openvino import OpenVINORuntime, convert, export_folder, find_export, keep
from models._pictures import to_tensor
from models._predictors import AnyPredictor, Detector, make_predictor
from models._proof import Difference, compare
from models._release import read_release
from models._runtime import TorchRuntime, prepare
from tests.databases import in_children
from tests.demo import releases
from tests.records import make_config

BUNDLED = Path(models.__file__).parents[1] / "hub" / "bundled"
EXAMPLES = [decode(path) for path in sorted(releases.EXAMPLES.glob("*.jpg"))[:3]]

# Tracing settles branches on shapes for one size, which is what an export is.
pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")


@pytest.fixture(scope="module", autouse=True)
def _full_precision() -> Iterator[None]:
    """As on a CPU without bfloat16: what untrained weights answer is mostly rounding in it."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (_runtime, _openvino):
            patch.setattr(module, "cpu_has_bf16", lambda: False)
        yield


class _Rows(nn.Module):
    """A detector's answer, (N, 4 + 1, 2): the same two boxes on every picture, one sure."""

    def __init__(self, shift_px: float = 0.0, score: float = 0.9) -> None:
        super().__init__()
        rows = [[16.0, 8.0], [16.0, 8.0], [8.0, 4.0], [8.0, 4.0], [score, 0.01]]
        self.rows = nn.Parameter(torch.tensor(rows)[None])
        with torch.no_grad():
            self.rows[:, 0] += shift_px

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rows + 0 * x.mean((1, 2, 3))[:, None, None]


def _detector(network: nn.Module) -> Detector:
    spec = models.get_spec("grace")
    made = make_predictor(spec, network, labels=("a",), image_size=32, revision="r")
    assert isinstance(made, Detector)
    return made


@pytest.fixture(scope="module", params=list(releases.DATASETS))
def release(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param) / request.param
    releases.write(folder, request.param, picture=releases.EXAMPLES / "scratches_66.jpg")
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier") / "mobilesteelnet"
    releases.write(folder, "mobilesteelnet")
    return folder


def _loaded(folder: Path, **options: object) -> AnyPredictor:
    predictor = models.load(folder, **options)  # type: ignore[arg-type]
    assert isinstance(predictor, AnyPredictor)
    return predictor


def test_an_export_answers_as_torch_does_for_every_task(release: Path, tmp_path: Path) -> None:
    in_torch, predictor = _loaded(release), _loaded(release)
    assert models.accelerate(predictor, release, cache=tmp_path, images=EXAMPLES)
    assert isinstance(predictor.runtime, OpenVINORuntime)
    again = _loaded(release, runtime="auto", cache=tmp_path)
    assert again.runtime.name == predictor.runtime.name
    side = predictor.image_size
    batch = to_tensor([e.pixels[:side, :side] for e in EXAMPLES if min(e.pixels.shape[:2]) >= side])
    output, features = in_torch.runtime(batch)
    for swapped in (predictor, again):
        theirs, their_features = swapped.runtime(batch)
        torch.testing.assert_close(theirs, output, rtol=0.01, atol=0.01)  # px, scores or logits
        torch.testing.assert_close(their_features, features, rtol=0.01, atol=0.01)
        found = swapped(EXAMPLES, score_threshold=0.25)
        assert [type(one) for one in found] == [type(found[0])] * 3


def test_a_picture_of_another_size_than_the_export_s_is_answered_by_torch() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    torch.manual_seed(0)
    prepare(network)
    graph = convert(network, feature_layer="0", size=32, any_size=False)
    rebuilt: list[TorchRuntime] = []

    def in_torch() -> TorchRuntime:
        rebuilt.append(TorchRuntime(network, feature_layer="0"))
        return rebuilt[-1]

    runtime = OpenVINORuntime(graph, precision="fp32", in_torch=in_torch)
    for sides, built in (((32, 32), 0), ((32, 64), 1), ((64, 32), 1)):
        batch = torch.rand(3, 3, *sides, generator=torch.Generator().manual_seed(1))
        output, features = runtime(batch)
        torch.testing.assert_close(output, network(batch), rtol=1e-4, atol=1e-5)
        assert features.shape == (3, 2)
        assert len(rebuilt) == built
    assert runtime.network is network


@pytest.mark.parametrize("sides", [(160, 32), (32, 160), (63, 200)])
def test_a_narrow_picture_is_never_answered_in_bf16(
    sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where AMX is, bfloat16 told the first of these anything from 0 to 1 in every pixel.
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1))
    torch.manual_seed(0)
    prepare(network)
    monkeypatch.setattr(_runtime, "cpu_has_bf16", lambda: True)
    in_torch = TorchRuntime(network, feature_layer="0")
    graph = convert(copy.deepcopy(network), feature_layer="0", size=64, any_size=True)
    runtime = OpenVINORuntime(graph, precision="bf16", in_torch=lambda: in_torch)
    batch = torch.rand(2, 3, *sides, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(batch)
    for asked in (in_torch, runtime):
        torch.testing.assert_close(asked(batch)[0], expected, rtol=1e-5, atol=1e-6)
    wide = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert not torch.equal(in_torch(wide)[0], network(wide))  # that one is in bf16


@pytest.mark.parametrize("name", ["grace", "sme_deeplabv3plus", "mobilesteelnet"])
def test_trained_weights_pass_the_proof_in_bf16(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (_runtime, _openvino):
        monkeypatch.setattr(module, "cpu_has_bf16", lambda: True)
    folder = BUNDLED / name
    predictor = _loaded(folder)
    assert predictor.runtime.name == "torch bf16 on cpu"
    assert models.accelerate(predictor, folder, cache=tmp_path, images=EXAMPLES)
    assert predictor.runtime.name == "OpenVINO bf16"


def test_an_earlier_answer_is_not_overwritten_by_the_next() -> None:
    double = nn.Conv2d(3, 1, 1, bias=False)
    nn.init.constant_(double.weight, 2.0)
    graph = convert(prepare(double), feature_layer="", size=8, any_size=True)
    runtime = OpenVINORuntime(graph, precision="fp32", in_torch=lambda: TorchRuntime(double))
    ones, features = runtime(torch.ones(1, 3, 1, 2))
    runtime(torch.zeros(1, 3, 1, 2))
    assert ones.tolist() == [[[[6.0, 6.0]]]]  # 2 · 1 in each of three channels
    assert features.shape == (1, 0)


@pytest.mark.parametrize(
    ("network", "box_px", "probability", "is_small"),
    [
        pytest.param(_Rows(), 0.0, 0.0, True, id="the same"),
        pytest.param(_Rows(shift_px=0.05), 0.05, 0.0, True, id="a rounding of a box"),
        pytest.param(_Rows(shift_px=0.5), 0.5, 0.0, False, id="half a pixel aside"),
        pytest.param(_Rows(score=0.85), 0.0, 0.05, False, id="another score"),
        pytest.param(_Rows(score=float("nan")), np.inf, np.inf, False, id="not a number"),
    ],
)
def test_differences_are_measured_on_the_outputs(
    network: nn.Module, box_px: float, probability: float, is_small: bool
) -> None:
    found = compare(_detector(_Rows()), TorchRuntime(network), EXAMPLES, precision="fp32")
    assert found.images == 3
    assert found.box_px == pytest.approx(box_px, abs=1e-5)
    assert found.probability == pytest.approx(probability, abs=1e-5)
    assert found.is_small is is_small


def test_of_a_class_map_one_pixel_in_two_hundred_may_differ() -> None:
    apart = torch.zeros(1, 2, 20, 20)
    apart[0, 1, 0, :2] = 0.7  # 2 of 400 pixels
    assert _proof._largest(apart) == 0.0
    apart[0, 0, 5, 5] = 0.6  # a third one
    assert _proof._largest(apart) == pytest.approx(0.6)
    assert _proof._largest(torch.tensor([[0.0, 0.2]])) == pytest.approx(0.2)  # a classifier's


def test_no_images_prove_nothing() -> None:
    with pytest.raises(ConfigError, match="at least one is needed"):
        compare(_detector(_Rows()), TorchRuntime(_Rows()), [], precision="fp32")


def test_an_export_that_differs_does_not_serve_and_is_not_kept(
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def wrong(network: nn.Module, **options: object) -> object:
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.5)
        return convert(network, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(_proof, "convert", wrong)
    predictor = _loaded(classifier)
    with caplog.at_level(logging.WARNING):
        assert not models.accelerate(predictor, classifier, cache=tmp_path, images=EXAMPLES)
    assert isinstance(predictor.runtime, TorchRuntime)
    assert list(tmp_path.rglob("model.xml")) == []
    [line] = caplog.messages
    assert "stays on torch fp32 on cpu: its boxes differ by 0 px and its probabilities by" in line


def test_a_failed_export_leaves_torch_in_service_with_one_line(
    classifier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(network: nn.Module, **options: object) -> object:
        raise RuntimeError("No conversion rule for aten::steel\nwith a long trace")

    monkeypatch.setattr(_proof, "convert", broken)
    predictor = _loaded(classifier)
    with caplog.at_level(logging.WARNING):
        assert not models.accelerate(predictor, classifier, cache=tmp_path, images=EXAMPLES)
    [line] = caplog.messages
    assert line.endswith("stays on torch fp32 on cpu: No conversion rule for aten::steel")
    assert len(predictor(EXAMPLES, score_threshold=0.0)) == 3


@pytest.fixture(scope="module")
def kept(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the proven export of `classifier`."""
    cache = tmp_path_factory.mktemp("cache")
    assert models.accelerate(_loaded(classifier), classifier, cache=cache, images=EXAMPLES)
    return cache


def test_the_proof_of_an_export_is_kept_beside_it(classifier: Path, kept: Path) -> None:
    config = read_release(classifier)
    folder = export_folder(kept, config, "fp32")
    proof = json.loads((folder / "proof.json").read_text())
    assert proof["weights_sha256"] == config.weights_sha256
    assert proof["images"] == 3
    assert proof["probability"] < 0.002
    assert find_export(config, kept, "fp32") == folder
    assert sorted(f.name for f in folder.iterdir()) == ["model.bin", "model.xml", "proof.json"]
    assert [f.name for f in folder.parent.iterdir()] == [folder.name]  # no draft is left


def test_a_draft_of_a_killed_process_goes_with_the_next_export(
    classifier: Path, tmp_path: Path
) -> None:
    target = export_folder(tmp_path, read_release(classifier), "fp32")
    for name, age_s in ((".old-draft", STALE_S + 60), (".draft-at-work", 0)):
        (target.parent / name).mkdir(parents=True)
        os.utime(target.parent / name, (time.time() - age_s,) * 2)
    assert models.accelerate(_loaded(classifier), classifier, cache=tmp_path, images=EXAMPLES)
    assert {path.name for path in target.parent.iterdir()} == {target.name, ".draft-at-work"}


def test_other_weights_size_or_precision_is_another_export(classifier: Path, kept: Path) -> None:
    config = read_release(classifier)
    for other in ({"weights_sha256": "e" * 64}, {"image_size": 96}):
        assert find_export(config.model_copy(update=other), kept, "fp32") is None
    assert find_export(config, kept, "int8") is None


def test_a_damaged_export_is_not_used(
    classifier: Path, kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = read_release(classifier)
    source, target = (export_folder(cache, config, "fp32") for cache in (kept, tmp_path))
    target.mkdir(parents=True)
    for file in source.iterdir():
        os.link(file, target / file.name)
    assert find_export(config, tmp_path, "fp32") == target
    data = bytearray((source / "model.bin").read_bytes())
    data[100] ^= 1
    (target / "model.bin").unlink()
    (target / "model.bin").write_bytes(data)
    with caplog.at_level(logging.WARNING):
        assert isinstance(_loaded(classifier, runtime="auto", cache=tmp_path).runtime, TorchRuntime)
    assert "is damaged and will be made again" in caplog.text


@pytest.mark.parametrize(
    ("runtime", "name"),
    [("torch", "torch fp32 on cpu"), ("auto", "OpenVINO fp32"), ("int8", "OpenVINO fp32")],
)
def test_a_wish_is_met_as_far_as_there_are_exports(
    classifier: Path, kept: Path, runtime: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_proof, "native_precision", lambda: "fp32")
    assert _loaded(classifier, runtime=runtime, cache=kept).runtime.name == name


def test_an_unknown_runtime_is_refused(classifier: Path, kept: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        models.load(classifier, runtime="onnx", cache=kept)
    assert str(refused.value) == ("Unknown runtime 'onnx'. Available: torch, auto, openvino, int8.")


def test_explanations_still_get_the_network_in_torch(classifier: Path, kept: Path) -> None:
    predictor = _loaded(classifier, runtime="auto", cache=kept)
    assert not next(iter(predictor.runtime.network.parameters())).requires_grad
    assert type(predictor.runtime.network) is type(_loaded(classifier).runtime.network)


def test_nobody_is_told_that_openvino_is_used() -> None:
    with pytest.raises(ImportError):
        __import__("openvino_telemetry")


def test_two_apps_that_keep_the_same_export_at_once_both_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of them found the other's in place of the one it had removed, and stayed on torch."""
    import openvino

    def write(_: object, graph: str, **__: object) -> None:
        Path(graph).write_text("graph")
        Path(graph).with_suffix(".bin").write_text("weights")

    monkeypatch.setattr(openvino, "save_model", write)
    config, difference = make_config(), Difference("fp32", 1, 0.0, 0.0)
    target = export_folder(tmp_path, config, "fp32")

    def app() -> None:
        for _ in range(100):
            keep(None, target, config=config, difference=difference)

    assert in_children(app, app) == [0, 0]
    assert find_export(config, tmp_path, "fp32") == target
    assert list(target.parent.iterdir()) == [target]
