"""The zoo: `names()`, `get_spec(name)`, `load(...)`. A model is a file here that ends in SPEC.

Files whose name starts with `_` are machinery; `baselines` holds several specs. Nothing here
imports torch until a spec is asked for, so that names can be listed by anyone.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ConfigError, UnknownModelError

if TYPE_CHECKING:
    from core.types import Predictor
    from models._spec import ModelSpec

# Ultralytics reads these once, when first imported, and that may be by any file of this folder: no
# installing of packages on its own account, no asking whether it is online, no folder in the home.
os.environ["YOLO_AUTOINSTALL"] = "false"
os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_CONFIG_DIR", str(Path(tempfile.gettempdir()) / "rollmark-ultralytics"))

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


def load(folder: Path, *, device: str = "cpu") -> Predictor:
    """Rebuild a network from a release folder (config.json + safetensors), ready to predict.

    Raises:
        WeightsNotFoundError: if the folder holds no release.
        WeightsError: if the weights fail their hash or do not fit the network.
    """
    from models._predictors import load_predictor

    return load_predictor(folder, device=device)


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
    """Let one forward pass take that many CPU threads; None leaves it to torch."""
    if count is not None:
        import torch

        torch.set_num_threads(count)
