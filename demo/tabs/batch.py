"""Many pictures at once: dropped as files, a folder or an archive, inspected in the background."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import gradio as gr

from core.errors import InputError, RollmarkError
from demo import batch_markup, handlers, markup
from demo.batch_exports import BATCH_KINDS, FILE_NAMES, BatchKind, encode_batch
from demo.batch_jobs import Batches
from demo.batch_markup import PAGE
from demo.batch_view import ORDER_TITLES, Order, Row, rows
from demo.draw import overlay, usual_layers
from demo.exports import Exports
from demo.handlers import PRIVATE, SEEN_SIDE_PX, SHOWN_SIDE_PX
from demo.latest import Latest
from demo.samples import picture_address
from demo.service import AUTO, Service
from demo.theme import script

_WHAT: Final = "Drop pictures, a folder or a zip archive; they are inspected in the background."
_EMPTY: Final = "No batch yet. Its pictures appear here, the most severe first."
_REFRESH_S: Final = 1.5
_OWN_BATCHES: Final = 20  # that a browser remembers
_KIND_TITLES: Final[dict[BatchKind, str]] = {
    "csv": "Download CSV",
    "coco": "COCO JSON",
    "report": "Report",
}
_HAND_OUT: Final = "() => document.getElementById('batch-export').click()"


def remembered() -> Any:
    """What this browser knows of its own batches; to be made outside of every tab.

    A tab that is not open is not on the page yet when the page asks what its browser remembers.
    The key is fixed, for one drawn at every start would make the app forget with each restart:
    what lies there is the visitor's own, and no secret from them.
    """
    return gr.BrowserState([], storage_key="rollmark-batches", secret="rollmark")


class _Page:
    def __init__(self, service: Service, batches: Batches, own: Any) -> None:
        self.service, self.batches, self.exports = service, batches, Exports()
        self.choices = Latest()
        self.job = gr.State("")  # ID of the batch on the page
        self.first = gr.State(0)  # of the pictures on the page
        self.seen: Any = gr.State(None)  # what the gallery shows; left alone if nothing is new
        self.chosen: Any = gr.State(None)  # index of the picture in large
        self.own = own
        self.head = gr.HTML(
            markup.sentence(_WHAT), js_on_load=markup.ANNOUNCE, elem_id="batch-head"
        )
        with gr.Row(elem_classes="controls"):
            self.files = gr.File(
                file_count="multiple",
                label="Pictures or zip",
                height=130,
                scale=3,
                min_width=220,
                elem_id="batch-files",
            )
            with gr.Column(scale=3, min_width=200):
                self.folder = gr.UploadButton(
                    "Choose a folder", file_count="directory", elem_id="batch-folder"
                )
                self.model = gr.Dropdown(choices=[], label="Model", elem_id="batch-model")
            with gr.Column(scale=2, min_width=200):
                with gr.Row():
                    self.stop = gr.Button(
                        "Stop", interactive=False, min_width=90, elem_id="batch-stop"
                    )
                    self.go_on = gr.Button(
                        "Go on", interactive=False, min_width=90, elem_id="batch-go-on"
                    )
                self.earlier = gr.Dropdown(
                    choices=[], label="Your batches", visible=False, elem_id="batch-earlier"
                )
        self.refused = gr.HTML("", elem_id="batch-refused")  # what was dropped and is not taken
        with gr.Row():
            with gr.Column(scale=6, min_width=300):
                self.order = gr.Radio(
                    choices=[(name, order) for order, name in ORDER_TITLES.items()],
                    value="severity",
                    show_label=False,
                    container=False,
                    elem_id="batch-order",
                )
                with gr.Row(elem_classes="downloads"):
                    self.save = {
                        kind: gr.Button(
                            _KIND_TITLES[kind],
                            interactive=False,
                            size="sm",
                            min_width=90,
                            elem_id=f"batch-save-{kind}",
                        )
                        for kind in BATCH_KINDS
                    }
                self.gallery = gr.HTML(
                    markup.nothing(_EMPTY),
                    js_on_load=script("shots"),
                    apply_default_css=False,
                    elem_id="batch-gallery",
                )
                with gr.Row(visible=False, elem_classes="tools") as self.pager:
                    self.back = gr.Button("Earlier pictures", scale=0, elem_id="batch-back")
                    self.on = gr.Button("More pictures", scale=0, elem_id="batch-on")
                    self.part = gr.HTML("", elem_id="batch-part")
            with gr.Column(scale=4, min_width=300):
                self.large = gr.HTML(
                    "",
                    js_on_load=markup.ANNOUNCE,
                    apply_default_css=False,
                    elem_id="batch-large",
                )
                self.counts = gr.HTML("", apply_default_css=False, elem_id="batch-counts")
                self.export = gr.DownloadButton("Export", visible="hidden", elem_id="batch-export")
        self.timer = gr.Timer(_REFRESH_S, active=False)

    # ------------------------------------------------------------------------------ events

    def take(self, sent: Any, model: str | None, own: list[str]) -> tuple[Any, ...]:
        """Start a batch of what was dropped; one that is refused leaves the page as it is."""
        try:
            files = handlers.uploaded_files(sent)
            job = self.batches.take(files, model=model or AUTO, score_threshold=None)
        except Exception as exc:
            refused = markup.failed(handlers.sentence_of(exc))
            return (gr.skip(), gr.skip(), None, refused, gr.skip(), gr.skip())
        kept = [job.id, *own][:_OWN_BATCHES]
        return (job.id, kept, None, "", self._earlier(kept, job.id), gr.Timer(active=True))

    def show(
        self, job: str, first: int, seen: Any, chosen: int | None, order: Order
    ) -> tuple[Any, ...]:
        """The page as the batch stands now; what has not changed is left alone."""
        if not job:
            return (gr.skip(),) * 12
        try:
            progress = self.batches.progress(job)
        except RollmarkError as exc:
            nothing = ("", "", gr.Row(visible=False), None, *[gr.Button(interactive=False)] * 4)
            return (markup.failed(str(exc)), *nothing, "", gr.Timer(active=False), gr.skip())
        ordered = rows(progress, order)
        page = ordered[first : first + PAGE]
        now = [job, order, first, *(row.index for row in page)]
        tiles = [self.batches.store.tile(job, row.index) for row in page]
        state = progress.job.state
        is_working = state in ("waiting", "running")
        return (
            batch_markup.head(progress),
            gr.skip() if now == seen else batch_markup.gallery(page, tiles, chosen),
            batch_markup.classes(progress, self.service.pitch),
            gr.Row(visible=len(ordered) > PAGE),
            now,
            gr.Button(interactive=is_working),
            gr.Button(interactive=state == "stopped"),
            gr.Button(interactive=first > 0),
            gr.Button(interactive=first + PAGE < len(ordered)),
            batch_markup.pages(first, len(ordered)),
            gr.Timer(active=state != "done"),  # a stopped one may go on by another page
            first,
        )

    def choose(self, job: str, event: gr.EventData, request: gr.Request) -> tuple[Any, ...]:
        """The picture that was chosen, in large."""
        is_wanted = self.choices.begin(request)
        chosen = self._chosen(job, int(event.index))
        return chosen if is_wanted() else (gr.skip(), gr.skip())

    def opening(self, job: str) -> tuple[Any, ...]:
        """Which picture of a batch just opened is in large: none, unless it has one alone."""
        with suppress(RollmarkError):
            progress = self.batches.progress(job)
            if len(progress.job.names) == len(progress.answers) == 1:
                large, index = self._chosen(job, 0)
                return index, large
        return None, ""

    def _chosen(self, job: str, index: int) -> tuple[Any, ...]:
        try:
            progress = self.batches.progress(job)
            answer = progress.answers.get(index)
            if answer is None:
                raise InputError("That picture has not been looked at yet.")
            [row] = [row for row in rows(progress, "arrival") if row.index == index]
            return batch_markup.chosen(row, self._drawn(job, row), self.service.pitch), index
        except Exception as exc:
            return markup.failed(handlers.sentence_of(exc)), None

    def hand_out(self, job: str, kind: BatchKind) -> Any:
        """What is done of the batch, as a file."""
        with handlers.one_sentence():
            progress = self.batches.progress(job)
            store, ruled = self.batches.store, self.service.tolerances is not None
            data = encode_batch(kind, progress, store, self.service.pitch, ruled=ruled)
            return gr.DownloadButton(value=str(self.exports.write(FILE_NAMES[kind], data)))

    def stop_it(self, job: str) -> None:
        """Stop after the picture that is being looked at."""
        with handlers.one_sentence():
            self.batches.stop(job)

    def go_on_with_it(self, job: str) -> Any:
        """Go on with a stopped batch."""
        with handlers.one_sentence():
            self.batches.go_on(job)
        return gr.Timer(active=True)

    def turn(self, first: int, job: str, by: int) -> int:
        """The first picture of the page before or after."""
        try:
            done = len(self.batches.progress(job).answers)
        except RollmarkError:
            return 0
        last = max(0, (done - 1) // PAGE * PAGE)
        return min(max(0, first + by * PAGE), last)

    def open(self, own: list[str], request: gr.Request) -> tuple[Any, ...]:
        """The models, this browser's batches, and the one to show.

        That is the one that the address asks for, or else one of this browser's that is being
        worked on: whoever reloads the page meanwhile finds it again at once.
        """
        offered = handlers.model_choices(self.service)
        models = gr.Dropdown(choices=offered, value=AUTO if offered else None)
        asked = str(request.query_params.get("batch") or "")
        if not asked and "comparison" not in request.query_params:
            asked = self._at_work(own)
        tab = gr.Tabs(selected="batch") if asked else gr.skip()
        timer = gr.Timer(active=bool(asked))
        return models, self._earlier(own, asked), asked, tab, timer

    # ------------------------------------------------------------------------------ parts

    def _at_work(self, own: Sequence[str]) -> str:
        """The newest of these batches that waits or is being looked at; "" if none is."""
        for job_id in own:
            with suppress(RollmarkError):
                if self.batches.store.job(str(job_id)).state in ("waiting", "running"):
                    return str(job_id)
        return ""

    def _earlier(self, own: Sequence[str], shown: str) -> Any:
        choices: list[tuple[str, str]] = []
        for job_id in own:
            try:
                job = self.batches.store.job(str(job_id))
            except RollmarkError:
                continue
            choices.append((f"{job.title}, {job.created_at:%Y-%m-%d %H:%M} UTC", job.id))
        chosen = shown if shown in dict(choices).values() else None
        return gr.Dropdown(choices=choices, value=chosen, visible=bool(choices))

    def _drawn(self, job: str, row: Row) -> str:
        answer = row.answer
        if answer.inspection is None:
            return ""
        image = self.service.decode(self.batches.store.picture(job, row.index))
        drawn = overlay(
            image.pixels,
            answer.inspection,
            labels=answer.labels,
            layers=usual_layers(answer.inspection),
            max_side_px=SHOWN_SIDE_PX,
            seen_side_px=SEEN_SIDE_PX,
        )
        return picture_address(drawn)


def build(service: Service, batches: Batches, own: Any, blocks: Any, tabs: Any) -> None:
    """Lay out the tab and wire its events.

    Args:
        service: what inspects.
        batches: what keeps and works through batches.
        own: what `remembered` made.
        blocks: the page, whose opening may ask for a batch by its link.
        tabs: all tabs, to open this one for a link.
    """
    page = _Page(service, batches, own)
    hidden: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
    look: dict[str, Any] = {
        "fn": page.show,
        "inputs": [page.job, page.first, page.seen, page.chosen, page.order],
        "outputs": [
            *(page.head, page.gallery, page.counts, page.pager, page.seen),
            *(page.stop, page.go_on, page.back, page.on, page.part, page.timer, page.first),
        ],
        **hidden,
    }
    ready = [page.save[kind] for kind in BATCH_KINDS]

    def let_save(job: str) -> list[Any]:
        return [gr.Button(interactive=bool(job)) for _ in ready]

    def fresh(job: str, seen: Any) -> tuple[Any, ...]:
        is_another = seen is None or seen[0] != job
        return (0, *page.opening(job)) if is_another else (gr.skip(),) * 3

    page.timer.tick(**look)

    def turn_to(event: Any) -> None:
        """After another batch was put on the page; listening to the state would hash all states."""
        event.then(
            fresh, [page.job, page.seen], [page.first, page.chosen, page.large], **hidden
        ).then(let_save, page.job, ready, **hidden).then(**look)

    for dropped in (page.files, page.folder):
        turn_to(
            dropped.upload(
                page.take,
                [dropped, page.model, page.own],
                [page.job, page.own, dropped, page.refused, page.earlier, page.timer],
                preprocess=False,
                show_progress="minimal",
                show_progress_on=[page.head],
                **PRIVATE,
            )
        )
    turn_to(
        page.earlier.input(
            lambda job: (job or "", ""), page.earlier, [page.job, page.refused], **hidden
        )
    )
    page.order.input(lambda: 0, outputs=page.first, **hidden).then(**look)
    for button, by in ((page.back, -1), (page.on, 1)):
        button.click(partial(page.turn, by=by), [page.first, page.job], page.first, **hidden).then(
            **look
        )
    page.stop.click(page.stop_it, page.job, **hidden).then(**look)
    page.go_on.click(page.go_on_with_it, page.job, page.timer, **hidden).then(**look)
    page.gallery.click(
        page.choose, page.job, [page.large, page.chosen], trigger_mode="multiple", **hidden
    )
    for kind, button in page.save.items():
        button.click(partial(page.hand_out, kind=kind), page.job, page.export, **hidden).success(
            None, js=_HAND_OUT, **PRIVATE
        )
    opened = blocks.load(
        page.open, page.own, [page.model, page.earlier, page.job, tabs, page.timer], **hidden
    )
    turn_to(opened)
