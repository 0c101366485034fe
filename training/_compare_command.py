"""`python -m training compare`: is one model better than another on a split?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training._cli import (
    Device,
    Protocol,
    ProtocolName,
    Threads,
    errors_on_one_line,
    read_settings,
    tell_learned,
)

if TYPE_CHECKING:
    from training.compare import Comparison


def compare(
    first: Annotated[str, typer.Argument(help="A served model, or committee.")],
    second: Annotated[str, typer.Argument(help="The one it is compared with.")],
    data: Annotated[str, typer.Option(help="Prepared data set.")],
    split: Annotated[str, typer.Option(help="train, val, test, joined as val+test, or all.")],
    tta: Annotated[
        bool, typer.Option("--tta", help="The first looks at mirrored ones, too.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the comparison to this file.")
    ] = None,
    protocol: Protocol = ProtocolName.LEAK_FREE,
    device: Device = "auto",
    threads: Threads = None,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Take the difference of two models on a split, with its paired 95 % interval."""
    with errors_on_one_line():
        from core.files import write_atomically
        from models import use_threads
        from training.compare import compare as measure
        from training.datasets import open_dataset
        from training.served import open_predictor

        settings = read_settings()
        dataset = open_dataset(data, settings.paths.datasets)
        use_threads(threads)
        found = measure(
            open_predictor(first, None, device, settings.paths, tta=tta),
            open_predictor(second, None, device, settings.paths),
            dataset,
            protocol=protocol.value,
            split=split,
            seed=seed,
            resamples=resamples,
        )
        for name in dict.fromkeys((first, second)):
            tell_learned(
                name, None, dataset, protocol=protocol.value, split=split, paths=settings.paths
            )
        _show(found)
        if json_file is not None:
            write_atomically(json_file, found.model_dump_json(indent=2).encode())


def _show(found: Comparison) -> None:
    """Print one line a metric, in points."""
    from rich.console import Console
    from rich.table import Table

    where = f"{found.dataset} {found.protocol} {found.split}, n = {found.n}, points"
    table = Table("metric", "first", "second", "difference", "95 % interval", "ahead", title=where)
    for d in found.differences:
        interval = (
            "–" if d.low is None or d.high is None else f"{100 * d.low:+.2f} … {100 * d.high:+.2f}"
        )
        ahead = "–" if d.ahead is None else f"{d.ahead:.1%}"
        lead = f"{100 * d.difference:+.2f}"
        table.add_row(
            d.name, f"{100 * d.first:.2f}", f"{100 * d.second:.2f}", lead, interval, ahead
        )
    console = Console()
    console.print(f"first {found.first}, second {found.second}")
    console.print(table)
