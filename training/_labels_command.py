"""`python -m training labels`: which labels of a data set deserve a second look."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training._cli import (
    Device,
    Protocol,
    ProtocolName,
    Threads,
    Weights,
    errors_on_one_line,
    read_settings,
)

if TYPE_CHECKING:
    from core.records import ReleaseConfig
    from core.settings import PathSettings
    from training.datasets import Dataset
    from training.label_page import Checked


def labels(
    dataset: Annotated[str, typer.Argument(help="Prepared data set.")],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Who looks; repeatable; default: every served model it suits."),
    ] = None,
    split: Annotated[
        str, typer.Option(help="Images that the models have not learned from, such as val.")
    ] = "val",
    protocol: Protocol = ProtocolName.LEAK_FREE,
    weights: Weights = None,
    limit: Annotated[int, typer.Option(min=1, help="Images listed, poorest labels first.")] = 20,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write every doubt to this file.")
    ] = None,
    pages: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("docs/benchmarks"),
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Find the labels that models which never learned from them contradict."""
    if weights is not None and len(model or ()) != 1:
        raise typer.BadParameter("--weights are those of one model: give it with --model.")
    with errors_on_one_line():
        from core.files import write_atomically
        from models import choose_device, use_threads
        from training.datasets import open_dataset
        from training.label_check import check_labels
        from training.label_page import Checked, write_page
        from training.learned import refuse_learned
        from training.runs import describe_machine
        from training.served import open_predictor

        settings = read_settings()
        use_threads(threads)
        opened = open_dataset(dataset, settings.paths.datasets)
        asked = model or _suited(opened, settings.paths)
        for name in asked:
            refuse_learned(
                _config(name, weights, settings.paths),
                opened,
                protocol=protocol.value,
                split=split,
                data_root=settings.paths.datasets,
            )
        predictors = [open_predictor(name, weights, device, settings.paths) for name in asked]
        who = " ".join(f"--model {name}" for name in asked)
        who += f" --weights {shlex.quote(str(weights))}" if weights else ""
        checked = Checked(
            dataset=opened,
            protocol=protocol.value,
            split=split,
            models=tuple(f"{p.spec.name} {p.revision}" for p in predictors),
            command=f"python -m training labels {dataset} {who} --split {split}"
            + ("" if protocol is ProtocolName.LEAK_FREE else f" --protocol {protocol.value}"),
            machine=describe_machine(choose_device(device)),
            check=check_labels(predictors, opened, protocol=protocol.value, split=split),
        )
        _show(checked, limit)
        if json_file is not None:
            write_atomically(json_file, json.dumps(_as_json(checked), indent=1).encode())
        typer.echo(write_page(pages, checked))


def _suited(dataset: Dataset, paths: PathSettings) -> list[str]:
    """The published models with a release for this task and these classes."""
    from core.errors import WeightsNotFoundError
    from models import names

    found = []
    for name in names():
        try:
            config = _config(name, None, paths)
        except WeightsNotFoundError:
            continue
        if config.task == dataset.task and config.labels == dataset.labels:
            found.append(name)
    return found


def _config(name: str, weights: Path | None, paths: PathSettings) -> ReleaseConfig:
    from models._release import read_release
    from training.served import served_release

    return read_release(served_release(name, weights, paths))


def _as_json(checked: Checked) -> dict[str, Any]:
    return {
        "dataset": checked.dataset.name,
        "protocol": checked.protocol,
        "split": checked.split,
        "models": checked.models,
        "classes": [asdict(row) for row in checked.check.classes],
        "images": [
            {
                "file": image.sample.file,
                "sha256": image.sample.sha256,
                "group": image.sample.group,
                "quality": image.quality,
                "doubts": [asdict(doubt) for doubt in image.doubts],
            }
            for image in checked.check.images
        ],
    }


def _show(checked: Checked, limit: int) -> None:
    """Print the images with the poorest labels, and how many there are in all."""
    from rich.console import Console
    from rich.table import Table

    from training.label_page import rows

    every = list(rows(checked.check.images))
    # names of files are no markup
    width = None if sys.stdout.isatty() else 110
    console = Console(width=width, markup=False, emoji=False)
    table = Table("file", "strip", "quality", "strongest doubt", "where, px")
    for row in every[:limit]:
        table.add_row(*row)
    if every:
        console.print(table)
    console.print(
        f"{len(every)} of {len(checked.check.images)} images have a label that is doubted by "
        f"{', '.join(checked.models)}"
    )
