"""Whether it is time to train a model again: pure rules on counts, class balance, drift and clock.

The answer always says why, or why not. Nothing is trained without new reviews: there would be
nothing to learn. Two things make a few of them suffice: a class that is short of labels and is
among what was reviewed, and incoming images that no longer look like the training images.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from active_learning.drift import Drift
from active_learning.wording import count, listed, named
from core.settings import RetrainingSettings


@dataclass(frozen=True, slots=True)
class State:
    """What the rules look at, for one model.

    Args:
        now: UTC.
        new_reviews: images reviewed since the newest data set version a run was made of.
        new_labels: what those reviews name, by class.
        training_labels: labels of the training split by class, the new ones not yet among them.
        last_started: when a run of this model was started last.
        drift: of the incoming images; None where the release has no reference.
    """

    now: datetime
    new_reviews: int
    new_labels: Mapping[str, int] = field(default_factory=dict)
    training_labels: Mapping[str, int] = field(default_factory=dict)
    last_started: datetime | None = None
    drift: Drift | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """Whether to train now, and why or why not, in a sentence."""

    now: bool
    why: str


def is_due(state: State, settings: RetrainingSettings) -> Due:
    """Whether a model should be trained again now.

    Args:
        state: of the model.
        settings: the thresholds.

    Returns:
        The answer with its reason; where it is no, what is there and what is missing.
    """
    new = state.new_reviews
    progress = f"{new} of {settings.min_new_annotations} newly reviewed images"
    if not new:
        return Due(False, f"{progress}.")
    waited = _waited(state)
    if waited is not None and waited < timedelta(hours=settings.min_hours):
        return Due(
            False,
            f"the last run started {_time(waited)} ago and {_hours(settings.min_hours)} must lie "
            f"between two; {progress}.",
        )
    if new >= settings.min_new_annotations:
        return Due(True, f"{progress}.")
    urgent = _urgent(state, settings)
    if urgent and new >= settings.min_urgent_annotations:
        return Due(True, f"{urgent}, and {count(new, 'newly reviewed image')} can help.")
    if waited is not None and waited >= timedelta(days=settings.max_days):
        return Due(True, f"the last run started {_time(waited)} ago; {progress}.")
    if urgent:
        return Due(
            False, f"{urgent}, but {new} of {settings.min_urgent_annotations} reviews are there."
        )
    return Due(False, f"{progress}.")


def _waited(state: State) -> timedelta | None:
    """Since the last run started; None where there was none, or the clock was set back since."""
    if state.last_started is None or state.last_started > state.now:
        return None
    return state.now - state.last_started


def _urgent(state: State, settings: RetrainingSettings) -> str:
    """Why a few reviews should do, "" where nothing presses."""
    short = short_of_labels(state.training_labels, share=settings.class_share)
    helped = [label for label in short if state.new_labels.get(label)]
    if helped:
        names = listed([named(label) for label in helped])
        return f"{names} {'is' if len(helped) == 1 else 'are'} short of labels"
    drift = state.drift
    if drift is not None and drift.is_known:
        name, value = drift.worst()
        if value >= settings.drift_threshold:
            return (
                f"the incoming images have drifted in {name} (PSI {value:.2f}, "
                f"threshold {settings.drift_threshold:.2f})"
            )
    return ""


def short_of_labels(labels: Mapping[str, int], *, share: float) -> tuple[str, ...]:
    """Classes with less than `share` of an equal part of all labels, fewest first.

    Args:
        labels: number of labels by class, every class named.
        share: in [0, 1]; with C classes a class is short below share / C of all labels.
    """
    equal = sum(labels.values()) / len(labels) if labels else 0.0
    short = [(n, label) for label, n in labels.items() if n < share * equal]
    return tuple(label for _, label in sorted(short))


def _time(passed: timedelta) -> str:
    hours = passed.total_seconds() / 3600
    if hours < 1:
        return f"{hours * 60:.0f} min"
    return f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"


def _hours(hours: float) -> str:
    return f"{hours:g} h"
