"""From records to the files of an accuracy page: Markdown and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.files import write_atomically
from training.benchmark.lookup_page import load_lookups
from training.benchmark.page import render, sections
from training.benchmark.plans import DATA, OPTIONAL_DATA, SETTINGS, plan
from training.benchmark.records import RowRecord, load_records
from training.benchmark.rows import Row, Table
from training.benchmark.sheet import Sheet
from training.benchmark.sheets import SHEETS


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
    write_atomically(page, _text(sheet, rows, records, pages).encode())
    return page


def page_text(table: Table, pages: Path) -> str:
    """What `write_page` writes, of the pictures and records that lie beside the page."""
    records = load_records(pages)
    return _text(SHEETS[table], page_rows(table, records), records, pages)


def _text(sheet: Sheet, rows: Sequence[Row], records: Mapping[str, RowRecord], pages: Path) -> str:
    pictures = [file for file, _ in sheet.pictures if (pages / file).is_file()]
    return render(sheet, rows, records, pictures=pictures, lookups=load_lookups(pages))
