"""`python -m training benchmark speed` and `parity`: how fast, and at no loss of accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training._cli import errors_on_one_line, read_settings

PAGES = Path("docs/benchmarks")

Pages = Annotated[Path, typer.Option(help="Folder of the page and its records.")]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="Repeatable; default: all that are served.")
]
Cpus = Annotated[
    int | None, typer.Option(min=1, help="CPUs that everyone may use; default: all there are.")
]


def speed(
    quick: Annotated[bool, typer.Option(help="Few repetitions: to see that it works.")] = False,
    model: Models = None,
    data: Annotated[str, typer.Option(help="Prepared data set of the pictures.")] = "neu-det",
    cpus: Cpus = None,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds that contenders take turns on one network.")
    ] = 60,
    pages: Pages = PAGES,
    json_too: Annotated[bool, typer.Option("--json", help="Print the record as well.")] = False,
) -> None:
    """Time Rollmark beside ultralytics, onnxruntime and plain torch, and print the page."""
    with errors_on_one_line():
        from core.errors import DatasetError
        from core.logs import set_up_logging
        from training.benchmark.speed import measure, served_names, use_cpus
        from training.benchmark.speed_page import write_page
        from training.benchmark.speed_records import SPEED_FILE, save
        from training.datasets import open_dataset

        settings = read_settings()
        set_up_logging(settings)  # it takes long and says where it is
        used = use_cpus(cpus)
        samples = open_dataset(data, settings.paths.datasets).split("leak-free", "val")
        if not samples:
            raise DatasetError(f"{data} has no validation images to time anyone with.")
        files = [sample.path for sample in samples[:500]]
        record = measure(
            settings.paths,
            files,
            models=model or served_names(settings.paths),
            cpus=used,
            quick=quick,
            patience_s=patience,
        )
        save(record, pages / SPEED_FILE)
        page = write_page(pages)
        typer.echo(record.model_dump_json(indent=1) if json_too else page)


def parity(
    model: Models = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Validation images of each, at random; default: all.")
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8/--no-int8", help="Quantise where that was not done yet.")
    ] = True,
    cpus: Cpus = None,
    pages: Pages = PAGES,
) -> None:
    """Measure accuracy on validation in torch, OpenVINO and int8, and print the page."""
    with errors_on_one_line():
        from core.logs import set_up_logging
        from training.benchmark.speed import served_names, use_cpus
        from training.benchmark.speed_page import write_page
        from training.benchmark.speed_records import PARITY_FILE, save
        from training.quantise import measure_parity

        settings = read_settings()
        set_up_logging(settings)
        use_cpus(cpus)
        paths = settings.paths
        chosen = model or served_names(paths)
        record = measure_parity(paths, chosen, limit=limit, int8=int8)
        save(record, pages / PARITY_FILE)
        typer.echo(write_page(pages))
