"""`python -m training benchmark`: tables made of runs, each by one command that can be stopped."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from training._cli import Device, ProtocolName, Threads, errors_on_one_line, read_settings
from training.benchmark.lookup_command import lookup
from training.benchmark.mistakes_command import mistakes
from training.benchmark.speed_commands import parity, speed

if TYPE_CHECKING:
    from training.benchmark.execute import Place
    from training.benchmark.rows import Row

PAGES = Path("docs/benchmarks")

app = typer.Typer(
    help="Measure models beside each other, and print the pages of docs/benchmarks.",
    no_args_is_help=True,
    add_completion=False,
)


class TableName(StrEnum):
    """The accuracy tables."""

    DETECT = "detect"
    SEGMENT = "segment"
    CLASSIFY = "classify"
    BALANCE = "balance"


class SettingName(StrEnum):
    """How much one run may cost."""

    LONG = "long"
    FULL = "full"
    MIDDLE = "middle"
    SMALL = "small"
    QUICK = "quick"


app.command()(speed)
app.command()(parity)
app.command()(mistakes)
app.command()(lookup)


@app.callback()
def benchmark() -> None:
    """Measure models beside each other, and print the pages of docs/benchmarks."""


@app.command()
def accuracy(
    task: Annotated[TableName, typer.Option(help="Which table.")],
    data: Annotated[
        list[str] | None, typer.Option(help="Prepared data set; repeatable; default: the table's.")
    ] = None,
    setting: Annotated[
        SettingName,
        typer.Option(
            metavar="SETTING",
            help="full: hours a row; long: twice that, detectors only; middle: an hour, "
            "segmenters only; small: minutes; quick: a smoke test.",
        ),
    ] = SettingName.SMALL,
    rows: Annotated[
        list[str] | None,
        typer.Option(help="Rows by network or id, * for any text; repeatable; default: all."),
    ] = None,
    protocol: Annotated[
        list[ProtocolName] | None,
        typer.Option(help="How the data are divided; repeatable; default: the table's."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="Such as 0,1,2; default: the table's own.")] = "",
    init: Annotated[
        Path | None, typer.Option(help="NPZ file of COCO weights for detectors of scale n.")
    ] = None,
    adopt: Annotated[
        list[Path] | None,
        typer.Option(help="Finished run folder to take for the row that it is; repeatable."),
    ] = None,
    page_only: Annotated[
        bool, typer.Option("--page-only", help="Print the page from what is finished.")
    ] = False,
    pages: Annotated[Path, typer.Option(help="Folder of pages and records.")] = PAGES,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 2,
    threads: Threads = None,
) -> None:
    """Run the rows of an accuracy table, each an ordinary run, and print its page.

    A killed row goes on from its checkpoint, a finished one is not run again.
    Started several times at once, the command shares the rows.
    """
    with errors_on_one_line():
        from models import choose_device, use_threads
        from training.benchmark.execute import Place, collect
        from training.benchmark.execute import adopt as adopt_run
        from training.benchmark.plans import plan, select
        from training.benchmark.publish import write_page

        settings = read_settings()
        use_threads(threads)
        place = Place(
            data_root=settings.paths.datasets,
            runs_root=settings.paths.runs,
            pages=pages,
            device=choose_device(device),
            init=init,
            workers=workers,
        )
        declared = plan(
            task.value,
            setting=setting.value,
            data=tuple(data or ()),
            protocols=tuple(name.value for name in protocol or ()),
            seeds=_seeds(seeds),
        )
        chosen = select(declared, rows or ())
        for folder in adopt or ():
            row = adopt_run(folder, declared, place)
            typer.echo(f"{folder} is row {row.id}")
        if page_only or adopt:
            collect(chosen, place)
        else:
            _run(task, chosen, place)
        if task is TableName.SEGMENT and not page_only:
            _draw_cases(chosen, place)
        typer.echo(write_page(task.value, pages))


def _run(task: TableName, rows: tuple[Row, ...], place: Place) -> None:
    """Run rows and keep the page up to date; TrainingError at the end if any failed."""
    from rich.console import Console

    from core.errors import TrainingError
    from training.benchmark.execute import run_rows
    from training.benchmark.publish import write_page

    console = Console(stderr=True)
    outcome = run_rows(
        rows,
        place,
        tell=lambda text: console.print(text, style="bold", soft_wrap=True),
        after=lambda _row: write_page(task.value, place.pages),
    )
    if outcome.failed:
        write_page(task.value, place.pages)
        row, reason = outcome.failed[0]
        raise TrainingError(
            f"{len(outcome.failed)} of {len(rows)} rows failed, first {row}: {reason}"
        )


def _draw_cases(rows: tuple[Row, ...], place: Place) -> None:
    """Renew the figure of masks from the paper's network, if its leak-free weights are here."""
    from models import load
    from training.benchmark.examples import draw_masks
    from training.datasets import open_dataset

    for row in rows:
        run = place.folder(row)
        full = row.network == "sme_deeplabv3plus-paper" and row.protocol == "leak-free"
        if full and (run.release / "config.json").is_file():
            dataset = open_dataset(row.data, place.data_root)
            predictor = load(run.release, device=place.device)
            draw_masks(predictor, dataset, place.pages / "segmentation-cases.png")
            return


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError as exc:
        raise typer.BadParameter(f"--seeds {text!r} is not numbers parted by commas.") from exc
    if any(not 0 <= seed < 2**32 for seed in seeds):
        raise typer.BadParameter(f"--seeds {text!r}: each must lie in [0, 2^32).")
    return seeds
