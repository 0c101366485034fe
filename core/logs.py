"""Logging set-up for entry points: one readable line per event, and no secret in any of them."""

from __future__ import annotations

import logging
import re
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, SecretStr

if TYPE_CHECKING:
    from core.settings import Settings

Style = Literal["auto", "rich", "plain"]

MASK: Final = "[secret]"
_TOKENS: Final = re.compile(
    r"\bhf_[A-Za-z0-9]{8,}"  # Hugging Face
    r"|\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?"  # JSON web tokens
    r"|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"  # user:password@host in an address
    r"|(?:(?<=[?&]password=)|(?<=[?&]sslpassword=))[^&\s'\"]+"  # in an address, too
    r"|(?<=\bBearer )[^\s'\"]+|(?<=\bToken )(?=[^\s'\"]*\d)[^\s'\"]{16,}"  # header values
)
_MIN_SECRET_LENGTH: Final = 4  # a shorter one would blot out ordinary words
OURS: Final = ("__main__", "app", "core", "models", "training", "hub", "active_learning", "demo")


class SecretFormatter(logging.Formatter):
    """Masks known secrets and whatever looks like a token in the finished line, tracebacks too.

    A formatter, not a filter: a filter sees the message before the traceback is added to it.
    """

    def __init__(self, inner: logging.Formatter, secrets: frozenset[str]) -> None:
        super().__init__()
        self._inner = inner
        # Longest first, so that a secret which contains another is masked whole.
        self._secrets = sorted(secrets, key=len, reverse=True)

    def format(self, record: logging.LogRecord) -> str:
        """The line of the wrapped formatter without its secrets."""
        return self.mask(self._inner.format(record))

    def mask(self, text: str) -> str:
        """The text without its secrets."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return _TOKENS.sub(MASK, text)


def masked(text: str, settings: Settings | None = None) -> str:
    """A text without the secrets of these settings and whatever looks like a token."""
    return SecretFormatter(logging.Formatter(), frozenset(_secrets_in(settings))).mask(text)


def set_up_logging(settings: Settings | None = None, *, style: Style = "auto") -> None:
    """Send log lines of every thread to stderr; called once, by an entry point.

    Our own loggers speak from INFO on; libraries, some of which log every request with its headers,
    from WARNING on.

    Args:
        settings: whose secrets are masked, besides everything that looks like a token.
        style: "rich" for a terminal, "plain" for files; "auto" asks stderr what it is.
    """
    rich = style == "rich" or (style == "auto" and sys.stderr.isatty())
    handler = _rich_handler() if rich else logging.StreamHandler()
    line = "%(message)s" if rich else "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    inner = logging.Formatter(line, datefmt="%Y-%m-%dT%H:%M:%S%z")
    handler.setFormatter(SecretFormatter(inner, frozenset(_secrets_in(settings))))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in OURS:
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    threading.excepthook = _log_thread_failure


def _rich_handler() -> logging.Handler:
    from rich.console import Console
    from rich.logging import RichHandler

    # Tracebacks go through our formatter: rich's own would print them unmasked.
    return RichHandler(
        console=Console(stderr=True), show_path=False, markup=False, rich_tracebacks=False
    )


def _secrets_in(value: Any) -> Iterator[str]:
    """Every secret value below a settings object."""
    if isinstance(value, SecretStr):
        secret = value.get_secret_value()
        if len(secret) >= _MIN_SECRET_LENGTH:
            yield secret
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets_in(getattr(value, name))


def _log_thread_failure(args: threading.ExceptHookArgs) -> None:
    if issubclass(args.exc_type, SystemExit):  # a thread that was told to end
        return
    name = args.thread.name if args.thread else "a thread"
    failure = args.exc_value or args.exc_type()
    logging.getLogger(__name__).error("%s failed", name, exc_info=failure)
