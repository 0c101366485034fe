"""Requests to Label Studio: sent through its SDK, answered in JSON, failing in one of three ways.

The SDK brings authentication (it exchanges a personal access token for short-lived ones) and the
transport. It would also send a request again by itself when the answer is lost, and an import is
not idempotent: what writes is sent exactly once from here. Whatever goes wrong is one of three:

- refused: a clear no, nothing was done;
- not sent: it never arrived, or Label Studio asked to wait; nothing was done;
- unknown: the connection broke, timed out or answered 5xx; whether it was done has to be asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Literal

from core.errors import (
    ConfigError,
    LabelStudioError,
    OutcomeUnknown,
    RequestNotSent,
    RequestRefused,
)
from core.settings import LabelStudioSettings

TokenKind = Literal["personal access token", "legacy token"]

TIMEOUT_S: Final = 30.0
READ_RETRIES: Final = 2  # by the SDK, one and two seconds apart; reading twice does no harm
_LONGEST_DETAIL: Final = 300
_LONGEST_WAIT_S: Final = 3600.0


class Transport:
    """The way to one Label Studio as one user; every request raises LabelStudioError.

    Args:
        settings: address and token.
        timeout_s: how long one answer may take.
        read_retries: how often a request that only reads is tried again.

    Raises:
        ConfigError: if there is no token, or it holds what no token can.
        RequestRefused: if the token has expired.
    """

    def __init__(
        self, settings: LabelStudioSettings, *, timeout_s: float, read_retries: int
    ) -> None:
        from label_studio_sdk import LabelStudio as Sdk
        from label_studio_sdk.core.api_error import ApiError

        token = settings.token.get_secret_value().strip() if settings.token else ""
        if not token:
            raise ConfigError(
                "No token for Label Studio: copy one from Account & Settings in Label Studio into "
                "ROLLMARK_LABEL_STUDIO__TOKEN; `make label-studio` starts one and prints a token."
            )
        if not (token.isascii() and token.isprintable()):  # it could not travel in a header
            raise ConfigError(
                "ROLLMARK_LABEL_STUDIO__TOKEN is no token of Label Studio, it holds characters "
                "that none has: copy it anew from Account & Settings in Label Studio."
            )
        self.url = shown_address(settings.url)  # for people; requests go by the setting's own
        self.token_kind: TokenKind = (
            "personal access token" if token.count(".") == 2 else "legacy token"
        )
        self._read_retries = read_retries
        try:
            # With the slash the SDK also finds its refresh address below a path.
            self._sdk = Sdk(
                base_url=f"{settings.url.rstrip('/')}/",
                api_key=token,
                timeout=timeout_s,
                max_retries=0,
            )
        except ApiError as exc:
            raise failure(self.url, self.token_kind, 401, exc.body, {}) from exc

    def read(self, path: str, *, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """A JSON object; asked again if the answer is lost."""
        return self._json(self._call("GET", path, params=params, retries=self._read_retries))

    def read_bytes(self, path: str) -> bytes:
        """A file; asked again if the answer is lost."""
        return bytes(self._call("GET", path, retries=self._read_retries).content)

    def write(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """A change, sent exactly once; `more` is json, files or params."""
        return self._json(self._call(method, path, retries=0, **more))

    def close(self) -> None:
        """Give back the connections."""
        self._sdk._client_wrapper.httpx_client.httpx_client.close()

    def _call(self, method: str, path: str, *, retries: int, **more: Any) -> Any:
        """One request and its answer, which is 2xx."""
        client = self._sdk._client_wrapper.httpx_client
        options = {"max_retries": retries}
        with mapped(self.url, self.token_kind):
            answer = client.request(path, method=method, request_options=options, **more)
            if answer.status_code == 401 and self.token_kind == "personal access token":
                # The clock over there is ahead of ours: the short-lived token has run out there.
                # Nothing was done, so it may be asked once more with a new one.
                self._sdk._client_wrapper._tokens_client._access_token = None
                answer = client.request(path, method=method, request_options=options, **more)
        if not 200 <= answer.status_code < 300:
            try:
                body = answer.json()
            except ValueError:
                body = None
            raise failure(self.url, self.token_kind, answer.status_code, body, answer.headers)
        return answer

    def _json(self, answer: Any) -> dict[str, Any]:
        if answer.status_code == 204:
            return {}
        try:
            body = answer.json()
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise OutcomeUnknown(
                f"Label Studio at {self.url} answered {answer.status_code} with something else "
                "than a JSON object; is there another program or a proxy at that address?"
            )
        return body


def shown_address(url: str) -> str:
    """The address as a person may see it: without user and password, and without a last slash."""
    scheme, _, rest = url.partition("://")
    place = rest.rpartition("@")[2]  # the last one: a password may hold any sign
    return f"{scheme}://{place}".rstrip("/")


def part(answer: Mapping[str, Any], key: str) -> Any:
    """An entry of an answer that Label Studio always gives.

    Raises:
        OutcomeUnknown: if it is not there: then whatever answered is not Label Studio.
    """
    if key not in answer:
        raise OutcomeUnknown(
            f"The answer has no {key!r}; is there another program or a proxy at the address of "
            "Label Studio?"
        )
    return answer[key]


def only(answer: Mapping[str, Any], key: str) -> int:
    """The id of the one thing that was made.

    Raises:
        OutcomeUnknown: if the answer tells of none or of several.
    """
    ids = part(answer, key)
    if not isinstance(ids, list) or len(ids) != 1:
        raise OutcomeUnknown(f"Label Studio tells of {key} {ids!r:.50}; one was to be made.")
    return int(ids[0])


def failure(
    url: str, token_kind: str, status: int, body: Any, headers: Mapping[str, str]
) -> LabelStudioError:
    """The error for an answer that is not 2xx.

    Args:
        url: of Label Studio, as it is shown.
        token_kind: in words.
        status: of the answer.
        body: of the answer as JSON, None if it was none.
        headers: of the answer; only Retry-After is looked at, others may hold secrets.
    """
    detail = _detail(body)
    where = f"Label Studio at {url}"
    if status == 401:
        return RequestRefused(_wrong_token(where, token_kind, detail), status=status)
    if status == 403:
        return RequestRefused(
            f"{where} does not allow this to the user of ROLLMARK_LABEL_STUDIO__TOKEN"
            f"{detail and ': ' + detail}; use the token of a user who may change the project.",
            status=status,
        )
    if status == 404:
        return RequestRefused(
            f"{where} has no such project, task or page{detail and ': ' + detail}; was it deleted?",
            status=status,
        )
    if status in (409, 429):
        wait_s = _seconds(headers.get("retry-after"))
        return RequestNotSent(
            f"{where} asks to wait (answer {status}); it is tried again later.",
            retry_after_s=wait_s,
        )
    if 400 <= status < 500 and status != 408:
        return RequestRefused(
            f"{where} refused (answer {status}): {detail or 'no reason given'}.",
            status=status,
        )
    return OutcomeUnknown(
        f"{where} failed with answer {status}: it may be overloaded or restarting."
    )


@contextmanager
def mapped(url: str, token_kind: str) -> Iterator[None]:
    """Turn what the SDK and its transport raise into our errors.

    Raises:
        RequestNotSent: if no connection was made.
        RequestRefused: if the token could not be exchanged.
        OutcomeUnknown: if the connection broke after that.
    """
    import httpx
    from label_studio_sdk.core.api_error import ApiError

    where = f"Label Studio at {url}"
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
        raise RequestNotSent(
            f"{where} cannot be reached ({exc or type(exc).__name__}): is it running, and is "
            "ROLLMARK_LABEL_STUDIO__URL right?"
        ) from exc
    except httpx.InvalidURL as exc:  # its own words quote the address, a password in it too
        raise RequestNotSent(
            f"{where} cannot be asked: ROLLMARK_LABEL_STUDIO__URL is no address of a server."
        ) from exc
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError) as exc:
        raise RequestNotSent(f"{where} cannot be asked: {exc}.") from exc
    except httpx.HTTPError as exc:
        raise OutcomeUnknown(
            f"{where} broke off without a whole answer ({type(exc).__name__})."
        ) from exc
    except ApiError as exc:  # only exchanging the token raises it: nothing was asked yet
        status = exc.status_code or 500
        if status < 500 and status not in (408, 429):
            raise failure(url, token_kind, 401, exc.body, {}) from exc
        raise RequestNotSent(f"{where} cannot renew the token (answer {status}).") from exc
    except json.JSONDecodeError as exc:
        raise RequestNotSent(
            f"{where} answered the token with something that is no JSON; is there another program "
            "or a proxy at that address?"
        ) from exc


def _wrong_token(where: str, token_kind: str, detail: str) -> str:
    if token_kind == "legacy token":
        why = (
            "legacy tokens are switched off there, a personal access token is needed"
            if "legacy" in detail.lower()
            else "it is a legacy token that is not known there"
        )
    else:
        why = "it is a personal access token that was revoked, has expired or is of another server"
    return (
        f"{where} does not accept ROLLMARK_LABEL_STUDIO__TOKEN; {why}. "
        "Copy a new one from Account & Settings in Label Studio."
    )


def _detail(body: Any) -> str:
    """What Label Studio says is wrong, cut to a sentence."""
    if isinstance(body, Mapping):
        errors = body.get("validation_errors")
        said = errors or body.get("detail") or body.get("predictions") or dict(body)
    else:
        said = body
    text = said if isinstance(said, str) else json.dumps(said) if said else ""
    return " ".join(text.split())[:_LONGEST_DETAIL].rstrip(".")


def _seconds(text: str | None) -> float:
    """The wait that Retry-After asks for; 0 where it gives a date or nonsense."""
    try:
        return min(max(float(text or 0), 0.0), _LONGEST_WAIT_S)
    except ValueError:
        return 0.0
