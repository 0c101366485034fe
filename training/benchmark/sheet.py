"""What an accuracy page says beside its numbers: the words of its tables, and what was aimed at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from training.benchmark.rows import Table
from training.benchmark.summary import Line
from training.splits import Protocol

Section = tuple[str, str, str, str]  # group, data, setting, protocol


@dataclass(frozen=True, slots=True)
class Column:
    """A metric as a page shows it."""

    title: str
    metric: str


@dataclass(frozen=True, slots=True)
class Block:
    """How the rows of one group are shown; the first metric is the primary one."""

    heading: str
    text: str
    metrics: tuple[Column, ...]
    per_class: Column


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something that was aimed at: `metric` (of a class) of a network, or its gain over another."""

    words: str
    protocol: Protocol
    network: str
    metric: str
    at_least: float  # fraction
    label: str | None = None
    over: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """What a page says beside its numbers."""

    table: Table
    stem: str  # of the file
    title: str
    intro: str
    blocks: Mapping[str, Block]  # by group
    protocols: Mapping[Protocol, str]  # how each divides, and what follows from that
    pictures: tuple[tuple[str, str], ...]  # file, caption
    targets: tuple[Target, ...] = ()
    more: Callable[[Mapping[Section, tuple[Line, ...]]], list[str]] = lambda sections: []
