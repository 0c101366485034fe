"""The page of the simulations: a table and a plot a pool, and what follows from them, in words."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from active_learning.simulate import Saving, Simulation
from active_learning.simulation import OURS, OURS_PLAIN, RANDOM
from core.files import write_atomically

PAGE: Final = "active-learning.md"
PLOT: Final = "active-learning.png"
RECORD: Final = "active-learning.json"
WANTED: Final = 0.30  # share of labels that the product's ranking is to save over random choice
_COLOURS: Final = {
    OURS: "#c2571a",
    OURS_PLAIN: "#e3a06f",
    "least confidence": "#1f4e79",
    "margin": "#4b7f52",
    "entropy": "#7a4b8c",
    "k-centre": "#b09a2e",
    RANDOM: "#6b6b6b",
}


def write_page(folder: Path, simulation: Simulation, *, command: str, where: str) -> Path:
    """Add a simulation to the record and draw the page and the plot anew.

    Args:
        folder: docs/benchmarks, say.
        simulation: takes the place of an earlier one of its data set and split.
        command: that ran it.
        where: machine and commit, in words.

    Returns:
        The page.
    """
    record = folder / RECORD
    entries = json.loads(record.read_text("utf-8")) if record.is_file() else {}
    key = f"{simulation.dataset} {simulation.split}"
    said = simulation.model_dump(mode="json")
    entries[key] = {"command": command, "where": where, "simulation": said}
    entries = dict(sorted(entries.items()))
    write_atomically(record, (json.dumps(entries, indent=1) + "\n").encode())
    told = {k: Simulation.model_validate(e["simulation"]) for k, e in entries.items()}
    write_atomically(folder / PLOT, _plot(told))
    parts = [_HEAD, *(_section(told[k], entries[k]) for k in told), _TAIL]
    write_atomically(folder / PAGE, ("\n\n".join(parts) + "\n").encode())
    return folder / PAGE


_HEAD: Final = f"""# Does it choose well?

A data set's training images are a pool with hidden labels. A round asks for some of them, by one
strategy, and the data set answers as the reviewer would; then a linear head (logistic regression)
learns from all labels so far, and is judged on images that nobody may ask for. Its features are
frozen and come from a network that was trained on *another* data set.

*ours* is the product's ranking (`active_learning/query.py`): margin, class quotas that favour the
classes short of labels, diversity by k-centre on the features, and the stated random share. *Ours
without vectors* is the same without diversity, which is what `push` does: the review queue keeps no
features. The others are what libraries offer: least confidence, margin, entropy,
k-centre alone, random.

![Macro-F1 against labels]({PLOT})

Lines are medians over the seeds, bands the 10th to the 90th percentile; the dotted line is the
learner with every label of the pool."""

_TAIL: Final = """## What this does not say

The learner is a linear head, not a network that is fine-tuned; the images are classified, while
detectors and segmenters have other doubts; the reviewer makes no mistakes; and the pool holds
nothing but defects. The seeds share one pool and one judging set, so the intervals tell how much
the draw of the first labels and chance matter, not how another mill would fare."""


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
            f"## {s.dataset}, judged on {s.split}",
            "",
            f"Pool of {s.pool} images ({counts}), judged on {s.judged}; features of {s.features}; "
            f"{s.seeds} seeds; {plan['first']:.0f} first labels, {plan['step']:.0f} a round, "
            f"random share {plan['random_share']:g}. With all labels macro-F1 is "
            f"{s.all_labels:.3f}.",
            "",
            f"| strategy | macro-F1 at {half} labels | at {s.labels[-1]} | labels for "
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
            f"For the macro-F1 that random choice reaches with {simulation.labels[-1]} labels, "
            f"{simulation.target:.3f}, the product's ranking needs {ours.labels:.0f}: "
            f"{100 * ours.saved:.0f} % fewer labels (95 % of resampled seeds: at least {low}). The "
            f"target of {100 * WANTED:.0f} % fewer is {verdict}."
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


def _plot(simulations: Mapping[str, Simulation]) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2 * len(simulations), 4.2), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(simulations), squeeze=False)[0]
    for ax, (title, s) in zip(axes, simulations.items(), strict=True):
        for name, curve in s.curves.items():
            colour = _COLOURS[name]
            width = 2.2 if name in (OURS, RANDOM) else 1.2
            ax.plot(s.labels, curve.median, color=colour, lw=width, label=name)
            if name in (OURS, RANDOM):  # six bands on one another could not be read
                ax.fill_between(s.labels, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        ax.axhline(s.all_labels, color="#6b6b6b", lw=1, ls=":")
        ax.set_title(f"{title}, {s.seeds} seeds", fontsize=10)
        ax.set_xlabel("labelled images")
        ax.set_ylabel("macro-F1")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#e5e5e5", lw=0.8)
        ax.tick_params(labelsize=8)
        ax.legend(frameon=False, fontsize=8, loc="lower right")
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return buffer.getvalue()
