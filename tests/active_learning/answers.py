"""Predictions, releases and inspections made by hand, for the tests of this room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np

from core.records import FoundBox, FoundSegment, ImageFacts, Inspection, ReleaseConfig, RunRecord
from core.types import Classification, Detections, Provenance, Segmentation, Task

NEU = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
SEEN = Provenance("grace", "abcabcabcabc", "0" * 64, width=200, height=200, latency_ms=12.3456)
Claim = tuple[str, float, tuple[float, float, float, float]]  # label, probability, box


def release(task: Task, **fields: Any) -> ReleaseConfig:
    """A release of a model called grace; fields as in ReleaseConfig."""
    run = RunRecord(
        id="run",
        model="grace",
        scale="n",
        dataset="neu-det",
        protocol="leak-free",
        dataset_id="d",
        test_id="t",
        labels=NEU,
        image_size=64,
        epochs=1,
        epochs_planned=1,
        seed=0,
        recipe={},
        initialisation="random",
        parameters=1,
        gflops=1.0,
        machine="none",
        precision="fp32",
        git_commit="c",
        started_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    return ReleaseConfig(
        name="grace",
        title="GRACE",
        task=task,
        scale="n",
        labels=NEU,
        image_size=64,
        dataset="neu-det",
        protocol="leak-free",
        parameters=1,
        gflops=1.0,
        weights_sha256="abc" * 21 + "a",
        run=run,
        **fields,
    )


def boxes(*found: Claim) -> Detections:
    """What a detector of the NEU classes says; scores as given, highest first."""
    return Detections(
        xyxy=np.array([box for _, _, box in found], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in found], np.float32),
        class_ids=np.array([NEU.index(label) for label, _, _ in found], np.int64),
        labels=NEU,
        source=SEEN,
    )


def mask(class_map: np.ndarray, scores: np.ndarray, labels: Sequence[str]) -> Segmentation:
    """What a segmenter says."""
    return Segmentation(class_map.astype(np.uint8), scores.astype(np.float32), tuple(labels), SEEN)


def classes(**probabilities: float) -> Classification:
    """What a classifier of just these classes says."""
    values = np.array(list(probabilities.values()), np.float32)
    return Classification(values, tuple(probabilities), SEEN)


def _inspection(model: str, task: Task, **found: Any) -> Inspection:
    return Inspection(
        model=model,
        revision="r",
        task=task,
        image=ImageFacts(sha256="0" * 64, width=200, height=200),
        uncertainty=0.0,
        verdict="defect",
        latency_ms=1.0,
        **found,
    )


def by_detector(model: str, *found: Claim) -> Inspection:
    """A detector's inspection of a 200 x 200 image."""
    claims = (FoundBox(label=label, score=p, probability=p, box=box) for label, p, box in found)
    return _inspection(model, "detect", detections=tuple(claims))


def by_segmenter(model: str, *found: Claim) -> Inspection:
    """A segmenter's inspection of a 200 x 200 image."""
    claims = (FoundSegment(label=label, area_px=9, box=box, score=p) for label, p, box in found)
    return _inspection(model, "segment", segments=tuple(claims))


def by_classifier(model: str, probabilities: Mapping[str, float]) -> Inspection:
    """A classifier's inspection of a 200 x 200 image."""
    return _inspection(model, "classify", probabilities=dict(probabilities))
