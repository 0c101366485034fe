"""An archive over a cluster of two nodes, on this machine, with real Ray."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import nn

from core.errors import InputError, TrainingError
from core.images import ImageLimits
from core.types import Predictor
from models import get_spec
from models._flips import Flipped
from models._predictors import make_predictor
from tests.training.slow_eye import SlowEye
from training.predict import predict_folder
from training.predictions import PREDICTIONS_FILE
from training.ray_predict import JOB_FILE, SHARDS, job_of, predict_archive

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_raylet_start_wait_time_s"] = "120"  # noqa: SIM112  as Ray spells it
import ray

pytestmark = [
    # Ray's own start leaves sockets and log files to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
]


def test_a_job_is_another_when_anything_is_that_its_answers_depend_on() -> None:
    """Thresholds and size are fitted anew without another revision, which names weights alone."""

    def job(
        *, size: int = 64, threshold: float = 0.25, flips: bool = False, side: int = 20_000
    ) -> dict[str, Any]:
        segmenter = make_predictor(
            get_spec("sme_deeplabv3plus"),
            nn.Identity(),
            labels=("patches",),
            image_size=size,
            revision="r1",
            class_thresholds={"patches": threshold},
        )
        limits = ImageLimits(max_side_px=side)
        return job_of(Flipped(segmenter) if flips else segmenter, 0.001, limits)

    jobs = [
        job(),
        job(size=96),
        job(threshold=0.3),
        job(flips=True),
        job(threshold=0.3, flips=True),
        job(side=10_000),
        job(side=10_000, flips=True),
    ]
    assert job() == jobs[0]
    assert all(jobs[a] != jobs[b] for a in range(7) for b in range(a))
    assert json.loads(json.dumps(jobs)) == jobs  # as it is kept beside the shards


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Two nodes of one CPU each."""
    from ray.cluster_utils import Cluster

    root = Path(__file__).resolve().parents[2]
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    nodes.add_node(num_cpus=1)
    nodes.wait_for_nodes()
    ray.init(
        address=nodes.address,
        runtime_env={"env_vars": {"PYTHONPATH": str(root)}},
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        yield
    finally:
        ray.shutdown()
        nodes.shutdown()


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """40 grey images of 4 x 4 px, brightness 0 to 195 in steps of 5; number 7 is damaged."""
    folder = tmp_path / "archive"
    folder.mkdir()
    for index in range(40):
        pixels = np.full((4, 4), 5 * index, np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:02}.png")
    (folder / "07.png").write_bytes(b"no image")
    return folder


def until(condition: Callable[[], bool], *, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.02)


def read(output: Path) -> Any:
    return json.loads((output / PREDICTIONS_FILE).read_text())


def test_with_a_worker_killed_half_way_every_image_is_answered_exactly_once(
    cluster: None, archive: Path, tmp_path: Path
) -> None:
    diary, output = tmp_path / "diary", tmp_path / "out"
    eye = partial(SlowEye, diary, 0.15)
    victims: list[int] = []

    def kill_one() -> None:
        until(lambda: len(list((output / SHARDS).glob("*.json"))) >= 6)  # 5 of 20, and job.json
        victims.append(int(diary.read_text().splitlines()[-1].split()[0]))
        os.kill(victims[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert predict_archive(eye, archive, output, block=2) == (40, 1)  # image 07
    killer.join()

    workers = {int(line.split()[0]) for line in diary.read_text().splitlines()}
    assert workers - set(victims)  # somebody else went on
    assert predict_folder(SlowEye(tmp_path / "alone", 0), archive, tmp_path / "local") == (40, 1)
    assert read(output) == read(tmp_path / "local")  # 40 entries, each once, in the same order
    assert len(read(output)["images"]) == 40


def test_a_job_started_again_does_only_what_is_missing(
    cluster: None, archive: Path, tmp_path: Path
) -> None:
    diary, output = tmp_path / "diary", tmp_path / "out"
    eye = partial(SlowEye, diary, 0)
    assert predict_archive(eye, archive, output, block=10) == (40, 1)
    whole = read(output)
    shards = sorted(f for f in (output / SHARDS).glob("*.json") if f.name != JOB_FILE)
    assert len(shards) == 4
    shards[0].unlink()
    (output / PREDICTIONS_FILE).unlink()
    diary.unlink()
    assert predict_archive(eye, archive, output, block=10) == (40, 1)
    assert read(output) == whole
    seen = [int(line.split()[1]) for line in diary.read_text().splitlines()]
    assert seen in ([10], [9])  # one block; nine readable images if it is the damaged one's


def test_a_link_that_leads_nowhere_is_told_as_without_a_cluster(
    cluster: None, archive: Path, tmp_path: Path
) -> None:
    (archive / "40.png").symlink_to(tmp_path / "gone.png")
    eye = partial(SlowEye, tmp_path / "diary", 0)
    assert predict_archive(eye, archive, tmp_path / "out", block=20) == (41, 2)  # 07 and the link
    assert predict_folder(eye(), archive, tmp_path / "local") == (41, 2)
    assert read(tmp_path / "out") == read(tmp_path / "local")
    last = read(tmp_path / "out")["images"][-1]
    assert last == {
        "file": "40.png",
        "error": "'40.png' cannot be opened: it is not there; an image file is.",
    }


@pytest.mark.parametrize(
    ("revision", "tta"),
    [
        pytest.param("older", False, id="of other weights"),
        pytest.param(
            "slow-eye", True, id="of the same weights, which did not look at mirrored ones"
        ),
    ],
)
def test_shards_of_another_job_are_not_mixed_in(
    revision: str, tta: bool, archive: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    job = job_of(SlowEye(tmp_path / "diary", 0), 0.001) | {"revision": revision}
    (output / SHARDS).mkdir(parents=True)
    (output / SHARDS / JOB_FILE).write_text(json.dumps(job))

    def make() -> Predictor:
        eye = SlowEye(tmp_path / "diary", 0)
        return Flipped(eye) if tta else eye

    with pytest.raises(InputError, match="holds the shards of another job"):
        predict_archive(make, archive, output)
    assert not (tmp_path / "diary").exists()


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("10.0.0.1:6379", r"^No Ray cluster answers at 10\.0\.0\.1:6379: no answer\.$"),
        (None, r"^Ray does not start here: no answer\.$"),
    ],
)
def test_it_is_told_which_ray_does_not_answer(
    address: str | None, says: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("no answer")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(TrainingError, match=says):
        predict_archive(
            partial(SlowEye, tmp_path / "diary", 0), archive, tmp_path / "out", address=address
        )
