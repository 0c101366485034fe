"""A predictor over an archive of images on a Ray cluster; for what outgrows one machine.

Every block of images becomes one shard, `output/shards/KEY.json`, written whole or not at all,
under a name that follows from what is in it. So a block that is done twice, because its worker died
between writing and saying so, leaves one shard, and a job that is started again does only what is
missing. All machines must reach the images, the weights and the output under the same paths.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.errors import InputError, TrainingError
from core.files import write_atomically
from core.images import DEFAULT_LIMITS, ImageLimits
from core.types import Predictor
from training.predictions import Tally, list_images, make_way, mask_names, write_document

logger = logging.getLogger(__name__)

SHARDS: Final = "shards"
JOB_FILE: Final = "job.json"
BLOCK: Final = 64  # images: minutes of work at most, so that little is done twice
_ROOMS: Final = ("core", "models", "training")  # what a worker elsewhere has to import

MakePredictor = Callable[[], Predictor]


@dataclass(frozen=True, slots=True)
class Block:
    """Images that one worker looks at in one go, and the name of their shard."""

    key: str
    files: tuple[Path, ...]
    masks: tuple[str, ...]

    def as_text(self) -> str:
        """Itself, in a form that a table of Ray's holds."""
        return json.dumps([self.key, [str(file) for file in self.files], self.masks])

    def shard(self, output: Path) -> Path:
        """Where the answers go."""
        return output / SHARDS / f"{self.key}.json"


def predict_archive(
    make: MakePredictor,
    images: Path,
    output: Path,
    *,
    score_threshold: float = 0.001,
    limits: ImageLimits = DEFAULT_LIMITS,
    address: str | None = None,
    threads: int = 1,
    gpus: int = 0,
    block: int = BLOCK,
) -> Tally:
    """As `training.predict.predict_folder`, over a cluster, and resumable.

    Args:
        make: builds the predictor; called here and once in every worker, so it must pickle.
        images: the folder.
        output: made if missing; shards of an earlier, unfinished job are used.
        score_threshold: detections below it are left out.
        limits: a file beyond them is not opened.
        address: of a running cluster; None starts one on this machine.
        threads: CPUs of one worker.
        gpus: of one worker.
        block: images in a shard.

    Returns:
        how many images there were, and how many of them could not be read.

    Raises:
        InputError: if `images` holds no image, or `output` holds another job or cannot be written.
        ConfigError: if Ray is not installed.
        TrainingError: if the cluster cannot be reached or gives up.
    """
    files = list_images(images.resolve())  # as every machine sees them
    predictor = make()
    masks = mask_names(files)
    job = job_of(predictor, score_threshold, limits)
    blocks = _blocks(files, masks, job, block)
    try:
        _claim(output, job)
        missing = [b for b in blocks if not b.shard(output).is_file()]
        logger.info("%d of %d blocks are to be done", len(missing), len(blocks))
        if missing:
            make_way(predictor, output)
            with _cluster(address) as ray:
                worker = (make, output.resolve(), score_threshold, limits, threads)
                _run(ray, missing, worker, threads=threads, gpus=gpus)
        entries = (entry for b in blocks for entry in json.loads(b.shard(output).read_text()))
        return write_document(predictor, entries, output)
    except OSError as exc:
        raise InputError(f"Cannot write to {output}: {exc.strerror or exc}.") from exc


def job_of(
    predictor: Predictor, score_threshold: float, limits: ImageLimits = DEFAULT_LIMITS
) -> dict[str, Any]:
    """All that answers depend on, besides the images: shards of another job are not mixed in.

    A revision names weights alone; a segmenter's thresholds or the size of its pictures may be
    fitted anew without another one.
    """
    from models._flips import Flipped
    from models._predictors import AnyPredictor

    job: dict[str, Any] = {
        "model": predictor.spec.name,
        "revision": predictor.revision,
        "score_threshold": score_threshold,
        "limits": asdict(limits),
    }
    if isinstance(predictor, Flipped):
        return job_of(predictor.plain, score_threshold, limits) | {"tta": True}
    if isinstance(predictor, AnyPredictor):
        job |= {"image_size": predictor.image_size, "class_thresholds": predictor.class_thresholds}
    return job


def _blocks(
    files: Sequence[Path], masks: Mapping[Path, str], job: Mapping[str, Any], size: int
) -> list[Block]:
    """Consecutive files; the key changes with the job, the names, the sizes and the dates."""
    blocks = []
    for start in range(0, len(files), size):
        part = tuple(files[start : start + size])
        named = tuple(masks[file] for file in part)
        identity = [
            [file.name, mask, *_size_and_date(file)] for file, mask in zip(part, named, strict=True)
        ]
        text = json.dumps([job, identity], sort_keys=True)
        blocks.append(Block(hashlib.sha256(text.encode()).hexdigest()[:24], part, named))
    return blocks


def _size_and_date(file: Path) -> tuple[int, int]:
    """In bytes and ns; zeros of a link that leads nowhere, which whoever opens it will tell."""
    try:
        facts = file.stat()
    except OSError:
        return 0, 0
    return facts.st_size, facts.st_mtime_ns


def _claim(output: Path, job: Mapping[str, Any]) -> None:
    """Say in the output folder which job its shards belong to; refuse those of another."""
    path = output / SHARDS / JOB_FILE
    if path.is_file():
        with suppress(ValueError):
            if json.loads(path.read_text()) == job:
                return
        raise InputError(
            f"{output} holds the shards of another job (see {path}): give an empty folder."
        )
    write_atomically(path, json.dumps(job, indent=1).encode())


class _Worker:
    """Lives in one process of the cluster and keeps its predictor."""

    def __init__(
        self,
        make: MakePredictor,
        output: Path,
        score_threshold: float,
        limits: ImageLimits,
        threads: int,
    ) -> None:
        from models import use_threads

        use_threads(threads)
        self._predictor = make()
        self._output, self._score_threshold, self._limits = output, score_threshold, limits

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        from training.predict import look
        from training.predictions import write_entry

        key, files, named = json.loads(batch["block"][0])
        block = Block(key, tuple(map(Path, files)), tuple(named))
        masks = dict(zip(block.files, block.masks, strict=True))
        seen = look(self._predictor, block.files, self._score_threshold, self._limits)
        entries = [
            write_entry(file, one, mask=masks[file], output=self._output) for file, one in seen
        ]
        write_atomically(block.shard(self._output), json.dumps(entries).encode())
        return {"images": [len(entries)]}


def _run(
    ray: Any,
    blocks: Sequence[Block],
    worker: tuple[Any, ...],
    *,
    threads: int,
    gpus: int,
) -> None:
    logging.getLogger("ray").setLevel(logging.ERROR)  # what it says of its progress is not ours
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts images
    context.print_on_execution_start = False
    most = max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    work = ray.data.from_items(
        [{"block": block.as_text()} for block in blocks], override_num_blocks=len(blocks)
    ).map_batches(
        _Worker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(most, len(blocks))),
        num_cpus=threads,
        num_gpus=gpus,
        fn_constructor_args=worker,
    )
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    total = sum(len(block.files) for block in blocks)
    try:
        with Progress(
            *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
        ) as bar:
            task = bar.add_task("images", total=total)
            for row in work.iter_rows():
                bar.advance(task, int(row["images"]))
    except ray.exceptions.RayError as exc:
        raise TrainingError(
            f"The cluster gave up: {str(exc).splitlines()[-1][:300]}; what is done is kept, start "
            "the same command again."
        ) from exc


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Ray, connected to the cluster; what was connected here is disconnected at the end."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is reported to anybody
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its C++ half writes to the terminal
    try:
        import ray
        import ray.data
    except ImportError as exc:
        from core.errors import ConfigError

        raise ConfigError(
            "Ray is not installed: pip install -r requirements-scale.txt, or leave out --engine."
        ) from exc
    mine = not ray.is_initialized()
    if mine:
        root = Path(__file__).resolve().parent.parent
        options: dict[str, Any] = {
            "address": address or "local",
            "runtime_env": {"py_modules": [str(root / room) for room in _ROOMS]},
            "log_to_driver": False,
            "logging_level": logging.ERROR,
        }
        if address is None:
            options["include_dashboard"] = False
        try:
            ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as exc:
            failed = (
                f"No Ray cluster answers at {address}" if address else "Ray does not start here"
            )
            raise TrainingError(f"{failed}: {str(exc).splitlines()[0][:200]}.") from exc
    try:
        yield ray
    finally:
        if mine:
            ray.shutdown()
