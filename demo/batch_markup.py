"""The batch page as accessible HTML: bar of progress, gallery, counts per class, the chosen one."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final

from core.pitch import PixelPitch
from core.taxonomy import look, title
from demo import markup
from demo.batch_jobs import Progress
from demo.batch_view import Row, again, histogram, remarks, sentence
from demo.words import alternative_text, count, short

PAGE: Final = 24  # pictures shown at a time


def head(progress: Progress) -> str:
    """How the batch stands: the sentence, the bar, what is worth adding, and the batch's link."""
    job, total = progress.job, len(progress.job.names)
    bar = (
        f'<progress class="work" max="{total}" value="{progress.done}" '
        f'aria-label="{progress.done} of {total} pictures"></progress>'
        if job.state in ("waiting", "running", "stopped")
        else ""
    )
    # A batch of loose files is called by their number, which the sentence tells.
    own_title = "" if job.title == count(total, "picture") else job.title
    said = " · ".join(filter(None, [own_title, remarks(progress)]))
    link = f'<a href="?batch={escape(job.id)}">Link to this batch</a>'
    return (
        f'<p class="sentence">{escape(sentence(progress))}</p>{bar}'
        f'<p class="quiet">{escape(said)} {link}</p>'
    )


def pages(first: int, total: int) -> str:
    """Which of the pictures are shown: "Pictures 25 to 48 of 64", "Picture 49 of 49"."""
    start, end = first + 1, min(first + PAGE, total)
    which = f"Pictures {start} to {end}" if end > start else f"Picture {start}"
    return f'<p class="quiet">{which} of {total}</p>'


def gallery(shown: Sequence[Row], tiles: Sequence[Path], chosen: int | None) -> str:
    """The pictures as buttons; arrow keys go through them."""
    if not shown:
        return markup.nothing("The first answers appear here in a moment.")
    buttons = "".join(
        _shot(row, tile, is_chosen=row.index == chosen)
        for row, tile in zip(shown, tiles, strict=True)
    )
    return f'<div class="shots" role="group" aria-label="Pictures of the batch">{buttons}</div>'


def classes(progress: Progress, pitch: PixelPitch | None = None) -> str:
    """In how many pictures each class was found, as bars in the classes' colours.

    Below it what comes again, if the pictures of a batch that is done follow each other.
    """
    counts = histogram(list(progress.answers.values()))
    if not counts:
        return ""
    most = max(counts.values())
    lines = "".join(
        f'<tr><td><span class="class">{markup.swatch(label)}{escape(title(label))}</span></td>'
        '<td><span class="probability"><span class="bar" aria-hidden="true">'
        f'<span style="width:{100 * n / most:.0f}%;background:{look(label).colour}"></span></span>'
        f"{n}</span></td></tr>"
        for label, n in counts.items()
    )
    return (
        '<table class="findings counts"><caption class="unseen">Pictures per class</caption>'
        '<thead><tr><th scope="col">Class</th><th scope="col">Pictures</th></tr></thead>'
        f"<tbody>{lines}</tbody></table>"
        + "".join(f'<p class="again">{escape(text)}</p>' for text in again(progress, pitch))
    )


def chosen(row: Row, picture: str, pitch: PixelPitch | None = None) -> str:
    """One picture in large with its verdict and its findings.

    Args:
        row: of the picture.
        picture: address of the drawn picture; "" if it could not be read.
        pitch: steel that one pixel shows; None: sizes in px.
    """
    name = f'<p class="quiet">{escape(row.name)}</p>'
    inspection = row.answer.inspection
    if inspection is None:
        return name + markup.failed(row.answer.error or "")
    queued = "in the review queue" if row.answer.queued else ""
    return (
        f'{name}<img class="large" src="{escape(picture)}" '
        f'alt="{escape(alternative_text(inspection))}">'
        + markup.verdict(inspection, short(row.answer.title), queued)
        + markup.findings_table(inspection, can_pick=False, pitch=pitch)
    )


def _shot(row: Row, tile: Path, *, is_chosen: bool) -> str:
    pressed = str(is_chosen).lower()
    if row.answer.inspection is None or not tile.is_file():
        picture = '<span class="blank" aria-hidden="true">×</span>'
    else:
        data = base64.b64encode(tile.read_bytes()).decode()
        picture = f'<img src="data:image/webp;base64,{data}" alt="">'
    kind = row.answer.inspection.verdict if row.answer.inspection else "failed"
    return (
        f'<button type="button" class="shot is-{kind}" data-index="{row.index}" '
        f'aria-pressed="{pressed}" title="{escape(row.name)}">{picture}'
        f'<span class="what">{escape(row.text)}</span>'
        f'<span class="name">{escape(row.name)}</span></button>'
    )
