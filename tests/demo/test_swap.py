"""A promotion and a roll-back under load: no request fails, none waits for a restart."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from core.settings import PathSettings, ReviewSettings, ServingSettings, Settings
from demo.service import Service
from hub.channel import activate, rollback
from tests.demo import releases
from tests.demo.releases import PICTURE

CLIENTS = 6


class Clients:
    """So many people who ask without a pause, and what each answer's revision was."""

    def __init__(self, service: Service) -> None:
        self.answers: list[tuple[float, str]] = []
        self.failures: list[BaseException] = []
        self._service = service
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                look = self._service.inspect(PICTURE, "mobilesteelnet")
                self.answers.append((time.monotonic(), look.inspection.revision))
            except BaseException as exc:
                self.failures.append(exc)

    def wait_for(self, revision: str, n: int) -> float:
        """Until n answers came from a revision; when the first of them did."""
        deadline = time.monotonic() + 120
        while True:
            found = [at for at, name in list(self.answers) if name == revision]
            if len(found) >= n:
                return found[0]
            assert time.monotonic() < deadline, (revision, self.failures)
            self._over.wait(0.01)


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
    with Clients(service) as clients:
        clients.wait_for(old, CLIENTS)
        promoted = time.monotonic()
        activate(tmp_path / "candidate", paths, who="tests", why="a drill")
        promotion_s = clients.wait_for(new, CLIENTS) - promoted
        seen = len(clients.answers)
        rolled = time.monotonic()
        rollback("mobilesteelnet", paths, who="tests", why="a drill")
        while not any(name == old and at > rolled for at, name in clients.answers[seen:]):
            assert time.monotonic() < rolled + 60, "not back within a minute"
            time.sleep(0.01)
        rollback_s = time.monotonic() - rolled
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
