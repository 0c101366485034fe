"""A caller's values, before a handler sees them: completed, and refused in a sentence.

Gradio checks that an endpoint was sent all its values, and that a file lies in the upload folder.
What fails there never reaches a handler, and its callers would be told nothing at all.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, Final

import gradio as gr
from gradio.exceptions import InvalidPathError

_NO_UPLOAD: Final = "No upload of this server was sent; upload a file and send the path it got."
_ADDRESS: Final = "An address was sent in place of a picture; upload the picture itself."


class Page(gr.Blocks):  # type: ignore[misc]  # gradio is untyped
    """A page whose endpoints are called as functions are: what has a default may be left out."""

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: Any, explicit_call: bool = False
    ) -> Any:
        """Gradio's own step, with all values, whose refusals are sentences."""
        values = completed(block_fn.fn, inputs, wanted=len(block_fn.inputs))
        try:
            return await super().preprocess_data(block_fn, values, state, explicit_call)
        except InvalidPathError as exc:
            raise gr.Error(_NO_UPLOAD, print_exception=False) from exc


def completed(function: Callable[..., Any], values: Sequence[Any], *, wanted: int) -> list[Any]:
    """The values that a caller sent, in order, and the defaults of those left out at the end.

    Raises:
        gr.Error: if one that has no default is missing.
    """
    if len(values) >= wanted:
        return list(values)
    left_out = list(inspect.signature(function).parameters.values())[len(values) : wanted]
    for parameter in left_out:
        if parameter.default is parameter.empty:
            raise gr.Error(
                f"{parameter.name} is missing: {len(values)} of {wanted} values were sent.",
                print_exception=False,
            )
    return [*values, *(parameter.default for parameter in left_out)]


def refuse_addresses(blocks: Any) -> None:
    """Let no caller make the server fetch a web address in place of an uploaded file.

    Gradio would download any public address that stands where an uploaded file's path belongs,
    however large, before a handler runs.
    """
    for event in blocks.fns.values():
        for component in event.inputs:
            component.async_move_resource_to_block_cache = _only_files(component)


def _only_files(component: Any) -> Any:
    original = component.async_move_resource_to_block_cache

    async def move(path: Any) -> Any:
        if path is not None and str(path).lower().startswith(("http://", "https://")):
            raise gr.Error(_ADDRESS, print_exception=False)
        return await original(path)

    return move
