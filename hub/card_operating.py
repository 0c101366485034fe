"""The part of a card that says what a score threshold costs."""

from __future__ import annotations

from typing import Final

from core.operating import Rates, read_operating
from core.records import ReleaseConfig
from core.taxonomy import title

_SHOWN: Final = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_HEADS: Final = ("from a score of", "found (%)", "none (%)", "none an image")


def operating_section(config: ReleaseConfig) -> list[str]:
    """Lines of Markdown: the two rates by threshold, all classes together and one by one.

    Raises:
        WeightsError: if the release's counts are damaged.
    """
    curve = read_operating(config)
    if curve is None:
        return []
    own = config.score_threshold
    rows = []
    for threshold in sorted({*_SHOWN, own}):
        rates = curve.at(threshold)
        if rates is None or (not rates.found and threshold != own):
            continue
        score = f"**{threshold:g}**" if threshold == own else f"{threshold:g}"
        each = " | ".join(_found_and_none(curve.at(threshold, label)) for label in curve.defects)
        rows.append(
            f"| {score} | {_percent(rates.found)} | {_percent(rates.wrong)} "
            f"| {rates.wrong_per_image:.2f} | {each} |"
        )
    heads = " | ".join((*_HEADS, *(title(label) for label in curve.defects)))
    return [
        "## Score threshold",
        "",
        f"What it finds of {sum(curve.defects.values())} labelled defects of its {curve.n} "
        "validation images, and how many of its findings are none, by the score from which on "
        f"findings are shown; in bold its own, {own:g}, chosen there. A defect is found where "
        "findings of its class cover at least a tenth of it; a finding is none where less than a "
        "tenth of it is labelled with its class. By class: found / none.",
        "",
        f"| {heads} |",
        "| ---: " * (len(_HEADS) + len(curve.defects)) + "|",
        *rows,
        "",
    ]


def _found_and_none(rates: Rates | None) -> str:
    return "–" if rates is None else f"{_percent(rates.found)} / {_percent(rates.wrong)}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"
