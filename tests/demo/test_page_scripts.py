"""What is chosen on a page is marked and seen: its scripts alone, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.theme import script
from tests.browsers import new_page

pytestmark = pytest.mark.browser

SAMPLES = "".join(f'<button class="sample" data-index="{k}">{k}</button>' for k in range(3))
INSPECT = (
    '<div id="inspect-picture"><input type="file"><button aria-label="Fullscreen">f</button>'
    f'<button aria-label="Remove Image">x</button></div><div id="block">{SAMPLES}</div>'
)
MODELS = (
    '<div id="block"><button data-name="a" aria-pressed="true">A</button>'
    '<button data-name="b" aria-pressed="false">B</button></div>'
    '<div style="height: 900px"></div><h1 id="models-card">card</h1><p style="height: 2000px">text'
)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = new_page(browser, 800, 600)
    yield opened
    opened.context.close()


def start(page: Page, content: str, name: str) -> None:
    page.set_content(content)
    page.evaluate("window.told = []; window.trigger = (kind, what) => told.push(what); 0")
    page.evaluate(f"(() => {{ const element = block; {script(name)} }})()")


def marked(page: Page) -> list[str]:
    return page.locator("[aria-pressed=true]").all_inner_texts()


def test_the_sample_that_is_looked_at_is_marked(page: Page) -> None:
    start(page, INSPECT, "samples")
    assert marked(page) == ["0"]
    page.get_by_text("2").click()
    page.get_by_label("Fullscreen").click()
    assert marked(page) == ["2"]
    page.get_by_text("2").click()
    first, second = page.evaluate("told")
    assert first["index"] == second["index"] == 2
    assert first["at"] < second["at"]  # in ms: what tells them apart if the second overtakes it


@pytest.mark.parametrize(
    "act",
    [
        "document.querySelector('[aria-label=\"Remove Image\"]').click()",
        "document.querySelector('input').dispatchEvent(new Event('change', {bubbles: true}))",
        "(() => { const clipboardData = new DataTransfer();"
        "clipboardData.items.add(new File(['x'], 'x.png', {type: 'image/png'}));"
        "document.body.dispatchEvent(new ClipboardEvent('paste', {clipboardData})); })()",
    ],
    ids=["removed", "uploaded", "pasted"],
)
def test_no_sample_is_marked_beside_a_picture_of_ones_own(page: Page, act: str) -> None:
    start(page, INSPECT, "samples")
    page.evaluate(act)
    assert marked(page) == []


def test_the_card_of_the_chosen_model_comes_into_view(page: Page) -> None:
    start(page, MODELS, "models")
    page.get_by_text("B", exact=True).click()
    expect(page.locator("#models-card")).to_be_in_viewport()
    assert marked(page) == ["B"]
    assert page.evaluate("told") == [{"name": "b"}]
