"""What is told to whoever only calls this server: the sentence, without the server's own places.

Folders, files and addresses help the person who runs the server, who finds them in the log.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from core.errors import InputError, RollmarkError, UnknownModelError

logger = logging.getLogger(__name__)

_PLACE: Final = re.compile(
    r"""[a-z][a-z0-9+.-]*://[^\s'"`,;()<>]*[^\s'"`,;()<>.:]  # an address, a database's too
    |(?<![\w.])/(?:[^\s/'"`<>]+/)+[^\s/'"`,;:()<>]*[^\s/'"`,;:()<>.]  # a file or a folder
    |(?<=server\ at\ )"[^"]+"(?:\ \([^)]+\))?,\ port\ \d+  # in PostgreSQL's words
    |(?<=host\ ')[^']+(?=')""",
    re.VERBOSE,
)


def told(error: RollmarkError) -> str:
    """What a caller is told; what is left out of it goes to the log."""
    if isinstance(error, InputError | UnknownModelError):  # about what the caller sent
        return str(error)
    sentence = without_places(str(error))
    if sentence != str(error):
        logger.warning("%s", error)
    return sentence


def without_places(text: str) -> str:
    """The text with an ellipsis for every path of this machine and every address."""
    return _PLACE.sub("…", text)
