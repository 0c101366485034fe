"""What is said about a setting that is misspelt or out of bounds: one sentence each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, get_args

import annotated_types
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_LONGEST: Final = 80  # characters of a value that are repeated
_CHOICES: Final = re.compile(r"\^\(([a-z0-9|]+)\)\$")  # a pattern that only lists words


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
    name: str, given: Mapping[str, str], known: Mapping[str, FieldInfo], error: ErrorDetails
) -> str:
    """The sentence about a value that is not allowed: variable, value, bounds, meaning."""
    field = known.get(name)
    if field is None or name not in given:  # of several settings together
        return f"{error['msg'].removeprefix('Value error, ')}."
    secret = "SecretStr" in str(field.annotation)
    value = "set, but" if secret else f"{_short(given[name])}, but"
    return f"{name} is {value} {_must(field, error)}. {field.description}"


def _must(field: FieldInfo, error: ErrorDetails) -> str:
    """What would be right, in words for who sets it; pydantic's own speak of types and patterns."""
    bounds = _bounds(field)
    match error["type"].partition("_")[0]:
        case "int":
            return f"it must be {', '.join(['a whole number', *bounds])}"
        case "float" | "finite":
            return f"it must be {', '.join(['a number', *bounds])}"
        case "greater" | "less":
            return f"it must be {', '.join(bounds)}"
        case "bool":
            return "it must be true or false"
    limit = error.get("ctx", {})
    match error["type"].removeprefix("string_"):
        case "too_short":
            return f"it must have {_characters('at least', limit['min_length'])}"
        case "too_long":
            return f"it must have {_characters('at most', limit['max_length'])}"
        case "pattern_mismatch":
            choices = _CHOICES.fullmatch(limit["pattern"])
            if choices is not None:
                *others, last = choices[1].split("|")
                return f"it must be {', '.join(others)} or {last}"
            kind = (field.description or "").rpartition("; ")[2].removesuffix(".")
            return f"it must be {kind}"
    message = error["msg"].removeprefix("Value error, ")
    return f"{message[:1].lower()}{message[1:]}"


def _short(value: str) -> str:
    return repr(value) if len(value) <= _LONGEST else f"{value[:_LONGEST]!r} …"


def _characters(bound: str, number: int) -> str:
    return f"{bound} {number} character{'' if number == 1 else 's'}"


def _bounds(field: FieldInfo) -> list[str]:
    """The limits of a number in words; none for other types."""
    limits = list(field.metadata)
    for part in get_args(field.annotation):  # a fraction or none has them inside
        for inner in getattr(part, "__metadata__", ()):
            limits += inner.metadata if isinstance(inner, FieldInfo) else [inner]
    words = []
    for limit in limits:
        if isinstance(limit, annotated_types.Ge):
            words.append(f"at least {limit.ge}")
        elif isinstance(limit, annotated_types.Gt):
            words.append(f"more than {limit.gt}")
        elif isinstance(limit, annotated_types.Le):
            words.append(f"at most {limit.le}")
    return words
