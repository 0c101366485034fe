"""The same picture seen by every model, at one scale, under what they say together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import gradio as gr

from core.errors import InputError, RollmarkError
from core.types import DecodedImage
from demo import drops, handlers, markup
from demo.comparison_store import Comparisons
from demo.draw import fitted
from demo.exports import KINDS, Exports, Kind, encode_comparison, file_name
from demo.handlers import PRIVATE, TILE_SIDE_PX, Compared, Shown
from demo.latest import Latest
from demo.samples import picture_address, samples
from demo.service import Comparison, Look, Service
from demo.tabs.inspect import InspectTab
from demo.words import capital, labels_found, short

Seen = tuple[str, str]  # path and name of the picture on the page; "" where there is none
Standing = tuple[tuple[str, ...], tuple[str, ...]]  # tiles answered, titles of those to come

_WHAT: Final = "The models look at the same picture; drop one, choose models and press Compare."
_RESULTS: Final = 8  # parts of the page that a comparison fills
_NO_PICTURE: Final[Seen] = ("", "")
_IDLE: Final[Standing] = ((), ())
_ADDRESS: Final = "comparison"  # what a link calls one
_HAND_OUT: Final = "() => document.getElementById('compare-export').click()"


class _Page:
    def __init__(self, service: Service, comparisons: Comparisons) -> None:
        self.service, self.comparisons, self.exports = service, comparisons, Exports()
        self.answers = Latest()
        self.compared: Any = gr.State(None)  # `Compared`, when all models have answered
        self.seen = gr.State(_NO_PICTURE)  # the picture in the grid
        self.standing = gr.State(_IDLE)  # of the comparison under way
        self.is_linked = gr.State(False)  # whether a link put it there, and nobody has come since
        self.sentence = gr.HTML(
            markup.sentence(_WHAT), js_on_load=markup.ANNOUNCE, elem_id="compare-sentence"
        )
        with gr.Row(elem_classes="controls"):
            self.picture = gr.Image(
                type="filepath",
                image_mode=None,
                sources=["upload", "clipboard"],
                label="Picture",
                show_label=False,
                height=150,
                buttons=[],
                placeholder="Drop or paste a picture",
                scale=2,
                min_width=200,
                alt_text="The picture that is compared",
                elem_classes="picture",
                elem_id="compare-picture",
            )
            with gr.Column(scale=7, min_width=300):
                # Filled from the start: a visitor may be here before the page's opening is done.
                self.models = self.offered(label="Models", elem_id="compare-models")
                with gr.Row(elem_classes="actions"):
                    self.run = gr.Button(
                        "Compare",
                        variant="primary",
                        min_width=90,
                        elem_classes="runs",
                        elem_id="compare-run",
                    )
                    self.stop = gr.Button(
                        "Stop", interactive=False, min_width=90, elem_id="compare-stop"
                    )
                    self.save = {
                        kind: gr.Button(
                            f"Download {kind.upper()}",
                            size="sm",
                            min_width=90,
                            elem_id=f"compare-save-{kind}",
                        )
                        for kind in KINDS
                    }
                    self.link = gr.Button(
                        "Make a link", size="sm", min_width=90, elem_id="compare-link"
                    )
        drops.refusals("compare")
        self.linked = gr.HTML("", js_on_load=markup.ANNOUNCE, elem_id="compare-linked")
        self.legend = gr.HTML("", elem_id="compare-legend")
        self.grid = gr.HTML("", apply_default_css=False, elem_id="compare-grid")
        self.export = gr.DownloadButton("Export", visible="hidden", elem_id="compare-export")

    def offered(self, **how: Any) -> Any:
        """What may be chosen now; all models are, the committee of some of them is not."""
        named = [(short(r.config.title), r.config.name) for r in self.service.choices()]
        chosen = [r.config.name for r in self.service.releases()]
        return gr.CheckboxGroup(choices=named, value=chosen, **how)

    def open(self, request: gr.Request) -> tuple[Any, ...]:
        """The comparison that the address asks for, as it was; this tab is opened for it."""
        name = str(request.query_params.get(_ADDRESS) or "")
        if not name:
            return (gr.skip(),) * (3 + _RESULTS)
        try:
            compared = self.comparisons.open(name)
            image = handlers.image_of(self.service, compared)
            picture = fitted(image.pixels, TILE_SIDE_PX)
            results = _kept(compared, image)
        except Exception as exc:
            picture, results = gr.skip(), _failed(handlers.sentence_of(exc))
        return gr.Tabs(selected="compare"), True, picture, *results

    def enter(
        self,
        shown: Shown | None,
        seen: Seen,
        is_linked: bool,
        chosen: list[str],
        request: gr.Request,
    ) -> Iterator[tuple[Any, ...]]:
        """Bring along the picture of the first tab, unless it is here already.

        A link opens this tab too, and what it shows stays.
        """
        sample = samples()[0].path
        brought = (shown.path, shown.name) if shown is not None else (str(sample), sample.name)
        if is_linked or brought == seen:
            yield False, *(gr.skip(),) * (1 + _RESULTS)
            return
        try:
            picture = fitted(self.service.decode(Path(brought[0])).pixels, TILE_SIDE_PX)
        except RollmarkError as exc:
            yield False, gr.skip(), *_failed(str(exc))
            return
        for results in self._looks(brought, chosen, request):
            yield False, picture, *results

    def receive(
        self, picture: Any, chosen: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Compare on the picture that was dropped or pasted."""
        try:
            seen = handlers.uploaded(picture)
        except RollmarkError as exc:
            yield _failed(str(exc))
            return
        yield from self._looks(seen, chosen, request)

    def again(
        self, seen: Seen, chosen: list[str], request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Compare on the same picture with the models chosen now."""
        if tuple(seen) == _NO_PICTURE:
            yield _failed("There is no picture here; drop or paste one.")
            return
        yield from self._looks(seen, chosen, request)

    def empty(self, request: gr.Request) -> tuple[Any, ...]:
        """The page without a picture; answers about the one before come too late."""
        self.answers.begin(request)
        button = gr.Button(interactive=False)
        return markup.sentence(_WHAT), "", "", button, _NO_PICTURE, None, "", _IDLE

    def halt(self, standing: Standing, request: gr.Request) -> tuple[Any, ...]:
        """Say how far it came; the models that were not asked any more say so, too."""
        self.answers.begin(request)
        tiles, titles = standing
        said = "the answers so far are below" if tiles else "nothing was answered yet"
        left = [markup.waiting_tile(title, is_stopped=True) for title in titles]
        grid = markup.grid([*tiles, *left])
        return markup.sentence(f"Stopped; {said}."), grid, gr.Button(interactive=False)

    def keep(self, compared: Compared | None) -> str:
        """Keep what all models said, and say where it is found again."""
        try:
            if compared is None:
                raise InputError("There is no comparison to link to; press Compare first.")
            name = self.comparisons.keep(compared)
        except Exception as exc:
            return markup.refused(handlers.sentence_of(exc))
        return markup.linked("comparison", f"?{_ADDRESS}={name}", self.comparisons.days)

    def hand_out(self, compared: Compared | None, kind: Kind) -> Any:
        """What all models said, as a file."""
        with handlers.one_sentence():
            if compared is None:
                raise InputError("There is no comparison to download; press Compare first.")
            pixels = handlers.image_of(self.service, compared).pixels
            ruled = self.service.tolerances is not None
            data = encode_comparison(kind, pixels, compared, self.service.pitch, ruled=ruled)
            name = file_name(compared.name, "compared", kind)
            return gr.DownloadButton(value=str(self.exports.write(name, data)))

    def _looks(
        self, seen: Seen, chosen: Sequence[str], request: gr.Request
    ) -> Iterator[tuple[Any, ...]]:
        """Results as they come, until the visitor wishes for something else.

        The last one is sent once more when all is done, so the last one changes nothing.
        """
        is_wanted = self.answers.begin(request)
        for results in self._results(seen, chosen):
            if not is_wanted():
                break
            yield results
        yield (gr.skip(),) * _RESULTS

    def _results(self, seen: Seen, chosen: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """After each model: sentence, legend, grid, stop button, picture, all when it is done."""
        looks: list[Look] = []
        path, name = seen
        try:
            names = self.service.chosen(chosen)
            titles = [short(self.service.choose(name).config.title) for name in names]
            waiting = [markup.waiting_tile(title) for title in titles]
            tiles: list[str] = []
            yield (
                markup.sentence(f"{titles[0]} is looking (1 of {len(names)}) …"),
                "",
                markup.grid(waiting),
                gr.Button(interactive=True),
                seen,
                None,
                "",
                ((), tuple(titles)),
            )
            for look in self.service.looks(Path(path), names):
                looks.append(look)
                drawn = handlers.draw_tile(look)
                tiles.append(
                    markup.tile(look.inspection, short(look.title), picture_address(drawn))
                )
                n = len(tiles)
                is_last = n == len(names)
                comparison = self.service.conclude(Path(path), looks) if is_last else None
                text = (
                    _conclusion(comparison)
                    if comparison
                    else f"{titles[n]} is looking ({n + 1} of {len(names)}) …"
                )
                yield (
                    markup.sentence(text),
                    markup.legend(labels_found([each.inspection for each in looks])),
                    markup.grid([*tiles, *waiting[n:]]),
                    gr.Button(interactive=not is_last),
                    seen,
                    handlers.compared(path, name, comparison) if comparison else None,
                    "",
                    (tuple(tiles), tuple(titles[n:])),
                )
        except Exception as exc:
            yield _failed(handlers.sentence_of(exc), seen)


def build(
    service: Service,
    comparisons: Comparisons,
    inspected: InspectTab,
    blocks: Any,
    tabs: Any,
    tab: Any,
) -> None:
    """Lay out the tab and wire its events.

    Args:
        service: what inspects.
        comparisons: those that are kept because they have a link.
        inspected: the first tab, whose picture is brought along.
        blocks: the page, whose opening lists the models and may ask for a comparison by its link.
        tabs: all tabs, to open this one for a link.
        tab: this tab, whose selection starts the first comparison.
    """
    page = _Page(service, comparisons)
    results = [page.sentence, page.legend, page.grid, page.stop, page.seen, page.compared]
    results += [page.linked, page.standing]  # the link is another comparison's
    working: dict[str, Any] = {
        "show_progress": "hidden",  # the sentence counts the models
        "concurrency_id": "models",
        "trigger_mode": "multiple",  # `Latest` says whose answers are shown
        **PRIVATE,
    }
    blocks.load(page.offered, outputs=page.models, show_progress="hidden", **PRIVATE)
    blocks.load(
        page.open,
        outputs=[tabs, page.is_linked, page.picture, *results],
        show_progress="hidden",
        **PRIVATE,
    )
    runs = [
        tab.select(
            page.enter,
            [inspected.shown, page.seen, page.is_linked, page.models],
            [page.is_linked, page.picture, *results],
            **working,
        ),
        page.picture.upload(
            page.receive, [page.picture, page.models], results, preprocess=False, **working
        ),
        page.run.click(page.again, [page.seen, page.models], results, **working),
    ]
    page.link.click(page.keep, page.compared, page.linked, show_progress="minimal", **PRIVATE)
    for kind, button in page.save.items():
        button.click(
            partial(page.hand_out, kind=kind),
            page.compared,
            page.export,
            show_progress="hidden",
            **PRIVATE,
        ).success(None, js=_HAND_OUT, **PRIVATE)
    # A dropped picture first clears the one before it: that must not wait behind other visitors.
    page.picture.clear(page.empty, outputs=results, queue=False, show_progress="hidden", **PRIVATE)
    page.stop.click(
        page.halt,
        page.standing,
        [page.sentence, page.grid, page.stop],
        cancels=runs,
        show_progress="hidden",
        **PRIVATE,
    )


def _failed(sentence: str, seen: Seen = _NO_PICTURE) -> tuple[Any, ...]:
    """Why there is no answer; `seen` is the picture that is asked about all the same."""
    return markup.failed(sentence), "", "", gr.Button(interactive=False), seen, None, "", _IDLE


def _kept(compared: Compared, image: DecodedImage) -> tuple[Any, ...]:
    """What a comparison filled when it was made."""
    each = zip(compared.inspections, compared.titles, compared.labels, strict=True)
    tiles = [
        markup.tile(seen, short(title), picture_address(handlers.tile(image, seen, labels)))
        for seen, title, labels in each
    ]
    return (
        markup.sentence(str(compared.committee["sentence"])),
        markup.legend(labels_found(compared.inspections)),
        markup.grid(tiles),
        gr.Button(interactive=False),
        (compared.path, compared.name),
        compared,
        "",
        _IDLE,
    )


def _conclusion(comparison: Comparison) -> str:
    said = f" {capital(comparison.queued)}." if comparison.queued else ""
    return comparison.committee.sentence + said
