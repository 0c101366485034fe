"""SIGTERM ends every program of ours in good order, and soon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
# What runs in the background of a script ignores Ctrl-C, and so does what it starts.
_HEARS_CTRL_C: Final = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
_WORKS: Final = """
import signal, sys, time
from core.ending import end_on_sigterm, end_undisturbed
end_on_sigterm(*map(int, sys.argv[1:]))
try:
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
finally:
    end_undisturbed()
    signal.raise_signal(signal.SIGTERM)
    print("tidied up", flush=True)
"""
_COMMAND: Final = """
import atexit, signal, subprocess, time
from core.ending import run_command
def complain(number, frame):
    raise RuntimeError("a process that loads images has ended")
def command():
    signal.signal(signal.SIGCHLD, complain)  # as torch does
    child = subprocess.Popen(["sleep", "60"])
    try:
        print(child.pid, flush=True)
        while True:
            time.sleep(0.01)
    finally:
        print("told", flush=True)
        child.wait()
        print("tidied up", flush=True)
atexit.register(print, "taken apart")
run_command(command)
"""
_PASSES_OVER: Final = """
import signal, sys, time
from core.ending import run_command
class Cleared:
    def __del__(self):
        signal.raise_signal(getattr(signal, sys.argv[1]))
def command():
    for _ in range(2):  # what a module that is imported leaves behind, and what comes after it
        Cleared()
    print("ready", flush=True)
    while True:
        time.sleep(0.01)
run_command(command)
"""
_LEAVES: Final = """
import threading, time
from core.ending import leave
from core.scratch import scratch
threading.Thread(target=time.sleep, args=(3600,)).start()
print(scratch(), end="")
leave(7)
"""
_ENTERS: Final = """
import runpy, signal, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as exit:
    heard = signal.getsignal(signal.SIGTERM)
    print("heard" if callable(heard) else heard)
"""


@pytest.mark.parametrize(("arguments", "status"), [((), 143), (("0",), 0)], ids=["cut", "asked"])
def test_told_to_end_it_tidies_up_undisturbed_and_says_so_by_its_exit_code(
    arguments: tuple[str, ...], status: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _WORKS, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, said, complained) == (status, "tidied up\n", "")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_command_s_children_may_end_with_it_and_python_is_not_taken_apart(
    number: signal.Signals, status: int
) -> None:
    """A terminal and a service manager tell all processes of a group at once."""
    process = subprocess.Popen(
        [sys.executable, "-c", _COMMAND],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_HEARS_CTRL_C,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    os.kill(process.pid, number)
    assert process.stdout.readline() == "told\n"
    os.kill(child, number)
    said, complained = process.communicate(timeout=60)
    assert (process.returncode, said, complained) == (status, "tidied up\n", "")


@pytest.mark.parametrize(
    ("ends", "status"), [("None", 0), ("sys.exit(2)", 2), ("sys.exit('no')", 1)]
)
def test_a_command_that_ends_by_itself_ends_as_python_does(ends: str, status: int) -> None:
    program = f"import sys\nfrom core.ending import run_command\nrun_command(lambda: {ends})"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, check=False)
    assert ended.returncode == status


def test_who_leaves_waits_for_no_thread_and_takes_the_temporary_files_along() -> None:
    left = subprocess.run(
        [sys.executable, "-c", _LEAVES],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (left.returncode, left.stderr) == (7, "")
    assert "process-" in left.stdout
    assert not Path(left.stdout).exists()


@pytest.mark.parametrize(
    "program", ["training", "hub", "active_learning", "active_learning.serve_label_studio"]
)
def test_every_command_hears_it_even_as_the_first_process_of_a_container(program: str) -> None:
    """What does not ask for the signal is spared it there, and killed when the grace is over."""
    asked = subprocess.run(
        [sys.executable, "-c", _ENTERS, program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert asked.stdout.splitlines()[-1] == "heard", asked.stderr


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_told_to_end_while_something_is_cleared_away_it_ends_all_the_same(
    name: str, status: int
) -> None:
    """Python passes over what is raised there: the process would go on for ever."""
    done = subprocess.run(
        [sys.executable, "-c", _PASSES_OVER, name],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=_HEARS_CTRL_C,
    )
    assert (done.returncode, done.stdout, done.stderr) == (status, "ready\n", "")
