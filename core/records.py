"""What is stored or sent: frozen pydantic models, JSON-serialisable, versioned by their fields.

Boxes are `(x1, y1, x2, y2)` pixels of the source image. Times are UTC. `ReleaseConfig` is the
`config.json` beside a release's weights; `Inspection` is what the app's API answers (contract).
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from core.taxonomy import native_side
from core.types import Task

Box = tuple[float, float, float, float]
Protocol = Literal["paper", "leak-free"]  # how a data set is divided; see `training.splits`
Verdict = Literal["accept", "defect", "review"]
Source = Literal["bundled", "local", "hub", "hub-cached"]
ReviewState = Literal["pending", "sending", "sent", "verified", "parked", "unknown"]
REVIEW_STATES: tuple[ReviewState, ...] = get_args(ReviewState)


class Record(BaseModel):
    """Base of every stored record: frozen, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Metric(Record):
    """One measured number with its bootstrap interval.

    `name` is one of mAP50, mAP50_95, precision, recall, mIoU, MPA, accuracy, macro_F1 …; `value`,
    `low` and `high` are fractions in [0, 1]; `n` counts the images the number was measured on.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    per_class: dict[str, float] = Field(default_factory=dict)
    n: int


class Evaluation(Record):
    """All metrics of one model on one frozen split."""

    model: str
    revision: str
    dataset: str
    protocol: Protocol
    split: str
    test_id: str  # SHA-256 of the sorted image hashes of the split
    metrics: tuple[Metric, ...]
    confusion: tuple[tuple[int, ...], ...] = ()  # rows truth, columns prediction
    settings: dict[str, Any] = Field(default_factory=dict)

    def metric(self, name: str) -> Metric:
        """The metric of that name; KeyError if it was not measured."""
        for metric in self.metrics:
            if metric.name == name:
                return metric
        raise KeyError(name)


class RunRecord(Record):
    """What a training run was: enough to repeat it and to print its model card."""

    id: str
    model: str
    scale: str
    dataset: str
    protocol: Protocol
    dataset_id: str  # SHA-256 of the sorted manifest of all splits
    test_id: str
    labels: tuple[str, ...]
    image_size: int  # px
    picture_px: int | None = None  # long side of the training pictures before scaling, median
    epochs: int  # epochs finished
    epochs_planned: int
    seed: int
    recipe: dict[str, Any]
    initialisation: str  # where the first weights came from, in words
    parent_revision: str | None = None
    parameters: int
    gflops: float  # 2 x MAC at image_size, batch 1
    machine: str
    precision: str
    git_commit: str
    started_at: datetime
    finished_at: datetime | None = None
    wall_time_s: float = 0.0
    weights_sha256: str = ""
    best_epoch: int | None = None
    validation: dict[str, float] = Field(default_factory=dict)  # of the epoch that was kept


# Of a file beside its config, never a path: configs come from anywhere.
PlainName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9]+$")]


class SideFile(Record):
    """A file that lies beside the weights of a release and belongs to them."""

    file: PlainName
    sha256: str


class Int8Loss(Record):
    """What 8-bit weights and activations cost a release on its own validation split."""

    metric: str
    fp32: float  # fraction, torch
    int8: float  # fraction, OpenVINO's quantised export
    image_size: int  # px that were looked at
    n: int  # images


class ReleaseConfig(Record):
    """`config.json` of a release: all that is needed to rebuild the network and to trust it."""

    format: Literal[1] = 1
    name: str
    title: str
    task: Task
    scale: str
    labels: tuple[str, ...]
    image_size: int  # px
    dataset: str
    protocol: Protocol
    parameters: int
    gflops: float
    weights_file: PlainName = "model.safetensors"
    weights_sha256: str
    score_threshold: float = 0.25  # of a finding worth showing, raw score
    # of a pixel, by label, in (0, 1); a segmenter without them takes the most probable class
    class_thresholds: dict[str, float] = Field(default_factory=dict)
    calibration: dict[str, Any] = Field(default_factory=dict)
    ask_from: float | None = None  # uncertainty from which a person is asked, if that was fitted
    novelty: SideFile | None = None  # what its training images look like to it, if that was fitted
    # how its images are spread in brightness and its opinions in class, if that was fitted
    drift: dict[str, Any] = Field(default_factory=dict)
    # what it finds and invents by score threshold (`core.operating`), if that was counted
    operating: dict[str, Any] = Field(default_factory=dict)
    int8: Int8Loss | None = None  # if that was measured
    run: RunRecord
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def side_files(self) -> tuple[SideFile, ...]:
        """What lies beside the weights and travels with them."""
        return (self.novelty,) if self.novelty else ()

    @property
    def tested(self) -> Evaluation | None:
        """What was measured on a test split: the leak-free one, else another; None without one."""
        tests = [e for e in self.evaluations if e.split == "test"]
        return next((e for e in tests if e.protocol == "leak-free"), tests[0] if tests else None)

    @property
    def native_px(self) -> int:
        """Long side of the pictures that the network has learned from: its scale, in px."""
        return native_side(self.dataset) or self.run.picture_px or self.image_size

    @property
    def revision(self) -> str:
        """Short name of these very weights: the first 12 hex digits of their SHA-256."""
        return self.weights_sha256[:12]


class ChannelMove(Record):
    """One change of the live revision: when, by whom, from what to what, and why."""

    at: datetime
    who: str
    what: Literal["promoted", "rolled back"]
    before: str | None  # revision; None: there was no release at all
    after: str
    why: str = ""


class Channel(Record):
    """Which revision of a model is live, which ones were before it (newest first), every move."""

    live: str
    previous: tuple[str, ...] = ()
    moves: tuple[ChannelMove, ...] = ()  # oldest first


class FoundBox(Record):
    """One finding of a detector; `score` is raw, `probability` calibrated.

    `tolerated`: the mill's rules let it stay; written only where it is so.
    """

    label: str
    score: float
    probability: float
    box: Box
    tolerated: bool = Field(False, exclude_if=lambda tolerated: not tolerated)


class FoundSegment(Record):
    """One connected region of a class map; `score` is its mean pixel probability.

    `tolerated` as in `FoundBox`.
    """

    label: str
    area_px: int
    box: Box
    score: float
    tolerated: bool = Field(False, exclude_if=lambda tolerated: not tolerated)


class FoundRepeat(Record):
    """Findings of one class at equal distances along a strip, as a damaged roll leaves them."""

    label: str
    axis: Literal["x", "y"]  # of the picture, which lies along the strip
    distance_px: float  # from one to the next
    deviation_px: float  # its standard error
    distance_mm: float | None = None  # where it is known how much steel a pixel shows
    diameter_mm: float | None = None  # of the roll that turns once in that distance
    places: int  # from the first to the last, those without a finding counted
    findings: tuple[int, ...]  # positions in `detections` or `segments`, from 0, along the strip
    false_alarms: float  # such rows expected by chance in a strip with as many findings


class MaskRLE(Record):
    """COCO run lengths, one string per label: `counts[k - 1]` is where the class map equals k."""

    size: tuple[int, int]  # H, W
    counts: tuple[str, ...]


class ImageFacts(Record):
    """Identity and size of the image that was inspected."""

    sha256: str
    width: int
    height: int


class Inspection(Record):
    """The whole answer about one image by one model; the schema of the public API."""

    model: str
    revision: str
    task: Task
    image: ImageFacts
    detections: tuple[FoundBox, ...] = ()
    segments: tuple[FoundSegment, ...] = ()
    probabilities: dict[str, float] = Field(default_factory=dict)
    mask: MaskRLE | None = None
    # Not sent and not stored where there is none, so that most answers are what they always were.
    repeats: tuple[FoundRepeat, ...] = Field(default=(), exclude_if=lambda found: not found)
    uncertainty: float
    verdict: Verdict
    reasons: tuple[str, ...] = ()
    review_item: str | None = None
    latency_ms: float


class Annotation(Record):
    """What a person or a public data set says about one image."""

    image_sha256: str
    width: int
    height: int
    boxes: tuple[tuple[str, Box], ...] = ()
    mask: MaskRLE | None = None
    mask_labels: tuple[str, ...] = ()
    label: str | None = None
    annotator: str
    created_at: datetime
    task_id: int | None = None
    annotation_id: int | None = None


class ReviewItem(Record):
    """One image that waits for a person, or has reached one; the same image is one item.

    `predictions` holds the last answer of each model, at most one a model. `next_attempt_at` is
    when the item may next be sent (pending) or asked about (unknown); None: at once.
    """

    id: str
    image_sha256: str
    project: str
    config_revision: str  # of the labelling configuration the item is made for
    dedupe_key: str  # SHA-256 of image, project and configuration: travels with the task
    predictions: tuple[Inspection, ...] = ()
    reasons: tuple[str, ...] = ()
    note: str = ""
    priority: float  # in [0, 1], higher is sooner
    state: ReviewState
    parked_reason: str | None = None
    last_error: str | None = None  # why the last attempt did not end well
    task_id: int | None = None
    attempts: int = 0  # how often sending began
    next_attempt_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


class DatasetVersion(Record):
    """One frozen state of a growing data set.

    `counts` gives for each split its images and, per label, its boxes (detect) or images. The test
    split is the same in every descendant of a data set, so their `test_id` is equal.
    """

    id: str  # SHA-256 of the sorted manifest
    parent: str | None
    dataset: str  # name of the public set it grew from
    folder: str  # its name among the prepared data sets
    protocol: Protocol
    counts: dict[str, dict[str, int]]
    test_id: str  # SHA-256 of the sorted image hashes of the test split
    reviewed: int  # images whose labels are a reviewer's
    created_at: datetime


class ServedModel(Record):
    """One line of `/models`."""

    name: str
    title: str
    task: Task
    revision: str
    labels: tuple[str, ...]
    metrics: tuple[Metric, ...]  # on a test split, if there was one
    protocol: Protocol | None = None  # of that split
    source: Source
    parameters: int
