"""What the task of an item has to be: its picture and its prediction, made and checked here alone.

Made before an item is sent, and made again when its task is read back and compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from active_learning._review_rows import ReviewItemRow
from active_learning.label_format import (
    MODEL_VERSION,
    check_prediction,
    task_score,
    to_prediction,
)
from active_learning.label_studio import Project
from active_learning.queue import ReviewQueue
from active_learning.shown_image import ShownImage, shown_image
from core.records import Inspection, ReviewItem


class Outgoing:
    """Makes what is sent of the items of one project.

    Args:
        queue: of the project.
        project: in Label Studio.
        mask_labels: classes of each segmenter by its name, in the order of its mask.
    """

    def __init__(
        self, queue: ReviewQueue, project: Project, mask_labels: Mapping[str, Sequence[str]]
    ) -> None:
        self._images = queue.images
        self._config = project.config
        self._mask_labels = mask_labels
        self._priorities = _priorities(queue)

    def prepare(self, item: ReviewItem) -> tuple[ShownImage, dict[str, Any]]:
        """The picture and the prediction of an item.

        Raises:
            InputError: if the picture cannot be read.
            LabelFormatError: if Label Studio would not show the prediction as it is meant.
            LedgerError: if the picture is gone.
        """
        shown = shown_image(self._images.get(item.image_sha256))
        prediction = to_prediction(
            _leading_first(item.predictions),
            mask_labels=self._mask_labels,
            score=task_score(item.priority, self._priorities),
        )
        check_prediction(prediction, self._config, shown.facts)
        return shown, prediction


def difference(task: Mapping[str, Any], item: ReviewItem, prediction: Mapping[str, Any]) -> str:
    """What of a task is not as it should be, "" where all is; the score may have changed since."""
    if task["data"].get("dedupe_key") != item.dedupe_key:
        return "its key is another one"
    ours = [p for p in task["predictions"] if p["model_version"] == MODEL_VERSION]
    if len(ours) != 1:
        return f"it has {len(ours)} predictions of ours"
    if _drawn(ours[0]) != _drawn(prediction):
        return "its regions differ"
    return ""


def _leading_first(inspections: Sequence[Inspection]) -> list[Inspection]:
    """The surest model of each task draws: less to correct than what the most doubtful says."""
    return sorted(inspections, key=lambda inspection: (inspection.uncertainty, inspection.model))


def _priorities(queue: ReviewQueue) -> list[float]:
    query = sa.select(ReviewItemRow.priority).where(ReviewItemRow.project == queue.project)
    with queue.ledger.reading() as session:
        return sorted(session.scalars(query))


def _drawn(prediction: Mapping[str, Any]) -> dict[str, Any]:
    """What of a prediction a person sees, by region."""
    return {
        region["id"]: (region["from_name"], region["type"], region["value"])
        for region in prediction["result"]
    }
