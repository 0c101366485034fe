"""From a detector's raw output to boxes: candidates, suppression, the way out of the letterbox."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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

    What is found in the padding alone is left out.

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
    boxes = torch.from_numpy(frame.to_source(xyxy.numpy(), width, height))
    # What lies in the padding alone is cut down to a line: it is nowhere in the picture.
    inside = torch.nonzero((boxes[:, 2:] > boxes[:, :2]).all(1))[:, 0]
    kept = inside[suppress(xyxy[inside], scores[inside], class_ids[inside])]
    return boxes[kept].numpy(), scores[kept].numpy(), class_ids[kept].numpy()


def suppress(xyxy: Tensor, scores: Tensor, class_ids: Tensor) -> Tensor:
    """Which boxes stay when those of one class that overlap become one; highest score first.

    Args:
        xyxy: (n, 4).
        scores: (n,).
        class_ids: (n,).

    Returns:
        Their numbers, at most MAX_DETECTIONS.
    """
    if not len(xyxy):
        return class_ids
    # Classes lie side by side, too far apart to overlap; in float64, where that moves no edge.
    width = xyxy.max() - xyxy.min() + 1
    apart = xyxy.double() + (class_ids * width)[:, None]
    kept: Tensor = _suppressing()(apart, scores.double(), NMS_IOU)
    return kept[:MAX_DETECTIONS]


@cache
def _suppressing() -> Callable[[Tensor, Tensor, float], Tensor]:
    """torchvision's kernel for boxes of one class, without its Python half.

    Importing that brings in most of torch's compiler, and takes longer than all else between the
    start of the app and its first answer.
    """
    package = find_spec("torchvision")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("torchvision is not installed; requirements.txt names it.")
    [library] = Path(package.origin).parent.glob("_C.*")
    load: Any = torch.ops.load_library  # untyped
    load(str(library))
    kernel: Callable[[Tensor, Tensor, float], Tensor] = torch.ops.torchvision.nms
    return kernel
