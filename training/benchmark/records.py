"""What is kept of a finished row: enough to print its page anywhere, without weights or images."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from core.errors import DatasetError
from core.files import write_atomically
from core.records import Evaluation, Record, RunRecord

RECORDS = "records"  # folder beside the pages
UNIT = 10_000  # resamples are stored in ten-thousandths: half of one moves no printed digit


class RowRecord(Record):
    """One row of a table: the run, what its weights earned on the test split, and the bootstrap.

    `resamples` holds a table's first metrics in each bootstrap resample, in 1 / UNIT: rows measured
    on one test split drew the same images, so their difference may be taken resample by resample.
    """

    row: str
    run: RunRecord
    evaluation: Evaluation
    resamples: dict[str, tuple[int, ...]] = Field(default_factory=dict)


def save_record(record: RowRecord, pages: Path) -> None:
    """Write `records/ROW.json` below the folder of the pages."""
    content = json.loads(record.model_dump_json())
    resamples = json.dumps(content.pop("resamples"), separators=(",", ":"))
    text = json.dumps(content, indent=1, ensure_ascii=False)
    # On one line: a thousand lines of digits would hide every change a person wants to see.
    text = f'{text[:-2]},\n "resamples": {resamples}\n}}\n'
    write_atomically(pages / RECORDS / f"{record.row}.json", text.encode())


def load_records(pages: Path) -> Mapping[str, RowRecord]:
    """Every record below the folder of the pages, by its row.

    Raises:
        DatasetError: if a file there is no record, or bears another row's name.
    """
    found: dict[str, RowRecord] = {}
    for path in sorted((pages / RECORDS).glob("*.json")):
        try:
            record = RowRecord.model_validate_json(path.read_bytes())
        except ValidationError as exc:
            first = exc.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the file"
            raise DatasetError(f"{path} is not a row's record: {where}: {first['msg']}.") from exc
        if record.row != path.stem:
            raise DatasetError(f"{path} holds row {record.row!r}: it must be named after its row.")
        found[record.row] = record
    return found
