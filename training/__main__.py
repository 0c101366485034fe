"""`python -m training`: prepare, train, evaluate, predict. Exit code 0 done, 1 error, 2 usage."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from core.records import Evaluation
    from core.settings import Settings
    from core.types import Predictor

app = typer.Typer(
    help="From data set to measured weights.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class ProtocolName(StrEnum):
    """How a data set is divided."""

    LEAK_FREE = "leak-free"
    PAPER = "paper"


Model = Annotated[str, typer.Argument(help="da_yolo, grace, … or a baseline such as yolo11.")]
Protocol = Annotated[
    ProtocolName,
    typer.Option(help="leak-free keeps related images in one split; paper divides at random."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda:N.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads; default: torch's own.")]
Weights = Annotated[
    Path | None,
    typer.Option(help="Release folder, or model.safetensors in one; default: what the app serves."),
]


@app.command()
def prepare(
    dataset: Annotated[str, typer.Argument(help="neu-det, neu-cls, neu-seg, x-sdd or gc10-det.")],
    source: Annotated[Path, typer.Option(help="Public archive: zip or folder.")],
    seed: Annotated[int, typer.Option(help="Of the splits.")] = 0,
) -> None:
    """Turn a public archive into data/datasets/DATASET with frozen, leak-free splits."""
    with _errors_on_one_line():
        from training.datasets import prepare as prepare_dataset

        settings = _settings()
        report = prepare_dataset(dataset, source, settings.paths.datasets, seed=seed)
        typer.echo(report.render())


@app.command()
def train(
    model: Model,
    data: Annotated[str | None, typer.Option(help="Prepared data set; not with --resume.")] = None,
    scale: Annotated[str | None, typer.Option(help="Size of the network, such as n, s, m.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the paper's.")] = None,
    image_size: Annotated[
        int | None, typer.Option(min=32, help="Pixels; default: the paper's.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images; default: the paper's.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    weights: Annotated[
        Path | None, typer.Option(help="Release to start from; default: random weights.")
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="NPZ file of COCO weights to start a detector from.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Name or folder of a run to go on with.")
    ] = None,
    protocol: Protocol = ProtocolName.LEAK_FREE,
    workers: Annotated[int, typer.Option(min=0, help="Image loaders.")] = 2,
    threads: Threads = None,
    run_id: Annotated[str | None, typer.Option(help="Name of the new run.")] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE over the recipe; repeatable.")
    ] = None,
) -> None:
    """Train a model into a run folder, and write its release."""
    if weights is not None and init is not None:
        raise typer.BadParameter("give --weights or --init, not both.")
    if (data is None) == (resume is None):
        raise typer.BadParameter("give --data for a new run, or --resume to go on with one.")
    overrides = dict(_override(text) for text in setting or ())
    with _errors_on_one_line():
        from core.errors import TrainingError
        from models import choose_device, get_spec, use_threads
        from training import launch
        from training.datasets import open_dataset

        settings = _settings()
        use_threads(threads)
        place = choose_device(device)
        first = weights or init
        if resume is not None:
            run = launch.find_run(resume, settings.paths.runs)
            if run.load_record().model != model:
                raise TrainingError(f"Run {run.id} trains {run.load_record().model}, not {model}.")
            record = launch.resume_run(
                run,
                data_root=settings.paths.datasets,
                device=place,
                initial_weights=first,
                workers=workers,
            )
            folder = run.root
        else:
            record = launch.start_run(
                get_spec(model),
                open_dataset(str(data), settings.paths.datasets),
                runs_root=settings.paths.runs,
                run_id=run_id,
                protocol=protocol.value,
                scale=scale,
                epochs=epochs,
                image_size=image_size,
                batch=batch,
                seed=seed,
                device=place,
                initial_weights=first,
                overrides=overrides,
                workers=workers,
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
    resamples: Annotated[int, typer.Option(min=0, help="Of the bootstrap; 0: none.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
) -> None:
    """Measure a model on a split, with 95 % intervals."""
    with _errors_on_one_line():
        from core.files import write_atomically
        from models import use_threads
        from training.datasets import open_dataset
        from training.evaluate import evaluate as measure

        settings = _settings()
        dataset = open_dataset(data, settings.paths.datasets)
        use_threads(threads)
        predictor = _predictor(model, weights, device, settings)
        evaluation = measure(
            predictor,
            dataset,
            protocol=protocol.value,
            split=split,
            seed=seed,
            resamples=resamples,
        )
        if json_file is not None:
            write_atomically(json_file, evaluation.model_dump_json(indent=2).encode())
        _show(evaluation)


@app.command()
def predict(
    model: Model,
    images: Annotated[Path, typer.Option(help="Folder of images.")],
    output: Annotated[Path, typer.Option(help="Folder for predictions.json and masks.")],
    weights: Weights = None,
    score_threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Detections below it are left out.")
    ] = 0.001,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Look at a folder of images; exit code 1 if any of them could not be read."""
    with _errors_on_one_line():
        from core.errors import InputError
        from models import use_threads
        from training.predict import predict_folder

        settings = _settings()
        use_threads(threads)
        predictor = _predictor(model, weights, device, settings)
        failed = predict_folder(predictor, images, output, score_threshold=score_threshold)
        if failed:
            raise InputError(
                f"{failed} image{'s' if failed > 1 else ''} could not be read: see the errors in "
                f"{output / 'predictions.json'}."
            )


@contextmanager
def _errors_on_one_line() -> Iterator[None]:
    """Our errors become one line on stderr and exit code 1; a bug keeps its traceback."""
    from core.errors import RollmarkError

    try:
        yield
    except RollmarkError as exc:
        typer.echo(" ".join(str(exc).split()), err=True)
        raise typer.Exit(1) from exc


def _settings() -> Settings:
    from core.settings import load_settings

    return load_settings()


def _predictor(model: str, weights: Path | None, device: str, settings: Settings) -> Predictor:
    """The named model with the given weights, or with those that the app would serve."""
    from core.errors import WeightsError
    from models import choose_device, get_spec, load
    from models._release import find_release
    from training.initial import release_folder

    spec = get_spec(model)
    if weights is None:
        paths = settings.paths
        folder = find_release(spec.name, bundled=paths.bundled, releases=paths.releases)
    else:
        folder = release_folder(weights)
    predictor = load(folder, device=choose_device(device))
    if predictor.spec.name != spec.name:
        raise WeightsError(f"{folder} holds weights of {predictor.spec.name}, not of {spec.name}.")
    return predictor


def _override(text: str) -> tuple[str, Any]:
    """`lr0=0.01` as a name and a value: JSON where it is, else the text itself."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise typer.BadParameter(f"--set {text!r} is not NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _show(evaluation: Evaluation) -> None:
    """Print metrics and, below, what each class got."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("metric", "value", "95 % interval", title=_title(evaluation))
    percent: Callable[[float], str] = "{:.2f}".format
    for metric in evaluation.metrics:
        interval = "–"
        if metric.low is not None and metric.high is not None:
            interval = f"{percent(100 * metric.low)} – {percent(100 * metric.high)}"
        table.add_row(metric.name, percent(100 * metric.value), interval)
    console.print(table)
    detailed = [m for m in evaluation.metrics if m.per_class]
    classes = Table("class", *(m.name for m in detailed))
    for label in dict.fromkeys(name for m in detailed for name in m.per_class):
        values = (m.per_class.get(label) for m in detailed)
        classes.add_row(label, *("–" if v is None else percent(100 * v) for v in values))
    console.print(classes)


def _title(evaluation: Evaluation) -> str:
    e = evaluation
    return f"{e.model} {e.revision} on {e.dataset} {e.protocol} {e.split}, n = {e.metrics[0].n}, %"


if __name__ == "__main__":
    app()
