"""From a detector's raw output to boxes: candidates, suppression, the way out of the letterbox."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.geometry import Letterbox
from core.types import FloatArray

NMS_IOU = 0.6  # two boxes of one class overlapping more than this are one finding
MAX_DETECTIONS = 300  # per image
MAX_CANDIDATES = 3000  # per image, before suppression

Boxes = tuple[FloatArray, FloatArray, NDArray[np.int64]]  # xyxy (n, 4), scores (n,), ids (n,)


def decode_boxes(
    rows: Tensor, frame: Letterbox, width: int, height: int, threshold: float
) -> Boxes:
    """Boxes in px of what was letterboxed, highest score first; one place may have two classes.

    Args:
        rows: (4 + C, A), centre x and y, width and height in px, and a score per class.
        frame: how a picture of width × height px was fitted into the network's square.
        width: of that picture, px.
        height: of that picture, px.
        threshold: lowest score.
    """
    class_ids, anchors = torch.nonzero(rows[4:] >= threshold, as_tuple=True)
    scores = rows[4:][class_ids, anchors]
    if len(scores) > MAX_CANDIDATES:
        scores, keep = scores.topk(MAX_CANDIDATES)
        class_ids, anchors = class_ids[keep], anchors[keep]
    centre, size = rows[:2, anchors].T, rows[2:4, anchors].T
    xyxy = torch.cat((centre - size / 2, centre + size / 2), dim=1)
    kept = suppress(xyxy, scores, class_ids)
    boxes = frame.to_source(xyxy[kept].numpy(), width, height)
    return boxes, scores[kept].numpy(), class_ids[kept].numpy()


def suppress(xyxy: Tensor, scores: Tensor, class_ids: Tensor) -> Tensor:
    """Which boxes stay when those of one class that overlap become one; highest score first."""
    from torchvision.ops import batched_nms

    kept: Tensor = batched_nms(xyxy, scores, class_ids, NMS_IOU)[:MAX_DETECTIONS]
    return kept
