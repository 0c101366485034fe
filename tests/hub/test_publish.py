import json
import logging
import multiprocessing
import os
import re
import signal

import pytest
import yaml

from core.errors import (
    ConfigError,
    HubError,
    HubUnavailable,
    WeightsError,
    WeightsNotFoundError,
)
from core.records import SideFile
from hub.fetch import refresh
from hub.publish import live_on_hub, publish, withdraw
from models._release import write_config
from tests.hub.loopback import settings_for
from tests.records import make_config

A, B, C = (make_config(w).revision for w in (b"a", b"b", b"c"))


def channel_of(hub):
    return json.loads(hub.repo("acme/rollmark-grace").head.files["channel.json"])


def test_one_commit_brings_weights_description_card_and_channel(hub, settings, release):
    folder = release(b"a")
    (folder / "novelty.safetensors").write_bytes(b"n")
    (folder / "curves.png").write_bytes(b"p")
    done = publish(folder, settings.hub)
    repo = hub.repo("acme/rollmark-grace")
    assert (done.repo, done.revision, done.before, done.is_new) == (repo.name, A, None, True)
    assert [commit.message for commit in repo.commits[1:]] == [f"Release grace {A}"]
    assert done.commit == repo.head.oid
    assert set(repo.head.files) == {
        *(".gitattributes", "README.md", "channel.json", "config.json"),
        *("model.safetensors", "novelty.safetensors"),
    }
    assert repo.head.files["model.safetensors"] == b"a"
    card = repo.head.files["README.md"].decode()
    assert yaml.safe_load(card.split("---")[1])["pipeline_tag"] == "object-detection"


def test_the_channel_names_every_file_a_reader_fetches_by_its_hash_but_not_the_card(
    hub, settings, release
):
    publish(release(b"a"), settings.hub)
    live = channel_of(hub)["live"]
    assert (live["revision"], live["commit"]) == (A, None)
    assert set(live["files"]) == {"config.json", "model.safetensors"}
    # printf a | sha256sum
    assert live["files"]["model.safetensors"] == (
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    )


def test_publishing_what_is_live_makes_no_new_commit(hub, settings, release):
    folder = release(b"a")
    first = publish(folder, settings.hub)
    again = publish(folder, settings.hub)
    assert (again.is_new, again.commit, again.before) == (False, first.commit, A)
    assert len(hub.repo("acme/rollmark-grace").commits) == 2


def test_the_same_weights_described_anew_are_published_with_the_new_description(
    hub, settings, release
):
    """A calibration changes what people are shown, and not a single weight."""
    folder = release(b"a")
    publish(folder, settings.hub)
    write_config(folder, make_config(b"a", score_threshold=0.4))
    again = publish(folder, settings.hub)
    assert (again.is_new, again.revision, again.before) == (True, A, A)
    repo = hub.repo("acme/rollmark-grace")
    assert json.loads(repo.head.files["config.json"])["score_threshold"] == 0.4
    assert channel_of(hub)["previous"] == []  # nobody can go back to the same weights


def test_what_was_live_can_be_found_by_its_commit(hub, settings, release):
    first = publish(release(b"a"), settings.hub)
    second = publish(release(b"b"), settings.hub)
    assert second.before == A
    assert [(r["revision"], r["commit"]) for r in channel_of(hub)["previous"]] == [
        (A, first.commit)
    ]


def test_rolling_back_again_and_again_moves_only_the_channel(hub, settings, release):
    commits = {w: publish(release(w), settings.hub).commit for w in (b"a", b"b", b"c")}
    back = [withdraw("grace", settings.hub) for _ in range(2)]
    assert [(done.before, done.revision, done.commit) for done in back] == [
        (C, B, commits[b"b"]),
        (B, A, commits[b"a"]),
    ]
    assert hub.repo("acme/rollmark-grace").head.files["model.safetensors"] == b"c"
    with pytest.raises(HubError, match=f"has no a release before {A}; before it: none"):
        withdraw("grace", settings.hub)


def test_a_release_that_was_rolled_back_can_be_published_again(hub, settings, release):
    publish(release(b"a"), settings.hub)
    bad = release(b"b")
    publish(bad, settings.hub)
    withdraw("grace", settings.hub)
    done = publish(bad, settings.hub)
    channel = live_on_hub("grace", settings.hub)
    assert (done.revision, channel.live.revision) == (B, B)
    assert [r.revision for r in channel.previous] == [A]


def test_going_back_to_a_named_revision_is_done_once(hub, settings, release):
    for weights in (b"a", b"b", b"c"):
        publish(release(weights), settings.hub)
    assert withdraw("grace", settings.hub, to=A).is_new
    assert not withdraw("grace", settings.hub, to=A).is_new
    with pytest.raises(HubError, match=f"has no {B} {A}; before it: none"):
        withdraw("grace", settings.hub, to=B)


@pytest.mark.parametrize("status", [409, 412, 429, 500, 503])
def test_a_busy_hub_is_tried_again_from_its_new_head(hub, settings, release, status):
    hub.fault("POST", "/commit/", times=2, status=status, headers={"Retry-After": "1"})
    publish(release(b"a"), settings.hub)
    assert channel_of(hub)["live"]["revision"] == A
    assert hub.count("POST", "/commit/") == 3


def test_a_commit_that_came_between_is_kept(hub, settings, release):
    publish(release(b"a"), settings.hub)
    repo = hub.repo("acme/rollmark-grace")

    def rival():
        repo.commit("Edit the card", {**repo.head.files, "NOTES.md": b"by hand"})

    hub.fault("POST", "/commit/", call=rival)
    publish(release(b"b"), settings.hub)
    assert repo.head.files["NOTES.md"] == b"by hand"
    assert channel_of(hub)["previous"][0]["commit"] == repo.commits[-2].oid


def test_an_answer_that_was_lost_after_the_commit_makes_no_second_one(hub, settings, release):
    publish(release(b"a"), settings.hub)
    hub.fault("POST", "/commit/", lost=True)
    done = publish(release(b"b"), settings.hub)
    assert (done.before, done.revision, done.is_new) == (A, B, True)
    assert done.commit == hub.repo("acme/rollmark-grace").head.oid
    assert len(hub.repo("acme/rollmark-grace").commits) == 3
    hub.fault("POST", "/commit/", lost=True)
    assert withdraw("grace", settings.hub).revision == A
    assert len(hub.repo("acme/rollmark-grace").commits) == 4


def test_a_token_that_may_write_and_create_nothing_publishes_into_what_is_there(
    hub, settings, release
):
    publish(release(b"a"), settings.hub)
    hub.fault("POST", "/api/repos/create", times=99, status=403)
    assert publish(release(b"b"), settings.hub).revision == B
    assert channel_of(hub)["live"]["revision"] == B


def test_without_a_token_publishing_anew_is_one_sentence(hub, settings, release, tmp_path):
    publish(release(b"a"), settings.hub)
    nobody = settings_for(hub, tmp_path / "second", token=None).hub
    with pytest.raises(HubError, match=r"Cannot commit to acme/rollmark-grace: .*token"):
        publish(release(b"b"), nobody)


def test_a_hub_that_stays_busy_is_one_sentence(hub, settings, release):
    publish(release(b"a"), settings.hub)
    hub.fault("POST", "/commit/", times=99, status=429)
    with pytest.raises(HubUnavailable, match=r"Cannot commit to acme/rollmark-grace: .* 429 "):
        publish(release(b"b"), settings.hub)
    assert hub.count("POST", "/commit/") == 1 + 6
    assert channel_of(hub)["live"]["revision"] == A


def test_an_upload_that_fails_leaves_the_channel_as_it_was(hub, settings, release):
    publish(release(b"a"), settings.hub)
    hub.fault("PUT", "/lfs/", times=99, status=503)
    with pytest.raises(HubUnavailable, match="Cannot commit to acme/rollmark-grace"):
        publish(release(b"b"), settings.hub)
    assert channel_of(hub)["live"]["revision"] == A


@pytest.mark.parametrize("lost", [False, True], ids=["told", "its answer lost"])
def test_what_does_not_read_back_is_no_success(hub, settings, release, lost):
    publish(release(b"a"), settings.hub)
    if lost:
        hub.fault("POST", "/commit/", lost=True)
    repo = hub.repo("acme/rollmark-grace")
    true = repo.commit

    def damaging(message, files):
        return true(message, {**files, "model.safetensors": b"bit rot"})

    repo.commit = damaging
    with pytest.raises(HubError, match="reads back as"):
        publish(release(b"b"), settings.hub)


def test_a_token_that_may_only_read_is_one_sentence_without_the_token(hub, release, tmp_path):
    reader = settings_for(hub, tmp_path / "r", token="hf_read").hub
    with pytest.raises(HubError, match="has no permission for that; it needs one to write") as told:
        publish(release(b"a"), reader)
    assert "hf_read" not in str(told.value)


def test_a_token_the_hub_does_not_know_is_one_sentence_without_the_token(hub, release, tmp_path):
    stranger = settings_for(hub, tmp_path / "s", token="hf_nobody").hub
    with pytest.raises(HubError, match="the Hub does not know this token") as told:
        publish(release(b"a"), stranger)
    assert "hf_nobody" not in str(told.value)


def test_no_log_line_of_a_publication_with_trouble_holds_the_token(hub, settings, release, caplog):
    caplog.set_level(logging.DEBUG)
    hub.fault("POST", "/commit/", times=2, status=503)
    publish(release(b"a"), settings.hub)
    assert "hf_write" not in caplog.text
    assert "attempt 1 of 6" in caplog.text


def test_the_token_does_not_follow_large_files_to_their_storage(hub, settings, release):
    publish(release(b"a"), settings.hub)
    refresh(settings)
    sent = [header for path, header in hub.authorizations if re.fullmatch("/lfs/.{64}", path)]
    assert sent == [None, None]  # one upload, one download


def test_damaged_weights_are_not_sent(hub, settings, release):
    folder = release(b"a")
    (folder / "model.safetensors").write_bytes(b"tampered")
    with pytest.raises(WeightsError, match="SHA-256"):
        publish(folder, settings.hub)
    assert hub.requests == []


def test_a_release_without_a_file_that_it_names_is_not_sent(hub, settings, release):
    side = SideFile(file="novelty.safetensors", sha256="0" * 64)
    with pytest.raises(WeightsNotFoundError, match=r"novelty\.safetensors is missing"):
        publish(release(b"a", novelty=side), settings.hub)
    assert hub.requests == []


def test_publishing_needs_a_namespace_and_a_hub_that_is_switched_on(hub, release, tmp_path):
    folder = release(b"a")
    with pytest.raises(ConfigError, match="give --namespace, or set ROLLMARK_HUB__NAMESPACE"):
        publish(folder, settings_for(hub, tmp_path / "n", namespace=None).hub)
    with pytest.raises(ConfigError, match="The Hub is switched off"):
        publish(folder, settings_for(hub, tmp_path / "o", offline=True).hub)


def test_a_private_repository_is_seen_by_its_owner_alone(hub, settings, release, tmp_path):
    publish(release(b"a"), settings.hub, private=True)
    assert live_on_hub("grace", settings.hub).live.revision == A
    assert live_on_hub("grace", settings_for(hub, tmp_path / "r", token="hf_read").hub) is None


def test_a_channel_of_a_later_format_is_not_overwritten(hub, settings, release):
    publish(release(b"a"), settings.hub)
    repo = hub.repo("acme/rollmark-grace")
    repo.commit("From the future", {**repo.head.files, "channel.json": b'{"format": 2}'})
    with pytest.raises(HubError, match="a newer Rollmark wrote it"):
        publish(release(b"b"), settings.hub)


def _publish(folder, hub):
    publish(folder, hub)


def test_a_publisher_killed_between_upload_and_commit_leaves_the_old_channel(
    hub, settings, release
):
    publish(release(b"a"), settings.hub)
    folder = release(b"b")
    worker = multiprocessing.get_context("fork").Process(
        target=_publish, args=(folder, settings.hub)
    )
    hub.fault("POST", "/commit/", call=lambda: os.kill(worker.pid, signal.SIGKILL), status=500)
    worker.start()
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL
    assert b"b" in hub.lfs.values()  # the upload was through
    assert channel_of(hub)["live"]["revision"] == A
    publish(folder, settings.hub)
    assert channel_of(hub)["live"]["revision"] == B
