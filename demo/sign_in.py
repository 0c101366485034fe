"""Who may act: send images, promote, roll back. Looking is open to all; acting needs a reviewer.

On a Space a reviewer is a user of the Hub whom the settings name, signed in by OAuth. Elsewhere it
is whoever knows the password of the settings; without one, whoever sits at this very machine. The
check is made around the handler itself: hidden endpoints answer to plain HTTP all the same.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import ipaddress
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs, urlsplit

import gradio as gr
from gradio.context import LocalContext
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from core.settings import ServingSettings
from demo.closed_door import closed_door

logger = logging.getLogger(__name__)

COOKIE: Final = "rollmark_reviewer"
LOCAL: Final = "reviewer"  # the name of whoever acts where there are no accounts
_LASTS_S: Final = 12 * 3600
_MAX_BODY_BYTES: Final = 4096
_FAILURES, _FAILURES_S = 5, 60.0  # wrong passwords that close the door, and for how long
_MARK: Final = "needs_reviewer"
_FORM: Final = """<form class="sign-in" method="post" action="sign-in">
<label>Reviewer's password
<input type="password" name="password" autocomplete="current-password" required></label>
<button>Sign in</button> <span role="alert">{why}</span></form>"""
_SIGNED_IN: Final = """<form class="sign-in" method="post" action="sign-out">
Signed in as reviewer. <button>Sign out</button></form>"""
# Headers that only proxies add. One that adds none speaks HTTP 1.0, as nginx does untold.
_PROXIES: Final = frozenset({"forwarded", "via", "x-real-ip"}) | {
    f"x-forwarded-{what}" for what in ("for", "host", "proto")
}
_Handler = TypeVar("_Handler", bound=Callable[..., Any])
_acting: ContextVar[str] = ContextVar("acting")


def acts(handler: _Handler) -> _Handler:
    """Mark a handler as one that only a reviewer may call; `SignIn.guard` sees to it."""
    setattr(handler, _MARK, True)
    return handler


def acting() -> str:
    """Name of the reviewer on whose behalf the handler runs that asks; only one that `acts` may."""
    return _acting.get()


class SignIn:
    """Tells reviewers from visitors.

    Args:
        serving: who reviewers are, and where the app listens.
    """

    def __init__(self, serving: ServingSettings) -> None:
        self._serving = serving
        self._on_space = bool(os.environ.get("SPACE_ID"))
        self._key = secrets.token_bytes(32)  # a restart signs everybody out
        self._failures: list[float] = []
        self._lock = threading.Lock()

    @property
    def by_password(self) -> bool:
        """Whether a password signs a reviewer in."""
        return not self._on_space and self._serving.reviewer_password is not None

    @property
    def by_account(self) -> bool:
        """Whether an account on the Hub does."""
        return self._on_space and bool(os.environ.get("OAUTH_CLIENT_ID"))

    def who(self, request: Any) -> str | None:
        """Name of the reviewer behind a request; None: a visitor.

        Args:
            request: of Gradio or Starlette; None, as of a call from inside, is a visitor's.
        """
        request = getattr(request, "request", request)
        if request is None:
            return None
        if self._on_space:
            user = _hub_user(request)
            named = {name.strip().lower() for name in self._serving.reviewers.split(",")}
            return user if user is not None and user.lower() in named - {""} else None
        if not _is_from_our_page(request):
            return None
        if self._serving.reviewer_password is not None:
            return LOCAL if any(map(self._is_valid, _tickets(request))) else None
        is_here = _is_loopback(self._serving.host) and _sits_here(request)
        return LOCAL if is_here else None

    def refusal(self) -> str:
        """What a visitor is told who tries to act."""
        if self._on_space and not self.by_account:
            return "Nobody may do this here: the Space has no sign-in for reviewers."
        if self.by_account:
            return "Only reviewers of this Space may do this: sign in with Hugging Face as one."
        if self.by_password:
            return "Only reviewers may do this: sign in with the password at the foot of the page."
        return (
            "Only reviewers may do this, and from another machine only with a password: set "
            "ROLLMARK_SERVING__REVIEWER_PASSWORD."
        )

    def place(self, blocks: Any) -> None:
        """Put what signs a reviewer in where the page is being built; nothing if nothing does."""
        if self.by_account:
            gr.LoginButton("Sign in with Hugging Face", size="sm", elem_id="sign-in")
        elif self.by_password:
            shown = gr.HTML(_FORM.format(why=""))
            blocks.load(self._form, outputs=shown, api_visibility="private", queue=False)

    def guard(self, blocks: Any) -> None:
        """Put the check around every handler of a page that `acts` has marked."""
        for event in blocks.fns.values():
            if getattr(event.fn, _MARK, False):
                event.fn = self._guarded(event.fn)

    def routes(self) -> list[Route]:
        """Where the form at the foot of the page is sent."""
        return [
            Route("/sign-in", self._sign_in, methods=["POST"]),
            Route("/sign-out", self._sign_out, methods=["POST"]),
        ]

    def _form(self, request: gr.Request) -> str:
        if self.who(request) is not None:
            return _SIGNED_IN
        is_wrong = request.query_params.get("signed-in") == "no"
        return _FORM.format(why="That password is wrong." if is_wrong else "")

    def _guarded(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)  # Gradio reads the signature for what it injects
        def guarded(*arguments: Any) -> Any:
            who = self.who(LocalContext.request.get(None))
            if who is None:
                raise gr.Error(self.refusal(), print_exception=False)
            logger.info("%s does %s", who, getattr(handler, "__name__", "something"))
            before = _acting.set(who)
            try:
                return handler(*arguments)
            finally:
                _acting.reset(before)

        return guarded

    async def _sign_in(self, request: Request) -> Response:
        password = self._serving.reviewer_password
        if not self.by_password or password is None:
            return Response("There is no password to sign in with.", 404)
        if int(request.headers.get("content-length") or _MAX_BODY_BYTES + 1) > _MAX_BODY_BYTES:
            return Response("A password is shorter.", 413)
        given = parse_qs((await request.body()).decode("utf-8", "replace")).get("password", [""])[0]
        if wait_s := self._wait_s():
            return closed_door(wait_s)
        if not hmac.compare_digest(given.encode(), password.get_secret_value().encode()):
            with self._lock:
                self._failures.append(time.monotonic())
            logger.warning("a wrong password was given")
            return RedirectResponse("./?signed-in=no", 303)
        answer = RedirectResponse("./", 303)
        # Without a path a browser takes the folder it sent the form to, which a proxy may have put
        # before the app's own: the cookie is not for what else is served there.
        answer.set_cookie(
            COOKIE,
            self._ticket(int(time.time()) + _LASTS_S),
            max_age=_LASTS_S,
            path=None,
            httponly=True,
            samesite="strict",
            secure="https" in (request.url.scheme, request.headers.get("x-forwarded-proto")),
        )
        return answer

    async def _sign_out(self, _: Request) -> Response:
        answer = RedirectResponse("./", 303)
        answer.set_cookie(COOKIE, max_age=0, path=None)
        return answer

    def _wait_s(self) -> int:
        """For how long the door stays closed; 0: it is open."""
        with self._lock:
            now = time.monotonic()
            self._failures = [at for at in self._failures if at > now - _FAILURES_S]
            if len(self._failures) < _FAILURES:
                return 0
            return math.ceil(self._failures[-_FAILURES] + _FAILURES_S - now)

    def _ticket(self, until: int) -> str:
        seal = hmac.new(self._key, str(until).encode(), hashlib.sha256).hexdigest()
        return f"{until}.{seal}"

    def _is_valid(self, ticket: str) -> bool:
        until = ticket.partition(".")[0]
        if not (until.isascii() and until.isdigit()) or len(until) > 12:
            return False
        sound = hmac.compare_digest(ticket.encode(), self._ticket(int(until)).encode())
        return sound and int(until) > time.time()


def _tickets(request: Any) -> Iterator[str]:
    """Of every cookie of our name; an app at a path above this one has one of the same name."""
    for cookie in request.headers.get("cookie", "").split(";"):
        name, _, ticket = cookie.strip().partition("=")
        if name == COOKIE:
            yield ticket


def _hub_user(request: Any) -> str | None:
    """The Hub's user of a session that has not run out."""
    session = request.scope.get("session") or {}
    info = session.get("oauth_info") or {}
    expires_at = info.get("expires_at")
    if expires_at is not None and expires_at < time.time():
        return None
    name = (info.get("userinfo") or {}).get("preferred_username")
    return str(name) if name else None


def _is_from_our_page(request: Any) -> bool:
    """Whether no other site's page sent it: a browser says where a request comes from.

    A proxy may ask by another name and tell the one that the browser knows, which no other site's
    page can: a browser asks us first before it sends that header for one.
    """
    origin = request.headers.get("origin")
    told = request.headers.get("x-forwarded-host", "").partition(",")[0].strip()
    return origin is None or urlsplit(origin).netloc in (request.headers.get("host"), told)


def _sits_here(request: Any) -> bool:
    """Whether it comes from this machine, asks for it by its own name, and met no proxy on it.

    A stranger's page can have its own name lead here: its origin and the host it asks for agree.
    """
    if _PROXIES & set(request.headers) or request.scope.get("http_version") == "1.0":
        return False
    host = request.headers.get("host", "").lower()  # name:port, [IPv6 address]:port
    asked_for = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    came_from = request.client.host if request.client is not None else ""
    return _is_loopback(asked_for) and _is_loopback(came_from)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
