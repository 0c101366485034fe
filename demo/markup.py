"""Results as accessible HTML: verdict, findings, details, legend.

Every text from outside is escaped. Classes of elements are styled in style.css; colours of defects
come from `core.taxonomy` alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Final

from core.pitch import PixelPitch
from core.records import Inspection
from core.taxonomy import look, title
from demo.roll_marks import coming_again
from demo.words import (
    Finding,
    alternative_text,
    area,
    duration,
    findings,
    headline,
    number,
    place,
    rows_of,
    size,
)

MAX_ROWS: Final = 40
# For an element whose content is replaced: one that is put in with its role is read out by few.
ANNOUNCE: Final = "element.setAttribute('aria-live', 'polite');"
_EMPTY: Final = "Drop a picture on the left, paste one, or take a sample below it."
_MARKS: Final = {"accept": "✓", "defect": "!", "review": "?"}
_LEVELS: Final = ((0.2, "low"), (0.5, "moderate"), (0.8, "high"))


def empty(text: str = _EMPTY) -> str:
    """The verdict panel before there is anything to judge."""
    return f'<div class="verdict is-empty"><p>{escape(text)}</p></div>'


def working(text: str, progress: str = "") -> str:
    """The verdict panel while a model looks.

    Args:
        text: what is done.
        progress: how far it has come; it changes twice a second and is not read out.
    """
    step = f'<p class="detail" aria-hidden="true">{escape(progress)}</p>' if progress else ""
    return f'<div class="verdict is-working"><p>{escape(text)}</p>{step}</div>'


def sentence(text: str) -> str:
    """The line on top of a page that says in words how things stand."""
    return f'<p class="sentence">{with_code(text)}</p>'


def note(text: str) -> str:
    """A quiet sentence about what just happened."""
    return f'<p class="quiet" role="status">{with_code(text)}</p>'


def nothing(text: str) -> str:
    """The place of what is not there yet: what will be, and how it comes."""
    return f'<div class="nothing"><p>{with_code(text)}</p></div>'


def failed(sentence: str, heading: str = "This did not work") -> str:
    """The verdict panel after an error: one sentence of what, why, and what to do."""
    return (
        '<div class="verdict is-failed" role="alert"><p class="headline">'
        f'<span class="mark" aria-hidden="true">×</span>{escape(heading)}</p>'
        f'<p class="detail">{with_code(sentence)}</p></div>'
    )


def with_code(text: str) -> str:
    """A text as HTML; what stands in `backticks` as code, a lone backtick as it is."""
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        return "`".join(parts)
    return "".join(f"<code>{p}</code>" if k % 2 else p for k, p in enumerate(parts))


def linked(what: str, address: str, days: float) -> str:
    """Where an answer or a comparison that was kept is found again, and who can."""
    return (
        f'<p class="quiet"><a href="{escape(address)}">Link to this {what}</a> and its '
        f"picture, for {days:g} day{'s' if days != 1 else ''}: whoever has it sees both.</p>"
    )


def refused(sentence: str) -> str:
    """Why something was not done, where what was done is told."""
    return f'<div class="connection" role="alert"><p class="quiet">{with_code(sentence)}</p></div>'


def verdict(inspection: Inspection, model_title: str, queued: str = "") -> str:
    """The answer in one line of large type, what is worth adding, and who says so.

    Args:
        inspection: the answer.
        model_title: of the model, for people.
        queued: what became of a doubt, in words.
    """
    line = headline(inspection)
    width, height = inspection.image.width, inspection.image.height
    rows = rows_of(width, height)
    kind = "rows" if width > height else "columns"
    folded = f"shown in {rows} {kind}, read them one after the other" if rows > 1 else ""
    took = duration(inspection.latency_ms)
    says = " · ".join(filter(None, [model_title, took, queued, folded]))
    detail = f'<p class="detail">{escape(line.detail)}</p>' if line.detail else ""
    return (
        f'<div class="verdict is-{inspection.verdict}"><p class="headline">'
        f'<span class="mark" aria-hidden="true">{_MARKS[inspection.verdict]}</span>'
        f"{escape(line.text)}</p>{detail}"
        f'<p class="says">{escape(says)}</p>'
        f'<p class="unseen">{escape(alternative_text(inspection))}</p></div>'
    )


def findings_table(
    inspection: Inspection, *, can_pick: bool, pitch: PixelPitch | None = None
) -> str:
    """The findings as rows, and above them what comes again along a strip.

    Args:
        inspection: the answer.
        can_pick: a row's number is a button, which the page takes to highlight the finding.
        pitch: steel that one pixel shows, for sizes in mm; None: sizes in px.
    """
    rows = findings(inspection)
    if not rows:
        return ""  # the verdict has said so
    head: tuple[str, ...]
    if inspection.task == "classify":
        head = ("Class", "Probability")
        cells = [_row(_class_cell(row.label), _bar_cell(row)) for row in rows]
    else:
        head = ("", "Class", "Probability", "Size", "Place")
        cells = [_place_row(row, inspection, pitch, can_pick=can_pick) for row in rows[:MAX_ROWS]]
    more = len(rows) - len(cells)
    note = f'<p class="quiet">And {more} more; the downloads list all.</p>' if more else ""
    heads = "".join(f'<th scope="col">{escape(text) or _unseen("Number")}</th>' for text in head)
    again = "".join(f'<p class="again">{escape(s)}</p>' for s in coming_again(inspection, pitch))
    return (
        f"{again}"
        '<div class="scroll" tabindex="0" role="region" aria-label="Findings">'
        f'<table class="findings"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(cells)}</tbody></table></div>{note}"
    )


def details(inspection: Inspection, model_title: str, expected: str = "") -> str:
    """Folded away: uncertainty with its reasons, latency, model and revision, JSON.

    Args:
        inspection: the answer.
        model_title: of the model that gave it.
        expected: what to expect of the model at the threshold; "" if that was not counted.
    """
    u = inspection.uncertainty
    level = next((word for limit, word in _LEVELS if u < limit), "very high")
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in inspection.reasons)
    facts = (
        ("Uncertainty", f"{u:.2f} of 1, {level}"),
        ("Time", duration(inspection.latency_ms)),
        ("Model", model_title),
        ("Revision", inspection.revision),
        ("Picture", f"{inspection.image.width} × {inspection.image.height} px"),
        ("SHA-256", inspection.image.sha256),
        *([("To expect", expected)] if expected else []),
    )
    terms = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    return (
        '<details class="fold"><summary>Details: how sure, how long, which model</summary>'
        f'<ul class="reasons">{reasons}</ul><dl class="facts">{terms}</dl></details>'
        '<details class="fold"><summary>JSON</summary>'
        f'<pre tabindex="0">{escape(_short_json(inspection))}</pre></details>'
    )


def legend(labels: Sequence[str]) -> str:
    """Colour and dashes of each class."""
    if not labels:
        return ""
    items = "".join(f"<li>{_class_cell(label)}</li>" for label in labels)
    return f'<ul class="legend" aria-label="Legend">{items}</ul>'


def swatch(label: str) -> str:
    """The class's frame in small: its colour and its dashes."""
    style = look(label)
    dashes = f' stroke-dasharray="{" ".join(map(str, style.dash))}"' if style.dash else ""
    return (
        '<svg class="swatch" width="30" height="14" viewBox="0 0 30 14" aria-hidden="true">'
        '<rect class="halo" x="2" y="2" width="26" height="10" fill="none"/>'
        f'<rect x="2" y="2" width="26" height="10" fill="{style.colour}" fill-opacity="0.45" '
        f'stroke="{style.colour}" stroke-width="3"{dashes}/></svg>'
    )


def samples(thumbnails: Sequence[tuple[str, str]]) -> str:
    """A row of sample pictures as buttons; each pair is a title and an image address."""
    buttons = "".join(
        f'<button type="button" class="sample" data-index="{k}" title="{escape(name)}">'
        f'<img src="{escape(source)}" alt="{escape(name)}" width="64" height="64"></button>'
        for k, (name, source) in enumerate(thumbnails)
    )
    return f'<div class="samples" role="group" aria-label="Sample pictures">{buttons}</div>'


def tile(inspection: Inspection, model_title: str, source: str) -> str:
    """One model's answer in the comparison."""
    line = headline(inspection)
    body = f'<p class="detail">{escape(line.detail)}</p>' if line.detail else ""
    if inspection.task == "classify":
        bars = "".join(
            _row(_class_cell(row.label), _bar_cell(row)) for row in findings(inspection)[:3]
        )
        body += f'<table class="findings"><tbody>{bars}</tbody></table>'
    return (
        f'<figure class="tile is-{inspection.verdict}">'
        f'<img src="{escape(source)}" alt="{escape(alternative_text(inspection))}">'
        f'<figcaption><p class="model">{escape(model_title)}</p>'
        f'<p class="headline">{escape(line.text)}</p>{body}'
        f'<p class="says">{escape(duration(inspection.latency_ms))}</p></figcaption></figure>'
    )


def waiting_tile(model_title: str, *, is_stopped: bool = False) -> str:
    """The place of an answer that is not there yet, or never will be; as large as an answer."""
    state, text = ("is-stopped", "Stopped") if is_stopped else ("is-waiting", "…")
    return (
        f'<figure class="tile {state}"><div class="blank"></div>'
        f'<figcaption><p class="model">{escape(model_title)}</p>'
        f'<p class="headline">{text}</p></figcaption></figure>'
    )


def grid(tiles: Sequence[str]) -> str:
    """All answers beside each other at one scale."""
    return f'<div class="grid">{"".join(tiles)}</div>'


def _place_row(
    row: Finding, inspection: Inspection, pitch: PixelPitch | None, *, can_pick: bool
) -> str:
    if row.box is None:
        return ""
    edges = ", ".join(f"{edge:.0f}" for edge in row.box)
    figures = [size(row.box, pitch)]
    if row.area_px is not None:
        figures.append(f"({area(row.area_px, pitch)})")
    if row.tolerated:
        figures.append("tolerated")
    lengths = " ".join(f"<span>{escape(figure)}</span>" for figure in figures)
    where = place(row.box, inspection.image.width, inspection.image.height)
    pressed = f' data-number="{row.number}"' if can_pick else ""
    return (
        f"<tr{pressed}><td>{_pick(row) if can_pick else row.number}</td>"
        f"<td>{_class_cell(row.label)}</td>{_bar_cell(row)}"
        f'<td class="figure">{lengths}</td>'
        f'<td title="x1, y1, x2, y2 in px: {edges}">{escape(where)}</td></tr>'
    )


def _pick(row: Finding) -> str:
    """The button that highlights a finding; the page marks the row (findings.js)."""
    name = f"Highlight {row.number}, {title(row.label)}"
    return (
        f'<button type="button" class="pick" data-number="{row.number}" aria-pressed="false" '
        f'aria-label="{escape(name)}">{row.number}</button>'
    )


def _row(label: str, bar_cell: str) -> str:
    return f"<tr><td>{label}</td>{bar_cell}</tr>"


def _class_cell(label: str) -> str:
    return f'<span class="class">{swatch(label)}{escape(title(label))}</span>'


def _bar_cell(row: Finding) -> str:
    width = f"{100 * row.probability:.0f}%"
    return (
        '<td><span class="probability"><span class="bar" aria-hidden="true">'
        f'<span style="width:{width};background:{look(row.label).colour}"></span></span>'
        f"{escape(number(row.probability))}</span></td>"
    )


def _short_json(inspection: Inspection) -> str:
    """The record as the API answers it, without the run lengths of its mask."""
    record = inspection.model_dump(mode="json")
    if record["mask"] is not None:
        record["mask"]["counts"] = [f"{len(text)} characters" for text in record["mask"]["counts"]]
    return json.dumps(record, indent=2)


def _unseen(text: str) -> str:
    return f'<span class="unseen">{escape(text)}</span>'
