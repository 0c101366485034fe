"""From which uncertainty on a release asks: at most a quarter of its validation images reach it."""

from dataclasses import replace

import numpy as np
import pytest

from active_learning.asking import ask_from, fit_asking
from core.errors import DatasetError
from models._release import read_release
from tests.records import make_run, write_folder
from tests.training.canned import Canned


@pytest.mark.parametrize(
    ("uncertainties", "expected"),
    [
        ([0.1, 0.2, 0.9, 0.3], 0.5),  # one of four asks already: one half stays
        ([0.6, 0.7, 0.8, 0.9], 0.801),  # only 0.9 may; 0.8 is the first that must not
        ([0.6, 0.8, 0.8, 0.9], 0.801),
        ([0.8, 0.8, 0.8, 0.8], 0.801),  # a quarter of equals is none of them
        ([1.0, 1.0, 0.2, 0.1], 1.0),  # two cannot be told apart: there is nothing above 1
        ([0.7, 0.6], 0.701),
        ([], 0.5),
    ],
)
def test_at_most_a_quarter_of_the_images_reaches_the_threshold(uncertainties, expected):
    assert ask_from(uncertainties) == expected


def test_the_threshold_lands_in_the_config_and_the_test_split_is_not_read(
    tmp_path, tiny_neu_cls, monkeypatch
):
    *seen, last = tiny_neu_cls.samples
    splits = [{"paper": "val", "leak-free": "val"}] * len(seen) + [{"leak-free": "test"}]
    samples = [replace(s, splits=d) for s, d in zip([*seen, last], splits, strict=True)]
    dataset = replace(tiny_neu_cls, samples=tuple(samples))
    run = make_run(
        model="mobilesteelnet", dataset=dataset.name, dataset_id=dataset.id, labels=dataset.labels
    )
    write_folder(tmp_path / "r", run=run, task="classify")
    unsure = np.array([0.6, 0.3, 0.1, 0.0, 0.0, 0.0])  # 1 - (0.6 - 0.3) = 0.7
    answers = Canned("classify", dataset.labels, {s.sha256: unsure for s in seen})
    monkeypatch.setattr("models.load", lambda folder, *, device: answers)
    before = read_release(tmp_path / "r")
    config = fit_asking(tmp_path / "r", dataset)  # the last image has no answer: a KeyError
    assert config.ask_from == 0.701
    assert config == read_release(tmp_path / "r")
    assert config.model_copy(update={"ask_from": None}) == before
    other = replace(dataset, samples=dataset.samples[1:])
    with pytest.raises(DatasetError, match="prepare the same archive"):
        fit_asking(tmp_path / "r", other)
