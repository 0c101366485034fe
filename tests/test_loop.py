"""The whole circle, with a real Label Studio and a Hub on the loopback, nothing stood in for.

A model that was never shown an inclusion or a scratch is asked about them; a person flags them, and
answers in Label Studio; the model is trained again, proven better, published and put live; the
running service takes it up. What a careless person teaches is refused; and the service goes back.
`tests/loop_drill.py` goes round with real images and a real network, and takes its time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from active_learning._retraining_steps import describe_release
from active_learning.desk import Desk, open_desk
from active_learning.errands import send
from active_learning.loop import run_once
from active_learning.orders import Orders
from active_learning.retraining import PHASES, RetrainingRuns
from core.settings import (
    HubSettings,
    PathSettings,
    RetrainingSettings,
    ReviewSettings,
    ServingSettings,
    Settings,
)
from demo.service import Service
from hub.moves import roll_back
from hub.publish import live_on_hub
from hub.shelf import shelve
from tests.active_learning.label_studio_server import Server
from tests.hub.hub_server import HubServer
from tests.hub.loopback import loopback_hub
from tests.steel import picture, quick_spec, write_set
from training.launch import start_run

__all__ = ["loopback_hub"]

pytestmark = pytest.mark.label_studio

MODEL = "mobilesteelnet"
UNSEEN = ("inclusion", "scratches")
EACH = 10  # reviewed images of a kind
REVIEWS = EACH * len(UNSEEN)
NEW = range(1000, 1000 + EACH)  # seeds of steel that no data set holds


@pytest.fixture
def settings(
    tmp_path: Path, label_studio: Server, project_title: str, loopback_hub: HubServer
) -> Settings:
    """An installation with its own Label Studio project and a namespace on the loopback Hub."""
    return Settings(
        _env_file=None,  # type: ignore[call-arg]
        paths=PathSettings(
            data=tmp_path / "data", runs=tmp_path / "runs", bundled=tmp_path / "bundled"
        ),
        serving=ServingSettings(device="cpu", threads=1, runtime="torch"),
        label_studio=label_studio.settings(project=project_title),
        review=ReviewSettings(queue_unsure=False),
        hub=HubSettings(
            namespace="acme", token=SecretStr("hf_write"), endpoint=loopback_hub.endpoint
        ),
        retraining=RetrainingSettings(
            min_new_annotations=REVIEWS,
            epochs=12,
            min_hours=0,
            latency_factor=20,
            calibration_margin=0.5,  # all is right and nothing is sure: too few images to fit it
        ),
    )


@pytest.fixture
def ignorant(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> str:
    """Revision of a served model that was trained on patches alone."""
    monkeypatch.setattr("models.mobilesteelnet.SPEC", quick_spec())
    dataset = write_set(
        settings.paths.datasets,
        {
            "train": {"patches": 12},
            "val": {"inclusion": 6, "patches": 6, "scratches": 6},
            "test": {"inclusion": 14, "patches": 14, "scratches": 14},
        },
    )
    record = start_run(
        quick_spec(),
        dataset,
        runs_root=settings.paths.runs,
        run_id="first",
        protocol="leak-free",
        epochs=2,
        image_size=32,
        device="cpu",
        initial_weights=None,
        overrides={"lr0": 0.2},
        workers=1,
    )
    release = settings.paths.runs / record.id / "release"
    validation = describe_release(release, dataset, device="cpu")
    return shelve(release, settings.paths.bundled / MODEL, (validation,)).revision


def named(service: Service, kind: str) -> list[str]:
    """What the service calls new pictures of a kind."""
    looks = [service.inspect(picture(kind, seed), MODEL) for seed in range(2000, 2006)]
    return [max(k.inspection.probabilities.items(), key=lambda p: p[1])[0] for k in looks]


def review(
    service: Service, settings: Settings, desk: Desk, server: Server, says: Mapping[bytes, str]
) -> None:
    """A person flags pictures, and calls them what `says` has, as Label Studio's page does."""
    named_by = {
        service.flag(data, MODEL, reason="wrong", note="").image_sha256: label
        for data, label in says.items()
    }
    assert send(settings, desk).verified == len(says)
    for item in desk.queue.items(state="verified"):
        if item.image_sha256 in named_by:
            assert item.task_id is not None
            choice = {"choices": [named_by[item.image_sha256]]}
            region = {"from_name": "verdict", "to_name": "image", "type": "choices"}
            server.annotate(item.task_id, {**region, "value": choice})


def test_a_model_learns_what_people_showed_it_and_is_taken_up_and_taken_back(
    settings: Settings, ignorant: str, label_studio: Server, record_property: Any
) -> None:
    service = Service(settings)
    for kind in UNSEEN:
        assert named(service, kind) == ["patches"] * 6

    # A person flags what it got wrong, and answers in Label Studio.
    desk = open_desk(settings)
    truth = {picture(kind, seed): kind for kind in UNSEEN for seed in NEW}
    review(service, settings, desk, label_studio, truth)

    # One pass: pull, train, prove, publish, put live.
    started = time.monotonic()
    report = run_once(settings, desk)
    record_property("pass_s", round(time.monotonic() - started, 1))
    assert report.verdict == "promoted", report.reasons
    [run] = RetrainingRuns(desk.ledger, who="tests").newest()
    assert list(run.phases) == list(PHASES)
    times = list(run.phases.items())
    for (_, before), (phase, at) in pairwise(times):
        record_property(f"{phase}_s", round((at - before).total_seconds(), 2))
        print(f"{phase}: {(at - before).total_seconds():.2f} s")
    assert run.why == f"{REVIEWS} of {REVIEWS} newly reviewed images."
    assert run.decision is not None
    assert run.decision.after > run.decision.before + 0.3
    assert run.decision.n == 42

    # The Hub has it, and the service answers with it, without a restart.
    channel = live_on_hub(MODEL, settings.hub)
    assert channel is not None
    assert (channel.live.revision, channel.live.commit or run.published) == (
        run.candidate,
        run.published,
    )
    for kind in (*UNSEEN, "patches"):
        assert named(service, kind) == [kind] * 6
    assert service.status()["models"][MODEL]["revision"] == run.candidate

    # A second pass has nothing to learn from. A careless person teaches it nonsense, and orders a
    # training: the candidate is refused, and what is live stays live.
    assert run_once(settings, desk).verdict == "not due"
    nonsense = {picture("patches", seed): "scratches" for seed in NEW}
    review(service, settings, desk, label_studio, nonsense)
    Orders(desk.ledger, lasts_h=24).train(MODEL, who="careless")
    bad = run_once(settings, desk)
    assert bad.verdict == "refused"
    assert RetrainingRuns(desk.ledger, who="tests").newest()[0].why.startswith("asked for by care")
    assert service.status()["models"][MODEL]["revision"] == run.candidate

    # And back.
    started = time.monotonic()
    roll_back(MODEL, settings, why="a drill", here=True)
    assert named(service, "scratches") == ["patches"] * 6
    drill_s = time.monotonic() - started
    record_property("rollback_s", round(drill_s, 2))
    print(f"rolled back and answering: {drill_s:.2f} s")
    assert drill_s < 60
    assert service.status()["models"][MODEL]["revision"] == ignorant
    desk.ledger.close()
