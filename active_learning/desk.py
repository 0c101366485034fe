"""The review desk of this installation: ledger, queue, inbox and classes, put together once.

Whoever flags an image, pushes or pulls has to mean the same project and the same labelling
configuration; both follow from the settings and from the releases that are served.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from active_learning.inbox import Inbox
from active_learning.labelling import Labelling, all_labels_given, labelling_of
from active_learning.queue import ReviewQueue
from core.errors import WeightsNotFoundError
from core.images import ImageStore
from core.ledger import Ledger, open_ledger
from core.settings import Settings
from hub.channel import operator

if TYPE_CHECKING:
    from hub.registry import Release


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything about one labelling project that lies on our side."""

    ledger: Ledger
    queue: ReviewQueue
    inbox: Inbox
    labelling: Labelling
    mask_labels: Mapping[str, tuple[str, ...]]  # classes of each segmenter, by its name

    def labelled_counts(self) -> dict[str, int]:
        """How many labels people have given to each class."""
        counts: Counter[str] = Counter()
        for annotation in self.inbox.each():
            counts.update(all_labels_given(annotation))
        return dict(counts)


def open_desk(settings: Settings, releases: Sequence[Release] | None = None) -> Desk:
    """The desk that the settings describe.

    Args:
        settings: of this installation.
        releases: whose classes a person may choose from; None: every live one's.

    Raises:
        WeightsNotFoundError: if no model is served: there is nothing to ask about.
        WeightsError: if a live release is damaged and `releases` do not say which are sound.
        LedgerError: if the ledger cannot be opened.
    """
    labelling, mask_labels = served_classes(settings, releases)
    ledger = open_ledger(settings.paths.ledger_url)
    project, who = settings.label_studio.project, f"{operator()}:{os.getpid()}"
    queue = ReviewQueue(
        ledger,
        ImageStore(settings.paths.images),
        project=project,
        config_revision=labelling.revision,
        who=who,
    )
    return Desk(ledger, queue, Inbox(ledger, project=project, who=who), labelling, mask_labels)


def served_classes(
    settings: Settings, releases: Sequence[Release] | None = None
) -> tuple[Labelling, dict[str, tuple[str, ...]]]:
    """The classes of all models that are served, and those of each segmenter by its name.

    Arguments and errors are those of `open_desk`, which opens a ledger on top.
    """
    from hub.registry import resolve_all

    served = resolve_all(settings.paths) if releases is None else releases
    configs = [release.config for release in served]
    if not configs:
        raise WeightsNotFoundError(
            f"No release of any model lies in {settings.paths.bundled} or "
            f"{settings.paths.releases}: train one, or check out the bundled ones."
        )
    labelling = labelling_of((config.task, config.labels) for config in configs)
    return labelling, {c.name: c.labels for c in configs if c.task == "segment"}
