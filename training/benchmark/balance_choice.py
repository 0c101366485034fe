"""Which balancing method scheduled retraining uses: chosen on validation, never on a test split."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from training.balance import RETRAINING
from training.benchmark.page import percent
from training.benchmark.sheet import Section
from training.benchmark.summary import Line, mean_and_spread

METRIC = "macro_F1"  # on validation: every class counts the same
ERROR = 0.05  # chance that any method is chosen although none of them helps
RAREST = 3


def best_method(found: Sequence[Line]) -> str | None:
    """The method to use by the validation scores of all seeds; None while seeds are missing.

    The method of the highest mean is chosen if a one-sided paired t-test over the seeds says that
    it beats none; otherwise nothing is done about rare classes. The test's level is ERROR divided
    by the number of methods: the best of seven that do nothing looks good, too.
    """
    from scipy.stats import t as student

    if any(len(line.records) < len(line.rows) for line in found):
        return None
    scores = {
        line.row.balance or "none": np.array(
            [line.by_seed[row.seed].run.validation[METRIC] for row in line.rows]
        )
        for line in found
    }
    best = max(scores, key=lambda method: float(scores[method].mean()))
    if best == "none" or "none" not in scores:
        return best
    gains = scores[best] - scores["none"]
    if len(gains) < 2:
        return "none"
    standard_error = float(gains.std(ddof=1)) / math.sqrt(len(gains))
    needed = float(student.ppf(1 - ERROR / (len(scores) - 1), len(gains) - 1))
    return best if float(gains.mean()) > needed * standard_error else "none"


def say_choice(parts: Mapping[Section, tuple[Line, ...]]) -> list[str]:
    """What was chosen and why, and the rarest classes of each method."""
    text = ["## The method of scheduled retraining", ""]
    judged = False
    for (group, data, setting, _), found in parts.items():
        if group != "methods" or not any(line.records for line in found):
            continue
        best = best_method(found) if setting != "quick" else None
        if best is not None and not judged:
            judged = True
            text += [
                f"**{best}**: chosen by macro F1 on the validation split of {data} (setting "
                f"*{setting}*): the best method must beat *none* in a paired t-test over the "
                f"seeds at the level of {ERROR:g} divided by the number of methods.",
                "",
            ]
        text += _validation_table(found, setting) + _rarest_table(found, setting)
    if not judged:
        text[2:2] = [
            f"Not chosen yet, because not every method has run with every seed; until then "
            f"retraining uses **{RETRAINING}**.",
            "",
        ]
    return text


def _validation_table(found: Sequence[Line], setting: str) -> list[str]:
    table = [
        f"| method ({setting}) | macro F1 on validation (%) | seeds |",
        "| --- | ---: | ---: |",
    ]
    for line in found:
        if line.records:
            mean, spread = mean_and_spread([r.run.validation[METRIC] for r in line.records])
            told = percent(mean) + (f" ± {percent(spread)}" if spread is not None else "")
            table.append(f"| {line.row.title} | {told} | {len(line.records)} |")
    return [*table, ""]


def _rarest_table(found: Sequence[Line], setting: str) -> list[str]:
    """Recall on the test split of the classes with the fewest test images."""
    first = next(line.records[0] for line in found if line.records)
    counts = np.array(first.evaluation.confusion).sum(1)
    rarest = [first.run.labels[i] for i in np.argsort(counts, kind="stable")[:RAREST]]
    table = [
        f"| method ({setting}), recall on test (%) | {' | '.join(rarest)} | mean of the three |",
        f"| --- |{' ---: |' * (RAREST + 1)}",
    ]
    for line in found:
        if line.records:
            cells = []
            by_class = np.array([line.values("recall", label) for label in rarest])
            for values in (*by_class, by_class.mean(0)):
                mean, spread = mean_and_spread(list(values))
                cells.append(
                    percent(mean) + (f" ± {percent(spread)}" if spread is not None else "")
                )
            table.append(f"| {line.row.title} | {' | '.join(cells)} |")
    return [*table, ""]
