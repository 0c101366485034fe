"""From records to the files of a page: Markdown, plots, and the masks of a segmenter's table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.files import write_atomically
from training.benchmark.lookup_page import load_lookups
from training.benchmark.page import render, sections
from training.benchmark.plans import DATA, OPTIONAL_DATA, SETTINGS, plan
from training.benchmark.records import RowRecord, load_records
from training.benchmark.rows import Row, Table
from training.benchmark.sheet import Sheet
from training.benchmark.sheets import SHEETS
from training.splits import Protocol

if TYPE_CHECKING:
    from core.types import Predictor
    from training.datasets import Dataset, Sample

SHOWN = 3  # easy images, and hard ones


def page_rows(table: Table, records: Mapping[str, RowRecord]) -> tuple[Row, ...]:
    """Every row that a page speaks of: the usual plan, and what else was run.

    Settings and data sets that are run on request appear when a record of them is there.
    """
    seeds = tuple(sorted({record.run.seed for record in records.values()}))
    rows: list[Row] = []
    for setting in SETTINGS[table]:
        for data in DATA[table]:
            usual = plan(table, setting=setting.name, data=(data,))
            more = plan(table, setting=setting.name, data=(data,), seeds=seeds) if seeds else ()
            known = {row.id for row in usual}
            found = [row for row in more if row.id in records and row.id not in known]
            wanted = setting.name != "quick" and data not in OPTIONAL_DATA
            if wanted or any(row.id in records for row in (*usual, *found)):
                rows += [*usual, *found]
    return tuple(rows)


def write_page(table: Table, pages: Path) -> Path:
    """Print a table's page and plots from the records that lie beside it; gives the page's path.

    Raises:
        DatasetError: if a record cannot be read, or two of one section do not belong together.
    """
    from training.benchmark.figures import draw_confusions, draw_values

    sheet = SHEETS[table]
    records = load_records(pages)
    rows = page_rows(table, records)
    parts = sections(rows, records)
    draw_values(sheet, parts, pages / f"{sheet.stem}.png")
    if table == "classify":
        draw_confusions(parts, pages / f"{sheet.stem}-confusion.png")
    page = pages / f"{sheet.stem}.md"
    write_atomically(page, page_text(table, pages).encode())
    return page


def page_text(table: Table, pages: Path) -> str:
    """What `write_page` writes, of the pictures and records that lie beside the page."""
    records = load_records(pages)
    sheet = SHEETS[table]
    return render(
        sheet,
        page_rows(table, records),
        records,
        pictures=_pictures(sheet, pages),
        lookups=load_lookups(pages),
    )


def _pictures(sheet: Sheet, pages: Path) -> list[str]:
    return [file for file, _ in sheet.pictures if (pages / file).is_file()]


def draw_segmentation_cases(release: Path, dataset: Dataset, pages: Path, *, device: str) -> None:
    """Write the figure of the segmentation page with the weights of a release; see `draw_masks`."""
    from models import load

    draw_masks(load(release, device=device), dataset, pages / "segmentation-cases.png")


def draw_masks(
    predictor: Predictor,
    dataset: Dataset,
    path: Path,
    *,
    protocol: Protocol = "leak-free",
    split: str = "test",
) -> tuple[list[tuple[Sample, float]], list[tuple[Sample, float]]]:
    """Show a segmenter's easiest and hardest images of a split beside the truth.

    Images are ordered by the mean IoU of their classes; those shown are spread over the easiest and
    the hardest tenth, so that no single strip fills the figure.

    Returns:
        The easy images that are shown, and the hard ones, from left to right, each with its mean
        IoU.
    """
    from training.benchmark.figures import draw_cases
    from training.evaluate import predictions
    from training.truth import read_mask

    samples = dataset.split(protocol, split)
    maps: list[NDArray[np.uint8]] = []
    for _, found in predictions(predictor, samples):
        maps.append(np.asarray(found.class_map))  # type: ignore[union-attr]
    truths = [read_mask(sample, dataset.labels) for sample in samples]
    scores = np.array(
        [_mean_iou(t, m, 1 + len(dataset.labels)) for t, m in zip(truths, maps, strict=True)]
    )
    easy, hard = easy_and_hard(scores)
    cases = [
        (f"mIoU {100 * scores[i]:.0f} %", _pixels(samples[i]), maps[i], truths[i])
        for i in (*easy, *hard)
    ]
    draw_cases(cases, labels=dataset.labels, path=path)
    told = [(sample, float(score)) for sample, score in zip(samples, scores, strict=True)]
    return [told[i] for i in easy], [told[i] for i in hard]


def easy_and_hard(scores: Iterable[float]) -> tuple[list[int], list[int]]:
    """Places of images of the best tenth and of the worst, evenly spread over each.

    Each are three, fewer where a tenth has not as many.
    """
    order = np.argsort(-np.asarray(list(scores)), kind="stable")
    tenth = max(len(order) // 10, 1)
    places = list(dict.fromkeys(np.linspace(0, tenth - 1, SHOWN).round().astype(int).tolist()))
    easy = [int(order[i]) for i in places]
    return easy, [i for i in (int(order[-1 - k]) for k in reversed(places)) if i not in easy]


def say_easy_and_hard(easy: int, by: str) -> str:
    """Which of the images shown are which: so many easy ones come first."""
    first = "is of" if easy == 1 else f"{easy} are spread over"
    return (
        f"The first {first} the easiest tenth of the images, the others "
        f"{'are of' if easy == 1 else 'over'} the hardest, by {by}."
    )


def _mean_iou(truth: NDArray[np.uint8], predicted: NDArray[np.uint8], classes: int) -> float:
    from training.metrics import confusion, segmentation_scores

    return float(segmentation_scores(confusion(truth, predicted, classes))["mIoU"])


def _pixels(sample: Sample) -> NDArray[np.uint8]:
    from core.images import KEPT, decode

    return np.asarray(decode(sample.path, limits=KEPT).pixels)
