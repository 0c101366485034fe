"""`python -m training quantise`: an int8 export, and what it costs."""

from __future__ import annotations

from typing import Annotated

import typer

from training._cli import Model, Threads, Weights, errors_on_one_line, read_settings


def quantise(
    model: Model,
    data: Annotated[str, typer.Option(help="Prepared data set that the release learned from.")],
    weights: Weights = None,
    images: Annotated[int, typer.Option(min=10, help="Training images to take ranges from.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Of their draw.")] = 0,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Validation images to measure on, at random; default: all."),
    ] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write what it costs into the release, for its card.")
    ] = False,
    threads: Threads = None,
) -> None:
    """Make the int8 export that ROLLMARK_SERVING__RUNTIME=int8 serves, and measure its accuracy."""
    if record and limit is not None:
        raise typer.BadParameter("--record tells of the whole validation split: leave --limit out.")
    with errors_on_one_line():
        from models import use_threads
        from training.datasets import open_dataset
        from training.quantise import parity_of, record_loss
        from training.quantise import quantise as make
        from training.served import served_release

        paths = read_settings().paths
        use_threads(threads)
        folder = served_release(model, weights, paths)
        dataset = open_dataset(data, paths.datasets)
        typer.echo(make(folder, dataset, paths.cache, images=images, seed=seed))
        row = parity_of(folder, paths, limit=limit)
        for runtime, value in row.values.items():
            typer.echo(f"{runtime}: {row.metric} {100 * value:.2f} % on {row.n} validation images")
        if record:
            record_loss(folder, row)
            typer.echo(f"{folder} says so; `python -m hub card {model} --write` renews its card")
