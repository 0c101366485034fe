"""Records of benchmark rows written down by hand, for pages that must say just what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from core.records import Evaluation, Metric, RunRecord
from models import get_spec
from training.benchmark.records import RowRecord
from training.benchmark.rows import Row
from training.launch import recipe_of
from training.metrics import classification_scores, per_class


def record(
    row: Row,
    values: Mapping[str, float],
    *,
    per_class: Mapping[str, Mapping[str, float]] | None = None,
    interval: tuple[float, float] | None = None,
    confusion: Sequence[Sequence[int]] = (),
    labels: tuple[str, ...] = ("dent", "scale"),
    validation: Mapping[str, float] | None = None,
    resamples: Mapping[str, tuple[int, ...]] | None = None,
    test_id: str = "t" * 64,
) -> RowRecord:
    """A finished row whose evaluation has these metrics; `interval` is around each of them."""
    setting = row.setting
    recipe = recipe_of(
        get_spec(row.model), epochs=setting.epochs, batch=setting.batch, overrides=row.overrides
    )
    run = RunRecord(
        id=row.id,
        model=row.model,
        scale=row.scale,
        dataset=row.data,
        protocol=row.protocol,
        dataset_id="d" * 64,
        test_id=test_id,
        labels=labels,
        image_size=setting.image_size,
        epochs=setting.epochs,
        epochs_planned=setting.epochs,
        seed=row.seed,
        recipe=recipe,
        initialisation="COCO (yolo11n.npz), 150 arrays" if row.coco else "random",
        parameters=1_234_567,
        gflops=1.5,
        machine="a machine",
        precision="fp32",
        git_commit="c" * 40,
        started_at=datetime(2026, 11, 21, tzinfo=UTC),
        finished_at=datetime(2026, 11, 21, 1, tzinfo=UTC),
        wall_time_s=600.0,
        weights_sha256="a" * 64,
        best_epoch=1,
        validation=dict(validation or {}),
    )
    low, high = interval or (None, None)
    metrics = tuple(
        Metric(
            name=name,
            value=value,
            low=low,
            high=high,
            per_class=dict((per_class or {}).get(name, {})),
            n=40,
        )
        for name, value in values.items()
    )
    evaluation = Evaluation(
        model=row.model,
        revision="a" * 12,
        dataset=row.data,
        protocol=row.protocol,
        split="test",
        test_id=test_id,
        metrics=metrics,
        confusion=tuple(tuple(line) for line in confusion),
    )
    return RowRecord(row=row.id, run=run, evaluation=evaluation, resamples=dict(resamples or {}))


def classified(
    row: Row,
    confusion: Sequence[Sequence[int]],
    *,
    labels: tuple[str, ...] = ("dent", "scale"),
    validation: Mapping[str, float] | None = None,
) -> RowRecord:
    """A classifier's row that made these mistakes; all metrics follow from the matrix."""
    matrix = np.array(confusion)
    classes = per_class(matrix)
    named = {
        name: {k: float(v) for k, v in zip(labels, classes[source], strict=True)}
        for name, source in (("macro_F1", "F1"), ("recall", "recall"), ("precision", "precision"))
    }
    return record(
        row,
        {name: float(value) for name, value in classification_scores(matrix).items()},
        per_class=named,
        confusion=confusion,
        labels=labels,
        validation=validation,
    )
