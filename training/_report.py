"""What `prepare` did and what it found wrong, as records and as a table for a terminal."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

_SHOWN_PER_KIND = 3

# What each kind means, and what was done about it.
FAULT_KINDS: Mapping[str, str] = {
    "unreadable-image": "left out",
    "unreadable-annotation": "left out",
    "unreadable-mask": "left out",
    "missing-annotation": "left out",
    "missing-mask": "left out",
    "missing-image": "left out",
    "size-differs": "left out: its boxes or mask belong to another size",
    "mask-values": "left out: values without a class",
    "checksum": "left out: bytes differ from the manifest",
    "unknown-label": "object dropped",
    "no-object": "kept as a picture without defect",
    "unreadable-object": "object dropped",
    "object-lost": "left out: without all its objects it would pass for sounder than it is",
    "crowd": "object dropped: it stands for many at once",
    "box-clipped": "clipped to the image",
    "box-dropped": "dropped: inverted, empty or outside",
    "duplicate-box": "one of them dropped",
    "unknown-class": "left out: no class is known",
    "label-differs": "kept: boxes carry another class than the file name",
    "shared-annotation": "given to none: it may be another picture's",
    "no-group": "kept: grouped by content, beside the groups that were given",
    "unknown-part": "divided with those of no part",
    "duplicate-file": "kept once",
    "duplicate-image": "kept: same bytes, same group",
    "copies-differ": "one picture, two answers: leave the wrong one in the source",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with one file of the source; `kind` is a key of `FAULT_KINDS`."""

    kind: str
    file: str
    detail: str

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"Unknown kind of fault {self.kind!r}.")


# protocol -> split -> row ("images" or a label) -> count
Counts = Mapping[str, Mapping[str, Mapping[str, int]]]


@dataclass(frozen=True, slots=True)
class PrepareReport:
    """Outcome of preparing one data set.

    `counts` gives, per protocol and split, the images and per label the boxes (detect), the images
    that hold the class (segment) or the images of the class (classify).
    """

    name: str
    dataset_id: str
    images: int
    groups: int
    grouping: str  # where the groups come from, in words
    labels: tuple[str, ...]
    counts: Counts
    statements: Mapping[str, str]  # protocol -> how it divides
    faults: tuple[Fault, ...]
    notes: tuple[str, ...] = ()

    def count(self, protocol: str, row: str = "images") -> int:
        """Sum of one row over the splits of a protocol."""
        return sum(split.get(row, 0) for split in self.counts[protocol].values())

    def render(self, *, width: int = 100) -> str:
        """A table for a terminal, without colours."""
        # names and lines of strangers are no markup
        console = Console(
            file=io.StringIO(),
            width=width,
            no_color=True,
            highlight=False,
            markup=False,
            emoji=False,
        )
        console.print(
            f"{self.name}: {self.images} images in {self.groups} groups, "
            f"version {self.dataset_id[:12]}"
        )
        console.print(f"groups: {self.grouping}")
        console.print(_split_table(self))
        for protocol, statement in self.statements.items():
            console.print(f"{protocol}: {statement}")
        for note in self.notes:
            console.print(f"note: {note}")
        console.print(_fault_table(self.faults) if self.faults else "faults: none")
        return str(console.file.getvalue())  # type: ignore[attr-defined]


def _split_table(report: PrepareReport) -> Table:
    table = Table()
    columns = [(p, s) for p, splits in report.counts.items() for s in splits]
    table.add_column("")
    for protocol, split in columns:
        table.add_column(f"{protocol}\n{split}", justify="right")
    for row in ("images", *report.labels):
        table.add_row(row, *(str(report.counts[p][s].get(row, 0)) for p, s in columns))
    return table


def _fault_table(faults: Sequence[Fault]) -> Table:
    table = Table()
    table.add_column("fault")
    table.add_column("files", justify="right")
    table.add_column("what was done, and the first of them")
    for kind, n in sorted(Counter(fault.kind for fault in faults).items()):
        first = [f"{f.file}: {f.detail}" for f in faults if f.kind == kind][:_SHOWN_PER_KIND]
        table.add_row(kind, str(n), "\n".join([FAULT_KINDS[kind], *first]))
    return table
