"""The panel on the page Review with reviewed images whose labels a live model denies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape
from typing import Any, Final

import gradio as gr

from active_learning.connection import Reach
from active_learning.recheck import Rechecked, SecondLook
from demo.handlers import PRIVATE, sentence_of
from demo.markup import note, refused
from demo.reviewing import THUMB_PX, Reviewing
from demo.sign_in import acting, acts
from demo.theme import script
from demo.words import capital, count

HEADING: Final = "Labels to look at again"
SHOWN: Final = 24  # images listed
_WHAT: Final = (
    "The live models look at the answers that they have not learned from yet. Listed is where they "
    "are sure of something else. They may be wrong: open the image in Label Studio and correct "
    "what you see, or say that the answer stands. Then it is not listed any more."
)
_AGAIN: Final = "look through the answers again to see the others."


@dataclass(frozen=True, slots=True)
class Listed:
    """What a visitor's page shows."""

    found: Rechecked
    thumbnails: Mapping[str, str]  # data addresses, by image
    there: Reach


class SecondLooksPanel:
    """The components, folded, and the functions that fill them, which need none of them.

    Args:
        reviewing: the queue behind the page.
    """

    def __init__(self, reviewing: Reviewing) -> None:
        self._reviewing = reviewing

    def lay_out(self) -> None:
        """Make the components."""
        self._listed = gr.State(None)
        with gr.Accordion(HEADING, open=False, elem_id="review-second-looks") as self._fold:
            gr.HTML(f'<p class="quiet">{_WHAT}</p>')
            with gr.Row(elem_classes="tools"):
                self._look = gr.Button(
                    "Look through the answers", scale=0, min_width=220, elem_id="review-recheck"
                )
            self._told = gr.HTML("", js_on_load=script("again"), apply_default_css=False)

    def wire(self) -> None:
        """Look when asked to; one visitor after the other."""
        shown = [self._fold, self._told, self._listed]
        turn: dict[str, Any] = {"concurrency_id": "recheck", "concurrency_limit": 1, **PRIVATE}
        self._look.click(self.look, outputs=shown, **turn)
        self._told.click(self.keep, self._listed, shown, **turn)

    @acts
    def look(self) -> tuple[Any, Any, Listed | None]:
        """Heading with the number of images, and the list of them."""
        try:
            found, thumbnails = self._reviewing.recheck()
        except Exception as exc:
            return gr.skip(), refused(sentence_of(exc)), None
        there = self._reviewing.reach()
        if found.doubted and not there.project_address:
            there = self._reviewing.reach(again=True)
        return _shown(Listed(found, thumbnails, there))

    @acts
    def keep(self, listed: Listed | None, event: gr.EventData) -> tuple[Any, Any, Listed | None]:
        """The list without an answer that was looked at again and stands.

        A server that was started again, or has had many visitors since, knows of no list.
        """
        try:
            task_id = int(event.task)
            self._reviewing.confirm(task_id, who=acting())
        except Exception as exc:
            told = _shown(listed)[1] if listed is not None else ""
            return gr.skip(), refused(sentence_of(exc)) + told, listed
        if listed is None:
            return gr.skip(), note(f"The answer of task {task_id} stands; {_AGAIN}"), None
        left = tuple(look for look in listed.found.doubted if look.task_id != task_id)
        return _shown(replace(listed, found=replace(listed.found, doubted=left)))


def _shown(listed: Listed) -> tuple[Any, str, Listed]:
    found = listed.found
    heading = f"{HEADING}: {len(found.doubted)}" if found.images else HEADING
    told = listing(found, listed.thumbnails, listed.there)
    return gr.Accordion(label=heading), told, listed


def listing(found: Rechecked, thumbnails: Mapping[str, str], there: Reach) -> str:
    """The images with the reasons, each with the way to its task, as accessible HTML."""
    rows = "".join(
        _row(look, thumbnails.get(look.image_sha256, ""), there.task_address(look.task_id))
        for look in found.doubted[:SHOWN]
    )
    items = f'<ul class="again" aria-label="Images to look at again">{rows}</ul>' if rows else ""
    return items + note(_summary(found)) + "".join(map(refused, found.unable))


def _summary(found: Rechecked) -> str:
    if not found.images:
        return "No answer is there that a live model is known not to have learned from."
    if not found.doubted:
        return f"{count(found.images, 'answer')} looked through, and none is denied."
    more = len(found.doubted) - SHOWN
    rest = f" {more} more are told by `python -m active_learning recheck`." if more > 0 else ""
    denied = "is" if len(found.doubted) == 1 else "are"
    return (
        f"{len(found.doubted)} of {count(found.images, 'answer')} {denied} denied, the strongest "
        f"denial first.{rest}"
    )


def _row(look: SecondLook, thumbnail: str, address: str) -> str:
    picture = (
        f'<img src="{escape(thumbnail)}" alt="" width="{THUMB_PX}" height="{THUMB_PX}">'
        if thumbnail
        else '<span class="blank" aria-hidden="true">?</span>'
    )
    reasons = "".join(f"<li>{escape(capital(reason))}</li>" for reason in look.reasons)
    link = (
        f'<a href="{escape(address)}" target="_blank" rel="noopener noreferrer">'
        f"Open task {look.task_id} in Label Studio ↗</a>"
        if address
        else f"Task {look.task_id}; Label Studio cannot be reached now"
    )
    who = f"answered by {escape(look.annotator)}"
    return (
        f'<li>{picture}<div><ul class="reasons">{reasons}</ul>'
        f'<span class="quiet">{link} · {who}</span></div>'
        f'<button type="button" class="plain" data-task="{look.task_id}" '
        f'aria-label="The answer of task {look.task_id} stands">The answer stands</button></li>'
    )
