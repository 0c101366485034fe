"""Promotion and rollback as a person asks for them: here, on the Hub, and by the command line."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from core.errors import HubError, WeightsError
from core.ledger import open_ledger
from core.scratch import scratch
from hub import channel, moves
from hub.__main__ import app
from hub.fetch import refresh
from hub.moves import promote, roll_back
from hub.publish import live_on_hub
from hub.registry import resolve
from tests.hub.loopback import settings_for
from tests.records import make_config, make_evaluation, write_folder

A, B, BUNDLED = (make_config(w).revision for w in (b"a", b"b", b"bundled"))


@pytest.fixture
def machine(settings, tmp_path):
    """An installation with a bundled release of GRACE and two runs, `a` and `b`."""
    write_folder(settings.paths.bundled / "grace", b"bundled")
    for weights in (b"a", b"b"):
        write_folder(tmp_path / "runs" / weights.decode(), weights)
    return settings


def here_and_there(settings):
    channel = live_on_hub("grace", settings.hub)
    there = None if channel is None else channel.live.revision
    return resolve("grace", settings.paths).config.revision, there


def test_a_promotion_moves_this_machine_and_the_hub_and_a_rollback_both_back(machine, tmp_path):
    for run in ("a", "b"):
        promote("grace", tmp_path / "runs" / run, machine)
    assert here_and_there(machine) == (B, B)
    done = roll_back("grace", machine)
    assert here_and_there(machine) == (A, A)
    assert done.lines("grace")[0] == f"grace on this machine: {B} → {A}"
    assert f"grace on the Hub: {B} → {A}" in done.lines("grace")[1]


def test_rolling_back_past_the_first_publication_publishes_what_was_before(machine, tmp_path):
    promote("grace", tmp_path / "runs" / "a", machine)
    roll_back("grace", machine)
    assert here_and_there(machine) == (BUNDLED, BUNDLED)


def test_a_revision_rolled_back_from_can_be_promoted_again_by_its_name(machine, tmp_path):
    for run in ("a", "b"):
        promote("grace", tmp_path / "runs" / run, machine)
    roll_back("grace", machine)
    promote("grace", B[:6], machine)
    assert here_and_there(machine) == (B, B)


def test_here_leaves_the_hub_as_it_is(machine, tmp_path):
    promote("grace", tmp_path / "runs" / "a", machine)
    promote("grace", tmp_path / "runs" / "b", machine, here=True)
    assert here_and_there(machine) == (B, A)
    roll_back("grace", machine, here=True)
    assert here_and_there(machine) == (A, A)


def test_where_the_hub_is_switched_off_this_machine_moves_and_the_command_says_what_is_left(
    machine, tmp_path
):
    for run in ("a", "b"):
        promote("grace", tmp_path / "runs" / run, machine)
    off = machine.model_copy(update={"hub": machine.hub.model_copy(update={"offline": True})})
    assert roll_back("grace", off).lines("grace") == [
        f"grace on this machine: {B} → {A}",
        "The Hub is switched off and stays as it was. "
        f"To finish: python -m hub promote grace --revision {A}",
    ]
    assert here_and_there(machine) == (A, B)
    assert promote("grace", B, off).is_hub_left
    assert here_and_there(machine) == (B, B)


def test_a_hub_that_refuses_leaves_this_machine_moved_and_says_how_to_finish(
    hub, machine, tmp_path
):
    promote("grace", tmp_path / "runs" / "a", machine)
    promote("grace", tmp_path / "runs" / "b", machine)
    hub.fault("POST", "/commit/", status=403)
    with pytest.raises(HubError) as told:
        roll_back("grace", machine)
    assert str(told.value).startswith(f"grace {A} is live on this machine, but the Hub is as it")
    finish = f"python -m hub promote grace --revision {A}"
    assert str(told.value).endswith(finish)
    assert here_and_there(machine) == (A, B)
    promote("grace", A, machine)
    assert here_and_there(machine) == (A, A)


def test_a_machine_that_only_follows_rolls_the_hub_back_for_all(hub, machine, tmp_path):
    for run in ("a", "b"):
        promote("grace", tmp_path / "runs" / run, machine)
    follower = settings_for(hub, tmp_path / "second")
    refresh(follower)
    done = roll_back("grace", follower)
    assert done.local is None
    assert live_on_hub("grace", machine.hub).live.revision == A


def test_a_release_of_another_model_is_not_promoted(machine, tmp_path):
    with pytest.raises(WeightsError, match="holds a release of grace, not of da_yolo"):
        promote("da_yolo", tmp_path / "runs" / "a", machine)


def test_a_run_goes_live_with_what_was_measured_on_it_and_its_folder_stays_as_it_was(
    machine, command, tmp_path
):
    run = tmp_path / "runs" / "a"
    before = sorted((f.name, f.read_bytes()) for f in run.iterdir())
    measured = make_evaluation(make_config(b"a"))
    (tmp_path / "test.json").write_text(measured.model_dump_json())

    told = command("promote", "grace", "--release", str(run), "--evaluation", "test.json", "--here")

    live = resolve("grace", machine.paths)
    assert told == (0, f"grace on this machine: {BUNDLED} → {A}\n")
    assert live.config.evaluations == (measured,)
    assert "## Results" in (live.folder / "README.md").read_text()
    assert sorted((f.name, f.read_bytes()) for f in run.iterdir()) == before


def test_what_is_put_together_for_a_promotion_lies_where_a_kill_leaves_nothing_for_good(
    machine, tmp_path, monkeypatch
):
    activated = []

    def activate(folder, *arguments, **options):
        activated.append(folder)
        return channel.activate(folder, *arguments, **options)

    monkeypatch.setattr(moves, "activate", activate)
    measured = make_evaluation(make_config(b"a"))
    promote("grace", tmp_path / "runs" / "a", machine, evaluations=[measured], here=True)
    assert [folder.is_relative_to(scratch()) for folder in activated] == [True]


def test_what_was_measured_on_others_or_on_a_described_release_is_refused(
    machine, command, tmp_path
):
    (tmp_path / "b.json").write_text(make_evaluation(make_config(b"b")).model_dump_json())
    release, evaluation = ["--release", "runs/a"], ["--evaluation", "b.json"]

    with pytest.raises(WeightsError, match="evaluate these weights"):
        promote(
            "grace", tmp_path / "runs/a", machine, evaluations=[make_evaluation(make_config(b"b"))]
        )
    assert command("promote", "grace", "--revision", BUNDLED, *evaluation)[0] == 2
    assert command("promote", "grace", *release, "--evaluation", "runs/a/config.json")[0] == 1
    assert resolve("grace", machine.paths).config.revision == BUNDLED


def test_both_places_moved_are_events_of_the_ledger(machine, tmp_path):
    promote("grace", tmp_path / "runs" / "a", machine, why="gate passed")
    ledger = open_ledger(machine.paths.ledger_url)
    events = ledger.events("model:grace")
    ledger.close()
    assert [(e.what, e.after, e.details["why"]) for e in events] == [
        ("promoted", A, "gate passed")
    ] * 2
    assert events[0].details["where"] == "this machine"
    assert events[1].details["where"].startswith("acme/rollmark-grace@")


@pytest.fixture
def command(hub, machine, monkeypatch, tmp_path):
    """Runs `python -m hub` on the machine; exit code and output."""
    monkeypatch.chdir(tmp_path)
    variables = {
        "PATHS__DATA": machine.paths.data,
        "PATHS__BUNDLED": machine.paths.bundled,
        "HUB__NAMESPACE": "acme",
        "HUB__TOKEN": "hf_write",
        "HUB__ENDPOINT": hub.endpoint,
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"ROLLMARK_{name}", str(value))

    def run(*arguments):
        done = CliRunner().invoke(app, list(arguments))
        return done.exit_code, done.output

    return run


def test_the_commands_publish_promote_roll_back_and_tell_the_history(hub, machine, command):
    assert command("publish", "--all", "--dry-run") == (
        0,
        "acme/rollmark-grace:\n  model.safetensors  7 bytes\n"
        f"  config.json  {(machine.paths.bundled / 'grace/config.json').stat().st_size:,} bytes\n"
        f"  README.md  {len(_card(machine)):,} bytes\n",
    )
    assert hub.requests == []
    nothing = "No release of grace was ever promoted or rolled back on this machine.\n"
    assert command("history", "grace") == (0, nothing)
    code, said = command("publish", "--all")
    assert (code, said.split(" (")[0]) == (0, f"acme/rollmark-grace: none → {BUNDLED}")
    assert "nothing new" in command("publish", "grace")[1]
    code, said = command("promote", "grace", "--release", "runs/a", "--why", "better")
    assert (code, said.splitlines()[0]) == (0, f"grace on this machine: {BUNDLED} → {A}")
    code, said = command("rollback", "grace", "--here")
    assert (code, said) == (0, f"grace on this machine: {A} → {BUNDLED}\n")
    code, said = command("history", "grace", "--json")
    assert [(m["what"], m["why"]) for m in json.loads(said)] == [
        ("promoted", "better"),
        ("rolled back", ""),
    ]
    assert f"promoted {BUNDLED} → {A} by " in command("history", "grace")[1]


def _card(settings):
    from hub.publish import pack

    return pack(settings.paths.bundled / "grace").files["README.md"]


def test_another_namespace_can_be_published_to(hub, command):
    hub.tokens["hf_write"] = ("mill", True)
    assert command("publish", "grace", "--namespace", "mill")[0] == 0
    assert hub.repo("mill/rollmark-grace").private is False


@pytest.mark.parametrize(
    "arguments",
    [
        ("publish",),
        ("publish", "grace", "--all"),
        ("publish", "--all", "--release", "x"),
        ("promote", "grace"),
        ("promote", "grace", "--revision", "a", "--release", "x"),
    ],
    ids=" ".join,
)
def test_a_command_that_is_not_clear_is_a_usage_error(command, arguments):
    assert command(*arguments)[0] == 2
