"""The first page: one picture, one model, one answer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from core.errors import InputError
from core.types import DecodedImage
from demo import handlers, markup
from demo.batch_jobs import Batches
from demo.draw import fitted
from demo.drawing import LAYERS, chosen_layers
from demo.expecting import expectation
from demo.handlers import PRIVATE, Shown
from demo.inspect_layout import InspectLayout
from demo.large_looks import watch
from demo.latest import Latest
from demo.service import AUTO, Look, Service
from demo.waiting import Large, large
from demo.words import short

Answered = tuple[Shown, Look]


class _Stopped(tuple[str, ...]):
    """Path and name of a picture whose look was called off; of none, where there was none."""


@dataclass(frozen=True, slots=True)
class InspectTab:
    """What other tabs need of this one."""

    shown: Any  # gr.State of Shown | None


class _Page(InspectLayout):
    """The functions that fill the page."""

    def __init__(self, service: Service, batches: Batches) -> None:
        super().__init__(service, batches)
        self.answers = Latest()  # about path and name of a picture

    def look(
        self,
        request: gr.Request,
        path: str,
        name: str,
        model: str | None,
        threshold: float | None,
        *,
        before: Shown | None = None,
        drawn: Sequence[str] = (),
        at: float | None = None,
    ) -> Iterator[tuple[Any, ...]]:
        """Inspect a file and fill the page; a failure is said in the verdict's place.

        Before an answer that takes a while, what is done is said, and the old answer taken away.
        An answer that comes when something else is wanted already is not shown. What was drawn
        before stays chosen as long as the answers are of one kind.

        Args:
            request: of the visitor.
            path: of the picture.
            name: of the picture, as the visitor knows it.
            model: a name, or None from a visitor who was faster than the list of models.
            threshold: lowest raw score that is shown; None: the model's own.
            before: the answer on the page.
            drawn: layers that are chosen there.
            at: when it was asked for, as `Latest.begin` takes it.
        """
        model = model or AUTO
        is_wanted = self.answers.begin(request, (path, name), at)
        image = None
        try:
            image = self.service.decode(Path(path))
            ask = partial(
                handlers.inspect,
                *(self.service, path, name),
                image=image,
                model=model,
                score_threshold=threshold,
            )
            if todo := large(self.service, image, model):
                shown, look = yield from self._watch(ask, todo, is_wanted)
            else:
                shown, look = ask()
            inspection = look.inspection
            possible, drawn_first = LAYERS[inspection.task]
            is_same_kind = before is not None and before.inspection.task == inspection.task
            kept = tuple(drawn) if is_same_kind else drawn_first
            shown = replace(shown, drawn=kept)
            picture = handlers.draw(look, chosen_layers(kept))
            usual, expected = expectation(self.service, inspection.model, threshold)
        except Exception as exc:
            if not is_wanted():
                yield self._overtaken(request)
                return
            yield self._blank(request, markup.failed(handlers.sentence_of(exc)), image)
            return
        if not is_wanted():
            yield self._overtaken(request)
            return
        yield (
            shown,
            picture,
            markup.verdict(inspection, short(look.title), look.queued),
            markup.findings_table(inspection, can_pick=True, pitch=self.service.pitch),
            gr.CheckboxGroup(choices=list(possible), value=list(kept), visible=bool(possible)),
            markup.details(inspection, look.title, expected.full),
            gr.Slider(
                # It has no findings to leave out. What a visitor chose is left alone: they may
                # have moved it on since they asked.
                interactive=inspection.task != "classify",
                info=expected.brief,
                **({"value": usual} if threshold is None else {}),
            ),
            "",
            *(gr.Button(interactive=True) for _ in self.drawing.buttons),
            gr.Button(visible=False),
        )

    def _watch(
        self, ask: Callable[[], Answered], todo: Large, is_wanted: Callable[[], bool]
    ) -> Generator[tuple[Any, ...], None, Answered]:
        """Ask, and say how far it has come; raises what `ask` raises, and `CalledOff`."""
        yield self._working(markup.working(todo.text), can_stop=True)
        steps = watch(ask, todo, is_wanted)
        while True:
            try:
                progress = next(steps)
            except StopIteration as end:
                answered: Answered = end.value
                return answered
            if is_wanted():
                yield self._working(markup.working(todo.text, progress), can_stop=True)

    def halt(self, request: gr.Request) -> tuple[Any, ...]:
        """Call off the look that is under way; the picture stays."""
        self.answers.begin(request, _Stopped(self.answers.about(request) or ()))
        return self._overtaken(request)

    def _overtaken(self, request: gr.Request) -> tuple[Any, ...]:
        """The page if an answer is not wanted any longer: stopped, or as something newer has it.

        What was said of a look on its way may arrive after its stop, so its end says it again.
        """
        if isinstance(self.answers.about(request), _Stopped):
            return self._working(markup.empty("Stopped. Press Inspect to look again."))
        return self._unchanged()

    def empty(self, request: gr.Request) -> tuple[Any, ...]:
        """The page without a picture; an answer about the one before comes too late."""
        shown, _, *others = self._blank(request, markup.empty())
        # The browser has cleared the picture itself, and may hold the next one by now.
        return (shown, gr.skip(), *others)

    def _blank(
        self, request: gr.Request, verdict: str, image: DecodedImage | None = None
    ) -> tuple[Any, ...]:
        """No answer; a picture that could be read stays, for another model to look at."""
        if image is None:
            self.answers.begin(request)
        picture = fitted(image.pixels, handlers.SHOWN_SIDE_PX) if image else None
        nothing = (None, picture, verdict, "", gr.CheckboxGroup(visible=False), "", gr.skip())
        return (*nothing, "", *self.idle_buttons())

    def _working(self, verdict: str, *, can_stop: bool = False) -> tuple[Any, ...]:
        said = (None, gr.skip(), verdict, "", gr.skip(), "", gr.skip(), "")
        return (*said, *self.idle_buttons(can_stop=can_stop))

    def _unchanged(self) -> tuple[Any, ...]:
        return tuple(gr.skip() for _ in self.answer())

    def open(self, request: gr.Request, model: str | None) -> Iterator[tuple[Any, ...]]:
        """The first sample, so that the page never opens empty.

        Nothing where a visitor was faster than the page: the picture they gave stays.
        """
        if self.answers.has_asked(request):
            yield self._unchanged()
            return
        sample = self.samples[0]
        yield from self.look(request, str(sample.path), sample.path.name, model, None)

    def take(
        self,
        before: Shown | None,
        model: str | None,
        threshold: float,
        drawn: list[str],
        event: gr.EventData,
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """The sample that was chosen."""
        path = self.samples[int(event.index) % len(self.samples)].path
        yield from self.look(
            *(request, str(path), path.name, model, threshold),
            before=before,
            drawn=drawn,
            at=event.at,
        )

    def receive(
        self,
        picture: Any,
        before: Shown | None,
        model: str | None,
        threshold: float,
        drawn: list[str],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """The picture that was dropped, pasted or photographed."""
        try:
            path, name = handlers.uploaded(picture)
        except InputError as exc:
            yield self._blank(request, markup.failed(str(exc)))
            return
        yield from self.look(request, path, name, model, threshold, before=before, drawn=drawn)

    def again(
        self,
        before: Shown | None,
        model: str | None,
        threshold: float | None,
        drawn: list[str],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """The same picture, with what is set now."""
        asked = self.answers.about(request)
        if not asked:
            yield self.empty(request)
            return
        path, name = asked
        yield from self.look(request, path, name, model, threshold, before=before, drawn=drawn)

    def adjust(
        self,
        before: Shown | None,
        model: str | None,
        threshold: float | None,
        drawn: list[str],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """The same picture at another threshold; nothing while somebody has yet to type one."""
        if threshold is None:
            yield self._unchanged()
            return
        yield from self.again(before, model, threshold, drawn, request)

    def switch(
        self,
        before: Shown | None,
        model: str | None,
        drawn: list[str],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """The same picture seen by another model, at that model's own threshold."""
        if self.answers.is_repeated(request, (self.answers.about(request), model)):
            yield self._unchanged()
            return
        yield from self.again(before, model, None, drawn, request)

    def models(self) -> Any:
        """The models that are served now, as choices."""
        offered = handlers.model_choices(self.service)
        return gr.Dropdown(choices=offered, value=AUTO if offered else None)


def build(service: Service, batches: Batches, blocks: Any) -> InspectTab:
    """Lay out the tab and wire its events.

    Args:
        service: what inspects.
        batches: where an answer is kept that gets a link.
        blocks: the page, whose opening fills the tab.
    """
    page = _Page(service, batches)
    settings = [page.shown, page.model, page.threshold, page.drawing.layers]
    answers: dict[str, Any] = {
        "outputs": page.answer(),
        "show_progress": "minimal",
        "show_progress_on": [page.verdict],
        "concurrency_id": "models",
        "trigger_mode": "multiple",  # `Latest` says which answer is shown
        # Pictures would be decoded before our caps are applied; and what is drawn is checked
        # against the choices of the newest answer, which the page may not have yet.
        "preprocess": False,
        **PRIVATE,
    }
    opened = blocks.load(page.models, outputs=page.model, show_progress="hidden", **PRIVATE)
    opened.then(page.open, page.model, **answers)
    page.picture.upload(page.receive, [page.picture, *settings], **answers)
    # A dropped picture first clears the one before it: that must not wait behind other visitors.
    page.picture.clear(
        page.empty, outputs=page.answer(), queue=False, show_progress="hidden", **PRIVATE
    )
    page.tray.click(page.take, settings, **answers)
    page.model.input(page.switch, [page.shown, page.model, page.drawing.layers], **answers)
    page.threshold.input(page.adjust, settings, **answers | {"trigger_mode": "always_last"})
    page.run.click(page.again, settings, **answers)
    page.stop.click(
        page.halt, outputs=page.answer(), queue=False, show_progress="hidden", **PRIVATE
    )
    page.drawing.wire(page.shown, page.picture, page.findings)
    page.flagging.wire(page.shown)
    return InspectTab(shown=page.shown)
