"""docs/benchmarks/speed.md and its plot, from the records beside it and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.files import write_atomically
from training.benchmark.speed_aims import OURS, aims
from training.benchmark.speed_records import (
    AppSpeed,
    Clients,
    Growth,
    ParityRecord,
    SpeedRecord,
    SubjectSpeed,
    Timing,
    read_parity,
    read_speed,
)
from training.plots import COLOURS, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE, PLOT = "speed.md", "speed.png"
_QUIET_LOAD: Final = 1.0  # processes that want a CPU
_HEAD: Final = """\
# Speed

How long an answer takes, beside what people use instead. All contenders run the same network with
the same weights in the same process and take turns; each picture goes from its encoded bytes to a
finished answer (boxes, probabilities or a class map as numbers). Throughput is that of a folder,
which each reads in its own way. A ratio above 1 means that Rollmark is that many times faster.

```bash
python -m training benchmark speed       # times, and this page
python -m training benchmark parity      # accuracy by runtime, and this page
```
"""
_NOTHING: Final = "\nNothing has been measured yet.\n"
_QUICK: Final = (
    "\n**A trial run with few repetitions, to see that it works: no figure to rely on.**\n"
)


def write_page(pages: Path) -> Path:
    """Print the page and its plot from the records.

    Raises:
        DatasetError: if a record is damaged.
    """
    speed, parity = read_speed(pages), read_parity(pages)
    if speed is not None:
        draw(speed, pages / PLOT)
    write_atomically(pages / PAGE, render(speed, parity).encode())
    return pages / PAGE


def render(speed: SpeedRecord | None, parity: ParityRecord | None) -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    if speed is None and parity is None:
        parts.append(_NOTHING)
    if speed is not None:
        parts += [_QUICK] if speed.quick else []
        parts += [_where(speed), f"\n![Median latency by network]({PLOT})\n"]
        parts += ["\n".join(_aims(speed))]
        parts += ["\n".join(_subject(subject)) for subject in speed.subjects]
        parts += ["\n".join(_growth(speed.growth))] if speed.growth else []
        parts += ["\n".join(_app(speed.app))] if speed.app is not None else []
    if parity is not None:
        parts.append("\n".join(_parity(parity)))
    return "".join(parts)


def _where(speed: SpeedRecord) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in speed.versions.items())
    return (
        f"\nMeasured {speed.measured_at:%Y-%m-%d} on {speed.machine}; everyone may use "
        f"{_cpus(speed)}; OpenVINO in {speed.precision}; "
        f"{versions}; commit {speed.git_commit[:12]}. Pictures: {speed.images}.{_load(speed)}\n"
    )


def _load(speed: SpeedRecord) -> str:
    if speed.load is None:
        return ""
    before, after = speed.load
    return (
        f" **Not alone on the machine:** {before:g} processes wanted a CPU in the minute before, "
        f"{after:g} at the end, the benchmark's own among these; ratios bear that better than "
        "times."
        if before > _QUIET_LOAD
        else f" In the minute before, {before:g} processes wanted a CPU."
    )


def _aims(speed: SpeedRecord) -> Iterator[str]:
    yield "\n## What was aimed at\n"
    yield (
        "The aims were set for a CPU of two cores that multiplies bf16 matrices in hardware (AMX). "
        "Where several networks are meant, the worst of them decides."
    )
    yield ""
    yield "| what | aimed at | measured | |"
    yield "| --- | ---: | ---: | --- |"
    words = {True: "reached", False: "**not reached**", None: "–"}
    for aim in aims(speed):
        yield f"| {aim.what} | {aim.wanted} | {aim.measured} | {words[aim.is_reached]} |"
    yield ""


def _cpus(speed: SpeedRecord) -> str:
    return f"{speed.cpus} CPU{'s' if speed.cpus > 1 else ''}"


def _subject(subject: SubjectSpeed) -> Iterator[str]:
    weights = "random weights" if subject.weights == "random" else f"revision {subject.weights}"
    size, scale = subject.image_size, subject.scale
    yield f"\n## {subject.model} ({scale}) at {size} px, {subject.task}\n"
    swept = max((timing.swept for timing in subject.timings), default=0)
    folder = f"a folder of {swept} pictures" if swept else "batches of 16"
    yield f"With {weights}; latencies of single pictures in ms, {folder} in images per second."
    yield ""
    yield "| contender | p50 | p95 | p99 | n | ratio of p50 | images/s | ratio |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    ours = next((t for t in subject.timings if t.contender == OURS), None)
    for timing in subject.timings:
        yield _row(timing, ours)
    for name, why in subject.missing.items():
        yield f"\nNot measured: {name} ({why})."
    yield ""


def _row(timing: Timing, ours: Timing | None) -> str:
    slower = faster = "–"
    if ours is not None and timing is not ours:
        slower = f"{timing.p50_ms / ours.p50_ms:.2f}"
        if timing.images_per_s and ours.images_per_s:
            faster = f"{ours.images_per_s / timing.images_per_s:.2f}"
    rate = "–" if timing.images_per_s is None else f"{timing.images_per_s:.1f}"
    times = f"{timing.p50_ms:.1f} | {timing.p95_ms:.1f} | {timing.p99_ms:.1f} | {timing.n}"
    return f"| {timing.contender} | {times} | {slower} | {rate} | {faster} |"


def _growth(growth: Sequence[Growth]) -> Iterator[str]:
    yield f"\n## Larger pictures, {growth[0].model}\n"
    yield "| picture (px) | looked at | p50 (ms) | ms per megapixel | n |"
    yield "| --- | --- | ---: | ---: | ---: |"
    for one in growth:
        how = "whole" if one.tiles == 1 else f"{one.tiles} tiles"
        share = one.p50_ms / (one.width * one.height / 1e6)
        yield (f"| {one.width} × {one.height} | {how} | {one.p50_ms:.1f} | {share:.0f} | {one.n} |")
    yield ""


def _app(app: AppSpeed) -> Iterator[str]:
    yield "\n## The app over HTTP\n"
    yield (
        f"From start to first answer {app.first_answer_s:.1f} s, with exports in the cache "
        f"{app.first_answer_again_s:.1f} s. All {app.models_loaded} models in memory: "
        f"{app.resident_mb:.0f} MB. All of them about one picture: {app.all_models_s:.2f} s. "
        f"Below, {app.model} is asked by callers who ask again as soon as they have an answer; "
        "upload included."
    )
    for how, clients in (
        ("`POST /v1/inspect`", app.clients),
        ("`gradio_client`", app.gradio_clients),
    ):
        if clients:
            yield from _callers(how, clients)
    yield ""


def _callers(how: str, clients: Sequence[Clients]) -> Iterator[str]:
    yield ""
    yield f"| {how} | p50 (ms) | p95 (ms) | beside the answering (ms) | requests/s | n | errors |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for c in clients:
        p50, p95 = ("–" if ms is None else f"{ms:.0f}" for ms in (c.p50_ms, c.p95_ms))
        beside = "–" if c.overhead_ms is None else f"{c.overhead_ms:.1f}"
        times = f"{p50} | {p95} | {beside} | {c.requests_per_s:.1f}"
        yield f"| {_who(c)} | {times} | {c.requests} | {c.errors} |"
    for c in clients:
        if c.first_error:
            yield f"\nFirst error with {_who(c)}: {c.first_error}"


def _who(c: Clients) -> str:
    return f"{c.clients} client{'s' if c.clients > 1 else ''}"


def _parity(parity: ParityRecord) -> Iterator[str]:
    runtimes = list(dict.fromkeys(name for row in parity.rows for name in row.values))
    yield "\n## Accuracy by runtime\n"
    yield (
        f"On validation splits, {parity.measured_at:%Y-%m-%d}, {parity.machine}; metrics in "
        "percent, the difference from torch in brackets."
    )
    yield ""
    yield f"| model | data | metric | n | {' | '.join(runtimes)} |"
    yield f"| --- | --- | --- | ---: |{' ---: |' * len(runtimes)}"
    for row in parity.rows:
        base = row.values[runtimes[0]]
        cells = []
        for name in runtimes:
            value = row.values.get(name)
            cell = "–" if value is None else f"{100 * value:.2f}"
            if value is not None and name != runtimes[0]:
                cell += f" ({100 * (value - base):+.2f})"
            cells.append(cell)
        what = f"`{row.model}` {row.revision} | {row.dataset} {row.protocol} val | {row.metric}"
        yield f"| {what} | {row.n} | {' | '.join(cells)} |"
    yield ""


def draw(speed: SpeedRecord, path: Path) -> None:
    """Write a PNG: median latency of everyone, a group of bars for each network."""
    names = list(dict.fromkeys(t.contender for s in speed.subjects for t in s.timings))
    rows = sum(len(s.timings) + 1 for s in speed.subjects)
    figure = new_figure(9, 1.2 + 0.22 * rows)
    axes = figure.subplots()
    _bars(axes, speed.subjects, names)
    axes.set_xlabel("median latency of one picture, ms")
    axes.set_title(f"{speed.machine}, {_cpus(speed)}", fontsize=9)
    save_figure(figure, path)


def _bars(axes: Axes, subjects: Sequence[SubjectSpeed], names: Sequence[str]) -> None:
    place, ticks = 0.0, []
    drawn: set[str] = set()
    for subject in subjects:
        middle = place + (len(subject.timings) - 1) / 2
        ticks.append((middle, f"{subject.model} ({subject.scale})\n{subject.image_size} px"))
        for timing in subject.timings:
            colour = COLOURS[names.index(timing.contender) % len(COLOURS)]
            label = None if timing.contender in drawn else timing.contender
            drawn.add(timing.contender)
            axes.barh(place, timing.p50_ms, color=colour, height=0.8, label=label)
            axes.text(timing.p50_ms, place, f" {timing.p50_ms:.0f}", va="center", fontsize=7)
            place += 1
        place += 1
    axes.set_yticks([y for y, _ in ticks], [text for _, text in ticks], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
