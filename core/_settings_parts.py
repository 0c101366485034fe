"""What groups of settings are made of: a frozen base, folders and fractions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Group(BaseModel):
    """Settings that belong together; inputs stay out of error texts, for some are secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def _at_home(path: Path) -> Path:
    """The path with a leading ~ as the home folder it means."""
    try:
        return path.expanduser()
    except RuntimeError as exc:
        raise ValueError("this machine knows no such home folder") from exc


def _without_brackets(host: str) -> str:
    """The address alone: [::1] is how an IPv6 address stands in front of a port."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


PathToBe = Annotated[Path, AfterValidator(_at_home)]  # of a file or folder, there or not
Host = Annotated[str, AfterValidator(_without_brackets), Field(min_length=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
