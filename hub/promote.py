"""The gate: whether a candidate may take the incumbent's place. Pure: numbers in, a verdict out.

Both were measured on the same images with the same bootstrap, so the change is taken resample by
resample: what makes an image hard makes it hard for both and drops out. A candidate is promoted if
all five checks pass:

- metric: the lower end of the change's 95 % interval is above -epsilon. With epsilon 0, the
  default, only what is proven better is promoted, and of candidates that are exactly as good as the
  incumbent about 2.5 % pass by chance. On a few groups of related test images that is no interval:
  resamples of a single one are all alike;
- classes: no class with enough test images falls by more than a margin, unless chance explains it;
- calibration: probabilities are not further from the truth than before, up to a margin;
- latency: one image takes no longer than a given multiple of the incumbent's time;
- golden: whatever the incumbent finds on the golden images is still found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import PromotionRefused
from core.verdicts import Check, ClassChange, Decision, Trial

LEVEL: Final = 95.0  # % of the intervals
# A class has fallen if it did in this share of the resamples: 90 % one-sided. Its margin has to be
# passed as well, so this only keeps apart what chance alone explains on few images.
FALLEN_SHARE: Final = 0.9
# Of candidates exactly as good as the incumbent 38 % would pass on one group, 15 % on two, 8 % on
# six, 4 % on twelve (tests/hub/test_promote.py).
FEWEST_GROUPS: Final = 12
_LATENCY_SLACK_MS: Final = 1.0  # two timings of one network differ by as much
_PAIRED: Final = ("seed", "resamples", "resampled")  # settings of an evaluation that must agree


@dataclass(frozen=True, slots=True)
class GateRules:
    """How far a candidate may fall short; fractions unless a unit is in the name."""

    epsilon: float
    class_margin: float
    min_support: int  # test images that show a class
    calibration_margin: float
    latency_factor: float


def gate(candidate: Trial, incumbent: Trial, *, rules: GateRules) -> Decision:
    """Compare two trials on the same frozen test split.

    Args:
        candidate: who wants to be served.
        incumbent: who is.
        rules: what is demanded.

    Returns:
        The verdict with every check; `reasons` are the sentences of the failed ones, or of all.

    Raises:
        PromotionRefused: if the two cannot be compared at all: another model, metric, test split
            or bootstrap.
    """
    _check_comparable(candidate, incumbent)
    ours, theirs = candidate.evaluation, incumbent.evaluation
    before, after = theirs.metric(incumbent.metric).value, ours.metric(candidate.metric).value
    change = _change(candidate.resamples, incumbent.resamples)
    if not change.size:
        raise PromotionRefused(
            f"{ours.dataset} {ours.split} has nothing to measure {candidate.metric} on: in no "
            "resample of it have both a value."
        )
    low, high = _interval(change)
    classes = _class_changes(candidate, incumbent, rules)
    checks = (
        _metric_check(candidate, before, after, low, high, rules),
        _class_check(classes, rules),
        _calibration_check(candidate, incumbent, rules),
        _latency_check(candidate, incumbent, rules),
        _golden_check(candidate, incumbent),
    )
    failed = [check.sentence for check in checks if not check.passed]
    return Decision(
        model=ours.model,
        promote=not failed,
        reasons=tuple(failed or [check.sentence for check in checks]),
        candidate=ours.revision,
        incumbent=theirs.revision,
        dataset=ours.dataset,
        test_id=ours.test_id,
        n=ours.metric(candidate.metric).n,
        metric=candidate.metric,
        before=before,
        after=after,
        low=low,
        high=high,
        classes=classes,
        checks=checks,
        rules=asdict(rules),
    )


def _check_comparable(candidate: Trial, incumbent: Trial) -> None:
    ours, theirs = candidate.evaluation, incumbent.evaluation
    if ours.model != theirs.model:
        raise PromotionRefused(
            f"The candidate is a {ours.model} and the incumbent a {theirs.model}: "
            "only two releases of one model are compared."
        )
    if ours.test_id != theirs.test_id:
        raise PromotionRefused(
            f"The candidate was measured on {ours.dataset} {ours.split} {ours.test_id[:12]} and "
            f"the incumbent on {theirs.dataset} {theirs.split} {theirs.test_id[:12]}: measure both "
            "on one test split."
        )
    if candidate.metric != incumbent.metric:
        raise PromotionRefused(
            f"The candidate is judged by {candidate.metric} and the incumbent by "
            f"{incumbent.metric}: judge both by one metric."
        )
    for name in _PAIRED:
        one, other = ours.settings.get(name), theirs.settings.get(name)
        if one != other:
            raise PromotionRefused(
                f"The candidate's bootstrap has {name} {one} and the incumbent's {other}: they are "
                "no pairs; measure both alike."
            )
    sizes = {len(t) for trial in (candidate, incumbent) for t in _all_resamples(trial)}
    if len(sizes) != 1 or 0 in sizes:
        raise PromotionRefused(
            f"The bootstraps have {', '.join(map(str, sorted(sizes)))} resamples: they must have "
            "the same number, 1 or more."
        )


def _all_resamples(trial: Trial) -> tuple[Sequence[float], ...]:
    return trial.resamples, *trial.class_resamples.values()


def _change(after: Sequence[float], before: Sequence[float]) -> NDArray[np.float64]:
    """Paired differences of the resamples in which both are known."""
    change = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    return np.asarray(change[~np.isnan(change)], np.float64)


def _interval(change: NDArray[np.float64]) -> tuple[float, float]:
    """The middle LEVEL per cent; (0, 0) where nothing was measured."""
    if not change.size:
        return 0.0, 0.0
    tail = (100 - LEVEL) / 2
    # numpy's own percentile, linear between ranks, ten times as fast.
    low, high = np.interp([tail, 100 - tail], np.linspace(0, 100, change.size), np.sort(change))
    return float(low), float(high)


def _class_changes(candidate: Trial, incumbent: Trial, rules: GateRules) -> tuple[ClassChange, ...]:
    """Every class that the incumbent was measured on; one the candidate lost counts as 0."""
    after = candidate.evaluation.metric(candidate.metric).per_class
    before = incumbent.evaluation.metric(incumbent.metric).per_class
    found = []
    for label, value in before.items():
        now = after.get(label, 0.0)
        earlier = incumbent.class_resamples[label]
        change = _change(candidate.class_resamples.get(label, (0.0,) * len(earlier)), earlier)
        low, high = _interval(change)
        support = incumbent.support.get(label, 0)
        is_counted = support >= rules.min_support
        falls = bool(change.size) and float((change < 0).mean()) >= FALLEN_SHARE
        found.append(
            ClassChange(
                label=label,
                before=value,
                after=now,
                low=low,
                high=high,
                support=support,
                is_counted=is_counted,
                has_fallen=is_counted and value - now > rules.class_margin and falls,
            )
        )
    return tuple(found)


def _metric_check(
    candidate: Trial, before: float, after: float, low: float, high: float, rules: GateRules
) -> Check:
    sentence = (
        f"{candidate.metric} went from {_percent(before)} to {_percent(after)} "
        f"({_points(after - before)} points, 95 % interval {_points(low)} to {_points(high)})"
    )
    groups, is_above = candidate.groups, low > -rules.epsilon
    is_telling = groups is None or groups >= FEWEST_GROUPS
    if not is_above:
        wanted = "0" if rules.epsilon == 0 else _points(-rules.epsilon)
        sentence += f": the lower end must be above {wanted}"
    elif not is_telling:
        number = "1 group" if groups == 1 else f"{groups} groups"
        sentence += (
            f": the test split is {number} of related images, and on fewer than {FEWEST_GROUPS} "
            "chance looks like a gain"
        )
    return Check(name="metric", passed=is_above and is_telling, sentence=f"{sentence}.")


def _class_check(classes: Sequence[ClassChange], rules: GateRules) -> Check:
    fallen = [c for c in classes if c.has_fallen]
    if fallen:
        named = ", ".join(f"{c.label} {_percent(c.before)} → {_percent(c.after)}" for c in fallen)
        sentence = f"Falls by more than {100 * rules.class_margin:.1f} points: {named}."
    else:
        counted = sum(c.is_counted for c in classes)
        few = len(classes) - counted
        sentence = (
            f"None of {counted} classes falls by more than {100 * rules.class_margin:.1f} points"
        )
        sentence += f"; {few} with too few test images not judged." if few else "."
    return Check(name="classes", passed=not fallen, sentence=sentence)


def _calibration_check(candidate: Trial, incumbent: Trial, rules: GateRules) -> Check:
    before, after = incumbent.calibration_error, candidate.calibration_error
    passed = after <= before + rules.calibration_margin
    sentence = f"Calibration error went from {_percent(before)} to {_percent(after)}"
    if not passed:
        sentence += f": at most {100 * rules.calibration_margin:.1f} points more is allowed"
    return Check(name="calibration", passed=passed, sentence=f"{sentence}.")


def _latency_check(candidate: Trial, incumbent: Trial, rules: GateRules) -> Check:
    before, after = incumbent.latency_ms, candidate.latency_ms
    most = before * rules.latency_factor + _LATENCY_SLACK_MS
    passed = after <= most
    sentence = f"One image takes {after:.1f} ms, the incumbent {before:.1f} ms"
    if not passed:
        sentence += f": at most {most:.1f} ms is allowed"
    return Check(name="latency", passed=passed, sentence=f"{sentence}.")


def _golden_check(candidate: Trial, incumbent: Trial) -> Check:
    missed = sorted(set(incumbent.golden_found) - set(candidate.golden_found))
    if missed:
        named = ", ".join(missed[:5]) + (f" and {len(missed) - 5} more" if len(missed) > 5 else "")
        sentence = f"No longer found on the golden images: {named}."
    elif incumbent.golden:
        sentence = (
            f"Nothing is newly missed on the golden images: {len(candidate.golden_found)} of "
            f"{len(candidate.golden)} found, {len(incumbent.golden_found)} before."
        )
    else:
        sentence = "No golden images are named."
    return Check(name="golden", passed=not missed, sentence=sentence)


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _points(value: float) -> str:
    """A change in points with its sign, as +1.2 or −0.4."""
    return f"{100 * value:+.1f}".replace("-", "−")
