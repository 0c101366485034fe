"""What is said about a setting that is misspelt or out of bounds: one sentence each."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

import annotated_types
from pydantic.fields import FieldInfo


def unknown_name(name: str, known: Mapping[str, FieldInfo], *, prefix: str) -> str:
    """The sentence about a name that is none, with the nearest that is."""
    # Also without the group: people write ROLLMARK_PORT for ROLLMARK_SERVING__PORT. The prefix,
    # alike in all, would make everything look near.
    spellings = {full.removeprefix(prefix): full for full in known}
    spellings |= {full.rpartition("__")[2]: full for full in known}
    near = difflib.get_close_matches(name.removeprefix(prefix), spellings, n=1, cutoff=0.6)
    hint = f"Did you mean {spellings[near[0]]}?" if near else f"Known are {', '.join(known)}."
    return f"Unknown setting {name}. {hint}"


def invalid_value(
    name: str, given: Mapping[str, str], known: Mapping[str, FieldInfo], message: str
) -> str:
    """The sentence about a value that is not allowed: variable, value, bounds, meaning."""
    field = known.get(name)
    if field is None or name not in given:
        return f"{name} cannot be read: {message}."
    secret = "SecretStr" in str(field.annotation)
    value = "set, but" if secret else f"{given[name]!r}, but"
    message = message.removeprefix("Value error, ")
    bounds = _bounds(field)
    return (
        f"{name} is {value} {message[:1].lower()}{message[1:]}{f' ({bounds})' if bounds else ''}. "
        f"{field.description}"
    )


def _bounds(field: FieldInfo) -> str:
    """The limits of a number in words; empty for other types."""
    words = []
    for limit in field.metadata:
        if isinstance(limit, annotated_types.Ge):
            words.append(f"at least {limit.ge}")
        elif isinstance(limit, annotated_types.Gt):
            words.append(f"more than {limit.gt}")
        elif isinstance(limit, annotated_types.Le):
            words.append(f"at most {limit.le}")
    return ", ".join(words)
