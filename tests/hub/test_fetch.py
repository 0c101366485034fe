import json
import logging
import shutil
import threading
from datetime import timedelta

import numpy as np
import pytest
from pydantic import SecretStr

from core.errors import ConfigError
from core.images import decode
from core.records import SideFile
from core.settings import PathSettings, Settings
from hub import fetch
from hub.fetch import refresh, watch
from hub.publish import publish, withdraw
from hub.registry import resolve, resolve_all, switches
from hub.remote import connect
from models import load
from tests.demo import releases
from tests.hub.loopback import settings_for
from tests.records import make_config, write_folder

A, B, BUNDLED = (make_config(w).revision for w in (b"a", b"b", b"bundled"))


@pytest.fixture
def reader(hub, tmp_path):
    """Another installation of acme's, with a bundled release and without a token."""
    other = settings_for(hub, tmp_path / "second", token=None)
    write_folder(other.paths.bundled / "grace", b"bundled")
    return other


@pytest.fixture
def later(monkeypatch):
    """Lets minutes pass, for as often as the Hub may be asked."""
    passed = timedelta()
    true = fetch._now

    def pass_minutes(minutes=2.0):
        nonlocal passed
        passed += timedelta(minutes=minutes)

    monkeypatch.setattr(fetch, "_now", lambda: true() + passed)
    return pass_minutes


def served(settings):
    release = resolve("grace", settings.paths)
    return release.config.revision, release.source


def test_a_published_release_is_found_and_predicts_the_same_on_another_machine(
    hub, settings, reader, tmp_path
):
    folder = tmp_path / "run"
    releases.write(folder, "grace")
    publish(folder, settings.hub)
    assert refresh(reader) == ("grace",)
    fetched = resolve("grace", reader.paths)
    assert fetched.source == "hub"
    assert fetched.folder.is_relative_to(reader.paths.cache)
    image = decode(releases.PICTURE)
    [here] = load(folder)([image], score_threshold=0.001)
    [there] = load(fetched.folder)([image], score_threshold=0.001)
    assert len(here.scores) > 0
    np.testing.assert_array_equal(there.xyxy, here.xyxy)
    np.testing.assert_array_equal(there.scores, here.scores)


def test_until_something_is_fetched_the_bundled_release_is_served(hub, reader):
    assert served(reader) == (BUNDLED, "bundled")
    assert refresh(reader) == ()
    assert served(reader) == (BUNDLED, "bundled")


def test_a_release_promoted_on_this_machine_comes_before_the_hubs(hub, settings, reader, release):
    from hub.channel import activate

    publish(release(b"a"), settings.hub)
    refresh(reader)
    activate(release(b"b"), reader.paths)
    assert served(reader) == (B, "local")


def test_without_a_namespace_the_hub_is_not_asked_and_what_was_fetched_does_not_count(
    hub, settings, reader, release, tmp_path
):
    publish(release(b"a"), settings.hub)
    refresh(reader)
    asked = len(hub.requests)
    plain = Settings(_env_file=None, paths=reader.paths.model_copy(update={"fetched": None}))
    assert refresh(plain) == ()
    assert served(plain) == (BUNDLED, "bundled")
    assert len(hub.requests) == asked


def test_the_hub_is_asked_at_most_once_a_minute_and_with_one_request_when_nothing_is_new(
    hub, settings, reader, release, later
):
    publish(release(b"a"), settings.hub)
    refresh(reader)
    asked = len(hub.requests)
    refresh(reader)
    assert len(hub.requests) == asked
    later()
    refresh(reader)
    new = [request for request in hub.requests[asked:] if "rollmark-grace" in request[1]]
    assert new == [("HEAD", "/acme/rollmark-grace/resolve/main/channel.json")]


def test_a_new_release_and_a_rollback_are_followed(hub, settings, reader, release, later):
    publish(release(b"a"), settings.hub)
    refresh(reader)
    publish(release(b"b"), settings.hub)
    later()
    assert refresh(reader) == ("grace",)
    assert served(reader) == (B, "hub")
    withdraw("grace", settings.hub)
    later()
    asked = hub.count("GET", "/lfs/")
    assert refresh(reader) == ("grace",)
    assert served(reader) == (A, "hub")
    assert hub.count("GET", "/lfs/") == asked  # what was live before still lies here


def test_older_releases_leave_the_disk_the_last_two_stay(hub, settings, reader, release, later):
    for weights in (b"a", b"b", b"c"):
        publish(release(weights), settings.hub)
        refresh(reader)
        later()
    folders = [f for f in (reader.paths.fetched / "grace").iterdir() if f.is_dir()]
    assert len(folders) == 2


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_file_that_was_tampered_with_is_refused_and_the_last_good_release_stays(
    hub, settings, reader, release, later, caplog, name
):
    publish(release(b"a"), settings.hub)
    refresh(reader)
    publish(release(b"b"), settings.hub)
    repo = hub.repo("acme/rollmark-grace")
    repo.head.files[name] = repo.head.files[name].replace(b"a", b"x").replace(b"b", b"x")
    later()
    assert refresh(reader) == ()
    assert served(reader) == (A, "hub-cached")
    assert f"{name} of acme/rollmark-grace" in caplog.text
    assert "it is not used" in caplog.text
    asked = hub.count("GET", "/rollmark-grace/") + hub.count("GET", "/lfs/")
    later()
    refresh(reader)
    assert hub.count("GET", "/rollmark-grace/") + hub.count("GET", "/lfs/") == asked
    assert served(reader) == (A, "hub-cached")


def test_a_folder_that_cannot_be_written_keeps_no_other_model_from_being_followed(
    hub, settings, reader, release, caplog
):
    publish(release(b"a"), settings.hub)
    reader.paths.fetched.mkdir(parents=True)
    (reader.paths.fetched / "da_yolo").touch()  # asked about before grace
    assert refresh(reader) == ("grace",)
    assert "da_yolo: how asking the Hub went cannot be noted: " in caplog.text


def test_a_repository_that_changes_meanwhile_says_nothing_of_the_others(
    hub, settings, reader, release, monkeypatch
):
    publish(release(b"a"), settings.hub)
    monkeypatch.setattr(fetch, "read_file", lambda *_: None)
    refresh(reader)
    failed = {
        name: fetch.read_asked(reader.paths.fetched / name).failed
        for name in ("grace", "mobilesteelnet")
    }
    assert failed == {
        "grace": "acme/rollmark-grace is changing at this moment.",
        "mobilesteelnet": "",
    }


def test_what_was_refused_is_looked_at_again_after_an_hour_and_at_every_start(
    hub, settings, reader, release, later
):
    publish(release(b"a"), settings.hub)
    files = hub.repo("acme/rollmark-grace").head.files
    sound, files["config.json"] = files["config.json"], b"{}"  # damaged on the way, once
    assert refresh(reader) == ()
    files["config.json"] = sound
    later()
    assert refresh(reader) == ()
    later(57)
    assert refresh(reader) == ()  # 59 minutes after it was refused
    later(2)
    assert refresh(reader) == ("grace",)
    assert served(reader) == (A, "hub")

    publish(release(b"b"), settings.hub)
    files = hub.repo("acme/rollmark-grace").head.files
    sound, files["config.json"] = files["config.json"], b"{}"
    later()
    assert refresh(reader) == ()
    files["config.json"] = sound
    later()
    assert refresh(reader, verify=True) == ("grace",)


def test_a_release_that_was_kept_and_is_damaged_is_fetched_anew_when_it_counts_again(
    hub, settings, reader, release, later
):
    publish(release(b"a"), settings.hub)
    refresh(reader)
    kept = resolve("grace", reader.paths).folder
    publish(release(b"b"), settings.hub)
    later()
    refresh(reader)
    (kept / "model.safetensors").write_bytes(b"?")
    withdraw("grace", settings.hub)
    later()
    assert refresh(reader) == ("grace",)
    assert served(reader) == (A, "hub")
    assert (kept / "model.safetensors").read_bytes() == b"a"


def test_a_token_with_a_line_s_end_is_used_and_one_that_no_header_takes_is_never_told(settings):
    def token(text):
        return settings.hub.model_copy(update={"token": SecretStr(text)})

    assert connect(token("hf_abcdefghijklmnop\n")).token == "hf_abcdefghijklmnop"
    with pytest.raises(ConfigError, match="ROLLMARK_HUB__TOKEN is no token") as refused:
        connect(token("hf_abcdefgh\nijklmnop"))
    assert "hf_" not in str(refused.value)


def test_a_release_without_a_file_that_it_names_is_refused_and_not_fetched_again(
    hub, settings, reader, release, later
):
    # printf n | sha256sum
    digest = "1b16b1df538ba12dc3f97edbb85caa7050d46c148134290feba80f8236c83db9"
    folder = release(b"a", novelty=SideFile(file="novelty.safetensors", sha256=digest))
    (folder / "novelty.safetensors").write_bytes(b"n")
    publish(folder, settings.hub)
    files = hub.repo("acme/rollmark-grace").head.files
    channel = json.loads(files["channel.json"])
    del channel["live"]["files"]["novelty.safetensors"]
    files["channel.json"] = json.dumps(channel).encode()
    assert refresh(reader) == ()
    assert served(reader) == (BUNDLED, "bundled")
    asked = hub.count("GET", "/rollmark-grace/") + hub.count("GET", "/lfs/")
    later()
    refresh(reader)
    assert hub.count("GET", "/rollmark-grace/") + hub.count("GET", "/lfs/") == asked


def test_a_channel_that_names_a_path_or_a_pickle_is_refused(hub, settings, reader, release, caplog):
    publish(release(b"a"), settings.hub)
    repo = hub.repo("acme/rollmark-grace")
    true = json.loads(repo.head.files["channel.json"])
    for name in ("../../config.json", "/etc/x.json", "weights.pt", "a/b.json"):
        channel = {**true, "live": {**true["live"], "files": {name: "0" * 64}}}
        repo.head.files["channel.json"] = json.dumps(channel).encode()
        shutil.rmtree(reader.paths.fetched, ignore_errors=True)
        assert refresh(reader) == ()
    assert caplog.text.count("cannot be used") == 4
    assert served(reader) == (BUNDLED, "bundled")


def test_weights_of_another_model_are_refused(hub, settings, reader, release, caplog):
    publish(release(b"a"), settings.hub)
    hub.repos["models", "acme/rollmark-da-yolo"] = hub.repo("acme/rollmark-grace")
    assert refresh(reader) == ("grace",)
    assert f"holds grace {A}" in caplog.text
    assert [r.config.name for r in resolve_all(reader.paths)] == ["grace"]


def test_a_body_that_is_cut_short_is_not_used_and_fetched_at_the_next_look(
    hub, settings, reader, release, later
):
    publish(release(b"a" * 100), settings.hub)
    hub.fault("GET", "/lfs/", times=99, cut=True)
    assert refresh(reader) == ()
    assert served(reader)[1] == "bundled"
    hub.faults.clear()
    later()
    assert refresh(reader) == ("grace",)
    leftovers = [f for f in (reader.paths.fetched / "grace").iterdir() if f.name[0] == "."]
    assert leftovers == []


def test_a_hub_that_is_away_leaves_the_last_good_release_with_a_mark_and_one_log_line(
    hub, settings, reader, release, later, caplog
):
    publish(release(b"a"), settings.hub)
    refresh(reader)
    gone = settings_for(hub, reader.paths.data.parent, token=None, endpoint="http://127.0.0.1:9")
    caplog.set_level(logging.INFO)
    for _ in range(3):
        later()
        assert refresh(gone) == ()
    assert served(reader) == (A, "hub-cached")
    said = [r for r in caplog.records if r.getMessage().startswith("grace: ")]
    assert len(said) == 1
    assert "what was fetched before stays" in said[0].getMessage()
    later()
    refresh(reader)
    assert served(reader) == (A, "hub")
    assert "grace: the Hub answers again" in caplog.text


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_leaves_the_last_good_release(hub, settings, reader, release, later, status):
    publish(release(b"a"), settings.hub)
    refresh(reader)
    hub.fault("HEAD", "/resolve/", times=99, status=status)
    later()
    assert refresh(reader) == ()
    assert served(reader) == (A, "hub-cached")


def test_switched_off_the_hub_is_not_asked_and_what_was_fetched_stays(
    hub, settings, reader, release, later, monkeypatch
):
    from huggingface_hub import constants

    publish(release(b"a"), settings.hub)
    refresh(reader)
    asked = len(hub.requests)
    later()
    refresh(settings_for(hub, reader.paths.data.parent, offline=True))
    assert served(reader) == (A, "hub-cached")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    later()
    refresh(reader)
    assert served(reader) == (A, "hub-cached")
    assert len(hub.requests) == asked


def test_what_rotted_in_the_cache_is_fetched_again_at_the_start(
    hub, settings, reader, release, later
):
    publish(release(b"a"), settings.hub)
    refresh(reader)
    weights = resolve("grace", reader.paths).folder / "model.safetensors"
    weights.write_bytes(b"rot")
    later()
    refresh(reader)
    assert weights.read_bytes() == b"rot"
    later()
    refresh(reader, verify=True)
    assert weights.read_bytes() == b"a"


def test_a_cache_that_was_cleared_falls_back_to_the_bundled_release(
    hub, settings, reader, release, later
):
    publish(release(b"a"), settings.hub)
    refresh(reader)
    shutil.rmtree(resolve("grace", reader.paths).folder)
    assert served(reader) == (BUNDLED, "bundled")
    later()
    refresh(reader)
    assert served(reader) == (A, "hub")


def test_what_a_space_preloaded_is_taken_from_there(hub, settings, reader, release):
    from huggingface_hub import snapshot_download

    publish(release(b"a"), settings.hub)
    snapshot_download("acme/rollmark-grace", endpoint=hub.endpoint)
    asked = hub.count("GET", "/lfs/")
    assert refresh(reader) == ("grace",)
    assert hub.count("GET", "/lfs/") == asked


def test_every_change_touches_a_file_that_says_another_release_may_be_live(
    hub, settings, reader, release, later
):
    def stamps():
        found = switches("grace", reader.paths)
        return [file.stat().st_mtime_ns if file.exists() else None for file in found]

    seen = [stamps()]
    publish(release(b"a"), settings.hub)
    refresh(reader)
    seen.append(stamps())
    hub.fault("HEAD", "/resolve/", times=99, status=503)
    later()
    refresh(reader)
    seen.append(stamps())
    assert seen[0] != seen[1] != seen[2]


def test_the_watcher_looks_at_once_and_ends_when_it_is_told(hub, settings, reader, release):
    publish(release(b"a"), settings.hub)
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=(reader, stop))
    thread.start()
    fetched = reader.paths.fetched / "grace" / "channel.json"
    for _ in range(3000):
        if fetched.exists():
            break
        stop.wait(0.02)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert served(reader) == (A, "hub")


def test_another_namespace_finds_none_of_the_first_ones_releases(hub, tmp_path):
    first = settings_for(hub, tmp_path, namespace="acme")
    second = settings_for(hub, tmp_path, namespace="other")
    assert first.paths.fetched != second.paths.fetched
    assert PathSettings(data=tmp_path).fetched is None
