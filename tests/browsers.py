"""A real browser for tests of pages, ours and Label Studio's."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

TIMEOUT_MS = 180_000  # a machine that also trains answers late; an idle one within a second
ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
# A camera that shows a moving pattern, and nobody who has to allow it.
CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
# No animation is running but those that never end, such as a turning wheel.
AT_REST = """() => document.getAnimations().every(one =>
    one.playState !== "running" || one.effect.getComputedTiming().endTime === Infinity)"""
VIEWS = {  # theme, width and height in px
    "light": ("light", 1440, 900),
    "dark": ("dark", 1440, 900),
    "narrow": ("light", 390, 844),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.fail("The browser tests need Chromium, which is not on the PATH: `make browser`.")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=program,
            args=[*ARGUMENTS, *CAMERA],
        )
        yield opened
        opened.close()


def new_page(browser: Browser, width: int, height: int, **more: Any) -> Page:
    """An empty page in a context of its own, made with `more`; close the context when done."""
    context = browser.new_context(viewport={"width": width, "height": height}, **more)
    context.set_default_timeout(TIMEOUT_MS)
    expect.set_options(timeout=TIMEOUT_MS)
    return context.new_page()


def open_app(browser: Browser, address: str, theme: str, width: int, height: int) -> Page:
    """The app's page once it has inspected its first sample."""
    page = new_page(browser, width, height)
    page.goto(f"{address}/?__theme={theme}")
    expect(page.locator("#inspect-verdict .says")).to_be_visible()
    expect(page.locator("#inspect-picture img").first).to_be_visible()
    return page


def select_tab(page: Page, name: str) -> None:
    """Open a tab, also one that a narrow screen has put behind the dots."""
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():
        page.locator(".overflow-menu > button").click()
        tab = page.locator(".overflow-dropdown button", has_text=name)
    tab.click()


def serious_barriers(page: Page) -> list[Any]:
    """What keeps people out of a page, by axe: rule and elements.

    Colours are judged where they come to rest: halfway from dim to bright a button has no contrast.
    """
    page.wait_for_function(AT_REST)
    return [
        (each["id"], [node["html"][:120] for node in each["nodes"]])
        for each in Axe().run(page).response["violations"]
        if each["impact"] in ("serious", "critical")
    ]
