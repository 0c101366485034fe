"""The page of what looking up alone reaches, and the measurements it is printed from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from core.errors import DatasetError
from core.files import write_atomically
from core.records import Evaluation
from models import get_spec, names
from training.benchmark.page import percent, say_metric

PAGE: Final = "lookup.md"
DATA: Final = "lookup.json"
_EVALUATIONS: Final = TypeAdapter(tuple[Evaluation, ...])
_TEXT: Final = """# What looking up alone reaches

Each test image is answered as the training image most like it is labelled, turned as it fits
(`training/lookup.py`): no network, no training, nothing that is seen, only remembered. Under the
papers' protocol that is what copies on both sides of a split are worth; a network's figure there
says something of its sight only where it is far above this one. Under the leak-free protocol
little should be left of it. *Copies* are the test images of which a training image shows the same
picture, turned or mirrored or not; *copies agree* is the metric on these alone: how far those who
labelled one picture twice agree with themselves. In brackets stands the 95 % bootstrap interval
over images (paper protocol) or groups of related images (leak-free). *Published* is what papers
print of the models that we build, each for its own data and split.

"""
_HEADS: Final = (
    *("data set", "protocol", "split", "images", "copies", "metric", "looked up (%)"),
    *("copies agree (%)", "published (%)"),
)
_RULE: Final = "| --- | --- | --- | ---: | ---: | --- | ---: | ---: | --- |\n"
_ENOUGH: Final = 30  # copies that may be said to agree or not
_HOW: Final = """
Written by `python -m training benchmark lookup {asked} --pages docs/benchmarks`.
Another data set is measured in the same way; a test split in which looking up reaches much should
be divided again, by strip or coil.
"""


def load_lookups(pages: Path) -> tuple[Evaluation, ...]:
    """What was measured, by data set and protocol; nothing where it never was.

    Raises:
        DatasetError: if the file is not what `write_lookups` writes.
    """
    try:
        return _EVALUATIONS.validate_json((pages / DATA).read_bytes())
    except FileNotFoundError:
        return ()
    except ValidationError as exc:
        raise DatasetError(
            f"{pages / DATA} is not a list of measurements: {exc.errors()[0]['msg']}."
        ) from exc


def write_lookups(measured: Iterable[Evaluation], pages: Path) -> Path:
    """Add measurements to those of the page, each in the place of an older one, and print it."""
    known = {_key(one): one for one in load_lookups(pages)}
    known.update({_key(one): one for one in measured})
    ordered = [known[key] for key in sorted(known)]
    data = [json.loads(one.model_dump_json()) for one in ordered]
    write_atomically(pages / DATA, (json.dumps(data, indent=1, ensure_ascii=False) + "\n").encode())
    write_atomically(pages / PAGE, page_of(ordered).encode())
    return pages / PAGE


def page_of(measured: Sequence[Evaluation]) -> str:
    """The page in Markdown; the same measurements, the same page."""
    rows = []
    for one in measured:
        main = one.metrics[0]
        cells = [
            *(one.dataset, one.protocol, one.split, str(main.n), str(one.settings["copies"])),
            *(main.name, say_metric(main), _agreed(one), _published(one)),
        ]
        rows.append(f"| {' | '.join(cells)} |\n")
    asked = " ".join(dict.fromkeys(one.dataset for one in measured))
    return _TEXT + f"| {' | '.join(_HEADS)} |\n" + _RULE + "".join(rows) + _HOW.format(asked=asked)


def _key(one: Evaluation) -> tuple[str, str, str]:
    return one.dataset, one.protocol, one.split


def _agreed(one: Evaluation) -> str:
    agreed = one.settings.get("on_copies")
    return "–" if agreed is None or one.settings["copies"] < _ENOUGH else percent(agreed)


def _published(one: Evaluation) -> str:
    """The first figure of each paper for this data set and metric; leak-free there is none."""
    if one.protocol != "paper":
        return "–"
    told = []
    for name in names():
        spec = get_spec(name)
        figures = [
            f for f in spec.reported if (f.dataset, f.name) == (one.dataset, one.metrics[0].name)
        ]
        if figures:
            told.append(f"{spec.title} {100 * figures[0].value:.2f}")
    return ", ".join(told) or "–"
