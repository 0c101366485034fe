"""How a model learns: what is due, the run in hand, the verdict, and what a person may do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gradio as gr

from core.settings import Settings
from demo import training_deeds as deeds
from demo import training_markup as markup
from demo.handlers import PRIVATE, sentence_of
from demo.markup import note, refused
from demo.retraining import Picture, Retrainings
from demo.service import Service
from demo.sign_in import acting, acts
from demo.words import short

TITLE: Final = "Training"
ACT: Final = "retraining"  # name of the endpoint that acts
_TICK_S: Final = 2
_QUIET: Final[dict[str, Any]] = {"show_progress": "hidden", **PRIVATE}
_ASKING: Final = 4  # components of a question
_Told = tuple[Any, ...]  # the mark of what a visitor's page shows, and an error it has told


class _Page:
    """The components of the tab, and the functions that fill them."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.retrainings = Retrainings(service, settings)
        self.told = gr.State(())
        self.timer = gr.Timer(_TICK_S, active=False)
        self.sentence = gr.HTML(markup.working(), elem_id="training-sentence")
        with gr.Row(elem_classes="controls"):
            served = [(short(r.config.title), r.config.name) for r in service.releases()]
            self.model = gr.Dropdown(
                served, value=None, label="Model", elem_id="training-model", scale=2, min_width=240
            )
            with gr.Column(scale=5, min_width=280):
                self.live = gr.HTML("", elem_id="training-live")
                self.hearing = _html("hearing")
        self._lay_out_deeds()
        self.timeline = _html("phases")
        with gr.Row(elem_classes="review"):
            with gr.Column(scale=6, min_width=520):
                self.verdict = _html("verdict")
            with gr.Column(scale=6, min_width=520):
                self.curve = _html("curve")
                self.log = _html("log")
        self.history = _html("history")
        self.balance = _html("balance")

    def _lay_out_deeds(self) -> None:
        """Buttons that ask, the question, and its two answers."""
        with gr.Row(elem_classes="tools", elem_id="training-tools"):
            self.main = _button("Train now …", "main", variant="primary", elem_classes="runs")
            self.drop = _button("Give the run up …", "drop", visible=False)
            self.back = _button(deeds.NOTHING, "back")
            self.standby = gr.Dropdown(
                choices=[],
                value=None,
                label="Another release",
                container=False,  # what it is for stands on the button beside it
                visible=False,
                elem_id="training-standby",
                scale=0,
                min_width=380,
            )
            self.put = _button("Put it live …", "put", visible=False)
        with gr.Column(visible=False, elem_id="training-asks") as self.ask:
            self.question = _html("question")
            self.deed = gr.Textbox(visible=False)
            with gr.Row(elem_classes="tools"):
                self.yes = _button("Yes", "yes", variant="primary")
                self.no = _button("No, leave it as it is", "no")
        self.happened = gr.HTML("", elem_id="training-happened")

    def filled(self) -> list[Any]:
        """The components that `fill` fills, in its order."""
        return [
            *(self.told, self.sentence, self.live, self.main, self.drop, self.back),
            *(
                self.standby,
                self.put,
                self.hearing,
                self.timeline,
                self.verdict,
                self.curve,
                self.log,
            ),
            *(self.history, self.balance),
        ]

    def asking(self) -> list[Any]:
        """The components of a question."""
        return [self.ask, self.question, self.deed, self.yes]

    def enter(self, model: str | None) -> tuple[Any, ...]:
        """The models to choose from, and everything about the one that matters most."""
        try:
            offered = [(short(title), name) for title, name in self.retrainings.models()]
        except Exception as exc:
            rest = (gr.skip(),) * (len(self.filled()) - 2)
            return (gr.skip(), (), markup.failed(sentence_of(exc)), *rest)
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
            if mark == told[:-1]:
                return nothing
            picture = self.retrainings.picture(model)
            offered = tuple((f"{s.revision}, {s.words}", s.revision) for s in picture.standby)
            same = told[-1:] == (offered,)  # a list that somebody has open is not renewed
            first = offered[0][1] if offered else None
            choices = (
                gr.skip() if same else gr.Dropdown(offered, value=first, visible=bool(offered))
            )
            return ((*mark, offered), *self._shown(picture, choices))
        except Exception as exc:
            failure = ("failed", sentence_of(exc))
            if failure == told:
                return nothing
            return (failure, markup.failed(failure[1]), *nothing[2:])

    def _shown(self, picture: Picture, choices: Any) -> tuple[Any, ...]:
        now = self.retrainings.now()
        judged = next((run.decision for run in picture.runs if run.decision), None)
        back = deeds.back(picture)
        return (
            markup.sentence(picture),
            markup.live(picture),
            gr.Button(deeds.main(picture).button),
            gr.Button(visible=deeds.give_up(picture) is not None),
            gr.Button(back.button if back else deeds.NOTHING, interactive=back is not None),
            choices,
            gr.Button(visible=bool(picture.standby)),
            markup.hearing(picture, now),
            markup.timeline(picture.newest, now),
            markup.verdict(judged),
            markup.curve(picture.curve),
            markup.tail(picture.log),
            markup.history(picture.runs, picture.config.revision, now),
            markup.balance(picture.outlook),
        )

    def ask_main(self, model: str) -> tuple[Any, ...]:
        """The question of what one would do next."""
        return self._ask(lambda: deeds.main(self.retrainings.picture(model)))

    def ask_drop(self, model: str) -> tuple[Any, ...]:
        """The question whether to give the parked run up."""
        return self._ask(lambda: deeds.give_up(self.retrainings.picture(model)))

    def ask_back(self, model: str) -> tuple[Any, ...]:
        """The question whether to go back."""
        return self._ask(lambda: deeds.back(self.retrainings.picture(model)))

    def ask_put(self, model: str, revision: str | None) -> tuple[Any, ...]:
        """The question whether to put the chosen release live."""
        return self._ask(lambda: deeds.put_live(self.retrainings.picture(model), revision or ""))

    def _ask(self, what: Callable[[], deeds.Deed | None]) -> tuple[Any, ...]:
        try:
            deed = what()
        except Exception as exc:
            return (*_closed(), refused(sentence_of(exc)))
        if deed is None:
            return (*_closed(), "")
        return (
            gr.Column(visible=True),
            markup.question(deed),
            deed.key,
            gr.Button(deed.yes),
            "",
        )

    @acts
    def act(self, model: str, key: str) -> tuple[Any, ...]:
        """Do what was asked and confirmed."""
        try:
            told = note(deeds.do(self.retrainings, str(model), str(key), who=acting()))
        except Exception as exc:
            told = refused(sentence_of(exc))
        return gr.Column(visible=False), told


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
    asks = [*page.asking(), page.happened]
    tab.select(page.enter, page.model, [page.model, *page.filled()], **_QUIET)
    tabs.select(_refreshes, outputs=page.timer, **_QUIET)
    page.timer.tick(page.fill, shows, page.filled(), trigger_mode="once", **_QUIET)
    page.model.input(page.fill, shows, page.filled(), **_QUIET)
    page.model.input(_closed, outputs=page.asking(), **_QUIET)
    page.main.click(page.ask_main, page.model, asks, **_QUIET)
    page.drop.click(page.ask_drop, page.model, asks, **_QUIET)
    page.back.click(page.ask_back, page.model, asks, **_QUIET)
    page.put.click(page.ask_put, [page.model, page.standby], asks, **_QUIET)
    page.no.click(_closed, outputs=page.asking(), **_QUIET)
    page.yes.click(
        page.act, [page.model, page.deed], [page.ask, page.happened], api_name=ACT, **_QUIET
    ).then(page.fill, shows, page.filled(), **_QUIET)


def _html(part: str) -> Any:
    return gr.HTML("", apply_default_css=False, elem_id=f"training-{part}")


def _button(text: str, part: str, **more: Any) -> Any:
    return gr.Button(text, scale=0, min_width=200, elem_id=f"training-{part}", **more)


def _closed() -> tuple[Any, ...]:
    """No question is open."""
    return (gr.Column(visible=False), *(gr.skip(),) * (_ASKING - 1))


def _refreshes(event: gr.SelectData) -> Any:
    """A page refreshes itself while this tab is open."""
    return gr.Timer(active=event.value == TITLE)
