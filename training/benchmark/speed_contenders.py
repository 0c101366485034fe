"""Who is timed: Rollmark as it serves, and what people would use instead, on the same weights.

A contender takes encoded pictures, or a folder of them, and gives finished answers, as Python
numbers. Its own decoder, resizing, network and suppression are all its own time; that is what a
user waits for.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import InputError
from core.images import decode
from core.taxonomy import native_side
from core.types import Classification, Detections, Prediction, Task
from models import get_spec
from models._boxes import MAX_DETECTIONS, NMS_IOU
from models._features import FirstOutput
from models._openvino import OpenVINORuntime, convert, native_precision
from models._predictors import make_predictor
from models._runtime import Runtime, TorchRuntime, prepare
from training.benchmark.speed_aims import OURS, PLAIN_TORCH, ULTRALYTICS, ULTRALYTICS_OPENVINO
from training.predict import BATCH, look
from training.predictions import list_images

SCORE_THRESHOLD: Final = 0.05  # what the app asks detectors for

Answer: TypeAlias = dict[str, Any]
Ask: TypeAlias = Callable[[Sequence[bytes]], list[Answer]]
Sweep: TypeAlias = Callable[[Path], int]  # a folder's pictures; how many
Ways: TypeAlias = tuple[Ask, Sweep]

OURS_IN_TORCH: Final = "Rollmark, torch"
ONNXRUNTIME: Final = "onnxruntime"


@dataclass(frozen=True, slots=True)
class Subject:
    """One network at one size, that all contenders run.

    `build` returns it with its weights, unfused, a new one at every call.
    """

    model: str
    scale: str
    image_size: int  # px
    labels: tuple[str, ...]
    dataset: str
    weights: str  # revision, or "random"
    build: Callable[[], nn.Module]

    @property
    def task(self) -> Task:
        """What it is made for."""
        return get_spec(self.model).task


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to run a subject."""

    name: str
    ask: Ask
    sweep: Sweep


def contenders(
    subject: Subject, folder: Path, *, only: Collection[str] = ()
) -> tuple[list[Contender], dict[str, str]]:
    """Everyone who can run a subject, and why the others cannot.

    Args:
        subject: the network.
        folder: for exports.
        only: names of those who are wanted; empty: all.
    """
    makers: dict[str, Callable[[], Ways]] = {
        OURS: partial(_ours, subject, _openvino),
        OURS_IN_TORCH: partial(_ours, subject, _torch),
        ONNXRUNTIME: partial(_ours, subject, partial(_onnxruntime, folder=folder)),
    }
    if subject.task == "detect":
        makers[ULTRALYTICS] = partial(_ultralytics, subject)
        makers[ULTRALYTICS_OPENVINO] = partial(_ultralytics_openvino, subject, folder)
    else:
        makers[PLAIN_TORCH] = partial(_ours, subject, _plain)
    ready, missing = [], {}
    for name, make in makers.items():
        if only and name not in only:
            continue
        try:
            ready.append(Contender(name, *make()))
        except Exception as exc:  # a rival that fails is reported, not hidden
            missing[name] = f"{type(exc).__name__}: {(str(exc).splitlines() or [''])[0][:200]}"
    return ready, missing


def finish(prediction: Prediction) -> Answer:
    """An answer as numbers that JSON knows; masks stay arrays for everyone."""
    match prediction:
        case Detections():
            return {
                "boxes": prediction.xyxy.tolist(),
                "scores": prediction.scores.tolist(),
                "classes": prediction.class_ids.tolist(),
            }
        case Classification():
            return {"probabilities": prediction.probabilities.tolist()}
        case _:
            return {"class_map": prediction.class_map}


def _ours(subject: Subject, runtime: Callable[[Subject], Runtime]) -> Ways:
    """Decoder, resizing, suppression and pipeline of Rollmark around a runtime."""
    predictor = make_predictor(
        get_spec(subject.model),
        runtime(subject),
        labels=subject.labels,
        image_size=subject.image_size,
        revision=subject.weights,
        native_px=native_side(subject.dataset) or subject.image_size,
    )

    def ask(encoded: Sequence[bytes]) -> list[Answer]:
        images = [decode(data) for data in encoded]
        return [finish(p) for p in predictor(images, score_threshold=SCORE_THRESHOLD)]

    def sweep(folder: Path) -> int:
        seen = [seen for _, seen in look(predictor, list_images(folder), SCORE_THRESHOLD)]
        return len([finish(one[1]) for one in seen if not isinstance(one, InputError)])

    return ask, sweep


def _prepared(subject: Subject) -> nn.Module:
    return prepare(subject.build(), get_spec(subject.model).fold)


def _openvino(subject: Subject) -> Runtime:
    graph = convert(
        _prepared(subject),
        feature_layer=get_spec(subject.model).feature_layer,
        size=subject.image_size,
        any_size=subject.task == "segment",
    )
    return OpenVINORuntime(graph, precision=native_precision(), in_torch=partial(_torch, subject))


def _torch(subject: Subject) -> TorchRuntime:
    spec = get_spec(subject.model)
    return TorchRuntime(subject.build(), feature_layer=spec.feature_layer, fold=spec.fold)


class _Plain:
    """The network as torch runs it when nobody does anything about it."""

    def __init__(self, network: nn.Module) -> None:
        self.name, self.device = PLAIN_TORCH, torch.device("cpu")
        self.network = network.eval()

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            return self.network(batch.contiguous()), torch.zeros(len(batch), 0)


def _plain(subject: Subject) -> Runtime:
    return _Plain(subject.build())


class _OnnxRuntime:
    """An ONNX session in place of the network."""

    def __init__(self, path: Path, network: nn.Module) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # it cannot look for graphics cards everywhere
        self.name, self.device, self.network = ONNXRUNTIME, torch.device("cpu"), network
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._any_number = self._session.get_inputs()[0].shape[0] != 1
        self._lock = threading.Lock()  # two batches at a time would fight for the same threads

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        pictures = batch.contiguous().numpy()
        parts = [pictures] if self._any_number else np.split(pictures, len(pictures))
        with self._lock:
            outputs = [self._session.run(None, {"x": part})[0] for part in parts]
        return torch.from_numpy(np.concatenate(outputs)), torch.zeros(len(batch), 0)


def _onnxruntime(subject: Subject, *, folder: Path) -> Runtime:
    path = folder / f"{subject.model}-{subject.scale}-{subject.image_size}.onnx"
    network = _prepared(subject)
    side = subject.image_size
    # A classifier pools to sizes that it reads from its input, which ONNX must know beforehand.
    free = {"detect": {0: "n"}, "segment": {0: "n", 2: "h", 3: "w"}, "classify": {}}[subject.task]
    # torch asks the onnx package for a list of custom functions, of which these graphs have none.
    where = "torch.onnx._internal.torchscript_exporter.onnx_proto_utils._add_onnxscript_fn"
    with mock.patch(where, lambda model, opsets: model):
        torch.onnx.export(
            FirstOutput(network).eval(),
            (torch.rand(1, 3, side, side),),
            str(path),
            dynamo=False,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": free, "y": free} if free else None,
            opset_version=17,
        )
    return _OnnxRuntime(path, network)


def _yolo(subject: Subject) -> Any:
    """An ultralytics `YOLO` that carries the subject's network and names."""
    from ultralytics import YOLO
    from ultralytics.utils import DEFAULT_CFG_DICT

    yolo = YOLO("yolo11n.yaml", task="detect", verbose=False)
    network: Any = copy.deepcopy(subject.build()).eval()
    network.names = dict(enumerate(subject.labels))
    network.task, network.args = "detect", {**DEFAULT_CFG_DICT, "imgsz": subject.image_size}
    yolo.model = network
    return yolo


def _ultralytics(subject: Subject) -> Ways:
    return _asking(_yolo(subject), subject.image_size)


def _ultralytics_openvino(subject: Subject, folder: Path) -> Ways:
    from ultralytics import YOLO

    yolo = _yolo(subject)
    stem = f"{subject.model}-{subject.scale}-{subject.image_size}.pt"
    yolo.ckpt_path = yolo.model.pt_path = str(folder / stem)  # exports lie beside it
    exported = yolo.export(
        format="openvino", imgsz=subject.image_size, dynamic=True, device="cpu", verbose=False
    )
    return _asking(YOLO(exported, task="detect", verbose=False), subject.image_size)


def _asking(yolo: Any, image_size: int) -> Ways:
    import cv2

    threads = torch.get_num_threads()
    predict = partial(
        yolo.predict,
        imgsz=image_size,
        conf=SCORE_THRESHOLD,
        iou=NMS_IOU,
        max_det=MAX_DETECTIONS,
        device="cpu",
        verbose=False,
    )

    def ask(encoded: Sequence[bytes]) -> list[Answer]:
        pictures = [cv2.imdecode(np.frombuffer(d, np.uint8), cv2.IMREAD_COLOR) for d in encoded]
        return [_numbers(one) for one in predict(pictures, batch=len(pictures))]

    def sweep(folder: Path) -> int:
        return len([_numbers(one) for one in predict(str(folder), batch=BATCH, stream=True)])

    blank = cv2.imencode(".png", np.zeros((image_size, image_size, 3), np.uint8))[1].tobytes()
    ask([blank])  # sets itself up
    torch.set_num_threads(threads)  # it chose another number
    return ask, sweep


def _numbers(found: Any) -> Answer:
    boxes = found.boxes
    return {
        "boxes": boxes.xyxy.tolist(),
        "scores": boxes.conf.tolist(),
        "classes": boxes.cls.int().tolist(),
    }
