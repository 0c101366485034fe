"""The plots of the accuracy pages: values with intervals, confusion matrices, masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.taxonomy import look, words
from training.benchmark.sheet import Section, Sheet
from training.benchmark.summary import Line, is_shown, mean_and_spread
from training.plots import COLOURS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_values(sheet: Sheet, parts: Mapping[Section, tuple[Line, ...]], path: Path) -> bool:
    """One panel a section: the primary metric of each network; False if nothing was run."""
    shown = [
        (section, [line for line in found if line.records])
        for section, found in parts.items()
        if is_shown(found)
    ]
    if not shown:
        return False
    heights = [len(found) + 1.6 for _, found in shown]
    figure = new_figure(8.5, 0.3 * sum(heights) + 0.4)
    axes = figure.subplots(len(shown), 1, height_ratios=heights, squeeze=False)[:, 0]
    first: dict[str, Axes] = {}  # panels of one metric share their scale
    for panel, (section, found) in zip(axes, shown, strict=True):
        group, data, setting, protocol = section
        column = sheet.blocks[group].metrics[0]
        baseline = _baseline(found, parts, section)
        colour = COLOURS[0 if protocol == "leak-free" else 1]
        if first.setdefault(column.metric, panel) is not panel:
            panel.sharex(first[column.metric])
        _values(panel, found, column.metric, colour=colour, baseline=baseline)
        panel.set_title(
            f"{sheet.blocks[group].heading}: {column.title} (%), {data}, {protocol}, {setting}",
            fontsize=9,
            loc="left",
        )
    save_figure(figure, path)
    return True


def _baseline(
    found: Sequence[Line], parts: Mapping[Section, tuple[Line, ...]], section: Section
) -> Line | None:
    """What most of a panel is compared with, of any group of its setting."""
    names = {line.row.against for line in found} - {""}
    beside = [line for s, lines in parts.items() if s[1:] == section[1:] for line in lines]
    return next((ln for ln in beside if ln.row.network in names and ln.records), None)


def _values(
    axes: Axes, found: Sequence[Line], metric: str, *, colour: str, baseline: Line | None
) -> None:
    """Dots with intervals or standard deviations; the baseline's value is a dashed line."""
    if baseline is not None:
        axes.axvline(
            100 * mean_and_spread(baseline.values(metric))[0], color="#999999", lw=0.9, ls="--"
        )
    for y, line in enumerate(found):
        mean, spread = mean_and_spread(line.values(metric))
        only = line.records[0].evaluation.metric(metric)
        low, high = only.low, only.high
        if spread is not None:
            low, high = mean - spread, mean + spread
            seeds = [100 * value for value in line.values(metric)]
            axes.plot(seeds, [y] * len(seeds), "|", color=colour, ms=7, alpha=0.5)
        if low is not None and high is not None:
            axes.plot([100 * low, 100 * high], [y, y], color=colour, lw=1.6)
        axes.plot(100 * mean, y, "o", color=colour, ms=5)
    axes.set_yticks(range(len(found)), [line.row.title for line in found], fontsize=8)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", color="#e5e5e5", lw=0.8)


def draw_confusions(parts: Mapping[Section, tuple[Line, ...]], path: Path) -> bool:
    """One matrix a network, all seeds together, rows in per cent; False if nothing was run."""
    shown = [
        (protocol, setting, line)
        for (_, _, setting, protocol), found in parts.items()
        for line in found
        if line.records
    ]
    if not shown:
        return False
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = new_figure(3.3 * columns, 3.3 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (protocol, setting, line) in zip(panels, shown, strict=False):
        matrix = np.sum([np.array(r.evaluation.confusion) for r in line.records], axis=0)
        shares = 100 * matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
        names = [words(label) for label in line.records[0].run.labels]
        panel.imshow(shares, cmap="Blues", vmin=0, vmax=100)
        for i, j in np.argwhere(shares >= 0.5):
            ink = "white" if shares[i, j] > 60 else "#222222"
            panel.text(j, i, f"{shares[i, j]:.0f}", ha="center", va="center", fontsize=6, color=ink)
        panel.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=6)
        panel.set_yticks(range(len(names)), names, fontsize=6)
        panel.set_title(f"{line.row.title}\n{protocol}, {setting}", fontsize=7)
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    save_figure(figure, path)
    return True


def draw_cases(
    cases: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]],
    *,
    labels: Sequence[str],
    path: Path,
) -> None:
    """Columns of image, prediction and truth.

    Args:
        cases: title, (H, W, 3) uint8 image, predicted and true class map (H, W), 0 = background.
        labels: class names; class k is labels[k - 1].
        path: of the PNG.
    """
    from matplotlib.patches import Patch

    colours = [look(label).colour for label in labels]
    figure = new_figure(1.55 * len(cases) + 0.4, 5.4)
    panels = figure.subplots(3, len(cases), squeeze=False)
    for column, (title, image, predicted, truth) in enumerate(cases):
        for row, class_map in enumerate((None, predicted, truth)):
            panel = panels[row, column]
            shown = image if class_map is None else _coloured(image, class_map, colours)
            panel.imshow(shown)
            panel.set_xticks([])
            panel.set_yticks([])
        panels[0, column].set_title(title, fontsize=7)
    for row, name in enumerate(("image", "prediction", "truth")):
        panels[row, 0].set_ylabel(name, fontsize=8)
    handles = [Patch(color=c, label=n) for n, c in zip(labels, colours, strict=True)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(labels), fontsize=8)
    save_figure(figure, path)


def _coloured(
    image: NDArray[np.uint8], class_map: NDArray[np.uint8], colours: Sequence[str]
) -> NDArray[np.uint8]:
    """The image, darkened, with each class in its colour."""
    shown = 0.6 * image.astype(np.float64)
    for k, colour in enumerate(colours, start=1):
        rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
        shown[class_map == k] = 0.35 * shown[class_map == k] + 0.65 * rgb
    return shown.astype(np.uint8)
