import json

import pytest

from core.errors import UnknownModelError, WeightsError, WeightsNotFoundError
from core.records import Metric
from core.settings import PathSettings
from hub.registry import resolve, resolve_all
from tests.records import make_config, make_evaluation, write_folder


@pytest.fixture
def paths(tmp_path):
    return PathSettings(data=tmp_path / "data", bundled=tmp_path / "bundled")


def _promote(paths, revision):
    folder = paths.releases / "grace"
    (folder / "channel.json").write_text(json.dumps({"live": revision, "previous": []}))


def test_the_bundled_release_is_served_until_another_is_promoted(paths):
    old = write_folder(paths.bundled / "grace")
    assert resolve("grace", paths).source == "bundled"
    new = make_config(b"better")
    write_folder(paths.releases / "grace" / new.revision, b"better")
    assert resolve("grace", paths).config == old
    _promote(paths, new.revision)
    release = resolve("grace", paths)
    assert (release.source, release.config) == ("local", new)


def test_a_promoted_revision_that_is_gone_is_an_error_and_not_silently_the_bundled_one(paths):
    write_folder(paths.bundled / "grace")
    (paths.releases / "grace").mkdir(parents=True)
    _promote(paths, "0123456789ab")
    with pytest.raises(WeightsError, match="The live revision 0123456789ab of grace is missing"):
        resolve("grace", paths)


def test_a_damaged_channel_file_is_an_error(paths):
    (paths.releases / "grace").mkdir(parents=True)
    (paths.releases / "grace" / "channel.json").write_text("{")
    with pytest.raises(WeightsError, match="is damaged"):
        resolve("grace", paths)


def test_a_model_without_any_release_says_where_it_was_looked_for(paths):
    with pytest.raises(WeightsNotFoundError, match=f"none are bundled in {paths.bundled}"):
        resolve("grace", paths)


def test_a_misspelt_model_is_not_one_whose_weights_are_missing(paths):
    with pytest.raises(UnknownModelError, match=r"'graze'\. Available: .*grace"):
        resolve("graze", paths)


def test_a_data_folder_that_is_a_file_holds_no_promotion(paths):
    old = write_folder(paths.bundled / "grace")
    paths.data.write_text("")
    assert resolve("grace", paths).config == old


def test_only_models_with_a_release_are_offered_in_the_order_of_their_names(paths):
    write_folder(paths.bundled / "grace")
    write_folder(
        paths.bundled / "da_yolo", run=make_config().run.model_copy(update={"model": "da_yolo"})
    )
    assert [r.config.name for r in resolve_all(paths)] == ["da_yolo", "grace"]


def test_the_served_line_shows_the_metrics_of_the_test_split_only(paths):
    config = make_config()
    on_val = make_evaluation(config, split="val", metrics=())
    on_test = make_evaluation(config)
    write_folder(paths.bundled / "grace", evaluations=(on_val, on_test))
    line = resolve("grace", paths).served()
    assert [(m.name, m.value) for m in line.metrics] == [("mAP50", 0.7)]
    assert (line.name, line.revision, line.source) == ("grace", config.revision, "bundled")


def test_of_two_test_splits_the_leak_free_one_is_shown_whichever_comes_first(paths):
    config = make_config()
    on_paper = make_evaluation(
        config, protocol="paper", metrics=(Metric(name="mAP50", value=0.9, n=360),)
    )
    leak_free = make_evaluation(config, protocol="leak-free")
    write_folder(paths.bundled / "grace", evaluations=(on_paper, leak_free))
    line = resolve("grace", paths).served()
    assert ([m.value for m in line.metrics], line.protocol) == ([0.7], "leak-free")
    write_folder(paths.bundled / "da_yolo", evaluations=(on_paper,))
    line = resolve("da_yolo", paths).served()
    assert ([m.value for m in line.metrics], line.protocol) == ([0.9], "paper")
    write_folder(paths.bundled / "gms2_yolo")
    assert resolve("gms2_yolo", paths).served().protocol is None
