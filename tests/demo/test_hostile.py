"""A little of the hostile drill at every change, and the measures that its page is made of."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.active_learning.drill_results import Result
from tests.core.bad_images import NO_IMAGES
from tests.demo.hostile_drill import (
    address_drill,
    bad_files,
    climb_drill,
    file_drill,
    noise_drill,
    page,
)
from tests.demo.hostile_requests import Answer, ask, climbing, listener, noise
from tests.demo.load import App, slope_per_hour


@pytest.fixture
def app(address: str, tmp_path: Path) -> App:
    return App(address, tmp_path, psutil.Process())  # memory is not looked at here: our own will do


def test_bad_files_are_refused_or_looked_at(app: App) -> None:
    result = file_drill(app, damages=1, seed=0)
    assert not any(result.wrong.values()), result.render()
    assert result.numbers["files"] == len(NO_IMAGES) + 5 + 3 + 7 + 2 + 13


def test_paths_that_climb_lead_nowhere(app: App) -> None:
    result = climb_drill(app, most=3, seed=0)
    assert not any(result.wrong.values()), result.render()


def test_nobody_is_sent_to_an_inner_server(app: App) -> None:
    result = address_drill(app, most=5, seed=0)
    assert not any(result.wrong.values()), result.render()


def test_noise_does_no_harm(app: App) -> None:
    assert noise_drill(app, count=30, seed=0).wrong == {"restarts": 0}


def test_a_seed_gives_the_same_noise_and_the_same_damage() -> None:
    assert list(noise(3, 20)) == list(noise(3, 20)) != list(noise(4, 20))
    assert list(bad_files(damages=2, seed=3)) == list(bad_files(damages=2, seed=3))


def test_paths_that_climb_are_all_different(tmp_path: Path) -> None:
    paths = climbing(tmp_path / "secret.txt")
    assert len(paths) == len(set(paths)) == 16 * 6 * 2
    assert f"{'../' * 9}etc/passwd" in paths


def test_a_slope_is_told_by_the_hour() -> None:
    # 100, 101 and 102 MB at 0, 36 and 72 s: 1 MB in a hundredth of an hour
    assert slope_per_hour([0, 36, 72], [100, 101, 102]) == pytest.approx(100)
    assert slope_per_hour([5], [100]) == 0


def test_the_page_names_every_promise_that_was_not_kept() -> None:
    kept = Result("Bad files", {"files": 3}, {"restarts": 0})
    broken = Result("Soak", {}, {"restarts": 2, "answers that were not as they should be": 0})
    assert page([kept], "the command", commit="0" * 40).endswith(
        "## Promises\n\nEvery promise was kept.\n"
    )
    text = page([kept, broken], "the command", commit="a1b2" * 10)
    assert text.endswith("## Promises\n\n- not kept: Soak: restarts 2\n")
    assert "Written by `the command`" in text
    assert "commit a1b2a1b2a1b2," in text


def test_whoever_comes_to_the_inner_server_is_seen() -> None:
    with listener() as (port, came):
        assert ask(f"http://127.0.0.1:{port}", "/").status == 0  # it closes without an answer
        assert len(came) == 1


def test_an_answer_that_is_no_json_is_none() -> None:
    assert Answer(500, b"<html>", 0.1).json is None
    assert Answer(200, b"[1]", 0.1).json == [1]
