"""`python -m active_learning agreement`: how far people agree who answered the same images."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import typer

from active_learning._cli import AsJson, desk_of_settings

if TYPE_CHECKING:
    from active_learning.agreement import Agreement


def agreement(as_json: AsJson = False) -> None:
    """Tell class by class how far people agree who answered the same images."""
    with desk_of_settings() as (_, desk):
        from active_learning.agreement import agreement as compare

        found = compare(desk.inbox.answered_repeatedly())
        typer.echo(json.dumps(asdict(found)) if as_json else "\n".join(_in_words(found)))


def _in_words(found: Agreement) -> list[str]:
    from active_learning.agreement import in_words, summary

    return [*(in_words(one) for one in found.classes), *summary(found)]
