"""What is renewed under the reader's hands keeps the focus: the script alone, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from demo.theme import script
from tests.browsers import new_page

pytestmark = pytest.mark.browser

LIST = (
    '<button data-id="a">first, {n} min</button><button data-id="b">second, {n} min</button>'
    '<a href="/x">open</a><a href="/y">open</a><button>Stop</button>'
)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    opened = new_page(browser, 800, 600)
    opened.set_content(f'<p>text</p><div id="block"><div>{LIST.format(n=1)}</div></div>')
    opened.evaluate(script("focus"))
    yield opened
    opened.context.close()


def renew(page: Page, content: str = LIST.format(n=2)) -> None:
    page.evaluate("content => { block.innerHTML = `<div>${content}</div>` }", content)


@pytest.mark.parametrize("place", ["[data-id=b]", "a >> nth=1", "button >> nth=2"])
def test_what_takes_the_place_of_the_focused_element_is_focused(page: Page, place: str) -> None:
    page.locator(place).focus()
    for _ in range(2):
        renew(page)
        expect(page.locator(place)).to_be_focused()


def test_the_focus_follows_what_had_it_when_the_elements_are_used_again(page: Page) -> None:
    # The list gets one more on top: the second button is the first one's from now on.
    page.locator("[data-id=a]").focus()
    page.evaluate(
        "const [a, b] = document.querySelectorAll('[data-id]'); a.dataset.id = 'new';"
        "b.dataset.id = 'a';"
    )
    expect(page.locator("[data-id=a]")).to_be_focused()
    page.evaluate("document.querySelector('[data-id=a]').dataset.id = 'b'")  # a is gone for good
    expect(page.locator("[data-id=b]")).to_be_focused()


def test_an_element_that_comes_back_later_gets_the_focus_back(page: Page) -> None:
    page.locator("[data-id=a]").focus()
    renew(page, "Reading …")
    renew(page)
    expect(page.locator("[data-id=a]")).to_be_focused()


def test_nothing_is_focused_that_had_not_the_focus(page: Page) -> None:
    renew(page)
    assert page.evaluate("document.activeElement.tagName") == "BODY"


def test_a_person_who_has_clicked_elsewhere_is_left_alone(page: Page) -> None:
    page.locator("[data-id=a]").focus()
    page.get_by_text("text").click()
    renew(page)
    assert page.evaluate("document.activeElement.tagName") == "BODY"


def test_the_focus_is_not_taken_from_another_element(page: Page) -> None:
    page.locator("[data-id=a]").focus()
    page.evaluate("document.body.append(Object.assign(document.createElement('input'), {id: 'i'}))")
    page.locator("#i").focus()
    renew(page)
    expect(page.locator("#i")).to_be_focused()
