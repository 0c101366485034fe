"""The review queue as accessible HTML: sentence, places, list, the chosen image, bars.

Every text from outside is escaped. A time is a `<time data-age>`, whose words the page keeps
fresh, so that nothing is sent again for a clock that goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Final

from active_learning.connection import Reach
from active_learning.courier import Carried
from active_learning.overview import NO_FINDING, Entry, Learned, Overview, Place
from core.ledger import Event
from core.records import Inspection
from core.taxonomy import look, title
from demo import markup
from demo.markup import swatch, with_code
from demo.reviewing import THUMB_PX, Chosen, Listed
from demo.words import age, capital, count, headline

PAGE: Final = 24  # images listed at first, and added by “Show more”
EMPTY: Final = (
    "No image is in the queue. What the models doubt, and what you flag under “Not right?”, "
    "comes here."
)
READING: Final = "Reading the queue …"
_PLACES: Final[Mapping[Place, str]] = {
    "parked": "Set aside",
    "waiting": "Waiting to be sent",
    "there": "In Label Studio",
    "reviewed": "Reviewed",
}
_STATES: Final = {
    "pending": "waits to be sent",
    "sending": "is being sent",
    "unknown": "Label Studio is being asked for it",
    "sent": "in Label Studio, being checked",
    "verified": "in Label Studio",
    "parked": "set aside",
}
_NOTHING: Final[Mapping[Place | None, str]] = {
    None: EMPTY,
    "parked": "No image is set aside.",
    "waiting": "No image waits to be sent.",
    "there": "No image waits for an answer in Label Studio.",
    "reviewed": "No image has been reviewed yet.",
}
_MOST_BARS: Final = 8


def sentence(overview: Overview, now: datetime) -> str:
    """How the queue stands, in one line."""
    places = overview.places
    open_images = places["waiting"] + places["there"]
    parts = []
    if open_images:
        verb = "waits" if open_images == 1 else "wait"
        there = places["there"]
        share = "all" if there == open_images else str(there)
        where = f", {share} of them in Label Studio" if there else ""
        oldest = ""
        if overview.waiting_since is not None:
            oldest = f"; the oldest for {moment(overview.waiting_since, now, after='')}"
        parts.append(f"{count(open_images, 'image')} {verb} for a person{where}{oldest}.")
    elif places["reviewed"]:
        parts.append("No image waits for a person.")
    if places["parked"]:
        verb = "is" if places["parked"] == 1 else "are"
        parts.append(f"{count(places['parked'], 'image')} {verb} set aside.")
    return _sentence(" ".join(parts) or "The review queue is empty.")


def working(text: str = READING) -> str:
    """The sentence while the queue is read."""
    return _sentence(escape(text))


def failed(text: str) -> str:
    """The sentence when the queue cannot be read: what, why, what to do."""
    more = "Nothing that is in it is lost; this page tries again by itself."
    return markup.failed(f"{text} {more}", "The review queue cannot be read")


def places(overview: Overview, chosen: Place | None) -> str:
    """How many images are where; each number is a button that lists them."""
    everything = sum(overview.places.values())
    buttons = [_place_button("", "All", everything, everything, is_chosen=chosen is None)]
    buttons += [
        _place_button(at, _PLACES[at], overview.places[at], everything, is_chosen=chosen == at)
        for at in ("waiting", "there", "reviewed", "parked")
    ]
    return f'<div class="places" role="group" aria-label="Show images">{"".join(buttons)}</div>'


def queue(
    listed: Sequence[Listed], place: Place | None, total: int, *, selected: str, now: datetime
) -> str:
    """The images as a list of buttons, the most urgent first."""
    if not listed:
        go = (
            '<button type="button" class="plain" data-tab="Inspect">Inspect a picture</button>'
            if place is None
            else ""
        )
        return f'<div class="nothing"><p>{escape(_NOTHING[place])}</p>{go}</div>'
    rows = "".join(_row(one, is_selected=one.entry.item.id == selected, now=now) for one in listed)
    more = total - len(listed)
    button = (
        f'<li><button type="button" class="plain" data-more="1">Show {min(more, PAGE)} '
        f"more of {count(more, 'image')}</button></li>"
        if more > 0
        else ""
    )
    return f'<ul class="queue" aria-label="Images, the most urgent first">{rows}{button}</ul>'


def chosen(shown: Chosen | None, now: datetime) -> str:
    """The image that a person looks at: picture, why it is here, where it is, what happened."""
    if shown is None:
        return (
            '<div class="nothing"><p>The chosen image is shown here, and why it is here.</p></div>'
        )
    item = shown.entry.item
    picture = (
        f'<img src="{escape(shown.picture)}" alt="{escape(_alternative(shown))}">'
        if shown.picture
        else f'<p class="blank">{escape(shown.why_no_picture)}</p>'
    )
    reasons = "".join(f"<li>{escape(capital(reason))}</li>" for reason in item.reasons)
    note = f'<blockquote class="note">{escape(item.note)}</blockquote>' if item.note else ""
    link = (
        f'<p><a class="opens" href="{escape(shown.task_address)}" target="_blank" '
        'rel="noopener noreferrer">Open in Label Studio ↗</a></p>'
        if shown.task_address
        else ""
    )
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{v}</dd>" for k, v in _facts(shown, now))
    history = "".join(f"<li>{_event(event, now)}</li>" for event in reversed(shown.history))
    return (
        f'<article class="chosen" data-id="{escape(item.id)}"><figure>{picture}</figure><div>'
        f'<h2>Why a person should look</h2><ul class="reasons">{reasons}</ul>{note}{link}'
        f'<dl class="facts">{facts}</dl></div>'
        f'<details class="fold"><summary>What happened to it</summary><ol class="history">{history}'
        "</ol></details></article>"
    )


def bars(heading: str, counts: Mapping[str, int], nothing: str) -> str:
    """Numbers of images or labels a class, in the class's colour and with its dashes."""
    shown = list(counts.items())[:_MOST_BARS]
    if not shown:
        note = f'<p class="quiet">{escape(nothing)}</p>'
        return f'<section class="bars"><h2>{heading}</h2>{note}</section>'
    most = max(number for _, number in shown)
    rows = "".join(
        f"<dt>{_class(label)}</dt>"
        f'<dd><span class="bar" aria-hidden="true"><span style="width:{100 * n / most:.0f}%;'
        f'background:{_colour(label)}"></span></span>{n}</dd>'
        for label, n in shown
    )
    more = len(counts) - len(shown)
    rest = "class" if more == 1 else "classes"
    note = f'<p class="quiet">And {more} more {rest}.</p>' if more else ""
    return f'<section class="bars"><h2>{heading}</h2><dl>{rows}</dl>{note}</section>'


def charts(overview: Overview, now: datetime) -> str:
    """What is on the open images, and what people have taught since the newest release."""
    return (
        '<div class="charts">'
        + bars(
            "On the images that wait, by the surest finding",
            overview.classes,
            "No image waits for a person.",
        )
        + bars(
            _learned_heading(overview.learned, now),
            overview.learned.labels,
            "Nothing yet: answers from Label Studio are counted here, by class.",
        )
        + "</div>"
    )


def connection(found: Reach, carried: Carried, now: datetime) -> str:
    """Whether Label Studio is there, and how the last errands to it ended."""
    lines = []
    if found.sentence:
        kind = "is-fine" if found.is_ready else "is-wrong"
        mark = "✓" if found.is_ready else "×"
        lines.append(
            f'<span class="{kind}"><span aria-hidden="true">{mark}</span> '
            f"{with_code(found.sentence)}</span>"
        )
    if carried.sending is not None:
        made, wanted = carried.sending
        lines.append(f"<strong>Sending: {made} of {count(wanted, 'image')} …</strong>")
    elif carried.sent:
        kind = "is-fine" if carried.is_sent_whole else "is-wrong"
        lines.append(f'<span class="{kind}">{with_code(carried.sent)}</span>')
    if carried.fetch_error and carried.fetch_error != found.sentence:
        lines.append(f'<span class="is-wrong">{with_code(carried.fetch_error)}</span>')
    elif carried.fetched_at is not None:
        lines.append(f"Answers fetched {moment(carried.fetched_at, now)}.")
    return f'<p class="connection" role="status">{"<br>".join(lines)}</p>'


def moment(at: datetime, now: datetime, *, after: str = " ago") -> str:
    """A time as its age, with the exact UTC on hover."""
    exact = at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    words = age(max(0.0, (now - at).total_seconds())) + after
    return (
        f'<time datetime="{at.astimezone(UTC).isoformat()}" title="{exact}" data-age="{after}">'
        f"{words}</time>"
    )


def _sentence(html: str) -> str:
    return f'<p class="sentence" role="status">{html}</p>'


def _place_button(value: str, name: str, n: int, of: int, *, is_chosen: bool) -> str:
    width = 100 * n / of if of else 0
    return (
        f'<button type="button" data-place="{value}" class="place is-{value or "all"}" '
        f'aria-pressed="{str(is_chosen).lower()}"><strong>{n}</strong> {escape(name)}'
        f'<span class="share" aria-hidden="true"><span style="width:{width:.0f}%"></span></span>'
        "</button>"
    )


def _row(one: Listed, *, is_selected: bool, now: datetime) -> str:
    item = one.entry.item
    picture = (
        f'<img src="{escape(one.thumbnail)}" alt="" width="{THUMB_PX}" height="{THUMB_PX}">'
        if one.thumbnail
        else '<span class="blank" aria-hidden="true">?</span>'
    )
    why = item.parked_reason if one.entry.place == "parked" else None
    text = capital(why or (item.note and f"“{item.note}”") or "; ".join(item.reasons))
    return (
        f'<li><button type="button" class="entry is-{one.entry.place}" data-id="{escape(item.id)}" '
        f'aria-pressed="{str(is_selected).lower()}">{picture}<span class="text">'
        f'<span class="why">{escape(text)}</span>'
        f'<span class="quiet"><span class="state">{escape(_state(one.entry))}</span> · '
        f"added {moment(item.created_at, now)} · "
        f'<span title="Priority {item.priority:.2f} of 1">{_urgency(item.priority)}</span>'
        "</span></span></button></li>"
    )


def _facts(shown: Chosen, now: datetime) -> list[tuple[str, str]]:
    """Name and HTML of what is known of an item."""
    item = shown.entry.item
    facts = [("State", escape(capital(_state(shown.entry))))]
    if item.parked_reason:
        facts.append(("Set aside because", escape(item.parked_reason)))
    if item.last_error and item.state in ("pending", "unknown"):
        tries = count(item.attempts, "attempt")
        facts.append(("Last attempt", f"{escape(item.last_error)} ({tries})"))
    facts.append(("Priority", f"{item.priority:.2f} of 1, {_urgency(item.priority)}"))
    facts.append(("Added", moment(item.created_at, now)))
    facts += [(_called(shown, said), escape(_leaning(said))) for said in item.predictions]
    if item.task_id is not None:
        facts.append(("Task", str(item.task_id)))
    facts.append(("Item", f"<code>{escape(item.id[:12])}</code>"))
    return facts


def _state(entry: Entry) -> str:
    return "reviewed" if entry.place == "reviewed" else _STATES[entry.item.state]


def _urgency(priority: float) -> str:
    return "urgent" if priority >= 0.8 else "soon" if priority >= 0.5 else "when there is time"


def _event(event: Event, now: datetime) -> str:
    return f"{escape(capital(event.what))}, {moment(event.at, now)}"


def _alternative(shown: Chosen) -> str:
    said = "; ".join(f"{_called(shown, p)}: {_leaning(p)}" for p in shown.entry.item.predictions)
    return f"The image to review. {said or 'No model has looked at it'}."


def _called(shown: Chosen, said: Inspection) -> str:
    return shown.titles.get(said.model, said.model)


def _leaning(said: Inspection) -> str:
    """What a model sees, and of one that is unsure what it leans to: that is why it is here."""
    line = headline(said)
    return line.detail.removesuffix(".") if said.verdict == "review" else line.text


def _learned_heading(learned: Learned, now: datetime) -> str:
    since = (
        f"the newest release, {moment(learned.since, now)}" if learned.since else "the beginning"
    )
    return f"Learned from {count(learned.images, 'reviewed image')} since {since}"


def _class(label: str) -> str:
    if label == NO_FINDING:
        return '<span class="class">No finding</span>'
    return f'<span class="class">{swatch(label)}{escape(title(label))}</span>'


def _colour(label: str) -> str:
    return look(label).colour if label else "var(--neutral-500)"
