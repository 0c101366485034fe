"""OpenVINO on a CPU: a network as a graph, exported once per revision and proven before it serves.

An export lies in the cache under a name that changes with all that it depends on: weights, size,
precision, OpenVINO. It appears there complete, with the record of its proof, or not at all. The
graph takes one picture, channels last, as it comes, and has the network's two outputs: its answer
and one vector. Boxes are bound to the size they were exported at; a batch of another size is
answered by torch.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
import tempfile
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ValidationError
from torch import Tensor, nn

from core.files import remove_stale
from core.records import Record, ReleaseConfig
from models._features import FirstOutput, WithFeatures
from models._runtime import TorchRuntime, cpu_has_bf16, is_safe_in_bf16
from models._streams import Streams

if TYPE_CHECKING:
    from models._proof import Difference

logger = logging.getLogger(__name__)

Precision: TypeAlias = Literal["fp32", "bf16", "int8"]
GRAPH, WEIGHTS, PROOF = "model.xml", "model.bin", "proof.json"
_LAYOUT = 2  # of an export; another one makes every earlier export a stranger

# Branches on shapes are settled while tracing, for one size: that is what an export is. Set once
# and for all, because a filter that is put back is no business of one thread among many.
warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]


class Proof(Record):
    """What an export is, and how near it came to torch on real images.

    Differences are the largest seen: `box_px` of the network's input, `probability` in [0, 1].
    """

    model: str
    weights_sha256: str
    image_size: int  # px
    precision: Precision
    openvino: str
    graph_sha256: str  # of graph and weights, one after the other
    images: int
    box_px: float
    probability: float


def native_precision() -> Precision:
    """What this CPU computes fastest without another graph: bf16 where it has it in hardware."""
    return "bf16" if cpu_has_bf16() else "fp32"


def export_folder(cache: Path, config: ReleaseConfig, precision: Precision) -> Path:
    """Where the export of a release lies, or would lie."""
    what = f"{config.name}-{config.revision}-{config.image_size}-{precision}"
    return cache / "openvino" / f"{what}-{version('openvino')}-{_LAYOUT}"


def find_export(config: ReleaseConfig, cache: Path, precision: Precision) -> Path | None:
    """The folder of a proven export that is whole, or None."""
    folder = export_folder(cache, config, precision)
    try:
        proof = Proof.model_validate_json((folder / PROOF).read_bytes())
        whole = graph_sha256(folder) == proof.graph_sha256
    except (OSError, ValidationError):
        return None
    if not whole or proof.weights_sha256 != config.weights_sha256:
        logger.warning("the export in %s is damaged and will be made again", folder)
        return None
    return folder


def convert(network: nn.Module, *, feature_layer: str, size: int, any_size: bool) -> Any:
    """A trained network as an `openvino.Model` for one picture at a time.

    With a free batch size OpenVINO plans less ahead: the same networks took up to a third longer
    for one picture, and longer for three at once than for one after the other.

    Goes to OpenVINO's reader of TorchScript directly: `openvino.convert_model` does the same in
    five times the time, and reports its use to its makers.

    Args:
        network: on the CPU, from `prepare`.
        feature_layer: see `WithFeatures`.
        size: px of the square that it is traced with.
        any_size: height and width may be others; False: they are `size`.
    """
    from openvino import Dimension, Layout, PartialShape
    from openvino._offline_transformations import apply_moc_transformations
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
    from openvino.preprocess import PrePostProcessor

    both = WithFeatures(network, feature_layer).eval()
    example = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        has_features = both(example)[1].shape[1] > 0
        whole = both if has_features else FirstOutput(both).eval()  # no graph holds 0 columns
        trace: Any = torch.jit.trace
        traced = torch.jit.freeze(trace(whole, example, check_trace=False))
    reader = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced, example_input=example)  # lives as long as its graph
    model = reader.convert(reader.load(decoder))
    side = Dimension(-1) if any_size else Dimension(size)
    model.reshape(PartialShape([Dimension(1), Dimension(3), side, side]))
    apply_moc_transformations(model, cf=True)
    steps = PrePostProcessor(model)
    steps.input().tensor().set_layout(Layout("NHWC"))
    steps.input().model().set_layout(Layout("NCHW"))
    return steps.build()


class OpenVINORuntime:
    """An export, ready to run on this CPU.

    A few pictures go through one after the other, each on all threads: the shortest way for each.
    From as many pictures as there are threads on, each goes its own way on one thread, and none
    waits for another at the end of every layer: the most pictures in a second.

    Args:
        graph: the export's model.xml, or an `openvino.Model`.
        precision: bf16 lets the CPU round between layers; an int8 graph is what it is.
        in_torch: rebuilds the same network where torch runs it, for what the graph cannot do.
    """

    def __init__(
        self, graph: Any, *, precision: Precision, in_torch: Callable[[], TorchRuntime]
    ) -> None:
        self.name = f"OpenVINO {precision}"
        self.device = torch.device("cpu")
        self.graph = graph
        self._precision = precision
        self._rebuild = in_torch
        self._torch: TorchRuntime | None = None
        # OpenVINO does not know how many threads torch was told to use.
        self._threads = torch.get_num_threads()
        compiled = self._compile(streams=1)
        shape = compiled.input(0).partial_shape  # (1, H, W, 3)
        self._sides = tuple(None if d.is_dynamic else d.get_length() for d in (shape[1], shape[2]))
        self._request = compiled.create_infer_request()
        self._lock = threading.Lock()
        self._streams: Streams | None = None
        self._building = threading.Lock()

    @property
    def network(self) -> nn.Module:
        """The network in torch, built when first asked for."""
        return self._in_torch().network

    def __call__(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Run (N, 3, H, W) float32 on the CPU; the first output and one vector per image (N, D)."""
        other = any(
            side not in (None, n) for side, n in zip(self._sides, batch.shape[2:], strict=True)
        )
        if other or (self._precision == "bf16" and not is_safe_in_bf16(batch)):
            return self._in_torch()(batch)
        pictures = batch.permute(0, 2, 3, 1).contiguous().numpy()  # a view: channels are last
        is_many = len(pictures) >= self._threads > 1
        arrays = self._side_by_side()(pictures) if is_many else self._in_turn(pictures)
        outputs = [torch.from_numpy(array) for array in arrays]
        features = outputs[1] if len(outputs) > 1 else torch.zeros(len(batch), 0)
        return outputs[0], features

    def _in_turn(self, pictures: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        found = [self._one(pictures[n : n + 1]) for n in range(len(pictures))]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _one(self, picture: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with self._lock:
            found = self._request.infer([picture], share_inputs=True, share_outputs=True)
            return [np.array(array) for array in found.values()]  # the next pass overwrites them

    def _side_by_side(self) -> Streams:
        with self._building:
            if self._streams is None:
                self._streams = Streams(self._compile(streams=self._threads), self._threads)
            return self._streams

    def _compile(self, *, streams: int) -> Any:
        import openvino

        return openvino.Core().compile_model(
            str(self.graph) if isinstance(self.graph, Path) else self.graph,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
                "NUM_STREAMS": streams,
                "INFERENCE_PRECISION_HINT": "bf16" if self._precision == "bf16" else "f32",
                "INFERENCE_NUM_THREADS": self._threads,
            },
        )

    def _in_torch(self) -> TorchRuntime:
        with self._building:
            if self._torch is None:
                self._torch = self._rebuild()
            return self._torch


def keep(model: Any, target: Path, *, config: ReleaseConfig, difference: Difference) -> None:
    """Write graph, weights and proof; they appear together, or not at all.

    Args:
        model: the `openvino.Model`.
        target: from `export_folder`.
        config: of the release.
        difference: from torch, as measured.

    Raises:
        OSError: if the cache cannot be written.
    """
    import openvino

    target.parent.mkdir(parents=True, exist_ok=True)
    remove_stale(target.parent, ".*")  # drafts of who was killed
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        openvino.save_model(model, str(draft / GRAPH), compress_to_fp16=False)
        proof = Proof(
            model=config.name,
            weights_sha256=config.weights_sha256,
            image_size=config.image_size,
            precision=difference.precision,
            openvino=version("openvino"),
            graph_sha256=graph_sha256(draft),
            images=difference.images,
            box_px=difference.box_px,
            probability=difference.probability,
        )
        (draft / PROOF).write_text(proof.model_dump_json(indent=2))
        draft.chmod(0o755)
        _take_place(draft, target)
    finally:
        for left in (draft, *target.parent.glob(f"{draft.name}.*")):
            shutil.rmtree(left, ignore_errors=True)


def _take_place(draft: Path, target: Path) -> None:
    """Put an export where an earlier or damaged one lies, or another app puts its own just now."""
    for number in count():
        with suppress(FileNotFoundError):
            target.rename(draft.with_name(f"{draft.name}.{number}"))
        try:
            draft.rename(target)
        except OSError as exc:
            if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return


def graph_sha256(folder: Path) -> str:
    """One hash of graph and weights."""
    digest = hashlib.sha256()
    for name in (GRAPH, WEIGHTS):
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
