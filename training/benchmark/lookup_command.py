"""`python -m training benchmark lookup`: what remembering is worth on a test split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training._cli import ProtocolName, errors_on_one_line, read_settings, show


def lookup(
    data: Annotated[list[str], typer.Argument(help="Prepared data sets.")],
    protocol: Annotated[
        list[ProtocolName] | None,
        typer.Option(help="How the data are divided; repeatable; default: both."),
    ] = None,
    pages: Annotated[
        Path | None, typer.Option(help="Put it on the page lookup.md of this folder.")
    ] = None,
) -> None:
    """Answer each test image as the training image most like it is labelled, and measure that."""
    with errors_on_one_line():
        from training.benchmark.lookup_page import write_lookups
        from training.datasets import open_dataset
        from training.lookup import look_up

        root = read_settings().paths.datasets
        for dataset in [open_dataset(name, root) for name in data]:
            for chosen in protocol or tuple(ProtocolName):
                measured = look_up(dataset, protocol=chosen.value)
                show(measured)
                typer.echo(
                    f"{measured.settings['copies']} of {measured.metrics[0].n} test images are "
                    "pictures that the training images show as well, turned or not."
                )
                if pages is not None:
                    write_lookups([measured], pages)
        if pages is not None:
            from training.benchmark.lookup_page import PAGE

            typer.echo(pages / PAGE)
