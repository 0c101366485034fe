"""An accuracy page in Markdown from a plan and its records: the same records, the same page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from core.records import Evaluation, Metric
from core.taxonomy import words
from models import get_spec
from training.benchmark.plans import DATA
from training.benchmark.records import RowRecord
from training.benchmark.rows import Row, Setting
from training.benchmark.sheet import Block, Column, Section, Sheet, Target
from training.benchmark.summary import (
    Difference,
    Line,
    difference,
    is_shown,
    lines,
    mean_and_spread,
)

NOT_RUN = "not run"


def sections(
    rows: Iterable[Row], records: Mapping[str, RowRecord]
) -> dict[Section, tuple[Line, ...]]:
    """The lines of every section, in the order of the plan."""
    members: dict[Section, list[Row]] = {}
    for row in rows:
        members.setdefault(row.section, []).append(row)
    return {section: lines(own, records) for section, own in members.items()}


def render(
    sheet: Sheet,
    rows: Sequence[Row],
    records: Mapping[str, RowRecord],
    *,
    pictures: Iterable[str] = (),
    lookups: Sequence[Evaluation] = (),
) -> str:
    """The whole page.

    Args:
        sheet: its words.
        rows: everything it would show, run or not.
        records: what was run, by row; others than those of `rows` are passed over.
        pictures: files that lie beside the page; others are not shown.
        lookups: what looking up alone reaches, see `training.lookup`.
    """
    parts = sections(rows, records)
    text = [f"# {sheet.title}", "", sheet.intro, "", *_command(sheet)]
    there = set(pictures)
    for file, caption in sheet.pictures:
        if file in there:
            text += [f"![{caption}]({file})", "", f"*{caption}*", ""]
    if sheet.targets:
        aimed_at = DATA[sheet.table][0]  # a target is about the table's first data set
        text += _targets(
            sheet.targets, {s: found for s, found in parts.items() if s[1] == aimed_at}
        )
    text += sheet.more(parts)
    beside = _beside(parts)
    last: tuple[str, str, str] | None = None
    for section, found in parts.items():
        group, data, setting, protocol = section
        if not is_shown(found):
            continue
        if (data, setting, protocol) != last:
            first = found[0].row
            text += [f"## {data}, {protocol} protocol, {_setting(first.setting)}", ""]
            text += [sheet.protocols[first.protocol], "", *_looked_up(sheet, found, lookups)]
            last = data, setting, protocol
        text += _block(sheet.blocks[group], found, beside[data, setting, protocol])
    text += _missing(parts)
    text += _runs(parts)
    return "\n".join(text).rstrip() + "\n"


def percent(value: float) -> str:
    """A fraction in per cent with one digit."""
    return f"{100 * value:.1f}"


def _command(sheet: Sheet) -> list[str]:
    command = f"python -m training benchmark accuracy --task {sheet.table}"
    return [
        "Made by one command, which goes on where it was stopped; with `--page-only` it prints "
        "this page again from `records/`. Every number is of runs that are listed at the end; what "
        "was not run is listed, not estimated.",
        "",
        f"```bash\n{command}\n```",
        "",
    ]


def _setting(setting: Setting) -> str:
    return (
        f"setting *{setting.name}* ({setting.image_size} px, {setting.epochs} "
        f"epoch{'s' if setting.epochs > 1 else ''}, batch {setting.batch})"
    )


def _looked_up(sheet: Sheet, found: Sequence[Line], lookups: Sequence[Evaluation]) -> list[str]:
    """What is reached on the same test split without any network; none of it for a view of a set.

    A view's networks have learned from a part of the images, and looking up from all.
    """
    tested = {record.evaluation.test_id for line in found for record in line.records}
    if any(line.row.view or "@" in line.row.data for line in found):
        return []
    column = next(iter(sheet.blocks.values())).metrics[0]
    return [
        f"Without any network: each test image answered as the training image most like it is "
        f"labelled, turned as it fits, has {column.title} "
        f"{say_metric(lookup.metric(column.metric))} ([lookup.md](lookup.md)).\n"
        for lookup in lookups
        if lookup.dataset == found[0].row.data
        and lookup.protocol == found[0].row.protocol
        and lookup.test_id in tested
    ]


def _beside(
    parts: Mapping[Section, tuple[Line, ...]],
) -> dict[tuple[str, str, str], dict[str, Line]]:
    """The networks of each setting by name, of every group: a baseline may stand in another."""
    beside: dict[tuple[str, str, str], dict[str, Line]] = {}
    for (_, data, setting, protocol), found in parts.items():
        networks = beside.setdefault((data, setting, protocol), {})
        networks.update({line.row.network: line for line in found})
    return beside


def _block(block: Block, found: Sequence[Line], beside: Mapping[str, Line]) -> list[str]:
    n = next(line.records[0].evaluation.metrics[0].n for line in found if line.records)
    text = [f"### {block.heading}", "", f"{block.text} Test images: {n}.".strip(), ""]
    text += _main_table(block, found, beside)
    text += [f"{block.per_class.title} by class (%):", "", *_class_table(block.per_class, found)]
    return text


def _main_table(block: Block, found: Sequence[Line], beside: Mapping[str, Line]) -> list[str]:
    primary = block.metrics[0]
    heads = [
        *("network", "start", "seeds"),
        *(f"{column.title} (%)" for column in block.metrics),
        *("against the baseline", "published (%)", "parameters", "GFLOPs"),
    ]
    table = [f"| {' | '.join(heads)} |", f"| --- | --- |{' ---: |' * (len(heads) - 2)}"]
    for line in found:
        if not line.records:
            cells = [line.row.title, NOT_RUN, "0", *("–" for _ in heads[3:])]
        else:
            run = line.records[0].run
            start = "COCO" if run.initialisation.startswith("COCO") else "random"
            cells = [
                *(line.row.title, start, str(len(line.records))),
                *(_cell(line, column.metric) for column in block.metrics),
                *(
                    _gain(line, beside.get(line.row.against), primary.metric),
                    _published(line.row, primary.metric),
                ),
                *(f"{run.parameters:,}", f"{run.gflops:.2f}"),
            ]
        table.append(f"| {' | '.join(cells)} |")
    return [*table, ""]


def _cell(line: Line, metric: str) -> str:
    """One seed with its bootstrap interval, or mean ± standard deviation of several."""
    mean, spread = mean_and_spread(line.values(metric))
    if spread is not None:
        return f"{percent(mean)} ± {percent(spread)}"
    return say_metric(line.records[0].evaluation.metric(metric))


def say_metric(metric: Metric) -> str:
    """Per cent with the bootstrap interval, where there is one: `76.7 (73.4–80.6)`."""
    if metric.low is None or metric.high is None:
        return percent(metric.value)
    return f"{percent(metric.value)} ({percent(metric.low)}–{percent(metric.high)})"


def _gain(line: Line, baseline: Line | None, metric: str) -> str:
    if baseline is None or baseline is line:
        return "–"
    gain = difference(line, baseline, metric)
    if gain is None:
        return "–"
    common = len(line.by_seed.keys() & baseline.by_seed.keys())
    if common == len(line.records):
        return say_difference(gain)
    return f"{say_difference(gain)}, {'one seed' if common == 1 else f'{common} seeds'}"


def say_difference(gain: Difference) -> str:
    """Points with their sign: `+2.1 (−0.4–4.6)` of one seed, `+2.1 ± 0.8` of several."""
    told = _points(gain.value)
    if gain.spread is not None:
        return f"{told} ± {percent(gain.spread)}"
    if gain.low is None or gain.high is None:
        return told
    return f"{told} ({_points(gain.low)} to {_points(gain.high)})"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}".replace("-", "−")


def _published(row: Row, metric: str) -> str:
    for figure in get_spec(row.model).reported:
        if figure.dataset == row.data and figure.name == metric and row.protocol == "paper":
            return f"{100 * figure.value:.2f}"
    return "–"


def _class_table(column: Column, found: Sequence[Line]) -> list[str]:
    labels = list(
        dict.fromkeys(
            label
            for line in found
            for record in line.records
            for label in record.evaluation.metric(column.metric).per_class
        )
    )
    table = [
        f"| network | {' | '.join(map(words, labels))} |",
        f"| --- |{' ---: |' * len(labels)}",
    ]
    for line in found:
        if line.records:
            cells = []
            for label in labels:
                values = line.values(column.metric, label)
                mean, spread = mean_and_spread(values) if values else (0.0, None)
                told = percent(mean) + (f" ± {percent(spread)}" if spread is not None else "")
                cells.append(told if values else "–")
            table.append(f"| {line.row.title} | {' | '.join(cells)} |")
    return [*table, ""]


def _targets(targets: Sequence[Target], parts: Mapping[Section, tuple[Line, ...]]) -> list[str]:
    text = [
        "## What was aimed at",
        "",
        "Each is judged in the largest setting in which it was run.",
        "",
        "| target | protocol | aimed at | measured | setting | |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    for target in targets:
        aim = f"≥ {_points(target.at_least) if target.over else percent(target.at_least)}"
        value, setting = _measured(target, parts)
        if value is None:
            cells = [target.words, target.protocol, aim, NOT_RUN, "–", "–"]
        else:
            told = _points(value) if target.over else percent(value)
            verdict = "reached" if value >= target.at_least else "not reached"
            cells = [target.words, target.protocol, aim, told, setting, verdict]
        text.append(f"| {' | '.join(cells)} |")
    return [*text, ""]


def _measured(
    target: Target, parts: Mapping[Section, tuple[Line, ...]]
) -> tuple[float | None, str]:
    for (_, setting, protocol), networks in _beside(parts).items():
        if protocol != target.protocol or setting == "quick":
            continue
        by_network = {name: line for name, line in networks.items() if line.records}
        line = by_network.get(target.network)
        if line is None:
            continue
        if target.over is None:
            values = line.values(target.metric, target.label)
            return mean_and_spread(values)[0], setting
        if target.over in by_network:
            gain = difference(line, by_network[target.over], target.metric)
            if gain is not None:
                return gain.value, setting
    return None, ""


def _missing(parts: Mapping[Section, tuple[Line, ...]]) -> list[str]:
    """A line for each setting of a data set: which networks, with which seeds, are still to run."""
    left: dict[tuple[str, str, str], list[str]] = {}
    total: dict[tuple[str, str, str], int] = {}
    for (_, *where), found in parts.items():
        data, setting, protocol = where
        key = data, protocol, setting
        for line in found:
            seeds = [str(row.seed) for row in line.rows if row.seed not in line.by_seed]
            total[key] = total.get(key, 0) + 1
            if seeds:
                some = f" (seeds {', '.join(seeds)})" if len(seeds) < len(line.rows) else ""
                left.setdefault(key, []).append(f"`{line.row.network}`{some}")
    text = []
    for key, networks in left.items():
        every = len(networks) == total[key] and not any("(" in name for name in networks)
        told = "nothing of it was run" if every else ", ".join(networks)
        text.append(f"- {', '.join(key)}: {told}")
    return ["## Not run", "", *text, ""] if text else []


def _runs(parts: Mapping[Section, tuple[Line, ...]]) -> list[str]:
    head = ["| row | run | kept epoch | minutes | machine | code | weights |"]
    table: list[str] = []
    for found in parts.values():
        for line in found:
            for record in line.records:
                run = record.run
                name = "the row's own" if run.id == record.row else f"`{run.id}`"
                cells = [
                    *(f"`{record.row}`", name, f"{run.best_epoch} of {run.epochs}"),
                    *(f"{run.wall_time_s / 60:.0f}", f"{run.machine}, {run.precision}"),
                    *(f"`{run.git_commit[:12]}`", f"`{run.weights_sha256[:12]}`"),
                ]
                table.append(f"| {' | '.join(cells)} |")
    if not table:
        return []
    rule = "| --- | --- | ---: | ---: | --- | --- | --- |"
    return ["## Runs", "", *head, rule, *dict.fromkeys(table), ""]
