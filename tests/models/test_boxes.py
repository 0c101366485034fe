"""Suppression of boxes that overlap, beside the library whose kernel it calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torchvision.ops import batched_nms

from core.geometry import Letterbox
from models._boxes import MAX_DETECTIONS, NMS_IOU, decode_boxes, suppress

ROOT = Path(__file__).parents[2]
_SERVES = """
import sys
from pathlib import Path
import models
from core.images import decode
grace = models.load(Path("hub/bundled/grace"))
[found] = grace([decode(next(Path("demo/examples").glob("*.jpg")))], score_threshold=0.05)
assert len(found), "nothing to suppress"
print(*sorted({name.split(".")[0] for name in sys.modules} & {"torchvision", "sympy"}))
"""


@pytest.mark.parametrize("count", [1, 7, 60, 900, 1500])  # above 1000 torchvision goes another way
def test_the_boxes_that_stay_are_those_of_torchvision(count: int) -> None:
    random = torch.Generator().manual_seed(count)
    centre = torch.rand(count, 2, generator=random) * 320
    side = 5 + torch.rand(count, 2, generator=random) * 115
    xyxy = torch.cat((centre - side / 2, centre + side / 2), dim=1)  # some reach below 0
    scores = torch.randperm(count, generator=random) / count  # no two are equal
    class_ids = torch.randint(0, 6, (count,), generator=random)
    expected = batched_nms(xyxy, scores, class_ids, NMS_IOU)[:MAX_DETECTIONS]
    assert suppress(xyxy, scores, class_ids).tolist() == expected.tolist()


def test_an_overlap_of_exactly_the_limit_leaves_both() -> None:
    # 3 × 1 within 5 × 1: IoU 3 / 5 = 0.6, which is not more than 0.6.
    xyxy = torch.tensor([[0.0, 0.0, 5.0, 1.0], [1.0, 0.0, 4.0, 1.0]])
    assert suppress(xyxy, torch.tensor([0.9, 0.8]), torch.tensor([3, 3])).tolist() == [0, 1]


def test_of_no_boxes_none_stay() -> None:
    none = torch.zeros(0)
    assert suppress(none.reshape(0, 4), none, none.long()).tolist() == []


def test_what_is_found_in_the_padding_alone_is_no_finding() -> None:
    """A picture of 200 x 100 px lies in rows 16 to 48 of a square of 64, 0.32 of its size."""
    rows = torch.tensor(
        [
            # centre x and y, width and height, score; from left to right: in the padding above,
            # in the picture, and half in the padding below
            [32.0, 32.0, 16.0],
            [8.0, 32.0, 48.0],
            [16.0, 16.0, 16.0],
            [12.0, 16.0, 16.0],
            [0.9, 0.8, 0.7],
        ]
    )
    boxes, scores, class_ids = decode_boxes(rows, Letterbox(0.32, 0, 16), 200, 100, 0.05)
    # x: (32 - 8) / 0.32 = 75, y: (32 - 8 - 16) / 0.32 = 25; the last from (40 - 16) / 0.32 = 75
    assert boxes.tolist() == [[75.0, 25.0, 125.0, 75.0], [25.0, 75.0, 75.0, 100.0]]
    assert scores.tolist() == pytest.approx([0.8, 0.7])
    assert class_ids.tolist() == [0, 0]


def test_a_square_without_a_finding_in_the_picture_gives_none() -> None:
    rows = torch.tensor([[32.0], [8.0], [16.0], [12.0], [0.9]])
    boxes, scores, class_ids = decode_boxes(rows, Letterbox(0.32, 0, 16), 200, 100, 0.05)
    assert (boxes.shape, scores.shape, class_ids.shape) == ((0, 4), (0,), (0,))


def test_an_answer_needs_no_import_of_torchvision() -> None:
    """It brings in most of torch's compiler, sympy among it: seconds of every start."""
    said = subprocess.run(
        [sys.executable, "-c", _SERVES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (said.returncode, said.stdout.strip()) == (0, ""), said.stderr
