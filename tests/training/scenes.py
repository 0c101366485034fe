"""What a detector said of an image, written as rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.detection_metrics import Scene

Truth = tuple[int, float, float, float, float]
Found = tuple[int, float, float, float, float, float]


def scene(truth: Sequence[Truth], found: Sequence[Found]) -> Scene:
    """Truth (class, x1, y1, x2, y2) and detections (class, score, x1, y1, x2, y2)."""
    there = np.array(truth, np.float64).reshape(-1, 5)
    said = np.array(found, np.float64).reshape(-1, 6)
    return Scene(
        truth=there[:, 1:],
        truth_ids=there[:, 0].astype(np.int64),
        boxes=said[:, 2:],
        scores=said[:, 1],
        class_ids=said[:, 0].astype(np.int64),
    )
