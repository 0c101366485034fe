"""Only reviewers act, whichever way a request comes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import httpx
import pytest
from playwright.sync_api import expect
from starlette.datastructures import Headers

from core.settings import ServingSettings
from demo.sign_in import COOKIE, SignIn
from tests.browsers import new_page, serious_barriers

PASSWORD = "pickled-steel"
TIMEOUT_S = 120
REBOUND = {"host": "elsewhere.example:7860", "origin": "http://elsewhere.example:7860"}


def request(host="127.0.0.1", *, headers=None, cookies=(), session=None, http="1.1"):
    """What the app sees of a request; `cookies` are pairs, for a name may come twice."""
    sent = "; ".join(f"{name}={value}" for name, value in cookies)
    return SimpleNamespace(
        client=SimpleNamespace(host=host),
        headers=Headers({"host": "127.0.0.1:7860", "cookie": sent, **(headers or {})}),
        scope={"http_version": http} | ({} if session is None else {"session": session}),
    )


def hub_session(name, *, expires_in=60.0):
    info = {"userinfo": {"preferred_username": name}, "expires_at": time.time() + expires_in}
    return {"oauth_info": info}


@pytest.mark.parametrize(
    ("listens", "sent", "expected"),
    [
        ("127.0.0.1", request(), "reviewer"),
        ("localhost", request("::1"), "reviewer"),
        ("0.0.0.0", request(), None),
        ("127.0.0.1", request("192.0.2.7"), None),
        ("127.0.0.1", request(headers={"x-forwarded-for": "192.0.2.7"}), None),
        ("127.0.0.1", request(headers={"x-real-ip": "192.0.2.7"}), None),
        ("127.0.0.1", request(headers={"x-forwarded-host": "127.0.0.1:7860"}), None),
        ("127.0.0.1", request(http="1.0"), None),
        ("127.0.0.1", request(headers={"origin": "http://127.0.0.1:7860"}), "reviewer"),
        ("127.0.0.1", request(headers={"origin": "https://elsewhere.example"}), None),
        ("127.0.0.1", request(headers=REBOUND), None),
        ("127.0.0.1", request(headers={"host": "localhost:7860"}), "reviewer"),
        ("127.0.0.1", request(headers={"host": "[::1]:7860"}), "reviewer"),
        ("127.0.0.1", None, None),
    ],
    ids=[
        *("this machine", "this machine by IPv6", "listens to all", "another machine"),
        *("through a proxy here", "that names it otherwise", "that says what was asked for"),
        *("that says nothing and speaks as nginx does", "our page", "another site's page"),
        *("another site whose name leads here", "by name", "by IPv6", "no request"),
    ],
)
def test_without_a_password_only_who_sits_at_the_machine_acts(listens, sent, expected):
    assert SignIn(ServingSettings(host=listens)).who(sent) == expected


@pytest.mark.parametrize(
    ("origin", "told", "expected"),
    [
        ("https://mill.example", "mill.example", "reviewer"),
        ("https://mill.example", "mill.example, inner.example", "reviewer"),
        ("https://elsewhere.example", "mill.example", None),
        ("https://mill.example", "", None),
    ],
    ids=["the proxy tells it", "two proxies do", "another site's page", "the proxy keeps it"],
)
def test_behind_a_proxy_the_browser_s_name_of_the_app_counts(origin, told, expected):
    """nginx asks by the address of the app unless it is told to pass the browser's on."""
    sign_in = SignIn(ServingSettings(reviewer_password=PASSWORD))
    ticket = sign_in._ticket(int(time.time()) + 60)
    headers = {"origin": origin, "x-forwarded-host": told}
    assert sign_in.who(request(headers=headers, cookies=[(COOKIE, ticket)])) == expected


@pytest.fixture
def space(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "acme/rollmark")
    monkeypatch.setenv("OAUTH_CLIENT_ID", "client")
    return SignIn(ServingSettings(reviewers="Anna, ben-2"))


def test_on_a_space_the_named_users_act_once_they_are_signed_in(space):
    assert space.who(request(session=hub_session("anna"))) == "anna"
    assert space.who(request(session=hub_session("ben-2"))) == "ben-2"
    assert space.who(request(session=hub_session("carl"))) is None
    assert space.who(request(session=hub_session("anna", expires_in=-1))) is None
    assert space.who(request(session={})) is None
    assert space.who(request()) is None
    assert "sign in with Hugging Face" in space.refusal()


def test_on_a_space_without_reviewers_nobody_acts(monkeypatch):
    monkeypatch.setenv("SPACE_ID", "acme/rollmark")
    alone = SignIn(ServingSettings(reviewer_password=PASSWORD))
    assert alone.who(request(session=hub_session(""))) is None
    assert alone.who(request()) is None
    assert (alone.by_password, alone.by_account) == (False, False)
    assert "no sign-in for reviewers" in alone.refusal()


def test_a_ticket_of_another_key_or_time_is_no_ticket(monkeypatch):
    first, second = (SignIn(ServingSettings(reviewer_password=PASSWORD)) for _ in range(2))
    ticket = first._ticket(int(time.time()) + 60)
    assert first.who(request(cookies=[(COOKIE, ticket)])) == "reviewer"
    assert second.who(request(cookies=[(COOKIE, ticket)])) is None
    later = str(int(time.time()) + 9999) + ticket[ticket.index(".") :]
    assert first.who(request(cookies=[(COOKIE, later)])) is None
    assert first.who(request(cookies=[(COOKIE, first._ticket(int(time.time()) - 1))])) is None
    for nonsense in ("", ".", "x.y", "²." + ticket, "9" * 5000):
        assert first.who(request(cookies=[(COOKIE, nonsense)])) is None


def test_a_ticket_counts_beside_one_of_an_app_at_a_path_above():
    own = SignIn(ServingSettings(reviewer_password=PASSWORD))
    ticket = own._ticket(int(time.time()) + 60)
    cookies = [("theme", "dark"), (COOKIE, ticket), (COOKIE, "1799999999.theirs")]
    assert own.who(request(cookies=cookies)) == "reviewer"
    assert own.who(request(cookies=cookies[::2])) is None


@pytest.fixture(scope="module")
def app():
    """Address of a page with one button that acts, behind a password."""
    command = [sys.executable, "-m", "tests.demo.guarded_page", PASSWORD]
    env = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "False", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def call(client, app):
    """What the private endpoint answers to plain HTTP."""
    begun = client.post(f"{app}gradio_api/call/promote", json={"data": ["grace"]})
    event = begun.json()["event_id"]
    answer = client.get(f"{app}gradio_api/call/promote/{event}")
    kind, data = answer.text.strip().splitlines()[-2:]
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def sign_in(client, app, password):
    return client.post(f"{app}sign-in", data={"password": password})


def test_a_private_endpoint_refuses_a_visitors_plain_http_request(app):
    with httpx.Client(timeout=TIMEOUT_S) as client:
        kind, told = call(client, app)
    assert kind == "error"
    assert "Only reviewers may do this: sign in with the password" in json.dumps(told)


def test_with_the_password_it_acts_until_the_reviewer_signs_out(app):
    with httpx.Client(timeout=TIMEOUT_S) as client:
        answer = sign_in(client, app, PASSWORD)
        assert (answer.status_code, answer.headers["location"]) == (303, "./")
        cookie = answer.headers["set-cookie"].lower()
        parts = {part.strip() for part in cookie.split(";")}
        assert {"httponly", "samesite=strict"} <= parts
        assert not any(
            part.startswith("path=") for part in parts
        )  # a proxy's path before it counts
        assert PASSWORD not in cookie
        assert call(client, app) == ("complete", ["promoted grace, act 1"])
        client.post(f"{app}sign-out")
        assert call(client, app)[0] == "error"


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_what_is_typed_as_a_password_can_be_seen(browser, app, theme):
    page = new_page(browser, 1440, 900)
    page.goto(f"{app}?__theme={theme}")
    page.get_by_label("Reviewer's password").fill(PASSWORD)
    assert serious_barriers(page) == []
    page.context.close()


def test_wrong_passwords_give_no_ticket_and_soon_close_the_door_for_a_while(app):
    with httpx.Client(timeout=TIMEOUT_S) as client:
        for _ in range(5):
            answer = sign_in(client, app, "guess")
            assert (answer.status_code, answer.headers["location"]) == (303, "./?signed-in=no")
            assert "set-cookie" not in answer.headers
        closed = sign_in(client, app, PASSWORD)
        wait_s = closed.headers["retry-after"]
        assert closed.status_code == 429
        assert 1 <= int(wait_s) <= 60
        assert closed.headers["content-type"] == "text/html; charset=utf-8"
        assert "Too many wrong passwords were given: try again in" in closed.text
        assert sign_in(client, app, "x" * 5000).status_code == 413


def close_the_door(app):
    """Give wrong passwords until the door is closed, and for most of a minute from now on.

    The module's other tests may have closed it some time ago; then it opens first.
    """
    with httpx.Client(timeout=TIMEOUT_S) as client:
        while int(sign_in(client, app, "guess").headers.get("retry-after", 0)) < 45:
            time.sleep(0.1)


@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_closed_door_says_how_long_and_leads_back(browser, app, theme):
    page = new_page(browser, 390, 844)
    page.emulate_media(color_scheme=theme)
    page.goto(app)
    page.get_by_label("Reviewer's password").fill("guess")
    close_the_door(app)
    page.get_by_role("button", name="Sign in").click()
    expect(page).to_have_title("Sign in · Rollmark")
    said = page.get_by_role("alert").inner_text()
    assert said.startswith("Too many wrong passwords were given: try again in ")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(246, 248, 249)", "dark": "rgb(14, 19, 24)"}[theme]
    assert serious_barriers(page) == []
    page.get_by_role("link", name="Back to the app").click()
    page.get_by_label("Reviewer's password").wait_for()
    page.context.close()


@pytest.mark.parametrize(("passed_s", "wait_s"), [(0.0, 60), (59.5, 1), (60.0, 0)])
def test_the_door_opens_when_the_first_of_five_is_a_minute_old(monkeypatch, passed_s, wait_s):
    own = SignIn(ServingSettings(reviewer_password=PASSWORD))
    own._failures = [1000.0, 1001.0, 1002.0, 1003.0, 1004.0]
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + passed_s)
    assert own._wait_s() == wait_s
