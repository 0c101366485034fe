"""What one model says in the common words of a committee, and the vote of several in one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from active_learning.wording import capital, listed, named
from core.types import Task

_MOST_NAMED: Final = 4  # classes in one part of the vote; of more, one less is named

_NOUN: Final[Mapping[Task, str]] = {
    "detect": "detector",
    "segment": "segmenter",
    "classify": "classifier",
}


@dataclass(frozen=True, slots=True)
class Opinion:
    """One inspection in common words."""

    called: str  # the model, by its title or its name
    task: Task
    size: tuple[int, int]  # width, height in px
    known: frozenset[str]  # common names of the classes it was taught
    seen: dict[str, float]  # common name → highest probability, most probable first
    boxes: dict[str, NDArray[np.float64]]  # common name → (n, 4) px
    chances: dict[str, NDArray[np.float64]]  # (n,) of the boxes

    @property
    def main(self) -> str | None:
        """The most probable class, None if nothing was found."""
        return next(iter(self.seen), None)


def sentence_of(opinions: Sequence[Opinion]) -> str:
    """The vote in one line: "4 of 5 see scratches; the classifier says inclusion"."""
    votes: dict[str, list[float]] = {}
    for opinion in opinions:
        for name, probability in opinion.seen.items():
            votes.setdefault(name, []).append(probability)
    if not votes:
        return "No model finds a defect."
    asked = {name: sum(name in opinion.known for opinion in opinions) for name in votes}
    ranked = sorted(votes, key=lambda n: (-len(votes[n]), -asked[n], -sum(votes[n]), n))
    also = [n for n in ranked[1:] if any({ranked[0], n} <= o.seen.keys() for o in opinions)]
    first, *others = _alike(opinions, [ranked[0], *also])
    parts = [_vote(opinions, first), *(_vote(opinions, names, also=True) for names in others)]
    said: dict[str, list[str]] = {}
    for opinion in opinions:
        if ranked[0] in opinion.seen or opinion.main in also:
            continue
        if opinion.main is not None:
            said.setdefault(f"says {named(opinion.main)}", []).append(_who(opinion, opinions))
        elif ranked[0] in opinion.known:
            said.setdefault("finds nothing", []).append(_who(opinion, opinions))
    for words, who in said.items():
        verb, rest = words.split(" ", 1)
        parts.append(f"{listed(who)} {verb if len(who) == 1 else verb[:-1]} {rest}")
    return "; ".join(parts) + "."


def _alike(opinions: Sequence[Opinion], names: Sequence[str]) -> list[list[str]]:
    """Classes that the same models were taught and the same models see, in the order given."""
    alike: dict[tuple[tuple[bool, bool], ...], list[str]] = {}
    for name in names:
        voters = tuple((name in opinion.known, name in opinion.seen) for opinion in opinions)
        alike.setdefault(voters, []).append(name)
    return list(alike.values())


def _vote(opinions: Sequence[Opinion], names: Sequence[str], *, also: bool = False) -> str:
    """`4 of 5 see scratches`; `both that know crazing see it` where others were not taught it.

    The classes have the same voters.
    """
    asked = sum(names[0] in opinion.known for opinion in opinions)
    seen = sum(names[0] in opinion.seen for opinion in opinions)
    who = ("both" if asked == 2 else f"all {asked}") if seen == asked else f"{seen} of {asked}"
    what = _classes(names)
    if asked == 1:
        who = next(_who(opinion, opinions) for opinion in opinions if names[0] in opinion.known)
    elif asked < len(opinions):
        who, what = f"{who} that know {what}", "it" if len(names) == 1 else "them"
    verb = "sees" if seen == 1 else "see"
    words = f"{who} {'also ' if also else ''}{verb} {what}"
    return words if also else capital(words)


def _classes(names: Sequence[str]) -> str:
    """`crazing and inclusion`; `crazing, inclusion, patches and 3 more`."""
    called = [named(name) for name in names]
    if len(called) > _MOST_NAMED:
        told = _MOST_NAMED - 1
        called = [*called[:told], f"{len(called) - told} more"]
    return listed(called)


def _who(opinion: Opinion, opinions: Sequence[Opinion]) -> str:
    """`the classifier` where there is one, what a model is called where there are several."""
    of_task = sum(other.task == opinion.task for other in opinions)
    return f"the {_NOUN[opinion.task]}" if of_task == 1 else opinion.called
