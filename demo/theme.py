"""One restrained look: steel greys, one blue accent, the system's own letters, light and dark."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import gradio as gr

STYLE: Final = Path(__file__).with_name("style.css")
_SCRIPTS: Final = Path(__file__).with_name("scripts")

STEEL: Final = gr.themes.Color(
    name="steel",
    c50="#f6f8f9",
    c100="#eceff2",
    c200="#d9dfe4",
    c300="#bcc6ce",
    c400="#8f9ca8",
    c500="#62707d",
    c600="#4a5763",
    c700="#37424d",
    c800="#232c35",
    c900="#161d24",
    c950="#0e1318",
)
BLUE: Final = gr.themes.Color(
    name="accent",
    c50="#eef6fb",
    c100="#d7eaf6",
    c200="#aed5ec",
    c300="#7cbadf",
    c400="#4b9ccc",
    c500="#1f7bb0",
    c600="#176392",
    c700="#134f75",
    c800="#103f5d",
    c900="#0c2f46",
    c950="#081f2f",
)
SANS: Final = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Liberation Sans", "sans-serif")
_MONO: Final = ("ui-monospace", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


def theme() -> Any:
    """The Gradio theme; no font and no style sheet is fetched from anywhere."""
    return gr.themes.Base(
        primary_hue=BLUE,
        secondary_hue=BLUE,
        neutral_hue=STEEL,
        radius_size=gr.themes.sizes.radius_sm,
        font=SANS,
        font_mono=_MONO,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="*neutral_700",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        input_background_fill="white",
        input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_500",
        input_border_color_dark="*neutral_500",
        input_border_width="1px",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_300",
        checkbox_border_color_selected_dark="*neutral_300",
        checkbox_border_color_hover="*neutral_700",
        checkbox_border_color_hover_dark="*neutral_100",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="*neutral_100",
        button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_700",
        button_secondary_background_fill_hover_dark="*neutral_600",
        button_secondary_text_color="*neutral_900",
        button_secondary_text_color_dark="*neutral_50",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
    )


def head() -> str:
    """What goes into the page's head: the scripts of the whole page."""
    return "".join(f"<script>{script(name)}</script>" for name in ("language", "keys", "focus"))


def script(name: str) -> str:
    """The text of one of our scripts."""
    return (_SCRIPTS / f"{name}.js").read_text(encoding="utf-8")
