"""`python -m active_learning`: push, pull, run, watch, status, …; exit code 0, 1 error, 2 usage."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from active_learning._agreement_command import agreement
from active_learning._cli import AsJson, desk_of_settings, show
from active_learning._recheck_command import recheck
from core.ending import run_command
from training._cli import errors_on_one_line

if TYPE_CHECKING:
    from active_learning.pull import SweepReport
    from active_learning.push import PushReport

app = typer.Typer(
    help="Ask a person where the models are unsure, and learn from the answers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def push(
    budget: Annotated[
        int | None, typer.Option(min=1, help="Images in this pass; default: the setting's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send what waits in the review queue to Label Studio."""
    with desk_of_settings() as (settings, desk):
        from active_learning.errands import send
        from core.errors import LabelStudioError

        report = send(settings, desk, budget=budget)
        counts = {key: value for key, value in asdict(report).items() if key != "stopped"}
        show(counts, as_json=as_json)
        incomplete = _incomplete(report)
        if incomplete:
            raise LabelStudioError(incomplete)


@app.command()
def pull(
    full: Annotated[
        bool, typer.Option("--full", help="Read the whole project and report differences.")
    ] = False,
    withdraw: Annotated[
        bool,
        typer.Option("--withdraw", help="With --full: take back every answer whose task is gone."),
    ] = False,
    resend: Annotated[
        bool,
        typer.Option(
            "--resend",
            help="With --full: send images again whose task is gone and that nobody answered.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch what people answered in Label Studio."""
    if (withdraw or resend) and not full:
        raise typer.BadParameter("--withdraw and --resend go with --full.")
    with desk_of_settings() as (settings, desk):
        from active_learning.label_studio import LabelStudio
        from active_learning.pull import pull as pull_once
        from active_learning.pull import sweep
        from active_learning.wording import count
        from core.errors import LabelStudioError

        swept: SweepReport | None = None
        with LabelStudio(settings.label_studio) as studio:
            if full:
                swept = sweep(
                    *(desk.queue, desk.inbox, studio),
                    labelling=desk.labelling,
                    withdraw=withdraw,
                    resend=resend,
                )
                taken = swept.taken
            else:
                taken = pull_once(desk.queue, desk.inbox, studio, labelling=desk.labelling)
        counts = {key: value for key, value in asdict(taken).items() if key != "repeated"}
        show(counts, as_json=as_json)
        if swept and not as_json:
            show({k: v for k, v in asdict(swept).items() if k != "taken"}, as_json=False)
        if swept and swept.divergence:
            raise LabelStudioError(
                f"Label Studio and the ledger differ: {count(swept.missing, 'task')} gone there, "
                f"{count(swept.duplicates, 'image')} with two answered tasks. `pull --full "
                "--resend` has images sent again whose task is gone and that nobody answered."
            )


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show the queue, the answers and the data set; Label Studio is not asked."""
    with desk_of_settings() as (settings, desk):
        from active_learning.status import in_words, read_status

        found = read_status(settings, desk)
        typer.echo(json.dumps(found, default=str) if as_json else "\n".join(in_words(found)))


app.command()(recheck)
app.command()(agreement)


@app.command()
def run(
    model: Annotated[
        str | None, typer.Argument(help="Model to train; default: the one that is due.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Train although nothing is due, or a run is parked.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make one pass: pull, train what is due, prove it, publish it, put it live."""
    with desk_of_settings() as (settings, desk):
        from active_learning.loop import run_once
        from core.errors import TrainingError

        report = run_once(settings, desk, model=model, force=force)
        if as_json:
            show(asdict(report), as_json=True)
        else:
            typer.echo(" ".join(filter(None, [report.run, report.verdict])))
            for reason in report.reasons:
                typer.echo(f"  {reason}")
        if report.verdict == "parked":
            raise TrainingError(
                f"Run {report.run} is parked: put right what it says and run "
                "`python -m active_learning run MODEL --force`."
            )


@app.command()
def watch() -> None:
    """Make a pass every few minutes until stopped; two watchers never train at once."""
    with errors_on_one_line():
        from active_learning.watch import watch as keep_watching
        from core.logs import set_up_logging
        from core.settings import load_settings

        settings = load_settings()
        set_up_logging(settings)
        keep_watching(settings)


@app.command()
def calibrate(
    release: Annotated[Path, typer.Argument(help="Release folder, for instance of a run.")],
    data: Annotated[str, typer.Option(help="The prepared data set it was trained on.")],
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
) -> None:
    """Teach a release how often it is right and what it has seen; the test split is not read."""
    with errors_on_one_line():
        from active_learning.calibrate import calibrate as fit
        from active_learning.novelty_fitting import fit_novelty
        from active_learning.ordinary import fit_ordinary
        from core.settings import load_settings
        from training.datasets import open_dataset

        dataset = open_dataset(data, load_settings().paths.datasets)
        fit(release, dataset, device=device)
        fit_ordinary(release, dataset, device=device)
        config = fit_novelty(release, dataset, device=device)
        fitted = config.calibration
        numbers = {k: round(v, 4) for k, v in fitted.items() if isinstance(v, int | float)}
        show({"revision": config.revision, **numbers}, as_json=False)


@app.command()
def simulate(
    data: Annotated[str, typer.Argument(help="A prepared data set of classes or of boxes.")],
    features: Annotated[
        Path | None,
        typer.Option(
            help="What the learner builds on. Classes: a release trained on another data set "
            "(default: the served mobilesteelnet). Boxes: an .npz of folded COCO arrays of YOLO11n."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions of each strategy.")] = 10,
    first: Annotated[int, typer.Option(min=2, help="Labels to begin with.")] = 20,
    step: Annotated[int, typer.Option(min=1, help="Labels a round.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Times that labels are bought.")] = 12,
    split: Annotated[
        str, typer.Option(help="On which the learner is judged; with boxes, on val as well.")
    ] = "val",
    output: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("docs/benchmarks"),
) -> None:
    """Replay a data set as a pool with hidden labels: which strategy needs the fewest labels?"""
    with errors_on_one_line():
        from active_learning.simulate import simulate_dataset
        from active_learning.simulation_page import conclusion, write_page
        from core.settings import load_settings
        from hub.registry import resolve

        settings = load_settings()
        release = features or resolve("mobilesteelnet", settings.paths).folder
        found = simulate_dataset(
            data, release, settings, seeds=seeds, sizes=(first, step, rounds), split=split
        )
        chosen = f" --features {features.name}" if features else ""
        command = (
            f"python -m active_learning simulate {data}{chosen} --seeds {seeds} --first {first} "
            f"--step {step} --rounds {rounds} --split {split}"
        )
        page = write_page(output, found, command=command, where=_where())
        for simulation in found:
            typer.echo(conclusion(simulation))
        typer.echo(page)


@app.command()
def novelty(
    models: Annotated[
        list[str] | None, typer.Argument(help="Default: the served classifier and segmenter.")
    ] = None,
    images: Annotated[int, typer.Option(min=2, help="At most, of each set.")] = 300,
    output: Annotated[Path, typer.Option(help="Folder of the page.")] = Path("docs/benchmarks"),
) -> None:
    """Measure whether releases notice images unlike anything they have seen."""
    with errors_on_one_line():
        from active_learning.novelty_benchmark import measure
        from active_learning.novelty_page import write_page
        from core.settings import load_settings
        from hub.registry import resolve

        paths = load_settings().paths
        asked = models or ["mobilesteelnet", "sme_deeplabv3plus"]
        results = [measure(resolve(name, paths).folder, paths, images=images) for name in asked]
        command = f"python -m active_learning novelty {' '.join(asked)} --images {images}"
        typer.echo(write_page(output, results, command=command, where=_where()))


def _where() -> str:
    """Machine and commit, for a page of measurements."""
    from training.runs import describe_machine, git_commit

    commit, _, changed = git_commit().partition("-")
    return f"{describe_machine('cpu')}, commit {'-'.join(filter(None, (commit[:12], changed)))}"


@app.command()
def size(
    release: Annotated[Path, typer.Argument(help="Release folder, for instance of a run.")],
    data: Annotated[str, typer.Option(help="The prepared data set it was trained on.")],
    sizes: Annotated[
        list[int] | None, typer.Option("--try", help="Pixels; repeatable; default: some larger.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
) -> None:
    """Choose the picture size on the validation split; thresholds and calibrate come afterwards."""
    with errors_on_one_line():
        from active_learning.sizes import fit_size
        from core.settings import load_settings
        from training.datasets import open_dataset

        dataset = open_dataset(data, load_settings().paths.datasets)
        show(asdict(fit_size(release, dataset, sizes or (), device=device)), as_json=False)


@app.command()
def thresholds(
    release: Annotated[Path, typer.Argument(help="Release folder of a segmenter.")],
    data: Annotated[str, typer.Option(help="The prepared data set it was trained on.")],
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
) -> None:
    """Fit a probability threshold per class on the validation split, then calibrate anew."""
    with errors_on_one_line():
        from active_learning.calibrate import calibrate as fit
        from active_learning.ordinary import fit_ordinary
        from active_learning.thresholds import fit_thresholds
        from core.settings import load_settings
        from training.datasets import open_dataset

        dataset = open_dataset(data, load_settings().paths.datasets)
        found = fit_thresholds(release, dataset, device=device)
        fit(release, dataset, device=device)
        fit_ordinary(release, dataset, device=device)  # novelty is of the features and stays
        show(asdict(found), as_json=False)


@app.command()
def committee(
    data: Annotated[
        str,
        typer.Option(help="The prepared data set its members were trained on, or a version of it."),
    ],
    output: Annotated[
        Path | None, typer.Option(help="File to write; default: beside promoted releases.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda:N.")] = "cpu",
) -> None:
    """Choose how the served detectors are fused into `committee`, on the validation split."""
    with errors_on_one_line():
        from active_learning.committee_tuning import tune_served
        from core.settings import load_settings

        tuning = tune_served(load_settings().paths, data, output, device=device)
        say = {member.name: member.weight for member in tuning.members}
        kept = tuning.model_dump(exclude={"members", "calibration", "operating", "format"})
        show({"weights": say, **kept}, as_json=False)


def _incomplete(report: PushReport) -> str:
    """Why a pass did not do all it should have, "" where it did."""
    if report.stopped:
        return f"Stopped early: {report.stopped}"
    if report.unknown:
        return (
            f"Whether {report.unknown} item(s) arrived is not known yet; the next push asks "
            "Label Studio for them."
        )
    return ""


if __name__ == "__main__":
    run_command(app)
