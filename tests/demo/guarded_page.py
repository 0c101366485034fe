"""A page with one button that acts, behind a password; prints where it is. Run as a program."""

from __future__ import annotations

import sys

import gradio as gr

from core.settings import ServingSettings
from demo.sign_in import SignIn, acts
from demo.theme import STYLE, theme

DONE: list[str] = []


@acts
def promote(name: str) -> str:
    """Acts; says how often it did."""
    DONE.append(name)
    return f"promoted {name}, act {len(DONE)}"


def main(password: str) -> None:
    """Serve until killed."""
    sign_in = SignIn(ServingSettings(reviewer_password=password))
    with gr.Blocks(analytics_enabled=False) as blocks:
        name, said, button = (
            gr.Textbox(label="Name"),
            gr.Textbox(label="Said"),
            gr.Button("Promote"),
        )
        button.click(promote, name, said, api_name="promote", api_visibility="private")
        sign_in.place(blocks)
    sign_in.guard(blocks)
    _, address, _ = blocks.launch(
        prevent_thread_lock=True,
        quiet=True,
        _frontend=False,  # as the app does
        ssr_mode=False,
        app_kwargs={"routes": sign_in.routes()},
        theme=theme(),
        css_paths=[STYLE],
    )
    print(address, flush=True)
    blocks.block_thread()


if __name__ == "__main__":
    main(sys.argv[1])
