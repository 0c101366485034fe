import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from core.errors import ConfigError, HubError
from hub.__main__ import app
from hub.publish import publish
from hub.space import ROOT, live_models, prepare, push
from tests.hub.loopback import settings_for
from tests.records import make_config, write_folder

A = make_config(b"a").revision


@pytest.fixture
def released(settings, tmp_path):
    """The installation, its GRACE published; with the commit."""
    write_folder(settings.paths.bundled / "grace", b"a")
    return settings, publish(settings.paths.bundled / "grace", settings.hub).commit


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "space"


def front_matter(folder):
    return yaml.safe_load((folder / "README.md").read_text().split("---")[1])


def test_the_front_matter_is_what_a_gradio_space_needs_with_every_model_pinned(released, folder):
    settings, commit = released
    prepare(folder, settings, preload=live_models(settings))
    front = front_matter(folder)
    assert (front["sdk"], front["app_file"], front["license"]) == ("gradio", "app.py", "agpl-3.0")
    assert front["python_version"] == "3.12"  # text: 3.10 would read as 3.1
    pins = (ROOT / "requirements.txt").read_text()
    assert f"\ngradio=={front['sdk_version']}\n" in f"\n{pins}"
    assert front["models"] == ["acme/rollmark-grace"]
    assert front["preload_from_hub"] == [
        f"acme/rollmark-grace config.json,model.safetensors {commit}"
    ]
    assert len(front["short_description"]) <= 60
    assert "hf_oauth" not in front


def test_the_checkout_s_own_front_matter_is_that_of_the_space(released, folder):
    """The repository itself may be pushed as a Space, or duplicated as one."""
    settings, _ = released
    prepare(folder, settings)
    own, made = front_matter(ROOT), front_matter(folder)
    assert made == own | {"suggested_hardware": "zero-a10g"}


def test_without_a_namespace_nothing_is_preloaded_and_nothing_asked(hub, tmp_path, folder):
    settings = settings_for(hub, tmp_path, namespace=None)
    assert live_models(settings) == ()
    prepare(folder, settings)
    assert "preload_from_hub" not in front_matter(folder)
    assert (folder / ".env").read_text() == ""
    assert hub.requests == []


def test_reviewers_switch_signing_in_on(released, folder):
    prepare(folder, released[0], reviewers=["anna", "ben-2"])
    assert front_matter(folder)["hf_oauth"] is True
    assert (folder / ".env").read_text() == (
        "ROLLMARK_HUB__NAMESPACE=acme\nROLLMARK_SERVING__REVIEWERS=anna,ben-2\n"
    )
    with pytest.raises(ConfigError, match="is no user of the Hub"):
        prepare(folder, released[0], reviewers=["anna\nROLLMARK_HUB__TOKEN=x"])


def test_all_that_serving_needs_goes_in_and_nothing_of_this_machine(released, folder):
    settings, _ = released
    files = {path.as_posix() for path in prepare(folder, settings)}
    assert {
        *("app.py", "LICENSE", "requirements.txt", "packages.txt", ".env"),
        *("demo/style.css", "core/migrations/env.py", "models/grace.py"),
        "hub/bundled/grace/model.safetensors",
    } <= files
    foreign = ("tests/", "docs/", "data/", "runs/", ".git", "hub/bundled/da_yolo/")
    assert [file for file in files if file.startswith(foreign) or "__pycache__" in file] == []
    everything = b"".join((folder / file).read_bytes() for file in files)
    assert b"hf_write" not in everything
    assert str(settings.paths.data).encode() not in everything


def test_every_requirement_is_pinned_to_one_version(released, folder):
    prepare(folder, released[0])
    lines = (folder / "requirements.txt").read_text().splitlines()
    assert len(lines) > 20
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[^\s=]+", line)] == []
    # A job of the Space writes to a ledger on a server, or nowhere: its disk is gone when it ends.
    assert {"psycopg", "psycopg-binary"} <= {line.partition("==")[0] for line in lines}


def test_the_folder_is_written_anew_and_a_foreign_one_is_left_alone(released, folder, tmp_path):
    prepare(folder, released[0])
    (folder / "demo" / "old.py").write_text("")
    assert Path("demo/old.py") not in prepare(folder, released[0])
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.md").write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty and no Space"):
        prepare(tmp_path / "thesis", released[0])
    assert (tmp_path / "thesis" / "chapter.md").exists()


def test_a_place_that_is_no_folder_is_one_sentence(released, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for place in (tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "space", Path("/proc/space")):
        with pytest.raises(ConfigError, match=r"cannot be written: .*; name another folder\.$"):
            prepare(place, released[0])
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("own", [".git/HEAD", "tests/test_it.py", "data/ledger.db"])
def test_a_checkout_is_not_taken_for_a_space(released, folder, own):
    prepare(folder, released[0])
    (folder / own).parent.mkdir()
    (folder / own).write_text("years of work")
    with pytest.raises(ConfigError, match="is not empty and no Space"):
        prepare(folder, released[0])
    assert (folder / own).read_text() == "years of work"


def test_a_prepared_folder_serves_on_its_own(released, folder):
    prepare(folder, released[0], reviewers=["anna"])
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ROLLMARK_", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", _SERVE],
        cwd=folder,
        env={**env, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"{folder} ['grace'] acme"


_SERVE = """
import pathlib, sys
import core
from core.settings import load_settings
from demo.service import Service
from demo.ui import build
settings = load_settings()
service = Service(settings)
build(settings, service=service)
root = pathlib.Path(core.__file__).parents[1]
print(root, [model.name for model in service.models()], settings.hub.namespace)
"""


def test_pushing_makes_the_space_hold_exactly_the_folder_in_one_commit(hub, released, folder):
    settings, _ = released
    files = prepare(folder, settings)
    commit = push(folder, "acme/rollmark", settings, private=True)
    space = hub.repo("acme/rollmark", "spaces")
    assert space.head.oid == commit
    assert (space.settings["sdk"], space.private) == ("gradio", True)
    assert set(space.head.files) == {".gitattributes", *(file.as_posix() for file in files)}
    assert space.head.files["app.py"] == (ROOT / "app.py").read_bytes()
    (folder / "demo" / "draw.py").unlink()
    push(folder, "acme/rollmark", settings)
    assert "demo/draw.py" not in space.head.files
    assert len(space.commits) == 3


def test_a_bucket_is_mounted_where_the_space_keeps_its_data(hub, released, folder):
    settings, _ = released
    prepare(folder, settings, keeps=True)
    assert "ROLLMARK_PATHS__KEEP=/data\n" in (folder / ".env").read_text()
    push(folder, "acme/rollmark", settings, bucket="acme/mill-data")
    assert hub.repo("acme/rollmark", "spaces").settings["volumes"] == [
        {"type": "bucket", "source": "acme/mill-data", "mountPath": "/data"}
    ]


def test_a_token_that_may_create_nothing_pushes_into_a_space_that_is_there(hub, released, folder):
    settings, _ = released
    prepare(folder, settings)
    push(folder, "acme/rollmark", settings)
    hub.fault("POST", "/api/repos/create", times=99, status=403)
    (folder / "LICENSE").write_text("changed")
    push(folder, "acme/rollmark", settings)
    assert hub.repo("acme/rollmark", "spaces").head.files["LICENSE"] == b"changed"


def test_a_push_that_loses_a_race_is_made_anew(hub, released, folder):
    settings, _ = released
    prepare(folder, settings)
    push(folder, "acme/rollmark", settings)
    hub.fault("POST", "/commit/", status=412)
    (folder / "LICENSE").write_text("changed")
    push(folder, "acme/rollmark", settings)
    assert hub.repo("acme/rollmark", "spaces").head.files["LICENSE"] == b"changed"


def test_a_token_that_may_not_write_is_one_sentence(hub, released, folder, tmp_path):
    prepare(folder, released[0])
    reader = settings_for(hub, tmp_path / "r", token="hf_read")
    with pytest.raises(HubError, match="Cannot create the Space acme/rollmark: the token"):
        push(folder, "acme/rollmark", reader)


@pytest.mark.parametrize(
    ("space", "bucket", "told"),
    [("mill", None, "The Space is 'mill'"), ("acme/mill", "data", "The bucket is 'data'")],
)
def test_half_a_name_is_refused_before_anything_is_made(hub, released, folder, space, bucket, told):
    prepare(folder, released[0])
    with pytest.raises(ConfigError, match=f"{told}; NAMESPACE/NAME is needed"):
        push(folder, space, released[0], bucket=bucket)
    assert not [name for kind, name in hub.repos if kind == "spaces"]


def test_the_command_prepares_and_pushes(hub, released, folder, monkeypatch, tmp_path):
    settings, _ = released
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLLMARK_PATHS__BUNDLED", str(settings.paths.bundled))
    monkeypatch.setenv("ROLLMARK_HUB__NAMESPACE", "acme")
    monkeypatch.setenv("ROLLMARK_HUB__TOKEN", "hf_write")
    monkeypatch.setenv("ROLLMARK_HUB__ENDPOINT", hub.endpoint)
    runner, options = CliRunner(), ["--output", str(folder), "--reviewer", "anna"]
    assert runner.invoke(app, ["space", "--push"]).exit_code == 2
    done = runner.invoke(app, ["space", *options, "--name", "acme/rollmark", "--push"])
    assert done.exit_code == 0, done.output
    assert f"in {folder}, 1 models preloaded" in done.output
    assert front_matter(folder)["hf_oauth"] is True
    assert "acme/rollmark: commit " in done.output
