"""The panel under an answer with which a person puts a picture into the review queue."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import gradio as gr

from demo import handlers, markup
from demo.handlers import PRIVATE, Shown
from demo.review import MAX_NOTE, Reason
from demo.service import Service

_REASONS: Final[list[tuple[str, Reason]]] = [
    ("The answer is wrong", "wrong"),
    ("A defect was missed", "missed"),
    ("A new kind of defect", "new_defect"),
]


class FlagPanel:
    """Lays itself out where it is made; what it has done stands in `flagged`."""

    def __init__(self, service: Service) -> None:
        self._service = service
        with gr.Accordion("Not right? Let a person look", open=False, elem_id="inspect-flag"):
            self._reason = gr.Radio(_REASONS, value="wrong", label="What is not right")
            self._note = gr.Textbox(label="Note for the reviewer", max_length=MAX_NOTE)
            self._flag = gr.Button("Put this picture into the review queue", size="sm")
            self.flagged = gr.HTML("", elem_id="inspect-flagged")

    def wire(self, shown: Any) -> None:
        """Act on the answer that a `gr.State` of `Shown | None` holds."""
        self._flag.click(
            self._put,
            [shown, self._reason, self._note],
            self.flagged,
            concurrency_id="models",
            **PRIVATE,
        )

    def _put(self, shown: Shown | None, reason: str, note: str) -> str:
        """Put the picture into the review queue and say where it is."""
        if shown is None:
            return markup.note("There is no picture to put into the review queue.")
        try:
            item = self._service.flag(
                Path(shown.path), shown.inspection.model, reason=reason, note=note
            )
        except Exception as exc:
            return markup.failed(handlers.sentence_of(exc))
        return markup.note(f"In the review queue as item {item.id[:12]}; the page Review shows it.")
