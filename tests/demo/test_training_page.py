"""The training page: what it says of each kind of run, in the real app and a real browser."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from pydantic import SecretStr

from active_learning.drift import Drift
from active_learning.orders import Orders
from active_learning.outlook import Outlook
from active_learning.presence import Presence
from active_learning.schedule import Due
from core.errors import InputError, LedgerError
from core.ledger import open_ledger
from core.settings import HubSettings, PathSettings, Settings
from demo import plots, training_markup
from demo import training_deeds as deeds
from demo.retraining import Retrainings, read_curve, read_tail
from demo.service import Service
from tests.browsers import VIEWS, open_app, select_tab, serious_barriers
from tests.demo import releases
from tests.demo.conftest import served
from tests.demo.retrained import Retrained

DRIFT_WORDS = (("0.39", "drifted"), ("0.10", "shifted"), ("0.00", "as in training"))
SCREENSHOTS = Path(__file__).parents[2] / "docs" / "screenshots"


@pytest.fixture(scope="module")
def paths(root: Path) -> PathSettings:
    return PathSettings(data=root / "data", runs=root / "runs", bundled=root / "bundled")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GRACE was refused, then promoted; the segmenter is parked, and the classifier trains."""
    root = tmp_path_factory.mktemp("trained")
    for name in releases.DATASETS:
        releases.write(root / "bundled" / name, name)
    releases.write(root / "candidate", "grace", seed=1)
    releases.write(root / "forgetful", "grace", seed=2)
    paths = PathSettings(data=root / "data", runs=root / "runs", bundled=root / "bundled")
    ledger = open_ledger(paths.ledger_url)
    made = Retrained(ledger, paths)
    made.refused("grace", candidate=root / "forgetful")
    made.promoted("grace", candidate=root / "candidate")
    made.drifted("grace")
    made.parked("sme_deeplabv3plus")
    made.training("mobilesteelnet")
    ledger.close()
    return root


@pytest.fixture(scope="module")
def retrainings(paths: PathSettings) -> Retrainings:
    settings = Settings(paths=paths)
    return Retrainings(Service(settings), settings)


# --- without a browser -------------------------------------------------------------------------


def test_the_model_with_the_latest_run_comes_first(retrainings: Retrainings) -> None:
    names = [name for _, name in retrainings.models()]
    assert names == ["mobilesteelnet", "grace", "sme_deeplabv3plus"]


def test_a_picture_of_a_model_holds_its_runs_curve_drift_and_way_back(
    retrainings: Retrainings,
) -> None:
    picture = retrainings.picture("grace")
    assert [run.state for run in picture.runs] == ["promoted", "refused"]
    assert len(picture.curve.points) == 20
    assert picture.log[-1].endswith("mAP50_95 0.4371")
    assert picture.back_to == picture.runs[0].incumbent
    assert picture.outlook.drift is not None
    assert picture.outlook.drift.worst()[0] == "brightness"
    assert retrainings.picture("mobilesteelnet").back_to is None


def test_nobody_goes_back_to_another_release_than_he_was_told(retrainings: Retrainings) -> None:
    with pytest.raises(Exception, match=r"release before is \w{12} by now, not aaaaaaaaaaaa"):
        retrainings.go_back("grace", "a" * 12, who="ann")
    with pytest.raises(Exception, match="release before is none by now"):
        retrainings.go_back("mobilesteelnet", "a" * 12, who="ann")


def test_the_way_back_is_asked_for_by_the_revision_that_the_person_was_told(
    retrainings: Retrainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str | None] = []

    def roll_back(*_: object, why: str, to: str | None = None) -> None:
        asked.append(to)

    monkeypatch.setattr("demo.retraining.roll_back", roll_back)
    back_to = retrainings.picture("grace").back_to
    assert back_to is not None
    retrainings.go_back("grace", back_to, who="ann")
    assert asked == [back_to]


def test_what_may_be_done_next_follows_from_the_run_in_hand(retrainings: Retrainings) -> None:
    def offered(model: str) -> tuple[str, str]:
        deed = deeds.main(retrainings.picture(model))
        return deed.key.partition(":")[0], deed.button

    assert offered("grace") == ("train", "Train GRACE now …")
    assert offered("mobilesteelnet") == ("stop", "Stop the run …")
    assert offered("sme_deeplabv3plus") == ("train", "Take the run up again …")
    drops = [deeds.give_up(retrainings.picture(name)) for name in ("sme_deeplabv3plus", "grace")]
    assert [deed and deed.key.partition(":")[0] for deed in drops] == ["drop", None]


def test_a_question_says_what_will_happen_and_that_nobody_is_there_to_do_it(
    retrainings: Retrainings,
) -> None:
    asked = deeds.main(retrainings.picture("grace")).question
    assert asked.startswith("GRACE is not due: 0 of 50 newly reviewed images.")
    assert "up to 240 min" in asked
    assert "Nobody is watching" in asked


def test_a_refused_candidate_can_be_put_live_by_a_person_who_is_told_so(
    retrainings: Retrainings,
) -> None:
    [refused] = [one for one in retrainings.picture("grace").standby if one.refused]
    asked = deeds.put_live(retrainings.picture("grace"), refused.revision)
    assert "The gate refused it:" in asked.question
    assert "pitted 66.0 % → 0.0 %" in asked.question
    assert asked.yes == "Yes, against the gate"
    with pytest.raises(InputError, match="stands by"):
        retrainings.put_live("grace", "0" * 12, who="ann")


def test_a_key_that_no_button_sends_does_nothing(retrainings: Retrainings) -> None:
    for key in ("", "train:", "drop", "withdraw:x", "withdraw:" + "9" * 40, "live:../x", "back:"):
        with pytest.raises((InputError, LedgerError)):
            deeds.do(retrainings, "grace", key, who="ann")


def test_a_secret_in_a_log_is_not_shown(tmp_path: Path) -> None:
    settings = Settings(hub=HubSettings(token=SecretStr("quiet-steel")))
    lines = ["x" * 40] * 30 + ["key quiet-steel and hf_abcdefghijklmnop"]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    tail = read_tail(tmp_path, settings)
    assert len(tail) == 20
    assert tail[-1] == "key [secret] and [secret]"


def test_a_mark_changes_with_the_page_and_only_then(retrainings: Retrainings) -> None:
    first = retrainings.mark("grace")
    assert retrainings.mark("grace")[:4] == first[:4]
    assert retrainings.mark("mobilesteelnet")[:4] != first[:4]


def test_a_run_without_files_has_no_curve_and_no_log(tmp_path: Path) -> None:
    assert read_curve(tmp_path, "mAP50_95") == ()
    assert read_tail(tmp_path, Settings()) == ()


def test_what_cannot_be_told_yet_is_said_in_words() -> None:
    view = Outlook(
        model="grace",
        title="GRACE",
        dataset="neu-det",
        revision="0" * 12,
        due=Due(False, "0 of 50 newly reviewed images"),
        new_reviews=0,
        new_labels={},
        training_labels={},
        drift=Drift(n=1, psi={}),
        open_run=None,
    )
    shown = training_markup.balance(view)
    assert "Not counted: neu-det is not prepared on this machine." in shown
    masks = training_markup.balance(replace(view, model="sme_deeplabv3plus", dataset="neu-seg"))
    assert "Labels that are masks are not counted by class." in masks
    assert "1 inspection so far; 100 are needed." in shown
    moved = replace(view, drift=Drift(n=240, psi={"brightness": 0.39, "class": 0.1, "contrast": 0}))
    shown = training_markup.balance(moved)
    assert [f"{psi} {word}" in shown for psi, word in DRIFT_WORDS] == [True] * 3
    assert "240 inspections. How far each has moved: below 0.1 as in training" in shown


def test_a_line_is_drawn_on_a_scale_of_whole_tenths() -> None:
    # 31 % to 44 % lie between 30 % and 50 %; the plot's height is 190 - 10 - 26 = 154 px.
    drawn = plots.line([(1, 0.31), (2, 0.44)], "words", axis="epoch")
    assert [s.strip() for s in re.findall(r">(\d+ %)<", drawn)] == ["30 %", "40 %", "50 %"]
    [(first, last)] = re.findall(r'points="46\.0,([\d.]+) 468\.0,([\d.]+)"', drawn)
    assert float(first) == pytest.approx(10 + 154 * 0.95, abs=0.06)
    assert float(last) == pytest.approx(10 + 154 * 0.30, abs=0.06)
    assert "epoch 1" in drawn
    assert "epoch 2" in drawn


def test_one_point_is_a_plot_too() -> None:
    assert 'points="257.0' in plots.line([(1, 1.0)], "words", axis="epoch")


def test_an_interval_lies_where_its_numbers_are() -> None:
    # The scale reaches 1.2 times the farther end: 0.05 is 0.05 / 0.06 of the half of 150.
    drawn = plots.interval(-0.01, 0.02, 0.05)
    assert 'x1="125.0" x2="275.0"' in drawn
    assert 'cx="200.0"' in drawn


# --- in the browser ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served(root, root / "bundled") as started:
        yield started


def opened(browser: Browser, address: str, view: str) -> Page:
    page = open_app(browser, address, *VIEWS[view])
    select_tab(page, "Training")
    expect(page.locator("#training-live code")).to_be_visible()
    return page


def choose(page: Page, name: str) -> None:
    if name not in page.locator("#training-model input").input_value():
        page.locator("#training-model input").click()
        page.get_by_role("option", name=name).click()
    expect(page.locator("#training-live")).to_contain_text(name)


@pytest.mark.browser
def test_the_page_tells_of_the_run_in_hand_of_a_parked_one_and_of_a_verdict(
    browser: Browser, address: str, paths: PathSettings
) -> None:
    page = opened(browser, address, "light")
    expect(page.locator("#training-sentence")).to_contain_text(
        "Training MobileSteelNet: epoch 3 of 20, 12 min left."
    )
    expect(page.locator('.phases li[aria-current="step"]')).to_contain_text("Training")
    expect(page.locator("#training-back")).to_be_disabled()
    expect(page.locator("#training-log pre")).to_contain_text("epoch 3/20")
    expect(page.locator("#training-hearing")).to_contain_text("hears an order to stop")
    choose(page, "SME-DeepLabV3+")
    expect(page.locator("#training-sentence")).to_contain_text("is parked and waits for a person")
    expect(page.locator("#training-phases")).to_contain_text("the disk is full: free some space.")
    expect(page.locator("#training-hearing")).to_contain_text("Nobody is watching")
    choose(page, "GRACE")
    expect(page.locator("#training-verdict .headline")).to_contain_text("Promoted: mAP50_95")
    expect(page.locator("#training-verdict tbody tr")).to_have_count(6)
    expect(page.locator("#training-verdict .checks li")).to_have_count(5)
    expect(page.locator("#training-history tbody tr")).to_have_count(2)
    expect(page.locator("#training-curve svg")).to_have_attribute(
        "aria-label", re.compile("after 20 epochs: best 43.7 % in epoch 20")
    )
    expect(page.locator("#training-balance")).to_contain_text("drifted")

    # What happens elsewhere shows by itself.
    ledger = open_ledger(paths.ledger_url)
    Retrained(ledger, paths).refused("grace")
    ledger.close()
    expect(page.locator("#training-verdict .headline")).to_contain_text("Refused")
    expect(page.locator("#training-verdict")).to_contain_text("has fallen")
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("view", VIEWS)
def test_the_page_fits_and_has_no_serious_barrier(
    browser: Browser, address: str, view: str, tmp_path: Path
) -> None:
    """With ROLLMARK_WRITE_SCREENSHOTS=1 the pictures become those of the documentation."""
    page = opened(browser, address, view)
    choose(page, "GRACE")
    expect(page.locator("#training-verdict .headline")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= VIEWS[view][1]
    for table in page.locator("#training-verdict thead, #training-history thead").all():
        expect(table).to_be_visible()  # numbers without a heading tell nobody anything
    for region in page.locator("#training-verdict .scroll-x, #training-history .scroll-x").all():
        assert region.evaluate("one => one.scrollWidth <= one.clientWidth")
    drifts = page.locator("#training-balance .bars").last.locator(".bar")
    expect(drifts).to_have_count(4)
    lengths = "all => new Set(all.map(one => Math.round(one.getBoundingClientRect().width))).size"
    assert drifts.evaluate_all(lengths) == 1  # of one scale, however long the words beside them
    head = page.locator(".masthead").bounding_box()
    assert head is not None
    for button in page.locator(".tools button:visible").all():
        box = button.bounding_box()
        assert box is not None
        assert box["x"] + box["width"] <= head["x"] + head["width"] + 1  # no further than the rest
        assert button.evaluate("one => one.scrollWidth <= one.clientWidth")  # nor the words than it
    for text in page.locator("#training-curve svg text").all():
        box = text.bounding_box()
        assert box is not None
        assert box["height"] >= 12  # letters of some 10 px
    barriers = serious_barriers(page)  # once the page has come to rest
    write = os.environ.get("ROLLMARK_WRITE_SCREENSHOTS") == "1"
    folder = SCREENSHOTS if write else tmp_path
    picture = page.screenshot(path=folder / f"training-{view}.png")
    assert len(picture) > 20_000
    assert barriers == []
    page.context.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 768, 1130])
def test_nothing_is_cut_off_on_a_smaller_screen(browser: Browser, address: str, width: int) -> None:
    """At 768 px the numbers of test images lay beyond the edge, at 390 px the plots' own."""
    page = open_app(browser, address, "light", width, 1024)
    select_tab(page, "Training")
    choose(page, "GRACE")
    expect(page.locator("#training-verdict .headline")).to_be_visible()
    expect(page.locator("#training-history svg")).to_be_visible()
    for region in page.locator("#training-verdict .scroll-x, #training-history .scroll-x").all():
        assert region.evaluate("one => one.scrollWidth <= one.clientWidth")
    for plot in page.locator("#training-curve svg, #training-history svg").all():
        expect(plot).to_have_css("overflow", "visible")
        edges = plot.locator("text").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).flatMap(r => [r.left, r.right])"
        )
        assert min(edges) >= 0
        assert max(edges) <= width
    page.context.close()


@pytest.mark.browser
def test_a_release_is_rolled_back_after_one_question(
    browser: Browser, address: str, root: Path
) -> None:
    page = opened(browser, address, "light")
    choose(page, "GRACE")
    back = page.locator("#training-back")
    expect(back).to_contain_text("Roll GRACE back to")
    before = page.locator("#training-live code").inner_text()
    back.click()
    expect(page.locator("#training-question")).to_contain_text(f"again instead of {before}")
    page.locator("#training-no").click()
    expect(page.get_by_role("button", name="Yes, go back")).to_be_hidden()
    assert page.locator("#training-live code").inner_text() == before
    back.click()
    page.get_by_role("button", name="Yes, go back").click()
    expect(page.locator("#training-happened")).to_contain_text(f"{before} is kept")
    expect(page.locator("#training-live code")).not_to_contain_text(before)
    expect(back).to_be_disabled()
    page.context.close()


@pytest.mark.browser
def test_a_run_is_asked_for_and_stopped_while_its_log_grows_under_the_readers_eyes(
    browser: Browser, address: str, paths: PathSettings
) -> None:
    page = opened(browser, address, "light")
    choose(page, "GRACE")
    main, sentence = page.locator("#training-main"), page.locator("#training-sentence")
    expect(main).to_have_text("Train GRACE now …")
    main.click()
    expect(page.locator("#training-question")).to_contain_text("GRACE is not due: 0 of 50")
    page.get_by_role("button", name="Yes, train it now").click()
    expect(sentence).to_contain_text("Reviewer has asked for GRACE to be trained")
    expect(main).to_have_text("Take the order back …")
    ledger = open_ledger(paths.ledger_url)
    watcher = Presence(ledger, poll_min=15)
    watcher.beat()
    expect(page.locator("#training-hearing")).to_contain_text("makes a pass every 15 min")
    watcher.leave()
    main.click()
    page.get_by_role("button", name="Yes, take it back").click()
    expect(main).to_have_text("Train GRACE now …")
    expect(page.locator("#training-hearing")).to_contain_text("taken back by reviewer")

    choose(page, "MobileSteelNet")
    box = page.locator("#training-log [tabindex]")
    box.focus()
    page.evaluate("window.box = document.activeElement")
    [folder] = paths.runs.glob("*mobilesteelnet*")
    with (folder / "log.txt").open("a") as log:
        log.write("INFO epoch 4/20 begun\n")
    expect(box).to_contain_text("epoch 4/20 begun")
    assert page.evaluate("document.activeElement === window.box")  # the reader's place is kept

    main.click()
    expect(page.locator("#training-question")).to_contain_text("What was done is kept")
    page.get_by_role("button", name="Yes, stop it").click()
    expect(sentence).to_contain_text("It stops after the step in hand.")
    order = Orders(ledger, lasts_h=24).open_order("stop")
    assert order is not None
    assert (order.model, order.who) == ("mobilesteelnet", "reviewer")
    ledger.close()
    page.context.close()
