"""A batch as one page to print or to hand over: what was found where, by which model, in what."""

from __future__ import annotations

import base64
import hashlib
from html import escape
from typing import Final

from core.pitch import PixelPitch
from core.records import Inspection
from core.taxonomy import title
from demo.batch_jobs import Progress
from demo.batch_store import BatchStore
from demo.batch_view import Row, again, histogram, remarks, rows, sentence
from demo.markup import swatch
from demo.words import area, findings, number, place, size

_PICTURES: Final = 200  # with a picture; the table names all of them
_FINDINGS: Final = 12  # told of one picture


def batch_report(
    progress: Progress,
    store: BatchStore,
    pitch: PixelPitch | None = None,
    *,
    table: bytes = b"",
) -> str:
    """One self-contained page: the sentence, the counts, the pictures, and how it was found.

    Pictures stand with the most severe first, each with its findings, why a person should look, and
    the SHA-256 of its bytes, so that nobody need ask which picture was meant.

    Args:
        progress: the batch.
        store: of its small pictures.
        pitch: steel that one pixel shows, for sizes in mm; None: sizes in px.
        table: the batch's findings.csv, which the page of a batch that is done names by SHA-256.
    """
    job = progress.job
    counts = "".join(
        f"<tr><td>{swatch(label)}{escape(title(label))}</td><td>{n}</td></tr>"
        for label, n in histogram(list(progress.answers.values())).items()
    )
    ordered = rows(progress, "severity")
    has_picture = {row.index for row in ordered[:_PICTURES]}
    shown = "".join(
        _row(row, _picture(store, job.id, row) if row.index in has_picture else "", pitch)
        for row in ordered
    )
    told = "".join(f"<p>{escape(text)}</p>" for text in again(progress, pitch))
    said = f"{escape(sentence(progress))} {escape(remarks(progress))}"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(job.title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(job.title)}</h1><p>{said}</p>"
        f"<table><thead><tr><th>Class</th><th>Pictures</th></tr></thead><tbody>{counts}</tbody>"
        f"</table>{told}<table class=pictures><thead><tr><th></th><th>Picture</th><th>Found</th>"
        f"</tr></thead><tbody>{shown}</tbody></table>"
        f"<h2>How this was found</h2><dl>{_facts(progress, pitch, table)}</dl></body></html>"
    )


def _row(row: Row, picture: str, pitch: PixelPitch | None) -> str:
    """One picture: what it looks like, which it is, and what is to be said of it."""
    inspection = row.answer.inspection
    found = f"<p>{escape(row.text)}</p>"
    which = f"<p>{escape(row.name)}</p>"
    if inspection is not None:
        which += (
            f"<p class=quiet>{inspection.image.width} × {inspection.image.height} px, SHA-256 "
            f"<code>{escape(inspection.image.sha256)}</code></p>"
        )
        found += _places(inspection, pitch) + _doubts(inspection)
    return f"<tr><td>{picture}</td><td>{which}</td><td>{found}</td></tr>"


def _places(inspection: Inspection, pitch: PixelPitch | None) -> str:
    """The findings with size and place; of a classifier, which knows no places, nothing."""
    found = [one for one in findings(inspection) if one.box is not None]
    lines = []
    for one in found[:_FINDINGS]:
        assert one.box is not None
        facts = [
            f"{title(one.label)} {number(one.probability)}",
            size(one.box, pitch),
            *([area(one.area_px, pitch)] if one.area_px is not None else []),
            place(one.box, inspection.image.width, inspection.image.height),
            *(["within tolerance"] if one.tolerated else []),
        ]
        lines.append(f"<li>{escape(', '.join(facts))}</li>")
    more = len(found) - len(lines)
    rest = f"<p class=quiet>And {more} more, in findings.csv.</p>" if more else ""
    return f"<ol>{''.join(lines)}</ol>{rest}" if lines else ""


def _doubts(inspection: Inspection) -> str:
    """Why a person should look, where one should."""
    if inspection.verdict != "review":
        return ""
    doubts = "".join(f"<li>{escape(reason)}</li>" for reason in inspection.reasons)
    return f"<p class=quiet>A person should look:</p><ul>{doubts}</ul>" if doubts else ""


def _picture(store: BatchStore, job: str, row: Row) -> str:
    tile = store.tile(job, row.index)
    if not tile.is_file():
        return ""
    data = base64.b64encode(tile.read_bytes()).decode()
    return f'<img alt="" src="data:image/webp;base64,{data}">'


def _facts(progress: Progress, pitch: PixelPitch | None, table: bytes) -> str:
    """Model, revision, times and sizes: enough to find the same again."""
    job = progress.job
    used = sorted({a.inspection.revision for a in progress.answers.values() if a.inspection})
    facts = [("Model", job.model), ("Revision", ", ".join(used) or "not asked yet")]
    if job.score_threshold is not None:
        facts.append(("Shown from a score of", f"{job.score_threshold:g}"))
    if pitch is not None:
        shows = f"{pitch.across_mm:g} mm across, {pitch.down_mm:g} mm down"
        facts.append(("One pixel shows", shows))
    facts.append(("Begun", f"{job.created_at:%Y-%m-%d %H:%M} UTC"))
    if job.finished_at is not None:
        facts.append(("Finished", f"{job.finished_at:%Y-%m-%d %H:%M} UTC"))
    terms = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts)
    if job.state == "done" and table:
        digest = hashlib.sha256(table).hexdigest()
        terms += f"<dt>findings.csv</dt><dd>SHA-256 <code>{digest}</code></dd>"
    return terms


_STYLE: Final = (
    "body{font:15px/1.4 system-ui,sans-serif;margin:2rem auto;max-width:60rem}"
    "table{border-collapse:collapse;margin:1rem 0;width:100%}"
    "td,th{border-bottom:1px solid #ccc;padding:.3rem .6rem;text-align:left;vertical-align:top}"
    "td,dd{overflow-wrap:anywhere}p{margin:.1rem 0 .4rem}ol,ul{margin:.1rem 0;padding-left:1.3rem}"
    "h2{font-size:1.1rem;margin-top:2rem}dt{font-weight:600}dd{margin:0 0 .4rem}"
    ".pictures{table-layout:fixed}.pictures th{width:32%}.pictures th:first-child{width:9rem}"
    ".pictures th:last-child{width:auto}.quiet,code{color:#52606d;font-size:.85em}"
    "img{width:9rem;max-width:100%;display:block}"
    ".swatch{vertical-align:-2px;margin-right:.5rem}"
    ".swatch .halo{stroke:#1f2933;stroke-width:5}"
    "@media (max-width:36rem){body{margin:.7rem;font-size:13px}td,th{padding:.3rem}"
    ".pictures th:first-child{width:24%}.pictures th{width:28%}}"
    "@media print{tr{break-inside:avoid}body{margin:0;max-width:none}}"
)
