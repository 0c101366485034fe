"""Acting on the training page by plain HTTP: a visitor changes nothing, a reviewer once."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from active_learning.leases import Leases
from active_learning.orders import Orders
from active_learning.retraining import RetrainingRuns
from core.ledger import Ledger, open_ledger
from core.settings import PathSettings
from hub.channel import history
from hub.registry import resolve
from tests.demo import releases
from tests.demo.conftest import served
from tests.demo.retrained import Retrained

MODEL = "mobilesteelnet"
PASSWORD = "pickled-steel"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> PathSettings:
    """A classifier whose last candidate was promoted, and the one before it refused."""
    root = tmp_path_factory.mktemp("acts")
    paths = PathSettings(data=root / "data", runs=root / "runs", bundled=root / "bundled")
    releases.write(paths.bundled / MODEL, MODEL)
    for seed, name in enumerate(("forgetful", "candidate"), start=1):
        releases.write(root / name, MODEL, seed=seed)
    ledger = open_ledger(paths.ledger_url)
    made = Retrained(ledger, paths)
    made.refused(MODEL, candidate=root / "forgetful")
    made.promoted(MODEL, candidate=root / "candidate")
    ledger.close()
    return paths


@pytest.fixture(scope="module")
def address(paths: PathSettings) -> Iterator[str]:
    password = {"ROLLMARK_SERVING__REVIEWER_PASSWORD": PASSWORD}
    with served(paths.data.parent, paths.bundled, **password) as started:
        yield started


@pytest.fixture
def ledger(paths: PathSettings) -> Iterator[Ledger]:
    opened = open_ledger(paths.ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def visitor(address: str) -> Iterator[httpx.Client]:
    # The server closes a connection that was idle for five seconds, a while on a busy machine.
    once = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=address, timeout=60, limits=once) as client:
        yield client


@pytest.fixture
def reviewer(visitor: httpx.Client) -> httpx.Client:
    assert visitor.post("/sign-in", data={"password": PASSWORD}).status_code == 303
    return visitor


def act(client: httpx.Client, key: str) -> str:
    """What the endpoint behind all buttons answers: its note, or the error."""
    begun = client.post("/gradio_api/call/retraining", json={"data": [MODEL, key]})
    answer = client.get(f"/gradio_api/call/retraining/{begun.json()['event_id']}")
    data = json.loads(answer.text.strip().splitlines()[-1].removeprefix("data: "))
    return str(data[1] if isinstance(data, list) else data)


def test_a_visitor_is_refused_and_nothing_is_written(
    visitor: httpx.Client, ledger: Ledger, paths: PathSettings
) -> None:
    live, before = resolve(MODEL, paths).config.revision, len(ledger.events())
    [back] = [m.before for m in history(MODEL, paths)]
    for key in ("train", "stop:any", "drop:any", "withdraw:1", f"back:{back}", f"live:{back}"):
        assert "Only reviewers may do this" in act(visitor, key)
    assert len(ledger.events()) == before
    assert resolve(MODEL, paths).config.revision == live


def test_a_reviewers_two_clicks_are_one_order_which_can_be_taken_back(
    reviewer: httpx.Client, ledger: Ledger
) -> None:
    for _ in range(2):
        assert "is asked for by reviewer" in act(reviewer, "train")
    orders = Orders(ledger, lasts_h=24)
    order = orders.open_order("train", model=MODEL)
    assert order is not None
    assert order.who == "reviewer"
    assert [e.what for e in ledger.events(f"order:{order.id}")] == ["ordered"]
    assert "taken back" in act(reviewer, f"withdraw:{order.id}")
    assert "withdrawn already" in act(reviewer, f"withdraw:{order.id}")
    assert orders.open_order("train") is None


def test_a_reviewer_stops_the_run_in_hand_and_no_other(
    reviewer: httpx.Client, ledger: Ledger, paths: PathSettings
) -> None:
    made, runs = Retrained(ledger, paths), RetrainingRuns(ledger, who="tests")
    with Leases(ledger).hold("train", ttl_s=60) as lease:
        run = made.begin(lease, MODEL, to="training")
        assert "is under way: stop it" in act(reviewer, "train")
        assert "is unknown: there is nothing to stop" in act(reviewer, "stop:another")
        assert "has asked for the run to stop" in act(reviewer, f"stop:{run.id}")
        assert Orders(ledger, lasts_h=24).asks_to_stop(run.id) is not None
        runs.end(run, lease, "parked", ("the disk is full",))
    assert "asked for the run to be given up" in act(reviewer, f"drop:{run.id}")
    with Leases(ledger).hold("train", ttl_s=60) as lease:
        runs.end(run, lease, "refused", ("the test is over",))


def test_a_reviewer_goes_back_and_puts_a_refused_candidate_live_in_his_name(
    reviewer: httpx.Client, paths: PathSettings
) -> None:
    first = history(MODEL, paths)[0]
    assert f"is back at {first.before}" in act(reviewer, f"back:{first.before}")
    assert resolve(MODEL, paths).config.revision == first.before
    assert "release before is none by now" in act(reviewer, f"back:{first.before}")
    refused = releases.write(paths.data.parent / "again", MODEL, seed=1).revision
    assert f"serves {refused} now" in act(reviewer, f"live:{refused}")
    assert resolve(MODEL, paths).config.revision == refused
    why = "asked for by reviewer on the page"
    assert [m.why for m in history(MODEL, paths)[1:]] == [why, f"{why}, against the gate"]
    assert "stands by" in act(reviewer, "live:0000")
