from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from click.testing import Result
from typer.testing import CliRunner

from training.__main__ import app
from training._cli import errors_on_one_line
from training.datasets import Dataset

FIXTURES = Path(__file__).parents[1] / "fixtures"


def call(*arguments: object, **settings: str) -> Result:
    return CliRunner(env=settings).invoke(app, [str(argument) for argument in arguments])


def assert_one_line(result: Result, *, says: str) -> None:
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    assert says in result.stderr
    assert "Traceback" not in result.output


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_x_sdd: Dataset) -> Path:
    """A place of its own for data and runs, with x-sdd prepared."""
    monkeypatch.setenv("ROLLMARK_PATHS__DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ROLLMARK_PATHS__RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("ROLLMARK_PATHS__BUNDLED", str(tmp_path / "bundled"))
    shutil.copytree(tiny_x_sdd.root, tmp_path / "data" / "datasets" / "x-sdd")
    return tmp_path


def train_small(*more: object) -> Result:
    small = ["--image-size", 32, "--batch", 8, "--device", "cpu", "--set", "lr0=0.01"]
    return call("train", "mobilenet_v1", "--data", "x-sdd", "--epochs", 1, *small, *more)


def test_help_of_every_command_loads_no_torch() -> None:
    script = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from training.__main__ import app\n"
        "for command in ('prepare', 'train', 'evaluate', 'predict'):\n"
        "    assert CliRunner().invoke(app, [command, '--help']).exit_code == 0\n"
        "print(sorted({'torch', 'numpy', 'ultralytics'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_prepare_train_evaluate_predict_from_the_command_line(home: Path) -> None:
    prepared = call("prepare", "neu-cls", "--source", FIXTURES / "neu-det")
    assert prepared.exit_code == 0, prepared.output
    assert (home / "data" / "datasets" / "neu-cls" / "dataset.json").is_file()

    trained = train_small("--run-id", "first", "--seed", 3)
    assert trained.exit_code == 0, trained.output
    run = home / "runs" / "first"
    assert trained.stdout.split() == [str(run)]
    record = json.loads((run / "run.json").read_text())
    assert (record["seed"], record["recipe"]["lr0"]) == (3, 0.01)

    weights = run / "release" / "model.safetensors"
    common = ["--weights", weights, "--device", "cpu"]
    measured = call(
        *["evaluate", "mobilenet_v1", "--data", "x-sdd", "--split", "all", *common],
        *["--json", home / "e.json", "--resamples", 50],
    )
    assert measured.exit_code == 0, measured.output
    evaluation = json.loads((home / "e.json").read_text())
    assert evaluation["protocol"] == "leak-free"
    assert evaluation["metrics"][0]["n"] == 21
    assert "accuracy" in measured.stdout
    learned = evaluation["settings"]["learned_images"]
    assert 0 < learned < 21
    says = f"mobilenet_v1 has learned from {learned} of the 21 all images of x-sdd leak-free"
    assert says in measured.stderr
    fresh = call(
        *["evaluate", "mobilenet_v1", "--data", "x-sdd", "--split", "test", *common],
        *["--json", home / "e.json", "--resamples", 0],
    )
    assert "has learned" not in fresh.stderr
    assert json.loads((home / "e.json").read_text())["settings"]["learned_images"] == 0
    begun = train_small("--weights", weights, "--protocol", "paper")
    assert_one_line(begun, says="begin from another release")

    images = home / "data" / "datasets" / "x-sdd" / "images"
    common = ["--images", images, "--output", home / "out", *common]
    predicted = call("predict", "mobilenet_v1", *common)
    assert predicted.exit_code == 0, predicted.output
    assert predicted.stdout == f"21 images looked at: {home / 'out' / 'predictions.json'}\n"
    assert len(json.loads((home / "out" / "predictions.json").read_text())["images"]) == 21
    (images / "broken.png").write_bytes(b"not an image")
    assert_one_line(
        call("predict", "mobilenet_v1", *common), says="1 of 22 images could not be read"
    )

    # The caps of the app are those of the commands.
    tight = {"ROLLMARK_SERVING__MAX_MEGAPIXELS": "0.001"}
    refused = call("prepare", "neu-cls", "--source", FIXTURES / "neu-det", **tight)
    assert_one_line(refused, says="holds no usable image of neu-cls")
    capped = call("predict", "mobilenet_v1", *common, **tight)
    assert_one_line(capped, says="22 of 22 images could not be read")

    # What is bundled is what evaluate and predict use by themselves.
    shutil.copytree(run / "release", home / "bundled" / "mobilenet_v1")
    served = call("predict", "mobilenet_v1", "--images", images, "--output", home / "out2")
    assert "1 of 22 images could not be read" in served.stderr
    first, second = (
        json.loads((home / o / "predictions.json").read_text()) for o in ("out", "out2")
    )
    assert first["revision"] == second["revision"] == record["weights_sha256"][:12]

    # The run is finished: going on with it changes nothing, and its name is taken.
    again = call("train", "mobilenet_v1", "--resume", "first", "--device", "cpu")
    assert again.exit_code == 0, again.output
    assert again.stderr == "Run first is finished: nothing is left to do.\n"
    assert json.loads((run / "run.json").read_text()) == record
    assert_one_line(train_small("--run-id", "first"), says="already holds a run")
    wrong = call("train", "resnet50", "--resume", "first")
    assert_one_line(wrong, says="trains mobilenet_v1, not resnet50")
    other = call("evaluate", "resnet50", "--data", "x-sdd", "--weights", weights)
    assert_one_line(other, says="holds weights of mobilenet_v1, not of resnet50")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(
            ["evaluate", "yolo", "--data", "x-sdd"], "Unknown model 'yolo'", id="unknown model"
        ),
        pytest.param(
            ["quantise", "grce", "--data", "x-sdd"], "Unknown model 'grce'", id="to quantise"
        ),
        pytest.param(
            ["evaluate", "mobilenet_v1", "--data", "gc10-det"], "not prepared", id="not prepared"
        ),
        pytest.param(
            ["evaluate", "mobilenet_v1", "--data", "x-sdd"], "No weights for", id="none served"
        ),
        pytest.param(
            ["predict", "mobilenet_v1", "--images", ".", "--output", "o", "--weights", "nowhere"],
            "No weights at nowhere",
            id="weights are not there",
        ),
        pytest.param(
            ["train", "mobilenet_v1", "--resume", "nothing"], "No run 'nothing'", id="no such run"
        ),
        pytest.param(
            ["train", "mobilenet_v1", "--data", "x-sdd", "--device", "cuda:99"],
            "Device 'cuda:99' is not here",
            id="no such device",
        ),
        pytest.param(
            ["train", "mobilenet_v1", "--data", "x-sdd", "--scale", "xxl"],
            "Unknown scale 'xxl'",
            id="no such scale",
        ),
        pytest.param(
            ["train", "mobilenet_v1", "--data", "x-sdd", "--run-id", "../up"],
            "Run name '../up' cannot be",
            id="run name that leaves the folder",
        ),
        pytest.param(
            ["train", "mobilenet_v1", "--data", "x-sdd", "--set", "mosaic=1"],
            "no training option 'mosaic'",
            id="unknown setting",
        ),
        pytest.param(["prepare", "neu-xyz", "--source", "."], "neu-xyz", id="unknown data set"),
    ],
)
@pytest.mark.usefixtures("home")
def test_our_errors_are_one_line_and_exit_code_1(arguments: list[str], says: str) -> None:
    assert_one_line(call(*arguments), says=says)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["train", "grace"], id="neither data nor run"),
        pytest.param(["train", "grace", "--data", "neu-det", "--resume", "x"], id="both"),
        pytest.param(["train", "grace", "--resume", "x", "--epochs", "9"], id="other than begun"),
        pytest.param(["train", "grace", "--resume", "x", "--seed", "0"], id="seed of a begun run"),
        pytest.param(
            ["train", "grace", "--resume", "x", "--protocol", "leak-free"],
            id="protocol of a begun run",
        ),
        pytest.param(
            ["train", "grace", "--data", "neu-det", "--seed", "4294967296"],
            id="seed beyond 32 bits",
        ),
        pytest.param(["prepare", "neu-det", "--source", ".", "--seed", "-1"], id="seed below 0"),
        pytest.param(
            ["train", "grace", "--data", "neu-det", "--weights", "a", "--init", "b"],
            id="two kinds of first weights",
        ),
        pytest.param(["train", "grace", "--data", "neu-det", "--epochs", "0"], id="no epoch"),
        pytest.param(["train", "grace", "--data", "neu-det", "--set", "lr0"], id="no value"),
        pytest.param(
            ["predict", "grace", "--images", ".", "--output", "o", "--score-threshold", "2"],
            id="threshold above 1",
        ),
        pytest.param(["evaluate", "grace"], id="no data"),
        pytest.param(["evaluate", "grace", "--protocol", "own"], id="unknown protocol"),
        pytest.param(["fly"], id="unknown command"),
    ],
)
def test_wrong_usage_is_exit_code_2(arguments: list[str]) -> None:
    assert call(*arguments).exit_code == 2


def test_a_place_that_cannot_be_written_is_one_line_below_what_was_measured(home: Path) -> None:
    (home / "file").write_text("in the way")
    taken = home / "file" / "x.json"  # one cannot look below a file, not even as root
    told = call("statistics", "x-sdd", "--json", taken)
    assert_one_line(told, says=f"{home / 'file'} cannot be used: File exists; make room, or")
    assert "worth" in told.stdout


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ECONNREFUSED])
def test_an_error_that_may_be_a_bug_keeps_its_traceback(number: int) -> None:
    with pytest.raises(OSError, match="unforeseen"), errors_on_one_line():
        raise OSError(number, "unforeseen", "a file")


def test_a_full_disk_is_one_line_also_where_no_file_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit), errors_on_one_line():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert capsys.readouterr().err == (
        "Nothing can be written: No space left on device; make room, or name another place.\n"
    )


@pytest.mark.usefixtures("home")
def test_a_misspelt_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLLMARK_PATHS__RUN", "/tmp")
    assert_one_line(call("evaluate", "grace", "--data", "x-sdd"), says="ROLLMARK_PATHS__RUNS")
