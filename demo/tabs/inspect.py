"""The first page: one picture, one model, one answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import gradio as gr

from core.errors import InputError
from core.types import Task
from demo import handlers, heat, markup
from demo.draw import Layers
from demo.exports import KINDS, Exports, Kind, encode, file_name
from demo.flagging import FlagPanel
from demo.handlers import PRIVATE, Shown
from demo.heat import Heat
from demo.samples import samples, thumbnail
from demo.service import AUTO, Service
from demo.theme import script
from demo.waiting import announcement
from demo.words import short

_BOXES, _MASK, _NAMES = "Boxes", "Mask", "Names"
# What can be drawn for each task, and what is drawn until somebody chooses otherwise.
_LAYERS: Final[dict[Task, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "detect": ((_BOXES, _NAMES), (_BOXES, _NAMES)),
    "segment": ((_MASK, _BOXES, _NAMES), (_MASK, _NAMES)),
    "classify": ((), ()),
}
# The button that hands a file out stays out of sight; it is pressed when the file is ready.
_HAND_OUT: Final = "() => document.getElementById('export').click()"
_DROP: Final = "# Drop a picture here\nor paste it, or choose a file\nPNG, JPEG, BMP, TIFF, WebP"


@dataclass(frozen=True, slots=True)
class InspectTab:
    """What other tabs need of this one."""

    shown: Any  # gr.State of Shown | None


class _Page:
    """The components that an answer fills, and the functions that fill them."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.samples = samples()
        self.exports = Exports()
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
        self.tray = gr.HTML(
            markup.samples([(sample.title, thumbnail(sample)) for sample in self.samples]),
            js_on_load=script("samples"),
            elem_id="inspect-samples",
        )
        with gr.Row(elem_classes="controls"):
            self.model = gr.Dropdown(
                choices=[], label="Model", scale=4, min_width=170, elem_id="inspect-model"
            )
            self.threshold = gr.Slider(
                0,
                1,
                0.25,
                step=0.01,
                label="Score threshold",
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
            markup.working("Opening the first sample …"), elem_id="inspect-verdict"
        )
        self.findings = gr.HTML(
            "", js_on_load=script("findings"), apply_default_css=False, elem_id="inspect-findings"
        )
        with gr.Row():
            self.layers = gr.CheckboxGroup(
                choices=[], label="Show on the picture", min_width=240, elem_id="inspect-layers"
            )
            self.heat = gr.Radio(
                heat.CHOICES,
                value="off",
                label="Heat map: where the model looked",
                min_width=300,
                elem_id="inspect-heat",
            )
        self.legend = gr.HTML("", elem_id="inspect-legend")
        with gr.Row(elem_classes="downloads"):
            self.save = {
                kind: gr.Button(f"Download {kind.upper()}", size="sm", min_width=90)
                for kind in KINDS
            }
        self.export = gr.DownloadButton("Export", visible="hidden", elem_id="export")
        self.details = gr.HTML("", elem_id="inspect-details")
        self.flagging = FlagPanel(self.service)

    def answer(self) -> list[Any]:
        """The components that an answer fills, in the order in which `look` returns them."""
        return [
            *(self.shown, self.picture, self.verdict, self.findings, self.layers, self.details),
            *(self.threshold, self.flagging.flagged, *self.save.values()),
        ]

    def look(
        self,
        path: str,
        name: str,
        model: str,
        threshold: float | None,
        *,
        before: Shown | None = None,
        drawn: Sequence[str] = (),
    ) -> Iterator[tuple[Any, ...]]:
        """Inspect a file and fill the page; a failure is said in the verdict's place.

        Before an answer that takes a while, what is done is said, and the old answer taken away.

        What was drawn before stays chosen as long as the answers are of one kind.
        """
        try:
            if waiting := announcement(self.service, Path(path), model):
                yield self._blank(markup.working(waiting), picture=gr.skip(), layers=gr.skip())
            shown, look = handlers.inspect(
                self.service, path, name, model=model, score_threshold=threshold
            )
            inspection = look.inspection
            possible, usual = _LAYERS[inspection.task]
            is_same_kind = before is not None and before.inspection.task == inspection.task
            kept = tuple(drawn) if is_same_kind else usual
            picture = handlers.draw(look, _layers(kept))
        except Exception as exc:
            yield self._failed(handlers.sentence_of(exc))
            return
        usual_threshold = self.service.choose(inspection.model).config.score_threshold
        yield (
            shown,
            picture,
            markup.verdict(inspection, short(look.title), look.queued),
            markup.findings_table(inspection),
            gr.CheckboxGroup(choices=list(possible), value=list(kept), visible=bool(possible)),
            markup.details(inspection, look.title),
            gr.Slider(
                value=usual_threshold if threshold is None else threshold,
                interactive=inspection.task != "classify",  # it has no findings to leave out
            ),
            "",
            *(gr.Button(interactive=True) for _ in KINDS),
        )

    def empty(self) -> tuple[Any, ...]:
        """The page without a picture."""
        return self._blank(markup.empty())

    def _failed(self, sentence: str) -> tuple[Any, ...]:
        return self._blank(markup.failed(sentence))

    def _blank(self, verdict: str, *, picture: Any = None, layers: Any = None) -> tuple[Any, ...]:
        layers = layers or gr.CheckboxGroup(visible=False)
        nothing = (None, picture, verdict, "", layers, "", gr.Slider())
        return (*nothing, "", *(gr.Button(interactive=False) for _ in KINDS))

    def open(self, model: str | None) -> Iterator[tuple[Any, ...]]:
        """The first sample, so that the page never opens empty."""
        sample = self.samples[0]
        yield from self.look(str(sample.path), sample.path.name, model or AUTO, None)

    def take(
        self,
        before: Shown | None,
        model: str,
        threshold: float,
        drawn: list[str],
        event: gr.EventData,
    ) -> Iterator[tuple[Any, ...]]:
        """The sample that was chosen."""
        path = self.samples[int(event.index) % len(self.samples)].path
        yield from self.look(str(path), path.name, model, threshold, before=before, drawn=drawn)

    def receive(
        self,
        picture: Any,
        before: Shown | None,
        model: str,
        threshold: float,
        drawn: list[str],
    ) -> Iterator[tuple[Any, ...]]:
        """The picture that was dropped, pasted or photographed."""
        try:
            path, name = handlers.uploaded(picture)
        except InputError as exc:
            yield self._failed(str(exc))
            return
        yield from self.look(path, name, model, threshold, before=before, drawn=drawn)

    def again(
        self, shown: Shown | None, model: str, threshold: float | None, drawn: list[str]
    ) -> Iterator[tuple[Any, ...]]:
        """The same picture, with what is set now."""
        if shown is None:
            yield self.empty()
            return
        yield from self.look(shown.path, shown.name, model, threshold, before=shown, drawn=drawn)

    def switch(
        self, shown: Shown | None, model: str, drawn: list[str]
    ) -> Iterator[tuple[Any, ...]]:
        """The same picture seen by another model, at that model's own threshold."""
        yield from self.again(shown, model, None, drawn)

    def redraw(
        self, shown: Shown | None, drawn: list[str], chosen: Heat, *, selected: int | None = None
    ) -> Any:
        """The same answer with other layers, heat, or one finding standing out; and the legend."""
        if shown is None:
            return gr.skip(), ""
        try:
            picture = handlers.redraw(
                self.service, shown, _layers(drawn), selected=selected, heat=chosen
            )
        except Exception as exc:
            return gr.skip(), markup.failed(handlers.sentence_of(exc))
        return picture, heat.legend(chosen)

    def highlight(
        self, shown: Shown | None, drawn: list[str], chosen: Heat, event: gr.EventData
    ) -> Any:
        """The same answer with one finding standing out; number 0 lets go."""
        return self.redraw(shown, drawn, chosen, selected=int(event.number) or None)

    def heated(self, shown: Shown | None, drawn: list[str], chosen: Heat) -> Any:
        """A new answer's heat, which comes after the answer; nothing where none is wanted."""
        return gr.skip() if chosen == "off" else self.redraw(shown, drawn, chosen)

    def hand_out(self, shown: Shown | None, drawn: list[str], kind: Kind) -> Any:
        """The answer as a file."""
        if shown is None:
            return gr.skip()
        with handlers.one_sentence():
            pixels = handlers.image_of(self.service, shown).pixels
            data = encode(
                kind, pixels, shown.inspection, labels=shown.labels, layers=_layers(drawn)
            )
            name = file_name(shown.name, shown.inspection.model, kind)
            return gr.DownloadButton(value=str(self.exports.write(name, data)))

    def models(self) -> Any:
        """The models that are served now, as choices."""
        offered = handlers.model_choices(self.service)
        return gr.Dropdown(choices=offered, value=AUTO if offered else None)


def build(service: Service, blocks: Any) -> InspectTab:
    """Lay out the tab and wire its events.

    Args:
        service: what inspects.
        blocks: the page, whose opening fills the tab.
    """
    page = _Page(service)
    settings = [page.shown, page.model, page.threshold, page.layers]
    answers: dict[str, Any] = {
        "outputs": page.answer(),
        "show_progress": "minimal",
        "show_progress_on": [page.verdict],
        "concurrency_id": "models",
        **PRIVATE,
    }
    opened = blocks.load(page.models, outputs=page.model, show_progress="hidden", **PRIVATE)
    opened.then(page.open, page.model, **answers)
    # Not preprocessed: the framework would decode the picture before our caps are applied.
    page.picture.upload(page.receive, [page.picture, *settings], preprocess=False, **answers)
    # A dropped picture first clears the one before it: that must not wait behind other visitors.
    page.picture.clear(
        page.empty, outputs=page.answer(), queue=False, show_progress="hidden", **PRIVATE
    )
    page.tray.click(page.take, settings, **answers)
    page.model.input(page.switch, [page.shown, page.model, page.layers], **answers)
    page.threshold.input(page.again, settings, trigger_mode="always_last", **answers)
    page.run.click(page.again, settings, **answers)
    drawn = [page.shown, page.layers]
    redraws: dict[str, Any] = {"outputs": [page.picture, page.legend], **PRIVATE}
    redraws |= {"trigger_mode": "always_last", "show_progress": "minimal"}
    redraws |= {"show_progress_on": [page.picture]}
    page.layers.input(page.redraw, [*drawn, page.heat], **redraws)
    page.findings.click(page.highlight, [*drawn, page.heat], **redraws)
    page.heat.input(page.redraw, [*drawn, page.heat], **redraws)
    page.shown.change(page.heated, [*drawn, page.heat], **redraws)
    page.flagging.wire(page.shown)
    for kind, button in page.save.items():
        button.click(
            partial(page.hand_out, kind=kind), drawn, page.export, show_progress="hidden", **PRIVATE
        ).success(None, js=_HAND_OUT, **PRIVATE)
    return InspectTab(shown=page.shown)


def _layers(drawn: Sequence[str]) -> Layers:
    return Layers(boxes=_BOXES in drawn, mask=_MASK in drawn, names=_NAMES in drawn)
