"""The pages of `training benchmark mistakes`: what a model gets wrong, to see.

Here a classifier's and a segmenter's; a detector's is in `box_mistakes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.files import write_atomically
from core.images import KEPT, decode
from core.taxonomy import CLASSES, words
from training.benchmark.mistakes import NEIGHBOURS, Mistake, by_strip, class_strips
from training.evaluate import images_for
from training.plots import new_figure, save_figure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from core.types import DecodedImage, Predictor
    from training.datasets import Dataset, Sample
    from training.splits import Protocol

SHOWN: Final = 12  # images in the figure; the table has all
_SIDE_IN: Final = 1.15  # of a picture in the figure

Heat = Callable[["DecodedImage"], "NDArray[np.float32]"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked about which images, and how to ask again.

    Raises:
        DatasetError: if the data set is for another task than the model's or has other classes,
            or the split is empty.
    """

    predictor: Predictor
    dataset: Dataset
    protocol: Protocol
    split: str
    command: str  # that writes the page

    def __post_init__(self) -> None:
        images_for(self.predictor, self.dataset, protocol=self.protocol, split=self.split)

    @property
    def stem(self) -> str:
        """Name of page and picture without their endings."""
        stem = f"mistakes-{self.predictor.spec.name}"
        # a set of one's own has a page beside that of the public one, which others read
        return stem if self.dataset.name in CLASSES else f"{stem}-{self.dataset.name}"

    def head(self, told: str) -> list[str]:
        """Title, and whose answers to which images these are; `told` says what came of it."""
        who, data = self.predictor, self.dataset
        chosen = (
            "Looked at after the split was measured: nothing is chosen by it. "
            if self.split == "test"
            else ""
        )
        return [
            f"# What {who.spec.name} gets wrong",
            "",
            f"Release {who.revision} on the {self.protocol} {self.split} split of {data.name}: "
            f"{len(data.split(self.protocol, self.split))} images, {told}. A strip is a group of "
            "images that overlap or are turned copies of one another; leak-free, no strip lies on "
            f"both sides of a split. {chosen}What it means is told in "
            "[confusions.md](../confusions.md).",
            "",
        ]

    def write(self, pages: Path, text: Sequence[str]) -> Path:
        """Write the page; returns its path."""
        page = pages / f"{self.stem}.md"
        write_atomically(
            page, ("\n".join([*text, f"Written by `{self.command}`."]) + "\n").encode()
        )
        return page


def write_classes(pages: Path, asked: Asked, mistakes: Sequence[Mistake], *, heat: Heat) -> Path:
    """Write a classifier's page and figure.

    Args:
        pages: folder of both.
        asked: who was asked what.
        mistakes: what `find_mistakes` found.
        heat: where the network looked: a picture to heat (H, W) in [0, 1].

    Returns:
        The page.
    """
    samples = asked.dataset.split(asked.protocol, asked.split)
    right = 100 * (1 - len(mistakes) / len(samples))
    text = [
        *asked.head(f"{len(mistakes)} named wrongly, accuracy {right:.1f} %"),
        *_strips(mistakes, asked.dataset, protocol=asked.protocol, split=asked.split),
    ]
    if mistakes:
        picture = f"{asked.stem}.png"
        draw(mistakes[:SHOWN], heat, pages / picture)
        text += [*_wrong(mistakes, samples), *_images(mistakes, picture)]
    return asked.write(pages, text)


def write_masks(pages: Path, asked: Asked) -> Path:
    """Write a segmenter's page and figure: easy and hard images, prediction beside truth."""
    from training.benchmark.examples import draw_masks, say_easy_and_hard

    picture = f"{asked.stem}.png"
    easy, hard = draw_masks(
        asked.predictor,
        asked.dataset,
        pages / picture,
        protocol=asked.protocol,
        split=asked.split,
    )
    text = [
        *asked.head(f"of which {len(easy) + len(hard)} are shown"),
        say_easy_and_hard(
            len(easy), "the mean IoU of the classes that an image holds or was said to hold"
        ),
        "",
        f"![Image, prediction and truth]({picture})",
        "",
        "| image | strip | mIoU (%) |",
        "| --- | --- | ---: |",
        *(
            f"| {Path(sample.file).stem} | {sample.group} | {100 * score:.0f} |"
            for sample, score in (*easy, *hard)
        ),
        "",
    ]
    return asked.write(pages, text)


def _strips(
    mistakes: Sequence[Mistake], dataset: Dataset, *, protocol: Protocol, split: str
) -> list[str]:
    parts = dict.fromkeys(("train", "val", split))
    counted = {part: class_strips(dataset.split(protocol, part)) for part in parts}
    rows = [
        "## How many strips each class has",
        "",
        "Images / strips / images of the largest strip.",
        "",
        f"| class | {' | '.join(parts)} | wrong in {split} | on strips |",
        f"| --- |{' ---: |' * (len(parts) + 2)}",
    ]
    for label in dataset.labels:
        cells = []
        for part in parts:
            found = counted[part].get(label)
            cells.append(
                f"{found.images} / {found.strips} / {found.largest}" if found else "0 / 0 / 0"
            )
        wrong = [m for m in mistakes if m.sample.label == label]
        strips = len({m.sample.group for m in wrong})
        rows.append(f"| {words(label)} | {' | '.join(cells)} | {len(wrong)} | {strips} |")
    return [*rows, ""]


def _wrong(mistakes: Sequence[Mistake], samples: Sequence[Sample]) -> list[str]:
    rows = [
        "## Strips with mistakes",
        "",
        "| strip | class | images | wrong | named |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for strip in by_strip(mistakes, samples):
        named = ", ".join(f"{words(label)} {count}" for label, count in strip.said.items())
        wrong = sum(strip.said.values())
        rows.append(
            f"| {strip.group} | {words(strip.label)} | {strip.images} | {wrong} | {named} |"
        )
    return [*rows, ""]


def _images(mistakes: Sequence[Mistake], picture: str) -> list[str]:
    first = f"The first {SHOWN}; from" if len(mistakes) > SHOWN else "From"
    rows = [
        "## The images",
        "",
        f"![Images, heat and training images]({picture})",
        "",
        f"{first} left to right: the image, where the network looked for what it said (LayerCAM), "
        f"and the {NEIGHBOURS} training images whose features point most nearly the same way.",
        "",
        "| image | strip | is | was named | probability | of the true class | most like |",
        "| --- | --- | --- | --- | ---: | ---: | --- |",
    ]
    for m in mistakes:
        alike = ", ".join(Path(sample.file).stem for sample in m.alike)
        rows.append(
            f"| {Path(m.sample.file).stem} | {m.sample.group} | {words(m.sample.label or '')} | "
            f"{words(m.said)} | {m.probability:.2f} | {m.of_truth:.2f} | {alike} |"
        )
    return [*rows, ""]


def draw(mistakes: Sequence[Mistake], heat: Heat, path: Path) -> None:
    """One row a mistake: image, heat, the training images most like it."""
    columns = 2 + NEIGHBOURS
    figure = new_figure(columns * (_SIDE_IN + 0.15), len(mistakes) * (_SIDE_IN + 0.3))
    panels = figure.subplots(len(mistakes), columns, squeeze=False)
    for row, mistake in zip(panels, mistakes, strict=True):
        image = decode(mistake.sample.path, limits=KEPT)
        _show(row[0], image.pixels, f"{Path(mistake.sample.file).stem}")
        _show(row[1], image.pixels, f"named {words(mistake.said)} {mistake.probability:.2f}")
        row[1].imshow(heat(image), cmap="inferno", alpha=0.5, vmin=0, vmax=1)
        for panel, sample in zip(row[2:], mistake.alike, strict=False):
            _show(panel, decode(sample.path, limits=KEPT).pixels, Path(sample.file).stem)
        for panel in row[2 + len(mistake.alike) :]:
            panel.set_axis_off()
    save_figure(figure, path)


def _show(panel: Any, pixels: NDArray[np.uint8], title: str) -> None:
    panel.imshow(pixels)
    panel.set_title(title, fontsize=6)
    panel.set_xticks([])
    panel.set_yticks([])
