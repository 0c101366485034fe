"""A batch as people see it: rows in order of severity or doubt, counts per class, the sentence."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from core.pitch import PixelPitch
from core.records import Inspection
from core.taxonomy import is_sound, title
from demo.batch_jobs import Progress
from demo.batch_store import Answer
from demo.roll_marks import RepeatOver, coming_again_in, repeats_over
from demo.words import NOT_SURE, NOTHING, TOLERATED, count, findings, headline, labels_found, number

Order = Literal["severity", "doubt", "arrival"]
ORDER_TITLES: Final[dict[Order, str]] = {
    "severity": "Most severe",
    "doubt": "Least sure",
    "arrival": "As they came",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One picture of a batch that has been looked at."""

    index: int
    name: str
    text: str  # the verdict in a few words
    severity: float  # probability that there is a defect at all, in [0, 1]; unreadable: -1
    uncertainty: float  # in [0, 1]; unreadable: -1
    answer: Answer


def rows(progress: Progress, order: Order) -> list[Row]:
    """The pictures that are done; unreadable ones last, equals in the order they came."""
    names = progress.job.names
    found = [_row(answer, names[index]) for index, answer in sorted(progress.answers.items())]
    if order == "severity":
        found.sort(key=lambda row: -row.severity)
    elif order == "doubt":
        found.sort(key=lambda row: -row.uncertainty)
    return found


def severity(inspection: Inspection) -> float:
    """Probability that the picture shows a defect, its findings taken as independent.

    1 - prod(1 - p) over the findings that are not tolerated; of a classifier what its classes for
    sound steel leave over, and where it knows defects alone the probability of its surest class.
    """
    found = findings(inspection)
    if not found:
        return 0.0
    if inspection.task == "classify":
        sound = [finding.probability for finding in found if is_sound(finding.label)]
        return 1 - min(sum(sound), 1.0) if sound else found[0].probability
    return 1 - math.prod(1 - finding.probability for finding in found if not finding.tolerated)


def histogram(answers: Sequence[Answer]) -> dict[str, int]:
    """In how many pictures each class was found, the most frequent first."""
    counts: Counter[str] = Counter()
    for answer in answers:
        if answer.inspection is not None:
            counts.update(labels_found([answer.inspection]))
    return dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))


def sentence(progress: Progress) -> str:
    """How the batch stands, in words."""
    job, total = progress.job, len(progress.job.names)
    if job.state == "waiting":
        wait = "waits" if total == 1 else "wait"
        return f"{count(total, 'picture')} {wait} for the batch before to finish."
    if job.state == "running":
        left = f", {_time(progress.seconds_left)} left" if progress.seconds_left else ""
        return f"Looking: {progress.done} of {count(total, 'picture')}{left}."
    if job.state == "stopped":
        return f"Stopped after {progress.done} of {count(total, 'picture')}; nothing is lost."
    seen = [answer.inspection for answer in progress.answers.values() if answer.inspection]
    verdicts = Counter(inspection.verdict for inspection in seen)
    staying = sum(headline(inspection).text == TOLERATED for inspection in seen)
    parts = (
        (verdicts["defect"], "with findings"),
        (verdicts["review"], "not sure"),
        (staying, "within tolerance"),
        (verdicts["accept"] - staying, "without a finding"),
        (progress.failed, "unreadable"),
    )
    said = ", ".join(f"{n} {what}" for n, what in parts if n)
    return f"{count(total, 'picture')}: {said}."


def remarks(progress: Progress) -> str:
    """What is worth adding to the sentence; empty if nothing is."""
    said = []
    if progress.queued:
        are = "is" if progress.queued == 1 else "are"
        said.append(f"{count(progress.queued, 'picture')} {are} in the review queue")
    if progress.job.left_out:
        were = "was" if progress.job.left_out == 1 else "were"
        said.append(
            f"{count(progress.job.left_out, 'other file')} {were} left out{_which(progress)}"
        )
    return f"{'; '.join(said)}." if said else ""


def over_pictures(progress: Progress, pitch: PixelPitch | None = None) -> tuple[RepeatOver, ...]:
    """What comes again at equal distances, if the pictures follow each other as they came.

    Nothing before all are done, or where one is missing: nobody knows how far the next one is.
    """
    return repeats_over(_whole(progress), pitch)


def again(progress: Progress, pitch: PixelPitch | None = None) -> tuple[str, ...]:
    """A sentence for each of `over_pictures`."""
    return tuple(
        f"If these pictures follow each other down the strip as they came: {text}"
        for text in coming_again_in(_whole(progress), pitch)
    )


def _whole(progress: Progress) -> list[Inspection]:
    """All answers of a batch that is done and could read each picture; else none."""
    seen = [answer.inspection for _, answer in sorted(progress.answers.items())]
    whole = [inspection for inspection in seen if inspection is not None]
    return whole if progress.job.state == "done" and len(whole) == len(seen) else []


def _which(progress: Progress) -> str:
    """ ": a.txt, b.txt and 4 more"; batches kept by an older app do not know."""
    job = progress.job
    if not job.left_out_names:
        return ""
    more = job.left_out - len(job.left_out_names)
    return f": {', '.join(job.left_out_names)}{f' and {more} more' if more else ''}"


def _row(answer: Answer, name: str) -> Row:
    inspection = answer.inspection
    if inspection is None:
        return Row(answer.index, name, answer.error or "", -1, -1, answer)
    doubt = inspection.uncertainty
    return Row(answer.index, name, _words(inspection), severity(inspection), doubt, answer)


def _words(inspection: Inspection) -> str:
    """As short as the headline can be: "Not sure", "Nothing found", "Patches 0.93"."""
    text = headline(inspection).text
    if text == NOT_SURE:
        return "Not sure"
    if text in (NOTHING, TOLERATED):
        return text
    best = max(findings(inspection), key=lambda finding: finding.probability)
    return f"{title(best.label)} {number(best.probability)}"


def _time(seconds: float | None) -> str:
    """Two significant digits at most: "12 s", "3 min", "1.5 h"."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
