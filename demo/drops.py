"""The place where a page says that a dropped file is no picture; the answer on the page stays."""

from __future__ import annotations

import gradio as gr

from demo.theme import script


def refusals(of: str) -> None:
    """Lay out the place for the component `OF-picture`."""
    gr.HTML("", js_on_load=script("drops"), elem_id=f"{of}-refused")
