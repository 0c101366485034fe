"""A camera, a video or a watched folder, looked at while it runs; what is dropped is counted."""

from __future__ import annotations

import base64
import binascii
from html import escape
from pathlib import Path
from typing import Any, Final, Literal

import gradio as gr

from core.errors import InputError
from core.images import decode
from core.settings import Settings
from demo import handlers, markup
from demo.draw import usual_layers
from demo.handlers import PRIVATE
from demo.live_feeds import folder_feed, video_feed
from demo.live_session import Feed, LiveViews, Past, Seen
from demo.samples import picture_address
from demo.service import AUTO, Look, Service
from demo.words import count, headline, short

Source = Literal["camera", "video", "folder"]
_WHAT: Final = "Start the camera, or choose a video; every answer appears as it comes."
_EMPTY: Final = "The newest picture and its answer appear here, the ones before it in a row below."
_REFRESH_S: Final = 0.5
_FRAME_S: Final = 0.2  # between two frames that the camera sends
_MARK: Final = "base64,"
Told = tuple[str, int]  # view and number of its answers, of what is on the page already
_NOTHING_TOLD: Final[Told] = ("", 0)


class _Page:
    def __init__(self, service: Service, settings: Settings, views: LiveViews) -> None:
        self.service, self.views = service, views
        self.folder = settings.serving.watched_folder
        self.limits = settings.serving.image_limits
        self.view = gr.State("")  # ID of the view on the page
        self.told: Any = gr.State(_NOTHING_TOLD)
        self.head = gr.HTML(markup.sentence(_WHAT), elem_id="live-head")
        sources: list[tuple[str, Source]] = [("Camera", "camera"), ("Video file", "video")]
        if self.folder is not None:
            sources.append((f"Folder {self.folder.name}", "folder"))
        with gr.Row(elem_classes="controls"):
            self.source = gr.Radio(sources, value="camera", label="Pictures from", scale=3)
            self.model = gr.Dropdown(
                choices=[], label="Model", scale=2, min_width=220, elem_id="live-model"
            )
            self.start = gr.Button(
                "Watch the folder", visible=False, variant="primary", elem_id="live-start"
            )
            # The camera has a button of its own, and would go on sending pictures.
            self.stop = gr.Button("Stop", visible=False, interactive=False, elem_id="live-stop")
        with gr.Row():
            with gr.Column(scale=4, min_width=300) as self.feed:
                self.camera = gr.Image(
                    sources=["webcam"],
                    streaming=True,
                    label="Camera",
                    show_label=False,  # it would cover a corner of the picture
                    height=340,
                    elem_id="live-camera",
                )
                self.video = gr.File(label="Video", visible=False, height=140, elem_id="live-video")
            with gr.Column(scale=6, min_width=300):
                self.large = gr.HTML(
                    markup.nothing(_EMPTY), apply_default_css=False, elem_id="live-large"
                )
        self.strip = gr.HTML("", apply_default_css=False, elem_id="live-strip")
        self.timer = gr.Timer(_REFRESH_S, active=False)

    # ------------------------------------------------------------------------------ events

    def offered(self) -> Any:
        """The models that are served now."""
        offered = handlers.model_choices(self.service)
        return gr.Dropdown(choices=offered, value=AUTO if offered else None)

    def switch(self, source: Source, view: str) -> tuple[Any, ...]:
        """Another source; the view of the one before ends."""
        self.views.close(view)
        return (
            gr.Column(visible=source != "folder"),
            gr.Image(visible=source == "camera"),
            gr.File(visible=source == "video", value=None),
            gr.Button(visible=source == "folder"),
            *self._idle(source),
        )

    def frame(self, sent: Any, view: str, told: Told, model: str | None) -> tuple[Any, ...]:
        """Offer a frame of the camera and show how it stands."""
        try:
            picture = decode(_frame_bytes(sent), limits=self.limits)
            found = self.views.view(view)
            if found is None or found.is_closed:
                view = self.views.open(model or AUTO)
                found = self.views.view(view)
            if found is not None:
                found.offer(picture)
        except Exception as exc:
            return (view, markup.failed(handlers.sentence_of(exc)), *(gr.skip(),) * 3)
        return (view, *self._shown(view, told))

    def play(self, sent: Any, model: str | None) -> tuple[Any, ...]:
        """Look at a video at the speed at which it was taken."""
        try:
            path, _ = handlers.uploaded(sent)
            return self._begin(video_feed(Path(path), self.limits), model)
        except Exception as exc:
            return self._refused(exc)

    def watch(self, model: str | None) -> tuple[Any, ...]:
        """Look at every picture that appears in the watched folder."""
        try:
            if self.folder is None:
                raise InputError("No folder is watched here.")
            return self._begin(folder_feed(self.folder), model)
        except Exception as exc:
            return self._refused(exc)

    def refresh(self, view: str, told: Told) -> tuple[Any, ...]:
        """The view as it stands; the timer ends with it."""
        found = self.views.view(view)
        seen = found.seen() if found is not None else None
        is_over = seen is None or seen.is_over
        return (
            *self._shown(view, told),
            gr.Button(interactive=not is_over),
            gr.Timer(active=not is_over),
        )

    def end(self, view: str, told: Told) -> tuple[Any, ...]:
        """Stop; the answers so far stay on the page."""
        self.views.close(view)
        return (*self._shown(view, told), gr.Button(interactive=False), gr.Timer(active=False))

    # ------------------------------------------------------------------------------ parts

    def _begin(self, feed: Feed, model: str | None) -> tuple[Any, ...]:
        view = self.views.open(model or AUTO, feed)
        return (view, markup.sentence("Waiting for the first picture …"), *self._running())

    def _running(self) -> tuple[Any, ...]:
        return (gr.Button(interactive=True), gr.Timer(active=True))

    def _refused(self, exc: Exception) -> tuple[Any, ...]:
        sentence = markup.failed(handlers.sentence_of(exc))
        return ("", sentence, gr.Button(interactive=False), gr.Timer(active=False))

    def _idle(self, source: Source) -> tuple[Any, ...]:
        text = _WHAT
        if source == "folder" and self.folder is not None:
            text = f"Every picture that comes into the folder {self.folder.name} is looked at."
        stop = gr.Button(interactive=False, visible=source != "camera")
        nothing = markup.nothing(_EMPTY)
        empty = (markup.sentence(text), nothing, "", _NOTHING_TOLD)
        return ("", *empty, stop, gr.Timer(active=False))

    def _shown(self, view: str, told: Told) -> tuple[Any, Any, Any, Any]:
        """Sentence, newest answer, strip, and what is told by them.

        What is not there is left alone, and so is what stands there: drawing takes time.
        """
        found = self.views.view(view)
        if found is None:
            return (gr.skip(),) * 4
        seen = found.seen()
        if seen.newest is None:
            came = f"Looking at the first of {count(seen.offered, 'picture')} …"
            text = seen.error or (came if seen.offered else "Waiting for the first picture …")
            head = markup.failed(text) if seen.error else markup.sentence(text)
            return head, *(gr.skip(),) * 3
        if tuple(told) == (view, seen.answered):
            return live_head(seen), *(gr.skip(),) * 3
        large = _large(seen.newest, short(seen.newest.title))
        return live_head(seen), large, _strip(seen.strip), (view, seen.answered)


def live_head(seen: Seen) -> str:
    """What the newest answer says, and how many pictures were looked at, dropped or unreadable."""
    what = headline(seen.newest.inspection).text if seen.newest else ""
    counts = f"Looked at {seen.answered} of {count(seen.offered, 'picture')}"
    if seen.dropped:
        counts += f", {seen.dropped} dropped while the model was busy"
    if seen.unreadable:
        counts += f", {seen.unreadable} unreadable"
    rate = f" · {seen.per_s:.1f} per second" if seen.per_s else ""
    over = " · ended" if seen.is_over else ""
    error = f'<p class="quiet">{escape(seen.error)}</p>' if seen.error else ""
    return (
        f'<p class="sentence">{escape(what)}</p>'
        f'<p class="quiet" id="live-counts">{escape(counts + rate + over)}</p>{error}'
    )


def build(service: Service, settings: Settings, blocks: Any) -> None:
    """Lay out the tab and wire its events.

    Args:
        service: what inspects.
        settings: which folder may be watched, and how large a picture may be.
        blocks: the page, whose opening lists the models.
    """
    page = _Page(service, settings, LiveViews(service))
    hidden: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
    shown = [page.head, page.large, page.strip, page.told]
    blocks.load(page.offered, outputs=page.model, **hidden)
    page.source.input(
        page.switch,
        [page.source, page.view],
        [page.feed, page.camera, page.video, page.start, page.view, *shown, page.stop, page.timer],
        **hidden,
    )
    page.camera.stream(
        page.frame,
        [page.camera, page.view, page.told, page.model],
        [page.view, *shown],
        stream_every=_FRAME_S,
        concurrency_limit=None,  # it only offers; the view itself looks at one at a time
        preprocess=False,
        **hidden,
    )
    begun = [page.view, page.head, page.stop, page.timer]
    page.video.upload(page.play, [page.video, page.model], begun, preprocess=False, **hidden)
    page.start.click(page.watch, page.model, begun, **hidden)
    page.timer.tick(page.refresh, [page.view, page.told], [*shown, page.stop, page.timer], **hidden)
    page.stop.click(page.end, [page.view, page.told], [*shown, page.stop, page.timer], **hidden)


def _frame_bytes(sent: Any) -> bytes:
    """The encoded bytes of a frame, from what the page sends.

    Raises:
        InputError: if it is none.
    """
    address = sent.get("url") if isinstance(sent, dict) else sent
    if isinstance(address, str) and address.startswith("data:image/") and _MARK in address:
        try:
            return base64.b64decode(address.partition(_MARK)[2], validate=True)
        except binascii.Error:
            pass
    elif isinstance(sent, dict) and sent.get("path"):
        return Path(handlers.uploaded(sent)[0]).read_bytes()
    raise InputError("The camera sent no picture; start it again.")


def _large(look: Look, model_title: str) -> str:
    picture = picture_address(handlers.draw(look, usual_layers(look.inspection)))
    return f'<img class="large" src="{escape(picture)}" alt="The newest picture">' + markup.verdict(
        look.inspection, model_title
    )


def _strip(answers: tuple[Past, ...]) -> str:
    tiles = "".join(
        f'<li><img src="{escape(past.tile)}" alt=""><span>{escape(past.text)}</span></li>'
        for past in answers
    )
    return f'<ul class="strip" aria-label="The last answers, the newest first">{tiles}</ul>'
