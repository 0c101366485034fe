"""Figures that become PNG files, and the curves of a run: one plain style."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.files import write_atomically
from training.runs import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1f4e79", "#c2571a", "#4b7f52", "#7a4b8c", "#8a8a8a", "#b09a2e")
# Whatever metrics.csv holds, only these belong on the right: fractions where more is better.
METRICS = ("mAP50", "mAP50_95", "precision", "recall", "mIoU", "MPA", "accuracy", "macro_F1")


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, sides in inches."""
    # The object interface: no global figure, so nothing ever touches a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    buffer = io.BytesIO()
    # Without the date and the release of matplotlib, the same numbers give the same bytes.
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    write_atomically(path, buffer.getvalue())


def draw_curves(run: RunFolder, *, title: str) -> None:
    """Write the run's curves.png from its metrics.csv; nothing is written before the first epoch.

    Losses stand on the left, validation metrics on the right. Columns that start with `train_` or
    `val_` are losses: solid in training, dashed in validation.
    """
    rows = run.metrics()
    if not rows:
        return
    figure = new_figure(9, 3.4)
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(name for row in rows for name in row))
    losses = [name for name in names if name.startswith(("train_", "val_"))]
    kinds = list(dict.fromkeys(name.split("_", 1)[1] for name in losses))
    for name in losses:
        colour = COLOURS[kinds.index(name.split("_", 1)[1]) % len(COLOURS)]
        _line(left, rows, name, colour=colour, dashed=name.startswith("val_"))
    for colour, name in zip(COLOURS, (m for m in METRICS if m in names), strict=False):
        _line(right, rows, name, colour=colour, dashed=False)
    left.set_ylabel("loss")
    right.set_ylabel("validation metric")
    right.set_ylim(0, 1)
    for axes in (left, right):
        _dress(axes)
    figure.suptitle(title, fontsize=10)
    save_figure(figure, run.curves)


def _line(
    axes: Axes, rows: Sequence[Mapping[str, float]], name: str, *, colour: str, dashed: bool
) -> None:
    points = [(row["epoch"], row[name]) for row in rows if name in row]
    if points:
        epochs, values = zip(*points, strict=True)
        marker = "o" if len(points) == 1 else ""
        style = "--" if dashed else "-"
        label = name.replace("_", " ")
        axes.plot(epochs, values, style, marker=marker, color=colour, lw=1.4, label=label)


def _dress(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", lw=0.8)
    axes.tick_params(labelsize=8)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=7)
