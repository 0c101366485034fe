"""A running app takes up what was published, without a restart."""

from __future__ import annotations

import pytest

from core.settings import ServingSettings
from demo.following import follow_hub
from demo.service import Service
from demo.tabs.models import models_table
from hub.publish import publish
from hub.registry import Release
from tests.demo import releases
from tests.hub.loopback import settings_for


def test_without_a_namespace_nothing_is_followed(loopback_hub, tmp_path):
    assert follow_hub(settings_for(loopback_hub, tmp_path, namespace=None)) is None


def test_a_running_app_serves_what_is_published_meanwhile(loopback_hub, tmp_path):
    torch = ServingSettings(runtime="torch")  # exports are tested by themselves
    settings = settings_for(loopback_hub, tmp_path).model_copy(update={"serving": torch})
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


@pytest.mark.parametrize(
    ("source", "words"),
    [("bundled", "bundled"), ("hub", "from the Hub"), ("hub-cached", "cannot be asked now")],
)
def test_the_models_page_says_where_a_release_comes_from(tmp_path, source, words):
    config = releases.describe(tmp_path / "grace", "grace", task="detect")
    assert words in models_table((Release(tmp_path / "grace", config, source),))
