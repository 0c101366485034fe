"""What a model file declares about itself. No torch here: a spec is only a description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from core.types import Task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Paper:
    """Where a model was published."""

    title: str
    authors: str
    venue: str
    year: int
    doi: str = ""
    code: str = ""  # what the authors published of their code, in words
    caveat: str = ""  # what its numbers were measured on, where that makes them easy: a sentence


@dataclass(frozen=True, slots=True)
class ReportedMetric:
    """A number the paper prints; never measured by us."""

    name: str
    value: float  # fraction in [0, 1], unless the name carries a unit
    dataset: str
    split: str = ""
    where: str = ""


SHORT = 0.5  # of a recipe's epochs: runs of fewer are short


@dataclass(frozen=True, slots=True)
class Recipe:
    """Training hyper-parameters; a run may override any of them and records what it used.

    `lr0` is the initial learning rate at `batch`; `patience` counts epochs without a better
    validation metric (None: train to the end); `extra` holds what only one trainer understands.
    `in_short` holds options, as a run's overrides, for runs of less than half the `epochs`: only
    what was measured there to be better than the paper's way.
    """

    epochs: int
    batch: int
    optimizer: str  # SGD | Adam | AdamW
    lr0: float
    lrf: float = 0.01  # final learning rate as a fraction of lr0
    momentum: float = 0.937
    weight_decay: float = 5e-4
    warmup_epochs: float = 3.0
    cosine: bool = False
    patience: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    in_short: dict[str, Any] = field(default_factory=dict)

    def is_short(self, epochs: int) -> bool:
        """Whether a run of so many epochs is too short for the paper's own way."""
        return epochs < SHORT * self.epochs


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything the trainer, the app, the cards and the hub need to know about a model.

    `build(n_classes, scale)` returns the network with random weights. A detector's network is an
    ultralytics `DetectionModel`; a segmenter maps (N, 3, H, W) to logits (N, 1 + n_classes, H, W),
    channel 0 being background; a classifier maps to logits (N, n_classes). `criterion(network)`
    returns a replacement for the trainer's own loss, and `losses` others by name, which a run may
    take instead of it (a segmenter's or classifier's); `sampler(labels_per_image, n_classes, seed)`
    one for uniform sampling, and `on_epoch(network, epoch)` is called before each training epoch.
    `fold(network)` folds, in place and for inference alone, what ultralytics' `fuse` leaves.
    Of several reported metrics of one name and data set the first is the full model's.
    `coco_layers` is for a detector that moves or replaces layers of YOLO11: the index of each layer
    that stayed -> its index in the stock network, for starting from COCO arrays (None: all stayed).
    """

    name: str
    title: str
    task: Task
    image_size: int  # px, square
    build: Callable[[int, str], nn.Module]
    scales: tuple[str, ...]
    default_scale: str
    recipe: Recipe
    paper: Paper | None = None
    criterion: Callable[[Any], Any] | None = None
    losses: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    sampler: Callable[..., Any] | None = None
    on_epoch: Callable[[Any, int], None] | None = None
    fold: Callable[[Any], None] | None = None
    reported: tuple[ReportedMetric, ...] = ()
    departures: tuple[str, ...] = ()
    # module whose pooled output is the image's embedding
    feature_layer: str = ""
    # modules whose maps a heat map is read from, where that is not the head's inputs (detectors) or
    # the feature layer alone (the others)
    explained_layers: tuple[str, ...] = ()
    coco_layers: Mapping[int, int] | None = None
