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


PathToBe = Annotated[Path, AfterValidator(_at_home)]  # of a file or folder, there or not
Fraction = Annotated[float, Field(ge=0, le=1)]
