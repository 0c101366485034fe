"""Commands of `python -m training` that look at data sets and add to them; no model takes part."""

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
        _show_statistics(measured)
        if json_file is not None:
            write_atomically(json_file, json.dumps(measured.as_json(), indent=2).encode())
        if plot is not None:
            from training._statistics_plot import draw_statistics

            draw_statistics(measured, plot)


def synthesise(
    dataset: Annotated[str, typer.Argument(help="Prepared data set, or a view of one.")],
    output: Annotated[Path, typer.Option(help="Folder for images, masks, traces and the sheet.")],
    per_class: Annotated[
        list[str] | None, typer.Option(help="LABEL=N images; repeatable; default: what is short.")
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.01, max=1, help="Of the largest class, that none be short of.")
    ] = 0.5,
    protocol: Protocol = ProtocolName.LEAK_FREE,
    seed: Annotated[int, typer.Option(min=0, help="Of what is pasted where.")] = 0,
    sheet_rows: Annotated[int, typer.Option(min=0, help="Of each class on sheet.png.")] = 8,
) -> None:
    """Paste rare defects of the training split into other training images, and show them."""
    chosen = dict(_label_and_number(text) for text in per_class or ())
    with errors_on_one_line():
        from training._contact_sheet import draw_sheet
        from training.datasets import open_dataset
        from training.synthesis import TRACE_FILE, read_traces, shortfall
        from training.synthesis import synthesise as make

        opened = open_dataset(dataset, read_settings().paths.datasets)
        wanted = chosen or shortfall(opened, protocol=protocol.value, share=share)
        grown = make(opened, wanted, output, protocol=protocol.value, seed=seed)
        traces = read_traces(output / TRACE_FILE)
        if traces and sheet_rows:
            draw_sheet(grown, traces, output / "sheet.png", per_class=sheet_rows)
        for label, number in wanted.items():
            made = sum(trace.label == label for trace in traces)
            typer.echo(f"{label}: {made} of {number}")
        if traces:
            typer.echo(f"images, masks and traces: {output}")
        if not wanted:
            typer.echo(f"No class of {dataset} holds less than {share:.0%} of the largest.")


def _label_and_number(text: str) -> tuple[str, int]:
    label, equals, number = text.rpartition("=")
    if not equals or not number.isdecimal():
        raise typer.BadParameter(f"--per-class {text!r} is not LABEL=N.")
    return label, int(number)


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
            f"training {of}: largest over smallest class {uneven.told_ratio}, Gini "
            f"{uneven.gini:.2f}, worth {uneven.effective_classes:.1f} of {len(measured.classes)} "
            "equal classes"
        )
