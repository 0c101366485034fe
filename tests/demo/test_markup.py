"""Sentences as HTML: escaped, and what is to be typed shown as code."""

import pytest

from demo import markup


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("`make label-studio` starts one.", "<code>make label-studio</code> starts one."),
        ("Run `a` or `b`", "Run <code>a</code> or <code>b</code>"),
        ("a`b.png", "a`b.png"),
        ("`a` and one more `", "`a` and one more `"),
        ("`<b>` & co.", "<code>&lt;b&gt;</code> &amp; co."),
        ("", ""),
    ],
)
def test_backticks_become_code_and_everything_is_escaped(text: str, html: str) -> None:
    assert markup.with_code(text) == html


def test_a_failure_shows_what_to_type() -> None:
    assert "<code>training</code>" in markup.failed("Start `training` first.")
    assert "<code>training</code>" in markup.refused("Start `training` first.")
