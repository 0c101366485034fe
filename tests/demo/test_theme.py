"""The theme's colours can be told apart."""

from __future__ import annotations

import re

import pytest

from demo.theme import STYLE, theme


def _luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("state", ["", "_hover"])
@pytest.mark.parametrize(("mode", "around"), [("", "neutral_200"), ("_dark", "neutral_600")])
def test_an_unticked_box_stands_out_from_its_label(state: str, mode: str, around: str) -> None:
    look = theme()
    border = getattr(look, f"checkbox_border_color{state}{mode}")
    assert _contrast(getattr(look, border.lstrip("*")), getattr(look, around)) >= 3


def test_a_ticked_box_stands_out_from_its_label_in_the_dark() -> None:
    look = theme()
    border = look.checkbox_border_color_selected_dark
    assert _contrast(getattr(look, border.lstrip("*")), look.neutral_600) >= 3


@pytest.mark.parametrize(("mode", "around"), [("", "neutral_50"), ("_dark", "neutral_900")])
def test_the_edge_of_a_field_stands_out_from_what_is_around_it(mode: str, around: str) -> None:
    look = theme()
    border = getattr(look, f"input_border_color{mode}")
    assert _contrast(getattr(look, border.lstrip("*")), getattr(look, around)) >= 3


def test_what_is_dark_alone_is_said_in_rules_of_one_selector() -> None:
    """Gradio moves `.dark` before its own prefix in the first selector of a list alone.

    The others never apply: the cross of an unreadable picture was pale on a pale ground.
    """
    rules = re.sub(r"/\*.*?\*/", "", STYLE.read_text(encoding="utf-8"), flags=re.DOTALL)
    selectors = [found.strip() for found in re.findall(r"([^{}]+)\{", rules)]
    dark = [each for each in selectors if ".dark " in each]
    assert len(dark) > 5
    assert [each for each in dark if re.search(r",(?![^(]*\))", each)] == []
