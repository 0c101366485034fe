"""The panel that says what is drawn over an answer, and hands the answer out: a file, or a link."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import gradio as gr

from core.types import Task
from demo import handlers, heat, markup
from demo.batch_jobs import Batches
from demo.draw import Layers
from demo.exports import KINDS, Exports, Kind, encode, file_name
from demo.handlers import PRIVATE, Shown
from demo.heat import Heat
from demo.latest import Latest
from demo.service import Service
from models._committee import COMMITTEE

_BOXES, _MASK, _NAMES = "Boxes", "Mask", "Names"
# What can be drawn for each task, and what is drawn until somebody chooses otherwise.
LAYERS: Final[dict[Task, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "detect": ((_BOXES, _NAMES), (_BOXES, _NAMES)),
    "segment": ((_MASK, _BOXES, _NAMES), (_MASK, _NAMES)),
    "classify": ((), ()),
}
# The button that hands a file out stays out of sight; it is pressed when the file is ready.
_HAND_OUT: Final = "() => document.getElementById('export').click()"


class DrawingPanel:
    """Lays itself out where it is made; `layers` and `buttons` are filled with every answer.

    Args:
        service: what inspects.
        batches: where an answer is kept that gets a link.
        task: of the first answer; None where nothing is served.
    """

    def __init__(self, service: Service, batches: Batches, task: Task | None) -> None:
        self._service, self._batches = service, batches
        self._exports = Exports()
        self._highlights = Latest()
        with gr.Row():
            possible, usual = LAYERS[task] if task else ((), ())
            self.layers = gr.CheckboxGroup(
                choices=list(possible),
                value=list(usual),
                label="Show on the picture",
                min_width=240,
                elem_id="inspect-layers",
            )
            self._heat = gr.Radio(
                heat.CHOICES,
                value="off",
                label="Heat map: where the model looked",
                min_width=300,
                elem_id="inspect-heat",
            )
        self._legend = gr.HTML("", elem_id="inspect-legend")
        self._selected: Any = gr.State(None)  # number of the finding that stands out
        with gr.Row(elem_classes="downloads"):
            self._save = {
                kind: gr.Button(f"Download {kind.upper()}", size="sm", min_width=90)
                for kind in KINDS
            }
            self._link = gr.Button("Make a link", size="sm", min_width=90, elem_id="inspect-link")
        self.buttons = (*self._save.values(), self._link)  # of use where there is an answer
        self._linked = gr.HTML("", js_on_load=markup.ANNOUNCE, elem_id="inspect-linked")
        self._export = gr.DownloadButton("Export", visible="hidden", elem_id="export")

    def wire(self, shown: Any, picture: Any, findings: Any) -> None:
        """Draw on the page's picture.

        Args:
            shown: a `gr.State` of `Shown | None`, the answer.
            picture: where it is drawn.
            findings: the table whose rows can be highlighted.
        """
        drawn = [shown, self.layers]
        redraws: dict[str, Any] = {"outputs": [picture, self._legend, self._selected], **PRIVATE}
        inputs = [*drawn, self._heat, self._selected]
        redraws |= {"inputs": inputs, "trigger_mode": "always_last"}
        redraws |= {"show_progress": "minimal", "show_progress_on": [picture]}
        redraws |= {"preprocess": False}  # what is ticked may belong to the answer before
        self.layers.input(self._change, **redraws)
        self._heat.input(self._change, **redraws)
        shown.change(self._heated, **redraws)
        findings.click(self._highlight, **redraws | {"trigger_mode": "multiple"})
        shown.change(None, outputs=self._linked, js="() => ''", **PRIVATE)  # it was another's
        self._link.click(self._keep, shown, self._linked, show_progress="minimal", **PRIVATE)
        for kind, button in self._save.items():
            hand_out = partial(self._hand_out, kind=kind)
            button.click(
                hand_out, [*drawn, self._heat], self._export, show_progress="hidden", **PRIVATE
            ).success(None, js=_HAND_OUT, **PRIVATE)

    def _redraw(
        self, shown: Shown | None, drawn: Sequence[str], chosen: Heat, selected: int | None
    ) -> Any:
        """The same answer with other layers, heat, or one finding standing out; and the legend."""
        if shown is None:
            return gr.skip(), "", None
        heated = _possible(shown, chosen)
        try:
            picture = handlers.redraw(
                self._service, shown, chosen_layers(drawn), selected=selected, heat=heated
            )
        except Exception as exc:
            return gr.skip(), markup.failed(handlers.sentence_of(exc)), selected
        has_none = heated != chosen
        legend = markup.note(heat.OF_COMMITTEE) if has_none else heat.legend(heated)
        return picture, legend, selected

    def _change(
        self,
        shown: Shown | None,
        drawn: list[str],
        chosen: Heat,
        selected: int | None,
        request: gr.Request,
    ) -> Any:
        """What `_redraw` gives, unless something else is wanted by the time it is there."""
        is_wanted = self._highlights.begin(request)
        redrawn = self._redraw(shown, drawn, chosen, selected)
        return redrawn if is_wanted() else tuple(gr.skip() for _ in redrawn)

    def _highlight(
        self,
        shown: Shown | None,
        drawn: list[str],
        chosen: Heat,
        _: int | None,
        event: gr.EventData,
        request: gr.Request,
    ) -> Any:
        """The same answer with one finding standing out; number 0 lets go."""
        is_wanted = self._highlights.begin(request)
        redrawn = self._redraw(shown, drawn, chosen, int(event.number) or None)
        return redrawn if is_wanted() else tuple(gr.skip() for _ in redrawn)

    def _heated(
        self,
        shown: Shown | None,
        _: list[str],
        chosen: Heat,
        __: int | None,
        request: gr.Request,
    ) -> Any:
        """A new answer's heat, which comes after the answer; nothing where none is wanted.

        Its own layers are drawn: the check boxes may still be those of the answer before.
        """
        if shown is None or chosen == "off":
            return gr.skip(), "", None
        return self._change(shown, list(shown.drawn), chosen, None, request)

    def _keep(self, shown: Shown | None) -> str:
        """Keep the answer, and say where it is found again."""
        if shown is None:
            return ""
        try:
            job = self._batches.keep(shown)
        except Exception as exc:
            return markup.refused(handlers.sentence_of(exc))
        return markup.linked("answer", f"?batch={job.id}", self._batches.keep_days)

    def _hand_out(self, shown: Shown | None, drawn: list[str], chosen: Heat, kind: Kind) -> Any:
        """The answer as a file; the picture as it is seen, heat included."""
        if shown is None:
            return gr.skip()
        with handlers.one_sentence():
            heated = _possible(shown, chosen) if kind == "png" else "off"
            data = encode(
                kind,
                handlers.ground(self._service, shown, heated),
                shown.inspection,
                labels=shown.labels,
                layers=chosen_layers(drawn),
                note=heat.caption(heated),
                pitch=self._service.pitch,
                ruled=self._service.tolerances is not None,
            )
            name = file_name(shown.name, shown.inspection.model, kind)
            return gr.DownloadButton(value=str(self._exports.write(name, data)))


def _possible(shown: Shown, chosen: Heat) -> Heat:
    """The heat that the model that answered can have."""
    return "off" if shown.inspection.model == COMMITTEE else chosen


def chosen_layers(drawn: Sequence[str]) -> Layers:
    """What is drawn, from the titles that are ticked."""
    return Layers(boxes=_BOXES in drawn, mask=_MASK in drawn, names=_NAMES in drawn)
