"""The pages of the real app in a real browser: pictures, keys, accessibility, screenshots."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

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
from tests.demo import releases
from tests.demo.conftest import served
from tests.demo.releases import EXAMPLES

pytestmark = pytest.mark.browser

# Lets go of a file of that name and kind over an element, as somebody who drags it there does.
_DROP = """([selector, name, type]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(["x"], name, {type}));
  const target = document.querySelector(selector + " img");
  const event = {dataTransfer, bubbles: true, cancelable: true};
  target.dispatchEvent(new DragEvent("drop", event));
}"""
# Gradio measures the room for its tabs with twins of them, which nobody sees or reaches.
_SMALL = """all => all
  .filter(one => !one.closest('[aria-hidden="true"], .visually-hidden'))
  .map(one => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
  .filter(([, box]) => box.height > 1 && Math.min(box.width, box.height) < 24)
  .map(([html]) => html)"""
_HIDDEN_PX = "element => element.scrollWidth - element.clientWidth"
SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"
TABS = ("Inspect", "Compare", "Models")
SLOW_APP = Path(__file__).with_name("slow_app.py")


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    opened = open_app(browser, address, *VIEWS["light"])
    yield opened
    opened.context.close()


def test_the_page_opens_with_a_sample_already_inspected(page: Page) -> None:
    expect(page.locator("#inspect-verdict .headline")).not_to_be_empty()
    assert _source(page).endswith(".webp")
    expect(page.locator(".findings tr[data-number]").nth(2)).to_be_visible()


def test_the_answer_is_visible_without_scrolling(page: Page) -> None:
    for selector in ("#inspect-picture img", "#inspect-verdict", "#inspect-findings"):
        box = page.locator(selector).first.bounding_box()
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 900


def test_an_uploaded_picture_is_inspected_at_once(page: Page) -> None:
    before = _source(page)
    page.locator("#inspect-picture input[type=file]").set_input_files(
        EXAMPLES / "red_iron_2322.jpg"
    )
    _wait_for_another_picture(page, before)
    page.get_by_text("Details: how sure").click()
    expect(page.locator(".facts")).to_contain_text("ed16bedee334")


def test_the_list_of_models_closes_behind_whoever_tabs_on(page: Page) -> None:
    model = page.locator("#inspect-model")
    page.locator(".sample").last.focus()
    page.keyboard.press("Tab")
    expect(model.get_by_role("listbox")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_label("number input for Score threshold")).to_be_focused()
    expect(model.get_by_role("listbox")).to_be_hidden()


def test_a_pasted_picture_is_inspected(page: Page) -> None:
    before = _source(page)
    page.evaluate(
        """async (address) => {
          const blob = await (await fetch(address)).blob();
          const transfer = new DataTransfer();
          transfer.items.add(new File([blob], "pasted.jpg", {type: "image/jpeg"}));
          const event = {clipboardData: transfer, bubbles: true};
          document.body.dispatchEvent(new ClipboardEvent("paste", event));
        }""",
        page.locator(".sample img").nth(3).get_attribute("src"),
    )
    _wait_for_another_picture(page, before)


def test_a_file_that_is_no_picture_is_refused_in_the_verdict_s_place(
    page: Page, tmp_path: Path
) -> None:
    (tmp_path / "fake.png").write_text("<img onerror=alert(1)>")
    page.locator("#inspect-picture input[type=file]").set_input_files(tmp_path / "fake.png")
    expect(page.get_by_role("alert")).to_contain_text("This is not an image file")
    expect(page.locator(".findings")).to_have_count(0)


def test_a_dropped_file_of_another_kind_is_refused_and_the_answer_stays(page: Page) -> None:
    verdict = page.locator("#inspect-verdict .headline").inner_text()
    before = _source(page)
    page.evaluate(_DROP, ["#inspect-picture", "plan.pdf", "application/pdf"])
    told = page.locator("#inspect-refused")
    expect(told).to_have_text("plan.pdf is no picture; PNG, JPEG, BMP, TIFF and WebP are read.")
    page.evaluate(_DROP, ["#inspect-picture", "coil.zip", "application/zip"])
    expect(told).to_contain_text("coil.zip is no picture")
    expect(told).to_contain_text("Archives are for the Batch tab.")
    assert (page.locator("#inspect-verdict .headline").inner_text(), _source(page)) == (
        verdict,
        before,
    )
    page.locator("#inspect-picture input[type=file]").set_input_files(
        {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"x"}
    )
    expect(told).to_contain_text("notes.txt is no picture")
    page.locator(".sample").nth(3).click()
    _wait_for_another_picture(page, before)
    expect(told).to_have_text("")


def test_another_model_answers_in_its_own_way(page: Page) -> None:
    before = _source(page)
    page.locator("#inspect-model input").click()
    page.get_by_role("option", name="MobileSteelNet").click()
    expect(page.locator("#inspect-verdict .says")).to_contain_text("MobileSteelNet")
    expect(page.locator("#inspect-findings tbody tr")).to_have_count(6)  # classes of NEU
    _wait_for_another_picture(page, before)


def test_what_is_chosen_while_a_model_looks_is_what_the_page_ends_with(page: Page) -> None:
    for name in ("SME-DeepLabV3+", "MobileSteelNet", "GRACE"):
        page.locator("#inspect-model input").click()
        page.get_by_role("option", name=name, exact=True).click()
    expect(page.locator("#inspect-verdict .says")).to_contain_text("GRACE ·")
    for k in (1, 3, 6):
        page.locator(".sample").nth(k).click()
    page.get_by_text("Details: how sure").click()
    expect(page.locator(".facts")).to_contain_text("ed16bedee334")  # red_iron_2322.jpg, the 6th
    expect(page.locator("#inspect-verdict .says")).to_contain_text("GRACE ·")


def test_a_new_verdict_is_read_out_where_the_old_one_was(page: Page) -> None:
    place = page.locator("#inspect-verdict [aria-live=polite]")
    place.evaluate("element => { element.wasThere = true; }")
    page.locator(".sample").nth(7).click()
    expect(place).not_to_contain_text("Inclusion, 0.")
    assert place.evaluate("element => element.wasThere")


def test_a_segmenter_s_mask_is_drawn_without_being_asked_for(page: Page) -> None:
    page.locator("#inspect-model input").click()
    page.get_by_role("option", name="SME-DeepLabV3+").click()
    expect(page.locator("#inspect-verdict .says")).to_contain_text("SME-DeepLabV3+")
    expect(page.get_by_label("Mask")).to_be_checked()
    expect(page.get_by_label("Boxes")).not_to_be_checked()


def test_a_picture_is_put_into_the_review_queue_by_hand(page: Page) -> None:
    page.get_by_role("button", name="Not right?").click()
    page.get_by_label("A defect was missed").click()
    page.get_by_role("button", name="Put this picture").click()
    expect(page.locator("#inspect-flagged")).to_contain_text("In the review queue as item")


def test_a_selected_row_highlights_its_place_and_lets_go_again(page: Page) -> None:
    plain = _source(page)
    row = page.locator(".findings .pick").first
    row.focus()
    page.keyboard.press("Space")
    expect(row).to_have_attribute("aria-pressed", "true")
    _wait_for_another_picture(page, plain)
    highlighted = _source(page)
    page.keyboard.press("Escape")
    expect(row).to_have_attribute("aria-pressed", "false")
    _wait_for_another_picture(page, highlighted)
    assert _source(page) == plain  # the same picture has the same address


def test_a_highlight_stays_when_other_layers_are_drawn(page: Page) -> None:
    plain = _source(page)
    page.locator(".findings .pick").first.click()
    _wait_for_another_picture(page, plain)
    highlighted = _source(page)
    page.get_by_label("Names").click()
    _wait_for_another_picture(page, highlighted)
    nameless = _source(page)
    page.get_by_label("Names").click()
    _wait_for_another_picture(page, nameless)
    assert _source(page) == highlighted


def test_a_threshold_that_is_typed_is_not_written_over_by_answers_to_what_was_typed_before(
    page: Page,
) -> None:
    field = page.get_by_label("number input for Score threshold")
    field.fill("")
    field.press_sequentially("0.93", delay=150)
    expect(page.locator("#inspect-verdict .is-working")).to_have_count(0)
    page.wait_for_timeout(1500)  # the last answer is there, and those that came before it
    expect(field).to_have_value("0.93")


def test_the_layers_under_a_heat_map_are_those_of_the_model_that_answers(page: Page) -> None:
    def choose(name: str) -> None:
        page.locator("#inspect-model input").click()
        page.get_by_role("option", name=name, exact=True).click()
        expect(page.locator("#inspect-verdict .says")).to_contain_text(f"{name} ·")

    before = _source(page)
    choose("SME-DeepLabV3+")
    expect(page.get_by_label("Mask")).to_be_checked()
    _wait_for_another_picture(page, before)
    plain = _source(page)
    page.get_by_label("LayerCAM").click()  # drawn by the check boxes
    _wait_for_another_picture(page, plain)
    heated = _source(page)
    choose("GRACE")
    expect(page.get_by_label("Boxes")).to_be_checked()
    _wait_for_another_picture(page, heated)
    choose("SME-DeepLabV3+")  # drawn while the check boxes may still be those of GRACE
    expect(page.locator("#inspect-picture img").first).to_have_attribute("src", heated)


def test_layers_can_be_switched_off(page: Page) -> None:
    drawn = _source(page)
    page.get_by_label("Boxes").click()
    _wait_for_another_picture(page, drawn)


def test_a_heat_map_is_laid_over_the_picture_and_stays_for_the_next(page: Page) -> None:
    plain = _source(page)
    page.get_by_label("LayerCAM").click()
    expect(page.locator("#inspect-legend")).to_contain_text("what raised the score")
    _wait_for_another_picture(page, plain)
    heated = _source(page)
    page.locator(".sample").nth(3).click()
    _wait_for_another_picture(page, heated)
    expect(page.locator("#inspect-legend .scale")).to_be_visible()
    page.get_by_label("Off").click()
    expect(page.locator("#inspect-legend .scale")).to_have_count(0)


def test_no_button_resets_the_threshold_to_another_model_s(page: Page) -> None:
    expect(page.locator("#inspect-threshold input[type=number]")).to_be_visible()
    expect(page.locator("#inspect-threshold button")).to_have_count(0)


def test_results_can_be_downloaded(page: Page) -> None:
    with page.expect_download() as caught:
        page.get_by_role("button", name="Download CSV").click()
    assert caught.value.suggested_filename == "inclusion_145_grace.csv"
    assert caught.value.path().read_text().startswith("number,class,probability,x1")


def test_a_result_gets_a_link_that_shows_the_same_answer_to_somebody_else(
    browser: Browser, address: str, page: Page
) -> None:
    said = page.locator("#inspect-verdict .headline").inner_text()
    page.get_by_role("button", name="Make a link").click()
    link = page.locator("#inspect-linked a")
    expect(link).to_be_visible()
    expect(page.locator("#inspect-linked")).to_contain_text("for 7 days")
    href = link.get_attribute("href")
    page.locator("#inspect-samples button").nth(1).click()
    expect(link).to_have_count(0)  # it was the other picture's
    other = new_page(browser, 1440, 900)
    other.goto(f"{address}/{href}")
    large = other.locator("#batch-large")
    expect(large.locator(".headline")).to_have_text(said, timeout=TIMEOUT_MS)
    expect(large.locator("img.large")).to_be_visible()
    other.context.close()


def test_the_question_mark_shows_the_keys_and_hides_them(page: Page) -> None:
    page.locator("h1").click()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    box = page.get_by_role("dialog").bounding_box()
    assert box is not None
    assert box["y"] == pytest.approx((900 - box["height"]) / 2, abs=1)  # in the middle
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_an_emptied_page_says_what_to_do(page: Page) -> None:
    page.get_by_role("button", name="Remove Image").first.click()
    expect(page.locator("#inspect-verdict")).to_contain_text("Drop a picture on the left")


def test_compare_shows_every_model_beside_the_others_under_one_sentence(page: Page) -> None:
    _go(page, "Compare")
    expect(page.locator("figure.tile")).to_have_count(3)
    widths = {round(tile.bounding_box()["width"]) for tile in page.locator("figure.tile").all()}  # type: ignore[index]
    assert len(widths) == 1
    expect(page.locator("#compare-legend li").first).to_be_visible()
    page.get_by_label("GRACE").click()
    page.locator("#compare-run").click()
    expect(page.locator("figure.tile")).to_have_count(2)


def test_compare_knows_its_models_before_the_page_has_asked_for_them(
    page: Page, address: str
) -> None:
    """Whoever went there at once on a slow server was told that no model was chosen."""
    laid = page.request.get(f"{address}/config").json()["components"]
    [props] = [c["props"] for c in laid if c["props"].get("elem_id") == "compare-models"]
    assert props["value"] == ["grace", "mobilesteelnet", "sme_deeplabv3plus"]
    assert {name for _, name in props["choices"]} >= set(props["value"])


def test_inspect_knows_with_what_it_looks_before_the_page_has_asked(
    page: Page, address: str
) -> None:
    """Whoever dropped a picture at once was told that it did not work, or saw no boxes."""
    laid = page.request.get(f"{address}/config").json()["components"]
    of = {c["props"].get("elem_id"): c["props"] for c in laid}
    assert of["inspect-model"]["value"] == "auto"
    assert [name for _, name in of["inspect-model"]["choices"]][:2] == ["auto", "grace"]
    assert of["inspect-layers"]["value"] == ["Boxes", "Names"]
    assert of["inspect-threshold"]["value"] == 0.25


def test_a_comparison_can_be_downloaded(page: Page) -> None:
    select_tab(page, "Compare")
    expect(page.locator("#compare-sentence")).to_contain_text(" see ", timeout=TIMEOUT_MS)
    with page.expect_download(timeout=TIMEOUT_MS) as started:
        page.locator("#compare-save-csv").click()
    lines = Path(started.value.path()).read_text().splitlines()
    assert started.value.suggested_filename.endswith("_compared.csv")
    assert lines[0].startswith("model,number,class,probability")
    assert {line.split(",")[0] for line in lines[1:]} >= {"grace", "mobilesteelnet"}


def test_a_comparison_gets_a_link_that_shows_it_to_somebody_else(
    browser: Browser, address: str, page: Page
) -> None:
    select_tab(page, "Compare")
    sentence = page.locator("#compare-sentence")
    expect(sentence).to_contain_text(" see ", timeout=TIMEOUT_MS)
    page.locator("#compare-link").click()
    link = page.locator("#compare-linked a")
    expect(link).to_have_text("Link to this comparison")
    other = new_page(browser, 1440, 900)
    other.goto(f"{address}/{link.get_attribute('href')}")
    expect(other.locator("figure.tile")).to_have_count(3, timeout=TIMEOUT_MS)
    expect(other.locator("figure.tile.is-waiting")).to_have_count(0)
    said = other.locator("#compare-sentence .sentence").inner_text()
    expect(sentence).to_contain_text(said)
    assert other.locator("figure.tile figcaption").all_inner_texts() == (
        page.locator("figure.tile figcaption").all_inner_texts()
    )
    expect(other.locator("#compare-picture img")).to_be_visible()
    with other.expect_download(timeout=TIMEOUT_MS) as started:
        other.locator("#compare-save-json").click()
    assert started.value.suggested_filename.endswith("_compared.json")
    other.locator("#compare-run").click()  # on the kept picture, with the models of today
    expect(other.locator("#compare-sentence")).to_contain_text(said, timeout=TIMEOUT_MS)
    select_tab(other, "Inspect")
    before = other.locator("#inspect-picture img").first.get_attribute("src")
    other.locator("#inspect-samples button").nth(2).click()
    expect(other.locator("#inspect-picture img").first).not_to_have_attribute("src", str(before))
    expect(other.locator("#inspect-verdict .is-working")).to_have_count(0, timeout=TIMEOUT_MS)
    kept = other.locator("figure.tile img").first.get_attribute("src")
    select_tab(other, "Compare")  # from now on the page's own picture is brought along
    expect(other.locator("figure.tile img").first).not_to_have_attribute("src", str(kept))
    expect(other.locator("figure.tile.is-waiting")).to_have_count(0)
    other.context.close()


def test_a_link_to_a_comparison_that_is_gone_says_so(browser: Browser, address: str) -> None:
    visitor = new_page(browser, 1440, 900)
    visitor.goto(f"{address}/?comparison=AAAAAAAAAAAAAAAA")
    expect(visitor.locator("#compare-sentence")).to_contain_text(
        "There is no such comparison any more", timeout=TIMEOUT_MS
    )
    visitor.context.close()


def test_compare_never_answers_about_another_picture_than_it_shows(
    page: Page, tmp_path: Path
) -> None:
    """After a refusal it answered about the first sample, beside the picture that was refused."""
    _go(page, "Compare")
    sentence, tiles = page.locator("#compare-sentence"), page.locator("figure.tile")
    expect(tiles).to_have_count(3)
    (tmp_path / "moving.gif").write_bytes(b"GIF89a" + bytes(20))
    page.locator("#compare-picture").get_by_role("button", name="Remove Image").click()
    expect(tiles).to_have_count(0)
    page.locator("#compare-run").click()
    expect(sentence).to_contain_text("There is no picture here")
    page.locator("#compare-picture input[type=file]").set_input_files(tmp_path / "moving.gif")
    expect(sentence).to_contain_text("This is a file of type GIF")
    page.locator("#compare-run").click()
    expect(sentence).to_contain_text("This is a file of type GIF")
    expect(tiles).to_have_count(0)


def test_compare_turns_to_a_new_picture_while_it_looks_at_another(
    page: Page, tmp_path: Path
) -> None:
    """The new picture stood beside the answers about the old one, and was never looked at."""
    _go(page, "Compare")
    strip, small = tmp_path / "strip.png", tmp_path / "small.png"
    Image.new("L", (4000, 200), 128).save(strip)
    Image.new("L", (120, 90), 128).save(small)
    for path in (strip, small):
        page.locator("#compare-picture").get_by_role("button", name="Remove Image").click()
        page.locator("#compare-picture input[type=file]").set_input_files(path)
        expect(page.locator("figure.tile.is-waiting").first).to_be_visible()
    expect(page.locator("figure.tile")).to_have_count(3)
    expect(page.locator("figure.tile.is-waiting")).to_have_count(0)
    expect(page.locator("#compare-sentence")).not_to_contain_text("looking")
    for tile in page.locator("figure.tile img").all():
        assert "120 × 90 pixels" in str(tile.get_attribute("alt"))


def test_a_long_look_says_how_far_it_has_come_and_can_be_stopped(
    browser: Browser, tmp_path: Path
) -> None:
    strip = tmp_path / "strip.png"
    Image.new("L", (4000, 1000), 128).save(strip)  # 27 by 7 tiles, 16 in a pass
    releases.write(tmp_path / "bundled" / "grace", "grace")
    with served(tmp_path, tmp_path / "bundled", program=SLOW_APP) as address:
        page = open_app(browser, address, *VIEWS["light"])
        _stop_a_long_look(page, strip)
        page.context.close()


def _stop_a_long_look(page: Page, strip: Path) -> None:
    page.locator("#inspect-picture").get_by_role("button", name="Remove Image").click()
    page.locator("#inspect-picture input[type=file]").set_input_files(strip)
    verdict, stop = page.locator("#inspect-verdict"), page.locator("#inspect-stop")
    expect(verdict).to_contain_text(re.compile(r"\d+ of 189 tiles, about .* left"))
    expect(stop).to_be_visible()
    stop.click()
    expect(verdict).to_contain_text("Stopped. Press Inspect to look again.")
    expect(stop).to_be_hidden()
    expect(page.locator("#inspect-picture img")).to_be_visible()
    page.wait_for_timeout(1500)  # the answer of the look that was called off does not come
    expect(verdict).to_contain_text("Stopped.")


def test_compare_without_a_picture_says_whole_what_to_do(page: Page) -> None:
    _go(page, "Compare")
    page.locator("#compare-picture").get_by_label("Remove Image").click()
    told = page.locator("#compare-picture").get_by_text("Drop or paste a picture")
    expect(told).to_be_visible()
    assert told.evaluate("e => e.scrollWidth <= e.clientWidth")


def test_models_shows_the_measured_beside_the_reported_and_the_card(page: Page) -> None:
    _go(page, "Models")
    row = page.locator("table.models > tbody > tr").first
    first = row.locator("table.figures tbody tr").first.locator("th, td")
    # GRACE: the metric, what was measured on its test split, the interval, what its paper reports
    expect(first).to_have_text(["mAP50", "75.0 %", "70.0 – 80.0", "75.9 %"])
    page.get_by_role("button", name="SME-DeepLabV3+").click()
    expect(page.locator("#models-card h1")).to_contain_text("SME-DeepLabV3+")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_page_has_a_serious_barrier(browser: Browser, address: str, theme: str) -> None:
    page = open_app(browser, address, theme, 1440, 900)
    for tab in TABS:
        _go(page, tab)
        assert (tab, serious_barriers(page)) == (tab, [])
    page.context.close()


def test_nothing_is_fetched_from_another_host(browser: Browser, address: str) -> None:
    page = new_page(browser, 1440, 900)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    expect(page.locator("#inspect-verdict .says")).to_be_visible(timeout=TIMEOUT_MS)
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    page.context.close()


@pytest.mark.parametrize("width", [390, 768, 1000])
def test_no_column_of_the_findings_is_cut_off(browser: Browser, address: str, width: int) -> None:
    """On a screen 768 px wide the places lay beyond the edge, and half of a region's size."""
    page = open_app(browser, address, "light", width, 900)
    expect(page.locator("#inspect-findings tbody tr").first).to_be_visible()
    assert page.locator("#inspect-findings .scroll").evaluate(_HIDDEN_PX) == 0
    page.context.close()


def test_a_tablet_shows_the_picture_large_and_every_column_of_the_models(
    browser: Browser, address: str
) -> None:
    """The picture was as wide as half the screen; the models' training lay beyond the edge."""
    page = open_app(browser, address, "light", 768, 1024)
    picture = page.locator("#inspect-picture img").first.bounding_box()
    findings = page.locator("#inspect-findings").bounding_box()
    assert picture is not None
    assert findings is not None
    assert min(picture["width"], picture["height"]) >= 360
    assert findings["y"] + findings["height"] <= 1024  # the answer, without scrolling
    _go(page, "Models")
    assert page.locator("#models-table .scroll-x").evaluate(_HIDDEN_PX) == 0
    page.context.close()


@pytest.mark.parametrize("view", ["light", "narrow"])
def test_whatever_is_pressed_is_24_px_high_and_wide(
    browser: Browser, address: str, view: str
) -> None:
    """But links inside of a sentence, and a slider beside the field that says the same."""
    page = open_app(browser, address, *VIEWS[view])
    for tab in TABS:
        _go(page, tab)
        page.wait_for_function(AT_REST)
        small = page.locator("button:visible, summary:visible").evaluate_all(_SMALL)
        assert (tab, small) == (tab, [])
    page.context.close()


def test_the_page_is_called_english_in_every_browser(browser: Browser, address: str) -> None:
    """A German browser's page was called German, and its English read out as German."""
    page = new_page(browser, 1440, 900, locale="de-DE")
    page.goto(address)
    expect(page.get_by_text("Einstellungen")).to_be_visible(timeout=TIMEOUT_MS)  # Gradio's own word
    expect(page.locator("html")).to_have_attribute("lang", "en", timeout=TIMEOUT_MS)
    page.context.close()


def test_a_narrow_screen_shows_the_verdict_before_the_settings(
    browser: Browser, address: str
) -> None:
    page = open_app(browser, address, *VIEWS["narrow"])
    tops = {}
    for selector in ("#inspect-picture", "#inspect-verdict", "#inspect-findings", "#inspect-model"):
        box = page.locator(selector).bounding_box()
        assert box is not None
        tops[selector] = box["y"]
    assert list(tops.values()) == sorted(tops.values())
    assert tops["#inspect-verdict"] < 600  # of 844: seen without scrolling
    page.context.close()


def test_a_narrow_screen_needs_no_scrolling_sideways(browser: Browser, address: str) -> None:
    page = open_app(browser, address, *VIEWS["narrow"])
    for tab in TABS:
        _go(page, tab)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.context.close()


def test_every_page_shows_the_bundled_models_in_light_dark_and_narrow(
    browser: Browser, tmp_path: Path
) -> None:
    """With ROLLMARK_WRITE_SCREENSHOTS=1 the pictures become those of the documentation."""
    write = os.environ.get("ROLLMARK_WRITE_SCREENSHOTS") == "1"
    folder = SCREENSHOTS if write else tmp_path / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    with served(tmp_path, PathSettings().bundled) as address:
        for view, (theme, width, height) in VIEWS.items():
            page = open_app(browser, address, theme, width, height)
            for tab in TABS:
                _go(page, tab)
                page.wait_for_timeout(1500)  # transitions
                picture = page.screenshot(path=folder / f"{tab.lower()}-{view}.png")
                assert len(picture) > 20_000, f"{tab} in {view} is empty"
                assert (tab, view, serious_barriers(page)) == (tab, view, [])
            page.context.close()


def _go(page: Page, tab: str) -> None:
    """Open a tab and wait until it has its answer."""
    select_tab(page, tab)
    if tab == "Compare":
        expect(page.locator("figure.tile").first).to_be_visible()
        expect(page.locator("figure.tile.is-waiting")).to_have_count(0)
        expect(page.locator("#compare-sentence")).not_to_contain_text("looking")
    elif tab == "Models":
        expect(page.locator("#models-card h1")).to_be_visible()


def _source(page: Page) -> str:
    return page.locator("#inspect-picture img").first.get_attribute("src") or ""


def _wait_for_another_picture(page: Page, before: str) -> None:
    expect(page.locator(f'#inspect-picture img[src="{before}"]')).to_have_count(0)
    expect(page.locator("#inspect-picture img").first).to_be_visible()
