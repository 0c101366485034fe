"""The pages for many pictures, Batch and Live, in a real browser with a simulated camera."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from core.settings import PathSettings
from tests.browsers import (
    AT_REST,
    TIMEOUT_MS,
    VIEWS,
    new_page,
    open_app,
    select_tab,
    serious_barriers,
)
from tests.demo.conftest import served

pytestmark = pytest.mark.browser

SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
# Notes at every frame where the parts of the page stand, in px from the top of the window.
_NOTE_PLACES = """() => {
  window.places = new Set();
  const parts = ["batch-files", "batch-order", "batch-gallery"];
  const note = () => {
    const tops = parts.map(id => document.getElementById(id)?.getBoundingClientRect().y);
    places.add(tops.join(", "));
    requestAnimationFrame(note);
  };
  note();
}"""
PICTURES = sorted((Path(__file__).parents[1] / "fixtures/neu-det/images").glob("*.jpg"))[:12]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The real app with the bundled GRACE alone."""
    root = tmp_path_factory.mktemp("many")
    shutil.copytree(PathSettings().bundled / "grace", root / "bundled" / "grace")
    with served(root, root / "bundled", ROLLMARK_SERVING__RUNTIME="torch") as started:
        yield started


@pytest.fixture
def coil(tmp_path: Path) -> Path:
    """A zip of twelve pictures, one damaged file and one that is none."""
    path = tmp_path / "coil 7.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for picture in PICTURES:
            archive.write(picture, f"coil 7/{picture.name}")
        archive.writestr("coil 7/broken.jpg", b"nothing")
        archive.writestr("notes.txt", b"x")
    return path


def drop(page: Page, coil: Path) -> None:
    select_tab(page, "Batch")
    page.locator("#batch-files input[type=file]").set_input_files(coil)
    expect(page.locator("#batch-head .sentence")).to_contain_text(
        "13 pictures: ", timeout=TIMEOUT_MS
    )


def test_a_batch_is_inspected_stepped_through_and_taken_away(
    browser: Browser, address: str, coil: Path
) -> None:
    page = open_app(browser, address, *VIEWS["light"])
    drop(page, coil)
    expect(page.locator("#batch-head")).to_contain_text("1 unreadable")
    expect(page.locator("#batch-head")).to_contain_text("1 other file was left out: notes.txt.")
    shots = page.locator("#batch-gallery .shot")
    expect(shots).to_have_count(13)
    shots.first.click()
    expect(page.locator("#batch-large img.large")).to_be_visible(timeout=TIMEOUT_MS)
    first = page.locator("#batch-large .quiet").first.inner_text()
    shots.first.press("ArrowRight")
    expect(page.locator("#batch-large .quiet").first).not_to_have_text(first, timeout=TIMEOUT_MS)
    with page.expect_download(timeout=TIMEOUT_MS) as download:
        page.locator("#batch-save-csv").click()
    text = Path(download.value.path()).read_text()
    assert all(picture.name in text for picture in PICTURES)
    assert serious_barriers(page) == []
    page.reload()  # this browser remembers what it sent
    expect(page.get_by_role("tab", name="Batch")).to_be_visible(timeout=TIMEOUT_MS)
    select_tab(page, "Batch")
    page.locator("#batch-earlier input").click(timeout=TIMEOUT_MS)
    expect(page.get_by_role("option")).to_have_count(1)
    page.context.close()


def test_what_is_refused_is_told_beside_the_batch_that_is_shown(
    browser: Browser, address: str, coil: Path, tmp_path: Path
) -> None:
    page = open_app(browser, address, *VIEWS["light"])
    drop(page, coil)
    (tmp_path / "notes.zip").write_bytes(b"no archive")
    page.locator("#batch-files input[type=file]").set_input_files(tmp_path / "notes.zip")
    refused = page.locator("#batch-refused")
    expect(refused).to_contain_text("notes.zip is no readable zip archive")
    expect(page.locator("#batch-save-csv")).to_be_enabled()
    expect(page.locator("#batch-head .sentence")).to_contain_text("13 pictures: ")
    expect(refused).to_contain_text("notes.zip")  # the page has been refreshed since
    page.locator("#batch-files input[type=file]").set_input_files(PICTURES[0])
    expect(page.locator("#batch-head .sentence")).to_contain_text("1 picture: ")
    expect(refused).not_to_contain_text("notes.zip")
    page.context.close()


def test_a_batch_is_found_again_by_its_link_after_the_page_was_closed(
    browser: Browser, address: str, coil: Path
) -> None:
    page = open_app(browser, address, *VIEWS["light"])
    drop(page, coil)
    link = page.locator("#batch-head a").get_attribute("href")
    page.context.close()
    again = new_page(browser, 390, 844)
    again.goto(f"{address}/{link}")
    expect(again.locator("#batch-gallery .shot")).to_have_count(13, timeout=TIMEOUT_MS)
    assert again.evaluate("document.documentElement.scrollWidth") <= 390
    again.context.close()


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    """A zip of many pictures of some tiles each: a batch that takes time, and soon stops."""
    Image.new("L", (800, 800), 90).save(tmp_path / "plate.png")
    with zipfile.ZipFile(tmp_path / "coils.zip", "w") as archive:
        for k in range(120):
            archive.write(tmp_path / "plate.png", f"{k}.png")
    return tmp_path / "coils.zip"


def test_a_page_that_is_opened_again_meanwhile_shows_the_batch_that_is_looked_at(
    browser: Browser, address: str, plates: Path
) -> None:
    """Whoever reloaded the page had to look for it in the list of their batches."""
    page = open_app(browser, address, *VIEWS["light"])
    select_tab(page, "Batch")
    page.locator("#batch-files input[type=file]").set_input_files(plates)
    sentence = page.locator("#batch-head .sentence")
    expect(sentence).to_contain_text("Looking: ")
    page.reload()
    expect(sentence).to_be_visible(timeout=TIMEOUT_MS)
    expect(sentence).to_contain_text("Looking: ")
    expect(page.locator("#batch-gallery .shot").first).to_be_visible()
    page.locator("#batch-stop").click()
    expect(sentence).to_contain_text("Stopped after ")
    page.context.close()


def test_nothing_moves_while_a_batch_is_uploaded_and_looked_at(
    browser: Browser, address: str, coil: Path
) -> None:
    page = open_app(browser, address, *VIEWS["light"])
    select_tab(page, "Batch")
    expect(page.locator("#batch-model input")).not_to_have_value("")  # the tab has been filled
    slowly = {"offline": False, "latency": 20, "downloadThroughput": -1, "uploadThroughput": 60_000}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slowly)
    page.evaluate(_NOTE_PLACES)
    page.locator("#batch-files input[type=file]").set_input_files(coil)
    expect(page.locator("#batch-head .sentence")).to_contain_text("13 pictures: ")
    places = page.evaluate("[...places]")
    assert len(places) == 1, places
    page.context.close()


def test_a_batch_that_one_page_stops_and_lets_go_on_does_so_on_every_page(
    browser: Browser, address: str, plates: Path
) -> None:
    mine = open_app(browser, address, *VIEWS["light"])
    select_tab(mine, "Batch")
    mine.locator("#batch-files input[type=file]").set_input_files(plates)
    link = mine.locator("#batch-head a").get_attribute("href")
    other = mine.context.new_page()
    other.goto(f"{address}/{link}")
    for page in (mine, other):
        expect(page.locator("#batch-head .sentence")).to_contain_text("Looking: ")
    mine.locator("#batch-stop").click()
    for page in (mine, other):
        expect(page.locator("#batch-head .sentence")).to_contain_text("Stopped after ")
        expect(page.locator("#batch-go-on")).to_be_enabled()
    mine.wait_for_timeout(3000)  # two more looks at how it stands
    mine.locator("#batch-go-on").click()
    for page in (mine, other):
        expect(page.locator("#batch-head .sentence")).not_to_contain_text("Stopped")
        expect(page.locator("#batch-stop")).to_be_enabled()
    other.locator("#batch-stop").click()
    expect(mine.locator("#batch-head .sentence")).to_contain_text("Stopped after ")
    mine.context.close()


def test_the_camera_s_frames_are_looked_at_and_counted(browser: Browser, address: str) -> None:
    page = open_app(browser, address, *VIEWS["light"])
    select_tab(page, "Live")
    page.locator("#live-camera button:visible").first.click()  # let the page see the camera
    shutter = page.get_by_role("button", name="capture photo")
    expect(shutter).to_be_visible(timeout=TIMEOUT_MS)
    page.wait_for_function(AT_REST)
    strip_before = page.locator("#live-strip").bounding_box()
    camera_before = page.locator("#live-camera").bounding_box()
    shutter.click()
    expect(page.locator("#live-counts")).to_contain_text("Looked at", timeout=TIMEOUT_MS)
    page.wait_for_function(
        "Number(document.querySelector('#live-counts').innerText.match(/at (\\d+)/)?.[1]) >= 2",
        timeout=TIMEOUT_MS,
    )
    expect(page.locator("#live-large img")).to_be_visible()
    assert page.locator("#live-camera").bounding_box() == camera_before  # nothing has moved
    strip = page.locator("#live-strip").bounding_box()
    assert strip is not None
    assert strip_before is not None
    assert strip["y"] == strip_before["y"]
    expect(page.locator("#live-stop")).to_be_hidden()  # the camera's own button stops it
    assert serious_barriers(page) == []
    page.context.close()


def test_a_video_is_looked_at_and_its_dropped_frames_are_shown(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    import cv2

    video = tmp_path / "strip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 50.0, (200, 200))
    for picture in PICTURES * 4:
        writer.write(np.asarray(cv2.imread(str(picture))))
    writer.release()
    page = open_app(browser, address, *VIEWS["light"])
    select_tab(page, "Live")
    page.get_by_text("Video file").click()
    page.locator("#live-video input[type=file]").set_input_files(video)
    expect(page.locator("#live-counts")).to_contain_text("of 48 pictures", timeout=TIMEOUT_MS)
    expect(page.locator("#live-counts")).to_contain_text("ended", timeout=TIMEOUT_MS)
    text = page.locator("#live-counts").inner_text()
    looked_at = int(text.split("Looked at ")[1].split()[0])
    dropped = int(text.split(", ")[1].split()[0]) if "dropped" in text else 0
    assert looked_at + dropped == 48
    expect(page.locator("#live-strip li").first).to_be_visible()
    page.context.close()


def test_the_batch_page_in_light_dark_and_narrow(
    browser: Browser, address: str, coil: Path, tmp_path: Path
) -> None:
    keep = os.environ.get("ROLLMARK_WRITE_SCREENSHOTS") == "1"
    folder = SCREENSHOTS if keep else tmp_path
    for view, (theme, width, height) in VIEWS.items():
        page = open_app(browser, address, theme, width, height)
        drop(page, coil)
        page.locator("#batch-gallery .shot").first.click()
        expect(page.locator("#batch-large img.large")).to_be_in_viewport(timeout=TIMEOUT_MS)
        page.evaluate("scrollTo({top: 0, behavior: 'instant'})")
        expect(page.locator("#batch-head")).to_be_in_viewport()
        page.screenshot(path=folder / f"batch-{view}.png")
        cut_off = "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
        assert page.locator("#batch-gallery .what").evaluate_all(cut_off) == 0  # with its number
        for columns in (width, 1024, 768):
            page.set_viewport_size({"width": columns, "height": height})
            assert page.locator("#batch-large .scroll").evaluate_all(cut_off) == 0, columns
        page.set_viewport_size({"width": width, "height": height})
        if width > 1000:  # as for the other pages
            assert serious_barriers(page) == []
        page.context.close()
