"""The panel on the page Review that tells how far people agree about the same images."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import gradio as gr

from active_learning.agreement import WAYS, Agreement, ClassAgreement, figures, summary
from core.taxonomy import look, title
from demo.handlers import PRIVATE, sentence_of
from demo.markup import refused, swatch
from demo.reviewing import Reviewing
from demo.sign_in import acts
from demo.words import capital

HEADING: Final = "How far people agree"
_WHAT: Final = (
    "Where two people have answered one image, their answers are compared, class by class: 1 is "
    "always, 0 never. No model can agree with people more than they do with each other; where they "
    "do not, a rule of what to draw helps more than another image."
)


class AgreementPanel:
    """The components, folded, and the function that fills them, which needs none of them.

    Args:
        reviewing: the queue behind the page.
    """

    def __init__(self, reviewing: Reviewing) -> None:
        self._reviewing = reviewing

    def lay_out(self) -> None:
        """Make the components."""
        with gr.Accordion(HEADING, open=False, elem_id="review-agreement"):
            gr.HTML(f'<p class="quiet">{_WHAT}</p>')
            with gr.Row(elem_classes="tools"):
                self._compare = gr.Button(
                    "Compare the answers", scale=0, min_width=220, elem_id="review-compare"
                )
            self._told = gr.HTML("", apply_default_css=False)

    def wire(self) -> None:
        """Compare when asked to; one visitor after the other."""
        turn: dict[str, Any] = {"concurrency_id": "agreement", "concurrency_limit": 1, **PRIVATE}
        self._compare.click(self.compare, outputs=self._told, **turn)

    @acts
    def compare(self) -> str:
        """The classes with their figures, or one sentence why there are none."""
        try:
            return listing(self._reviewing.agreement())
        except Exception as exc:
            return refused(sentence_of(exc))


def listing(found: Agreement) -> str:
    """Each class with a bar and its figures, then what was swapped, as accessible HTML."""
    rows = "".join(map(_row, found.classes))
    notes = "".join(f'<p class="quiet">{escape(capital(s))}.</p>' for s in summary(found))
    return f'<section class="bars">{f"<dl>{rows}</dl>" if rows else ""}{notes}</section>'


def _row(one: ClassAgreement) -> str:
    name = f"{escape(title(one.label))}, {WAYS[one.how]}"
    return (
        f'<dt><span class="class">{swatch(one.label)}{name}</span></dt>'
        f'<dd><span class="bar" aria-hidden="true"><span style="width:{100 * one.agreement:.0f}%;'
        f'background:{look(one.label).colour}"></span></span>{escape(figures(one))}</dd>'
    )
