"""Inspections made by hand, on a grey picture of 100 × 100 px."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.geometry import mask_record, regions
from core.records import FoundBox, ImageFacts, Inspection, Verdict
from core.types import Image

LABELS = ("inclusion", "patches", "scratches")
GREY = 120


def picture(width: int = 100, height: int = 100) -> Image:
    return np.full((height, width, 3), GREY, dtype=np.uint8)


def detection(
    *found: tuple[str, float, tuple[float, float, float, float]], **more: Any
) -> Inspection:
    boxes = tuple(FoundBox(label=label, score=p, probability=p, box=box) for label, p, box in found)
    return _inspection("detect", detections=boxes, **more)


def tolerated(inspection: Inspection, *places: int, verdict: Verdict = "accept") -> Inspection:
    """The same where the rules let these detections, or these regions of a mask, stay."""
    field = "segments" if inspection.task == "segment" else "detections"
    found = tuple(
        one.model_copy(update={"tolerated": k in places})
        for k, one in enumerate(getattr(inspection, field))
    )
    return inspection.model_copy(update={field: found, "verdict": verdict})


def segmentation() -> Inspection:
    """Scratches (class 3) on rows 20 to 39 and columns 10 to 49: 20 × 40 = 800 px."""
    class_map = np.zeros((100, 100), dtype=np.uint8)
    class_map[20:40, 10:50] = 3
    scores = np.full((100, 100), 0.9, dtype=np.float32)
    return _inspection(
        "segment",
        segments=tuple(regions(class_map, scores, LABELS)),
        mask=mask_record(class_map, len(LABELS)),
    )


def classification(**probabilities: float) -> Inspection:
    return _inspection("classify", probabilities=probabilities)


def _inspection(task: Any, **fields: Any) -> Inspection:
    given = {
        "model": "grace",
        "revision": "abc123",
        "task": task,
        "image": ImageFacts(sha256="f" * 64, width=100, height=100),
        "uncertainty": 0.2,
        "verdict": "defect",
        "latency_ms": 23.1,
    }
    return Inspection(**{**given, **fields})
