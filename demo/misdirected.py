"""Calls that lead nowhere: Gradio takes them for faults of its own, and they are the caller's.

It answers an endpoint that there is not, or a value by a name that there is not, with 500 and
"Internal Server Error", and fills the log with tracebacks that any stranger can ask for.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final

from fastapi.exceptions import RequestValidationError
from gradio.route_utils import FnIndexInferError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

logger = logging.getLogger(__name__)

_NOWHERE: Final = "There is no such endpoint; /gradio_api/info lists those that there are."
# How gradio_client begins to say which value is wrong, before it speaks of the page's footer.
_OF_VALUES: Final = ("Parameter `", "No value provided for required argument", "Too many arguments")


def handlers() -> dict[type[Exception], Callable[[Request, Exception], Response]]:
    """What the server answers instead, by what Gradio raised; anything else stays a fault."""
    return {
        FnIndexInferError: _nowhere,
        RequestValidationError: _body,
        KeyError: _key,
        TypeError: _value,
        OSError: _name,
    }


def _nowhere(request: Request, _: Exception) -> Response:
    return _told(request, 404, _NOWHERE)


def _key(request: Request, exc: Exception) -> Response:
    """Of an endpoint's name with its stroke, or of an event's number."""
    key = exc.args[0] if exc.args else None
    is_name = isinstance(key, str) and key.startswith("/")
    if request.url.path.startswith("/gradio_api/") and (is_name or isinstance(key, int)):
        return _nowhere(request, exc)
    raise exc


def _body(request: Request, exc: Exception) -> Response:
    """Of a body that is no JSON, or whose values are no list: a list of faults, by itself."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    if first["type"] == "json_invalid":
        return _told(request, 422, "The body of the request is no JSON.")
    where = ".".join(str(part) for part in first["loc"][1:]) or "The body"
    return _told(request, 422, f"{where} cannot be taken: {first['msg']}.")


def _value(request: Request, exc: Exception) -> Response:
    if "/gradio_api/call/v2/" in request.url.path and str(exc).startswith(_OF_VALUES):
        sentence = str(exc).split(" Please")[0].rstrip(".").replace("`", "'")
        return _told(request, 400, f"{sentence}.")
    raise exc


def _name(request: Request, exc: Exception) -> Response:
    """Of a file of the page: no disk has names that long."""
    if isinstance(exc, OSError) and exc.errno == errno.ENAMETOOLONG:
        return _told(request, 404, "Not Found")
    raise exc


def _told(request: Request, status: int, sentence: str) -> Response:
    logger.info("%s %.60s: %s", request.method, request.url.path, sentence)
    return JSONResponse({"error": sentence}, status_code=status)
