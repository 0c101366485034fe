"""A running app takes up what was published, without a restart."""

from __future__ import annotations

from demo.following import follow_hub
from demo.service import Service
from hub.publish import publish
from tests.demo import releases
from tests.hub.loopback import settings_for


def test_without_a_namespace_nothing_is_followed(loopback_hub, tmp_path):
    assert follow_hub(settings_for(loopback_hub, tmp_path, namespace=None)) is None


def test_a_running_app_serves_what_is_published_meanwhile(loopback_hub, tmp_path):
    settings = settings_for(loopback_hub, tmp_path)
    releases.write(settings.paths.bundled / "grace", "grace")
    service = Service(settings)
    before = service.inspect(releases.PICTURE).inspection
    better = releases.write(tmp_path / "run", "grace", seed=1)
    publish(tmp_path / "run", settings.hub)
    stop = follow_hub(settings)
    assert stop is not None
    try:
        for _ in range(500):
            if service.models()[0].source == "hub":
                break
            stop.wait(0.02)
    finally:
        stop.set()
    after = service.inspect(releases.PICTURE).inspection
    assert (before.revision, after.revision) == (
        releases.write(tmp_path / "same", "grace").revision,
        better.revision,
    )
