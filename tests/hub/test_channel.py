import hashlib
import json
import multiprocessing
import os
import shutil
from contextlib import suppress

import pytest

from core import files
from core.errors import Overtaken, UnknownModelError, WeightsError, WeightsNotFoundError
from core.ledger import open_ledger
from core.settings import PathSettings
from hub import channel
from hub.channel import activate, find_revision, history, rollback
from hub.registry import resolve
from hub.shelf import read_whole
from models import _release
from tests.records import make_config, write_described, write_folder


@pytest.fixture
def paths(tmp_path):
    return PathSettings(data=tmp_path / "data", bundled=tmp_path / "bundled")


@pytest.fixture
def release(tmp_path):
    """Writes a release whose weights are the given bytes; the folder."""

    def write(weights):
        folder = tmp_path / "runs" / weights.decode()
        write_folder(folder, weights)
        return folder

    return write


def live(paths):
    return resolve("grace", paths).config.revision


A, B, C = (make_config(w).revision for w in (b"a", b"b", b"c"))


def test_an_activated_release_is_the_live_one_wherever_it_came_from(paths, release):
    folder = release(b"a")
    done = activate(folder, paths)
    assert (done.source, done.config.revision) == ("local", A)
    shutil.rmtree(folder)
    assert (done.folder / "model.safetensors").read_bytes() == b"a"
    assert live(paths) == A


@pytest.mark.parametrize("stop", range(4))
def test_weights_described_anew_are_whole_at_every_moment(paths, tmp_path, monkeypatch, stop):
    activate(write_described(tmp_path / "first", b"a", b"first fit"), paths)
    written, write = [], files.write_atomically

    def killed(file, data):
        if len(written) == stop:
            raise KeyboardInterrupt  # stands for a kill between two files
        written.append(file.name)
        write(file, data)

    for module in (channel, _release):
        monkeypatch.setattr(module, "write_atomically", killed)
    with suppress(KeyboardInterrupt):
        activate(write_described(tmp_path / "second", b"a", b"second fit"), paths)
    monkeypatch.undo()
    config, found = read_whole(resolve("grace", paths).folder)
    assert found[config.novelty.file] in (b"first fit", b"second fit")
    assert live(paths) == A


def test_a_release_that_was_described_without_a_side_file_gets_its_first(paths, release, tmp_path):
    activate(release(b"a"), paths)
    done = activate(write_described(tmp_path / "calibrated", b"a", b"first fit"), paths)
    config, found = read_whole(done.folder)
    assert (config.novelty.file, found[config.novelty.file]) == (
        "novelty.safetensors",
        b"first fit",
    )


def test_of_descriptions_the_side_files_of_the_last_two_are_kept(paths, tmp_path):
    fits = (b"first fit", b"second fit", b"third fit")
    for number, fit in enumerate(fits):
        done = activate(write_described(tmp_path / str(number), b"a", fit), paths)
        config, found = read_whole(done.folder)
        assert found[config.novelty.file] == fit
    second, third = (f"novelty-{hashlib.sha256(f).hexdigest()[:12]}.safetensors" for f in fits[1:])
    assert {file.name for file in done.folder.glob("novelty*")} == {second, third}
    activate(tmp_path / "2", paths)  # nothing is new
    config, found = read_whole(done.folder)
    assert found[config.novelty.file] == b"third fit"
    assert [file.name for file in done.folder.glob("novelty*")] == [third]


def test_rolling_back_again_and_again_passes_every_release_down_to_the_bundled_one(paths, release):
    bundled = write_folder(paths.bundled / "grace", b"bundled").revision
    for weights in (b"a", b"b", b"c"):
        activate(release(weights), paths)
    seen = [rollback("grace", paths).config.revision for _ in range(3)]
    assert seen == [B, A, bundled]
    with pytest.raises(WeightsNotFoundError, match=f"{bundled} is the oldest"):
        rollback("grace", paths)


def test_two_who_ask_for_the_same_way_back_at_once_go_back_once(paths, release):
    for weights in (b"a", b"b", b"c"):
        activate(release(weights), paths)
    assert rollback("grace", paths, to=B).config.revision == B
    with pytest.raises(Overtaken, match=f"before grace {B} is {A}, not {B}"):
        rollback("grace", paths, to=B)
    assert resolve("grace", paths).config.revision == B


def test_rolling_back_needs_neither_the_bundled_release_nor_the_run_any_more(paths, release):
    bundled = write_folder(paths.bundled / "grace", b"bundled").revision
    folder = release(b"a")
    activate(folder, paths)
    shutil.rmtree(paths.bundled)
    shutil.rmtree(folder)
    assert rollback("grace", paths).config.revision == bundled
    assert activate(paths.releases / "grace" / A, paths).config.revision == A


def test_a_revision_activated_once_more_is_rolled_back_to_once(paths, release):
    for weights in (b"a", b"b"):
        activate(release(weights), paths)
    activate(paths.releases / "grace" / A, paths)
    assert rollback("grace", paths).config.revision == B
    with pytest.raises(WeightsNotFoundError, match="is the oldest that this machine"):
        rollback("grace", paths)


def test_activating_the_live_release_again_makes_no_move(paths, release):
    folder = release(b"a")
    activate(folder, paths)
    activate(folder, paths)
    assert len(history("grace", paths)) == 1


def test_a_release_goes_live_only_over_the_one_it_is_to_replace(paths, release):
    activate(release(b"a"), paths)
    other = release(b"c")
    with pytest.raises(Overtaken, match=f"grace {A} is live, not {B}"):
        activate(other, paths, over=B)
    assert live(paths) == A
    assert C not in channel.revisions("grace", paths)
    activate(other, paths, over=A)
    activate(other, paths, over=A)  # done already
    assert live(paths) == C


def test_the_same_weights_described_anew_are_live_with_the_new_description(paths, release):
    activate(release(b"a"), paths)
    described = paths.data / "calibrated"
    write_folder(described, b"a", score_threshold=0.4)
    activate(described, paths)
    assert resolve("grace", paths).config.score_threshold == 0.4


def test_the_bundled_weights_described_anew_are_live_with_the_new_description(paths, tmp_path):
    write_folder(paths.bundled / "grace", b"a", score_threshold=0.3)
    described = tmp_path / "calibrated"
    write_folder(described, b"a", score_threshold=0.4)
    assert activate(described, paths).config.score_threshold == 0.4
    assert resolve("grace", paths).config.score_threshold == 0.4
    assert len(history("grace", paths)) == 1


def test_the_bundled_release_itself_put_live_changes_nothing(paths):
    write_folder(paths.bundled / "grace", b"a")
    assert activate(paths.bundled / "grace", paths).source == "bundled"
    assert history("grace", paths) == ()


def test_files_beside_the_weights_travel_with_them_and_hidden_ones_stay(paths, release):
    folder = release(b"a")
    (folder / "novelty.safetensors").write_bytes(b"n")
    (folder / ".scratch").write_bytes(b"s")
    names = {file.name for file in activate(folder, paths).folder.iterdir()}
    assert names == {"config.json", "model.safetensors", "novelty.safetensors"}


def test_damaged_weights_never_become_live_by_either_way(paths, release):
    activate(release(b"a"), paths)
    activate(release(b"b"), paths)
    bad = release(b"c")
    (bad / "model.safetensors").write_bytes(b"tampered")
    with pytest.raises(WeightsError, match="SHA-256"):
        activate(bad, paths)
    (paths.releases / "grace" / A / "model.safetensors").write_bytes(b"tampered")
    with pytest.raises(WeightsError, match="SHA-256"):
        rollback("grace", paths)
    assert live(paths) == B


def test_every_move_says_when_who_and_why_in_the_channel_and_in_the_ledger(paths, release):
    bundled = write_folder(paths.bundled / "grace", b"bundled").revision
    activate(release(b"a"), paths, who="anna", why="gate passed")
    rollback("grace", paths, who="ben", why="misses scratches")
    told = [(m.who, m.what, m.before, m.after, m.why) for m in history("grace", paths)]
    assert told == [
        ("anna", "promoted", bundled, A, "gate passed"),
        ("ben", "rolled back", A, bundled, "misses scratches"),
    ]
    ledger = open_ledger(paths.ledger_url)
    events = ledger.events("model:grace")
    ledger.close()
    assert [(e.who, e.what, e.before, e.after, e.details["why"]) for e in events] == told


def test_a_ledger_that_is_down_stops_no_rollback(paths, release, caplog):
    write_folder(paths.bundled / "grace", b"bundled")
    activate(release(b"a"), paths)
    broken = paths.model_copy(update={"ledger_url": "sqlite:////proc/none/ledger.db"})
    rollback("grace", broken)
    assert live(paths) != A
    assert "the move of grace is in its channel file alone" in caplog.text


def test_a_release_in_the_models_own_folder_is_live_and_kept_when_another_is_promoted(
    paths, release
):
    legacy = write_folder(paths.releases / "grace", b"legacy").revision
    assert live(paths) == legacy
    activate(release(b"a"), paths)
    assert live(paths) == A
    assert rollback("grace", paths).config.revision == legacy


def test_a_revision_on_this_machine_is_found_by_its_first_digits(paths, release):
    bundled = write_folder(paths.bundled / "grace", b"bundled").revision
    for weights in (b"a", b"b"):
        activate(release(weights), paths)
    assert find_revision("grace", A[:4], paths) == paths.releases / "grace" / A
    assert find_revision("grace", bundled, paths) == paths.releases / "grace" / bundled
    known = ", ".join(sorted((A, B, bundled)))
    with pytest.raises(WeightsNotFoundError, match=f"begins with 'x'. On this machine: {known}"):
        find_revision("grace", "x", paths)
    with pytest.raises(WeightsNotFoundError, match="More than one revision"):
        find_revision("grace", "", paths)


def test_a_channel_without_a_history_can_be_rolled_back_no_further(paths, release):
    folder = paths.releases / "grace"
    write_folder(folder / A, b"a")
    (folder / "channel.json").write_text(json.dumps({"live": A, "previous": []}))
    with pytest.raises(WeightsNotFoundError, match="the oldest that this machine can go back to"):
        rollback("grace", paths)
    with pytest.raises(WeightsNotFoundError, match="ever promoted on this machine"):
        rollback("da_yolo", paths)


def test_a_misspelt_model_is_told_which_there_are_and_leaves_no_folder(paths, release):
    activate(release(b"a"), paths)
    for look in (rollback, history, lambda name, paths: find_revision(name, A, paths)):
        with pytest.raises(UnknownModelError, match=r"'graze'\. Available: .*grace"):
            look("graze", paths)
    assert not (paths.releases / "graze").exists()


def test_a_copy_that_a_kill_left_half_made_is_removed_after_an_hour(paths, release):
    activate(release(b"a"), paths)
    killed, at_work = (paths.releases / "grace" / f".{name}" for name in ("killed", "at-work"))
    for folder in (killed, at_work):
        folder.mkdir()
    os.utime(killed, times=(0, 0))
    activate(release(b"b"), paths)
    assert (killed.exists(), at_work.exists()) == (False, True)
    assert live(paths) == B


def _activate_in_turn(paths, folder):
    activate(folder, paths)


def test_processes_that_promote_at_once_lose_no_move(paths, release):
    folders = [release(weights) for weights in (b"a", b"b", b"c")]
    open_ledger(paths.ledger_url).close()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_activate_in_turn, args=(paths, f)) for f in folders]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    moves = history("grace", paths)
    assert {move.after for move in moves} == {A, B, C}
    assert [move.before for move in moves] == [None, moves[0].after, moves[1].after]
