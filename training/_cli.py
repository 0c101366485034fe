"""What the commands of `python -m training` share: their options, errors and tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from core.records import Evaluation
    from core.settings import PathSettings, Settings
    from training.datasets import Dataset


class ProtocolName(StrEnum):
    """How a data set is divided."""

    LEAK_FREE = "leak-free"
    PAPER = "paper"


class TaskName(StrEnum):
    """What a model answers, and what the annotations of a set are for."""

    DETECT = "detect"
    SEGMENT = "segment"
    CLASSIFY = "classify"


Model = Annotated[str, typer.Argument(help="da_yolo, grace, … or a baseline such as yolo11.")]
Tta = Annotated[bool, typer.Option("--tta", help="Look at mirrored pictures, too: 4 × the time.")]
Protocol = Annotated[
    ProtocolName,
    typer.Option(help="leak-free keeps related images in one split; paper divides at random."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own.")]
Weights = Annotated[
    Path | None,
    typer.Option(help="Release folder, or model.safetensors in one; default: what the app serves."),
]


@contextmanager
def errors_on_one_line() -> Iterator[None]:
    """Our errors, and a place that refuses, become one line on stderr and exit code 1.

    A bug keeps its traceback.
    """
    from core.errors import RollmarkError
    from core.files import refusal

    try:
        yield
    except RollmarkError as exc:
        typer.echo(" ".join(str(exc).split()), err=True)
        raise typer.Exit(1) from exc
    except OSError as exc:
        if (sentence := refusal(exc)) is None:
            raise
        typer.echo(sentence, err=True)
        raise typer.Exit(1) from exc


def read_settings() -> Settings:
    """The settings of this installation."""
    from core.settings import load_settings

    return load_settings()


def override(text: str) -> tuple[str, Any]:
    """`lr0=0.01` as a name and a value: JSON where it is, else the text itself."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--set {text!r} is not NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def tell_learned(
    model: str,
    weights: Path | None,
    dataset: Dataset,
    *,
    protocol: str,
    split: str,
    paths: PathSettings,
) -> int | None:
    """Say on stderr if a model is to be measured on images it has learned from; returns how many.

    None if nobody can tell, because the data set it was trained on is not here.
    """
    from training.learned import learned_among
    from training.served import releases_asked

    asked = releases_asked(model, weights, paths)
    count = learned_among(asked, dataset, protocol=protocol, split=split, data_root=paths.datasets)
    if count:
        typer.echo(
            f"{model} has learned from {count} of the {len(dataset.split(protocol, split))} "
            f"{split} images of {dataset.name} {protocol}: this does not tell how good it is on "
            "new ones.",
            err=True,
        )
    return count


def old_and_new(text: str) -> tuple[str, str]:
    """`Kratzer=scratches` as the name in the source and the one here."""
    old, equals, new = (part.strip() for part in text.partition("="))
    if not (old and equals and new):
        raise typer.BadParameter(f"--rename {text!r} is not OLD=NEW.")
    return old, new


def show(evaluation: Evaluation) -> None:
    """Print metrics and, below, what each class got."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("metric", "value", "95 % interval", title=_title(evaluation))
    percent: Callable[[float], str] = "{:.2f}".format
    for metric in evaluation.metrics:
        interval = "–"
        if metric.low is not None and metric.high is not None:
            interval = f"{percent(100 * metric.low)} – {percent(100 * metric.high)}"
        table.add_row(metric.name, percent(100 * metric.value), interval)
    console.print(table)
    detailed = [m for m in evaluation.metrics if m.per_class]
    classes = Table("class", *(m.name for m in detailed))
    for label in dict.fromkeys(name for m in detailed for name in m.per_class):
        values = (m.per_class.get(label) for m in detailed)
        classes.add_row(label, *("–" if v is None else percent(100 * v) for v in values))
    console.print(classes)


def _title(evaluation: Evaluation) -> str:
    e = evaluation
    return f"{e.model} {e.revision} on {e.dataset} {e.protocol} {e.split}, n = {e.metrics[0].n}, %"
