"""The panel that tells how far people agree, without a browser."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from active_learning.agreement import Agreement, ClassAgreement
from core.errors import LedgerError
from demo.agreeing import AgreementPanel, listing

FOUND = Agreement(
    images=12,
    people=3,
    classes=(
        ClassAgreement("boxes", "scratches", 12, 2 / 3, 0.41, 0.86, 0.8),
        ClassAgreement("regions", "patches", 1, 0.5, None, None, 1 / 3),
        ClassAgreement("choice", "<b>", 1, 1.0, None, None, None),
    ),
    swapped=(("inclusion", "scratches", 4),),
)


def panel(answer: Any) -> AgreementPanel:
    def agreement() -> Agreement:
        if isinstance(answer, Exception):
            raise answer
        found: Agreement = answer
        return found

    reviewing: Any = SimpleNamespace(agreement=agreement)
    return AgreementPanel(reviewing)


def test_each_class_has_a_bar_and_its_figures() -> None:
    html = panel(FOUND).compare()
    assert "Scratches, boxes" in html
    assert "0.67 (0.41 to 0.86) on 12 images, what both drew overlaps by 0.80" in html
    assert "width:67%" in html
    assert "0.50 on 1 image, what they brushed overlaps by 0.33" in html
    assert "1.00 on 1 image</dd>" in html
    assert "&lt;b&gt;, chosen" in html
    assert "Inclusion to one and scratches to the other: 4 times." in html
    assert "12 images answered by two people or more, 3 in all." in html


def test_without_a_second_answer_it_says_how_to_get_one() -> None:
    html = listing(Agreement(0, 0, (), ()))
    assert "No image was answered by two people yet: in Label Studio, open a task" in html
    assert "<dl>" not in html


def test_a_failure_is_one_sentence() -> None:
    assert (
        "The ledger cannot be read." in panel(LedgerError("The ledger cannot be read.")).compare()
    )
