"""How a model learns: what is due, the run in hand, the gate's verdict, and the way back."""

from __future__ import annotations

from typing import Any, Final

import gradio as gr

from core.settings import Settings
from demo import training_markup as markup
from demo.handlers import PRIVATE, sentence_of
from demo.markup import note
from demo.retraining import Picture, Retrainings
from demo.service import Service
from demo.sign_in import acts
from demo.words import short

TITLE: Final = "Training"
_TICK_S: Final = 2
_QUIET: Final[dict[str, Any]] = {"show_progress": "hidden", **PRIVATE}
_Told = tuple[Any, ...]  # the mark of what a visitor's page shows, and an error it has told


class _Page:
    """The components of the tab, and the functions that fill them."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.retrainings = Retrainings(service, settings)
        self.told = gr.State(())
        self.back_to = gr.State("")
        self.timer = gr.Timer(_TICK_S, active=False)
        self.sentence = gr.HTML(markup.working(), elem_id="training-sentence")
        with gr.Row(elem_classes="controls"):
            self.model = gr.Dropdown(
                choices=[], label="Model", elem_id="training-model", scale=2, min_width=240
            )
            with gr.Column(scale=5, min_width=280):
                self.live = gr.HTML("", elem_id="training-live")
                with gr.Row():
                    self.back = gr.Button(
                        "Nothing to go back to",
                        interactive=False,
                        size="sm",
                        scale=0,
                        min_width=340,
                        elem_id="training-back",
                    )
                with gr.Row(visible=False) as self.ask:
                    self.yes = gr.Button("Yes, go back", variant="primary", size="sm")
                    self.no = gr.Button("No, keep it live", size="sm")
                self.happened = gr.HTML("", elem_id="training-happened")
        self.timeline = _html("phases")
        with gr.Row(elem_classes="review"):
            with gr.Column(scale=6, min_width=320):
                self.verdict = _html("verdict")
            with gr.Column(scale=6, min_width=320):
                self.curve = _html("curve")
        self.history = _html("history")
        self.balance = _html("balance")

    def filled(self) -> list[Any]:
        """The components that `fill` fills, in its order."""
        return [
            *(self.told, self.back_to, self.sentence, self.live, self.back, self.timeline),
            *(self.verdict, self.curve, self.history, self.balance),
        ]

    def enter(self, model: str | None) -> tuple[Any, ...]:
        """The models to choose from, and everything about the one that matters most."""
        try:
            offered = [(short(title), name) for title, name in self.retrainings.models()]
        except Exception as exc:
            rest = (gr.skip(),) * (len(self.filled()) - 3)
            return (gr.skip(), (), "", markup.failed(sentence_of(exc)), *rest)
        known = [name for _, name in offered]
        chosen = model if model in known else next(iter(known), None)
        return (gr.Dropdown(choices=offered, value=chosen), *self.fill((), chosen))

    def fill(self, told: _Told, model: str | None) -> tuple[Any, ...]:
        """What has changed since it was told; nothing where nothing has."""
        nothing = (gr.skip(),) * len(self.filled())
        if not model:
            return nothing
        try:
            mark = self.retrainings.mark(model)
            if mark == told:
                return nothing
            return (mark, *self._shown(self.retrainings.picture(model)))
        except Exception as exc:
            failure = ("failed", sentence_of(exc))
            if failure == told:
                return nothing
            return (failure, "", markup.failed(failure[1]), *nothing[3:])

    def _shown(self, picture: Picture) -> tuple[Any, ...]:
        now = self.retrainings.now()
        name, back_to = short(picture.config.title), picture.back_to or ""
        judged = next((run.decision for run in picture.runs if run.decision), None)
        button = gr.Button(
            f"Roll {name} back to {back_to} …" if back_to else "Nothing to go back to",
            interactive=bool(back_to),
        )
        return (
            back_to,
            markup.sentence(picture),
            markup.live(picture),
            button,
            markup.timeline(picture.newest, now),
            markup.verdict(judged),
            markup.curve(picture.curve, picture.log),
            markup.history(picture.runs, picture.config.revision, now),
            markup.balance(picture.outlook),
        )

    @acts
    def go_back(self, model: str, back_to: str) -> tuple[Any, ...]:
        """Do what was asked and confirmed."""
        try:
            before, after = self.retrainings.go_back(model, back_to)
            told = note(f"{model} is back at {after}; {before} is kept.")
        except Exception as exc:
            told = f'<p class="connection" role="alert">{note(sentence_of(exc))}</p>'
        return gr.Row(visible=False), told


def build(service: Service, settings: Settings, tabs: Any, tab: Any) -> None:
    """Lay out the tab and wire its events.

    Args:
        service: whose models these are.
        settings: of this installation.
        tabs: all tabs, whose selection starts and stops the refreshing.
        tab: this one, whose selection reads the runs.
    """
    page = _Page(service, settings)
    shows = [page.told, page.model]
    tab.select(page.enter, page.model, [page.model, *page.filled()], **_QUIET)
    tabs.select(_refreshes, outputs=page.timer, **_QUIET)
    page.timer.tick(page.fill, shows, page.filled(), trigger_mode="once", **_QUIET)
    page.model.input(page.fill, shows, page.filled(), **_QUIET)
    page.back.click(lambda: gr.Row(visible=True), outputs=page.ask, **_QUIET)
    page.no.click(lambda: gr.Row(visible=False), outputs=page.ask, **_QUIET)
    page.yes.click(
        page.go_back, [page.model, page.back_to], [page.ask, page.happened], **_QUIET
    ).then(page.fill, shows, page.filled(), **_QUIET)


def _html(part: str) -> Any:
    return gr.HTML("", apply_default_css=False, elem_id=f"training-{part}")


def _refreshes(event: gr.SelectData) -> Any:
    """A page refreshes itself while this tab is open."""
    return gr.Timer(active=event.value == TITLE)
