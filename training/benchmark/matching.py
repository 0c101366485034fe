"""Whether a run is the one that a row asks for; every difference is told, none is forgiven."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import DatasetError
from models import get_spec
from training.balance import UNRECORDED
from training.benchmark.rows import Row
from training.launch import recipe_of

if TYPE_CHECKING:
    from core.records import RunRecord
    from training.datasets import Dataset


def open_row(row: Row, data_root: Path) -> Dataset:
    """The data set of a row, cut down to what the row may train on.

    Raises:
        DatasetError: if it was not prepared.
    """
    from training.datasets import open_dataset

    dataset = open_dataset(row.data, data_root)
    return row.view.of(dataset, row.protocol, row.seed) if row.view else dataset


def differences(
    row: Row, run: RunRecord, *, dataset: Dataset | None = None, init: Path | None = None
) -> list[str]:
    """What of a run is not as the row has it, in words; empty if the run is the row's.

    An option that is younger than the run counts as what runs did before there was the option
    (`balance.UNRECORDED`).

    Args:
        row: what is asked for.
        run: what there is.
        dataset: as the row has it, to compare identities; None compares the name alone.
        init: COCO arrays that rows start from; None accepts any.
    """
    spec = get_spec(row.model)
    setting = row.setting
    expected: dict[str, Any] = {
        "model": row.model,
        "scale": row.scale,
        "dataset": row.data,
        "protocol": row.protocol,
        "image_size": setting.image_size,
        "epochs_planned": setting.epochs,
        "seed": row.seed,
    }
    if dataset is not None:
        expected["dataset_id"] = dataset.id
        expected["test_id"] = dataset.test_id(row.protocol, "test")
    told = [
        _difference(name, wanted, getattr(run, name))
        for name, wanted in expected.items()
        if getattr(run, name) != wanted
    ]
    recipe = recipe_of(spec, epochs=setting.epochs, batch=setting.batch, overrides=row.overrides)
    wanted_recipe = json.loads(json.dumps(recipe))
    recorded = {**{k: v for k, v in UNRECORDED.items() if k in wanted_recipe}, **run.recipe}
    for name in sorted(wanted_recipe.keys() | recorded.keys()):
        if wanted_recipe.get(name) != recorded.get(name):
            told.append(_difference(name, wanted_recipe.get(name), recorded.get(name)))
    start = "random"
    if row.coco:
        start = f"COCO ({init.name})" if init else "COCO ("
    if not run.initialisation.startswith(start):
        told.append(_difference("start", start, run.initialisation))
    return told


def _difference(name: str, wanted: object, there: object) -> str:
    return f"{name} is {there!r}, the row has {wanted!r}"


def adopted_row(
    run: RunRecord, rows: tuple[Row, ...], *, data_root: Path, init: Path | None
) -> Row:
    """The row that a run made elsewhere is.

    Raises:
        DatasetError: if the run is not finished, or is no row of the plan; the message says how it
            differs from the nearest row.
    """
    if run.finished_at is None:
        raise DatasetError(
            f"Run {run.id} cannot be adopted: it is not finished, {run.epochs} of "
            f"{run.epochs_planned} epochs are done."
        )
    nearest: tuple[int, str, str] | None = None
    for row in rows:
        told = differences(row, run, init=init)
        if not told:  # only then open the data set
            told = differences(row, run, dataset=open_row(row, data_root), init=init)
        if not told:
            return row
        if nearest is None or len(told) < nearest[0]:
            nearest = len(told), row.id, told[0]
    if nearest is None:
        raise DatasetError(f"Run {run.id} cannot be adopted: the plan has no rows.")
    count, row_id, first = nearest
    more = f" and {count - 1} more" if count > 1 else ""
    raise DatasetError(
        f"Run {run.id} is no row of this plan: it differs from {row_id} in that {first}{more}."
    )
