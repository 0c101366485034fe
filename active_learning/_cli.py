"""What the commands of `python -m active_learning` share: their option, desk and print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from training._cli import errors_on_one_line

if TYPE_CHECKING:
    from active_learning.desk import Desk
    from core.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


@contextmanager
def desk_of_settings() -> Iterator[tuple[Settings, Desk]]:
    """The desk of this installation, opened for one command."""
    with errors_on_one_line():
        from core.logs import set_up_logging
        from core.settings import load_settings

        settings = load_settings()
        set_up_logging(settings)
        from active_learning.desk import open_desk

        desk = open_desk(settings)
        try:
            yield settings, desk
        finally:
            desk.ledger.close()


def show(values: dict[str, Any], *, as_json: bool) -> None:
    """Print values, one a line, or as one JSON object."""
    if as_json:
        typer.echo(json.dumps(values, default=str))
        return
    for name, value in values.items():
        typer.echo(f"{name:<12} {value if not isinstance(value, dict) else _listed(value)}")


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"
