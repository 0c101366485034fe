"""Networks on a lent GPU, with a stand-in for `spaces` that pickles as the real one does."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from core.errors import WeightsError
from core.images import decode
from core.settings import PathSettings, ServingSettings, Settings
from demo import gpu
from demo.service import Service
from models import load
from tests.demo import releases


@pytest.fixture
def spaces(monkeypatch):
    """A ZeroGPU Space whose other process is this one; the durations that were asked for."""
    asked = []

    def mark(*, duration):
        asked.append(duration)

        def marked(function):
            def elsewhere(*arguments):
                sent = pickle.loads(pickle.dumps(arguments))
                return pickle.loads(pickle.dumps(function(*sent)))

            return elsewhere

        return marked

    monkeypatch.setitem(sys.modules, "spaces", SimpleNamespace(GPU=mark))
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    monkeypatch.setattr(gpu, "_DEVICE", "cpu")
    monkeypatch.setattr(gpu, "_networks", {})
    gpu._marked.cache_clear()
    yield asked
    gpu._marked.cache_clear()


def test_a_lent_gpu_gives_the_networks_own_answer(spaces, tmp_path):
    releases.write(tmp_path / "grace", "grace")
    image = decode(releases.PICTURE)
    lent, own = gpu.Lent(tmp_path / "grace"), load(tmp_path / "grace")
    assert (lent.spec, lent.revision, lent.labels) == (own.spec, own.revision, own.labels)
    [there] = lent([image], score_threshold=0.1)
    [here] = own([image], score_threshold=0.1)
    assert len(here.scores) > 0
    np.testing.assert_array_equal(there.xyxy, here.xyxy)


def test_a_release_put_into_the_same_folder_is_not_answered_for_by_the_one_before(spaces, tmp_path):
    image = decode(releases.PICTURE)
    releases.write(tmp_path, "grace", seed=1)
    before = gpu.Lent(tmp_path)
    [old] = before([image], score_threshold=0.0)
    releases.write(tmp_path, "grace", seed=2)
    after = gpu.Lent(tmp_path)
    [new] = after([image], score_threshold=0.0)
    [expected] = load(tmp_path)([image], score_threshold=0.0)
    assert before.revision != after.revision
    np.testing.assert_array_equal(new.scores, expected.scores)
    assert not np.array_equal(new.scores, old.scores)
    with pytest.raises(WeightsError, match="grace has been replaced meanwhile; ask again"):
        before([image], score_threshold=0.0)


def test_what_needs_a_gpu_is_marked_at_the_start_once_and_for_a_short_time(spaces):
    gpu.prepare()
    gpu.prepare()
    assert spaces == [15]


def test_elsewhere_nothing_is_marked(spaces, monkeypatch):
    monkeypatch.delenv("SPACES_ZERO_GPU")
    gpu.prepare()
    assert spaces == []
    assert not gpu.is_lent()


def test_the_app_serves_from_the_lent_gpu(spaces, tmp_path):
    paths = PathSettings(data=tmp_path / "data", bundled=tmp_path / "bundled")
    releases.write(paths.bundled / "grace", "grace")
    service = Service(Settings(_env_file=None, paths=paths, serving=ServingSettings()))
    inspection = service.inspect(releases.PICTURE.read_bytes()).inspection
    assert inspection.detections
    assert spaces == [15]
    assert list(gpu._networks) == ["grace"]
