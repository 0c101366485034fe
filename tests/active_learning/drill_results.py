"""What a drill found, and its section of docs/benchmarks/reliability.md."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

REPORT = Path(__file__).resolve().parents[2] / "docs" / "benchmarks" / "reliability.md"


@dataclass
class Result:
    """One drill in numbers; every wrong one is a promise that was not kept."""

    title: str
    numbers: dict[str, object] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    tallies: dict[str, Counter[str]] = field(default_factory=dict)  # by heading
    written_by: str = ""  # a sentence, where it was not the whole page's command

    def render(self) -> str:
        parts = [f"## {self.title}", *filter(None, [self.written_by])]
        parts.append(_table("what", self.numbers | self.wrong))
        parts += [
            _table(heading, {name: tally[name] for name in sorted(tally)})
            for heading, tally in self.tallies.items()
        ]
        return "\n\n".join(parts)


def section(page: str, title: str) -> str:
    """A section of a page, from its heading to the next one; "" if there is none."""
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    return found[0].strip() if found else ""


def with_section(page: str, result: Result) -> str:
    """The page with the result's section at its end, in the place of an older one."""
    rest = page.replace(section(page, result.title), "").strip() + "\n\n"
    return f"{re.sub(chr(10) + '{3,}', chr(10) * 2, rest)}{result.render()}\n"


def _table(heading: str, rows: Mapping[str, object]) -> str:
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([f"| {heading} | number |", "| --- | ---: |", *lines])
