"""What a release finds and what it invents, by score threshold: the counts, and what they say.

Average precision sums over all thresholds; whoever uses a model uses one. These are the two rates
that a threshold trades: how many of the defects are found, and how many findings are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from pydantic import ValidationError, model_validator

from core.errors import WeightsError
from core.records import Record, ReleaseConfig

Counted = dict[str, tuple[int, ...]]  # by class, at each threshold


@dataclass(frozen=True, slots=True)
class Rates:
    """What to expect from a threshold on; shares in [0, 1]."""

    found: float  # of the labelled defects
    wrong: float  # of the findings; 0 where there are none
    wrong_per_image: float


class OperatingCurve(Record):
    """Findings of a release counted on its own validation images, at thresholds that rise.

    A labelled defect is *found* where findings of its class cover at least a tenth of it. A finding
    is *wrong* where less than a tenth of it lies on what is labelled with its class.
    """

    n: int  # images
    thresholds: tuple[float, ...]  # of the score of a finding that is shown
    defects: dict[str, int]  # labelled, by class
    found: Counted
    findings: Counted
    wrong: Counted

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n < 1 or not self.thresholds or np.any(np.diff(self.thresholds) <= 0):
            raise ValueError("it needs images, and thresholds that rise")
        for counted in (self.found, self.findings, self.wrong):
            if counted.keys() != self.defects.keys():
                raise ValueError("the classes are not the same everywhere")
            if any(len(counts) != len(self.thresholds) for counts in counted.values()):
                raise ValueError("every threshold needs a count of every class")
        return self

    def at(self, threshold: float, label: str | None = None) -> Rates | None:
        """The rates from a threshold on, of one class or of all together.

        Between two thresholds that were counted, counts are interpolated; beyond them the nearest
        one's are taken.

        Returns:
            None where no defect was labelled, so that there was nothing to find.
        """
        labels = list(self.defects) if label is None else [label]
        defects = sum(self.defects[name] for name in labels)
        if not defects:
            return None

        def count(counted: Mapping[str, tuple[int, ...]]) -> float:
            total = np.sum([counted[name] for name in labels], axis=0)
            return float(np.interp(threshold, self.thresholds, total))

        findings, wrong = count(self.findings), count(self.wrong)
        return Rates(
            found=count(self.found) / defects,
            wrong=wrong / findings if findings else 0.0,
            wrong_per_image=wrong / self.n,
        )


def read_operating(config: ReleaseConfig) -> OperatingCurve | None:
    """The curve of a release; None where none was counted.

    Raises:
        WeightsError: if it is damaged.
    """
    return parse_operating(config.operating, f"{config.name} {config.revision}")


def parse_operating(stored: Mapping[str, Any], whose: str) -> OperatingCurve | None:
    """As `read_operating`, from what a release or a committee has stored.

    Raises:
        WeightsError: if it is damaged.
    """
    if not stored:
        return None
    try:
        return OperatingCurve.model_validate(stored)
    except ValidationError as exc:
        raise WeightsError(
            f"What {whose} finds by threshold is damaged: {exc.errors()[0]['msg']}."
        ) from exc
