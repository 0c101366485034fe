"""`python -m hub`: what is on the shelf, and what its cards say."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from core.ending import run_command
from core.errors import RollmarkError
from core.files import refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.records import Evaluation
    from core.settings import Settings

Measured = Annotated[
    list[Path] | None,
    typer.Option(help="JSON of `training evaluate` on these weights; repeatable."),
]
app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Releases, their cards, and which are served."
)


@app.command("list")
def list_releases(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Show the release that is served for each model."""
    from core.settings import load_settings
    from hub.registry import resolve_all

    releases = resolve_all(load_settings().paths)
    lines = [release.served() for release in releases]
    if as_json:
        fields = {"name", "task", "revision", "source", "parameters", "metrics"}
        print(json.dumps([line.model_dump(mode="json", include=fields) for line in lines]))
        return
    from rich.console import Console
    from rich.table import Table

    # A model's name and revision are typed again: however narrow the terminal, they stay whole.
    table = Table(box=None, pad_edge=False)
    for head in ("model", "task", "revision", "source", "parameters", "test metrics (%)"):
        table.add_column(head, no_wrap=head in ("model", "revision"))
    for release, line in zip(releases, lines, strict=True):
        metrics = "\n".join(f"{m.name} {100 * m.value:.1f}" for m in line.metrics[:2])
        if metrics:
            split = ", the paper's split" if line.protocol == "paper" else ""
            metrics += f"\non {release.config.dataset}{split}"
        table.add_row(
            line.name, line.task, line.revision, line.source, f"{line.parameters:,}", metrics
        )
    console = Console() if sys.stdout.isatty() else Console(width=100)
    console.print(table)


@app.command()
def card(
    model: Annotated[str, typer.Argument(help="Name of a model.")],
    folder: Annotated[
        Path | None, typer.Option(help="Release folder; default: the one that is served.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write README.md into the release folder.")
    ] = False,
) -> None:
    """Print a model's card, or write it beside the weights."""
    from core.settings import load_settings
    from hub.card import write_card
    from hub.registry import resolve
    from hub.shelf import CARD_FILE
    from models import get_spec
    from models._release import read_release

    where = folder or resolve(model, load_settings().paths).folder
    config = read_release(where)
    text = write_card(config, get_spec(config.name))
    if write:
        (where / CARD_FILE).write_text(text, encoding="utf-8")
    else:
        print(text)


@app.command("publish")
def publish_releases(
    model: Annotated[str | None, typer.Argument(help="Name of a model; or --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every model that is served.")] = False,
    namespace: Annotated[
        str | None, typer.Option(help="User or organisation; default: the settings'.")
    ] = None,
    release: Annotated[
        Path | None, typer.Option(help="Release folder; default: the one that is served.")
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make new repositories private.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be sent, send nothing.")
    ] = False,
) -> None:
    """Send releases to the Hugging Face Hub and make them the live ones there."""
    from hub.publish import pack, publish
    from hub.registry import resolve, resolve_all
    from hub.remote import repository

    if (model is None) != every:
        raise typer.BadParameter("name one model, or give --all.")
    if release is not None and every:
        raise typer.BadParameter("--release is the folder of one model, not of --all.")
    settings = _settings(namespace)
    if model is None:
        folders = [found.folder for found in resolve_all(settings.paths)]
    else:
        folders = [release or resolve(model, settings.paths).folder]
    for folder in folders:
        if dry_run:
            shipment = pack(folder)
            name = shipment.config.name
            print(f"{repository(settings.hub.namespace or 'NAMESPACE', name)}:")
            for file, data in shipment.files.items():
                print(f"  {file}  {len(data):,} bytes")
            continue
        done = publish(folder, settings.hub, private=private)
        what = f"{done.before or 'none'} → {done.revision}" if done.is_new else "nothing new"
        print(f"{done.repo}: {what} (commit {done.commit[:12]})")


@app.command("promote")
def promote_release(
    model: Annotated[str, typer.Argument(help="Name of a model.")],
    revision: Annotated[
        str | None, typer.Option(help="Revision that lies on this machine, or its first digits.")
    ] = None,
    release: Annotated[Path | None, typer.Option(help="Release folder instead.")] = None,
    evaluation: Measured = None,
    why: Annotated[str, typer.Option(help="For the history.")] = "",
    here: Annotated[bool, typer.Option("--here", help="Leave the Hub as it is.")] = False,
) -> None:
    """Make a release the live one, on this machine and on the Hub if a namespace is set."""
    from hub.moves import promote

    wanted = revision or release
    if wanted is None or (revision and release):
        raise typer.BadParameter("give either --revision or --release.")
    if revision and evaluation:
        raise typer.BadParameter("--evaluation is for a --release that nobody has described yet.")
    measured = _evaluations(evaluation)
    moved = promote(model, wanted, _settings(), evaluations=measured, why=why, here=here)
    print(*moved.lines(model), sep="\n")


@app.command("rollback")
def roll_release_back(
    model: Annotated[str, typer.Argument(help="Name of a model.")],
    why: Annotated[str, typer.Option(help="For the history.")] = "",
    here: Annotated[bool, typer.Option("--here", help="Leave the Hub as it is.")] = False,
) -> None:
    """Return to the release before the live one; again and again, to the first."""
    from hub.moves import roll_back

    print(*roll_back(model, _settings(), why=why, here=here).lines(model), sep="\n")


@app.command("history")
def show_history(
    model: Annotated[str, typer.Argument(help="Name of a model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")] = False,
) -> None:
    """Show every move of a model's live release on this machine, oldest first."""
    from hub.channel import history

    moves = history(model, _settings().paths)
    if as_json:
        print(json.dumps([move.model_dump(mode="json") for move in moves]))
        return
    if not moves:
        print(f"No release of {model} was ever promoted or rolled back on this machine.")
    for move in moves:
        when = f"{move.at:%Y-%m-%d %H:%M} UTC"
        why = f": {move.why}" if move.why else ""
        print(f"{when}  {move.what} {move.before or 'none'} → {move.after} by {move.who}{why}")


@app.command("space")
def make_space(
    name: Annotated[str | None, typer.Option(help="NAMESPACE/NAME of the Space.")] = None,
    push: Annotated[bool, typer.Option("--push", help="Send it to the Hub.")] = False,
    output: Annotated[
        Path | None, typer.Option(help="Folder; default: space in the data folder.")
    ] = None,
    reviewer: Annotated[
        list[str] | None, typer.Option(help="User who may act on its pages; repeatable.")
    ] = None,
    bucket: Annotated[
        str | None, typer.Option(help="NAMESPACE/NAME of a bucket that keeps its data.")
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new Space private.")] = False,
) -> None:
    """Write the folder of a Hugging Face Space that serves the app; --push sends it."""
    from hub.space import live_models, prepare
    from hub.space import push as push_space

    if push and name is None:
        raise typer.BadParameter("--push needs --name NAMESPACE/NAME.")
    settings = _settings()
    folder = output or settings.paths.data / "space"
    preload = live_models(settings)
    files = prepare(
        folder, settings, preload=preload, reviewers=reviewer or (), keeps=bucket is not None
    )
    print(f"{len(files)} files in {folder}, {len(preload)} models preloaded")
    if push and name is not None:
        commit = push_space(folder, name, settings, private=private, bucket=bucket)
        print(f"{name}: commit {commit[:12]}")


@app.command("schedule")
def schedule_retraining(
    cron: Annotated[
        str | None, typer.Argument(help='When, UTC: "0 2 * * 1", or @daily; or --remove.')
    ] = None,
    space: Annotated[str, typer.Option(help="NAMESPACE/NAME of the Space to run in.")] = "",
    bucket: Annotated[str, typer.Option(help="NAMESPACE/NAME of the bucket with the data.")] = "",
    flavor: Annotated[str, typer.Option(help="The Hub's name of a machine.")] = "l4x1",
    model: Annotated[list[str] | None, typer.Option(help="Model; repeatable.")] = None,
    remove: Annotated[
        str | None, typer.Option(help="NAMESPACE whose scheduled jobs are taken away.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the job, without its secrets.")
    ] = False,
) -> None:
    """Let Hugging Face Jobs run a pass of retraining on a schedule."""
    from hub import jobs

    if (cron is None) == (remove is None):
        raise typer.BadParameter("give a schedule, or --remove NAMESPACE.")
    settings = _settings()
    if cron is None or remove is not None:
        taken = jobs.remove(remove or "", settings)
        print(f"{taken} scheduled job{'' if taken == 1 else 's'} taken away")
        return
    wanted = jobs.plan(
        settings, cron, space=space, bucket=bucket, flavor=flavor, models=model or ()
    )
    if dry_run:
        shown = {**dataclasses.asdict(wanted), "secrets": sorted(wanted.secrets)}
        print(json.dumps(shown, indent=2))
        return
    print(f"scheduled as {jobs.put(wanted, settings)}, at most {wanted.timeout_s // 60} min a run")


@app.command()
def bundle(
    release: Annotated[Path, typer.Argument(help="Release folder of a training run.")],
    evaluation: Measured = None,
) -> None:
    """Make a run's release the one that comes with the code, with its evaluations and card."""
    from core.settings import load_settings
    from hub.shelf import shelve
    from models._release import read_release

    target = load_settings().paths.bundled / read_release(release).name
    config = shelve(release, target, _evaluations(evaluation))
    print(f"{config.name} {config.revision} is now in {target}")


def _evaluations(files: Sequence[Path] | None) -> list[Evaluation]:
    from core.errors import InputError
    from core.records import Evaluation

    measured = []
    for file in files or ():
        try:
            measured.append(Evaluation.model_validate_json(file.read_bytes()))
        except (OSError, ValueError) as exc:
            raise InputError(f"{file} is not a file that `training evaluate` wrote.") from exc
    return measured


def _settings(namespace: str | None = None) -> Settings:
    """The settings, with another namespace if one is given."""
    from pydantic import ValidationError

    from core.errors import ConfigError
    from core.settings import HubSettings, load_settings

    settings = load_settings()
    if namespace is None:
        return settings
    try:
        hub = HubSettings.model_validate({**settings.hub.model_dump(), "namespace": namespace})
    except ValidationError as exc:
        raise ConfigError(
            f"{namespace!r} is no name of a user or organisation on the Hub."
        ) from exc
    return settings.model_copy(update={"hub": hub})


def main() -> None:
    """Run, turning our own errors and a full disk into one line on stderr and exit code 1."""
    try:
        app()
    except RollmarkError as exc:
        print(exc, file=sys.stderr)
        sys.exit(1)
    except OSError as exc:
        if (sentence := refusal(exc)) is None:
            raise
        print(sentence, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    run_command(main)
