"""The speed benchmark: fair turns, whole pages, and rivals that are named when they fail."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.errors import ConfigError, DatasetError
from core.settings import PathSettings
from models import get_spec
from tests.demo import releases
from tests.training.synthetic import draw_dataset
from training.__main__ import app
from training.benchmark import speed, speed_app, speed_contenders
from training.benchmark.speed import served_names, take_turns, use_cpus
from training.benchmark.speed_aims import PLAIN_TORCH, Aim, aims
from training.benchmark.speed_contenders import OURS_IN_TORCH, Contender, Subject, contenders
from training.benchmark.speed_page import render, write_page
from training.benchmark.speed_records import (
    AppSpeed,
    Clients,
    Growth,
    Parity,
    ParityRecord,
    SpeedRecord,
    SubjectSpeed,
    Timing,
    read_speed,
    save,
)
from training.datasets import write_index

PICTURE = releases.PICTURE.read_bytes()
NOW = datetime(2026, 11, 21, tzinfo=UTC)


def _timing(contender: str, p50: float, rate: float | None) -> Timing:
    return Timing(
        contender=contender, n=100, p50_ms=p50, p95_ms=2 * p50, p99_ms=3 * p50, images_per_s=rate
    )


SPEED = SpeedRecord(
    machine="Abacus, 2 threads",
    cpus=2,
    precision="bf16",
    versions={"torch": "2.11.0"},
    git_commit="0123456789abcdef",
    measured_at=NOW,
    quick=False,
    images="16 pictures, the first 200 px wide",
    subjects=(
        SubjectSpeed(
            model="grace",
            scale="n",
            task="detect",
            image_size=640,
            weights="abc",
            timings=(_timing("Rollmark", 20.0, 80.0), _timing("ultralytics predict", 110.0, 16.0)),
            missing={"onnxruntime": "RuntimeError: no such operator"},
        ),
    ),
    growth=(Growth(model="grace", width=2000, height=1000, tiles=8, n=10, p50_ms=300.0),),
    app=AppSpeed(
        model="grace",
        first_answer_s=9.5,
        first_answer_again_s=7.25,
        models_loaded=5,
        resident_mb=1234,
        all_models_s=0.31,
        clients=(
            Clients(
                clients=1,
                requests=60,
                errors=0,
                p50_ms=23,
                p95_ms=30,
                requests_per_s=43,
                overhead_ms=3.2,
            ),
            Clients(clients=16, requests=64, errors=0, p50_ms=90, p95_ms=130, requests_per_s=170),
        ),
        gradio_clients=(
            Clients(clients=4, requests=8, errors=1, p50_ms=300, p95_ms=400, requests_per_s=12),
        ),
    ),
)
PARITY = ParityRecord(
    machine="Abacus",
    measured_at=NOW,
    rows=(
        Parity(
            model="grace",
            revision="abc",
            dataset="neu-det",
            protocol="leak-free",
            metric="mAP50_95",
            n=275,
            values={"torch": 0.4, "OpenVINO bf16": 0.401, "OpenVINO int8": 0.38},
        ),
    ),
)


def test_ratios_say_how_many_times_faster_rollmark_is() -> None:
    page = render(SPEED, None)
    # 110 / 20 = 5.5 in latency, 80 / 16 = 5 in throughput.
    assert "| ultralytics predict | 110.0 | 220.0 | 330.0 | 100 | 5.50 | 16.0 | 5.00 |" in page
    assert "| Rollmark | 20.0 | 40.0 | 60.0 | 100 | – | 80.0 | – |" in page
    assert "Not measured: onnxruntime (RuntimeError: no such operator)." in page


def test_the_page_says_where_and_on_what_it_was_measured() -> None:
    page = render(SPEED, None)
    assert "Measured 2026-11-21 on Abacus, 2 threads; everyone may use 2 CPUs" in page
    assert "OpenVINO in bf16; torch 2.11.0; commit 0123456789ab." in page
    assert "trial run" not in page
    assert "trial run" in render(SPEED.model_copy(update={"quick": True}), None)


def test_larger_pictures_are_also_told_per_megapixel() -> None:
    # 300 ms for 2000 × 1000 px = 2 megapixels.
    assert "| 2000 × 1000 | 8 tiles | 300.0 | 150 | 10 |" in render(SPEED, None)


def test_the_app_s_figures_name_memory_start_and_errors() -> None:
    page = render(SPEED, None)
    assert "first answer 9.5 s, with exports in the cache 7.2 s" in page
    assert "All 5 models in memory: 1234 MB." in page
    assert "| 1 client | 23 | 30 | 3.2 | 43.0 | 60 | 0 |" in page
    assert "| 16 clients | 90 | 130 | – | 170.0 | 64 | 0 |" in page
    assert "| 4 clients | 300 | 400 | – | 12.0 | 8 | 1 |" in page


def test_callers_of_whom_nobody_got_an_answer_are_told_and_spoil_no_record(tmp_path: Path) -> None:
    def make() -> Callable[[], float]:
        answers = iter([3.0])  # one, to begin with

        def ask() -> float:
            for answer in answers:
                return answer
            raise ConnectionError("it is full")

        return ask

    first = speed_app._ask_from(make, 1, 2, 60.0)
    assert SPEED.app is not None
    app = SPEED.app.model_copy(update={"clients": (first,)})
    save(SPEED.model_copy(update={"app": app}), tmp_path / "speed.json")
    page = write_page(tmp_path).read_text()
    assert "| 1 client | – | – | – | 0.0 | 2 | 2 |" in page
    assert "First error with 1 client: ConnectionError: it is full" in page


def test_a_machine_that_was_not_left_alone_is_named() -> None:
    busy = SPEED.model_copy(update={"load": (7.5, 9.0)})
    assert "**Not alone on the machine:** 7.5 processes wanted a CPU" in render(busy, None)
    alone = SPEED.model_copy(update={"load": (0.2, 4.0)})
    assert "In the minute before, 0.2 processes wanted a CPU." in render(alone, None)


def _subject(model: str, scale: str, size: int, *timings: Timing) -> SubjectSpeed:
    return SubjectSpeed(
        model=model,
        scale=scale,
        task=get_spec(model).task,
        image_size=size,
        weights="random",
        timings=timings,
    )


def test_the_worst_network_decides_whether_an_aim_is_reached() -> None:
    rival = "ultralytics, its OpenVINO export"
    measured = SPEED.model_copy(
        update={
            "subjects": (
                _subject("grace", "s", 640, _timing("Rollmark", 20, 60), _timing(rival, 30, 40)),
                _subject("yolo11", "n", 640, _timing("Rollmark", 10, 90), _timing(rival, 9, 60)),
                _subject("grace", "n", 320, _timing("Rollmark", 10, 90), _timing(rival, 1, 900)),
                _subject("mobilesteelnet", "any", 64, _timing("Rollmark", 4, 9)),
            )
        }
    )
    assert list(aims(measured)) == [
        Aim("detectors at 640 px, faster than ultralytics predict", "≥ 5.0 ×"),
        Aim(  # 9 / 10 and 30 / 20
            "detectors at 640 px, beside ultralytics' OpenVINO export",
            "≥ 1.0 ×",
            "0.90 × (yolo11 n) to 1.50 ×",
            False,
        ),
        Aim(  # 60 / 40 and 90 / 60
            "detectors at 640 px, throughput beside ultralytics' OpenVINO export",
            "≥ 1.3 ×",
            "1.50 × (grace s) to 1.50 ×",
            True,
        ),
        Aim("GRACE of scale s at 640 px, one picture", "≤ 25 ms", "20 ms", True),
        Aim("segmenter and classifier, beside plain torch", "≥ 3.0 ×"),
        Aim("all models about one picture", "≤ 0.4 s", "0.31 s", True),
        Aim("what HTTP adds to an answer", "≤ 30 ms", "3.2 ms", True),
        Aim(
            "16 clients: requests/s, errors",
            "not below 1 client, none",
            "170.0 to 43.0, 0 of 64",
            True,
        ),
        Aim("from start to first answer", "≤ 15 s", "9.5 s", True),
        Aim("all models in memory", "≤ 2500 MB", "1234 MB", True),
    ]


def test_what_was_not_measured_is_neither_reached_nor_missed() -> None:
    nothing = SPEED.model_copy(update={"subjects": (), "app": None})
    assert {(aim.measured, aim.is_reached) for aim in aims(nothing)} == {("not measured", None)}
    assert "| all models in memory | ≤ 2500 MB | not measured | – |" in render(nothing, None)


def test_accuracies_stand_beside_torch_s_with_their_difference_in_points() -> None:
    page = render(None, PARITY)
    assert "| model | data | metric | n | torch | OpenVINO bf16 | OpenVINO int8 |" in page
    assert (
        "| `grace` abc | neu-det leak-free val | mAP50_95 | 275 | 40.00 | 40.10 (+0.10) "
        "| 38.00 (-2.00) |" in page
    )


def test_a_page_without_records_says_so() -> None:
    assert "Nothing has been measured yet." in render(None, None)


def test_page_and_plot_are_printed_from_the_record(tmp_path: Path) -> None:
    save(SPEED, tmp_path / "speed.json")
    assert read_speed(tmp_path) == SPEED
    assert write_page(tmp_path).read_text() == render(SPEED, None)
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")


def test_a_damaged_record_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "speed.json").write_text("{}")
    with pytest.raises(DatasetError, match="is damaged; measure again"):
        read_speed(tmp_path)


def test_contenders_take_turns_and_each_begins_as_often() -> None:
    asked: list[str] = []

    def contender(name: str) -> Contender:
        def ask(encoded: Sequence[bytes]) -> list[dict[str, object]]:
            asked.append(f"{name}{encoded[0].decode()}")
            return [{}]

        return Contender(name, ask, lambda _: 0)

    took = take_turns([contender("a"), contender("b")], [b"1", b"2"], rounds=3)
    assert [len(samples) for samples in took.values()] == [3, 3]
    assert asked[:6] == ["a1", "a2", "a1", "b1", "b2", "b1"]  # warming up
    assert asked[6:] == ["a1", "b1", "b2", "a2", "a1", "b1"]


def test_nobody_begins_a_round_after_the_patience_is_spent() -> None:
    asked = 0

    def ask(encoded: Sequence[bytes]) -> list[dict[str, object]]:
        nonlocal asked
        asked += 1
        return [{}]

    took = take_turns([Contender("a", ask, lambda _: 0)], [b"1"], rounds=50, patience_s=0)
    assert len(took["a"]) == 10  # as many as there are always
    assert asked == 3 + 10  # of which three were to warm up


def test_a_rival_that_is_not_installed_does_not_cost_the_record_that_was_measured() -> None:
    found = speed._versions(("numpy", "no-such-rival"))
    assert list(found) == ["numpy"]


def test_more_cpus_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"100000 CPUs were asked for; this process may use \d+"):
        use_cpus(100_000)


def test_only_models_with_a_release_are_measured(tmp_path: Path) -> None:
    releases.describe(tmp_path / "bundled" / "grace", "grace", task="detect")
    paths = PathSettings(bundled=tmp_path / "bundled", data=tmp_path / "data")
    assert served_names(paths) == ("grace",)


def test_the_same_network_answers_the_same_for_everyone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = get_spec("mobilenet_v1").build(2, get_spec("mobilenet_v1").default_scale)
    subject = Subject("mobilenet_v1", "any", 64, ("a", "b"), "none", "random", lambda: network)
    ready, missing = contenders(subject, tmp_path, only=(OURS_IN_TORCH, PLAIN_TORCH))
    assert missing == {}
    [ours], [plain] = (contender.ask([PICTURE]) for contender in ready)
    assert ours["probabilities"] == pytest.approx(plain["probabilities"], abs=1e-4)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(17):
        (folder / f"{number}.jpg").write_bytes(PICTURE)
    assert [contender.sweep(folder) for contender in ready] == [17, 17]

    def broken(subject: Subject) -> None:
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setattr(speed_contenders, "_plain", broken)
    ready, missing = contenders(subject, tmp_path, only=(PLAIN_TORCH,))
    assert ready == []
    assert missing == {PLAIN_TORCH: "RuntimeError: no such operator"}


@pytest.mark.parametrize(
    ("listens", "code"), [(True, -signal.SIGTERM), (False, -signal.SIGKILL)], ids=["asked", "made"]
)
def test_nothing_is_left_of_an_app_that_does_not_end_when_it_is_asked_to(
    monkeypatch: pytest.MonkeyPatch, listens: bool, code: int
) -> None:
    script = "import sys; print('up', flush=True); sys.stdin.read()"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    monkeypatch.setattr(speed_app, "STOP_S", 60 if listens else 0.05)
    command = [sys.executable, "-c", script if listens else deaf + script]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        speed_app._stop(process)
        assert process.returncode == code


@pytest.mark.usefixtures("logging_as_before")
def test_a_set_without_validation_pictures_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data" / "datasets" / "drawn"
    write_index(draw_dataset(root, "classify", parts=("train",) * 3), {})
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path / "data"))
    done = CliRunner().invoke(app, ["benchmark", "speed", "--data", "drawn"])
    assert done.exit_code == 1
    assert "drawn has no validation images to time anyone with." in done.stderr
