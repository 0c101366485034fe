"""How near one runtime comes to another on real images, and the export that must pass the test."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from core.errors import ConfigError
from core.records import ReleaseConfig
from core.types import DecodedImage
from models import get_spec
from models._openvino import (
    GRAPH,
    OpenVINORuntime,
    Precision,
    convert,
    export_folder,
    find_export,
    keep,
    native_precision,
)
from models._release import load_network, read_release
from models._runtime import Runtime, TorchRuntime, prepare

if TYPE_CHECKING:
    from models._predictors import AnyPredictor

logger = logging.getLogger(__name__)

# Largest difference from torch that is rounding and no fault: px of the network's input, and
# probability. bf16 keeps 8 bits of a number. int8 is not judged by this, but by its accuracy.
ALLOWED: Final[dict[Precision, tuple[float, float]]] = {"fp32": (0.1, 0.002), "bf16": (4.0, 0.1)}
WORTH_A_LOOK: Final = 0.05  # boxes scored lower by both may lie anywhere
# Of a class map's pixels, how many may differ by more: where a region ends is a matter of rounding,
# and the network is steep there.
LOOSE_PIXELS: Final = 0.005
PROOF_IMAGES: Final = 8  # of those that are offered


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest differences that were seen between two runtimes."""

    precision: Precision
    images: int
    box_px: float  # of the network's input; 0 where there are no boxes
    probability: float  # of class maps that of all but LOOSE_PIXELS

    @property
    def is_small(self) -> bool:
        """Whether it is rounding."""
        box_px, probability = ALLOWED.get(self.precision, (float("inf"), float("inf")))
        return self.box_px <= box_px and self.probability <= probability


class _Both:
    """Two runtimes asked the same; the answer is the first one's, the difference is noted."""

    def __init__(self, one: Runtime, other: Runtime, *, boxes: bool) -> None:
        self.name, self.device = one.name, one.device
        self._one, self._other, self._boxes = one, other, boxes
        self.box_px, self.probability = 0.0, 0.0

    @property
    def network(self) -> Any:
        return self._one.network

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        answer, theirs = self._one(batch), self._other(batch)[0]
        a, b = answer[0], theirs
        if a.shape != b.shape or not b.isfinite().all():
            self.box_px = self.probability = float("inf")
            return answer
        if self._boxes:
            seen = torch.maximum(a[:, 4:].amax(1), b[:, 4:].amax(1)) >= WORTH_A_LOOK  # (N, A)
            apart = (a[:, :4] - b[:, :4]).abs().amax(1)[seen]
            self.box_px = max(self.box_px, float(apart.max()) if len(apart) else 0.0)
            a, b = a[:, 4:], b[:, 4:]
        else:
            a, b = a.softmax(1), b.softmax(1)
        self.probability = max(self.probability, _largest((a - b).abs()))
        return answer


def _largest(apart: Tensor) -> float:
    """The largest difference; of class maps (N, C, H, W) without that of the loosest pixels."""
    if apart.dim() < 4:
        return float(apart.max())
    pixels = apart.amax(1).flatten()
    return float(pixels.kthvalue(max(1, round(len(pixels) * (1 - LOOSE_PIXELS)))).values)


def compare(
    predictor: AnyPredictor,
    candidate: Runtime,
    images: Sequence[DecodedImage],
    *,
    precision: Precision,
) -> Difference:
    """Ask the predictor's own runtime and another one about the same images, whole or in tiles.

    The first is asked about once more by itself: a runtime may take another way with many.

    Raises:
        ConfigError: if there is no image: nothing is proven by none.
    """
    if not images:
        raise ConfigError("No image to prove an export on; at least one is needed.")
    both = _Both(predictor.runtime, candidate, boxes=predictor.spec.task == "detect")
    twin = copy.copy(predictor)
    twin.runtime = both
    for asked in (images, images[:1]):
        twin(asked, score_threshold=WORTH_A_LOOK)
    return Difference(precision, len(images), both.box_px, both.probability)


def exported_runtime(folder: Path, cache: Path, runtime: str) -> OpenVINORuntime | None:
    """The proven export of a release that suits a wish, ready to run; None: there is none.

    Args:
        folder: of the release.
        cache: of the settings.
        runtime: "auto", "openvino", "int8" (where it was made; else as the other two) or "torch".

    Raises:
        ConfigError: if there is no such runtime.
        WeightsNotFoundError: if the folder holds no release.
        WeightsError: if its description is damaged.
    """
    native = native_precision()
    wishes: dict[str, tuple[Precision, ...]] = {
        "torch": (),
        "auto": (native,),
        "openvino": (native,),
        "int8": ("int8", native),
    }
    if runtime not in wishes:
        raise ConfigError(f"Unknown runtime {runtime!r}. Available: {', '.join(wishes)}.")
    config = read_release(folder)
    for precision in wishes[runtime]:
        found = find_export(config, cache, precision)
        if found is None:
            continue
        try:
            return OpenVINORuntime(
                found / GRAPH,
                precision=precision,
                in_torch=partial(in_torch, folder, config),
            )
        except Exception as exc:  # whatever OpenVINO raises, the network can still run in torch
            logger.warning("the export in %s cannot be used: %s", found, _first_line(exc))
    return None


def accelerate(
    predictor: AnyPredictor, folder: Path, *, cache: Path, images: Sequence[DecodedImage]
) -> bool:
    """Export a predictor's release, prove the export, keep it, and let the predictor run on it.

    The predictor answers meanwhile as before, and from its next batch on with OpenVINO. Where the
    export fails or is not proven, it stays as it is, and one line of the log says so.

    Args:
        predictor: of a release, on a CPU.
        folder: of the same release.
        cache: of the settings.
        images: real ones; the proof takes the first few.

    Returns:
        Whether it runs on OpenVINO now.
    """
    config = read_release(folder)
    precision = native_precision()
    try:
        model = graph_of(folder, config)
        runtime = OpenVINORuntime(
            model, precision=precision, in_torch=partial(in_torch, folder, config)
        )
        difference = compare(predictor, runtime, images[:PROOF_IMAGES], precision=precision)
        if not difference.is_small:
            raise ConfigError(
                f"its boxes differ by {difference.box_px:.3g} px and its probabilities by "
                f"{difference.probability:.3g} from torch's"
            )
        target = export_folder(cache, config, precision)
        keep(model, target, config=config, difference=difference)
        runtime.graph = target / GRAPH  # the one in memory is needed no longer
    except Exception as exc:  # a runtime that cannot be had is no reason not to serve
        logger.warning(
            "%s %s stays on %s: %s",
            *(config.name, config.revision, predictor.runtime.name, _first_line(exc)),
        )
        return False
    predictor.runtime = runtime
    logger.info(
        "%s %s runs on %s; from torch by at most %.2g px and %.2g in probability on %d images",
        *(config.name, config.revision, runtime.name),
        *(difference.box_px, difference.probability, difference.images),
    )
    return True


def graph_of(folder: Path, config: ReleaseConfig) -> Any:
    """A release as an `openvino.Model` for one picture at a time.

    Raises:
        WeightsError: if its weights fail their hash or do not fit.
    """
    spec = get_spec(config.name)
    return convert(
        prepare(load_network(folder, config), spec.fold),
        feature_layer=spec.feature_layer,
        size=config.image_size,
        any_size=spec.task == "segment",
    )


def in_torch(folder: Path, config: ReleaseConfig) -> TorchRuntime:
    """The same release where torch runs it.

    Raises:
        WeightsError: as for `graph_of`.
    """
    spec = get_spec(config.name)
    network = load_network(folder, config)
    return TorchRuntime(network, feature_layer=spec.feature_layer, fold=spec.fold)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
