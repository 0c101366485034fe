"""The tests' own browser: it judges a page that has come to rest."""

from __future__ import annotations

from playwright.sync_api import Browser

from tests.browsers import browser, new_page, serious_barriers

__all__ = ["browser"]

PAGE = """<!doctype html><html lang="en"><title>A dim button</title><main>
<h1>Steel</h1>
<button style="color: #fff; background: {dim}; transition: background 1s">Send</button>
<i style="animation: turn 1s infinite">.</i></main>
<style>@keyframes turn {{ to {{ transform: rotate(1turn) }} }}</style></html>"""


def test_colours_are_judged_where_they_come_to_rest(browser: Browser) -> None:
    page = new_page(browser, 400, 300)
    page.set_content(PAGE.format(dim="#ddd"))  # white on light grey
    assert serious_barriers(page)[0][0] == "color-contrast"
    page.evaluate("document.querySelector('button').style.background = '#124'")
    assert serious_barriers(page) == []
    page.context.close()
