"""The page of the simulations: tables, plots, and what follows from them, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from active_learning.simulate import Saving, Simulation
from active_learning.simulation import OURS, RANDOM
from active_learning.simulation_boxes import CALIBRATED_ON, COMMITTEE, LEAST_CONFIDENCE
from active_learning.simulation_classes import DIVERSE, K_CENTRE
from core.files import write_atomically
from training.plots import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE: Final = "active-learning.md"
PLOT: Final = "active-learning.png"
RECORD: Final = "active-learning.json"
WANTED: Final = 0.30  # share of labels that the product's ranking is to save over random choice
_COLOURS: Final = {
    OURS: "#c2571a",
    DIVERSE: "#e3a06f",
    LEAST_CONFIDENCE: "#1f4e79",
    COMMITTEE: "#2a8c82",
    "margin": "#4b7f52",
    "entropy": "#7a4b8c",
    K_CENTRE: "#b09a2e",
    RANDOM: "#6b6b6b",
}


def write_page(
    folder: Path, simulations: Sequence[Simulation], *, command: str, where: str
) -> Path:
    """Add simulations to the record and draw the page and the plot anew.

    Args:
        folder: docs/benchmarks, say.
        simulations: each takes the place of an earlier one of its data set, split and metric.
        command: that ran them.
        where: machine and commit, in words.

    Returns:
        The page.
    """
    record = folder / RECORD
    entries = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    for simulation in simulations:
        said = simulation.model_dump(mode="json")
        entries[_title(simulation)] = {"command": command, "where": where, "simulation": said}
    entries = dict(sorted(entries.items()))
    write_atomically(record, (json.dumps(entries, indent=1) + "\n").encode())
    told = {k: Simulation.model_validate(e["simulation"]) for k, e in entries.items()}
    save_figure(_plot(told), folder / PLOT)
    parts = [_HEAD, *(_section(told[k], entries[k]) for k in told), _TAIL]
    write_atomically(folder / PAGE, ("\n\n".join(parts) + "\n").encode())
    return folder / PAGE


def _title(simulation: Simulation) -> str:
    return f"{simulation.dataset}, {simulation.metric} on {simulation.split}"


_HEAD: Final = f"""# Does it choose well?

A data set's training images are a pool with hidden labels. A round asks for some of them, by one
strategy, and the data set answers as the reviewer would; then a learner trains on all labels so
far, and is judged on images that nobody may ask for. What the learner builds on was trained on
*other* data, so that it does not know the hidden labels.

- **Classes**: a linear head (logistic regression) on the frozen features of a classifier.
- **Boxes**: the head of a YOLO11n on the frozen maps of its COCO backbone and neck, at 128 px,
  trained anew each round for 120 steps of 16 images. Its scores are calibrated on the validation
  split, as those of a release are.

*ours* is the product's ranking (`active_learning/query.py`): class quotas that favour the classes
short of labels, within a class the most uncertain first, and the stated random share. Uncertain is,
for a class, a small margin; for boxes, the largest of the four doubts of
`active_learning/uncertainty.py`. *Committee* is the disagreement of two heads with different
beginnings, as *Compare* measures it; the second trains half as long. *Ours, then k-centre* picks,
from four times as many images as are wanted, those most unlike each other. The others are what
libraries offer.

![A score against labels]({PLOT})

Lines are medians over the seeds, bands the 10th to the 90th percentile; the dotted line is the
learner with every label of the pool."""

_TAIL: Final = """## What follows

Where a classifier or a segmenter has looked, `push` sends by its ranking. Where only detectors
have, nothing chose better than chance on the validation split, which is the one that chooses:
`push` then sends what people have flagged first and draws the rest at random
(`active_learning/choosing.py`).

## What this does not say

The learners are heads on frozen features, not networks that are fine-tuned. Those for boxes are
small, see 128 px and learn for a fixed number of steps, which may be too few for the harder images
that doubt selects. Segmenters are not simulated; the reviewer makes no mistakes; and the pool holds
nothing but defects, evenly many images of each class in NEU-DET. The seeds share one pool and one
judging set, so the intervals tell how much the draw of the first labels and chance matter, not how
another mill would fare."""


def _section(simulation: Simulation, entry: Mapping[str, str]) -> str:
    s = simulation
    counts = ", ".join(f"{label} {n}" for label, n in s.pool_counts.items())
    plan = s.plan
    rows = [
        f"| {name} | {s.curves[name].median[len(s.labels) // 2]:.3f} "
        f"| {s.curves[name].median[-1]:.3f} | {_labels(saving)} | {_saved(name, saving)} |"
        for name, saving in s.savings.items()
    ]
    half = s.labels[len(s.labels) // 2]
    return "\n".join(
        [
            f"## {_title(s)}",
            "",
            f"Pool of {s.pool} images ({counts}), judged on {s.judged}; features of {s.features}; "
            f"{s.seeds} seeds; {plan['first']:.0f} first labels, {plan['step']:.0f} a round, "
            f"random share {plan['random_share']:g}. With all labels {s.metric} is "
            f"{s.all_labels:.3f}.",
            "",
            f"| strategy | {s.metric} at {half} labels | at {s.labels[-1]} | labels for "
            f"{s.target:.3f} | saved against random (95 %) |",
            "| --- | ---: | ---: | ---: | ---: |",
            *rows,
            "",
            conclusion(s),
            "",
            f"Written by `{entry['command']}`, {entry['where']}.",
        ]
    )


def conclusion(simulation: Simulation) -> str:
    """What a simulation says about the product's own ranking, whichever way it went."""
    savings = simulation.savings
    ours = savings[OURS]
    reached = {n: s for n, s in savings.items() if s.labels is not None and n != RANDOM}
    if ours.saved is None or ours.labels is None:
        first = (
            f"The product's ranking does not reach {simulation.target:.3f} within "
            f"{simulation.labels[-1]} labels, random choice does: it chooses worse than chance."
        )
    else:
        low = "none" if ours.low is None else f"{100 * ours.low:.0f} %"
        verdict = "reached" if ours.saved >= WANTED else "not reached"
        first = (
            f"For the {simulation.metric} that random choice reaches with "
            f"{simulation.labels[-1]} labels, {simulation.target:.3f}, the product's ranking needs "
            f"{ours.labels:.0f}: {100 * abs(ours.saved):.0f} % "
            f"{'fewer' if ours.saved >= 0 else 'more'} labels (95 % of resampled seeds: at least "
            f"{low} fewer). The target of {100 * WANTED:.0f} % fewer is {verdict}."
        )
    if not reached:
        return first
    best = min(reached, key=lambda name: reached[name].labels or 0.0)
    if best == OURS:
        return f"{first} No other strategy needs fewer."
    return f"{first} The fewest labels, {reached[best].labels:.0f}, are needed by {best}."


def _labels(saving: Saving) -> str:
    return "not reached" if saving.labels is None else f"{saving.labels:.0f}"


def _saved(name: str, saving: Saving) -> str:
    if name == RANDOM:
        return "–"
    if saving.saved is None:
        return "none"
    low = "none" if saving.low is None else f"{100 * saving.low:.0f}"
    high = "none" if saving.high is None else f"{100 * saving.high:.0f}"
    return f"{100 * saving.saved:.0f} % ({low} to {high})"


def _plot(simulations: Mapping[str, Simulation]) -> Figure:
    judged = {s.dataset for s in simulations.values() if s.split != CALIBRATED_ON}
    shown = {  # a split that only chose has its table, and no panel
        title: s
        for title, s in simulations.items()
        if s.split != CALIBRATED_ON or s.dataset not in judged
    }
    columns = min(2, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(6.2 * columns, 4.2 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for empty in axes[len(shown) :]:
        empty.axis("off")
    for ax, (title, s) in zip(axes, shown.items(), strict=False):
        for name, curve in s.curves.items():
            colour = _COLOURS[name]
            width = 2.2 if name in (OURS, RANDOM) else 1.2
            ax.plot(s.labels, curve.median, color=colour, lw=width, label=name)
            if name in (OURS, RANDOM):  # six bands on one another could not be read
                ax.fill_between(s.labels, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        ax.axhline(s.all_labels, color="#6b6b6b", lw=1, ls=":")
        ax.set_title(f"{title}, {s.seeds} seeds", fontsize=10)
        ax.set_xlabel("labelled images")
        ax.set_ylabel(s.metric)
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#e5e5e5", lw=0.8)
        ax.tick_params(labelsize=8)
        ax.legend(frameon=False, fontsize=8, loc="lower right")
    return figure
