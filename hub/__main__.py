"""`python -m hub`: what is on the shelf, and what its cards say."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from core.errors import RollmarkError

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

    lines = [release.served() for release in resolve_all(load_settings().paths)]
    if as_json:
        fields = {"name", "task", "revision", "source", "parameters", "metrics"}
        print(json.dumps([line.model_dump(mode="json", include=fields) for line in lines]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "task", "revision", "source", "parameters", "test metrics (%)")
    for line in lines:
        metrics = ", ".join(f"{m.name} {100 * m.value:.1f}" for m in line.metrics[:3])
        table.add_row(
            line.name, line.task, line.revision, line.source, f"{line.parameters:,}", metrics
        )
    Console().print(table)


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
    from models import get_spec
    from models._release import read_release

    where = folder or resolve(model, load_settings().paths).folder
    config = read_release(where)
    text = write_card(config, get_spec(config.name))
    if write:
        (where / "README.md").write_text(text, encoding="utf-8")
    else:
        print(text)


@app.command()
def bundle(
    release: Annotated[Path, typer.Argument(help="Release folder of a training run.")],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="JSON of `training evaluate` on these weights; repeatable."),
    ] = None,
) -> None:
    """Make a run's release the one that comes with the code, with its evaluations and card."""
    from core.errors import InputError
    from core.records import Evaluation
    from core.settings import load_settings
    from hub.shelf import shelve
    from models._release import read_release

    measured = []
    for path in evaluation or []:
        try:
            measured.append(Evaluation.model_validate_json(path.read_bytes()))
        except (OSError, ValueError) as exc:
            raise InputError(f"{path} is not a file that `training evaluate` wrote.") from exc
    target = load_settings().paths.bundled / read_release(release).name
    config = shelve(release, target, measured)
    print(f"{config.name} {config.revision} is now in {target}")


def main() -> None:
    """Run, turning our own errors into one line on stderr and exit code 1."""
    try:
        app()
    except RollmarkError as exc:
        print(exc, file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
