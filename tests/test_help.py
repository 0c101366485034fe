"""What `--help` says: something about every option, whole on a terminal of 80 columns."""

from __future__ import annotations

import importlib
import re

import pytest
import typer
from typer.testing import CliRunner

ROOMS = ("training", "active_learning", "hub")
DRILLS = (
    "tests.active_learning.reliability_drill",
    "tests.demo.hostile_drill",
    "tests.demo.roll_mark_drill",
)


def every_command():
    """(words that call it, its app, its arguments, the command) of each that there is."""
    for room in ROOMS:
        app = importlib.import_module(f"{room}.__main__").app
        for name, command in typer.main.get_command(app).commands.items():
            below = getattr(command, "commands", {})
            for words, one in [([name, n], c) for n, c in below.items()] or [([name], command)]:
                yield f"{room} {' '.join(words)}", app, words, one
    for drill in DRILLS:
        app = typer.Typer()
        app.command()(importlib.import_module(drill).main)
        yield drill, app, [], typer.main.get_command(app)


COMMANDS = list(every_command())


@pytest.mark.parametrize(
    ("app", "words", "command"), [c[1:] for c in COMMANDS], ids=[c[0] for c in COMMANDS]
)
def test_help_explains_every_option_and_cuts_nothing_at_80_columns(
    app, words, command, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    shown = CliRunner().invoke(app, [*words, "--help"]).stdout
    assert shown.count("--help")  # it was rendered
    assert [p.name for p in command.params if not p.help] == []
    assert re.findall(r"\S*…\s*│", shown) == []
    types = [p.type_descriptor.annotation for p in command.params if p.metavar is None]
    choices = {value for one in types for value in getattr(one, "__members__", {}).values()}
    assert [c for c in choices if c not in shown] == []
