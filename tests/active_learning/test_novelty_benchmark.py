"""Whether a release notices the strange: AUROC by hand, intervals by group, the sets, the page."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from active_learning import embedding
from active_learning.__main__ import app
from active_learning.novelty_benchmark import NoveltyResult, SetResult, auroc, auroc_interval
from active_learning.novelty_page import write_page
from active_learning.strangers import SIDE, photographs, synthetic
from core.errors import InputError


def test_auroc_is_the_chance_to_be_further_away_and_a_tie_counts_half():
    # Of the six pairs (far, near): 2 beats 1, ties 2, loses to 4; 5 beats all: (1.5 + 3) / 6.
    assert auroc(np.array([1.0, 2, 4]), np.array([2.0, 5])) == 0.75
    assert auroc(np.array([1.0]), np.array([2.0])) == 1.0
    assert auroc(np.array([3.0]), np.array([2.0])) == 0.0
    with pytest.raises(InputError, match="both kinds"):
        auroc(np.array([]), np.array([1.0]))


def test_an_interval_knows_that_related_images_say_the_same():
    source = np.random.default_rng(0)
    near, far = source.normal(size=60), source.normal(size=60) + 1
    alone = [str(k) for k in range(60)]
    in_sixes = [str(k // 10) for k in range(60)]
    low, high = auroc_interval(near, far, alone, alone)
    assert low < auroc(near, far) < high
    # Six groups of ten copies are six images, not sixty.
    few_low, few_high = auroc_interval(
        np.repeat(near[:6], 10), np.repeat(far[:6], 10), in_sixes, in_sixes
    )
    assert few_high - few_low > 1.5 * (high - low)


@pytest.mark.parametrize("make", [synthetic, photographs], ids=["drawn", "photographs"])
def test_strange_images_are_repeatable_grey_and_all_different(make):
    images = make(12, seed=0)
    assert [s.image.sha256 for s in images] == [s.image.sha256 for s in make(12, seed=0)]
    assert len({s.image.sha256 for s in images}) == 12
    assert make(12, seed=1)[0].image.sha256 != images[0].image.sha256
    for stranger in images:
        pixels = stranger.image.pixels
        assert pixels.shape == (SIDE, SIDE, 3)
        assert (pixels == pixels[..., :1]).all()
        assert stranger.image.is_grey


def test_crops_of_one_photograph_are_one_group_and_drawn_surfaces_are_not():
    crops = photographs(20, seed=0)
    assert len({s.group for s in crops}) == len({s.family for s in crops}) <= 8
    surfaces = synthetic(12, seed=0)
    assert len({s.group for s in surfaces}) == 12
    assert len({s.family for s in surfaces}) == 6


def _result(model: str) -> NoveltyResult:
    strange = SetResult(
        name="X-SDD",
        n=3,
        groups=2,
        auroc=0.75,
        low=0.5,
        high=1.0,
        flagged=1 / 3,
        beyond_95=2 / 3,
        distances=(5.0, 20.0, 9.0),
    )
    return NoveltyResult(
        model=model,
        revision="abc",
        dataset="neu-cls",
        n=2,
        validation=162,
        flagged=0.005,
        beyond_95=0.06,
        distances=(8.0, 4.0),
        sets=(strange,),
    )


def test_the_page_holds_every_figure_and_names_its_command(tmp_path):
    page = write_page(tmp_path, [_result("m"), _result("s")], command="the command", where="here")
    text = page.read_text()
    assert "| m | its test images | 2 | – | 0.5 % | 6.0 % |" in text
    assert "| s | X-SDD | 3 | 0.750 (0.500 to 1.000) | 33.3 % | 66.7 % |" in text
    assert "Written by `the command`, here." in text
    assert json.loads((tmp_path / "novelty.json").read_text())["results"][0]["validation"] == 162
    assert (tmp_path / "novelty.png").read_bytes().startswith(b"\x89PNG")


def test_a_release_that_was_never_fitted_is_told_in_one_line(tmp_path, monkeypatch):
    def unasked(folder, *, device):
        raise AssertionError("no network is needed to see that")

    monkeypatch.setattr(embedding, "load", unasked)
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path))
    monkeypatch.setenv("ROLLMARK_PATHS__BUNDLED", str(tmp_path / "bundled"))
    from tests.records import write_folder

    (tmp_path / "bundled").mkdir()
    write_folder(tmp_path / "bundled" / "grace")
    done = CliRunner().invoke(app, ["novelty", "grace", "--output", str(tmp_path)])
    assert done.exit_code == 1
    assert "run `python -m active_learning calibrate` on it" in done.stderr
