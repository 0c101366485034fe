"""Uploads that do not arrive whole leave nothing behind, and a full disk is told in a sentence.

Gradio removes what it was sent after an hour, but knows only of files that arrived: of one that a
visitor breaks off, or that fills the disk, the part that came stays until the app ends.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gradio import route_utils, routes
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.files import refusal

logger = logging.getLogger(__name__)

_NO_ROOM: Final = "There is no room for it on the server just now; try again later."
# Gradio takes files there, too, for components that no page of ours has.
_UNUSED: Final = ("component_server", "process_recording")


def take_uploads_whole() -> None:
    """Let Gradio's uploads arrive in a folder of their own; of this process, once and for all."""
    routes.upload_fn = _arrive


def closed_routes() -> list[Route]:
    """Places at which files could be sent that nothing would ever remove."""
    paths = (f"/gradio_api/{name}{slash}" for name in _UNUSED for slash in ("", "/"))
    return [Route(path, _not_found, methods=["POST"]) for path in paths]


async def _arrive(
    request: Request, upload_dir: str | Path, *arguments: Any, **options: Any
) -> tuple[list[str], list[str], list[str]]:
    """Gradio's own step, whose files are moved where it wants them once all of them are there.

    Raises:
        MultiPartException: if the disk is full, or the request is none.
    """
    place = Path(upload_dir)
    try:
        place.mkdir(parents=True, exist_ok=True)
        arriving = Path(tempfile.mkdtemp(prefix=".arriving-", dir=place))
        try:
            options |= {"force_move": True}  # at once, or they would not be there yet
            files, _, _ = await route_utils.upload_fn(request, arriving, *arguments, **options)
            return [str(_move(Path(file), arriving, place)) for file in files], [], []
        finally:
            _remove(arriving)
    except OSError as exc:
        if (sentence := refusal(exc)) is None:
            raise
        logger.error("an upload was refused: %s", sentence)
        raise MultiPartException(_NO_ROOM) from exc


def _move(file: Path, arriving: Path, place: Path) -> Path:
    """Put a file where others of the same bytes and name may lie, or be read, already."""
    target = place / file.relative_to(arriving)
    target.parent.mkdir(exist_ok=True)
    return file.replace(target)


def _remove(arriving: Path) -> None:
    """Remove what is left, and free its room at once: Gradio may have it open for a while yet."""
    with suppress(OSError):
        for file in arriving.iterdir():
            if file.is_file():
                os.truncate(file, 0)
    shutil.rmtree(arriving, ignore_errors=True)


async def _not_found(_: Request) -> Response:
    return Response("Not Found", 404)
