"""INT8 for CPUs: a release's graph with 8-bit weights and activations, and what that costs.

Ranges are taken from training images; accuracy is measured on the validation split, in torch, in
OpenVINO and in int8, by the same code as every other figure. What comes after a network's last
convolutions stays in floating point: a box in px has more steps than 8 bits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from core.errors import ConfigError, DatasetError
from core.images import KEPT, decode
from core.records import Int8Loss, ReleaseConfig
from core.settings import PathSettings
from core.types import DecodedImage
from core.verdicts import HEADLINE
from models import get_spec
from models._openvino import (
    GRAPH,
    OpenVINORuntime,
    export_folder,
    find_export,
    keep,
    native_precision,
)
from models._predictors import AnyPredictor, make_predictor
from models._proof import PROOF_IMAGES, compare, graph_of, in_torch
from models._release import read_release, write_config
from models._runtime import Runtime
from training.benchmark.speed_records import Parity, ParityRecord
from training.datasets import Dataset, Sample
from training.evaluate import evaluate
from training.learned import training_data
from training.runs import describe_machine
from training.served import served_release

logger = logging.getLogger(__name__)

CALIBRATION_IMAGES: Final = 200
INT8: Final = "OpenVINO int8"  # as the table of accuracy names it
_DFL_BINS: Final = 16  # input channels of the fixed convolution that decodes a box side


def quantise(
    folder: Path, dataset: Dataset, cache: Path, *, images: int = CALIBRATION_IMAGES, seed: int = 0
) -> Path:
    """Make the int8 export of a release and keep it in the cache.

    Args:
        folder: of the release.
        dataset: whose training images, by the release's protocol, give the ranges.
        cache: of the settings.
        images: of them, drawn at random.
        seed: of the draw.

    Returns:
        The folder of the export.

    Raises:
        ConfigError: if nncf is not installed, or the release has learned from other labels.
        DatasetError: if the data set has no training images.
        InputError: if one of them cannot be read.
        WeightsError: if the release is damaged.
    """
    try:
        import nncf
    except ImportError as exc:
        raise ConfigError(
            "nncf, which makes int8 exports, is not installed: `pip install -r "
            "requirements-dev.txt` brings the version that goes with OpenVINO's here."
        ) from exc
    nncf.set_log_level(logging.WARNING)  # else a line for every layer that is left as it is
    config = read_release(folder)
    if tuple(config.labels) != tuple(dataset.labels):
        raise ConfigError(
            f"{config.name} knows {', '.join(config.labels)}; {dataset.name} has "
            f"{', '.join(dataset.labels)}: they must be the same."
        )
    graph = graph_of(folder, config)
    watched = _Watched(_runtime(graph, folder, config, "fp32"))
    predictor = _predictor(config, watched)
    drawn = _drawn(dataset, config.protocol, images, seed)

    def as_input(image: DecodedImage) -> NDArray[np.float32]:
        predictor([image], score_threshold=1.0)
        return watched.seen

    quantised = nncf.quantize(
        graph,
        nncf.Dataset(drawn, as_input),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(drawn),
        ignored_scope=nncf.IgnoredScope(names=sorted(last_steps(graph)), validate=False),
    )
    candidate = _runtime(quantised, folder, config, "int8")
    plain = _predictor(config, in_torch(folder, config))
    difference = compare(plain, candidate, drawn[:PROOF_IMAGES], precision="int8")
    target = export_folder(cache, config, "int8")
    keep(quantised, target, config=config, difference=difference)
    logger.info("quantised %s %s on %d images", config.name, config.revision, len(drawn))
    return target


def measure_parity(
    paths: PathSettings, models: Sequence[str], *, limit: int | None = None, int8: bool = True
) -> ParityRecord:
    """Accuracy on each release's own validation split, wherever it can run on a CPU.

    Args:
        paths: of the settings.
        models: names.
        limit: validation images of each, drawn at random, the same ones every time; None: all.
        int8: quantise a release that is not yet.

    Raises:
        DatasetError: if a release's data set is not prepared.
        WeightsError: if a release is damaged.
    """
    folders = (served_release(name, None, paths) for name in models)
    rows = [parity_of(folder, paths, limit=limit, int8=int8) for folder in folders]
    return ParityRecord(
        machine=describe_machine("cpu"), measured_at=datetime.now(UTC), rows=tuple(rows)
    )


def parity_of(
    folder: Path, paths: PathSettings, *, limit: int | None = None, int8: bool = True
) -> Parity:
    """One release's row of `measure_parity`, wherever the release lies."""
    config = read_release(folder)
    dataset = training_data(config.run, paths.datasets)
    if int8 and find_export(config, paths.cache, "int8") is None:
        quantise(folder, dataset, paths.cache)
    if limit is not None:
        dataset = replace(dataset, samples=_some(dataset.split(config.protocol, "val"), limit))
    values: dict[str, float] = {}
    metric = HEADLINE[config.task]
    for runtime, make in _runtimes(folder, config, paths.cache).items():
        evaluation = evaluate(
            _predictor(config, make()),
            dataset,
            protocol=config.protocol,
            split="val",
            resamples=0,
        )
        values[runtime] = next(m.value for m in evaluation.metrics if m.name == metric)
        logger.info("%s in %s: %s %.4f", config.name, runtime, metric, values[runtime])
    return Parity(
        model=config.name,
        revision=config.revision,
        dataset=config.dataset,
        protocol=config.protocol,
        metric=metric,
        n=len(dataset.split(config.protocol, "val")),
        values=values,
    )


def record_loss(folder: Path, measured: Parity) -> ReleaseConfig:
    """Write into a release what int8 costs it, for its card; its weights stay as they are.

    Args:
        folder: of the release.
        measured: its row, torch and int8 in it.

    Raises:
        ConfigError: if the row is of other weights or has no int8 value.
        WeightsError: if the release is damaged.
    """
    config = read_release(folder)
    if measured.revision != config.revision or INT8 not in measured.values:
        raise ConfigError(
            f"Measured was {measured.model} {measured.revision} in {', '.join(measured.values)}; "
            f"the release is {config.name} {config.revision} and its int8 export is needed."
        )
    loss = Int8Loss(
        metric=measured.metric,
        fp32=measured.values["torch"],
        int8=measured.values[INT8],
        image_size=config.image_size,
        n=measured.n,
    )
    config = config.model_copy(update={"int8": loss})
    write_config(folder, config)
    return config


def _runtimes(folder: Path, config: ReleaseConfig, cache: Path) -> dict[str, Callable[[], Runtime]]:
    """Where a release can run, torch first."""

    def exported() -> Runtime:
        return _runtime(graph_of(folder, config), folder, config, native_precision())

    found: dict[str, Callable[[], Runtime]] = {
        "torch": partial(in_torch, folder, config),
        f"OpenVINO {native_precision()}": exported,
    }
    int8 = find_export(config, cache, "int8")
    if int8 is not None:
        found[INT8] = partial(_runtime, int8 / GRAPH, folder, config, "int8")
    return found


def _runtime(graph: Any, folder: Path, config: ReleaseConfig, precision: Any) -> OpenVINORuntime:
    return OpenVINORuntime(graph, precision=precision, in_torch=partial(in_torch, folder, config))


def _predictor(config: ReleaseConfig, runtime: Runtime) -> AnyPredictor:
    return make_predictor(
        get_spec(config.name),
        runtime,
        labels=config.labels,
        image_size=config.image_size,
        revision=config.revision,
        native_px=config.native_px,
        class_thresholds=config.class_thresholds,
    )


class _Watched:
    """A runtime whose last input can be seen as the graph takes it: one picture, or one tile."""

    def __init__(self, runtime: Runtime) -> None:
        self.name, self.device, self._runtime = runtime.name, runtime.device, runtime
        self.seen: NDArray[np.float32] = np.zeros((0,), np.float32)

    @property
    def network(self) -> Any:
        return self._runtime.network

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        self.seen = batch[:1].permute(0, 2, 3, 1).contiguous().numpy()
        return self._runtime(batch)


def _drawn(dataset: Dataset, protocol: str, count: int, seed: int) -> list[DecodedImage]:
    samples = dataset.split(protocol, "train")
    if not samples:
        raise DatasetError(f"{dataset.name} has no training images under protocol {protocol}.")
    return [decode(sample.path, limits=KEPT) for sample in _some(samples, count, seed=seed)]


def _some(samples: Sequence[Sample], count: int, *, seed: int = 0) -> tuple[Sample, ...]:
    """So many at random: the first by name would often be of one class."""
    order = np.random.default_rng(seed).permutation(len(samples))[:count]
    return tuple(samples[i] for i in order)


def last_steps(graph: Any) -> set[str]:
    """Names of everything between the last convolutions or matrix products and the first output."""
    names: set[str] = set()
    waiting = [graph.outputs[0].get_node()]
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name in names or _has_weights(node):
            continue
        names.add(name)
        waiting += [i.get_source_output().get_node() for i in node.inputs()]
    return names


def _has_weights(node: Any) -> bool:
    """Whether it is a trained layer; the convolution that decodes a box's sides is not."""
    kind = node.get_type_name()
    if kind == "Convolution":
        return list(node.input(1).get_partial_shape().to_shape()) != [1, _DFL_BINS, 1, 1]
    return kind in ("MatMul", "GroupConvolution")
