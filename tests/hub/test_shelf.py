import pytest

from core.errors import WeightsError
from hub.shelf import shelve
from models import get_spec
from models._release import read_release
from tests.records import make_config, make_evaluation, write_folder


def test_a_shelved_release_carries_weights_evaluations_and_card(tmp_path):
    config = write_folder(tmp_path / "run")
    shelve(tmp_path / "run", tmp_path / "bundled" / "grace", [make_evaluation(config)])
    shelf = tmp_path / "bundled" / "grace"
    assert sorted(f.name for f in shelf.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert (shelf / "model.safetensors").read_bytes() == b"weights"
    assert read_release(shelf).evaluations == (make_evaluation(config),)


def test_the_threshold_is_the_confidence_of_best_f1_on_validation_never_on_test(tmp_path):
    config = write_folder(tmp_path / "run")
    evaluations = [
        make_evaluation(config, split="test", settings={"confidence_of_best_F1": 0.9}),
        make_evaluation(config, split="val", settings={"confidence_of_best_F1": 0.3124}),
    ]
    kept = shelve(tmp_path / "run", tmp_path / "grace", evaluations)
    assert kept.score_threshold == 0.312
    alone = shelve(tmp_path / "run", tmp_path / "grace", evaluations[:1])
    assert alone.score_threshold == config.score_threshold


COUNTED = {
    "n": 2,
    "thresholds": [0.1],
    "defects": {"crazing": 1},
    "found": {"crazing": [1]},
    "findings": {"crazing": [1]},
    "wrong": {"crazing": [0]},
}


def test_a_threshold_that_was_chosen_by_what_it_finds_stays(tmp_path):
    write_folder(tmp_path / "run", score_threshold=0.13, operating=COUNTED)
    evaluation = make_evaluation(
        read_release(tmp_path / "run"), split="val", settings={"confidence_of_best_F1": 0.3124}
    )
    kept = shelve(tmp_path / "run", tmp_path / "grace", [evaluation])
    assert kept.score_threshold == 0.13


def test_an_evaluation_of_other_weights_is_refused_and_the_old_release_stays(tmp_path):
    write_folder(tmp_path / "run")
    old = write_folder(tmp_path / "grace", b"old")
    other = make_evaluation(make_config(b"other"))
    with pytest.raises(WeightsError, match="evaluate these weights"):
        shelve(tmp_path / "run", tmp_path / "grace", [other])
    assert read_release(tmp_path / "grace") == old


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"tta": True}, "on test looked at mirrored pictures, too, and the app does not"),
        (
            {"learned_images": 129},
            "has learned from 129 of the images of neu-det leak-free test: evaluate it on images",
        ),
    ],
)
def test_an_evaluation_that_does_not_tell_of_the_release_is_refused(tmp_path, settings, says):
    config = write_folder(tmp_path / "run")
    with pytest.raises(WeightsError, match=says):
        shelve(tmp_path / "run", tmp_path / "grace", [make_evaluation(config, settings=settings)])
    assert not (tmp_path / "grace").exists()


def test_an_evaluation_on_images_that_are_new_to_the_release_is_kept(tmp_path):
    config = write_folder(tmp_path / "run")
    clean = make_evaluation(config, settings={"learned_images": 0})
    assert shelve(tmp_path / "run", tmp_path / "grace", [clean]).evaluations == (clean,)


def test_weights_that_fail_their_hash_are_not_shelved(tmp_path):
    config = write_folder(tmp_path / "run")
    (tmp_path / "run" / config.weights_file).write_bytes(b"tampered")
    with pytest.raises(WeightsError, match="SHA-256"):
        shelve(tmp_path / "run", tmp_path / "grace", [])
    assert not (tmp_path / "grace").exists()


def test_a_shelved_release_bears_the_name_its_model_has_today(tmp_path):
    write_folder(tmp_path / "run", title="GRACE, as it was called when it was trained")
    assert shelve(tmp_path / "run", tmp_path / "grace", []).title == get_spec("grace").title
