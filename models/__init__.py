"""The zoo: `names()`, `get_spec(name)`, `load(...)`. A model is a file here that ends in SPEC.

Files whose name starts with `_` are machinery; `baselines` holds several specs. Nothing here
imports torch until a spec is asked for, so that names can be listed by anyone.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from core.cpus import cpus_granted
from core.errors import ConfigError, UnknownModelError
from core.scratch import place_library_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.types import DecodedImage, Predictor
    from models._spec import ModelSpec

# Ultralytics reads these once, when first imported, and that may be by any file of this folder: no
# installing of packages on its own account, no asking whether it is online.
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
place_library_files()

# OpenVINO and nncf report their use to Intel through this package, unasked; where it cannot be
# imported, both take the silent stand-in that they carry.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_IMPORTING = threading.Lock()
_BASELINES = "baselines"
_ABLATIONS = "_ablations"


def names() -> tuple[str, ...]:
    """Names of the published models, sorted; each is one file of this folder."""
    files = Path(__file__).parent.glob("*.py")
    return tuple(
        sorted(f.stem for f in files if not f.stem.startswith("_") and f.stem != _BASELINES)
    )


def baseline_names() -> tuple[str, ...]:
    """Names of the stock networks that the published models are compared with."""
    return tuple(sorted(importlib.import_module(f"models.{_BASELINES}").SPECS))


def get_spec(name: str) -> ModelSpec:
    """The spec of a published model, a baseline, or a row of an ablation (`grace.lite_fen`).

    Raises:
        UnknownModelError: if there is no such model; the message lists what there is.
    """
    if name in names():
        spec: ModelSpec = importlib.import_module(f"models.{name}").SPEC
        return spec
    baselines: dict[str, ModelSpec] = importlib.import_module(f"models.{_BASELINES}").SPECS
    if name in baselines:
        return baselines[name]
    if "." in name:
        ablations: dict[str, ModelSpec] = importlib.import_module(f"models.{_ABLATIONS}").SPECS
        if name in ablations:
            return ablations[name]
    raise UnknownModelError(name, (*names(), *sorted(baselines)))


def load(
    folder: Path, *, device: str = "cpu", runtime: str = "torch", cache: Path | None = None
) -> Predictor:
    """A release (config.json + safetensors), ready to predict.

    Args:
        folder: of the release.
        device: "cpu" or "cuda:N".
        runtime: on a CPU, "torch" rebuilds the network; "auto" and "openvino" take its OpenVINO
            export if the cache has a proven one, "int8" the quantised export before that.
        cache: where exports lie; None: there are none.

    Raises:
        ConfigError: if there is no such runtime.
        WeightsNotFoundError: if the folder holds no release.
        WeightsError: if the weights fail their hash or do not fit the network.
        UnknownModelError: if the release names a model this code does not have.
    """
    import_libraries()
    import torch

    from models._predictors import make_predictor
    from models._proof import exported_runtime
    from models._release import load_network, read_release

    config = read_release(folder)
    ready = None
    if cache is not None and device == "cpu":
        ready = exported_runtime(folder, cache, runtime)
    predictor = make_predictor(
        get_spec(config.name),
        load_network(folder, config) if ready is None else ready,
        labels=config.labels,
        image_size=config.image_size,
        revision=config.revision,
        device=device,
        native_px=config.native_px,
        class_thresholds=config.class_thresholds,
    )
    if device != "cpu":
        predictor.runtime(torch.zeros(1, 3, config.image_size, config.image_size))  # sets CUDA up
    return predictor


def import_libraries() -> None:
    """Import what every network needs, one thread at a time.

    Two threads that begin with such a library at once may each see half of it.
    """
    with _IMPORTING:
        importlib.import_module("models._predictors")


def accelerate(
    predictor: Predictor, folder: Path, *, cache: Path, images: Sequence[DecodedImage]
) -> bool:
    """Move a loaded release to OpenVINO, once its export is proven; see `models._proof`.

    Returns:
        Whether it runs there now; a release that does already is left as it is.
    """
    from models import _proof
    from models._openvino import OpenVINORuntime
    from models._predictors import AnyPredictor

    if not isinstance(predictor, AnyPredictor):
        raise TypeError(f"{type(predictor).__name__} was not made by `models.load`.")
    if isinstance(predictor.runtime, OpenVINORuntime):
        return True
    return _proof.accelerate(predictor, folder, cache=cache, images=images)


def choose_device(wanted: str) -> str:
    """The device a wish means: "auto" is the first CUDA device, or else the CPU.

    Raises:
        ConfigError: if there is no such device here.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cpu", *(f"cuda:{i}" for i in range(count))]
    if wanted == "auto":
        return there[1] if count else "cpu"
    if wanted not in there:
        raise ConfigError(f"Device {wanted!r} is not here. Available: {', '.join(there)}.")
    return wanted


def use_threads(count: int | None) -> None:
    """Let one forward pass take that many CPU threads.

    None leaves it to torch, which counts the CPUs of the machine, where a container's quota does
    not grant fewer.
    """
    import torch

    granted = cpus_granted()
    if count is not None:
        torch.set_num_threads(count)
    elif granted is not None and granted < torch.get_num_threads():
        torch.set_num_threads(granted)
