"""`python -m active_learning recheck`: answers that a live model denies, to see again."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from active_learning._cli import AsJson, desk_of_settings

if TYPE_CHECKING:
    from active_learning.connection import Reach
    from active_learning.recheck import Rechecked


def recheck(
    limit: Annotated[int, typer.Option(min=1, help="Images listed, strongest denial first.")] = 20,
    stands: Annotated[
        list[int] | None,
        typer.Option(help="Task whose answer you looked at again and keep; repeatable."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List reviewed images whose labels a live model denies; no label is changed, nothing sent."""
    with desk_of_settings() as (settings, desk):
        from active_learning.connection import reach
        from active_learning.recheck import confirm
        from active_learning.recheck import recheck as look_through
        from core.errors import DatasetError

        for task_id in stands or ():
            confirm(desk, task_id, who=desk.queue.who)

        found = look_through(settings, desk)
        there = reach(settings.label_studio)
        lines = _as_json(found, there, limit) if as_json else _in_words(found, there, limit)
        typer.echo(lines)
        if found.unable:
            raise DatasetError(" ".join(found.unable))


def _as_json(found: Rechecked, there: Reach, limit: int) -> str:
    doubted = [
        asdict(look) | {"address": there.task_address(look.task_id)}
        for look in found.doubted[:limit]
    ]
    told = {"images": found.images, "doubted": len(found.doubted), "unable": found.unable}
    return json.dumps(told | {"listed": doubted}, default=str)


def _in_words(found: Rechecked, there: Reach, limit: int) -> str:
    lines = []
    for look in found.doubted[:limit]:
        at = there.task_address(look.task_id) or f"image {look.image_sha256[:12]}"
        lines.append(f"task {look.task_id}: {at}")
        lines += [f"  {reason}" for reason in look.reasons]
    lines.append(
        f"{len(found.doubted)} of {found.images} reviewed images deserve a second look"
        if found.images
        else "no reviewed image is there that a live model is known not to have learned from"
    )
    if found.doubted and not there.project_address:
        lines.append(there.sentence)
    return "\n".join(lines)
