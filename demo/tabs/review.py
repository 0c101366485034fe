"""The queue of images that wait for a person: what, why, where, and the way to Label Studio."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeAlias

import gradio as gr

from active_learning.connection import Reach
from active_learning.courier import Carried
from active_learning.overview import Overview, Place
from core.errors import RollmarkError
from core.settings import Settings
from demo import review_markup as markup
from demo.agreeing import AgreementPanel
from demo.handlers import PRIVATE, sentence_of
from demo.markup import note, refused
from demo.review_markup import PAGE
from demo.reviewing import Reviewing, known_place
from demo.second_looks import SecondLooksPanel
from demo.service import Service
from demo.sign_in import acts
from demo.theme import script
from demo.words import count

TITLE: Final = "Review"
_TICK_S: Final = 2
_QUIET: Final[dict[str, Any]] = {"show_progress": "hidden", **PRIVATE}
_DETAILS: Final = 4  # parts of the page that tell of the chosen image
_FILLED: Final = 8 + _DETAILS  # parts that are kept fresh
# One after the other: an older answer must not replace the image chosen after it.
_IN_TURN: Final[dict[str, Any]] = {"concurrency_id": "review", "concurrency_limit": 1, **_QUIET}


View: TypeAlias = tuple[Place | None, int]  # place and number of images listed


@dataclass(frozen=True, slots=True)
class Told:
    """What a visitor's page shows already."""

    mark: int = -1  # of the queue
    minute: int = -1  # of the overview: what was put off may be sent again
    view: View = (None, PAGE)
    errands: tuple[Reach, Carried] | None = None
    failure: str = ""


class _Page:
    """The components of the tab, and the functions that fill them, which need none of them."""

    def __init__(self, reviewing: Reviewing) -> None:
        self.reviewing = reviewing

    def lay_out(self) -> None:
        """Make the components."""
        self.told = gr.State(Told())
        self.view = gr.State((None, PAGE))
        self.selected = gr.State("")
        self.timer = gr.Timer(_TICK_S, active=False)
        self.sentence = gr.HTML(markup.working(), elem_id="review-sentence")
        self.places = gr.HTML("", js_on_load=script("places"), elem_id="review-places")
        with gr.Row(elem_classes="tools"):
            self.send = gr.Button(
                "No image to send",
                variant="primary",
                interactive=False,
                scale=0,
                min_width=230,
                elem_classes="runs",
                elem_id="review-send",
            )
            self.stop = gr.Button(
                "Stop sending", visible=False, scale=0, min_width=130, elem_id="review-stop"
            )
            self.fetch = gr.Button(
                "Fetch answers now", scale=0, min_width=160, elem_id="review-fetch"
            )
            self.check = gr.Button(
                "Check the connection", scale=0, min_width=180, elem_id="review-check"
            )
            self.connection = gr.HTML("", elem_id="review-connection", min_width=320)
        with gr.Row(elem_classes="review"):
            with gr.Column(scale=6, min_width=320):
                self.queue = gr.HTML(
                    "", js_on_load=script("queue"), apply_default_css=False, elem_id="review-queue"
                )
            with gr.Column(scale=7, min_width=320):
                self.chosen = gr.HTML("", apply_default_css=False, elem_id="review-chosen")
                self.again = gr.Button(
                    "Try again to send it …", visible=False, size="sm", elem_id="review-again"
                )
                with gr.Row(visible=False) as self.ask:
                    self.yes = gr.Button(
                        "Yes, put it back into the queue", variant="primary", size="sm"
                    )
                    self.no = gr.Button("No, leave it set aside", size="sm")
                self.happened = gr.HTML("", elem_id="review-happened")
        self.second_looks = SecondLooksPanel(self.reviewing)
        self.second_looks.lay_out()
        self.agreement = AgreementPanel(self.reviewing)
        self.agreement.lay_out()
        self.charts = gr.HTML("", elem_id="review-charts")

    def filled(self) -> list[Any]:
        """The components that `fill` fills, in its order."""
        return [
            *(self.told, self.sentence, self.places, self.queue, self.charts),
            *(self.connection, self.send, self.stop),
            *self.detail(),
        ]

    def detail(self) -> list[Any]:
        """The components of the chosen image."""
        return [self.chosen, self.again, self.ask, self.happened]

    def enter(self, view: View, selected: str) -> tuple[Any, ...]:
        """Everything, with the most urgent image chosen unless another one is."""
        if not selected:
            try:
                listed = self.reviewing.listed(view[0], limit=1)
            except RollmarkError:
                listed = ()  # the sentence will say why
            selected = listed[0].entry.item.id if listed else ""
        return (selected, *self.fill(Told(), view, selected))

    def fill(self, told: Told, view: View, selected: str) -> tuple[Any, ...]:
        """What has changed since it was told; everything else stays as it is on the page."""
        try:
            return self._changes(told, view, selected)
        except Exception as exc:
            failure = sentence_of(exc)
            if failure == told.failure:
                return (gr.skip(),) * _FILLED
            rest = (gr.skip(),) * (_FILLED - 2)
            return (Told(failure=failure), markup.failed(failure), *rest)

    def _changes(self, told: Told, view: View, selected: str) -> tuple[Any, ...]:
        reviewing = self.reviewing
        now, mark = reviewing.now(), reviewing.mark()
        errands = (reviewing.reach(), reviewing.courier.carried)
        fresh = Told(mark, now.minute, view, errands)
        if fresh == told:
            return (gr.skip(),) * _FILLED
        overview = reviewing.overview()
        is_same_queue = mark == told.mark
        is_same_list = is_same_queue and view == told.view
        return (
            fresh,
            markup.sentence(overview, now),
            markup.places(overview, view[0]),
            gr.skip() if is_same_list else self._listing(overview, view, selected, now),
            gr.skip() if is_same_queue else markup.charts(overview, now),
            markup.connection(*errands, now),
            *self._buttons(overview, errands[1]),
            *((gr.skip(),) * _DETAILS if is_same_queue else self.show(selected)),
        )

    def _listing(self, overview: Overview, view: View, selected: str, now: datetime) -> str:
        place, limit = view
        listed = self.reviewing.listed(place, limit=limit)
        total = overview.places[place] if place else sum(overview.places.values())
        return markup.queue(listed, place, total, selected=selected, now=now)

    def _buttons(self, overview: Overview, carried: Carried) -> tuple[Any, Any]:
        """The button that sends, saying how many, and the one that stops it."""
        images = min(overview.sendable, self.reviewing.budget)
        is_sending = carried.sending is not None
        label = f"Send {count(images, 'image')} to Label Studio"
        return (
            gr.Button(
                "Sending …" if is_sending else label if images else "No image to send",
                interactive=bool(images) and not is_sending and self.reviewing.courier.is_employed,
            ),
            gr.Button(visible=is_sending),
        )

    def choose_place(self, selected: str, event: gr.EventData) -> tuple[Any, ...]:
        """List the images of another place, from the first one on.

        An image that is not there would stand beside a list without it: the first one is chosen.
        """
        place = known_place(event.place)
        try:
            found = self.reviewing.chosen(selected) if selected else None
            if found is not None and place in (None, found.entry.place):
                return (place, PAGE), selected, *(gr.skip(),) * _DETAILS
            listed = self.reviewing.listed(place, limit=1)
        except RollmarkError:
            listed = ()  # the sentence will say why
        selected = listed[0].entry.item.id if listed else ""
        return (place, PAGE), selected, *self.show(selected, is_new=True)

    def show_more(self, view: View) -> View:
        """List more images of the same place."""
        return view[0], view[1] + PAGE

    def show(self, selected: str, *, is_new: bool = False) -> tuple[Any, ...]:
        """The chosen image; a question that is open about the same one stays open."""
        try:
            found = self.reviewing.chosen(selected) if selected else None
            shown = markup.chosen(found, self.reviewing.now())
        except Exception as exc:
            return markup.failed(sentence_of(exc)), gr.Button(visible=False), gr.skip(), gr.skip()
        is_parked = found is not None and found.entry.place == "parked"
        keeps = is_parked and not is_new
        return (
            shown,
            gr.Button(visible=is_parked),
            gr.skip() if keeps else gr.Row(visible=False),
            "" if is_new else gr.skip(),
        )

    def choose(self, event: gr.EventData) -> tuple[Any, ...]:
        """The image that was clicked on or stepped to."""
        selected = str(event.id)[:32]
        return (selected, *self.show(selected, is_new=True))

    @acts
    def send_waiting(self) -> str:
        """Have what waits sent; the page then counts by itself."""
        try:
            images = self.reviewing.overview().sendable
            self.reviewing.send(images)
        except Exception as exc:
            return refused(sentence_of(exc))
        return note(f"Sending {count(min(images, self.reviewing.budget), 'image')} …")

    @acts
    def stop_sending(self) -> None:
        """Send no more than the image in hand."""
        self.reviewing.courier.stop_sending()

    @acts
    def fetch_now(self) -> str:
        """Have answers fetched; what arrives shows by itself."""
        try:
            self.reviewing.fetch()
        except Exception as exc:
            return refused(sentence_of(exc))
        return note("Asking Label Studio for answers …")

    @acts
    def check_now(self) -> str:
        """Look at Label Studio, however long ago the last look was."""
        try:
            self.reviewing.check()
            return markup.connection(
                self.reviewing.reach(), self.reviewing.courier.carried, self.reviewing.now()
            )
        except Exception as exc:
            return refused(sentence_of(exc))

    def look_in_passing(self) -> str:
        """Look at Label Studio when the tab is opened, unless somebody just did."""
        try:
            found = self.reviewing.reach(again=True)
            return markup.connection(found, self.reviewing.courier.carried, self.reviewing.now())
        except Exception as exc:
            return refused(sentence_of(exc))

    @acts
    def try_again(self, selected: str) -> tuple[Any, ...]:
        """Put the chosen image back into the queue."""
        try:
            item = self.reviewing.try_again(selected)
            told = note(f"Image {item.image_sha256[:12]} waits to be sent again.")
        except Exception as exc:
            told = refused(sentence_of(exc))
        shown, again, ask, _ = self.show(selected, is_new=True)
        return shown, again, ask, told


def build(service: Service, settings: Settings, tabs: Any, tab: Any) -> None:
    """Lay out the tab and wire its events.

    Args:
        service: whose queue it is.
        settings: of this installation.
        tabs: all tabs, whose selection starts and stops the refreshing.
        tab: this one, whose selection reads the queue.
    """
    page = _Page(Reviewing(service, settings))
    page.lay_out()
    shows = [page.told, page.view, page.selected]
    fill: dict[str, Any] = {"fn": page.fill, "inputs": shows, "outputs": page.filled(), **_IN_TURN}
    tab.select(page.enter, [page.view, page.selected], [page.selected, *page.filled()], **_IN_TURN)
    tab.select(page.look_in_passing, outputs=page.connection, **_QUIET)
    tabs.select(_refreshes, outputs=page.timer, **_QUIET)
    page.timer.tick(**fill, trigger_mode="once")
    page.places.click(
        page.choose_place,
        page.selected,
        [page.view, page.selected, *page.detail()],
        trigger_mode="multiple",
        **_IN_TURN,
    ).then(**fill)
    page.queue.input(page.show_more, page.view, page.view, **_QUIET).then(**fill)
    page.queue.select(
        page.choose,
        outputs=[page.selected, *page.detail()],
        trigger_mode="multiple",  # “always_last” would bring the first one's event again
        **_IN_TURN,
    )
    page.send.click(page.send_waiting, outputs=page.connection, **_QUIET).then(**fill)
    page.stop.click(page.stop_sending, **_QUIET)
    page.fetch.click(page.fetch_now, outputs=page.connection, **_QUIET)
    page.check.click(page.check_now, outputs=page.connection, **_QUIET)
    page.second_looks.wire()
    page.agreement.wire()
    page.again.click(lambda: gr.Row(visible=True), outputs=page.ask, **_QUIET)
    page.no.click(lambda: gr.Row(visible=False), outputs=page.ask, **_QUIET)
    page.yes.click(page.try_again, page.selected, page.detail(), **_IN_TURN)


def _refreshes(event: gr.SelectData) -> Any:
    """A page refreshes itself while this tab is open."""
    return gr.Timer(active=event.value == TITLE)
