"""Unlike anything seen: distances worked by hand, quantiles, and the file beside the weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from safetensors.numpy import save

from active_learning import novelty_fitting as fitting
from active_learning.novelty import (
    ALARM,
    NOVELTY_FILE,
    Familiarity,
    doubt,
    novelty_of,
    read_familiarity,
    to_bytes,
)
from active_learning.novelty_fitting import fit, fit_novelty, kind
from core.errors import DatasetError, InputError, WeightsError, WeightsNotFoundError
from core.records import SideFile
from core.settings import PathSettings
from core.types import Classification, Provenance
from hub.shelf import shelve
from models import get_spec
from models._release import read_release
from tests.records import make_config, make_run, write_folder
from tests.training.canned import Canned

LAYER = get_spec("grace").feature_layer  # `make_config` describes a release of it


def familiarity(*ordinary: float) -> Familiarity:
    """Centres at (10, 0) and (0, 20); the second of the two features counts double."""
    return Familiarity(
        whitening=np.array([[10, 0], [0, 20]], np.float32),
        centres=np.array([[10, 0], [0, 20]], np.float32),
        ordinary=np.array(ordinary or (1, 4, 9, 16), np.float32),
    )


def answer(features: object) -> Classification:
    source = Provenance("grace", "r", "0" * 64, 8, 8, 1.0, features=features)  # type: ignore[arg-type]
    return Classification(np.ones(1, np.float32), ("a",), source)


# --- the measure ---------------------------------------------------------------------------------


def test_the_distance_is_to_the_nearest_centre_whatever_the_length_of_the_features():
    # (3, 4) has length 5, is (0.6, 0.8) and becomes (6, 16): (4, 16) from (10, 0), and (6, 4) from
    # (0, 20), √52 away. (0, 9) is the second centre itself.
    expected = [52**0.5, 52**0.5, 0]
    found = familiarity().distance([[3, 4], [30, 40], [0, 9]])
    assert found == pytest.approx(expected, abs=1e-5)


def test_novelty_is_the_share_of_validation_images_that_lie_nearer():
    # (0, 9) lies at 0, (3, 4) at √52 = 7.2, (-1, 0) at 20: among 1, 4, 9 and 16 nearer are 0, 2
    # and 4, of 4 + 1.
    assert familiarity().novelty([[0, 9], [3, 4], [-1, 0]]).tolist() == [0.0, 0.4, 0.8]
    assert familiarity(7.3).novelty([[3, 4]]).tolist() == [0.0]


def test_no_more_ordinary_images_than_promised_are_called_novel():
    # Exchangeable images: of 4000 fresh ones at most about 5 % may exceed 95 %.
    draw = np.random.default_rng(0).normal(size=(8000, 6))
    fitted = fit(draw[:3000], ["k"] * 3000, draw[3000:4000])
    novel = fitted.novelty(draw[4000:]) >= 0.95
    assert 0.035 < novel.mean() < 0.065


@pytest.mark.parametrize(
    ("novelty", "expected"),
    [(0.0, 0.0), (0.98, 0.0), (0.99, 0.5), (0.995, 0.75), (1.0, 1.0)],
)
def test_doubt_begins_at_two_in_a_hundred_and_asks_for_a_person_at_one(novelty, expected):
    assert doubt(novelty) == pytest.approx(expected, abs=1e-9)


def test_beyond_all_of_99_validation_images_is_just_the_alarm():
    far = familiarity(*np.linspace(0, 1, 99)).novelty([[-1, 0]])[0]
    assert far == 0.99
    assert doubt(far) == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"centres": np.zeros((2, 3), np.float32)}, "are wanted"),
        ({"ordinary": np.zeros(0, np.float32)}, "none may be empty"),
        ({"ordinary": np.array([1, np.nan], np.float32)}, "no number"),
        ({"ordinary": np.array([2, 1], np.float32)}, "do not rise"),
    ],
    ids=["shape", "empty", "nan", "order"],
)
def test_arrays_that_do_not_belong_together_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(familiarity(), **changes)


def test_features_of_another_network_are_refused():
    with pytest.raises(InputError, match="Features have length 3; this release's have 2"):
        familiarity().distance([[1, 2, 3]])


# --- fitting -------------------------------------------------------------------------------------


def test_each_kind_has_its_centre_and_the_spread_around_it_becomes_one():
    source = np.random.default_rng(0)
    train = np.concatenate([np.ones((4000, 1)), source.normal(size=(4000, 2)) * (0.001, 0.004)], 1)
    train[2000:, 0] = -1
    fitted = fit(train, ["left"] * 2000 + ["right"] * 2000, train[::10])
    # 0.008 along the wide axis and 0.002 along the narrow one are two deviations from a centre.
    asked = [[1, 0, 0.008], [1, 0.002, 0], [-1, 0, 0.008], [-1, 0.002, 0]]
    assert fitted.distance(asked) == pytest.approx(2, abs=0.15)
    assert fitted.distance([[0, 1, 0]])[0] > 40


def test_more_features_than_images_can_be_fitted():
    source = np.random.default_rng(0)
    fitted = fit(source.normal(size=(20, 64)), ["k"] * 20, source.normal(size=(5, 64)))
    assert np.isfinite(fitted.distance(source.normal(size=(3, 64)))).all()


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        (np.zeros((2, 2)), np.zeros((1, 2)), "too few"),
        (np.zeros((9, 2)), np.zeros((0, 2)), "too few"),
        (np.ones((9, 2)), np.ones((3, 2)), "do not vary"),
    ],
    ids=["an image a kind", "no validation image", "all alike"],
)
def test_too_little_to_fit_is_told(train, validation, message):
    kinds = [str(k % 2) for k in range(len(train))]
    with pytest.raises(InputError, match=message):
        fit(train, kinds, validation)


def test_the_kind_of_an_image_is_its_label_or_what_covers_most_of_it(
    tiny_neu_cls, tiny_neu_det, tiny_neu_seg
):
    assert kind(tiny_neu_cls.samples[0], tiny_neu_cls.labels) == tiny_neu_cls.samples[0].label
    boxed = dataclasses.replace(
        tiny_neu_det.samples[0],
        label=None,
        boxes=(("patches", (0, 0, 9, 9)), ("crazing", (0, 0, 8, 8)), ("crazing", (0, 0, 6, 3))),
    )
    assert kind(boxed, tiny_neu_det.labels) == "crazing"  # 81 px of patches, 64 + 18 of crazing
    assert kind(dataclasses.replace(boxed, boxes=()), tiny_neu_det.labels) == ""
    masked = {kind(s, tiny_neu_seg.labels) for s in tiny_neu_seg.samples}
    assert masked <= set(tiny_neu_seg.labels)
    assert len(masked) > 1


class _Feels(Canned):
    """Says the same of every image, and feels what the test wrote down for it."""

    features: dict[str, np.ndarray]

    def _one(self, image):
        found = super()._one(image)
        source = dataclasses.replace(found.source, features=self.features[image.sha256])
        return dataclasses.replace(found, source=source)


def _ordinary(source):
    return (np.array([1, 0, 0, 0]) + 0.1 * source.normal(size=4)).astype(np.float32)


def _trained(tmp_path, monkeypatch, dataset, features):
    """A release of a classifier on `dataset`: the last image validates, the others train."""
    *train, last = dataset.samples
    parts = [dataclasses.replace(s, splits={"leak-free": "train"}) for s in train]
    parts.append(dataclasses.replace(last, splits={"leak-free": "val"}))
    dataset = dataclasses.replace(dataset, samples=tuple(parts))
    run = make_run(model="mobilesteelnet", dataset_id=dataset.id, labels=dataset.labels)
    write_folder(tmp_path / "r", run=run, task="classify")
    asked = {sample.sha256: np.full(6, 1 / 6) for sample in dataset.samples}
    predictor = _Feels("classify", dataset.labels, asked)
    predictor.features = features
    monkeypatch.setattr(fitting, "load", lambda folder, *, device: predictor)
    return dataset, predictor


def test_a_fitted_release_carries_its_file_and_tells_the_novelty_of_an_answer(
    tmp_path, monkeypatch, tiny_neu_cls
):
    source = np.random.default_rng(0)
    features = {s.sha256: _ordinary(source) for s in tiny_neu_cls.samples}
    dataset, predictor = _trained(tmp_path, monkeypatch, tiny_neu_cls, features)
    before = read_release(tmp_path / "r")
    config = fit_novelty(tmp_path / "r", dataset)
    assert config == read_release(tmp_path / "r")
    assert config.model_copy(update={"novelty": None}) == before
    assert predictor.asked == len(dataset.samples)
    far = novelty_of(answer(np.array([-1, 0, 0, 0], np.float32)), tmp_path / "r", config)
    same = novelty_of(answer(features[dataset.samples[-1].sha256]), tmp_path / "r", config)
    assert (far, same) == (0.5, 0.0)  # beyond the one validation image, and that image itself
    assert novelty_of(answer(None), tmp_path / "r", config) is None
    assert novelty_of(answer(np.zeros(4)), tmp_path / "r", before) is None


def test_a_shelved_release_takes_its_file_along(tmp_path, monkeypatch, tiny_neu_cls):
    source = np.random.default_rng(0)
    features = {s.sha256: _ordinary(source) for s in tiny_neu_cls.samples}
    dataset, _ = _trained(tmp_path, monkeypatch, tiny_neu_cls, features)
    fit_novelty(tmp_path / "r", dataset)
    config = shelve(tmp_path / "r", tmp_path / "shelf", [])
    assert len(read_familiarity(tmp_path / "shelf", config).centres) == 6


def test_a_network_without_features_cannot_be_fitted(tmp_path, monkeypatch, tiny_neu_cls):
    features = {sample.sha256: None for sample in tiny_neu_cls.samples}
    dataset, _ = _trained(tmp_path, monkeypatch, tiny_neu_cls, features)
    with pytest.raises(DatasetError, match="gives no features for 11 of 11 images"):
        fit_novelty(tmp_path / "r", dataset)
    assert not (tmp_path / "r" / NOVELTY_FILE).exists()


def test_another_data_set_than_the_trained_one_is_refused(tmp_path, tiny_neu_cls):
    write_folder(tmp_path / "r")
    with pytest.raises(DatasetError, match=r"was trained on neu-det .*: give neu-det"):
        fit_novelty(tmp_path / "r", tiny_neu_cls)


# --- the file ------------------------------------------------------------------------------------


def _with_file(folder, content: bytes):
    import hashlib

    (folder / NOVELTY_FILE).write_bytes(content)
    side = SideFile(file=NOVELTY_FILE, sha256=hashlib.sha256(content).hexdigest())
    return make_config(novelty=side)


def test_what_is_written_is_read_back(tmp_path):
    read = read_familiarity(tmp_path, _with_file(tmp_path, to_bytes(familiarity(), layer=LAYER)))
    for name in ("whitening", "centres", "ordinary"):
        np.testing.assert_array_equal(getattr(read, name), getattr(familiarity(), name))


def test_a_damaged_missing_or_foreign_file_is_told(tmp_path):
    config = _with_file(tmp_path, to_bytes(familiarity(), layer=LAYER))
    (tmp_path / NOVELTY_FILE).write_bytes(b"tampered")
    with pytest.raises(WeightsError, match="SHA-256"):
        read_familiarity(tmp_path, config)
    (tmp_path / NOVELTY_FILE).unlink()
    with pytest.raises(WeightsNotFoundError):
        read_familiarity(tmp_path, config)
    with pytest.raises(WeightsError, match="no file of"):
        read_familiarity(tmp_path, _with_file(tmp_path, b"something else"))
    with pytest.raises(WeightsError, match="run `python -m active_learning calibrate`"):
        read_familiarity(tmp_path, make_config())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(to_bytes(familiarity(), layer="model.22"), id="another layer"),
        pytest.param(
            save({k: getattr(familiarity(), k) for k in ("whitening", "centres", "ordinary")}),
            id="older than the name",
        ),
    ],
)
def test_features_of_another_layer_have_no_novelty_until_the_release_is_fitted_anew(
    tmp_path, caplog, content
):
    config = _with_file(tmp_path, content)
    for _ in range(2):
        assert novelty_of(answer(np.array([-1, 0], np.float32)), tmp_path, config) is None
    assert [record.message for record in caplog.records if "calibrate it again" in record.message]
    with pytest.raises(WeightsError, match="run `python -m active_learning calibrate`"):
        read_familiarity(tmp_path, config)


@pytest.mark.parametrize("name", ["mobilesteelnet", "sme_deeplabv3plus"])
def test_the_bundled_classifier_and_segmenter_know_what_they_have_seen(name):
    folder = PathSettings().bundled / name
    found = read_familiarity(folder, read_release(folder))  # of the layer that is read today
    assert len(found.ordinary) >= 1 / ALARM


def test_a_file_of_another_network_is_told_and_not_taken_for_a_novelty(tmp_path):
    config = _with_file(tmp_path, to_bytes(familiarity(), layer=LAYER))
    with pytest.raises(WeightsError, match=r"novelty\.safetensors of grace does not fit"):
        novelty_of(answer(np.zeros(3, np.float32)), tmp_path, config)


@pytest.mark.parametrize("name", ["../novelty.safetensors", "/etc/passwd", ".hidden", ""])
def test_a_side_file_is_a_plain_name(name):
    with pytest.raises(ValueError, match="should match pattern"):
        SideFile(file=name, sha256="0")
