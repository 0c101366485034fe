"""The page of `active_learning novelty`: a table and a plot, and what they do not say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from active_learning.novelty import ALARM
from active_learning.novelty_benchmark import NoveltyResult
from core.files import write_atomically
from training.plots import COLOURS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE: Final = "novelty.md"
PLOT: Final = "novelty.png"
RECORD: Final = "novelty.json"

_HEAD: Final = f"""# Unlike anything seen

Each image is placed by how far its features lie from those of the training images, in the release's
own measure (`active_learning/novelty.py`). *AUROC* is the chance that a strange image lies further
away than one of the release's leak-free test images: 0.5 is blind, 1 never mistaken; in brackets
95 % bootstrap intervals over groups of related images. *Flagged* is the share that the app sends to
a person as "unlike anything seen in training", beyond {100 * (1 - ALARM):.0f} % of the validation
images; the last column is what an alarm at 95 % would send. Among the test images both are false
alarms. A small validation split makes the alarm deaf: of 162 images none but the very furthest lies
beyond 99 %, so that one odd image decides.

![Distances]({PLOT})"""

_TAIL: Final = """## How to read it

- **X-SDD is another mill's hot-rolled steel**, seen by another camera. Both sets hold scratches,
  inclusions and scale, and in grey they can look the same: an image of X-SDD that
  is not flagged is no mistake as such. The figure says how well the release tells one plant's
  pictures from another's, which is what a move to a new line looks like; it is no measure of its
  defects.
- **Below 0.5** the strange images look more ordinary to a release than its own test images: it is
  blind to what makes them strange, and no alarm can help.
- **Drawn surfaces** are plain, shaded, grained, brushed, grated and chequered pictures. None is a
  photograph of sound steel, of which there is none in the public sets used here.
- **Photographs** are crops from few sample pictures; crops of one picture count as one group, which
  makes their intervals wide.
- The measure was chosen on validation images with two of the six kinds held out of training, twice,
  by small networks trained for that purpose; none of the sets above had a part in it. That a
  segmenter's encoder is blind was seen on the sets above; the layer that it is read at since was
  chosen on others: kinds of NEU-DET that it never saw, and distorted validation images."""


def write_page(folder: Path, results: Sequence[NoveltyResult], *, command: str, where: str) -> Path:
    """Write page, plot and record.

    Args:
        folder: docs/benchmarks, say.
        results: one a release.
        command: that measured them.
        where: machine and commit, in words.

    Returns:
        The page.
    """
    record = {
        "command": command,
        "where": where,
        "results": [result.model_dump(mode="json") for result in results],
    }
    write_atomically(folder / RECORD, (json.dumps(record) + "\n").encode())
    save_figure(_plot(results), folder / PLOT)
    rows = [row for result in results for row in _rows(result)]
    table = "\n".join(
        [
            "| release | images | n | AUROC (95 %) | flagged | beyond 95 % |",
            "| --- | --- | ---: | ---: | ---: | ---: |",
            *rows,
        ]
    )
    facts = "\n".join(
        f"- {r.model} {r.revision}, trained on {r.dataset}; its quantiles come from "
        f"{r.validation} validation images."
        for r in results
    )
    written = f"Written by `{command}`, {where}."
    write_atomically(
        folder / PAGE, ("\n\n".join([_HEAD, table, facts, written, _TAIL]) + "\n").encode()
    )
    return folder / PAGE


def _rows(result: NoveltyResult) -> list[str]:
    own = (
        f"| {result.model} | its test images | {result.n} | – | {100 * result.flagged:.1f} % | "
        f"{100 * result.beyond_95:.1f} % |"
    )
    return [
        own,
        *(
            f"| {result.model} | {s.name} | {s.n} | {s.auroc:.3f} ({s.low:.3f} to {s.high:.3f}) | "
            f"{100 * s.flagged:.1f} % | {100 * s.beyond_95:.1f} % |"
            for s in result.sets
        ),
    ]


def _plot(results: Sequence[NoveltyResult]) -> Figure:
    """The share of each set that lies nearer than a distance, a panel a release."""
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

    figure = new_figure(5.6 * len(results), 3.8)
    axes = figure.subplots(1, len(results), squeeze=False)[0]
    for ax, result in zip(axes, results, strict=True):
        sets = [
            ("its test images", result.distances),
            *((s.name, s.distances) for s in result.sets),
        ]
        for (name, distances), colour in zip(sets, COLOURS, strict=False):
            rising = np.sort(distances)
            share = np.arange(1, len(rising) + 1) / len(rising)
            ax.step(rising, share, where="post", color=colour, lw=1.6, label=name)
        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.xaxis.set_major_formatter(FormatStrFormatter("%g"))
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set_title(f"{result.model} {result.revision}", fontsize=10)
        ax.set_xlabel("distance from the training images, in their spread")
        ax.set_ylabel("share of images that lie nearer")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(color="#e5e5e5", lw=0.8)
        ax.tick_params(labelsize=8)
    names = axes[0].get_legend_handles_labels()
    figure.legend(*names, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure
