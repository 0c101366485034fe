"""What the promotion gate is given and what it says: records between training and the shelf.

A `Trial` is one release measured on a frozen test split, with the bootstrap that pairing needs. A
`Decision` is the gate's answer about two of them, with every number it was taken on.
"""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ConfigDict, Field

from core.records import Evaluation, Record
from core.types import Task

# The metric that decides, which must also be known per class.
PRIMARY: Final[dict[Task, str]] = {
    "detect": "mAP50_95",
    "segment": "mIoU",
    "classify": "macro_F1",
}
# The metric by which one release is measured in two ways: at another size, in another runtime.
HEADLINE: Final[dict[Task, str]] = {**PRIMARY, "classify": "accuracy"}
CheckName = Literal["metric", "classes", "calibration", "latency", "golden"]


class Trial(Record):
    """One release on one frozen test split, in fractions; resample k of two trials is paired.

    `class_resamples` holds NaN where a resample shows nothing of a class. `golden` names what must
    be found on the golden images, `golden_found` what this release found of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    evaluation: Evaluation
    metric: str  # the one that decides
    resamples: tuple[float, ...]
    class_resamples: dict[str, tuple[float, ...]]
    support: dict[str, int]  # test images that show each class
    calibration_error: float  # D-ECE or ECE of the calibrated probabilities
    latency_ms: float  # median of one image, both releases timed in turns
    groups: int | None = None  # of related test images, which are drawn; older trials do not know
    golden: tuple[str, ...] = ()
    golden_found: tuple[str, ...] = ()


class Check(Record):
    """One rule of the gate and how it came out, in a sentence with its numbers."""

    name: CheckName
    passed: bool
    sentence: str


class ClassChange(Record):
    """One class before and after; `low` and `high` bound the change (95 %, paired bootstrap)."""

    label: str
    before: float
    after: float
    low: float
    high: float
    support: int  # test images that show it
    is_counted: bool  # enough of them to judge by
    has_fallen: bool


class Decision(Record):
    """The gate's verdict about a candidate, with its numbers."""

    model: str
    promote: bool
    reasons: tuple[str, ...]
    candidate: str  # revision
    incumbent: str  # revision
    dataset: str
    test_id: str
    n: int  # test images
    metric: str
    before: float
    after: float
    low: float  # of after - before: 95 %, paired bootstrap
    high: float
    classes: tuple[ClassChange, ...]
    checks: tuple[Check, ...]
    rules: dict[str, float] = Field(default_factory=dict)
