"""What preparing a set came to: counts, where its groups come from, and what to be wary of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from training._catalogue import Entry
from training._readers import Layout
from training._report import Fault, PrepareReport
from training.datasets import Dataset
from training.splits import PROTOCOLS, SPLITS

FROM_MANIFEST = "the manifest of the source"
_WHAT_PUBLIC_ONES_JOIN = " (overlapping crops, turned and identical copies)"
FROM_OVERLAPS = (
    "image content: identical, turned, mirrored and nearly identical images, and overlapping crops "
    "of one strip as far as a shift search within each class finds them"
)
FROM_CONTENT = (
    "image content: identical, turned, mirrored and nearly identical images; overlapping crops "
    "of one strip are not found this way, so the leak-free split may still leak"
)

FROM_BOTH = (
    "the manifest of the source, and for pictures of no group there image content: identical, "
    "turned, mirrored and nearly identical images"
)
_LARGE_GROUP = 0.2  # of a set, beyond which a group found from content is doubted


def summarise(
    known: Entry,
    layout: Layout,
    dataset: Dataset,
    classes: Mapping[str, tuple[str, ...]],
    faults: tuple[Fault, ...],
) -> PrepareReport:
    """The report on a set whose splits are drawn.

    Args:
        known: what the set is.
        layout: what its source holds.
        dataset: what became of it.
        classes: seen in each image, by file.
        faults: found on the way.
    """
    counts: dict[str, dict[str, dict[str, int]]] = {p: dataset.counts(p) for p in PROTOCOLS}
    if dataset.task == "segment":
        for protocol in PROTOCOLS:
            for split in SPLITS:
                samples = dataset.split(protocol, split)
                present = Counter(label for sample in samples for label in classes[sample.file])
                counts[protocol][split].update({k: present[k] for k in dataset.labels})
    grouping = _grouping(known, layout)
    return PrepareReport(
        name=dataset.name,
        dataset_id=dataset.id,
        images=len(dataset.samples),
        groups=len({sample.group for sample in dataset.samples}),
        grouping=grouping,
        labels=dataset.labels,
        counts=counts,
        statements={
            "paper": known.plan.statement,
            "leak-free": "by group, 70/10/20 %, class-balanced",
        },
        faults=faults,
        notes=(*known.notes, *_cautions(known, dataset, grouping)),
    )


def _cautions(known: Entry, dataset: Dataset, grouping: str) -> Iterator[str]:
    """What is wrong with the leak-free split of a set of one's own, and what helps."""
    if known.own_classes is None:
        return
    total = len(dataset.samples)
    largest = max(Counter(sample.group for sample in dataset.samples).values())
    if grouping != FROM_MANIFEST and largest > max(1, _LARGE_GROUP * total):
        yield (
            f"One group holds {largest} of {total} pictures: either they show one piece of steel, "
            "or uneven lighting makes them look alike. A MANIFEST.csv that gives every picture its "
            "group decides."
        )
    if empty := [split for split in SPLITS if not dataset.split("leak-free", split)]:
        yield (
            f"The leak-free split has no picture for {' and '.join(empty)}, for groups are never "
            "divided: more groups are needed."
        )


def _grouping(known: Entry, layout: Layout) -> str:
    if layout.has_groups:
        own = known.own_classes is not None  # nobody knows what a mill joins
        return FROM_MANIFEST if own else FROM_MANIFEST + _WHAT_PUBLIC_ONES_JOIN
    if any(found.group for found in layout.found):
        return FROM_BOTH
    return FROM_OVERLAPS if known.overlaps else FROM_CONTENT
