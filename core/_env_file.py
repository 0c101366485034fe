"""The settings' `.env` file as it stands: every line is understood, or the start ends there."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from core.errors import ConfigError


def read_env_file(path: Path) -> dict[str, str | None]:
    """The variables of the file; none where there is no such file.

    Raises:
        ConfigError: if the file is no text that can be read, or a line is not `NAME=value`; the
            line is told by its number alone, for it may hold a secret.
    """
    try:
        text = path.read_text("utf-8") if path.is_file() else ""
    except UnicodeDecodeError as exc:
        raise ConfigError(
            f"{path} is not UTF-8 text at byte {exc.start}: save it as UTF-8."
        ) from exc
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be read: {exc.strerror}; make it readable for this user."
        ) from exc
    # dotenv_values leaves such a line out: what was set there would be the default, unnoticed.
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            original = binding.original.string  # from the end of the line before, empty ones too
            empty = original[: len(original) - len(original.lstrip())].count("\n")
            raise ConfigError(
                f"Line {binding.original.line + empty} of {path} cannot be read: "
                "write NAME=value, with its quotes closed."
            )
    return dotenv_values(stream=StringIO(text))
