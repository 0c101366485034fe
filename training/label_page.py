"""The page of `training labels`: which labels deserve a second look, to read and to see."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.files import write_atomically
from core.images import KEPT, decode
from core.records import Box
from core.taxonomy import words
from training.label_check import CheckedImage, ClassLabels, LabelCheck
from training.label_doubts import KINDS, Doubt, rounded
from training.label_places import Share
from training.plots import new_figure, save_figure

if TYPE_CHECKING:
    from training.datasets import Dataset

LISTED: Final = 20  # images in the page's table
OF_A_CLASS: Final = 2  # images of each class in the figure
_COLUMNS: Final = 4
_SIDE_IN: Final = 2.1  # of a picture in the figure
# Told apart without colour, too: labels are solid, findings dashed, what is doubted is thick.
_LABELLED: Final = {"edgecolor": "#ffffff", "linestyle": "-"}
_FOUND: Final = {"edgecolor": "#ff8c1a", "linestyle": (0, (3, 2))}


@dataclass(frozen=True, slots=True)
class Checked:
    """What was checked by whom, and how to check it again."""

    dataset: Dataset
    protocol: str
    split: str
    models: tuple[str, ...]  # name and revision of each
    command: str
    machine: str
    check: LabelCheck

    @property
    def stem(self) -> str:
        """Name of page and picture without their endings."""
        return f"labels-{self.dataset.name}"


def write_page(pages: Path, checked: Checked) -> Path:
    """Write page and figure into a folder; returns the page."""
    picture = f"{checked.stem}.png"
    shown = most_doubtful(checked.check.images)
    text = [*_head(checked), *_classes(checked), *_places(checked.check.classes)]
    if shown:
        draw(shown, pages / picture)
        text += [*_images(checked, shown, picture)]
    text += [f"Written by `{checked.command}` on {checked.machine}.", ""]
    page = pages / f"{checked.stem}.md"
    write_atomically(page, "\n".join(text).encode())
    return page


def rows(images: Sequence[CheckedImage]) -> Iterator[tuple[str, str, str, str, str]]:
    """File, strip, quality, what and where of each doubted image; one line for its strongest."""
    for image in images:
        if image.doubts:
            first, more = image.doubts[0], len(image.doubts) - 1
            what = say(first) + (f"; {more} more" if more else "")
            sample = image.sample
            yield Path(sample.file).stem, sample.group, f"{image.quality:.2f}", what, where(first)


def say(doubt: Doubt) -> str:
    """A doubt in words."""
    label, found = words(doubt.label), words(doubt.found)
    match doubt.kind:
        case "overlooked":
            return f"{found} {doubt.score:.2f} is found and nothing is labelled"
        case "swapped":
            return f"{label} is labelled and {found} {doubt.score:.2f} is found"
        case "badly placed":
            return f"{label} is found elsewhere, IoU {doubt.overlap:.2f}"
        case "not seen":
            return f"{label} is labelled and nobody finds it"


def where(doubt: Doubt) -> str:
    """The place of a doubt in px: left, top, right, bottom."""
    return ", ".join(f"{v:.0f}" for v in doubt.box) if doubt.box else "whole image"


def most_doubtful(images: Sequence[CheckedImage]) -> list[CheckedImage]:
    """Some images of each class, told by their strongest doubt, from the poorest labels on."""
    taken: dict[str, list[CheckedImage]] = {}
    for image in images:
        if image.doubts:
            of_class = taken.setdefault(image.doubts[0].subject, [])
            if len(of_class) < OF_A_CLASS:
                of_class.append(image)
    return [image for label in sorted(taken) for image in taken[label]]


def _head(checked: Checked) -> list[str]:
    images = checked.check.images
    doubted = sum(bool(image.doubts) for image in images)
    who = ", ".join(checked.models)
    return [
        f"# Labels of {checked.dataset.name} to look at again",
        "",
        f"{checked.protocol} {checked.split} split: {len(images)} images, of which {doubted} have "
        f"a label that is doubted. Asked: {who}; none of them learned from these images, though "
        "which epoch of a run was kept may have been decided by them. How it is done, and what to "
        "do with it, is told in [labels.md](../labels.md).",
        "",
        "**A doubt is no proof.** A label is doubted where models that never saw it say something "
        "else; they may be wrong, and where they miss a defect they are. It says where a second "
        "look is worth most, and how far the labels of a class agree with each other: networks "
        "learn what most labels do. Nothing was changed by what stands here.",
        "",
    ]


def _classes(checked: Checked) -> list[str]:
    counted = {"detect": "labels", "segment": "images", "classify": "images"}
    head = [counted[checked.dataset.task], *KINDS]
    lines = [
        "## By class",
        "",
        f"| class | {' | '.join(head)} |",
        f"| --- |{' ---: |' * len(head)}",
    ]
    for row in checked.check.classes:
        counts = " | ".join(str(row.doubts.get(kind, 0)) for kind in KINDS)
        lines.append(f"| {words(row.label)} | {row.labels} | {counts} |")
    total = [sum(row.doubts.get(kind, 0) for row in checked.check.classes) for kind in KINDS]
    labels = sum(row.labels for row in checked.check.classes)
    return [
        *lines,
        f"| together | {labels} | {' | '.join(str(n) for n in total)} |",
        "",
        "*Overlooked*: surely found, and nothing is labelled there. *Swapped*: surely found in its "
        "place as another class. *Badly placed*: found, but elsewhere. *Not seen*: labelled, and "
        "no model finds it.",
        "",
    ]


def _places(classes: Sequence[ClassLabels]) -> list[str]:
    if not any(row.places for row in classes):
        return []
    lines = [
        "## Where the labels of a class end",
        "",
        "Share of labelled boxes on which at least one model puts a finding of the class (%, with "
        "95 % intervals over 1,000 resamples of whole strips): near it at all, and within IoU 0.5 "
        "and 0.75; and what part of the labels that are touched is met so closely. A class that is "
        "touched often and met seldom is known; where its boxes end is not, to the models or to "
        "those who drew them.",
        "",
        "| class | labels | touched | IoU ≥ 0.5 | IoU ≥ 0.75 | 0.5 of touched | 0.75 of touched |",
        f"| --- |{' ---: |' * 6}",
    ]
    for row in classes:
        if row.places is not None:
            touched, *met = shares = (row.places.touched, row.places.placed, row.places.strictly)
            of_touched = (
                f"{100 * share.value / touched.value:.0f}" if touched.value else "–"
                for share in met
            )
            lines.append(
                f"| {words(row.label)} | {row.labels} | {' | '.join(map(_percent, shares))} | "
                f"{' | '.join(of_touched)} |"
            )
    return [*lines, ""]


def _percent(share: Share) -> str:
    told = f"{100 * share.value:.0f}"
    if share.low is None or share.high is None:
        return told
    return f"{told} ({100 * share.low:.0f}–{100 * share.high:.0f})"


def _images(checked: Checked, shown: Sequence[CheckedImage], picture: str) -> list[str]:
    drawn = (
        "Labels are solid and white, findings of the models together dashed and orange; what is "
        "doubted is thick."
        if checked.dataset.task == "detect"
        else "What is doubted is framed: solid and white what is labelled, dashed and orange what "
        "is not."
    )
    listed = list(rows(checked.check.images))[:LISTED]
    return [
        "## The images",
        "",
        f"![The most doubtful images of each class]({picture})",
        "",
        f"The {OF_A_CLASS} images with the poorest labels of each class. {drawn}",
        "",
        f"The {len(listed)} poorest of all; places are left, top, right, bottom in px.",
        "",
        "| image | strip | quality | strongest doubt | where |",
        "| --- | --- | ---: | --- | --- |",
        *(f"| {' | '.join(row)} |" for row in listed),
        "",
    ]


def draw(images: Sequence[CheckedImage], path: Path) -> None:
    """Write a PNG of images with their labels and what was found, drawn differently."""
    columns = min(_COLUMNS, len(images))
    lines = -(-len(images) // columns)
    figure = new_figure(columns * (_SIDE_IN + 0.15), lines * (_SIDE_IN + 0.45))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel, image in zip(panels, images, strict=False):
        _show(panel, image)
    for panel in panels[len(images) :]:
        panel.set_axis_off()
    save_figure(figure, path)


def _show(panel: Any, image: CheckedImage) -> None:
    sample = image.sample
    panel.imshow(decode(sample.path, limits=KEPT).pixels)
    doubted = {doubt.box for doubt in image.doubts}
    if image.found is None:
        marks = [(d.box, _LABELLED if d.label else _FOUND) for d in image.doubts if d.box]
    else:
        marks = [(rounded(box), _LABELLED) for _, box in sample.boxes]
        marks += [(rounded(box), _FOUND) for box in image.found.boxes]
    for box, style in marks:
        _frame(panel, box, style, thick=box in doubted)
    panel.set_title(f"{Path(sample.file).stem}\n{_short(image.doubts[0])}", fontsize=7)
    panel.set_xticks([])
    panel.set_yticks([])


def _short(doubt: Doubt) -> str:
    if doubt.kind == "swapped":
        return f"{words(doubt.label)} or {words(doubt.found)}"
    return f"{words(doubt.subject)} {doubt.kind}"


def _frame(panel: Any, box: Box, style: dict[str, Any], *, thick: bool) -> None:
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import Normal, Stroke

    x1, y1, x2, y2 = box
    width = 2.2 if thick else 1.1
    frame = Rectangle((x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1, fill=False, lw=width, **style)
    # A dark rim keeps it visible on bright steel.
    frame.set_path_effects([Stroke(linewidth=width + 1.4, foreground="#1f2933"), Normal()])
    panel.add_patch(frame)
