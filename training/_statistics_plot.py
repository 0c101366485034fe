"""Statistics of a data set as a picture: how many of each class, how large, how many an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core import taxonomy
from training.plots import new_figure, save_figure
from training.statistics import SIZES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from training.statistics import ClassStatistics, DatasetStatistics

_SIZE_COLOURS = ("#c9d8e6", "#7fa3c4", "#1f4e79")
_SPLIT_COLOURS = {"train": "#1f4e79", "val": "#c2571a", "test": "#8a8a8a"}


def draw_statistics(statistics: DatasetStatistics, path: Path) -> None:
    """Write a PNG: images per class and split; training objects per class by size; their area.

    A set of image labels has the first panel only.
    """
    classes = statistics.classes
    n_panels = 1 if statistics.task == "classify" else 3
    figure = new_figure(8 if n_panels == 1 else 12, 1.6 + 0.42 * len(classes))
    panels = figure.subplots(1, n_panels, sharey=True, squeeze=False)[0]
    left = panels[0]
    rows = range(len(classes))
    _stack(left, {s: [c.images[s] for c in classes] for s in _SPLIT_COLOURS}, _SPLIT_COLOURS)
    left.set_xlabel("images that hold the class")
    if n_panels == 3:
        _draw_sizes(panels[1], panels[2], classes)
    left.set_yticks(rows, [taxonomy.title(c.label) for c in classes], fontsize=8)
    left.invert_yaxis()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#e5e5e5", lw=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(8)
    figure.suptitle(_title(statistics), fontsize=10)
    save_figure(figure, path)


def _draw_sizes(counts: Axes, areas: Axes, classes: Sequence[ClassStatistics]) -> None:
    """Training objects by COCO's sizes, and the quantiles of their share of the image."""
    sizes = {name: [c.sizes.get(name, 0) for c in classes] for name in SIZES}
    _stack(counts, sizes, dict(zip(SIZES, _SIZE_COLOURS, strict=True)))
    counts.set_xlabel("training objects: small < 32² px ≤ medium < 96² px ≤ large")
    for row, c in enumerate(classes):
        if c.share:
            low, median, high = (100 * share for share in c.share)
            areas.plot([low, high], [row, row], color="#1f4e79", lw=2)
            areas.plot([median], [row], "o", color="#1f4e79", ms=5)
    areas.set_xlabel("area of a training object, % of its image (10, 50, 90 %)")
    areas.set_xlim(left=0)


def _stack(axes: Axes, parts: dict[str, list[int]], colours: dict[str, str]) -> None:
    """Horizontal bars of several parts each, with a legend and the sum at the end."""
    before = [0] * len(next(iter(parts.values())))
    for name, counts in parts.items():
        axes.barh(
            range(len(counts)), counts, left=before, height=0.62, color=colours[name], label=name
        )
        before = [b + n for b, n in zip(before, counts, strict=True)]
    for row, total in enumerate(before):
        axes.annotate(
            str(total), (total, row), (3, 0), textcoords="offset points", va="center", fontsize=7
        )
    axes.margins(x=0.12)
    axes.legend(frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def _title(statistics: DatasetStatistics) -> str:
    s, uneven = statistics, statistics.by_images
    return (
        f"{s.dataset}, {s.protocol}: {s.images['train']} training images, classes uneven by "
        f"{uneven.told_ratio}, Gini {uneven.gini:.2f}, worth {uneven.effective_classes:.1f} of "
        f"{len(s.classes)} equal ones"
    )
