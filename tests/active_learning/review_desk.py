"""A queue, an inbox and items for tests that talk to a real Label Studio."""

from __future__ import annotations

import random
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from active_learning.inbox import Inbox, Taken
from active_learning.label_studio import LabelStudio
from active_learning.labelling import Labelling
from active_learning.pull import SweepReport, pull, sweep
from active_learning.push import PushReport, Ranking, push
from active_learning.queue import OnPoint, ReviewQueue
from core.geometry import mask_record
from core.images import ImageStore, decode
from core.ledger import Clock, Ledger, open_ledger
from core.records import FoundBox, FoundSegment, ImageFacts, Inspection, ReviewItem

LABELLING = Labelling(
    boxes=("crazing", "scratches"), masks=("inclusion", "patches"), choices=("red iron", "slag")
)
MASK_LABELS = {"a segmenter": ("inclusion", "patches")}


def picture(seed: int = 0, *, kind: str = "PNG") -> bytes:
    """60 x 40 px of noise; another seed is another image."""
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60), dtype=np.uint8)
    out = BytesIO()
    Image.fromarray(pixels).save(out, format=kind)
    return out.getvalue()


def inspections(image: bytes) -> list[Inspection]:
    """What a detector, a segmenter and a classifier might say about it."""
    decoded = decode(image)
    class_map = np.zeros((decoded.height, decoded.width), dtype=np.uint8)
    class_map[5:9, 10:30], class_map[20:30, 40:50] = 1, 2
    common: dict[str, Any] = {
        "revision": "0" * 12,
        "image": ImageFacts(sha256=decoded.sha256, width=decoded.width, height=decoded.height),
        "uncertainty": 0.6,
        "verdict": "review",
        "latency_ms": 1.0,
    }
    box = FoundBox(label="crazing", score=0.5, probability=0.4, box=(6.0, 4.0, 30.5, 24.25))
    part = FoundSegment(label="patches", area_px=100, box=(40, 20, 50, 30), score=0.7)
    mask = mask_record(class_map, 2)
    p = {"red iron": 0.7, "slag": 0.3}
    return [
        Inspection(model="a detector", task="detect", detections=(box,), **common),
        Inspection(model="a segmenter", task="segment", segments=(part,), mask=mask, **common),
        Inspection(model="a classifier", task="classify", probabilities=p, **common),
    ]


@dataclass
class Desk:
    """Our side of one project, with everything a pass needs."""

    ledger: Ledger
    queue: ReviewQueue
    inbox: Inbox

    def flag(self, seed: int, *, priority: float = 0.5, whole: bool = True) -> ReviewItem:
        """Put the picture of this seed into the queue."""
        image = picture(seed)
        return self.queue.add(
            image,
            inspections=inspections(image) if whole else (),
            reasons=["crazing 0.40 is between not sure and sure"],
            priority=priority,
        )

    def push(self, studio: LabelStudio, *, budget: int = 1000, **more: Any) -> PushReport:
        ranking = Ranking(budget=budget, random_share=0.0, labelled_counts={}, seed=0)
        given: dict[str, Any] = {
            "labelling": LABELLING,
            "mask_labels": MASK_LABELS,
            "ranking": ranking,
            "settle_s": 0.0,
            "jitter": _NoWait(),
        }
        return push(self.queue, studio, **given | more)

    def pull(self, studio: LabelStudio, on_point: OnPoint | None = None) -> Taken:
        return pull(self.queue, self.inbox, studio, labelling=LABELLING, on_point=on_point)

    def sweep(self, studio: LabelStudio, **more: Any) -> SweepReport:
        return sweep(self.queue, self.inbox, studio, labelling=LABELLING, settle_s=0.0, **more)

    def item(self, item_id: str) -> ReviewItem:
        item = self.queue.get(item_id)
        assert item is not None
        return item


def open_test_desk(
    folder: Path, project: str, *, on_point: OnPoint | None = None, clock: Clock | None = None
) -> Desk:
    """The desk of a folder; opened again it is the same one."""
    ledger = open_ledger(f"sqlite:///{folder / 'ledger.db'}", clock=clock)
    queue = ReviewQueue(
        ledger,
        ImageStore(folder / "images"),
        project=project,
        config_revision=LABELLING.revision,
        who="tests",
        on_point=on_point,
    )
    return Desk(ledger, queue, Inbox(ledger, project=project, who="tests"))


class _NoWait(random.Random):
    """Draws the shortest wait there is: tests do not sleep."""

    def uniform(self, a: float, b: float) -> float:
        return a
