"""The two ways to Label Studio as whole errands: send what waits, fetch what was answered.

The commands and the app run the same ones, with the settings of this installation.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from active_learning.desk import Desk
from active_learning.inbox import Taken
from active_learning.label_studio import LabelStudio
from active_learning.leases import Leases
from active_learning.pull import pull
from active_learning.push import PushReport, Ranking, push
from active_learning.queue import OnPoint
from core.settings import LabelStudioSettings, Settings

FETCH_LEASE_S: Final = 60.0


def has_token(settings: LabelStudioSettings) -> bool:
    """Whether there is a token, without which no errand can be run."""
    return settings.token is not None and bool(settings.token.get_secret_value().strip())


def send(
    settings: Settings,
    desk: Desk,
    *,
    budget: int | None = None,
    on_point: OnPoint | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> PushReport:
    """One pass of `push`.

    Args:
        settings: of this installation.
        desk: of its labelling project.
        budget: images in this pass; None: the setting's.
        on_point: of `push`.
        is_stopped: of `push`.

    Raises:
        ConfigError: if there is no token.
        LeaseHeld: if another process is sending.
        LabelStudioError: if Label Studio refuses the token or the project.
        LedgerError: if the ledger cannot be written.
    """
    ranking = Ranking(
        budget=budget or settings.review.budget,
        random_share=settings.review.random_share,
        labelled_counts=desk.labelled_counts(),
        seed=datetime.now(UTC).toordinal(),  # another draw every day, the same all day
    )
    with LabelStudio(settings.label_studio) as studio:
        return push(
            desk.queue,
            studio,
            labelling=desk.labelling,
            mask_labels=desk.mask_labels,
            ranking=ranking,
            on_point=on_point,
            is_stopped=is_stopped,
        )


def fetch(settings: Settings, desk: Desk) -> Taken:
    """One pass of `pull` by the one process of all replicas that holds the lease to it.

    Two at once would do no harm, since each answer is applied once; they would only ask twice.

    Raises:
        ConfigError: if there is no token.
        LeaseHeld: if another process is fetching.
        LeaseLost: if this one took so long that another process began.
        LabelStudioError: if Label Studio cannot be asked; what was applied before stays.
        LedgerError: if the ledger cannot be written.
    """
    leases = Leases(desk.ledger)
    with (
        LabelStudio(settings.label_studio) as studio,
        leases.hold(f"pull {desk.queue.project}", ttl_s=FETCH_LEASE_S) as lease,
    ):
        return pull(
            desk.queue,
            desk.inbox,
            studio,
            labelling=desk.labelling,
            on_point=lambda _: leases.renew(lease),
        )
