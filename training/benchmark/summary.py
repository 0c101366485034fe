"""What the seeds of one network say together: means, spreads, differences to a baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from core.errors import DatasetError
from training.benchmark.matching import differences
from training.benchmark.records import UNIT, RowRecord
from training.benchmark.rows import Row


@dataclass(frozen=True)
class Line:
    """One network of a section with the records of its seeds; `rows` includes those not run."""

    rows: tuple[Row, ...]
    records: tuple[RowRecord, ...]

    @property
    def row(self) -> Row:
        """The first of its rows; all differ in the seed only."""
        return self.rows[0]

    @cached_property
    def by_seed(self) -> Mapping[int, RowRecord]:
        """Its records by seed."""
        return {record.run.seed: record for record in self.records}

    def values(self, metric: str, label: str | None = None) -> list[float]:
        """A metric (of a class) for each seed; a seed that did not measure the class is left out.

        Raises:
            KeyError: if the metric was not measured.
        """
        metrics = [record.evaluation.metric(metric) for record in self.records]
        if label is None:
            return [m.value for m in metrics]
        return [m.per_class[label] for m in metrics if label in m.per_class]


@dataclass(frozen=True, slots=True)
class Difference:
    """By how much a network exceeds another, as fractions; `low` to `high` or `spread` tells how
    sure that is: a paired bootstrap of one seed, or the standard deviation over several.
    """

    value: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None


def lines(rows: Iterable[Row], records: Mapping[str, RowRecord]) -> tuple[Line, ...]:
    """The networks of one section in the order of the plan.

    A record that is not what its row asks for any more does not count.

    Raises:
        DatasetError: if two records were measured on different test splits.
    """
    members: dict[str, list[Row]] = {}
    for row in rows:
        members.setdefault(row.network, []).append(row)
    found = tuple(
        Line(
            tuple(own),
            tuple(
                records[row.id]
                for row in own
                if row.id in records and not differences(row, records[row.id].run)
            ),
        )
        for own in members.values()
    )
    tests = {r.evaluation.test_id: r.row for line in found for r in line.records}
    if len(tests) > 1:
        raise DatasetError(
            f"Rows {' and '.join(sorted(tests.values())[:2])} were measured on different test "
            "splits: they cannot stand in one table; remove the older record."
        )
    return found


def is_shown(found: Sequence[Line]) -> bool:
    """Whether a section has something to show besides its references."""
    return any(line.records and not line.row.reference for line in found)


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for the latter of a single value."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), spread


def difference(line: Line, baseline: Line, metric: str) -> Difference | None:
    """Line minus baseline in a metric over their common seeds; None if there is none.

    One common seed: with the 95 % interval of the paired bootstrap, where both records kept the
    metric's. Several: with the spread of the paired differences.
    """
    common = sorted(line.by_seed.keys() & baseline.by_seed.keys())
    if not common:
        return None
    pairs = [(line.by_seed[seed], baseline.by_seed[seed]) for seed in common]
    gains = [
        a.evaluation.metric(metric).value - b.evaluation.metric(metric).value for a, b in pairs
    ]
    mean, spread = mean_and_spread(gains)
    if spread is not None:
        return Difference(mean, spread=spread)
    ours, theirs = (np.array(record.resamples.get(metric, ())) for record in pairs[0])
    if not len(ours) or len(ours) != len(theirs):
        return Difference(mean)
    low, high = np.quantile((ours - theirs) / UNIT, (0.025, 0.975))
    return Difference(mean, low=float(low), high=float(high))
