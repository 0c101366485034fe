"""Sentences as HTML: escaped, and what is to be typed shown as code."""

import pytest

from core.records import ImageFacts
from demo import markup
from tests.demo.inspections import detection, tolerated


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


@pytest.mark.parametrize(
    ("width", "height", "said"),
    [(1000, 200, "shown in 2 rows"), (200, 1000, "shown in 2 columns")],
)
def test_a_strip_says_how_it_is_folded(width: int, height: int, said: str) -> None:
    strip = detection().model_copy(
        update={"image": ImageFacts(sha256="f" * 64, width=width, height=height)}
    )
    assert f"23 ms · {said}, read them one after the other" in markup.verdict(strip, "GRACE")


def test_a_row_says_that_its_finding_may_stay() -> None:
    two = detection(("scratches", 0.9, (10, 10, 20, 50)), ("scratches", 0.8, (50, 50, 52, 58)))
    table = markup.findings_table(tolerated(two, 1, verdict="defect"), can_pick=False)
    first, second = table.partition("<tbody>")[2].split("</tr>")[:2]
    assert "<span>10 × 40 px</span></td>" in first
    assert "<span>2 × 8 px</span> <span>tolerated</span></td>" in second
