"""The page of `training benchmark mistakes` for a detector: what it loses, and where to see it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.images import KEPT, decode
from core.taxonomy import look, words
from training import metrics
from training.benchmark.examples import easy_and_hard, say_easy_and_hard
from training.detection_errors import KINDS, BoxErrors, find_errors, image_f1
from training.detection_metrics import Scene, best_confidence, rank
from training.evaluate import detection_scenes, nothing_to_find
from training.plots import new_figure, save_figure

if TYPE_CHECKING:
    from training.benchmark.mistakes_page import Asked
    from training.datasets import Sample
    from training.metrics import Floats

RESAMPLES = 1000
_COLUMN_IN = 1.6  # of an image in the figure
_MEANING = (
    "What AP50 would gain if all errors of one kind, and only those, were mended (TIDE, Bolya et "
    "al., ECCV 2020); in points, of all detections, however unsure. *Place*: the right class, but "
    "IoU with the label between 0.1 and 0.5. *Class*: IoU at least 0.5 with a label of another "
    "class. *Class and place*: touches a label of another class only. *Twice*: on a label that a "
    "surer detection has found. *Background*: touches no label. *Missed*: a label that none of "
    "these is about. Errors hide one another, so the gains do not add up to what is lacking to "
    "100. The interval of the mean draws whole strips."
)


def write_boxes(pages: Path, asked: Asked) -> Path:
    """Write a detector's page and figure; returns the page.

    Raises:
        DatasetError: if the split shows no defect, or an image is unreadable.
    """
    labels = asked.dataset.labels
    samples = asked.dataset.split(asked.protocol, asked.split)
    if not any(sample.boxes for sample in samples):
        raise nothing_to_find(asked.dataset, protocol=asked.protocol, split=asked.split)
    scenes = detection_scenes(asked.predictor, samples, labels)
    groups = [s.group if asked.protocol == "leak-free" else s.file for s in samples]
    weights = metrics.resample_weights(groups, resamples=RESAMPLES, seed=0)
    errors = find_errors(scenes, len(labels), weights)
    confidence = best_confidence(rank(scenes, len(labels)))
    scores = image_f1(scenes, len(labels), confidence)
    easy, hard = easy_and_hard(scores)
    chosen = [*easy, *hard]
    picture = f"{asked.stem}.png"
    draw_boxes(
        [(samples[i], scenes[i], f"F1 {100 * scores[i]:.0f} %") for i in chosen],
        labels=labels,
        confidence=confidence,
        path=pages / picture,
    )
    told = f"mAP50 {100 * float(metrics.mean(errors.ap50[:, 0])):.1f} %"
    text = [
        *asked.head(told),
        "## What average precision is lost to",
        "",
        _MEANING,
        "",
        *_gains(errors, labels),
        "## Easy and hard images",
        "",
        say_easy_and_hard(
            len(easy),
            f"F1 at IoU 0.5 of what was found with a score of {confidence:.2f} or more, where the "
            "mean F1 of the classes is highest",
        ),
        "",
        f"![Labels above, findings below]({picture})",
        "",
        "| image | strip | labelled | found | F1 (%) |",
        "| --- | --- | ---: | ---: | ---: |",
        *(
            f"| {Path(samples[i].file).stem} | {samples[i].group} | {len(scenes[i].truth)} | "
            f"{int((scenes[i].scores >= confidence).sum())} | {100 * scores[i]:.0f} |"
            for i in chosen
        ),
        "",
    ]
    return asked.write(pages, text)


def _gains(errors: BoxErrors, labels: Sequence[str]) -> list[str]:
    """Classes in rows, kinds of error in columns; the mean last, with its interval."""
    rows = [
        f"| class | AP50 (%) | {' | '.join(KINDS)} |",
        f"| --- |{' ---: |' * (1 + len(KINDS))}",
    ]
    for k, label in enumerate(labels):
        cells = [errors.ap50[k, 0], *(errors.gained[kind][k, 0] for kind in KINDS)]
        told = " | ".join("–" if np.isnan(cell) else f"{100 * cell:.1f}" for cell in cells)
        rows.append(f"| {words(label)} | {told} |")
    means = [errors.ap50, *(errors.gained[kind] for kind in KINDS)]
    rows.append(f"| **mean** | {' | '.join(_mean(part) for part in means)} |")
    return [*rows, ""]


def _mean(part: Floats) -> str:
    """Mean over the classes with its 95 % interval, of (C, 1 + resamples)."""
    drawn = 100 * metrics.mean(part.T)
    low, high = metrics.interval(drawn[1:])
    return f"{drawn[0]:.1f} ({low:.1f}–{high:.1f})"


def draw_boxes(
    cases: Sequence[tuple[Sample, Scene, str]],
    *,
    labels: Sequence[str],
    confidence: float,
    path: Path,
) -> None:
    """A column an image: its labels above, what was found below, each class with its own dashes.

    Args:
        cases: image, truth with detections, and title.
        labels: class names.
        confidence: detections below it are not drawn.
        path: of the PNG.
    """
    from matplotlib.lines import Line2D

    figure = new_figure(_COLUMN_IN * len(cases) + 0.3, 2 * _COLUMN_IN + 0.8)
    panels = figure.subplots(2, len(cases), squeeze=False)
    for (above, below), (sample, scene, title) in zip(panels.T, cases, strict=True):
        pixels = decode(sample.path, limits=KEPT).pixels
        for panel in (above, below):
            panel.imshow(pixels)
            panel.autoscale(False)  # a box at the edge must not shift the picture
            panel.set_xticks([])
            panel.set_yticks([])
        above.set_title(title, fontsize=7)
        for box, class_id in zip(scene.truth, scene.truth_ids, strict=True):
            _outline(above, box, labels[class_id], "")
        kept = np.flatnonzero(scene.scores >= confidence)
        for row in kept:
            _outline(
                below, scene.boxes[row], labels[scene.class_ids[row]], f"{scene.scores[row]:.2f}"
            )
    panels[0, 0].set_ylabel("labelled", fontsize=8)
    panels[1, 0].set_ylabel("found", fontsize=8)
    handles = [
        Line2D([], [], color=look(name).colour, ls=_dashes(name), lw=1.8, label=words(name))
        for name in labels
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(labels), fontsize=7)
    save_figure(figure, path)


def _outline(panel: Any, box: Floats, label: str, text: str) -> None:
    """A box with a white halo, so that it is seen on any steel."""
    from matplotlib.patheffects import withStroke

    x1, y1, x2, y2 = box
    panel.plot(
        [x1, x2, x2, x1, x1],
        [y1, y1, y2, y2, y1],
        color=look(label).colour,
        ls=_dashes(label),
        lw=1.2,
        path_effects=[withStroke(linewidth=2.2, foreground="white", alpha=0.7)],
        clip_on=False,
    )
    if text:
        panel.text(
            x1 + 2,
            y1 + 2,
            text,
            fontsize=5,
            va="top",
            bbox={"facecolor": "white", "alpha": 0.7, "lw": 0, "pad": 0.6},
        )


def _dashes(label: str) -> Any:
    """A class's dash pattern as matplotlib takes it."""
    dash = look(label).dash
    return (0, tuple(part / 2 for part in dash)) if dash else "-"
