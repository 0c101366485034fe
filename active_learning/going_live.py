"""What has become of a candidate that a pass was killed with on its way out.

A release goes live before the run can say so in the ledger. Who was killed in between left a
candidate that is live, and people may have judged it since: what they did is not undone.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from active_learning.retraining import Ending, RetrainingRun
from core.ledger import Ledger
from core.settings import PathSettings
from hub.channel import HERE, history


class _Move(NamedTuple):
    """A move of a channel, here or on the Hub."""

    at: datetime
    who: str
    what: str
    before: str | None
    after: str | None
    why: str


def taken_back(run: RetrainingRun, paths: PathSettings, ledger: Ledger) -> str | None:
    """In a sentence, who has taken the candidate of a run back again, on this machine or the Hub.

    Weights may be the same to the bit as those of an earlier run, so only moves since this run was
    asked for count: those told in the audit trail after it, for clocks are set meanwhile, and those
    of the channel that are dated later, which a process may have been killed before telling of.

    Raises:
        LedgerError: if the ledger cannot be read.
        WeightsError: if the channel file is damaged.
    """
    for where, moves in (
        ("", [move for move in _moves_here(run.model, paths) if move.at >= run.created_at]),
        ("", _moves_told(run, ledger, here=True)),
        (" on the Hub", _moves_told(run, ledger, here=False)),
    ):
        about = [move for move in moves if run.candidate in (move.before, move.after)]
        if about and about[-1].before == run.candidate:
            last = about[-1]
            how = "rolled back" if last.what == "rolled back" else f"replaced by {last.after}"
            told = f"{run.candidate} was live{where} already and was {how} by {last.who}"
            return f"{told}: {last.why.rstrip('.')}." if last.why else f"{told}."
    return None


def given_up(run: RetrainingRun, who: str, paths: PathSettings) -> Ending:
    """How a parked run ends that somebody gives up.

    Its candidate may have gone live before the ledger failed; then it stays, and the run says so.

    Raises:
        WeightsError: if the channel file is damaged.
    """
    here = _moves_here(run.model, paths)
    went_live = run.phase == "activated" or (
        run.phase == "published" and bool(here) and here[-1].after == run.candidate
    )
    if went_live and run.decision is not None:
        return "promoted", (*run.decision.reasons, f"Given up by {who} when it was live already.")
    return "refused", (f"Given up by {who}.",)


def _moves_here(model: str, paths: PathSettings) -> Sequence[_Move]:
    """The channel's own, also those that a process was killed before telling the ledger of."""
    return [
        _Move(move.at, move.who, move.what, move.before, move.after, move.why)
        for move in history(model, paths)
    ]


def _moves_told(run: RetrainingRun, ledger: Ledger, *, here: bool) -> Sequence[_Move]:
    """Those that were told after the run was asked for; the Hub's channel forgets some of its own.

    Args:
        run: of the model.
        ledger: what they were told to.
        here: those of this machine, rather than those on the Hub.
    """
    asked = min((event.id for event in ledger.events(f"retraining:{run.id}")), default=0)
    return [
        _Move(e.at, e.who, e.what, e.before, e.after, str(e.details.get("why", "")))
        for e in ledger.events(f"model:{run.model}")
        if e.id > asked and (e.details.get("where", HERE) == HERE) is here
    ]
