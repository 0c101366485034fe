"""One request, one answer: the API for programs that speak HTTP and nothing else.

`POST /v1/inspect` and `POST /v1/compare` take the bytes of a picture as their body and answer with
the same JSON as the endpoints of `demo.api`. They pass the page's own protocol by, in which a call
is an upload, an event and a stream of messages, and a caller without a session is given one first:
all the components of the page, described anew on the server's event loop.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from core.errors import InputError, RollmarkError, UnknownModelError, WeightsNotFoundError
from core.images import MEGA
from core.settings import ServingSettings
from demo.handlers import comparison_record, sentence_of
from demo.service import AUTO, Service

logger = logging.getLogger(__name__)

_STATUS: Final[tuple[tuple[type[RollmarkError], int], ...]] = (
    (InputError, 400),
    (UnknownModelError, 404),
    (WeightsNotFoundError, 503),
)
_BUSY_S: Final = 1  # after which a caller who was turned away may try again
# A page of another site may send forms and plain text here, but these only with our consent, which
# nobody gives.
_PICTURE: Final = ("image/", "application/octet-stream")

_Answer = Callable[[Service, bytes, QueryParams], str]


class Direct:
    """The routes, and the threads that answer on them.

    Args:
        service: what inspects.
        serving: caps on a picture, and on how many requests may wait.
        at_once: requests that are answered at a time.
    """

    def __init__(self, service: Service, serving: ServingSettings, *, at_once: int) -> None:
        self._service = service
        self._max_bytes = serving.image_limits.max_bytes
        self._room = at_once + serving.queue_size
        self._inside = 0  # requests; only the event loop counts
        self._workers = ThreadPoolExecutor(at_once, thread_name_prefix="direct")

    def routes(self) -> list[Route]:
        """What the app serves beside Gradio's own."""
        return [
            Route(path, partial(self._respond, answer), methods=["POST"])
            for path, answer in (("/v1/inspect", inspect), ("/v1/compare", compare))
        ]

    async def _respond(self, answer: _Answer, request: Request) -> Response:
        if not request.headers.get("content-type", "").lower().startswith(_PICTURE):
            return _refused(415, "Send the picture as the body, its Content-Type image/jpeg, say.")
        if self._inside >= self._room:
            why = f"{self._room} requests are being answered or wait; try again in a moment."
            return _refused(503, why, {"Retry-After": str(_BUSY_S)})
        self._inside += 1
        try:
            data = await self._body(request)
            if data is None:
                most = f"at most {self._max_bytes / MEGA:g} MB are accepted"
                return _refused(413, f"The file is too large; {most}.")
            work = partial(_answered, answer, self._service, data, request.query_params)
            return await self._in_turn(work, request)
        except ClientDisconnect:
            return Response(status_code=400)  # for the log; nobody is there to read it
        finally:
            self._inside -= 1

    async def _in_turn(self, work: Callable[[], Response], request: Request) -> Response:
        """What a thread answers, when one is free.

        Raises:
            ClientDisconnect: if the caller went away before: callers who give up and ask again
                would have those wait who are still there.
        """
        begun = self._workers.submit(work)
        answer = asyncio.wrap_future(begun)
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
            if not answer.done() and gone.exception() is None and begun.cancel():
                raise ClientDisconnect
            return await answer
        finally:
            gone.cancel()

    async def _body(self, request: Request) -> bytes | None:
        """The picture; None if it is too large, of which the rest is let pass, within reason."""
        body, seen = bytearray(), 0
        async for chunk in request.stream():
            seen += len(chunk)
            if seen <= self._max_bytes:
                body += chunk
            elif seen > 2 * self._max_bytes:  # who stops reading earlier is not heard, either
                break
        return bytes(body) if seen <= self._max_bytes else None


async def _gone(request: Request) -> None:
    """Return when the caller of a request, whose body has been read, is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def inspect(service: Service, data: bytes, query: QueryParams) -> str:
    """`/v1/inspect?model=grace&score_threshold=0.3`: one Inspection, as JSON.

    Raises:
        RollmarkError: whatever `Service.inspect` raises, and for a parameter that is none.
    """
    _check_names(query, ("model", "score_threshold"))
    threshold = query.get("score_threshold")
    try:
        number = None if threshold is None else float(threshold)
    except ValueError as exc:
        raise InputError(
            f"Score threshold is {threshold!r:.60}; a number in 0 to 1 is wanted."
        ) from exc
    look = service.inspect(data, query.get("model", AUTO), score_threshold=number)
    return look.inspection.model_dump_json()


def compare(service: Service, data: bytes, query: QueryParams) -> str:
    """`/v1/compare?models=grace,da_yolo`: every Inspection and what they say together, as JSON.

    Raises:
        RollmarkError: whatever `Service.compare` raises, and for a parameter that is none.
    """
    _check_names(query, ("models",))
    names = query.get("models")
    chosen = None if names is None else [name for name in names.split(",") if name]
    return json.dumps(comparison_record(service.compare(data, chosen)))


def _answered(answer: _Answer, service: Service, data: bytes, query: QueryParams) -> Response:
    """The answer, or the one sentence that says why there is none."""
    started = time.perf_counter()
    try:
        text = answer(service, data, query)
    except Exception as exc:
        status = next((code for kind, code in _STATUS if isinstance(exc, kind)), 500)
        return _refused(status, sentence_of(exc))
    took_ms = (time.perf_counter() - started) * 1e3
    # What is left of the time that a caller waits is the network and this server.
    timing = {"Server-Timing": f"answer;dur={took_ms:.1f}"}
    return Response(text, media_type="application/json", headers=timing)


def _check_names(query: QueryParams, known: tuple[str, ...]) -> None:
    for name in query:
        if name not in known:
            raise InputError(f"Unknown parameter {name!r:.60}. Available: {', '.join(known)}.")


def _refused(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse({"error": sentence}, status_code=status, headers=headers)
