"""The folder of one training run, `runs/<id>/`, and what is recorded there.

run.json (RunRecord), log.txt, metrics.csv (one row an epoch), curves.png, last.pt (checkpoint of
tensors and primitives), best.safetensors (weights kept so far), release/ (fp16 weights and
config.json), and synthetic.jsonl where images were made for it. Every file is replaced whole or not
at all, so a run killed at any moment can be opened and resumed. No torch here until weights are
touched.
"""

from __future__ import annotations

import csv
import io
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from core.errors import TrainingError, WeightsNotFoundError
from core.files import write_atomically
from core.records import RunRecord

if TYPE_CHECKING:
    from torch import nn

RUN_FILE = "run.json"


def new_run_id(model: str, scale: str, *, seed: int, now: datetime) -> str:
    """Sortable name of a run: `20261121-101530-grace-n-s0`; `now` is taken to UTC."""
    stamp = now.astimezone(UTC).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{model}-{scale}-s{seed}"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Paths and records of one run. Nothing is cached: the disk is the truth."""

    root: Path

    @classmethod
    def create(cls, runs_root: Path, *, model: str, scale: str, seed: int) -> RunFolder:
        """Make a new, empty run folder, named by the time in UTC.

        Two runs of one model started in the same second get different names: the later one is
        dated one second on.
        """
        seconds = int(datetime.now(UTC).timestamp())
        while True:
            now = datetime.fromtimestamp(seconds, UTC)
            root = runs_root / new_run_id(model, scale, seed=seed, now=now)
            try:
                root.mkdir(parents=True)
            except FileExistsError:
                seconds += 1
            else:
                return cls(root)

    @property
    def id(self) -> str:
        """Name of the run."""
        return self.root.name

    @property
    def log(self) -> Path:
        """Text log of the run."""
        return self.root / "log.txt"

    @property
    def metrics_csv(self) -> Path:
        """One row an epoch."""
        return self.root / "metrics.csv"

    @property
    def curves(self) -> Path:
        """Plot of `metrics_csv`."""
        return self.root / "curves.png"

    @property
    def last(self) -> Path:
        """Checkpoint to resume from."""
        return self.root / "last.pt"

    @property
    def best(self) -> Path:
        """Weights of the best epoch so far."""
        return self.root / "best.safetensors"

    @property
    def scratch(self) -> Path:
        """What only the run itself needs, and does not outlive it."""
        return self.root / "scratch"

    @property
    def synthetic(self) -> Path:
        """Where the run's synthetic images came from, if it had any; a line each."""
        return self.root / "synthetic.jsonl"

    @property
    def release(self) -> Path:
        """Folder of the finished weights."""
        return self.root / "release"

    # -------------------------------------------------------------------------------- run.json

    def has_record(self) -> bool:
        """Whether the run got as far as saying what it is."""
        return (self.root / RUN_FILE).is_file()

    def load_record(self) -> RunRecord:
        """What the run is and how far it came.

        Raises:
            TrainingError: if run.json is missing or is not a RunRecord.
        """
        path = self.root / RUN_FILE
        try:
            return RunRecord.model_validate_json(path.read_bytes())
        except FileNotFoundError as exc:
            raise TrainingError(f"{self.root} is not a run: {RUN_FILE} is missing.") from exc
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise TrainingError(f"{path} is not a run record: {where}: {first['msg']}.") from exc

    def save_record(self, record: RunRecord) -> None:
        """Write run.json.

        Raises:
            TrainingError: if the record belongs to another run.
        """
        if record.id != self.id:
            raise TrainingError(f"Record of run {record.id!r} does not belong into {self.root}.")
        write_atomically(self.root / RUN_FILE, record.model_dump_json(indent=2).encode())

    def is_under_way(self) -> bool:
        """Whether it was begun and has a checkpoint to go on from, or is finished."""
        if not self.has_record():
            return False
        return self.last.is_file() or self.load_record().finished_at is not None

    def forget_record(self) -> None:
        """Let a run that has no checkpoint yet begin anew, with other choices if need be."""
        (self.root / RUN_FILE).unlink(missing_ok=True)

    def update_record(self, **changes: Any) -> RunRecord:
        """Change fields of run.json and return the new record; a misspelt field is refused."""
        merged = {**self.load_record().model_dump(), **changes}
        record = RunRecord.model_validate(merged)
        self.save_record(record)
        return record

    # ----------------------------------------------------------------------------- metrics.csv

    def metrics(self) -> list[dict[str, float]]:
        """Rows of metrics.csv in order; what an epoch did not measure is absent from its row."""
        if not self.metrics_csv.is_file():
            return []
        with self.metrics_csv.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            return [{k: float(v) for k, v in row.items() if v not in ("", None)} for row in rows]

    def append_metrics(self, epoch: int, values: Mapping[str, float]) -> None:
        """Record one epoch, counted from 1; a row of the same epoch or a later one is replaced.

        A run that was killed after an epoch's row but before its checkpoint repeats that epoch:
        replacing keeps one row an epoch.
        """
        kept = [row for row in self.metrics() if row["epoch"] < epoch]
        self._write_metrics([*kept, {"epoch": epoch, **values}])

    def truncate_metrics(self, epochs: int) -> None:
        """Forget what lies beyond the first `epochs` epochs."""
        rows = self.metrics()
        kept = [row for row in rows if row["epoch"] <= epochs]
        if len(kept) < len(rows):
            self._write_metrics(kept)

    def _write_metrics(self, rows: Sequence[Mapping[str, float]]) -> None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" for k, v in row.items()} for row in rows)
        write_atomically(self.metrics_csv, text.getvalue().encode())


def list_runs(runs_root: Path) -> list[RunFolder]:
    """The runs under a folder that have a record, by name; other folders are passed over."""
    if not runs_root.is_dir():
        return []
    runs = [RunFolder(path) for path in sorted(runs_root.iterdir())]
    return [run for run in runs if run.has_record()]


# ------------------------------------------------------------------------- where it was trained


def git_commit() -> str:
    """Commit of this code, `-dirty` added when tracked files differ; "unknown" outside git."""
    here = Path(__file__).resolve().parent
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(here), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=30,
            ).stdout.strip()
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{commit}-dirty" if changes else commit


def describe_machine(device: str) -> str:
    """CPU and its threads, or the GPU, and the torch release, in one line for a model card."""
    import torch

    if device.startswith("cuda"):
        part = torch.cuda.get_device_name(torch.device(device))
    else:
        threads = torch.get_num_threads()
        part = f"{_cpu_model()}, {threads} thread{'s' if threads > 1 else ''}"
    return f"{part}, torch {torch.__version__}"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = re.findall(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if names:
            return str(names[0]).strip()
    return platform.processor() or platform.machine()


def count_parameters(network: nn.Module) -> int:
    """Number of parameters, frozen ones included."""
    return sum(p.numel() for p in network.parameters())


def measure_gflops(network: nn.Module, image_size: int) -> float:
    """Multiply-adds of one (1, 3, S, S) forward pass, times two, in 10⁹.

    Convolutions and matrix products are counted; normalisation and activations are not.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    parameter = next(network.parameters())
    image = torch.zeros(1, 3, image_size, image_size, device=parameter.device)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(image)
    finally:
        network.train(was_training)
    flops: int = counter.get_total_flops()
    return flops / 1e9


# ------------------------------------------------------------------------------- torch files


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Store tensors and primitives so that `load_checkpoint` can read them back unpickled."""
    import torch

    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint with the restricted loader; nothing but tensors and primitives.

    Raises:
        WeightsNotFoundError: if there is none.
        TrainingError: if it is damaged or holds anything else.
    """
    import torch

    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as exc:
        raise WeightsNotFoundError(f"Nothing to resume from: {path} is missing.") from exc
    except Exception as exc:  # damaged and hostile pickles fail in any way there is
        raise TrainingError(f"{path} is not a readable checkpoint: start the run anew.") from exc
    return state
