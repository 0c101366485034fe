"""A promotion and a roll-back under load: no request fails, none waits for a restart."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from core.settings import PathSettings, ReviewSettings, ServingSettings, Settings
from demo.service import Service
from hub.channel import activate, rollback
from tests.clients import Clients
from tests.demo import releases
from tests.demo.releases import PICTURE

CLIENTS = 6


def clients_of(service: Service) -> Clients:
    return Clients(
        lambda: service.inspect(PICTURE, "mobilesteelnet").inspection.revision, count=CLIENTS
    )


@pytest.fixture
def paths(tmp_path: Path) -> PathSettings:
    return PathSettings(bundled=tmp_path / "bundled", data=tmp_path / "data")


def plain_service(paths: PathSettings) -> Service:
    """In torch, one thread, nothing queued for review."""
    serving = ServingSettings(device="cpu", threads=1, runtime="torch")
    return Service(
        Settings(paths=paths, serving=serving, review=ReviewSettings(queue_unsure=False))
    )


def test_a_running_service_takes_up_a_promotion_and_a_roll_back_without_failing_a_request(
    paths: PathSettings, tmp_path: Path, record_property: Any
) -> None:
    old = releases.write(paths.bundled / "mobilesteelnet", "mobilesteelnet").revision
    new = releases.write(tmp_path / "candidate", "mobilesteelnet", seed=1).revision
    service = plain_service(paths)
    with clients_of(service) as clients:
        clients.wait_for(old, n=CLIENTS)
        promoted = datetime.now(UTC)
        activate(tmp_path / "candidate", paths, who="tests", why="a drill")
        promotion_s = (clients.wait_for(new, n=CLIENTS) - promoted).total_seconds()
        rolled = datetime.now(UTC)
        rollback("mobilesteelnet", paths, who="tests", why="a drill")
        back = clients.wait_for(old, since=rolled, patience_s=60)
        rollback_s = (back - rolled).total_seconds()
    assert clients.failures == []
    assert {name for _, name in clients.answers} == {old, new}
    record_property("promotion_s", round(promotion_s, 2))
    record_property("rollback_s", round(rollback_s, 2))
    print(f"taken up in {promotion_s:.2f} s, back in {rollback_s:.2f} s")
    assert rollback_s < 60


def test_an_answer_says_which_revision_gave_it_also_while_they_change(
    paths: PathSettings, tmp_path: Path
) -> None:
    old = releases.write(paths.bundled / "mobilesteelnet", "mobilesteelnet").revision
    new = releases.write(tmp_path / "candidate", "mobilesteelnet", seed=1).revision
    service = plain_service(paths)
    said = {old: service.inspect(PICTURE, "mobilesteelnet").inspection.probabilities}
    activate(tmp_path / "candidate", paths)
    answer = service.inspect(PICTURE, "mobilesteelnet").inspection
    assert answer.revision == new
    assert answer.probabilities != said[old]
    rollback("mobilesteelnet", paths)
    again = service.inspect(PICTURE, "mobilesteelnet").inspection
    assert (again.revision, again.probabilities) == (old, said[old])
