"""Retraining as accessible HTML: sentence, phases, curve, log, verdict, history, balance, drift.

Every text from outside is escaped. Plots are SVG in the page's own colours, each with its numbers
in words beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Final

from active_learning.drift import FEWEST
from active_learning.outlook import Outlook
from active_learning.retraining import MAX_ATTEMPTS, PHASES, Phase, RetrainingRun
from core.taxonomy import title
from core.verdicts import Check, ClassChange, Decision
from demo import markup, plots
from demo import training_deeds as deeds
from demo.markup import swatch, with_code
from demo.retraining import Curve, Picture
from demo.review_markup import bars, moment
from demo.telling import without_places
from demo.words import SOURCES, capital, count, short
from models import get_spec

_STEPS: Final[dict[Phase, str]] = {
    "requested": "Asked for",
    "leased": "Begun",
    "snapshot": "Data frozen",
    "training": "Training",
    "evaluated": "Measured",
    "gate": "Judged",
    "published": "Published",
    "activated": "Live",
}
_UNTUNED: Final = (
    '<p class="quiet">The committee of the detectors was not tuned with these weights: each member '
    "has an equal say, and its scores are no probabilities, until "
    "<code>python -m active_learning committee --data SET</code> is run.</p>"
)
_SHIFTED, _DRIFTED = 0.1, 0.25  # population stability index, from which on it is called so
_ENDED: Final = {
    "promoted": "live now",
    "refused": "refused",
    "parked": "parked",
    "open": "going on",
}


def working() -> str:
    """The sentence while runs are read."""
    return _sentence("Reading the runs …")


def failed(text: str) -> str:
    """The sentence when they cannot be read."""
    return markup.failed(text, "The runs cannot be read")


def sentence(picture: Picture) -> str:
    """How training stands for a model, in one line."""
    run, name, order = picture.newest, short(picture.config.title), picture.waiting
    if order is not None and order.what == "train":
        until = f", until {order.expires_at:%-d %b %H:%M} UTC" if order.expires_at else ""
        return _sentence(
            f"{order.who} has asked for {name} to be trained; this waits for a watcher{until}."
        )
    if order is not None and order.what == "drop":
        return _sentence(f"{order.who} has asked for the parked run of {name} to be given up.")
    if run is not None and run.state == "parked":
        return _sentence(f"Training {name} is parked and waits for a person.")
    if run is not None and run.state == "open":
        stops = " It stops after the step in hand." if order is not None else ""
        return _sentence(f"{_going(run, name, is_carried=picture.is_carried)}{stops}")
    why = picture.outlook.due.why
    if picture.outlook.due.now:
        return _sentence(f"{name} is due for training: {why}")
    return _sentence(f"Nothing to train for {name}: {why}")


def timeline(run: RetrainingRun | None, now: datetime) -> str:
    """The phases of a run, those it has reached with their times."""
    if run is None:
        return (
            '<div class="nothing"><p>No run yet. <code>python -m active_learning run</code> makes '
            "one pass, <code>watch</code> one every few minutes.</p></div>"
        )
    reached = PHASES.index(run.phase)
    items = []
    for place, phase in enumerate(PHASES):
        state, at = "is-open", ""
        if place <= reached and phase in run.phases:
            state, at = "is-done", moment(run.phases[phase], now)
        if run.is_open and place == reached:
            state = "is-here" if run.state == "open" else "is-stopped"
        if run.state == "refused" and phase == "gate":
            state = "is-stopped"
        here = ' aria-current="step"' if state == "is-here" else ""
        mark = {"is-done": "✓", "is-here": "…", "is-stopped": "!"}.get(state, "")
        items.append(
            f'<li class="{state}"{here}><span class="dot" aria-hidden="true">{mark}</span>'
            f'<span>{_STEPS[phase]}</span><span class="quiet">{at}</span></li>'
        )
    reasons = run.reasons if run.state == "parked" else ()
    told = "".join(f"<p>{escape(without_places(reason))}</p>" for reason in reasons)
    error = ""
    if run.state == "open" and run.last_error:
        failed = escape(without_places(run.last_error))
        error = f"<p>Attempt {run.attempts} of {MAX_ATTEMPTS} failed: {failed}</p>"
    why = f'<p class="quiet">Started because: {escape(run.why)}</p>'
    return (
        f'<ol class="phases" aria-label="Phases of the run">{"".join(items)}</ol>{told}{error}{why}'
    )


def curve(shown: Curve) -> str:
    """The deciding metric on validation, epoch by epoch."""
    if not shown.points:
        return '<div class="nothing"><p>The curve begins with the first epoch.</p></div>'
    best = max(shown.points, key=lambda point: point[1])
    words = (
        f"{shown.metric} on the validation split after {count(len(shown.points), 'epoch')}: "
        f"best {100 * best[1]:.1f} % in epoch {best[0]}, "
        f"last {100 * shown.points[-1][1]:.1f} %."
    )
    plot = plots.line([(float(x), y) for x, y in shown.points], words, axis="epoch")
    return f'<figure class="plot">{plot}<figcaption>{escape(words)}</figcaption></figure>'


def tail(lines: Sequence[str]) -> str:
    """The end of the run's log; a reader's focus and place survive its renewal."""
    if not lines:
        return ""
    text = escape("\n".join(lines))
    return (
        '<section class="log"><h2>End of the log</h2>'
        f'<div tabindex="0" role="region" aria-label="End of the log"><pre>{text}</pre></div>'
        "</section>"
    )


def hearing(picture: Picture, now: datetime) -> str:
    """Whether anybody hears an order, and what became of the last one if that is no run."""
    run = picture.newest
    is_waiting = picture.waiting is not None or (run is not None and run.state == "open")
    is_heard = bool(picture.watchers) or picture.is_carried
    mark = "is-wrong" if is_waiting and not is_heard else "quiet"
    told = f'<p class="{mark}">{with_code(deeds.hearing(picture))}</p>'
    order = picture.order
    if order is not None and order.state in ("expired", "withdrawn"):
        told += (
            f'<p class="quiet">The order of {escape(order.who)}, {moment(order.created_at, now)}, '
            f"led to nothing: {escape(order.reason or '')}.</p>"
        )
    return f'<div class="connection">{told}</div>'


def question(deed: deeds.Deed) -> str:
    """What will happen, before it does."""
    return f'<p class="asks" role="status">{with_code(deed.question)}</p>'


def verdict(decision: Decision | None) -> str:
    """The gate's verdict with its numbers: the change, every class, every rule."""
    if decision is None:
        return (
            '<div class="nothing"><p>No candidate has been judged yet. One goes live only when it '
            "is proven better on test images that nothing was ever trained on.</p></div>"
        )
    change = decision.after - decision.before
    scale = plots.interval(decision.low, change, decision.high)
    name = "Promoted" if decision.promote else "Refused"
    mark, state = ("✓", "is-accept") if decision.promote else ("!", "is-defect")
    head = (
        f'<div class="verdict {state}"><p class="headline"><span class="mark" aria-hidden="true">'
        f"{mark}</span>{name}: {escape(decision.metric)} {_percent(decision.before)} → "
        f'{_percent(decision.after)}</p><p class="detail">{_points(change)} points, '
        f"95 % interval {_points(decision.low)} to {_points(decision.high)}; "
        f"{decision.n} test images</p>{scale}</div>"
    )
    checks = "".join(_check(check) for check in decision.checks)
    rows = "".join(_class_row(change) for change in decision.classes)
    table = (
        '<div class="scroll-x" tabindex="0" role="region" aria-label="Every class">'
        '<table class="models changes"><thead><tr><th scope="col">Class</th>'
        '<th scope="col">Before</th><th scope="col">After</th><th scope="col">Change (95 %)</th>'
        f'<th scope="col">Test images</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )
    return f'{head}<ul class="checks">{checks}</ul>{table}'


def history(runs: Sequence[RetrainingRun], live: str, now: datetime) -> str:
    """Every run of a model: when, why, how it ended, and what it changed."""
    if not runs:
        return '<div class="nothing"><p>No run of this model yet.</p></div>'
    rows = "".join(_run_row(run, live, now) for run in runs)
    return (
        '<div class="scroll-x" tabindex="0" role="region" aria-label="Runs">'
        '<table class="models runs"><thead><tr><th scope="col">Run</th><th scope="col">Ended</th>'
        '<th scope="col">Metric before → after</th><th scope="col">Candidate</th>'
        f'<th scope="col">Why</th></tr></thead><tbody>{rows}</tbody></table></div>'
        f"{_improvement(runs)}"
    )


def balance(view: Outlook) -> str:
    """Labels by class, those that are new, and how far the incoming images have drifted."""
    training = bars(
        "Labels in training",
        view.training_labels,
        "Labels that are masks are not counted by class."
        if get_spec(view.model).task == "segment"
        else f"Not counted: {view.dataset} is not prepared on this machine.",
    )
    new = bars("Newly reviewed", view.new_labels, "Nothing new has been reviewed.")
    return f'<div class="charts">{training}{new}{_drift(view)}</div>'


def live(picture: Picture) -> str:
    """Which release is served, and where it came from."""
    config = picture.config
    return (
        f'<p class="connection">{escape(short(config.title))} serves revision '
        f"<code>{escape(config.revision)}</code> ({SOURCES[picture.source]}), trained on "
        f"{escape(config.dataset)}.</p>{_UNTUNED if picture.is_untuned else ''}"
    )


def _drift(view: Outlook) -> str:
    drift = view.drift
    heading = "<h2>Incoming images against training</h2>"
    if drift is None:
        words = "The release has no reference to compare with."
        return f'<section class="bars">{heading}<p class="quiet">{words}</p></section>'
    if not drift.is_known:
        words = f"{count(drift.n, 'inspection')} so far; {FEWEST} are needed."
        return f'<section class="bars">{heading}<p class="quiet">{words}</p></section>'
    rows = "".join(
        f"<dt>{escape(name.capitalize())}</dt><dd>{_level(value)}</dd>"
        for name, value in sorted(drift.psi.items(), key=lambda item: -item[1])
    )
    n = (
        f'<p class="quiet">{drift.n} inspections. How far each has moved: below {_SHIFTED} as in '
        f"training, from {_DRIFTED} on drifted.</p>"
    )
    return f'<section class="bars">{heading}<dl>{rows}</dl>{n}</section>'


def _level(psi: float) -> str:
    word = "as in training" if psi < _SHIFTED else "shifted" if psi < _DRIFTED else "drifted"
    return (
        f'<span class="bar"><span style="width:{min(100 * psi / 0.5, 100):.0f}%;'
        f'background:var(--primary-600)"></span></span>{psi:.2f} {word}'
    )


def _run_row(run: RetrainingRun, live: str, now: datetime) -> str:
    decision = run.decision
    change = (
        f"{escape(decision.metric)} {_percent(decision.before)} → {_percent(decision.after)} "
        f'<span class="quiet">({_points(decision.low)} to {_points(decision.high)})</span>'
        if decision
        else "–"
    )
    ended = _ENDED[run.state]
    if run.state == "promoted" and run.candidate != live:
        ended = "was live"
    candidate = f"<code>{escape(run.candidate)}</code>" if run.candidate else "–"
    return (
        f"<tr><td>{moment(run.created_at, now)}</td><td>{ended}</td><td>{change}</td>"
        f"<td>{candidate}</td><td>{escape(run.why)}</td></tr>"
    )


def _improvement(runs: Sequence[RetrainingRun]) -> str:
    """The test metric over the releases that went live, oldest first; from two on."""
    decisions = [r.decision for r in reversed(runs) if r.state == "promoted" and r.decision]
    if not decisions:
        return ""
    values = [decisions[0].before, *(d.after for d in decisions)]
    words = f"{decisions[0].metric} on the frozen test split over the releases: " + " → ".join(
        _percent(v) for v in values
    )
    plot = plots.line([(float(k), v) for k, v in enumerate(values)], words, axis="release")
    return f'<figure class="plot">{plot}<figcaption>{escape(words)}</figcaption></figure>'


def _class_row(change: ClassChange) -> str:
    name = escape(title(change.label))
    judged = "" if change.is_counted else ' <span class="quiet">too few to judge</span>'
    fallen = " <strong>has fallen</strong>" if change.has_fallen else ""
    return (
        f'<tr><td><span class="class">{swatch(change.label)}{name}</span></td>'
        f"<td>{_percent(change.before)}</td><td>{_percent(change.after)}</td>"
        f"<td>{_points(change.after - change.before)} "
        f'<span class="quiet">({_points(change.low)} to {_points(change.high)})</span>{fallen}</td>'
        f"<td>{change.support}{judged}</td></tr>"
    )


def _check(check: Check) -> str:
    mark, word = ("✓", "passed") if check.passed else ("×", "failed")
    return (
        f'<li class="is-{word}"><span class="mark" aria-hidden="true">{mark}</span>'
        f'<span class="unseen">{word}: </span><span>{_unbroken(check.sentence)}</span></li>'
    )


def _going(run: RetrainingRun, name: str, *, is_carried: bool) -> str:
    if not is_carried:
        return f"The run of {name} is laid down; the next pass goes on with it."
    if run.phase == "training" and run.progress.epoch < run.progress.epochs:
        return f"Training {name}: {_how_far(run)}."
    if run.phase == "training":
        return f"Measuring the new {name} beside the live one."
    return f"{name}: {_STEPS[run.phase].lower()}, the next step is under way."


def _how_far(run: RetrainingRun) -> str:
    progress = run.progress
    far = f"epoch {progress.epoch} of {progress.epochs}"
    if progress.left_s is None:
        return far
    minutes = progress.left_s / 60
    left = "under 1 min" if minutes < 1 else f"{minutes:.0f} min"
    return f"{far}, {left} left"


def _sentence(text: str) -> str:
    return f'<p class="sentence" role="status">{escape(capital(text))}</p>'


def _percent(value: float) -> str:
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _unbroken(sentence: str) -> str:
    """The sentence, in which no number is parted from its sign for per cent."""
    return escape(sentence).replace(" %", "\N{NO-BREAK SPACE}%")


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")
