"""What the first page consists of: a picture, how it is looked at, and the place of an answer."""

from __future__ import annotations

from typing import Any, Final

import gradio as gr

from demo import drops, handlers, markup
from demo.batch_jobs import Batches
from demo.drawing import DrawingPanel
from demo.flagging import FlagPanel
from demo.samples import samples, thumbnail
from demo.service import AUTO, Service
from demo.theme import script

_DROP: Final = "# Drop a picture here\nor paste it, or choose a file\nPNG, JPEG, BMP, TIFF, WebP"


class InspectLayout:
    """The components of the page.

    Args:
        service: what inspects.
        batches: where an answer is kept that gets a link.
    """

    def __init__(self, service: Service, batches: Batches) -> None:
        self.service, self.batches, self.samples = service, batches, samples()
        self.shown = gr.State(None)
        with gr.Row(elem_classes="inspect"):
            with gr.Column(scale=6, min_width=320):
                self._left()
            with gr.Column(scale=7, min_width=320):
                self._right()

    def _left(self) -> None:
        self.picture = gr.Image(
            type="filepath",
            image_mode=None,  # the header alone is read; our own decoder opens the picture
            sources=["upload", "clipboard", "webcam"],
            label="Picture",
            show_label=False,  # it would cover a corner of the picture
            height="min(56vh, 560px)",
            buttons=["fullscreen"],
            placeholder=_DROP,
            alt_text="The inspected picture; the verdict says what is on it",
            elem_classes="picture",
            elem_id="inspect-picture",
        )
        drops.refusals("inspect")
        self.tray = gr.HTML(
            markup.samples([(sample.title, thumbnail(sample)) for sample in self.samples]),
            js_on_load=script("samples"),
            elem_id="inspect-samples",
        )
        with gr.Row(elem_classes="controls"):
            # All that a picture is looked at with is there from the beginning: a visitor may be
            # faster than the events of a page that opens.
            offered = handlers.model_choices(self.service)
            _, threshold, told = handlers.first_choice(self.service)
            self.model = gr.Dropdown(
                choices=offered,
                value=AUTO if offered else None,
                label="Model",
                scale=5,
                min_width=180,
                elem_id="inspect-model",
            )
            self.threshold = gr.Slider(
                0,
                1,
                threshold,
                step=0.001,  # as finely as the models' own are told
                label="Score threshold",
                info=told,
                buttons=[],  # "reset" would mean this page's first value, not the model's own
                scale=5,
                min_width=210,
                elem_id="inspect-threshold",
            )
            self.run = gr.Button(
                "Inspect",
                variant="primary",
                scale=1,
                min_width=96,
                elem_classes="runs",
                elem_id="inspect-run",
            )

    def _right(self) -> None:
        self.verdict = gr.HTML(
            markup.working("Opening the first sample …"),
            js_on_load=markup.ANNOUNCE,
            elem_id="inspect-verdict",
        )
        self.stop = gr.Button("Stop", size="sm", visible=False, elem_id="inspect-stop")
        self.findings = gr.HTML(
            "", js_on_load=script("findings"), apply_default_css=False, elem_id="inspect-findings"
        )
        self.drawing = DrawingPanel(
            self.service, self.batches, handlers.first_choice(self.service)[0]
        )
        self.details = gr.HTML("", elem_id="inspect-details")
        self.flagging = FlagPanel(self.service)

    def answer(self) -> list[Any]:
        """The components that an answer fills, in the order in which `look` returns them."""
        return [
            *(self.shown, self.picture, self.verdict, self.findings),
            *(self.drawing.layers, self.details, self.threshold, self.flagging.flagged),
            *self.drawing.buttons,
            self.stop,
        ]

    def idle_buttons(self, *, can_stop: bool = False) -> tuple[Any, ...]:
        """Those of an answer while there is none, and the one that stops the look for it."""
        inactive = (gr.Button(interactive=False) for _ in self.drawing.buttons)
        return (*inactive, gr.Button(visible=can_stop))
