"""Commands of `python -m training` that look at data sets and make them: no model takes part."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training._cli import Protocol, ProtocolName, errors_on_one_line, read_settings

if TYPE_CHECKING:
    from training.statistics import DatasetStatistics


def statistics(
    dataset: Annotated[str, typer.Argument(help="Prepared data set, or a view of one.")],
    plot: Annotated[Path | None, typer.Option(help="Write a picture to this PNG file.")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the numbers to this file.")
    ] = None,
    protocol: Protocol = ProtocolName.LEAK_FREE,
) -> None:
    """Count images and objects of each class, their sizes, and how uneven they are."""
    with errors_on_one_line():
        from core.files import write_atomically
        from training.datasets import open_dataset
        from training.statistics import measure

        opened = open_dataset(dataset, read_settings().paths.datasets)
        measured = measure(opened, protocol=protocol.value)
        if json_file is not None:
            write_atomically(json_file, json.dumps(measured.as_json(), indent=2).encode())
        if plot is not None:
            from training._statistics_plot import draw_statistics

            draw_statistics(measured, plot)
        _show_statistics(measured)


def _show_statistics(measured: DatasetStatistics) -> None:
    """Print one row a class and, below, how uneven they are."""
    from rich.console import Console
    from rich.table import Table

    from training.statistics import SIZES

    console = Console() if sys.stdout.isatty() else Console(width=100)
    console.print(f"{measured.dataset} ({measured.dataset_id[:12]}), {measured.protocol} protocol")
    sized = any(c.sizes for c in measured.classes)
    columns = [f"{split}\nimages" for split in measured.images]
    columns += ["training\nobjects", *SIZES, "median\narea, %"] if sized else []
    table = Table()
    table.add_column("class", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for c in measured.classes:
        row = [str(n) for n in c.images.values()]
        if sized:
            row += [str(c.objects["train"]), *(str(c.sizes.get(size, 0)) for size in SIZES)]
            row += [f"{100 * c.share[1]:.1f}" if c.share else "–"]
        table.add_row(c.label, *row)
    console.print(table)
    empty = ", ".join(f"{split} {n}" for split, n in measured.unlabelled.items())
    console.print(f"images without a class: {empty}")
    kinds = {"images": measured.by_images} | ({"objects": measured.by_objects} if sized else {})
    for of, uneven in kinds.items():
        console.print(
            f"training {of}: largest over smallest class {uneven.ratio:.1f}, Gini "
            f"{uneven.gini:.2f}, worth {uneven.effective_classes:.1f} of {len(measured.classes)} "
            "equal classes"
        )
