"""The documents say what the code does: settings, commands, errors, models, measured numbers."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path

import pytest
import typer

from core import errors
from core.operating import read_operating
from core.settings import PathSettings, known_variables
from hub.card import results_table
from hub.registry import resolve_all
from models import baseline_names, get_spec, names
from models._committee import CommitteeTuning, describe
from training.balance import RETRAINING
from training.benchmark.commands import app as benchmark_commands
from training.benchmark.lookup_page import load_lookups, page_of
from training.benchmark.plans import SETTINGS as TABLE_SETTINGS
from training.benchmark.publish import page_text
from training.benchmark.rows import TABLES
from training.benchmark.sheets import SHEETS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
DOCUMENTS = (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"))
SETTINGS = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
BENCHMARKS = ROOT / "docs" / "benchmarks"
BUNDLED = PathSettings(bundled=ROOT / "hub" / "bundled", data=ROOT / "none")


def settings_row(name, field):
    """How docs/settings.md writes a setting; paths outside the code are shown as they are."""
    default = field.get_default()
    if field.default_factory is not None:
        shown = "see description"
    elif name.endswith("__BUNDLED"):
        shown = "`hub/bundled`"
    else:
        shown = "empty" if default in (None, "") else f"`{default}`"
    return f"| `{name}` | {shown} | {field.description} |"


@pytest.mark.parametrize(
    ("name", "field"), list(known_variables()), ids=[name for name, _ in known_variables()]
)
def test_every_setting_is_documented_with_its_default_and_unit(name, field):
    assert settings_row(name, field) in SETTINGS.splitlines()


def test_no_setting_is_documented_that_does_not_exist():
    documented = set(re.findall(r"ROLLMARK_[A-Z_]+__[A-Z_]+", SETTINGS + README))
    assert documented <= {name for name, _ in known_variables()}


@pytest.mark.parametrize("room", ["training", "hub", "active_learning"])
def test_every_command_is_on_the_page_of_commands(room):
    app = importlib.import_module(f"{room}.__main__").app
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        assert f"python -m {room} {name}" in COMMANDS


@pytest.mark.parametrize("line", re.findall(r"^python -m .*", README + COMMANDS, re.M))
def test_no_command_is_shown_that_does_not_exist(line):
    room, *given = line.partition("#")[0].removeprefix("python -m ").split()
    if room.startswith("tests."):  # a drill is a module with one command
        drill = typer.Typer()
        drill.command()(importlib.import_module(room).main)
        command = typer.main.get_command(drill)
    else:
        command = typer.main.get_command(importlib.import_module(f"{room}.__main__").app)
    while commands := getattr(command, "commands", None):
        command = commands[given.pop(0)]
    known = {flag for option in command.params for flag in option.opts}
    assert {word for word in given if word.startswith("--")} <= known


def test_every_benchmark_is_on_the_page_of_commands():
    for command in benchmark_commands.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        assert f"python -m training benchmark {name}" in COMMANDS


def test_the_settings_of_the_accuracy_tables_are_documented():
    text = (ROOT / "docs" / "benchmarking.md").read_text(encoding="utf-8")
    for name in ("full", "small", "quick"):
        settings = [next(s for s in TABLE_SETTINGS[table] if s.name == name) for table in TABLES]
        cells = [
            f"{s.image_size} px, {s.epochs} epoch{'s' if s.epochs > 1 else ''}" for s in settings
        ]
        assert f"| `{name}` | {' | '.join(cells)} |" in text


@pytest.mark.parametrize("table", TABLES)
def test_an_accuracy_page_is_printed_by_its_records(table):
    page = BENCHMARKS / f"{SHEETS[table].stem}.md"
    remedy = f"run python -m training benchmark accuracy --task {table} --page-only"
    assert page.read_text(encoding="utf-8") == page_text(table, BENCHMARKS), remedy


def test_what_looking_up_reaches_is_told_alike_on_page_card_and_readme():
    kept = load_lookups(BENCHMARKS)
    assert (BENCHMARKS / "lookup.md").read_text(encoding="utf-8") == page_of(kept)
    reached = {(one.dataset, one.protocol): f"{100 * one.metrics[0].value:.1f}" for one in kept}
    masks = reached["neu-seg", "paper"]
    assert f"without any network, has mIoU {masks}." in get_spec("sme_deeplabv3plus").paper.caveat
    assert f"most like it has {masks} (" in " ".join(README.split())
    assert f"Leak-free the same has {reached['neu-seg', 'leak-free']}," in README


def test_scheduled_retraining_uses_the_method_that_its_page_names():
    page = (BENCHMARKS / "balance.md").read_text(encoding="utf-8")
    (named,) = re.findall(
        r"^\*\*(\w+)\*\*: chosen|until then retraining uses \*\*(\w+)\*\*", page, re.M
    )
    nothing = {"none", "paper"}  # the same where a paper brings no sampler
    chosen = named[0] or named[1]
    assert chosen == RETRAINING or {chosen, RETRAINING} <= nothing


def test_the_page_of_serving_tells_what_int8_costs_the_bundled_releases():
    page = " ".join((ROOT / "docs" / "serving.md").read_text(encoding="utf-8").split())
    measured = [
        (release.config.title.split(" (")[0], release.config.int8)
        for release in resolve_all(BUNDLED)
    ]
    cost = {name: 100 * (of.fp32 - of.int8) for name, of in measured}
    least, most = min(cost, key=cost.__getitem__), max(cost, key=cost.__getitem__)
    told = f"int8 costs between {cost[least]:.1f} ({least}) and {cost[most]:.1f} points ({most})"
    assert told in page


def test_the_page_of_the_committee_calls_the_bundled_one_by_its_name():
    releases = {release.config.name: release.config for release in resolve_all(BUNDLED)}
    tuning = CommitteeTuning.model_validate_json(
        (ROOT / "hub" / "bundled" / "committee" / "committee.json").read_text(encoding="utf-8")
    )
    members = [releases[member.name] for member in tuning.members]
    page = (ROOT / "docs" / "committee.md").read_text(encoding="utf-8")
    assert f"committee is called {describe(members, tuning).revision}." in page


def test_the_page_of_thresholds_tells_what_the_bundled_releases_have_counted():
    page = (ROOT / "docs" / "looking.md").read_text(encoding="utf-8")
    releases = {release.config.name: release.config for release in resolve_all(BUNDLED)}
    tuning = CommitteeTuning.model_validate_json(
        (ROOT / "hub" / "bundled" / "committee" / "committee.json").read_text(encoding="utf-8")
    )
    committee = describe([releases[member.name] for member in tuning.members], tuning)
    counted = [config for config in (*releases.values(), committee) if config.operating]
    assert len(counted) == 5
    for config in counted:
        rates = read_operating(config).at(config.score_threshold)
        told = f"{100 * rates.found:.1f} / {100 * rates.wrong:.1f}"
        [row] = [line for line in page.splitlines() if line.startswith(f"| {config.name} ")]
        assert row.startswith(f"| {config.name} {config.revision} |")
        assert f"| {config.score_threshold:g} | {told} |" in row


def test_every_model_and_baseline_is_in_the_readme():
    for name in (*names(), *baseline_names()):
        assert f"`{name}`" in README


def test_every_error_is_drawn_in_the_tree():
    drawn = set(re.findall(r"\w+", errors.__doc__))
    declared = {
        n for n, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == "core.errors"
    }
    assert declared <= drawn


def test_the_readmes_results_are_those_of_the_bundled_records():
    table = results_table([release.config for release in resolve_all(BUNDLED)])
    assert table in README
    beginning = README.partition("## Open it")[0]
    told = re.findall(r"(?:mAP50|accuracy|mIoU) \d+\.\d", beginning)
    assert len(told) == 3
    assert [figure for figure in told if f"{figure} (" not in table] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_picture_of_the_documents_leads_somewhere(document):
    text = re.sub(r"```.*?```", "", document.read_text("utf-8"), flags=re.S)
    for target in re.findall(r"\[[^\]]*\]\(([^)#\s]+)", text):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), target
