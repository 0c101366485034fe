"""A comparison that a visitor stops, without a browser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from demo.latest import Latest
from demo.service import Service
from demo.tabs.compare import _Page
from tests.demo.releases import PICTURE

VISITOR: Any = SimpleNamespace(session_hash="a")
MODELS = ["da_yolo", "grace", "mobilesteelnet"]


@pytest.mark.parametrize(
    ("answered", "sentence"),
    [
        pytest.param(0, "Stopped; nothing was answered yet.", id="none"),
        pytest.param(1, "Stopped; the answers so far are below.", id="one"),
    ],
)
def test_a_stopped_comparison_says_what_was_not_answered(
    service: Service, answered: int, sentence: str
) -> None:
    page = _Page.__new__(_Page)  # no components: what the handlers give is looked at
    page.service, page.answers = service, Latest()
    looks = page.again((str(PICTURE), "a.jpg"), MODELS, VISITOR)
    for _ in range(answered + 1):  # the first result only says who is looking
        *_, standing = next(looks)
    text, grid, button = page.halt(standing, VISITOR)
    assert sentence in text
    assert button.interactive is False
    assert grid.count('class="tile') == 3
    assert grid.count('<p class="headline">Stopped</p>') == 3 - answered
    assert "is-waiting" not in grid
    assert all(change == {"__type__": "update"} for change in next(looks))  # too late
