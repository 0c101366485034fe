"""What is served: one line a model, and the card of the one that is chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

import gradio as gr

from core.errors import RollmarkError
from core.records import Evaluation, Metric, ReleaseConfig
from demo import markup
from demo.choosing import NOTHING_SERVED
from demo.handlers import PRIVATE
from demo.latest import Latest
from demo.service import Service
from demo.theme import script
from demo.words import SOURCES, count
from hub.registry import Release
from hub.shelf import CARD_FILE
from models import get_spec
from models._spec import ReportedMetric

_TASKS: Final = {"detect": "boxes", "segment": "a mask", "classify": "a class"}
_FRACTIONS: Final = ("mAP", "AP50", "mIoU", "MPA", "accuracy", "precision", "recall", "F1")
_HEADS: Final = ("Model", "Measured on its test split, and by its paper", "Trained on", "Revision")
# In the reader's words; those that a page shows are explained below its table.
_MEANING: Final = {
    "mAP50": "how completely defects are found and how seldom something else is, over all "
    "thresholds and classes; a box counts whose overlap with the true one is at least half of "
    "what both cover",
    "mAP50_95": "the same, but the more exactly a box fits, the more it counts",
    "mIoU": "how much of the marked and the true area is common to both, averaged over the classes "
    "and the sound surface",
    "MPA": "how much of each class's area is found, averaged like mIoU",
    "accuracy": "how many pictures get the right class",
    "precision": "how much of what is said to be a defect is one",
    "recall": "how much of the defects is found",
    "F1": "precision and recall in one: it is high only where both are",
    "macro_F1": "F1, in which rare classes count as much as frequent ones",
}
_READING: Final = "Reading the shelf …"
_APART: Final = (
    "Papers measure on random splits, where parts of one strip lie on both sides; here they never "
    "do, so the two columns cannot be compared."
)


def build(service: Service, tab: Any) -> None:
    """Lay out the tab and wire its events.

    Args:
        service: what serves the models.
        tab: this tab, whose selection reads the shelf again.
    """
    sentence = gr.HTML(
        markup.sentence(_READING), js_on_load=markup.ANNOUNCE, elem_id="models-sentence"
    )
    table = gr.HTML(
        "", js_on_load=script("models"), apply_default_css=False, elem_id="models-table"
    )
    choices = Latest()
    card = gr.Markdown("", elem_id="models-card", elem_classes="card", sanitize_html=True)

    def read() -> tuple[str, str, str]:
        releases = service.releases()
        shown = card_of(releases[0]) if releases else ""
        return _sentence(len(releases)), models_table(releases), shown

    def choose(event: gr.EventData, request: gr.Request) -> Any:
        is_wanted = choices.begin(request)
        try:
            chosen = card_of(service.choose(str(event.name)))
        except RollmarkError as exc:
            chosen = escape(str(exc))
        return chosen if is_wanted() else gr.skip()

    tab.select(read, outputs=[sentence, table, card], show_progress="hidden", **PRIVATE)
    table.click(choose, outputs=card, trigger_mode="multiple", show_progress="hidden", **PRIVATE)


def models_table(releases: tuple[Release, ...]) -> str:
    """One row a release: what it is, what was measured, what the paper says, where it is from."""
    if not releases:
        return ""
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in _HEADS)
    rows = "".join(_row(release, is_first=k == 0) for k, release in enumerate(releases))
    return (
        '<div class="scroll-x" tabindex="0" role="region" aria-label="Models">'
        f'<table class="models"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        f'<p class="quiet">{_APART}</p>{_glossary(releases)}'
    )


def card_of(release: Release) -> str:
    """The README.md of a release without its front matter; written now if the folder has none."""
    from hub.card import write_card

    file = release.folder / CARD_FILE
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
    return markup.sentence(text)


def _glossary(releases: Iterable[Release]) -> str:
    """What the names of the measured metrics mean, folded away."""
    tests = (release.config.tested for release in releases)
    named = {metric.name for test in tests if test for metric in test.metrics}
    terms = "".join(
        f"<dt>{_in_words(name)}</dt><dd>{meaning}</dd>"
        for name, meaning in _MEANING.items()
        if name in named
    )
    if not terms:
        return ""
    return f"<details><summary>What the figures mean</summary><dl>{terms}</dl></details>"


def _in_words(metric: str) -> str:
    return escape(metric.replace("macro_", "macro ").replace("_defects", ", defects only"))


def _row(release: Release, *, is_first: bool) -> str:
    config, run = release.config, release.config.run
    name = (
        f'<button type="button" class="plain" data-name="{escape(config.name)}" '
        f'aria-pressed="{str(is_first).lower()}">{escape(config.title)}</button>'
    )
    size = f"{config.parameters / 1e6:.2g} M parameters, {config.gflops:.2g} GFLOPs"
    what = f'{name}<br><span class="quiet">answers with {_TASKS[config.task]}<br>{size}</span>'
    trained = (
        f"{config.dataset}, {config.protocol} split<br>seed {run.seed}, "
        f"{count(run.epochs, 'epoch')}, {config.image_size} px"
    )
    origin = f"<code>{escape(config.revision)}</code><br>{SOURCES[release.source]}"
    cells = (what, _figures(config, config.tested), trained, origin)
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _figures(config: ReleaseConfig, test: Evaluation | None) -> str:
    """A line a metric: what was measured, its interval, what the paper reports."""
    reported = {metric.name: metric for metric in comparable(config, test)}
    measured = {metric.name: metric for metric in test.metrics} if test else {}
    measured |= _of_one_class(reported, measured)
    lines = "".join(
        f'<tr><th scope="row">{_in_words(name)}</th>'
        f"{_measured(measured.get(name))}<td>{_reported(reported.get(name))}</td></tr>"
        for name in dict.fromkeys([*measured, *reported])
    )
    n = count(test.metrics[0].n if test.metrics else 0, "test image") if test else "not measured"
    if test and test.protocol == "paper":
        n += " of the paper's split"
    where = {" ".join(filter(None, (r.dataset, r.split))) for r in reported.values()}
    paper = f"; paper: {', '.join(sorted(where))}" if where else ""
    return (
        f'<table class="figures"><caption>{escape(n + paper)}</caption><thead><tr>'
        '<th scope="col"><span class="unseen">Metric</span></th><th scope="col">here</th>'
        '<th scope="col">95 % interval</th><th scope="col">paper</th></tr></thead>'
        f"<tbody>{lines}</tbody></table>{_caveat(config) if reported else ''}"
    )


def _caveat(config: ReleaseConfig) -> str:
    """What makes the paper's own test images easy ones, where something does."""
    paper = get_spec(config.name).paper
    return f'<p class="quiet">{escape(paper.caveat)}</p>' if paper and paper.caveat else ""


def _of_one_class(names: Iterable[str], measured: Mapping[str, Metric]) -> dict[str, Metric]:
    """AP50 of those single classes that the paper names, such as "AP50 crazing"."""
    whole = measured.get("mAP50")
    if whole is None:
        return {}
    return {
        name: Metric(name=name, value=whole.per_class[label], n=whole.n)
        for name in names
        if (label := name.removeprefix("AP50 ")) != name and label in whole.per_class
    }


def _measured(metric: Metric | None) -> str:
    if metric is None:
        return "<td>–</td><td></td>"
    interval = (
        f"{100 * metric.low:.1f} – {100 * metric.high:.1f}"
        if metric.low is not None and metric.high is not None
        else ""
    )
    return f'<td>{100 * metric.value:.1f} %</td><td class="quiet">{interval}</td>'


def _reported(metric: ReportedMetric | None) -> str:
    if metric is None:
        return "–"
    if " gain " in metric.name:
        return f"{100 * metric.value:.2f} points"  # 4.05 must not become 4.0
    return f"{100 * metric.value:.1f} %"
