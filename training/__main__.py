"""`python -m training`: prepare, train, evaluate, predict. Exit code 0 done, 1 error, 2 usage."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from core.ending import run_command
from training._cli import (
    Device,
    Model,
    Protocol,
    ProtocolName,
    TaskName,
    Threads,
    Tta,
    Weights,
    errors_on_one_line,
    old_and_new,
    override,
    read_settings,
    show,
    tell_learned,
)
from training._compare_command import compare
from training._convert_command import convert
from training._data_commands import statistics, synthesise
from training._labels_command import labels
from training._quantise_command import quantise
from training.benchmark.commands import app as benchmark

app = typer.Typer(
    help="From data set to measured weights.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(benchmark, name="benchmark")
app.command()(statistics)
app.command()(synthesise)
app.command()(convert)
app.command()(quantise)
app.command()(compare)
app.command()(labels)


class Engine(StrEnum):
    """What carries out a prediction over a folder."""

    LOCAL = "local"
    RAY = "ray"


@app.command()
def prepare(
    dataset: Annotated[
        str,
        typer.Argument(
            help="neu-det, neu-cls, neu-seg, x-sdd or gc10-det; with --task, a new name."
        ),
    ],
    source: Annotated[Path, typer.Option(help="Zip or folder: a public archive, or your own.")],
    seed: Annotated[int, typer.Option(min=0, help="Of the splits.")] = 0,
    task: Annotated[
        TaskName | None, typer.Option(help="Of a set of your own: what its annotations are for.")
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(help="OLD=NEW: another name for a class of your own; repeatable."),
    ] = None,
) -> None:
    """Turn an archive, or pictures of your own, into data/datasets/DATASET with frozen splits."""
    renamed = dict(old_and_new(text) for text in rename or ())
    if renamed and task is None:
        raise typer.BadParameter("--rename is for a set of your own: say its --task, too.")
    with errors_on_one_line():
        from training.datasets import prepare as prepare_dataset

        settings = read_settings()
        report = prepare_dataset(
            dataset,
            source,
            settings.paths.datasets,
            seed=seed,
            task=task.value if task else None,
            rename=renamed,
            limits=settings.serving.image_limits,
        )
        typer.echo(report.render())


@app.command()
def train(
    model: Model,
    data: Annotated[str | None, typer.Option(help="Prepared data set; not with --resume.")] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="Size of the network, such as n, s, m; default: the model's usual one."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Times through the training images; default: the paper's."),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, help="Pixels; default: the paper's.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images; default: the paper's.")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**32 - 1, help="Of all that is random; default: 0.")
    ] = None,
    device: Device = "auto",
    weights: Annotated[
        Path | None, typer.Option(help="Release to start from; default: random weights.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="NPZ file of COCO weights to start a detector from.")
    ] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(help="Release that a detector learns from beside the labels; repeatable."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Name or folder of a run to go on with.")
    ] = None,
    protocol: Annotated[
        ProtocolName | None, typer.Option(help="As for evaluate; default: leak-free.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Processes that load images.")] = 2,
    threads: Threads = None,
    run_id: Annotated[
        str | None,
        typer.Option(help="Name of the new run; default: its time, model, scale and seed."),
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE over the recipe; repeatable.")
    ] = None,
) -> None:
    """Train a model into a run folder, and write its release."""
    if weights is not None and init is not None:
        raise typer.BadParameter("give --weights or --init, not both.")
    if (data is None) == (resume is None):
        raise typer.BadParameter("give --data for a new run, or --resume to go on with one.")
    of_new_runs: dict[str, object] = {"scale": scale, "epochs": epochs, "image-size": image_size}
    of_new_runs |= {"batch": batch, "seed": seed, "protocol": protocol}
    of_new_runs |= {"run-id": run_id, "set": setting or None}
    given = [name for name, value in of_new_runs.items() if value is not None]
    if resume is not None and given:
        raise typer.BadParameter(f"--{given[0]} is not for --resume: a run goes on as it began.")
    overrides = dict(override(text) for text in setting or ())
    with errors_on_one_line():
        from core.errors import TrainingError
        from models import choose_device, get_spec, use_threads
        from models._release import read_release
        from training import launch
        from training.datasets import open_dataset
        from training.initial import release_folder
        from training.learned import refuse_parent

        settings = read_settings()
        use_threads(threads)
        place = choose_device(device)
        first = weights or init
        if resume is not None:
            run = launch.find_run(resume, settings.paths.runs)
            begun = run.load_record()
            if begun.model != model:
                raise TrainingError(f"Run {run.id} trains {begun.model}, not {model}.")
            if begun.finished_at is not None:
                typer.echo(f"Run {run.id} is finished: nothing is left to do.", err=True)
            record = launch.resume_run(
                run,
                data_root=settings.paths.datasets,
                device=place,
                initial_weights=first,
                workers=workers,
                teachers=tuple(teacher or ()),
            )
            folder = run.root
        else:
            dataset = open_dataset(str(data), settings.paths.datasets)
            divided = protocol or ProtocolName.LEAK_FREE
            if weights is not None:
                refuse_parent(
                    read_release(release_folder(weights)),
                    dataset,
                    protocol=divided.value,
                    data_root=settings.paths.datasets,
                )
            record = launch.start_run(
                get_spec(model),
                dataset,
                runs_root=settings.paths.runs,
                run_id=run_id,
                protocol=divided.value,
                scale=scale,
                epochs=epochs,
                image_size=image_size,
                batch=batch,
                seed=seed or 0,
                device=place,
                initial_weights=first,
                overrides=overrides,
                workers=workers,
                teachers=tuple(teacher or ()),
            )
            folder = settings.paths.runs / record.id
        typer.echo(folder)


@app.command()
def evaluate(
    model: Model,
    data: Annotated[str, typer.Option(help="Prepared data set.")],
    split: Annotated[
        str, typer.Option(help="train, val, test, joined as val+test, or all.")
    ] = "test",
    weights: Weights = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the evaluation to this file.")
    ] = None,
    protocol: Protocol = ProtocolName.LEAK_FREE,
    device: Device = "auto",
    threads: Threads = None,
    tta: Tta = False,
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Measure a model on a split, with 95 % intervals."""
    with errors_on_one_line():
        from core.files import write_atomically
        from models import use_threads
        from training.datasets import open_dataset
        from training.evaluate import evaluate as measure
        from training.served import open_predictor

        settings = read_settings()
        dataset = open_dataset(data, settings.paths.datasets)
        use_threads(threads)
        predictor = open_predictor(model, weights, device, settings.paths, tta=tta)
        evaluation = measure(
            predictor,
            dataset,
            protocol=protocol.value,
            split=split,
            seed=seed,
            resamples=resamples,
        )
        learned = tell_learned(
            model, weights, dataset, protocol=protocol.value, split=split, paths=settings.paths
        )
        if learned is not None:
            told = {**evaluation.settings, "learned_images": learned}
            evaluation = evaluation.model_copy(update={"settings": told})
        show(evaluation)
        if json_file is not None:
            write_atomically(json_file, evaluation.model_dump_json(indent=2).encode())


@app.command()
def predict(
    model: Model,
    images: Annotated[Path, typer.Option(help="Folder of images, without its subfolders.")],
    output: Annotated[Path, typer.Option(help="Folder for predictions.json and masks.")],
    weights: Weights = None,
    score_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Detections below it are left out.")
    ] = 0.001,
    device: Device = "auto",
    threads: Threads = None,
    tta: Tta = False,
    engine: Annotated[
        Engine, typer.Option(help="local, or ray: a cluster, resumable; see docs/archives.md.")
    ] = Engine.LOCAL,
    ray_address: Annotated[
        str | None, typer.Option(help="Of a running Ray cluster; default: one on this machine.")
    ] = None,
) -> None:
    """Look at a folder of images; exit code 1 if any of them could not be read."""
    if ray_address is not None and engine is not Engine.RAY:
        raise typer.BadParameter("--ray-address goes with --engine ray.")
    with errors_on_one_line():
        from functools import partial

        from core.errors import InputError
        from models import choose_device, use_threads
        from training.predict import predict_folder
        from training.predictions import PREDICTIONS_FILE
        from training.served import open_predictor

        settings = read_settings()
        use_threads(threads)
        runtime, limits = settings.serving.runtime, settings.serving.image_limits
        make = partial(
            open_predictor, model, weights, device, settings.paths, tta=tta, runtime=runtime
        )
        if engine is Engine.RAY:
            from training.ray_predict import predict_archive

            tally = predict_archive(
                make,
                images,
                output,
                score_threshold=score_threshold,
                limits=limits,
                address=ray_address,
                threads=threads or 1,
                gpus=int(choose_device(device).startswith("cuda")),
            )
        else:
            tally = predict_folder(
                make(), images, output, score_threshold=score_threshold, limits=limits
            )
        written = output / PREDICTIONS_FILE
        if tally.unreadable:
            raise InputError(
                f"{tally.unreadable} of {tally.images} images could not be read: the errors, and "
                f"the answers for the others, are in {written}."
            )
        typer.echo(f"{tally.images} image{'s' if tally.images > 1 else ''} looked at: {written}")


if __name__ == "__main__":
    run_command(app)
