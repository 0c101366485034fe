"""Label Studio's webhooks: a hint that there is something to pull, and never more than that.

Label Studio tries a webhook once, for one second, in any order, and signs nothing. So the body is
not even read: whoever knows the secret may wake the poller, and the truth is what it then pulls.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from threading import Event
from typing import Final

from core.settings import LabelStudioSettings

logger = logging.getLogger(__name__)

SECRET_HEADER: Final = "X-Rollmark-Secret"
MAX_BODY_BYTES: Final = 1_000_000


class Webhook:
    """The receiving end; an app mounts `handle_webhook` under an address of its choice.

    Args:
        settings: with the secret; without one every call is turned away.
        poll_now: set by each call that knows the secret; the poller waits for it and clears it.
    """

    def __init__(self, settings: LabelStudioSettings, poll_now: Event) -> None:
        secret = settings.webhook_secret
        self._secret = secret.get_secret_value().encode() if secret else b""
        self._poll_now = poll_now

    def handle_webhook(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Wake the poller if the caller knows the secret.

        Args:
            headers: of the request; the case of their names does not matter.
            body: of the request; the app has to stop reading at `MAX_BODY_BYTES` + 1.

        Returns:
            Whether the call was accepted; the app answers 200 or 401 and says nothing else.
        """
        given = next((v for k, v in headers.items() if k.lower() == SECRET_HEADER.lower()), "")
        # Compared even where there is no secret: the time tells nothing.
        known = hmac.compare_digest(given.encode("utf-8", "replace"), self._secret)
        if not (known and self._secret) or len(body) > MAX_BODY_BYTES:
            logger.warning("turned a webhook away (%d bytes)", len(body))
            return False
        self._poll_now.set()
        return True
