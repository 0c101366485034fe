"""What is served: one line a model, and the card of the one that is chosen."""

from __future__ import annotations

from html import escape
from typing import Any, Final

import gradio as gr

from core.errors import RollmarkError
from core.records import Evaluation, Metric, ReleaseConfig, Source
from demo.handlers import PRIVATE
from demo.service import NOTHING_SERVED, Service
from demo.theme import script
from demo.words import count
from hub.registry import Release
from models import get_spec
from models._spec import ReportedMetric

_SOURCES: Final[dict[Source, str]] = {
    "bundled": "bundled",
    "local": "promoted here",
    "hub": "from the Hub",
    "hub-cached": "from the Hub, which cannot be asked now",
}
_TASKS: Final = {"detect": "boxes", "segment": "mask", "classify": "class"}
_FRACTIONS: Final = ("mAP", "mIoU", "MPA", "accuracy", "precision", "recall", "F1")
_HEADS: Final = (
    *("Model", "Answers with", "Size", "Measured on the test split", "Reported by the paper"),
    *("Data and training", "Revision"),
)


def build(service: Service, tab: Any) -> None:
    """Lay out the tab and wire its events.

    Args:
        service: what serves the models.
        tab: this tab, whose selection reads the shelf again.
    """
    sentence = gr.HTML(_sentence(0), elem_id="models-sentence")
    table = gr.HTML(
        "", js_on_load=script("models"), apply_default_css=False, elem_id="models-table"
    )
    card = gr.Markdown("", elem_id="models-card", elem_classes="card", sanitize_html=True)

    def read() -> tuple[str, str, str]:
        releases = service.releases()
        shown = card_of(releases[0]) if releases else ""
        return _sentence(len(releases)), models_table(releases), shown

    def choose(event: gr.EventData) -> str:
        try:
            return card_of(service.choose(str(event.name)))
        except RollmarkError as exc:
            return escape(str(exc))

    tab.select(read, outputs=[sentence, table, card], show_progress="hidden", **PRIVATE)
    table.click(choose, outputs=card, show_progress="hidden", **PRIVATE)


def models_table(releases: tuple[Release, ...]) -> str:
    """One row a release: what it is, what was measured, what the paper says, where it is from."""
    if not releases:
        return ""
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in _HEADS)
    rows = "".join(_row(release, is_first=k == 0) for k, release in enumerate(releases))
    return (
        '<div class="scroll-x" tabindex="0" role="region" aria-label="Models">'
        f'<table class="models"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def card_of(release: Release) -> str:
    """The README.md of a release without its front matter; written now if the folder has none."""
    from hub.card import write_card

    file = release.folder / "README.md"
    config = release.config
    if file.is_file():
        text = file.read_text(encoding="utf-8")
    else:
        text = write_card(config, get_spec(config.name))
    if text.startswith("---\n"):
        text = text.partition("\n---\n")[2]
    return text.strip()


def comparable(config: ReleaseConfig, test: Evaluation | None) -> tuple[ReportedMetric, ...]:
    """What the paper reports on the release's own data set, once for each metric measured too.

    Where none of them was measured, every fraction that it reports on that data set.
    """
    reported = [r for r in get_spec(config.name).reported if r.dataset == config.dataset]
    measured = {metric.name for metric in test.metrics} if test else set()
    same = {r.name: r for r in reversed(reported) if r.name in measured}  # the first one stays
    return tuple(same.values()) or tuple(r for r in reported if r.name.startswith(_FRACTIONS))


def _sentence(n: int) -> str:
    text = f"{count(n, 'model')} served." if n else NOTHING_SERVED
    return f'<p class="sentence" role="status">{escape(text)}</p>'


def _row(release: Release, *, is_first: bool) -> str:
    config, run = release.config, release.config.run
    test = next((e for e in config.evaluations if e.split == "test"), None)
    measured = "<br>".join(_measured(m) for m in test.metrics) if test else "not measured yet"
    reported = "<br>".join(_reported(r) for r in comparable(config, test)) or "–"
    seen = f"{config.dataset}, {config.protocol} split"
    n = f"<br>{_tested(test)}" if test else ""
    name = (
        f'<button type="button" class="plain" data-name="{escape(config.name)}" '
        f'aria-pressed="{str(is_first).lower()}">{escape(config.title)}</button>'
    )
    size = f"{config.parameters / 1e6:.2g} M parameters<br>{config.gflops:.2g} GFLOPs"
    trained = f"{seen}{n}<br>seed {run.seed}, {run.epochs} epochs, {config.image_size} px"
    origin = f"<code>{escape(config.revision)}</code><br>{_SOURCES[release.source]}"
    cells = (_TASKS[config.task], size, measured, reported, trained, origin)
    return f"<tr><td>{name}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _measured(metric: Metric) -> str:
    interval = (
        f' <span class="quiet">({100 * metric.low:.1f} – {100 * metric.high:.1f})</span>'
        if metric.low is not None and metric.high is not None
        else ""
    )
    return f"{escape(metric.name)} {100 * metric.value:.1f} %{interval}"


def _reported(metric: ReportedMetric) -> str:
    where = " ".join(part for part in (metric.dataset, metric.split) if part)
    return (
        f"{escape(metric.name)} {100 * metric.value:.1f} % "
        f'<span class="quiet">{escape(where)}</span>'
    )


def _tested(evaluation: Evaluation) -> str:
    n = evaluation.metrics[0].n if evaluation.metrics else 0
    return f"{count(n, 'test image')}"
