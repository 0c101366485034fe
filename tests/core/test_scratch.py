"""Folders for temporary files: the user's alone, the process's alone, and none left behind."""

from __future__ import annotations

import getpass
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from core.errors import ConfigError
from core.scratch import (
    own_folder,
    place_library_files,
    scratch,
    temporary_files_in_scratch,
)

ROOT: Final = Path(__file__).parents[2]
_HOLDS: Final = """
import sys
from core.scratch import scratch
(scratch() / "file").write_text("x")
print(scratch(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files of this process and of those it starts."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for made in (own_folder, scratch):
        made.cache_clear()
    yield tmp_path
    for made in (own_folder, scratch):
        made.cache_clear()


def _holding() -> tuple[subprocess.Popen[str], Path]:
    """A process that has a folder of its own, until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDS],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_no_other_user_may_look_into_it_whatever_the_umask(temporary: Path) -> None:
    before = os.umask(0)
    try:
        modes = [folder.stat().st_mode & 0o777 for folder in (own_folder(), scratch())]
    finally:
        os.umask(before)
    assert modes == [0o700, 0o700]
    assert scratch().parent == own_folder() == temporary / f"rollmark-{os.getuid()}"


def test_what_somebody_else_has_put_at_its_place_is_not_used(temporary: Path) -> None:
    trap = temporary / "trap"
    trap.mkdir()
    (temporary / f"rollmark-{os.getuid()}").symlink_to(trap)
    scratch()
    assert own_folder().parent == temporary
    assert list(trap.iterdir()) == []


def test_a_folder_that_lasts_from_an_earlier_process_is_used_again(temporary: Path) -> None:
    first = own_folder()
    own_folder.cache_clear()
    assert own_folder() == first


def test_a_killed_process_s_folder_goes_and_a_living_one_s_stays(temporary: Path) -> None:
    living, theirs = _holding()
    killed, left = _holding()
    try:
        killed.send_signal(signal.SIGKILL)
        killed.wait(timeout=60)
        assert left.is_dir()
        scratch()
        assert not left.exists()
        assert (theirs / "file").read_text() == "x"
    finally:
        for process in (living, killed):
            process.communicate(timeout=60)
    assert not theirs.exists()  # the living one has ended in good order


def test_a_folder_whose_process_ends_while_it_is_looked_at_is_no_error(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = own_folder() / "process-left"
    left.mkdir()
    found = Path.glob

    def too_late(folder: Path, pattern: str) -> list[Path]:
        folders = list(found(folder, pattern))
        for gone in folders:
            gone.rmdir()
        return folders

    monkeypatch.setattr(Path, "glob", too_late)
    assert scratch().is_dir()
    assert not left.exists()


def test_temporary_files_lie_there_for_a_while(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # as a machine's own is
        monkeypatch.setattr(tempfile, "tempdir", short)
        with temporary_files_in_scratch():
            assert Path(tempfile.gettempdir()) == scratch()
        assert tempfile.gettempdir() == short


def test_where_a_socket_could_have_no_name_there_they_stay_where_they_are(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = temporary / ("x" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with temporary_files_in_scratch():
        assert Path(tempfile.gettempdir()) == deep


def test_without_a_place_it_says_what_to_set(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", refuse)
    with pytest.raises(ConfigError, match="set TMPDIR to a folder that this user may write"):
        own_folder()


def test_libraries_write_there_for_a_user_without_home_and_name(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is run as a number; torch names its folder after the user."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    monkeypatch.setenv("HOME", str(temporary / "nonexistent"))
    lasting = ("TORCHINDUCTOR_CACHE_DIR", "MPLCONFIGDIR")
    for name in (*lasting, "YOLO_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(KeyError):
        default_cache_dir()
    place_library_files()
    assert {Path(os.environ[name]).parent for name in lasting} == {own_folder()}
    # One that another process is writing is read as if it were empty.
    assert Path(os.environ["YOLO_CONFIG_DIR"]).parent == scratch()


def test_without_any_home_there_is_one_for_libraries(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's training, which ultralytics imports where it is installed, asks for one."""
    monkeypatch.setenv("HOME", "~")  # as it stands where neither HOME nor the user tells one
    place_library_files()
    assert Path.home() == own_folder()


def test_where_the_environment_says_so_libraries_write_elsewhere(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(temporary))  # can be written: matplotlib keeps its own place
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.setenv("YOLO_CONFIG_DIR", "/elsewhere")
    place_library_files()
    assert os.environ["YOLO_CONFIG_DIR"] == "/elsewhere"
    assert "MPLCONFIGDIR" not in os.environ
