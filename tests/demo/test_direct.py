"""The API of one request and one answer, on the real app and around a fake one."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from starlette.applications import Starlette
from starlette.testclient import TestClient

from core.records import Inspection
from core.settings import PathSettings, ServingSettings
from demo.direct import Direct
from demo.service import Service
from tests.demo.fakes import Loader
from tests.demo.releases import PICTURE
from tests.demo.test_api import NAMES, SHA256, TIMEOUT_S

JPEG = {"Content-Type": "image/jpeg"}


def test_a_picture_is_inspected_by_one_request(address: str) -> None:
    answer = _post(address, "inspect")
    inspection = Inspection.model_validate_json(answer.content)
    assert (inspection.model, inspection.image.sha256) == ("grace", SHA256)
    assert inspection.detections


def test_the_answer_says_how_long_it_took_beside_the_network(address: str) -> None:
    answer = _post(address, "inspect")
    name, duration = answer.headers["Server-Timing"].split(";dur=")
    assert name == "answer"
    assert answer.json()["latency_ms"] <= float(duration) <= answer.elapsed.total_seconds() * 1e3


def test_model_and_threshold_are_parameters_of_the_address(address: str) -> None:
    assert _post(address, "inspect?model=mobilesteelnet").json()["task"] == "classify"
    found = [
        len(_post(address, f"inspect?model=grace&score_threshold={t}").json()["detections"])
        for t in (0.25, 0.7)
    ]
    assert found[1] < found[0]


def test_models_are_compared_by_one_request(address: str) -> None:
    some = _post(address, "compare?models=mobilesteelnet,grace").json()
    everyone = _post(address, "compare").json()
    assert [each["model"] for each in some["inspections"]] == ["mobilesteelnet", "grace"]
    assert len(everyone["inspections"]) == 3
    assert set(everyone["committee"]) == {"disagreement", "reasons", "sentence"}


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        pytest.param(
            "inspect?model=resnet",
            404,
            f"Unknown model 'resnet'. Available: {NAMES}.",
            id="unknown model",
        ),
        pytest.param(
            "inspect?score_threshold=high",
            400,
            "Score threshold is 'high'; a number in 0 to 1 is wanted.",
            id="no number",
        ),
        pytest.param(
            "inspect?score_threshold=nan",
            400,
            "Score threshold is nan; it must lie in 0 to 1.",
            id="not a number",
        ),
        pytest.param(
            "inspect?threshold=0.5",
            400,
            "Unknown parameter 'threshold'. Available: model, score_threshold.",
            id="misspelt",
        ),
        pytest.param(
            "compare?models=",
            400,
            "No model is chosen; choose at least one to compare.",
            id="no models",
        ),
    ],
)
def test_wrong_values_are_answered_with_one_sentence(
    address: str, path: str, status: int, sentence: str
) -> None:
    answer = _post(address, path)
    assert (answer.status_code, answer.json()) == (status, {"error": sentence})


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        pytest.param(
            b"hello",
            400,
            "This is not an image file; PNG, JPEG, BMP, TIFF and WebP images are accepted.",
            id="text",
        ),
        pytest.param(
            b"0" * 1_000_001, 413, "The file is too large; at most 1 MB are accepted.", id="large"
        ),
        pytest.param(
            b"0" * 5_000_000, 413, "The file is too large; at most 1 MB are accepted.", id="huge"
        ),
    ],
)
def test_what_is_no_picture_is_answered_with_one_sentence(
    caller: TestClient, body: bytes, status: int, sentence: str
) -> None:
    answer = caller.post("/v1/inspect", content=body, headers=JPEG)
    assert (answer.status_code, answer.json()) == (status, {"error": sentence})


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_what_a_foreign_page_could_send_by_itself_is_refused(caller: TestClient, kind: str) -> None:
    answer = caller.post(
        "/v1/inspect", content=PICTURE.read_bytes(), headers={"Content-Type": kind}
    )
    assert answer.status_code == 415
    assert "Content-Type image/jpeg" in answer.json()["error"]


def test_what_was_not_foreseen_is_not_told_to_a_stranger(
    caller: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("/etc/secret")

    monkeypatch.setattr(service, "inspect", broken)
    answer = caller.post("/v1/inspect", content=PICTURE.read_bytes(), headers=JPEG)
    assert answer.status_code == 500
    assert "secret" not in answer.text


def test_nobody_waits_who_would_have_to_wait_for_too_many(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two are answered at a time and one may wait: of four, one is turned away at once."""
    go = threading.Event()
    inspect = service.inspect

    def slow(*args: Any, **options: Any) -> Any:
        go.wait(60)
        return inspect(*args, **options)

    monkeypatch.setattr(service, "inspect", slow)
    direct = Direct(service, ServingSettings(queue_size=1), at_once=2)
    with TestClient(Starlette(routes=direct.routes())) as caller, ThreadPoolExecutor(4) as callers:

        def call(_: int) -> Any:
            answer = caller.post("/v1/inspect", content=PICTURE.read_bytes(), headers=JPEG)
            if answer.status_code == 503:
                go.set()
            return answer

        answers = list(callers.map(call, range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 503]
    [turned_away] = [answer for answer in answers if answer.status_code == 503]
    assert turned_away.headers["Retry-After"] == "1"
    assert turned_away.json() == {
        "error": "3 requests are being answered or wait; try again in a moment."
    }


def test_nobody_looks_for_a_caller_who_went_away_before_it_was_his_turn(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is answered at a time; the second gives up; the third takes its place."""
    begun, go = threading.Semaphore(0), threading.Event()
    inspect = service.inspect

    def slow(*args: Any, **options: Any) -> Any:
        begun.release()
        assert go.wait(30)
        return inspect(*args, **options)

    monkeypatch.setattr(service, "inspect", slow)
    direct = Direct(service, ServingSettings(queue_size=1), at_once=1)
    app = Starlette(routes=direct.routes())

    async def meet() -> list[int]:
        first = asyncio.create_task(_ask(app, stays=True))
        assert await asyncio.to_thread(begun.acquire, timeout=30)
        await asyncio.wait_for(_ask(app, stays=False), 30)
        third = asyncio.create_task(_ask(app, stays=True))
        await asyncio.sleep(0.1)
        go.set()
        return [await first, await third]

    assert asyncio.run(meet()) == [200, 200]
    assert [begun.acquire(blocking=False) for _ in range(2)] == [True, False]  # the third alone


async def _ask(app: Starlette, *, stays: bool) -> int:
    """Status of an answer to a caller who sends a picture, and stays to hear of it or does not."""
    coming = [{"type": "http.request", "body": PICTURE.read_bytes(), "more_body": False}]
    heard: list[int] = []

    async def receive() -> dict[str, Any]:
        if coming:
            return coming.pop()
        if stays:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        heard.extend([message["status"]] if "status" in message else [])

    scope = {"type": "http", "method": "POST", "path": "/v1/inspect", "query_string": b""}
    await app({**scope, "headers": [(b"content-type", b"image/jpeg")]}, receive, send)
    return heard[0]


def test_both_apis_say_the_same(caller: TestClient, service: Service) -> None:
    from demo.handlers import answer_inspect

    sent = {"path": str(PICTURE), "meta": {"_type": "gradio.FileData"}}
    by_gradio = answer_inspect(service, sent, "da_yolo", 0.5)
    answer = caller.post(
        "/v1/inspect?model=da_yolo&score_threshold=0.5",
        content=PICTURE.read_bytes(),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert json.loads(answer.content) == by_gradio


@pytest.fixture
def caller(service: Service) -> Iterator[TestClient]:
    direct = Direct(service, ServingSettings(max_image_mb=1), at_once=2)
    with TestClient(Starlette(routes=direct.routes())) as opened:
        yield opened


@pytest.fixture
def service(paths: PathSettings, loader: Loader, tmp_path: Path) -> Service:
    from core.settings import ReviewSettings, Settings
    from tests.demo import releases

    releases.describe(tmp_path / "bundled" / "da_yolo", "da_yolo", task="detect", validated=0.4)
    review = ReviewSettings(queue_unsure=False)
    return Service(Settings(paths=paths, serving=ServingSettings(max_image_mb=1), review=review))


def _post(address: str, path: str) -> requests.Response:
    return requests.post(
        f"{address}/v1/{path}", data=PICTURE.read_bytes(), headers=JPEG, timeout=TIMEOUT_S
    )
