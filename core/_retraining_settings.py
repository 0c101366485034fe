"""When a model is trained again, and what a candidate must show: the settings' group about it."""

from __future__ import annotations

from pydantic import Field

from core._settings_parts import Fraction, Group, PathToBe


class RetrainingSettings(Group):
    """When a model is trained again, and what it must show to be served."""

    min_new_annotations: int = Field(
        50, ge=1, le=1_000_000, description="Reviewed images since the last run; a count."
    )
    min_urgent_annotations: int = Field(
        10,
        ge=1,
        le=1_000_000,
        description="Reviewed images that suffice when a class is short of labels or the incoming "
        "images have drifted; a count.",
    )
    class_share: Fraction = Field(
        0.5,
        description="A class is short of labels below this share of an equal part of all training "
        "labels; a fraction in [0, 1].",
    )
    drift_threshold: float = Field(
        0.25,
        gt=0,
        le=10,
        description="Population stability index from which on incoming images have drifted; a "
        "number, 0 is no drift.",
    )
    drift_window: int = Field(
        500,
        ge=100,
        le=100_000,
        description="Latest inspections of a model that are compared with its training images; a "
        "count.",
    )
    min_hours: float = Field(
        24, ge=0, le=8760, description="Least time between the starts of two runs; hours."
    )
    max_days: float = Field(
        30,
        gt=0,
        le=3650,
        description="Time since the last run after which any new review is reason for one; days.",
    )
    time_budget_min: float = Field(
        240, gt=0, le=43_200, description="Longest a run may take; minutes."
    )
    poll_min: float = Field(
        15, gt=0, le=1440, description="Time between two looks of the watcher; minutes."
    )
    order_hours: float = Field(
        24,
        gt=0,
        le=8760,
        description="Time for which a training asked for on the page waits for a pass; hours.",
    )
    epochs: int = Field(20, ge=1, le=10_000, description="Longest a candidate is trained; epochs.")
    balance: str = Field(
        "auto",
        min_length=1,
        description="What a run does about rare classes, `auto` for what was measured best; the "
        "name of a method.",
    )
    epsilon: Fraction = Field(
        0,
        description="How much worse than the live model a candidate may be, at the lower end of "
        "the 95 % interval; a fraction in [0, 1].",
    )
    class_margin: Fraction = Field(
        0.03, description="How far the metric of a class may fall; a fraction in [0, 1]."
    )
    min_class_images: int = Field(
        10, ge=1, le=1_000_000, description="Test images from which on a class is judged; a count."
    )
    calibration_margin: Fraction = Field(
        0.02, description="How far the calibration error may rise; a fraction in [0, 1]."
    )
    latency_factor: float = Field(
        1.25,
        ge=1,
        le=100,
        description="Longest time of an image over that of the live model; a ratio.",
    )
    golden: PathToBe | None = Field(
        None,
        description="File of names of images, one a line, of which nothing may be newly missed; "
        "empty: none; a path.",
    )
    shadow: PathToBe | None = Field(
        None,
        description="Release folder of a candidate that answers beside the live model, unseen; "
        "empty: none; a path.",
    )
    shadow_images: int = Field(
        200, ge=1, le=1_000_000, description="Images that such a candidate answers; a count."
    )
