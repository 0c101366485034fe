"""`python -m training quantise`: an int8 export, and what it costs."""

from __future__ import annotations

from typing import Annotated

import typer

from training._cli import Model, Threads, errors_on_one_line, read_settings


def quantise(
    model: Model,
    data: Annotated[str, typer.Option(help="Prepared data set that the release learned from.")],
    images: Annotated[int, typer.Option(min=10, help="Training images to take ranges from.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of their draw.")] = 0,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Validation images to measure on; default: all.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Make the int8 export that ROLLMARK_SERVING__RUNTIME=int8 serves, and measure its accuracy."""
    with errors_on_one_line():
        from models import use_threads
        from training.benchmark.speed import release_of
        from training.datasets import open_dataset
        from training.quantise import measure_parity
        from training.quantise import quantise as make

        paths = read_settings().paths
        use_threads(threads)
        dataset = open_dataset(data, paths.datasets)
        typer.echo(make(release_of(model, paths), dataset, paths.cache, images=images, seed=seed))
        [row] = measure_parity(paths, [model], limit=limit).rows
        for runtime, value in row.values.items():
            typer.echo(f"{runtime}: {row.metric} {100 * value:.2f} % on {row.n} validation images")
