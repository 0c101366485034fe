"""`python -m training benchmark mistakes`: the images that a model gets wrong, to look at."""

from __future__ import annotations

import shlex
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training._cli import (
    Device,
    Model,
    Protocol,
    ProtocolName,
    Threads,
    errors_on_one_line,
    read_settings,
)

if TYPE_CHECKING:
    from training.benchmark.mistakes_page import Asked


def mistakes(
    model: Model,
    data: Annotated[str, typer.Option(help="Prepared data set.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    protocol: Protocol = ProtocolName.LEAK_FREE,
    weights: Annotated[
        Path | None, typer.Option(help="Release folder; default: what the app serves.")
    ] = None,
    pages: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("docs/benchmarks"),
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Show what a model gets wrong, and for a detector what its average precision is lost to."""
    with errors_on_one_line():
        from models import use_threads
        from training.benchmark.mistakes_page import Asked
        from training.datasets import open_dataset
        from training.served import open_predictor, served_release

        settings = read_settings()
        use_threads(threads)
        dataset = open_dataset(data, settings.paths.datasets)
        folder = served_release(model, weights, settings.paths)
        asked = Asked(
            predictor=open_predictor(model, folder, device, settings.paths),
            dataset=dataset,
            protocol=protocol.value,
            split=split,
            command=_command(model, data, split, protocol=protocol, weights=weights),
        )
        write = {"detect": _boxes, "segment": _masks, "classify": _classes}[dataset.task]
        typer.echo(write(pages, asked, folder))


def _command(
    model: str, data: str, split: str, *, protocol: ProtocolName, weights: Path | None
) -> str:
    """What writes the page again; what is as usual is left out."""
    words = ["python -m training benchmark mistakes", model, "--data", data, "--split", split]
    if protocol is not ProtocolName.LEAK_FREE:
        words += ["--protocol", protocol.value]
    if weights is not None:
        words += ["--weights", shlex.quote(str(weights))]
    return " ".join(words)


def _boxes(pages: Path, asked: Asked, _: Path) -> Path:
    from training.benchmark.box_mistakes import write_boxes

    return write_boxes(pages, asked)


def _masks(pages: Path, asked: Asked, _: Path) -> Path:
    from training.benchmark.mistakes_page import write_masks

    return write_masks(pages, asked)


def _classes(pages: Path, asked: Asked, folder: Path) -> Path:
    from models._cam import load_explainer
    from training.benchmark.mistakes import find_mistakes
    from training.benchmark.mistakes_page import write_classes

    found = find_mistakes(
        asked.predictor, asked.dataset, protocol=asked.protocol, split=asked.split
    )
    return write_classes(pages, asked, found, heat=partial(load_explainer(folder), method="layer"))
