"""The page after too many wrong passwords: how long to wait, and the way back.

It answers a form that a browser sent by itself, so none of the app's page is there: it brings its
own few rules, in the app's colours, light or dark as the visitor's system is.
"""

from __future__ import annotations

from typing import Final

from starlette.responses import HTMLResponse

from demo.theme import BLUE, SANS, STEEL
from demo.words import count

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Sign in · Rollmark</title>
<style>
body {{ margin: 0; min-height: 100vh; display: grid; place-content: center; padding: 1rem;
  box-sizing: border-box; font: 1rem/1.5 {sans}; text-align: center;
  background: {steel.c50}; color: {steel.c900}; }}
h1 {{ font-size: 1.25rem; font-weight: 600; margin: 0 0 0.5rem; }}
p {{ margin: 0 0 0.5rem; }}
a {{ color: {blue.c700}; }}
@media (prefers-color-scheme: dark) {{
  body {{ background: {steel.c950}; color: {steel.c100}; }}
  a {{ color: {blue.c300}; }}
}}
</style>
</head>
<body>
<main>
<h1>Rollmark</h1>
<p role="alert">Too many wrong passwords were given: try again in {wait}.</p>
<p><a href="./">Back to the app</a></p>
</main>
</body>
</html>
"""


def closed_door(wait_s: int) -> HTMLResponse:
    """The answer to a password that is not looked at.

    Args:
        wait_s: until the next one is; whole seconds, at least 1.
    """
    page = _PAGE.format(sans=", ".join(SANS), steel=STEEL, blue=BLUE, wait=count(wait_s, "second"))
    return HTMLResponse(page, 429, headers={"Retry-After": str(wait_s)})
