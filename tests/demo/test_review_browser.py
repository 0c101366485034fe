"""The review page in a real browser with a real Label Studio behind it, and its own editor."""

from __future__ import annotations

import io
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image as PillowImage
from playwright.sync_api import Browser, Page, expect

from active_learning import errands
from active_learning.desk import Desk, open_desk
from active_learning.outbox import pushing
from active_learning.serve_label_studio import USER
from core.geometry import class_map_from_record
from core.settings import LabelStudioSettings, PathSettings, ReviewSettings, Settings
from tests.active_learning.label_studio_server import PASSWORD, Server
from tests.active_learning.review_desk import open_test_desk
from tests.browsers import TIMEOUT_MS, VIEWS, new_page, open_app, select_tab, serious_barriers
from tests.demo.conftest import served

pytestmark = [pytest.mark.browser, pytest.mark.label_studio]

SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
PICTURES = sorted((Path(__file__).parents[1] / "fixtures/neu-det/images").glob("*.jpg"))
PROJECT = "Rollmark review page"
WHY_PARKED = "Task 9 is not as sent: its regions differ."


@dataclass
class Mill:
    """The running app, and the same ledger as another process sees it."""

    address: str
    desk: Desk
    client: Client

    def inspect(self, picture: Path) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.predict(handle_file(str(picture)), api_name="/inspect")
        return answer

    def wait_for(self, images: int) -> None:
        """Until the queue holds that many images."""
        deadline = time.monotonic() + 60
        while sum(self.desk.queue.counts().values()) < images:
            assert time.monotonic() < deadline, f"The queue holds {self.desk.queue.counts()}."
            time.sleep(0.05)


@pytest.fixture(scope="module")
def mill(tmp_path_factory: pytest.TempPathFactory, label_studio: Server) -> Iterator[Mill]:
    """Seven doubted images: three wait, two are in Label Studio, one is reviewed, one set aside."""
    root = tmp_path_factory.mktemp("mill")
    shutil.copytree(PathSettings().bundled / "grace", root / "bundled" / "grace")
    studio: LabelStudioSettings = label_studio.settings(project=PROJECT)
    assert studio.token is not None
    settings = Settings(
        paths=PathSettings(bundled=root / "bundled", data=root / "data"),
        label_studio=studio,
        review=ReviewSettings(budget=2, random_share=0.0),
    )
    chosen = {
        "ROLLMARK_LABEL_STUDIO__URL": studio.url,
        "ROLLMARK_LABEL_STUDIO__TOKEN": studio.token.get_secret_value(),
        "ROLLMARK_LABEL_STUDIO__PROJECT": PROJECT,
        "ROLLMARK_REVIEW__REVIEW_THRESHOLD": "0",  # everything is doubted
        "ROLLMARK_REVIEW__BUDGET": "2",
    }
    desk = open_desk(settings)
    with served(root, root / "bundled", **chosen) as address:
        patient = {"timeout": TIMEOUT_MS / 1000}
        client = Client(address, verbose=False, download_files=False, httpx_kwargs=patient)
        mill = Mill(address, desk, client)
        for picture in PICTURES[:7]:
            assert mill.inspect(picture)["verdict"] == "review"
        mill.wait_for(7)
        errands.send(settings, desk)
        there, *_ = desk.queue.items(state="verified")
        assert there.task_id is not None
        box = {"from_name": "box", "to_name": "image", "type": "rectanglelabels"}
        size = {"original_width": 200, "original_height": 200, "image_rotation": 0}
        place = {"x": 10, "y": 10, "width": 20, "height": 20, "rotation": 0}
        value = place | {"rectanglelabels": ["scratches"]}
        label_studio.annotate(there.task_id, box | size | {"value": value})
        errands.fetch(settings, desk)
        with pushing(desk.queue) as outbox:
            last, checked = desk.queue.items(state="pending")[-2:]
            outbox.claim(2, ids=[last.id, checked.id])
            outbox.park(last.id, reason=WHY_PARKED)
            outbox.mark_sent(checked.id, task_id=there.task_id + 1000)
        yield mill
        client.close()
    desk.ledger.close()


@pytest.fixture
def page(browser: Browser, mill: Mill) -> Iterator[Page]:
    opened = _review(browser, mill, "light")
    yield opened
    opened.context.close()


def test_the_page_says_how_the_queue_stands_in_one_line(page: Page) -> None:
    expect(page.locator("#review-sentence")).to_contain_text(
        "5 images wait for a person, 2 of them in Label Studio; the oldest for"
    )
    expect(page.locator("#review-sentence")).to_contain_text("1 image is set aside.")
    told = page.locator(".place strong").all_inner_texts()
    assert told == ["7", "3", "2", "1", "1"]  # all, waiting, there, reviewed, set aside


def test_every_image_has_a_picture_a_state_and_an_age(page: Page) -> None:
    entries = page.locator(".entry")
    expect(entries).to_have_count(7)
    states = page.locator(".entry .state").all_inner_texts()
    assert states[0] == "set aside"  # what needs a hand comes first
    assert sorted(states) == [
        *("in Label Studio", "in Label Studio, being checked", "reviewed", "set aside"),
        *["waits to be sent"] * 3,
    ]
    for picture in entries.locator("img").all():
        expect(picture).to_have_js_property("naturalWidth", 144)
    exact = page.locator(".entry time").first.get_attribute("title")
    assert exact is not None
    assert exact.endswith(" UTC")


def test_a_place_lists_its_own_images_and_says_when_there_are_none(page: Page) -> None:
    page.locator(".place.is-reviewed").click()
    expect(page.locator(".entry")).to_have_count(1)
    expect(page.locator(".entry .state")).to_have_text("reviewed")
    page.locator(".place.is-waiting").click()
    expect(page.locator(".entry")).to_have_count(3)


def test_arrows_step_through_the_queue_and_the_image_follows(page: Page) -> None:
    first, second = (page.locator(".entry").nth(k).get_attribute("data-id") for k in (0, 1))
    expect(page.locator(".chosen")).to_have_attribute("data-id", str(first))
    expect(page.locator(".chosen")).to_contain_text(WHY_PARKED)
    page.locator(".entry").first.focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator(".chosen")).to_have_attribute("data-id", str(second))
    expect(page.locator(".entry").nth(1)).to_be_focused()
    page.wait_for_function("document.querySelector('.chosen img')?.naturalWidth > 300")


def test_a_task_opens_in_label_studio(page: Page, mill: Mill, label_studio: Server) -> None:
    page.locator(".place.is-reviewed").click()
    expect(page.locator(".entry")).to_have_count(1)
    page.locator(".entry").click()
    link = page.get_by_role("link", name="Open in Label Studio")
    expect(link).to_be_visible()
    [item] = mill.desk.queue.items(state="verified")[:1]
    address = str(link.get_attribute("href"))
    assert address.startswith(f"{label_studio.url}/projects/")
    assert address.endswith(f"/data?task={page.locator('.chosen dd').nth(-2).inner_text()}")
    assert item.task_id is not None


def test_what_was_learned_since_the_release_is_counted_by_class(page: Page) -> None:
    learned = page.locator(".bars").nth(1)
    expect(learned).to_contain_text("Learned from 1 reviewed image since the newest release")
    expect(learned.locator("dd")).to_have_text(["1"])
    expect(learned.locator("dt")).to_contain_text("Scratches")


def test_the_connection_is_told_in_one_sentence(page: Page, label_studio: Server) -> None:
    expect(page.locator("#review-connection")).to_contain_text(
        f"Connected to Label Studio 1.23.2 at {label_studio.url}, project “{PROJECT}”."
    )


def test_how_far_people_agree_is_told_when_asked(page: Page) -> None:
    panel = page.locator("#review-agreement")
    panel.get_by_role("button", name="How far people agree").click()
    page.get_by_role("button", name="Compare the answers").click()
    expect(panel).to_contain_text("No image was answered by two people yet: in Label Studio")


@pytest.mark.parametrize("view", list(VIEWS))
def test_the_page_keeps_nobody_out_and_fits(
    browser: Browser, mill: Mill, view: str, tmp_path: Path
) -> None:
    """With ROLLMARK_WRITE_SCREENSHOTS=1 the pictures become those of the documentation."""
    write = os.environ.get("ROLLMARK_WRITE_SCREENSHOTS") == "1"
    folder = SCREENSHOTS if write else tmp_path
    page = _review(browser, mill, view)
    expect(page.locator("#review-connection")).to_contain_text("Connected")
    expect(page.locator(".chosen img")).to_be_visible()
    assert serious_barriers(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWS[view][1]
    assert len(page.screenshot(path=folder / f"review-{view}.png")) > 20_000
    page.context.close()


# --- from here on the queue changes ------------------------------------------------------------


def test_a_new_doubt_appears_by_itself_and_the_choice_stays(page: Page, mill: Mill) -> None:
    chosen = page.locator(".entry").nth(2)
    chosen.click()
    name = str(chosen.get_attribute("data-id"))
    expect(page.locator(".chosen")).to_have_attribute("data-id", name)
    mill.inspect(PICTURES[7])
    expect(page.locator(".entry")).to_have_count(8)
    expect(page.locator(".place strong").first).to_have_text("8")
    still = page.locator(f'.entry[data-id="{name}"]')
    expect(still).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".chosen")).to_have_attribute("data-id", name)


def test_an_image_that_was_set_aside_goes_back_after_asking_once(page: Page, mill: Mill) -> None:
    page.locator(".entry.is-parked").click()
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("button", name="No, leave it").click()
    expect(page.get_by_role("button", name="Yes, put it back")).to_be_hidden()
    assert mill.desk.queue.counts()["parked"] == 1
    page.get_by_role("button", name="Try again").click()
    page.get_by_role("button", name="Yes, put it back").click()
    expect(page.locator("#review-happened")).to_contain_text("waits to be sent again")
    expect(page.locator(".place.is-parked strong")).to_have_text("0")
    page.locator(".place.is-parked").click()
    expect(page.locator(".nothing", has_text="No image is set aside.")).to_be_visible()


def test_the_button_sends_as_many_as_it_says(page: Page, mill: Mill) -> None:
    waiting = mill.desk.queue.counts()["pending"]
    page.get_by_role("button", name="Send 2 images to Label Studio").click()
    expect(page.locator("#review-connection")).to_contain_text("2 images sent to Label Studio")
    expect(page.locator(".place.is-waiting strong")).to_have_text(str(waiting - 2))
    assert mill.desk.queue.counts()["pending"] == waiting - 2


@pytest.mark.parametrize(
    "place", [".place.is-waiting", ".entry.is-there >> nth=1", ".opens"], ids=str
)
def test_the_focus_stays_where_it_was_when_the_page_renews_itself(
    page: Page, mill: Mill, place: str
) -> None:
    page.locator(".entry.is-there").first.click()
    expect(page.locator(".opens")).to_be_visible()
    everything = page.locator(".place strong").first
    before = int(everything.inner_text())
    page.locator(place).focus()
    for images in (before, before + 1):  # renewed twice
        _add_picture(mill, images)
        expect(everything).to_have_text(str(images + 1))
        expect(page.locator(".entry")).to_have_count(images + 1)
    expect(page.locator(place)).to_be_focused()


def _add_picture(mill: Mill, grey: int) -> None:
    """Somebody else puts a picture into the queue."""
    picture = io.BytesIO()
    PillowImage.new("RGB", (60, 40), (grey, grey, grey)).save(picture, "PNG")
    reasons = ("Asked for by hand.",)  # and before all others, so that every row moves
    mill.desk.queue.add(picture.getvalue(), inspections=(), reasons=reasons, priority=1.0)


# --- Label Studio's own editor -----------------------------------------------------------------


def test_a_person_corrects_a_task_in_the_editor_and_the_answer_comes_back_once(
    browser: Browser, label_studio: Server, project_title: str, tmp_path: Path
) -> None:
    desk = open_test_desk(tmp_path, project_title)
    studio = label_studio.client()
    item = desk.flag(1)  # 60 x 40 px: one box, two brushed classes, “red iron”
    assert desk.push(studio).verified == 1
    task = desk.item(item.id).task_id

    page = new_page(browser, 1440, 900)
    page.goto(f"{label_studio.url}/user/login/")
    page.locator("input[name=email]").fill(USER)
    page.locator("input[name=password]").fill(PASSWORD)
    page.locator("button[type=submit]").click()
    page.wait_for_url(lambda url: "login" not in url)
    page.goto(f"{label_studio.url}/projects/{studio.project_id(project_title)}/data?task={task}")

    regions = page.get_by_role("treeitem")
    expect(page.get_by_role("button", name="Submit")).to_be_visible()
    expect(regions).to_contain_text(["crazing", "inclusion", "patches"])
    expect(page.get_by_role("heading", name="Crazing 0.40 is between")).to_be_visible()
    expect(page.get_by_role("checkbox", name="red iron")).to_be_checked()

    page.get_by_role("checkbox", name="slag").check()
    regions.nth(2).click()
    page.keyboard.press("Backspace")
    expect(regions).to_have_count(2)
    page.get_by_text("scratches", exact=True).first.click()
    _drag(page, (36.0, 10.0), (50.0, 25.0))
    expect(regions).to_have_count(3)
    with page.expect_response(
        lambda answer: answer.request.method == "POST" and "/annotations" in answer.url
    ):
        page.get_by_role("button", name="Submit").click()

    assert [desk.pull(studio).applied, desk.pull(studio).applied] == [1, 0]
    [said] = desk.inbox.current()
    # Who looks again and corrects it answers a second time: that is how a recheck knows.
    assert desk.inbox.times_answered() == {item.image_sha256: 1}
    page.get_by_role("checkbox", name="red iron").check()
    with page.expect_response(
        lambda answer: answer.request.method == "PATCH" and "/annotations" in answer.url
    ):
        page.get_by_test_id("bottombar-update-button").click()  # reads Update
    page.context.close()
    assert desk.pull(studio).applied == 1
    assert desk.inbox.times_answered() == {item.image_sha256: 2}
    assert [(now.boxes, now.label) for now in desk.inbox.current()] == [(said.boxes, "red iron")]
    assert (said.image_sha256, said.label) == (item.image_sha256, "slag")
    boxes = dict(said.boxes)
    assert boxes["crazing"] == pytest.approx((6.0, 4.0, 30.5, 24.25), abs=1e-3)  # untouched
    assert boxes["scratches"] == pytest.approx((36.0, 10.0, 50.0, 25.0), abs=0.3)
    assert said.mask is not None
    drawn = np.zeros((40, 60), dtype=np.uint8)
    drawn[5:9, 10:30] = 1  # inclusion; the patches were deleted
    assert (class_map_from_record(said.mask) == drawn).all()
    studio.close()
    desk.ledger.close()


def _drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a box on the editor's image of 60 x 40 px."""
    image = page.get_by_role("img", name="image", exact=True)
    shown = image.bounding_box()
    assert shown is not None
    scale = shown["width"] / 60

    def at(point: tuple[float, float]) -> tuple[float, float]:
        return shown["x"] + scale * point[0], shown["y"] + scale * point[1]

    page.mouse.move(*at(start))
    page.mouse.down()
    page.mouse.move(*at(((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)))
    page.mouse.move(*at(end))
    page.mouse.up()


def _review(browser: Browser, mill: Mill, view: str) -> Page:
    """The tab once it has read the queue."""
    page = open_app(browser, mill.address, *VIEWS[view])
    select_tab(page, "Review")
    expect(page.locator(".place").first).to_be_visible(timeout=TIMEOUT_MS)
    expect(page.locator(".entry").first).to_be_visible()
    return page
