"""Numbers and lists as a person at the mill reads them."""

from __future__ import annotations

from collections.abc import Sequence

from core.taxonomy import title


def number(fraction: float) -> str:
    """A fraction with two significant digits; never rounded to a 0 or 1, which would be a claim."""
    if fraction >= 0.995:
        return "> 0.99" if fraction < 1 else "1.00"
    if fraction < 0.01:
        return "< 0.01" if fraction > 0 else "0"
    return f"{fraction:.2f}" if fraction >= 0.1 else f"{fraction:.2g}"


def told_apart(less: float, more: float) -> tuple[str, str]:
    """Two fractions of which one is below the other, with as many digits as that takes to see."""
    digits = 2
    words = number(less), number(more)
    while words[0] == words[1] and less < more and digits < 6:
        digits += 1
        words = f"{less:.{digits}f}", f"{more:.{digits}f}"
    return words


def named(label: str) -> str:
    """A class inside a sentence: `rolled-in scale`; one's own `Riss KTL` keeps its capitals."""
    name = title(label)
    return name[:1].lower() + name[1:] if label == label.lower() else name


def capital(text: str) -> str:
    """A sentence that begins with a capital, whatever name or class it begins with."""
    return text[:1].upper() + text[1:]


def count(n: int, noun: str) -> str:
    """`1 place`, `2 places`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
