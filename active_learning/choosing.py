"""Which of the items that wait are sent, when more wait than may be sent.

What people have flagged goes first. The rest is ranked by `query.rank`; where only detectors have
looked, their doubts are no guide: in the simulation no way of choosing by them beat chance on
validation (docs/benchmarks/active-learning.md), so chance decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from active_learning.query import Candidate, classes_worth_a_label, rank
from core.records import Inspection, ReviewItem
from core.types import Task

NO_FINDING: Final = ""  # the class of an image on which no model finds anything
BY_HAND: Final = 1.0  # priority of what a person has flagged: before every doubt of a model


@dataclass(frozen=True, slots=True)
class Waiting:
    """What of an item decides whether it is sent: some bytes, where its masks take megabytes."""

    id: str
    dedupe_key: str
    priority: float
    classes: tuple[str, ...]  # of `classes_seen`
    tasks: frozenset[Task]  # of the models that have looked

    @classmethod
    def of(cls, item: ReviewItem) -> Waiting:
        """The item without what models said of it."""
        said = item.predictions
        return cls(
            id=item.id,
            dedupe_key=item.dedupe_key,
            priority=item.priority,
            classes=classes_seen(said),
            tasks=frozenset(inspection.task for inspection in said),
        )


def choose(
    due: Sequence[Waiting],
    budget: int,
    *,
    labelled_counts: Mapping[str, int],
    random_share: float,
    seed: int,
) -> list[str]:
    """Ids of the items to send, in order; all of them where the budget allows.

    Args:
        due: items that wait, the most urgent first.
        budget: images a person can label now.
        labelled_counts: labels there are of each class.
        random_share: of what is left of the budget, drawn at random; all of it where only detectors
            have looked.
        seed: of what is drawn.
    """
    if len(due) <= budget:
        return [item.id for item in due]
    first = [item.id for item in due if item.priority >= BY_HAND][:budget]
    if {task for item in due for task in item.tasks} == {"detect"}:
        random_share = 1.0
    taken = set(first)
    pool = [Candidate(item.id, item.priority, item.classes) for item in due if item.id not in taken]
    ranked = rank(
        pool,
        budget - len(first),
        labelled_counts=labelled_counts,
        random_share=random_share,
        seed=seed,
    )
    return [*first, *(entry.id for entry in ranked)]


def classes_seen(inspections: Sequence[Inspection]) -> tuple[str, ...]:
    """Classes that models see and a label may be about, most probable first."""
    best: dict[str, float] = {}
    for inspection in inspections:
        found = [(box.label, box.probability) for box in inspection.detections]
        found += [(segment.label, segment.score) for segment in inspection.segments]
        for label, p in [*found, *inspection.probabilities.items()]:
            best[label] = max(best.get(label, 0.0), p)
    return classes_worth_a_label(best)
