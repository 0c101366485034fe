"""How the commands of `python -m hub` end where they cannot go on."""

from __future__ import annotations

import errno

import pytest

from core.errors import HubError
from hub import __main__ as command


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (HubError("Cannot publish: no answer."), "Cannot publish: no answer.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "out/README.md"),
            "out/README.md cannot be used: No space left on device; make room, or name another "
            "place.\n",
        ),
    ],
    ids=["our own", "a full disk"],
)
def test_what_stops_a_command_is_one_line_and_exit_code_1(
    error: Exception, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise error

    monkeypatch.setattr(command, "app", stop)
    with pytest.raises(SystemExit, match="1"):
        command.main()
    assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file", "hub/README.md")

    monkeypatch.setattr(command, "app", stop)
    with pytest.raises(FileNotFoundError):
        command.main()


def test_the_list_says_on_which_data_a_figure_was_measured(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command.list_releases(as_json=False)
    told = capsys.readouterr().out.splitlines()
    first = next(n for n, line in enumerate(told) if line.startswith("grace "))
    assert told[first].split()[-2] == "mAP50"
    assert told[first + 2].strip() == "on neu-det"
