"""A running app takes up what was published, without a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.settings import PathSettings, ServingSettings
from demo.following import follow_hub
from demo.service import Service
from demo.tabs.models import models_table
from hub.publish import publish
from hub.registry import Release, resolve
from tests.demo import releases
from tests.hub.loopback import settings_for
from tests.records import make_evaluation

ROOT = Path(__file__).parents[2]


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
        for _ in range(3000):
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


def test_the_models_page_says_where_figures_are_of_the_paper_s_split(tmp_path):
    config = releases.describe(tmp_path / "grace", "grace", task="detect")
    measured = make_evaluation(config, protocol="paper")
    figures = config.model_copy(update={"evaluations": (measured,)})
    words = "324 test images of the paper&#x27;s split"
    assert words in models_table((Release(tmp_path / "grace", figures, "bundled"),))
    measured = make_evaluation(config, protocol="leak-free")
    figures = config.model_copy(update={"evaluations": (measured,)})
    page = models_table((Release(tmp_path / "grace", figures, "bundled"),))
    assert "<caption>324 test images;" in page


def test_the_models_page_tells_a_paper_s_gain_to_the_digit_and_explains_what_it_shows():
    paths = PathSettings(bundled=ROOT / "hub" / "bundled", data=ROOT / "none")
    page = models_table((resolve("da_yolo", paths),))
    assert "<td>4.05 points</td>" in page
    assert "<dt>mAP50</dt>" in page
    assert "<dt>mIoU</dt>" not in page
    page = models_table((resolve("sme_deeplabv3plus", paths),))
    assert '<th scope="row">mIoU, defects only</th>' in page
    assert "<dt>mIoU</dt>" in page


def test_the_models_page_says_where_a_papers_test_images_are_easy_ones():
    paths = PathSettings(bundled=ROOT / "hub" / "bundled", data=ROOT / "none")
    page = models_table((resolve("sme_deeplabv3plus", paths),))
    assert "measured here, 569 are copies of training images, most of them turned; " in page
    assert "The paper&#x27;s figures" in page
    assert "The paper&#x27;s figures" not in models_table((resolve("da_yolo", paths),))


def test_the_models_page_shows_the_class_that_a_paper_names_beside_its_figure():
    paths = PathSettings(bundled=ROOT / "hub" / "bundled", data=ROOT / "none")
    bundled = resolve("gms2_yolo", paths)
    (test,) = (e for e in bundled.config.evaluations if e.split == "test")
    crazing = 100 * test.metric("mAP50").per_class["crazing"]
    row = models_table((bundled,)).split("AP50 crazing")[1].split("</tr>")[0]
    assert f"<td>{crazing:.1f} %</td>" in row
    assert "<td>68.3 %</td>" in row
